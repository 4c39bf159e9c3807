use std::fmt;

/// A pattern for paths: `*` matches anything except a slash, `**` matches anything.
///
/// ```
/// use ocikit_server::Pattern;
///
/// assert!(Pattern::new("acme/*").matches("acme/app"));
/// assert!(!Pattern::new("acme/*").matches("acme/app/test"));
/// assert!(Pattern::new("/v2/**/blobs/*").matches("/v2/acme/app/blobs/sha256:00"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// `*`
    Part,
    /// `**`
    Rest,
}

impl Pattern {
    /// Creates a pattern; every text is valid.
    pub fn new(text: impl Into<String>) -> Pattern {
        let text = text.into();
        let mut tokens = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some(byte) = rest.first() {
            let (token, length) = match byte {
                b'*' if rest.starts_with(b"**") => (Token::Rest, 2),
                b'*' => (Token::Part, 1),
                byte => (Token::Byte(*byte), 1),
            };
            tokens.push(token);
            rest = &rest[length..];
        }
        Pattern { text, tokens }
    }

    /// Returns the pattern that matches everything.
    pub fn any() -> Pattern {
        Pattern::new("**")
    }

    /// Returns the text of the pattern.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether the whole text matches. The time is bounded by the product of both lengths.
    pub fn matches(&self, text: &str) -> bool {
        // `reached[i]`: the first i tokens match the text up to here.
        let mut reached = vec![false; self.tokens.len() + 1];
        let mut next = reached.clone();
        reached[0] = true;
        self.pass_empty(&mut reached);
        for byte in text.bytes() {
            next.fill(false);
            for (at, token) in self.tokens.iter().enumerate().filter(|(at, _)| reached[*at]) {
                match token {
                    Token::Byte(expected) if *expected == byte => next[at + 1] = true,
                    Token::Part if byte != b'/' => next[at] = true,
                    Token::Rest => next[at] = true,
                    _ => {}
                }
            }
            self.pass_empty(&mut next);
            std::mem::swap(&mut reached, &mut next);
        }
        reached[self.tokens.len()]
    }

    /// Both wildcards also match the empty text.
    fn pass_empty(&self, reached: &mut [bool]) {
        for (at, token) in self.tokens.iter().enumerate() {
            if reached[at] && matches!(token, Token::Part | Token::Rest) {
                reached[at + 1] = true;
            }
        }
    }
}

impl From<&str> for Pattern {
    fn from(text: &str) -> Pattern {
        Pattern::new(text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("*", "abc", true),
            ("*", "a/c", false),
            ("**", "a/b/c", true),
            ("a*c", "abbc", true),
            ("a*c", "a/c", false),
            ("a**c", "a/b/c", true),
            ("/v2/**/blobs/*", "/v2/a/b/blobs/sha256:1", true),
            ("/v2/**/blobs/*", "/v2/a/b/blobs/uploads/1", false),
            ("/v2/**/blobs/**", "/v2/a/b/blobs/uploads/1", true),
            ("/v2/*/manifests/*", "/v2/a/b/manifests/1", false),
            ("***", "x/y", true),
            ("*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(text), expected, "{pattern} {text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn pattern_without_wildcards_matches_itself(text in "[^*]{0,40}", other in "[^*]{0,40}") {
            proptest::prop_assert!(Pattern::new(text.as_str()).matches(&text));
            proptest::prop_assert_eq!(Pattern::new(text.as_str()).matches(&other), text == other);
        }

        #[test]
        fn any_pattern_matches_without_panic(pattern in "[*/ab]{0,20}", text in "[/ab]{0,40}") {
            Pattern::new(pattern).matches(&text);
        }
    }
}
