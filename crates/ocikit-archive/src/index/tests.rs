use std::io::Read;

use super::*;
use crate::{END, Header, TarStream};

/// Creates a tar of these entries, with its end.
fn tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, bytes) in entries {
        add(&mut tar, &Header::file(name, bytes.len() as u64).to_bytes(), bytes);
    }
    tar.extend_from_slice(&END);
    tar
}

fn add(tar: &mut Vec<u8>, header: &[u8], bytes: &[u8]) {
    tar.extend_from_slice(header);
    tar.extend_from_slice(bytes);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

/// Creates a header block of another type, with a valid checksum.
fn typed(name: &str, kind: u8, link: &str) -> Vec<u8> {
    let mut header = Header::file(name, 0).to_bytes();
    header[156] = kind;
    header[157..157 + link.len()].copy_from_slice(link.as_bytes());
    checksum(&mut header);
    header
}

fn checksum(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header[..512].iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in records {
        let body = key.len() + value.len() + 3;
        let length = (body..).find(|length| length.to_string().len() + body == *length).unwrap();
        data.extend_from_slice(format!("{length} {key}=").as_bytes());
        data.extend_from_slice(value);
        data.push(b'\n');
    }
    let mut blocks = Header::file("PaxHeaders/x", data.len() as u64).to_bytes();
    blocks[156] = b'x';
    checksum(&mut blocks);
    blocks.extend_from_slice(&data);
    blocks.resize(blocks.len().next_multiple_of(512), 0);
    blocks
}

/// Returns the names and contents that sequential reading finds.
fn streamed(tar: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    let mut stream = TarStream::new(tar);
    let mut found = Vec::new();
    while let Some(entry) = stream.next_entry()? {
        let mut bytes = Vec::new();
        let mut buffer = [0; 100];
        loop {
            match stream.read(&mut buffer)? {
                0 => break,
                read => bytes.extend_from_slice(&buffer[..read]),
            }
        }
        found.push((entry.name.unwrap_or_default(), bytes));
    }
    Ok(found)
}

fn contents<'a>(tar: &'a [u8], index: &TarIndex, name: &str) -> Option<&'a [u8]> {
    let span = index.file(name)?;
    Some(&tar[span.offset as usize..][..span.size as usize])
}

#[test]
fn finds_files_by_their_plain_name() {
    let tar = tar(&[("./a", b"1"), ("b//c", b""), ("large", &[7; 20_000]), ("d", b"4")]);
    let index = TarIndex::read(&tar).unwrap();
    assert_eq!(contents(&tar, &index, "a"), Some(&b"1"[..]));
    assert_eq!(contents(&tar, &index, "b/c"), Some(&b""[..]));
    assert_eq!(contents(&tar, &index, "large"), Some(&[7; 20_000][..]));
    assert_eq!(contents(&tar, &index, "d"), Some(&b"4"[..]));
    assert_eq!(index.file("./a"), None);
    assert_eq!(index.file("b"), None);
    let length = tar.len() as u64;
    assert_eq!(index.end(), End { start: length - 1024, zeros: length, file: length });
    assert_eq!(streamed(&tar).unwrap().len(), 4);
}

#[test]
fn last_entry_with_a_name_is_used() {
    let tar = tar(&[("a", b"old"), ("./a", b"new")]);
    let index = TarIndex::read(&tar).unwrap();
    assert_eq!(contents(&tar, &index, "a"), Some(&b"new"[..]));
    assert_eq!([index.counts(0), index.counts(1), index.counts(2)], [false, true, false]);
}

#[test]
fn names_outside_the_archive_are_not_found() {
    let tar = tar(&[("/etc/passwd", b"x"), ("../up", b"x"), ("a/../../up", b"x"), ("a/../b", b"x"), ("ok", b"y")]);
    let index = TarIndex::read(&tar).unwrap();
    assert_eq!(index.entries().iter().filter(|entry| entry.name.is_some()).count(), 1);
    for name in ["/etc/passwd", "etc/passwd", "up", "../up", "b"] {
        assert_eq!(index.file(name), None, "{name}");
    }
    assert!(index.file("ok").is_some());
}

