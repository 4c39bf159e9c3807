use std::error::Error;

/// Returns the message of an error followed by the messages of its causes, on one line and separated by colons. A cause
/// that the text already ends with is left out.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Outer {
        text: &'static str,
        source: io::Error,
    }

    #[test]
    fn each_cause_is_named_once() {
        for (text, expected) in
            [("cannot write", "cannot write: disk full"), ("failed: disk full", "failed: disk full")]
        {
            let error = Outer { text, source: io::Error::other("disk full") };
            assert_eq!(with_causes(&error), expected);
        }
    }
}
