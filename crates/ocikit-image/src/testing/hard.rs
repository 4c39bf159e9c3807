use crate::testing::{Tar, random};

/// Returns the tar of a layer with everything that readers of layers tend to get wrong: links, devices, set-user-ID,
/// extended attributes with any bytes, long and UTF-8 names, times before 1970 and with nanoseconds, large
/// owners, files of critical sizes, runs of zeros, and whiteouts.
pub fn hard_layer() -> Vec<u8> {
    let megabyte = 1 << 20;
    let long = "n".repeat(255);
    let directory = format!("{}/", "d".repeat(180));
    let path = format!("{directory}{long}");
    let zeros_between = [&random(3, 70_000)[..], &vec![0; 3 << 20], b"end"].concat();
    let tar = Tar::new()
        .modified(1_700_000_000)
        .directory(".")
        .directory("bin")
        .mode(0o4755)
        .file("bin/su", &random(1, 5000))
        .link("bin/su2", "bin/su")
        .link("bin/su3", "bin/su2")
        .mode(0o2755)
        .directory("var")
        .mode(0o1777)
        .directory("tmp")
        .mode(0o644)
        .symlink("bin/sh", "su")
        .symlink("dangling", "/no/where")
        .directory("deep")
        .directory("deep/er")
        .file("deep/er/file", b"x")
        .file("empty", b"")
        .file("one", b"1")
        .file("block", &random(2, 4096))
        .file("exact", &random(4, megabyte))
        .file("chunk", &random(5, 4 * megabyte))
        .file("large", &random(6, 9 * megabyte + 1))
        .file("zeros", &vec![0; 5 * megabyte])
        .file("mixed", &zeros_between)
        .file("text", &b"the same line again and again\n".repeat(9000))
        .device(b'3', "null", 1, 3)
        .device(b'4', "disk", 300, 70_000)
        .entry(b'6', "fifo", "", b"")
        .records(&[("path", directory.as_bytes())])
        .directory("short")
        .records(&[("path", path.as_bytes())])
        .file("short", b"long name")
        .records(&[("path", "d\u{e4}\u{4e16}/".as_bytes())])
        .directory("short")
        .records(&[("path", "d\u{e4}\u{4e16}/\u{1f980}".as_bytes())])
        .file("short", b"UTF-8")
        .records(&[("uid", b"70000"), ("gid", b"100000"), ("uname", b"somebody"), ("gname", b"some group")])
        .file("owned", b"by others")
        .records(&[
            ("SCHILY.xattr.user.text", b"value"),
            ("SCHILY.xattr.user.lines", b"a\nb\n"),
            ("SCHILY.xattr.security.capability", &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("SCHILY.xattr.trusted.empty", b""),
        ])
        .file("attributes", b"a")
        .records(&[("SCHILY.xattr.user.directory", b"1")])
        .directory("attributed")
        .records(&[("mtime", b"1600000000.123456789")])
        .file("nanoseconds", b"n")
        .records(&[("mtime", b"1600000000.5"), ("atime", b"1600000001.25"), ("ctime", b"1600000002")])
        .file("half", b"h")
        .records(&[("mtime", b"-5")])
        .file("before", b"b");
    let tar =
        tar.modified(0).file("epoch", b"e").file("bin/.wh.gone", b"").file("var/.wh..wh..opq", b"").directory("many");
    (0..300).fold(tar, |tar, number| tar.file(&format!("many/{number:03}"), format!("{number}\n").as_bytes())).finish()
}