#[test]
fn links_are_followed_inside_the_archive_only() {
    let mut tar = Vec::new();
    add(&mut tar, &Header::file("x/layer.tar", 3).to_bytes(), b"abc");
    for (name, kind, target) in [
        ("y/layer.tar", b'2', "../x/layer.tar"),
        ("z/layer.tar", b'1', "x/layer.tar"),
        ("chain", b'2', "./y/layer.tar"),
        ("out", b'2', "../x/layer.tar"),
        ("absolute", b'2', "/x/layer.tar"),
        ("loop", b'2', "loop"),
        ("nowhere", b'2', "gone"),
        ("device", b'3', ""),
        ("pipe", b'6', ""),
    ] {
        add(&mut tar, &typed(name, kind, target), b"");
    }
    tar.extend_from_slice(&END);
    let index = TarIndex::read(&tar).unwrap();
    for name in ["y/layer.tar", "z/layer.tar", "chain"] {
        assert_eq!(contents(&tar, &index, name), Some(&b"abc"[..]), "{name}");
    }
    for name in ["out", "absolute", "loop", "nowhere", "device", "pipe"] {
        assert_eq!(index.file(name), None, "{name}");
    }
}

#[test]
fn only_files_have_bytes() {
    let mut directory = typed("d/", b'5', "");
    directory[124..136].copy_from_slice(b"00000001000\0");
    checksum(&mut directory);
    let mut archive = directory;
    add(&mut archive, &Header::file("seen", 1).to_bytes(), b"x");
    archive.extend_from_slice(&END);
    assert_eq!(contents(&archive, &TarIndex::read(&archive).unwrap(), "seen"), Some(&b"x"[..]));
}

#[test]
fn extended_header_with_line_break_hides_no_entries() {
    // A reader that splits records at line breaks misses the size and reads the contents of the file as entries.
    let smuggled = tar(&[("smuggled", b"evil!")]);
    let size = smuggled.len().to_string();
    let mut archive = pax(&[("SCHILY.xattr.user.x", b"a\nb"), ("size", size.as_bytes())]);
    add(&mut archive, &Header::file("outer", 0).to_bytes(), b"");
    archive.extend_from_slice(&smuggled);
    add(&mut archive, &Header::file("after", 1).to_bytes(), b"x");
    archive.extend_from_slice(&END);
    let index = TarIndex::read(&archive).unwrap();
    assert_eq!(index.file("smuggled"), None);
    assert_eq!(index.file("outer").unwrap().size, smuggled.len() as u64);
    assert!(index.file("after").is_some());
    assert_eq!(index.entry("outer").unwrap().start, 0);
    assert_eq!(streamed(&archive).unwrap().len(), 2);
}

#[test]
fn global_headers_are_skipped_unless_they_rename() {
    let mut global = pax(&[("comment", b"x")]);
    global[156] = b'g';
    checksum(&mut global);
    let good = [global.clone(), global, tar(&[("a", b"1")])].concat();
    assert!(TarIndex::read(&good).unwrap().file("a").is_some());
    for key in ["path", "size", "linkpath"] {
        let mut global = pax(&[(key, b"9")]);
        global[156] = b'g';
        checksum(&mut global);
        let bad = [global, tar(&[("a", b"1")])].concat();
        assert!(matches!(TarIndex::read(&bad), Err(Error::Invalid { offset: 0, .. })), "{key}");
    }
}

#[test]
fn zeros_end_the_archive() {
    let whole = tar(&[("a", b"1")]);
    let start = whole.len() as u64 - 1024;
    // None, one at the very end, and many zero blocks end the archive.
    for zeros in [0, 512, 1024, 10_240] {
        let mut archive = whole[..start as usize].to_vec();
        archive.resize(start as usize + zeros, 0);
        let end = TarIndex::read(&archive).unwrap().end();
        assert_eq!(end, End { start, zeros: start + zeros as u64, file: archive.len() as u64 });
    }
    // Bytes after the end are not part of it.
    let junk = [&whole[..], b"junk"].concat();
    let end = TarIndex::read(&junk).unwrap().end();
    assert_eq!(end, End { start, zeros: whole.len() as u64, file: junk.len() as u64 });
    assert_eq!(streamed(&junk).unwrap().len(), 1);
    // A single zero block in the middle is rejected.
    let lone = [&whole[..start as usize], &[0; 512], &whole].concat();
    assert!(matches!(TarIndex::read(&lone), Err(Error::Invalid { .. })));
    assert!(streamed(&lone).is_err());
}

