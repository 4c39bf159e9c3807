//! Hides the secrets of the command line in all text that repeats an argument.

use std::borrow::Cow;

use serde_json::json;

/// Hides the user information in the locations of the command line and the secrets in its other values, wherever a text repeats
/// them: also where a URL was read as a path, and where clap repeats an argument.
pub(crate) fn without_secrets(text: String) -> String {
    hide(text, std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()))
}

fn hide(text: String, arguments: impl Iterator<Item = String>) -> String {
    let mut before = String::new();
    arguments.fold(text, |text, argument| {
        let text = hide_argument(text, &before, &argument);
        before = argument;
        text
    })
}

/// Hides the secrets of an argument, which may be the value of the flag before it.
fn hide_argument(text: String, before: &str, argument: &str) -> String {
    let (flag, value) = match argument.starts_with('-') {
        true => argument.split_once('=').unwrap_or((argument, "")),
        false => (before, argument),
    };
    let flag = flag.trim_start_matches('-');
    // An explicit path has no user information.
    if flag != "secret" && ["/", "./", "../"].iter().any(|start| value.starts_with(start)) {
        return text;
    }
    let Cow::Owned(hidden) = ocikit_build::hide_secrets(flag, value) else { return text };
    let text = text.replace(value, &hidden);
    // JSON escapes quotes and backslashes, of which a password may consist.
    let in_json = |text: &str| json!(text).to_string().trim_matches('"').to_owned();
    text.replace(&in_json(value), &in_json(&hidden))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_arguments_are_hidden() {
        let hide = |argument: &str| hide_argument(format!("cannot read {argument}: no"), "", argument);
        assert_eq!(hide("https://u:s3cret@host/a.tar"), "cannot read https://***@host/a.tar: no");
        assert_eq!(hide("--to=u:s3cret@host/a"), "cannot read --to=***@host/a: no");
        assert_eq!(hide("--cache-to=type=gha,token=s3cret"), "cannot read --cache-to=type=gha,token=***: no");
        let json = json!(r#"cannot read docker://u:"\@host/a: no"#).to_string();
        assert_eq!(hide_argument(json, "", r#"docker://u:"\@host/a"#), r#""cannot read docker://***@host/a: no""#);
        assert_eq!(hide("./u:x@host/a.tar"), "cannot read ./u:x@host/a.tar: no");
        let value = "id=a,foo=s3cret";
        assert_eq!(hide_argument(value.to_owned(), "--secret", value), "id=a,foo=***");
    }
}
