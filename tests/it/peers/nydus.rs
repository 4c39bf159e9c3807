//! Nydus images, read and written by the programs of Nydus, by erofs-utils and by Linux. The expected files are always those of
//! the source tars.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use ocikit_archive::layer::{Budget, RawReader};
use ocikit_archive::{Compression, Decoder};
use ocikit_image::files::FileKind;
use ocikit_image::testing::{Tar, image_of, random};
use ocikit_image::{CopyOptions, Memory, Naming, Root, Sink, copy};
use ocikit_layout::Dir;
use ocikit_lazy::rafs::{Deduplicate, Dictionary, NydusOptions, RafsVersion, to_nydus};
use ocikit_tests::{Bench, Daemon, Peers, write_image};
use serde_json::{Value, json};

use super::lazy::{layers, layout_of};
use crate::bench;

#[path = "../../../crates/ocikit-lazy/tests/it/nydus/devices.rs"]
mod devices;
#[allow(dead_code, reason = "a part of it is for other tests")]
#[path = "../../../crates/ocikit-lazy/tests/it/nydus/hard.rs"]
mod hard;

use hard::{Files, Seen};

/// RAFS version, compression and chunk size.
const CASES: [[&str; 3]; 6] = [
    ["6", "zstd", "1048576"],
    ["6", "lz4_block", "65536"],
    ["6", "none", "16777216"],
    ["6", "zstd", "4096"],
    ["5", "zstd", "1048576"],
    ["5", "lz4_block", "262144"],
];

/// The parts of a Nydus image as files.
struct Parts {
    bootstrap: PathBuf,
    /// A directory with the blobs, named by their digests.
    blobs: PathBuf,
    ids: Vec<String>,
}

/// Converts an image with these layers.
fn converted(bench: &Bench, tars: &[Vec<u8>], case: [&str; 3]) -> Parts {
    let source = bench.path("source");
    if !source.exists() {
        write_image(&source, Compression::Gzip, tars);
    }
    let [version, compressor, chunk_size] = case;
    let name = case.join("-");
    let target = format!("oci:{}:1", bench.path(&name).display());
    let line = ["convert", "--to", "nydus", "--rafs-version", version, "--compressor", compressor];
    bench.ok(&[&line[..], &["--chunk-size", chunk_size, "oci:source:1", "-o", &target]].concat());
    parts(bench, &target, &name)
}

/// Puts the blobs and the bootstrap of an image in a layout beside each other.
fn parts(bench: &Bench, image: &str, name: &str) -> Parts {
    let blobs = bench.path(&format!("{name}-blobs"));
    fs::create_dir(&blobs).unwrap();
    let all = layers(bench, image);
    let (last, rest) = all.split_last().unwrap();
    for (_, file) in rest {
        fs::copy(file, blobs.join(file.file_name().unwrap())).unwrap();
    }
    let bootstrap = bench.path(&format!("{name}.boot"));
    fs::write(&bootstrap, file_of(&fs::read(&last.1).unwrap(), "image/image.boot")).unwrap();
    let ids = &last.0["annotations"]["containerd.io/snapshot/nydus-blob-ids"];
    Parts { bootstrap, blobs, ids: serde_json::from_str(ids.as_str().unwrap()).unwrap() }
}

/// Returns a file of a compressed tar.
fn file_of(layer: &[u8], path: &str) -> Vec<u8> {
    let budget = Budget::new();
    let mut reader = RawReader::within(&budget, Decoder::new(layer).unwrap());
    while let Some(entry) = reader.next_entry(&mut Vec::new()).unwrap() {
        if entry.path.as_bytes() == path.as_bytes() {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            return bytes;
        }
    }
    panic!("{path} is missing");
}

impl Parts {
    fn blob(&self, id: &str) -> Vec<u8> {
        fs::read(self.blobs.join(id)).unwrap()
    }

