use std::path::PathBuf;

/// The maximum length of a title in bytes: that of a path on Linux.
const MAX_TITLE_BYTES: usize = 4096;

/// Returns the relative path that a title stands for. It has plain names only, so that it stays below any directory on any
/// operating system.
///
/// # Errors
///
/// What is wrong with the title.
pub(super) fn path_of_title(title: &str) -> Result<PathBuf, &'static str> {
    if title.len() > MAX_TITLE_BYTES {
        return Err("it has more than 4096 bytes");
    }
    if title.chars().any(char::is_control) {
        return Err("it has a control character");
    }
    if title.contains('\\') {
        return Err("it has a backslash");
    }
    if title.starts_with('/') {
        return Err("it is an absolute path");
    }
    let has_drive = title.as_bytes().get(1) == Some(&b':') && title.as_bytes()[0].is_ascii_alphabetic();
    if has_drive {
        return Err("it begins with a drive");
    }
    let mut path = PathBuf::new();
    for part in title.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err("it leads out of the directory"),
            part => path.push(part),
        }
    }
    if path.as_os_str().is_empty() {
        return Err("it names no file");
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_stay_below_the_directory() {
        for (title, path) in [
            ("a.txt", Some("a.txt")),
            ("./a/b", Some("a/b")),
            ("a//b/", Some("a/b")),
            ("ä b:c", Some("ä b:c")),
            ("..a/b..", Some("..a/b..")),
            ("/etc/passwd", None),
            ("../a", None),
            ("a/../../b", None),
            ("a/..", None),
            (".", None),
            ("", None),
            ("a\\b", None),
            ("C:a", None),
            ("a\nb", None),
            ("a\0b", None),
            ("a\u{1b}[2J", None),
        ] {
            assert_eq!(path_of_title(title).ok(), path.map(PathBuf::from), "{title:?}");
        }
        assert!(path_of_title(&"a".repeat(5000)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_title_leads_out(title in "[a-z./:\\\\]{0,20}") {
            if let Ok(path) = path_of_title(&title) {
                let plain = |part| matches!(part, std::path::Component::Normal(_));
                proptest::prop_assert!(path.components().all(plain), "{}", path.display());
            }
        }
    }
}
