//! Parses the challenges of a `WWW-Authenticate` header.

/// An authentication challenge: a scheme and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// In lower case: `basic`, `bearer`.
    pub(crate) scheme: String,
    /// With names in lower case.
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// Returns whether the challenge names no token service, so that the credential itself is sent.
    pub(crate) fn is_direct(&self) -> bool {
        self.scheme == "basic" || self.parameter("realm").is_none()
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// Parses the challenges of one header by the grammar of RFC 9110, section 11.6.1: a comma separates challenges, and
/// also the parameters of each. Parsing stops at the first syntax error.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut rest = header;
    let mut challenges: Vec<Challenge> = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let Some((word, after)) = token(rest) else { return challenges };
        let spaced = after.trim_start_matches([' ', '\t']);
        match (spaced.strip_prefix('='), challenges.last_mut()) {
            // `name = value` is a parameter of the preceding challenge; a lone `=` behind a scheme would be padding.
            (Some(value), Some(challenge)) => {
                let Some((value, after)) = read_value(value.trim_start_matches([' ', '\t'])) else { return challenges };
                challenge.parameters.push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            (Some(_), None) => return challenges,
            (None, _) => {
                challenges.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
                rest = skip_token68(spaced);
            }
        }
    }
}

fn token(text: &str) -> Option<(&str, &str)> {
    let is_token = |character: char| character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character);
    let length = text.find(|character| !is_token(character)).unwrap_or(text.len());
    (length > 0).then(|| text.split_at(length))
}

/// Reads a quoted string or a bare value. A bare value extends to the next comma or space, since realms are sent
/// without quotes although URLs are no tokens.
fn read_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let length = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..length].to_owned(), &text[length..]));
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, character) in quoted.char_indices() {
        match character {
            _ if escaped => {
                value.push(character);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((value, &quoted[at + 1..])),
            _ => value.push(character),
        }
    }
    None
}

/// Skips the token68 that may follow a scheme, as in `Negotiate dG9rZW4=`. No supported scheme uses it.
fn skip_token68(text: &str) -> &str {
    let is_token68 = |character: char| character.is_ascii_alphanumeric() || "-._~+/".contains(character);
    let length = text.find(|character| !is_token68(character)).unwrap_or(text.len());
    let after = text[length..].trim_start_matches('=');
    let ends = after.trim_start_matches([' ', '\t']);
    // A word that is followed by `=` and a value, or by more words, is the first parameter or the next scheme.
    if length > 0 && (ends.is_empty() || ends.starts_with(',')) { after } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(header: &str) -> Vec<String> {
        let show = |challenge: Challenge| {
            let parameters: Vec<_> =
                challenge.parameters.iter().map(|(name, value)| format!(" {name}=<{value}>")).collect();
            challenge.scheme + &parameters.concat()
        };
        parse(header).into_iter().map(show).collect()
    }

    #[test]
    fn parses_challenges() {
        for (header, expected) in [
            (r#"Basic realm="x""#, &["basic realm=<x>"][..]),
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                &[
                    "bearer realm=<https://auth.docker.io/token> service=<registry.docker.io> scope=<repository:a/b:pull,push>",
                ],
            ),
            (r#"Basic realm="a, b=c", Bearer realm="d""#, &["basic realm=<a, b=c>", "bearer realm=<d>"]),
            (r#"Bearer realm="d",service=s ,Basic realm=a"#, &["bearer realm=<d> service=<s>", "basic realm=<a>"]),
            (r#"BEARER  Realm = "x" ,  , service= "y""#, &["bearer realm=<x> service=<y>"]),
            (r#"Bearer realm="a\"b\\c""#, &[r#"bearer realm=<a"b\c>"#]),
            (r#"Bearer realm=https://h/t?a=b,service=s"#, &["bearer realm=<https://h/t?a=b> service=<s>"]),
            ("Negotiate", &["negotiate"]),
            ("Negotiate, Basic realm=\"x\"", &["negotiate", "basic realm=<x>"]),
            ("Negotiate dG9rZW4=, Basic realm=\"x\"", &["negotiate", "basic realm=<x>"]),
            (r#"Bearer realm="x" error="insufficient_scope""#, &["bearer realm=<x> error=<insufficient_scope>"]),
            (r#"Bearer realm="unclosed"#, &["bearer"]),
            ("", &[]),
            (" , ", &[]),
            ("=x", &[]),
            ("realm=\"x\"", &[]),
            ("\u{e4}", &[]),
        ] {
            assert_eq!(shown(header), expected, "{header}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_challenge_is_parsed_without_panic(header in r#"[a-zA-Z0-9 ,="\\]{0,40}|.*"#) {
            parse(&header);
        }

        #[test]
        fn quoted_values_round_trip(values in proptest::collection::vec("[ -~]{0,12}", 1..4)) {
            let quote = |value: &String| format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
            let parameters: Vec<_> =
                values.iter().enumerate().map(|(at, value)| format!("p{at}={}", quote(value))).collect();
            let header = format!("Bearer {}, Basic realm=\"x\"", parameters.join(","));
            let challenges = parse(&header);
            proptest::prop_assert_eq!(challenges.len(), 2);
            for (at, value) in values.iter().enumerate() {
                proptest::prop_assert_eq!(challenges[0].parameter(&format!("p{at}")), Some(value.as_str()));
            }
        }
    }
}