    /// Writes the configuration with which the programs of Nydus find the blobs.
    fn config(&self) -> PathBuf {
        let path = self.bootstrap.with_extension("json");
        let cache = self.bootstrap.with_extension("cache");
        fs::create_dir_all(&cache).unwrap();
        let config = json!({
            "device": {
                "backend": {"type": "localfs", "config": {"dir": self.blobs}},
                "cache": {"type": "blobcache", "config": {"work_dir": cache}},
            },
            "mode": "direct", "digest_validate": false, "enable_xattr": true,
        });
        fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// Writes a device for each blob, and returns their paths.
    fn devices(&self) -> Vec<PathBuf> {
        let bootstrap = fs::read(&self.bootstrap).unwrap();
        let ids = devices::blob_ids(&bootstrap);
        let blobs: BTreeMap<String, Vec<u8>> = ids.iter().map(|id| (id.clone(), self.blob(id))).collect();
        let write = |(number, bytes): (usize, Vec<u8>)| {
            let path = self.bootstrap.with_extension(format!("dev{number}"));
            fs::write(&path, bytes).unwrap();
            path
        };
        devices::devices(&bootstrap, &blobs).into_iter().enumerate().map(write).collect()
    }
}

/// Returns what a mount of a Nydus image has to show.
fn expected(tars: &[Vec<u8>]) -> Files {
    let mut files = hard::source(tars);
    files.values_mut().for_each(|seen| drop(seen.xattrs.remove(hard::LOST_XATTR)));
    files
}

#[track_caller]
fn assert_same(expected: &Files, found: &Files, what: &str) {
    let differences = hard::differences(expected, found);
    assert!(differences.is_empty(), "{what}: {} of {} files\n{}", found.len(), expected.len(), differences.join("\n"));
}

/// Returns all files below a directory.
fn seen_in(root: &Path) -> Files {
    let mut paths = vec![root.to_owned()];
    let mut at = 0;
    while let Some(path) = paths.get(at).cloned() {
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            paths.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        at += 1;
    }
    let name = |path: &Path| path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
    paths.sort_by_key(|path| name(path));
    let mut first_names: HashMap<u64, Vec<u8>> = HashMap::new();
    let seen = paths.iter().map(|path| {
        let metadata = fs::symlink_metadata(path).unwrap();
        let (mut contents, path_name) = (Vec::new(), name(path));
        let device = || (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
        let kind = match metadata.mode() & 0o170_000 {
            0o010_000 => FileKind::Fifo,
            0o020_000 => FileKind::CharacterDevice { major: device().0, minor: device().1 },
            0o040_000 => FileKind::Directory,
            0o060_000 => FileKind::BlockDevice { major: device().0, minor: device().1 },
            0o100_000 => {
                contents = fs::read(path).unwrap();
                FileKind::Regular { size: metadata.len() }
            }
            _ => FileKind::Symlink { target: fs::read_link(path).unwrap().as_os_str().as_bytes().into() },
        };
        let is_directory = metadata.is_dir();
        let first_name = match is_directory {
            true => path_name.clone(),
            false => first_names.entry(metadata.ino()).or_insert_with(|| path_name.clone()).clone(),
        };
        let seen = Seen {
            kind: hard::kind_of(&kind, &contents),
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid().into(), metadata.gid().into()),
            modified: (metadata.mtime(), u32::try_from(metadata.mtime_nsec()).unwrap()),
            links: if is_directory { 0 } else { metadata.nlink() },
            first_name,
            xattrs: xattrs(path),
        };
        (path_name, seen)
    });
    seen.collect()
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(length);
        (String::from_utf8(name.to_vec()).unwrap(), value)
    };
    names.map(value).collect()
}

/// Returns whether file systems can be mounted here; otherwise says so.
fn can_mount(needed: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root || !Path::new(needed).exists() {
        #[allow(clippy::print_stderr, reason = "a skipped test says so")]
        {
            eprintln!("skipped: mounting needs root and {needed}");
        }
        return false;
    }
    true
}

