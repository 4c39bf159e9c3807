//! Names that become tags.

/// Returns a name as a tag: every run of characters that a tag cannot have becomes `-`, and leading `.` and `-` are
/// removed. `feature/xyz` becomes `feature-xyz`. The result may be empty or longer than a tag.
pub fn sanitize(name: &str) -> String {
    let mut sanitized = String::with_capacity(name.len());
    let mut is_gap = false;
    for letter in name.chars() {
        if letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-') {
            if std::mem::take(&mut is_gap) {
                sanitized.push('-');
            }
            sanitized.push(letter);
        } else {
            is_gap = true;
        }
    }
    sanitized.trim_start_matches(['.', '-']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_tags() {
        for (name, expected) in [
            ("main", "main"),
            ("feature/xyz", "feature-xyz"),
            ("a//b", "a-b"),
            ("/.x", "x"),
            ("-x", "x"),
            ("1.2.3+build.5", "1.2.3-build.5"),
            ("größe", "gr-e"),
            ("x/", "x"),
            ("///", ""),
        ] {
            assert_eq!(sanitize(name), expected, "{name}");
        }
    }
}
