//! Damaged and hostile bootstraps: they are refused, or their files are consistent.

use std::collections::BTreeMap;

use ocikit_image::files::{FileKind, Kind, Path};
use ocikit_image::testing::{Compression, Tar, random};
use ocikit_lazy::rafs::{ChunkSize, NydusBootstrap, RafsVersion, to_nydus};

use super::convert::{bootstrap_layer, image_of, options};
use super::hard;

/// The position and width of a number in a bootstrap, and what it is.
type Field = (usize, usize, &'static str);

async fn bootstrap(version: RafsVersion, tars: &[Vec<u8>], chunk_size: u32) -> Vec<u8> {
    let image = image_of(Compression::None, tars).await;
    let mut options = options();
    options.version = version;
    options.chunk_size = ChunkSize::new(chunk_size).unwrap();
    let converted = to_nydus(&image, &options).await.unwrap().image;
    bootstrap_layer(&converted).await.remove("image/image.boot").unwrap()
}

/// A small image with a file of each kind.
fn small() -> Vec<Vec<u8>> {
    let lower = Tar::new()
        .directory("d")
        .directory("d/e")
        .file("d/e/large", &random(1, 10_000))
        .file("d/text", &b"text ".repeat(2000))
        .file("empty", b"")
        .records(&[("SCHILY.xattr.user.a", b"one"), ("SCHILY.xattr.security.b", b"two")])
        .file("attributes", b"x")
        .link("link", "d/e/large")
        .symlink("symlink", "d/text")
        .device(b'3', "null", 1, 3)
        .entry(b'6', "fifo", "", b"");
    vec![lower.finish(), Tar::new().file("upper", &random(2, 5000)).finish()]
}

fn number(bytes: &[u8], at: usize, width: usize) -> u64 {
    bytes[at..at + width].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn position(bytes: &[u8], at: usize, width: usize) -> usize {
    usize::try_from(number(bytes, at, width)).unwrap()
}

const SUPERBLOCK_V6: [(usize, usize); 15] = [
    (0, 4),
    (4, 4),
    (8, 4),
    (12, 1),
    (13, 1),
    (14, 2),
    (16, 8),
    (24, 8),
    (32, 4),
    (36, 4),
    (40, 4),
    (44, 4),
    (80, 4),
    (86, 2),
    (88, 2),
];
const EXTENDED_V6: [(usize, usize); 8] = [(0, 8), (8, 8), (16, 4), (20, 4), (24, 8), (32, 8), (40, 8), (48, 4)];
const BLOB_V6: [(usize, usize); 15] = [
    (0, 1),
    (63, 1),
    (64, 4),
    (68, 4),
    (72, 4),
    (76, 4),
    (80, 4),
    (84, 4),
    (88, 8),
    (96, 8),
    (104, 4),
    (108, 4),
    (112, 8),
    (120, 8),
    (128, 8),
];
const CHUNK: [(usize, usize); 10] =
    [(0, 8), (32, 4), (36, 4), (40, 4), (44, 4), (48, 8), (56, 8), (64, 8), (72, 4), (76, 4)];
const INODE_V6: [(usize, usize); 11] =
    [(0, 2), (2, 2), (4, 2), (8, 8), (16, 4), (20, 4), (24, 4), (28, 4), (32, 8), (40, 4), (44, 4)];
const SUPERBLOCK_V5: [(usize, usize); 14] = [
    (0, 4),
    (4, 4),
    (8, 4),
    (12, 4),
    (16, 8),
    (24, 8),
    (32, 8),
    (40, 8),
    (48, 8),
    (56, 4),
    (60, 4),
    (64, 4),
    (68, 4),
    (72, 8),
];
const INODE_V5: [(usize, usize); 18] = [
    (0, 8),
    (32, 8),
    (40, 8),
    (48, 4),
    (52, 4),
    (56, 4),
    (60, 4),
    (64, 8),
    (72, 8),
    (80, 8),
    (88, 4),
    (92, 4),
    (96, 4),
    (100, 2),
    (102, 2),
    (104, 4),
    (108, 4),
    (112, 8),
];

fn all(fields: &mut Vec<Field>, base: usize, of: &[(usize, usize)], what: &'static str) {
    fields.extend(of.iter().map(|(at, width)| (base + at, *width, what)));
}

/// Returns all fields of a valid bootstrap of version 6.
fn fields_v6(bytes: &[u8]) -> Vec<Field> {
    let mut fields = Vec::new();
    all(&mut fields, 1024, &SUPERBLOCK_V6, "superblock");
    all(&mut fields, 1152, &EXTENDED_V6, "extended superblock");
    let (table, size) = (position(bytes, 1152 + 8, 8), position(bytes, 1152 + 16, 4));
    for number in 0..size / 256 {
        all(&mut fields, 1408 + number * 128, &[(0, 1), (64, 4), (68, 4)], "device");
        all(&mut fields, table + number * 256, &BLOB_V6, "blob");
    }
    let (chunks, size) = (position(bytes, 1152 + 24, 8), position(bytes, 1152 + 32, 8));
    (0..size / 80).for_each(|number| all(&mut fields, chunks + number * 80, &CHUNK, "chunk"));
    let metadata = position(bytes, 1024 + 40, 4) * 4096;
    let mut inodes = vec![position(bytes, 1024 + 14, 2)];
    let mut seen = std::collections::BTreeSet::new();
    while let Some(inode) = inodes.pop().filter(|inode| seen.insert(*inode)) {
        let at = metadata + inode * 32;
        all(&mut fields, at, &INODE_V6, "inode");
        let attributes = match position(bytes, at + 2, 2) {
            0 => 0,
            count => 12 + (count - 1) * 4,
        };
        if attributes > 0 {
            all(&mut fields, at + 64, &[(0, 4), (4, 1), (12, 1), (13, 1), (14, 2), (16, 1)], "attribute");
        }
        let (end, length) = (at + 64 + attributes, position(bytes, at + 8, 8));
        match number(bytes, at + 4, 2) & 0o170_000 {
            0o040_000 => {
                let is_inline = number(bytes, at, 2) >> 1 & 7 == 2;
                let block = if is_inline { end } else { position(bytes, at + 16, 4) * 4096 };
                for entry in 0..position(bytes, block + 8, 2) / 12 {
                    let entry = block + entry * 12;
                    all(&mut fields, entry, &[(0, 8), (8, 2), (10, 1)], "directory entry");
                    all(&mut fields, block + position(bytes, entry + 8, 2), &[(0, 1), (1, 1)], "name");
                    inodes.push(position(bytes, entry, 8));
                }
                inodes.sort_unstable();
                inodes.dedup();
                inodes.retain(|inode| !seen.contains(inode));
            }
            0o100_000 => {
                for chunk in 0..length.div_ceil(4096) {
                    all(&mut fields, end.next_multiple_of(8) + chunk * 8, &[(0, 2), (2, 2), (4, 4)], "chunk address");
                }
            }
            _ => {}
        }
    }
    fields
}

/// Returns all fields of a valid bootstrap of version 5.
fn fields_v5(bytes: &[u8]) -> Vec<Field> {
    let mut fields = Vec::new();
    all(&mut fields, 0, &SUPERBLOCK_V5, "superblock");
    let (table, count) = (position(bytes, 32, 8), position(bytes, 56, 4));
    all(&mut fields, position(bytes, 48, 8), &[(0, 4), (4, 4), (8, 1), (72, 1)], "blob");
    all(&mut fields, position(bytes, 72, 8), &[(0, 4), (4, 4), (8, 8), (16, 8)], "extended blob");
    for inode in 0..count {
        all(&mut fields, table + inode * 4, &[(0, 4)], "inode table");
        let at = position(bytes, table + inode * 4, 4) * 8;
        all(&mut fields, at, &INODE_V5, "inode");
        let name = position(bytes, at + 100, 2).next_multiple_of(8);
        let target = position(bytes, at + 102, 2).next_multiple_of(8);
        all(&mut fields, at + 128, &[(0, 1), (1, 1)], "name");
        let mut end = at + 128 + name + target;
        if number(bytes, at + 80, 8) & 4 != 0 {
            all(&mut fields, end, &[(0, 8), (8, 4), (12, 1)], "attribute");
            end += 8 + position(bytes, end, 8).next_multiple_of(8);
        }
        if number(bytes, at + 60, 4) & 0o170_000 == 0o100_000 {
            let chunks = position(bytes, at + 96, 4);
            (0..chunks).for_each(|chunk| all(&mut fields, end + chunk * 80, &CHUNK, "chunk"));
        }
    }
    fields
}

/// Returns values that are likely to be handled wrongly: limits, neighbours, the field itself in all units, and the end.
fn values(bytes: &[u8], (at, width, _): Field) -> Vec<u64> {
    let (old, own, length) = (number(bytes, at, width), at as u64, bytes.len() as u64);
    let metadata = number(bytes, 1024 + 40, 4).wrapping_mul(4096);
    let mut values =
        vec![0, 1, u64::MAX, 1 << (width * 8 - 1), (1 << (width * 8 - 1)) - 1, u64::from(b'/'), u64::from(b'.')];
    values.extend([old.wrapping_add(1), old.wrapping_sub(1), old.wrapping_mul(2), old ^ 0x8000, old << 8]);
    values.extend([own, own / 8, own / 4096, own.wrapping_sub(metadata) / 32]);
    values.extend([length, length / 8, length / 32, length / 4096, length - 1, length.wrapping_sub(metadata) / 32]);
    values
}

fn changed(bytes: &[u8], changes: &[(Field, u64)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for ((at, width, _), value) in changes {
        bytes[*at..at + width].copy_from_slice(&value.to_le_bytes()[..*width]);
    }
    bytes
}

/// Checks a bootstrap that was read: directories come before their contents, no path is there twice, names lead nowhere
/// else, and hard links have targets. Returns whether it was accepted.
fn is_consistent(bytes: &[u8], what: &dyn Fn() -> String) -> bool {
    let Ok(read) = NydusBootstrap::read(&bytes.to_vec()) else { return false };
    // A root without metadata is not listed.
    let root = Path::root();
    let mut known: BTreeMap<&Path, bool> = BTreeMap::from([(&root, true)]);
    for entry in read.entries().iter().filter(|entry| !entry.path.is_root()) {
        let is_directory = matches!(entry.kind, Kind::File(FileKind::Directory));
        let parent = entry.path.parent();
        let has_place = parent.as_ref().is_some_and(|parent| known.get(parent) == Some(&true));
        let mut parts = entry.path.as_bytes().split(|byte| *byte == b'/');
        let leads_out = parts.any(|part| matches!(part, b"." | b"..") || part.contains(&0));
        assert!(has_place && !leads_out, "{}: {}", what(), entry.path);
        if let Kind::HardLink { target } = &entry.kind {
            assert_eq!(known.get(target), Some(&false), "{}: {}", what(), entry.path);
        }
        assert_eq!(known.insert(&entry.path, is_directory), None, "{}: {}", what(), entry.path);
    }
    assert!(known.len() < 1000 && read.chunk_count() < 1000, "{}", what());
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn every_number_of_a_bootstrap_may_be_wrong() {
    for version in [RafsVersion::V5, RafsVersion::V6] {
        let good = bootstrap(version, &small(), 4096).await;
        let fields = if version == RafsVersion::V5 { fields_v5(&good) } else { fields_v6(&good) };
        let kinds: std::collections::BTreeSet<_> = fields.iter().map(|field| field.2).collect();
        assert!(kinds.len() >= 8 && fields.len() > 300, "{version}: {} {kinds:?}", fields.len());
        let (mut refused, mut tried) = (0, 0);
        let mut attempt = |changes: &[(Field, u64)]| {
            tried += 1;
            refused += usize::from(!is_consistent(&changed(&good, changes), &|| format!("{version} {changes:?}")));
        };
        for field in &fields {
            values(&good, *field).into_iter().for_each(|value| attempt(&[(*field, value)]));
        }
        // Two at once: a table that refers to another one, for example.
        for seed in 0..20_000_u64 {
            let pick = random(seed, 4 * 4);
            let pick = |at: usize| usize::try_from(number(&pick, at * 4, 4)).unwrap();
            let change = |at: usize| {
                let field = fields[pick(at) % fields.len()];
                let values = values(&good, field);
                (field, values[pick(at + 1) % values.len()])
            };
            attempt(&[change(0), change(2)]);
        }
        assert!(refused > tried / 3, "{version}: {refused} of {tried} refused");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_bootstraps_are_refused_or_read() {
    for version in [RafsVersion::V5, RafsVersion::V6] {
        let good = bootstrap(version, &hard::layers(), 1 << 20).await;
        assert!(NydusBootstrap::read(&good).is_ok());
        // Zeros may follow the last table.
        for length in (0..good.len() - 4096).step_by(good.len() / 50) {
            assert!(NydusBootstrap::read(&good[..length].to_vec()).is_err(), "{version} cut to {length}");
        }
        // Every byte of the tables, and some others.
        let positions = (0..10_000).chain((10_000..good.len()).step_by(97)).step_by(3);
        let mut refused = 0;
        for position in positions {
            let mut bytes = good.clone();
            bytes[position] ^= 0xff;
            if let Ok(read) = NydusBootstrap::read(&bytes) {
                assert!(read.entries().len() < 10_000);
            } else {
                refused += 1;
            }
        }
        assert!(refused > 100, "{version}: {refused}");
    }
}

/// An EROFS inode of 64 bytes.
fn inode(mode: u16, layout: u16, size: u64, union: u32, number: u32) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..2].copy_from_slice(&(1 | layout << 1).to_le_bytes());
    bytes[4..6].copy_from_slice(&mode.to_le_bytes());
    bytes[8..16].copy_from_slice(&size.to_le_bytes());
    bytes[16..20].copy_from_slice(&union.to_le_bytes());
    bytes[20..24].copy_from_slice(&number.to_le_bytes());
    bytes[44] = 1;
    bytes
}

/// Returns a bootstrap of version 6 whose directories are made by the function from their number.
fn chain_of_directories(good: &[u8], directories: &[Vec<(Vec<u8>, u64)>], files: u64) -> Vec<u8> {
    let mut bytes = good[..4096].to_vec();
    bytes[1024 + 40..][..4].fill(0);
    bytes[1024 + 14..][..2].copy_from_slice(&128_u16.to_le_bytes());
    bytes[1024 + 86..][..2].fill(0);
    for (at, width) in [(16, 4), (24, 8), (32, 8), (40, 8), (48, 4)] {
        bytes[1152 + at..][..width].fill(0);
    }
    // The inodes come first, then the blocks of the directories.
    let inodes = 4096 + (directories.len() as u64 + files) * 64;
    let mut next = inodes.div_ceil(4096);
    let mut blocks = Vec::new();
    for (number, entries) in directories.iter().enumerate() {
        let mut data = Vec::new();
        let mut rest = &entries[..];
        while !rest.is_empty() {
            let mut count = 0;
            let mut used = 0;
            while count < rest.len() && used + 12 + rest[count].0.len() <= 4096 {
                used += 12 + rest[count].0.len();
                count += 1;
            }
            let mut names: Vec<u8> = Vec::new();
            let mut block = Vec::new();
            for (name, inode) in &rest[..count] {
                block.extend(inode.to_le_bytes());
                block.extend(u16::try_from(count * 12 + names.len()).unwrap().to_le_bytes());
                block.extend([0, 0]);
                names.extend(name);
            }
            block.extend(names);
            block.resize(4096, 0);
            data.extend(block);
            rest = &rest[count..];
        }
        let (size, block) = (data.len() as u64, u32::try_from(next).unwrap());
        bytes.extend(inode(0o040_755, 0, size, block, u32::try_from(number + 1).unwrap()));
        next += size / 4096;
        blocks.extend(data);
    }
    for number in 0..files {
        bytes.extend(inode(0o100_644, 4, 0, 0x20, u32::try_from(number + 100).unwrap()));
    }
    bytes.resize(usize::try_from(inodes.next_multiple_of(4096)).unwrap(), 0);
    bytes.extend(blocks);
    bytes
}

/// The address of an inode.
fn address(number: u64) -> u64 {
    128 + number * 2
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_of_many_files_are_limited_before_they_are_kept() {
    let good = bootstrap(RafsVersion::V6, &small(), 4096).await;
    // Fifteen nested directories with names of 255 bytes, and very many files in the last one, which are one inode.
    let mut directories: Vec<Vec<(Vec<u8>, u64)>> =
        (1..16).map(|number| vec![(vec![b'd'; 255], address(number))]).collect();
    let files = |count: u32| (0..count).map(|number| (format!("{number:07}").into_bytes(), address(16))).collect();
    directories.push(files(10));
    let read = NydusBootstrap::read(&chain_of_directories(&good, &directories, 1)).unwrap();
    assert_eq!(read.entries().len(), 25);
    // The paths are too long, or the names are too many.
    for count in [100_000, 1_000_000] {
        *directories.last_mut().unwrap() = files(count);
        let error = NydusBootstrap::read(&chain_of_directories(&good, &directories, 1)).unwrap_err();
        assert!(error.to_string().contains("list of files"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_lead_nowhere_else() {
    let good = bootstrap(RafsVersion::V6, &small(), 4096).await;
    for name in [&b"a/b"[..], b"/", b"../x", b"a\0b", b""] {
        let directories = [vec![(name.to_vec(), address(1)), (b"z".to_vec(), address(1))]];
        let error = NydusBootstrap::read(&chain_of_directories(&good, &directories, 1)).unwrap_err();
        assert!(error.to_string().contains("is invalid"), "{error}");
    }
    // A directory that contains itself, and two that contain each other.
    for directories in [
        vec![vec![(b"a".to_vec(), address(0))]],
        vec![vec![(b"a".to_vec(), address(1))], vec![(b"b".to_vec(), address(0))]],
    ] {
        let error = NydusBootstrap::read(&chain_of_directories(&good, &directories, 0)).unwrap_err();
        assert!(error.to_string().contains("has two names"), "{error}");
    }
}