/// A mounted directory, and loop devices; taken back in the end.
struct Mount {
    directory: PathBuf,
    devices: Vec<String>,
    daemon: Option<Daemon>,
}

impl Drop for Mount {
    fn drop(&mut self) {
        let run = |program: &str, arguments: &[&OsStr]| {
            let _ = Command::new(program).args(arguments).output();
        };
        match &mut self.daemon {
            Some(daemon) => daemon.stop(),
            None => run("umount", &[self.directory.as_os_str()]),
        }
        self.devices.iter().for_each(|device| run("/sbin/losetup", &["-d".as_ref(), device.as_ref()]));
    }
}

/// Mounts an image with `nydusd`.
fn nydusd(peers: &Peers, parts: &Parts) -> Mount {
    let directory = parts.bootstrap.with_extension("mount");
    fs::create_dir(&directory).unwrap();
    let device = fs::metadata(&directory).unwrap().dev();
    let mut command = peers.command("nydusd");
    command.arg("--config").arg(parts.config()).arg("--mountpoint").arg(&directory).arg("--bootstrap");
    // Its default is more than the limit of many machines, where it ends with "Operation not permitted".
    command.arg(&parts.bootstrap).args(["--log-level", "error", "--rlimit-nofile", "4096"]);
    let daemon = Daemon::start(command, &parts.bootstrap.with_extension("log"));
    let mut mount = Mount { directory: directory.clone(), devices: Vec::new(), daemon: Some(daemon) };
    let is_mounted = || fs::metadata(&directory).is_ok_and(|metadata| metadata.dev() != device);
    mount.daemon.as_mut().unwrap().wait(is_mounted);
    mount
}

/// Mounts an image with Linux. `None` if it has no free loop device.
fn erofs(peers: &Peers, parts: &Parts) -> Option<Mount> {
    let directory = parts.bootstrap.with_extension("erofs");
    fs::create_dir(&directory).unwrap();
    let mut mount = Mount { directory, devices: Vec::new(), daemon: None };
    let mut files = parts.devices();
    files.push(parts.bootstrap.clone());
    for file in &files {
        let outcome = peers.run(&format!("losetup -f --show --read-only {}", file.display()));
        if outcome.code != 0 {
            return None;
        }
        mount.devices.push(outcome.stdout.trim().to_owned());
    }
    let (image, devices) = mount.devices.split_last().unwrap();
    let options: String = devices.iter().map(|device| format!(",device={device}")).collect();
    peers.ok(&format!("mount -t erofs -o ro{options} {image} {}", mount.directory.display()));
    Some(mount)
}

/// `nydusd` shows the time of the mount for files of 1970.
fn without_1970(mut files: Files, source: &Files) -> Files {
    for (path, seen) in &mut files {
        if source.get(path).is_some_and(|source| source.modified == (0, 0)) {
            seen.modified = (0, 0);
        }
    }
    files
}

#[test]
fn images_are_those_of_the_source_for_nydus() {
    let Some(peers) = Peers::find(&["nydus-image", "nydusd"]) else { return };
    let (bench, tars) = (bench(), hard::layers());
    let expected = expected(&tars);
    let can_mount = can_mount("/dev/fuse");
    for case in CASES {
        let parts = converted(&bench, &tars, case);
        let result = parts.bootstrap.with_extension("check");
        let check = format!("nydus-image check -l error -D {} -J {}", parts.blobs.display(), result.display());
        peers.ok(&format!("{check} {}", parts.bootstrap.display()));
        let result: Value = serde_json::from_slice(&fs::read(result).unwrap()).unwrap();
        assert_eq!(result["blobs"], json!(parts.ids), "{case:?}");
        if can_mount {
            let mount = nydusd(&peers, &parts);
            assert_same(&expected, &without_1970(seen_in(&mount.directory), &expected), &format!("{case:?}"));
        }
    }
}

