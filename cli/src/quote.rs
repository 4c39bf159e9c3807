//! Quotes suggested commands, so that they can be pasted into a shell.

use std::borrow::Cow;

/// Returns a word quoted for a shell, if it needs quotes.
pub(crate) fn quoted(word: &str) -> Cow<'_, str> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "@%_-+=:,./".contains(letter);
    let is_inside =
        |(at, letter): (usize, char)| is_plain(letter) || letter == '#' && at > 0 || letter == '~' && at == 0;
    match !word.is_empty() && word.char_indices().all(is_inside) {
        true => Cow::Borrowed(word),
        false => Cow::Owned(format!("'{}'", word.replace('\'', "'\\''"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_can_be_pasted() {
        for (word, shown) in [
            ("app.tar#v1", "app.tar#v1"),
            ("ghcr.io/acme/app:1", "ghcr.io/acme/app:1"),
            ("~/x", "~/x"),
            ("my app.tar", "'my app.tar'"),
            ("#x", "'#x'"),
            ("it's", r"'it'\''s'"),
            ("$(x)", "'$(x)'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), shown);
        }
    }
}