#[test]
fn truncation_is_detected_at_every_byte() {
    let whole = tar(&[("a", &[1; 600]), ("b", b"2")]);
    for length in 0..whole.len() {
        let read = TarIndex::read(&whole[..length]).map(|index| index.entries().len());
        match length {
            // An empty file, the end of an entry (its padding may be missing), or a position in the zeros.
            0 => assert_eq!(read.unwrap(), 0),
            1112..=1535 => assert!(read.is_err() || read.unwrap() == 1, "{length}"),
            1536 => assert_eq!(read.unwrap(), 1),
            2049.. if length < 2560 => assert_eq!(read.unwrap(), 2),
            2560 | 3072 => assert_eq!(read.unwrap(), 2),
            2561.. => assert!(read.is_err() || read.unwrap() == 2, "{length}"),
            _ => assert!(matches!(read, Err(Error::Truncated { .. })), "{length}: {read:?}"),
        }
    }
}

#[test]
fn rejects_input_that_is_not_a_tar() {
    for bytes in [&[1; 512][..], &[0x1f; 4096], b"{}", &b"x".repeat(2000)] {
        assert!(TarIndex::read(bytes).is_err());
        assert!(streamed(bytes).is_err());
    }
    let mut huge = Header::file("huge", 0).to_bytes();
    huge[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    checksum(&mut huge);
    assert!(matches!(TarIndex::read(&huge), Err(Error::Invalid { .. })));
}

#[test]
fn reads_what_gnu_tar_wrote() {
    let directory = tempfile::tempdir().unwrap();
    let long = "d".repeat(90);
    std::fs::create_dir_all(directory.path().join(&long).join(&long)).unwrap();
    let name = format!("{long}/{long}/file");
    std::fs::write(directory.path().join(&name), b"found").unwrap();
    for format in ["gnu", "posix", "ustar"] {
        let output = std::process::Command::new("tar")
            .args(["--format", format, "-cf", "-", "."])
            .current_dir(directory.path())
            .output();
        // Only GNU tar writes all three formats; without it this test is skipped.
        let Ok(output) = output else { return };
        if !output.status.success() {
            return;
        }
        let index = TarIndex::read(&output.stdout).unwrap();
        assert_eq!(contents(&output.stdout, &index, &name), Some(&b"found"[..]), "{format}");
    }
}

#[test]
fn short_reads_do_not_change_the_result() {
    struct Stutter<'a>(&'a [u8], bool);
    impl Read for Stutter<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let length = buffer.len().min(7).min(self.0.len());
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }
    let tar = tar(&[("a", &[1; 600]), ("b", b"2")]);
    let mut stream = TarStream::new(Stutter(&tar, false));
    assert_eq!(stream.next_entry().unwrap().unwrap().name.as_deref(), Some("a"));
    assert_eq!(stream.next_entry().unwrap().unwrap().name.as_deref(), Some("b"));
    let mut byte = [0; 4];
    assert_eq!(stream.read(&mut byte).unwrap(), 1);
    assert_eq!(byte[0], b'2');
    assert!(stream.next_entry().unwrap().is_none());
}

proptest::proptest! {
    #[test]
    fn random_and_sequential_reading_agree(names in proptest::collection::vec("[a-c./]{1,5}|[a-z]{150}", 0..6), cut in 0..6000_usize) {
        let entries: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
        let mut tar = tar(&entries);
        tar.truncate(cut.max(1));
        let indexed = TarIndex::read(&tar).map(|index| index.entries().iter().map(|entry| entry.name.clone().unwrap_or_default()).collect::<Vec<_>>());
        let streamed = streamed(&tar).map(|entries| entries.into_iter().map(|(name, _)| name).collect::<Vec<_>>());
        proptest::prop_assert_eq!(indexed.is_ok(), streamed.is_ok());
        if let (Ok(indexed), Ok(streamed)) = (indexed, streamed) {
            proptest::prop_assert_eq!(indexed, streamed);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        let _ = TarIndex::read(&bytes);
        let _ = streamed(&bytes);
    }
}