/// A chunk dictionary, and chunks that layers share.
#[test]
fn images_that_share_chunks_are_those_of_the_source_for_nydus() {
    let Some(peers) = Peers::find(&["nydus-image", "nydusd"]) else { return };
    let (bench, tars) = (bench(), hard::layers());
    let expected = expected(&tars);
    for (version, deduplicate, has_dictionary) in [
        (RafsVersion::V6, Deduplicate::Image, false),
        (RafsVersion::V6, Deduplicate::Layer, true),
        (RafsVersion::V5, Deduplicate::Image, true),
    ] {
        let name = format!("{version}-{has_dictionary}");
        let directory = bench.path(&name);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let image = async |tars: &[Vec<u8>]| {
                let memory = Arc::new(Memory::new());
                let image = image_of(&memory, &"linux/amd64".parse().unwrap(), Compression::Gzip, tars);
                let Root::Image(image) = Root::at(memory, image).await.unwrap() else { panic!("an image") };
                image
            };
            let mut options = NydusOptions::default();
            (options.version, options.deduplicate, options.directory) = (version, deduplicate, Some(bench.path("")));
            if has_dictionary {
                let base = to_nydus(&image(&tars[..1]).await, &options).await.unwrap().image;
                options.dictionary = Some(Dictionary::open(&base, bench.path("")).await.unwrap());
            }
            let converted = to_nydus(&image(&tars).await, &options).await.unwrap().image;
            let sink: Arc<dyn Sink> = Arc::new(Dir::create(&directory).await.unwrap());
            let names = CopyOptions::default().names(vec![Naming::of_tag("1".parse().unwrap())]);
            copy(&Root::Image(converted), &sink, &names).await.unwrap();
        });
        let parts = parts(&bench, &format!("oci:{}:1", directory.display()), &name);
        let (blobs, boot) = (parts.blobs.display(), parts.bootstrap.display());
        peers.ok(&format!("nydus-image check -l error -D {blobs} {boot}"));
        if can_mount("/dev/fuse") {
            let mount = nydusd(&peers, &parts);
            assert_same(&expected, &without_1970(seen_in(&mount.directory), &expected), &name);
        }
    }
}

#[test]
fn images_without_layers_or_contents_are_accepted_by_nydus() {
    let Some(peers) = Peers::find(&["nydus-image", "nydusd"]) else { return };
    let metadata = Tar::new().directory("d").symlink("d/s", "t").entry(b'6', "fifo", "", b"").finish();
    for tars in [vec![], vec![Tar::new().finish()], vec![metadata]] {
        let bench = bench();
        for case in [CASES[0], CASES[4]] {
            let parts = converted(&bench, &tars, case);
            peers.ok(&format!("nydus-image check -l error --bootstrap {}", parts.bootstrap.display()));
            if can_mount("/dev/fuse") {
                let (mount, expected) = (nydusd(&peers, &parts), expected(&tars));
                assert_same(&expected, &without_1970(seen_in(&mount.directory), &expected), &format!("{case:?}"));
            }
        }
    }
}

/// `nydus-image unpack` reads images with one blob only. It leaves out the root, fractions of seconds, and hard links of other
/// files than regular ones.
#[test]
fn images_of_one_layer_are_unpacked_by_nydus() {
    let Some(peers) = Peers::find(&["nydus-image"]) else { return };
    let (bench, tars) = (bench(), hard::layers()[..1].to_vec());
    let mut expected = expected(&tars);
    expected.remove(&b""[..]);
    for (path, seen) in &mut expected {
        seen.modified.1 = 0;
        if !seen.kind.starts_with("file") && seen.kind != "directory" {
            (seen.links, seen.first_name) = (1, path.clone());
        }
    }
    for case in CASES {
        let parts = converted(&bench, &tars, case);
        let output = parts.bootstrap.with_extension("tar");
        let blob = parts.blobs.join(&parts.ids[0]);
        let (config, boot) = (parts.config(), &parts.bootstrap);
        let line = format!("nydus-image unpack -l error -C {} --blob {}", config.display(), blob.display());
        peers.ok(&format!("{line} --output {} {}", output.display(), boot.display()));
        let mut found = hard::source(&[fs::read(output).unwrap()]);
        found.remove(&b""[..]);
        assert_same(&expected, &found, &format!("{case:?}"));
    }
}

#[test]
fn a_damaged_bootstrap_is_found_by_nydus() {
    let Some(peers) = Peers::find(&["nydus-image"]) else { return };
    let (bench, tars) = (bench(), hard::layers());
    let check = |parts: &Parts| {
        peers.run(&format!("nydus-image check -l error --bootstrap {}", parts.bootstrap.display())).code
    };
    // Version 5 has digests of all inodes, version 6 none. The owner of the root is changed, and its inode.
    for (case, at) in [(CASES[4], None), (CASES[0], Some(1024 + 14))] {
        let parts = converted(&bench, &tars, case);
        let mut bytes = fs::read(&parts.bootstrap).unwrap();
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let at = at.unwrap_or_else(|| number(8192) * 8);
        assert_eq!(check(&parts), 0, "{case:?}");
        bytes[at] ^= 1;
        fs::write(&parts.bootstrap, bytes).unwrap();
        assert_ne!(check(&parts), 0, "{case:?}");
    }
}

#[test]
fn images_are_those_of_the_source_for_erofs() {
    let Some(peers) = Peers::find(&["fsck.erofs", "dump.erofs", "losetup", "mount"]) else { return };
    let (bench, tars) = (bench(), hard::layers());
    let expected = expected(&tars);
    let can_mount = can_mount("/dev/loop-control");
    for case in CASES.into_iter().filter(|case| case[0] == "6") {
        let parts = converted(&bench, &tars, case);
        let devices: String = parts.devices().iter().map(|device| format!("--device={} ", device.display())).collect();
        let extracted = parts.bootstrap.with_extension("extracted");
        let boot = parts.bootstrap.display();
        peers.ok(&format!("fsck.erofs {devices} --extract={} {boot}", extracted.display()));
        assert_same(&as_extracted(expected.clone()), &as_extracted(seen_in(&extracted)), &format!("{case:?}"));
        let dumped = peers.ok(&format!("dump.erofs {devices} -e --path=/sizes/random {boot}"));
        assert!(dumped.contains("5200000"), "{dumped}");
        if can_mount {
            let Some(mount) = erofs(&peers, &parts) else { continue };
            assert_same(&expected, &seen_in(&mount.directory), &format!("{case:?} by Linux"));
        }
    }
}

/// `fsck.erofs` extracts neither extended attributes nor hard links, and loses the bits for other users and groups.
fn as_extracted(mut files: Files) -> Files {
    for (path, seen) in &mut files {
        seen.xattrs.clear();
        // Linux has one mode for all symlinks.
        seen.mode = if seen.kind.starts_with("symlink") { 0o777 } else { seen.mode & 0o1777 };
        (seen.links, seen.first_name) = (0, path.clone());
    }
    files
}

/// The layers of an image that `nydus-image` can convert: it refuses or misplaces more than this.
fn simple() -> Vec<Vec<u8>> {
    let lower = Tar::new()
        .modified(70)
        .directory("./")
        .directory("etc")
        .file("etc/passwd", b"root:x:0:0::/root:/bin/sh\n")
        .mode(0o4755)
        .file("etc/suid", b"s")
        .link("etc/suid2", "etc/suid")
        .mode(0o644)
        .symlink("etc/link", "passwd")
        .records(&[("SCHILY.xattr.user.a", b"one")])
        .file("etc/attribute", b"a")
        .directory("gone")
        .file("gone/a", b"a")
        .directory("opaque")
        .file("opaque/old", b"old")
        .file("large", &random(5, 5_200_000))
        .file("zeros", &vec![0; 3 << 20])
        .file("empty", b"")
        .records(&[("path", "n".repeat(255).as_bytes())])
        .file("short", b"long")
        .device(b'3', "null", 1, 3)
        .device(b'4', "disk", 8, 1)
        .device(b'6', "fifo", 0, 0);
    let upper = Tar::new()
        .modified(80)
        .directory("./")
        .file(".wh.gone", b"")
        .directory("opaque")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"new")
        .file("again", &random(5, 5_200_000))
        .directory("etc")
        .file("etc/passwd", b"changed");
    vec![lower.finish(), upper.finish()]
}

/// Converts layers with `nydus-image`, and returns the location of the image.
fn converted_by_nydus(bench: &Bench, peers: &Peers, tars: &[Vec<u8>], version: &str, compressor: &str) -> String {
    let directory = bench.path(&format!("{version}-{compressor}"));
    let (mut layers, mut bootstraps) = (Vec::new(), Vec::new());
    for (number, tar) in tars.iter().enumerate() {
        let [source, blobs, bootstrap] =
            ["tar", "blobs", "boot"].map(|name| directory.join(format!("{number}-{name}")).display().to_string());
        fs::create_dir_all(&blobs).unwrap();
        fs::write(&source, tar).unwrap();
        peers.ok(&format!(
            "nydus-image create -l error -t tar-rafs --whiteout-spec none --fs-version {version} \
             --compressor {compressor} --bootstrap {bootstrap} --blob-dir {blobs} {source}"
        ));
        let blob = fs::read_dir(&blobs).unwrap().next().unwrap().unwrap().path();
        // Merging takes the name of a bootstrap for that of its blob.
        let named = directory.join(blob.file_name().unwrap());
        fs::rename(&bootstrap, &named).unwrap();
        bootstraps.push(named.display().to_string());
        let annotations = json!({"containerd.io/snapshot/nydus-blob": "true"});
        layers.push(("application/vnd.oci.image.layer.nydus.blob.v1", fs::read(blob).unwrap(), annotations));
    }
    let merged = directory.join("merged");
    peers.ok(&format!("nydus-image merge -l error --bootstrap {} {}", merged.display(), bootstraps.join(" ")));
    let tar = Tar::new().directory("image").file("image/image.boot", &fs::read(merged).unwrap()).finish();
    let annotations =
        json!({"containerd.io/snapshot/nydus-bootstrap": "true", "containerd.io/snapshot/nydus-fs-version": version});
    layers.push(("application/vnd.oci.image.layer.v1.tar", tar, annotations));
    layout_of(&directory.join("layout"), &layers)
}

/// `nydus-image` leaves out fractions of seconds; the source has none.
#[test]
fn images_of_nydus_are_read() {
    let Some(peers) = Peers::find(&["nydus-image"]) else { return };
    let (bench, tars) = (bench(), simple());
    let expected = expected(&tars);
    for (version, compressor) in [("6", "zstd"), ("6", "lz4_block"), ("6", "none"), ("5", "zstd"), ("5", "lz4_block")] {
        let image = converted_by_nydus(&bench, &peers, &tars, version, compressor);
        let plain = format!("oci:{}:1", bench.path(&format!("plain-{version}-{compressor}")).display());
        bench.ok(&["convert", "--to", "plain", &image, "-o", &plain]);
        let [(_, layer)] = &layers(&bench, &plain)[..] else { panic!("one layer") };
        let mut tar = Vec::new();
        Decoder::new(&fs::read(layer).unwrap()[..]).unwrap().read_to_end(&mut tar).unwrap();
        assert_same(&expected, &hard::source(&[tar]), &format!("RAFS {version} {compressor}"));
        // It is a Nydus image, and not converted again.
        let again = format!("oci:{}:1", bench.path(&format!("again-{version}-{compressor}")).display());
        bench.ok(&["convert", "--to", "nydus", "--rafs-version", version, &image, "-o", &again]);
        assert_eq!(bench.ok(&["digest", &again]), bench.ok(&["digest", &image]));
    }
}
