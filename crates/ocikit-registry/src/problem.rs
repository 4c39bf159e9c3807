//! Reads the errors in a registry's answers.

use std::time::{Duration, SystemTime};

use ocikit_http::{Reply, RequestError, Secrets, retry};
use ocikit_image::{Error, NoAnswer};
use serde::Deserialize;

/// Maximum number of bytes that are read of an error.
const MAX_ERROR_BYTES: u64 = 64 << 10;

/// Maximum number of characters of an error that are shown.
const MAX_SHOWN_CHARS: usize = 300;

/// The errors in an answer. Distribution specification, "Error Codes".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) codes: Vec<String>,
    /// One line for the user.
    pub(crate) text: String,
    /// The delay that the server requests.
    pub(crate) retry_after: Option<Duration>,
}

impl Problem {
    pub(crate) async fn of(reply: Reply) -> Problem {
        let status = reply.answer.status;
        let retry_after = reply.answer.header("retry-after");
        let retry_after = retry_after.and_then(|header| retry::retry_after(header, SystemTime::now()));
        let secrets = reply.secrets;
        let body = reply.answer.read(MAX_ERROR_BYTES).await;
        Problem { retry_after, ..Problem::parse(status, &body.unwrap_or_default(), &secrets) }
    }

    fn parse(status: u16, body: &[u8], secrets: &Secrets) -> Problem {
        let clean = |text: &str| clean(&secrets.hide(text));
        let listed = serde_json::from_slice::<ErrorBody>(body).map(|body| body.errors).unwrap_or_default();
        let codes: Vec<_> = listed.iter().filter_map(|entry| entry.code.clone()).map(|code| clean(&code)).collect();
        let entries: Vec<_> = listed.iter().map(|entry| entry.shown(secrets)).filter(|text| !text.is_empty()).collect();
        let text = if entries.is_empty() {
            let plain = clean(&String::from_utf8_lossy(body));
            if plain.starts_with('<') { page(&plain) } else { plain }
        } else {
            entries.join("; ")
        };
        let text = if text.is_empty() { format!("status {status}") } else { format!("{text} (status {status})") };
        Problem { codes, text, retry_after: None }
    }

    pub(crate) fn has(&self, code: &str) -> bool {
        self.codes.iter().any(|found| found == code)
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    code: Option<String>,
    message: Option<String>,
}

impl ErrorEntry {
    fn shown(&self, secrets: &Secrets) -> String {
        let parts = [&self.code, &self.message].into_iter().flatten().map(|part| clean(&secrets.hide(part)));
        parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
    }
}

/// Describes a web page, which a proxy or load balancer sends in place of the registry's answer.
fn page(html: &str) -> String {
    let lower = html.to_ascii_lowercase();
    let title = lower.find("<title>").map(|at| at + "<title>".len());
    let title = title.and_then(|from| html.get(from..from + lower.get(from..)?.find('<')?)).unwrap_or_default().trim();
    match title {
        "" => "a web page, not the answer of a registry".to_owned(),
        title => format!("a web page with the title `{title}`, not the answer of a registry"),
    }
}

/// Returns a text as one line without control characters, which a terminal would interpret, and shortened.
fn clean(text: &str) -> String {
    let visible: String = text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    let mut words = visible.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((at, _)) = words.char_indices().nth(MAX_SHOWN_CHARS) {
        words.truncate(at);
        words.push('…');
    }
    words
}

/// Returns the error for an answer. `what` was requested from `place`.
pub(crate) async fn error(reply: Reply, what: &str, place: &str) -> Error {
    let status = reply.answer.status;
    let problem = Problem::of(reply).await;
    error_of_status(status, problem, what, place)
}

pub(crate) fn error_of_status(status: u16, problem: Problem, what: &str, place: &str) -> Error {
    match status {
        401 | 403 => Error::Denied { place: place.to_owned(), problem: problem.text },
        404 => Error::not_found(what, place),
        429 => {
            let cause = NoAnswer::RateLimited { retry_after: problem.retry_after };
            let wait =
                problem.retry_after.map(|time| format!(", Retry-After: {} s", time.as_secs())).unwrap_or_default();
            let text = format!("rate limited: {}{wait}", problem.text);
            Error::Unreachable { place: place.to_owned(), cause, source: text.into() }
        }
        408 | 425 | 500.. => Error::Unreachable {
            place: place.to_owned(),
            cause: NoAnswer::Failing { status },
            source: problem.text.into(),
        },
        _ => Error::Refused { place: place.to_owned(), status, problem: problem.text },
    }
}

/// Returns the error for a request without an answer.
pub(crate) fn unreachable(error: RequestError, place: &str) -> Error {
    match error {
        // The source of an upload fails with an error of this type.
        RequestError::Payload(error) => match error.downcast::<Error>() {
            Ok(error) => *error,
            Err(error) => Error::broken(place, error),
        },
        RequestError::Setup(error) => unusable(error),
        error => Error::Unreachable { place: place.to_owned(), cause: error.cause(), source: error.into() },
    }
}

/// Returns the error for settings that cannot be used.
pub(crate) fn unusable(error: ocikit_http::Error) -> Error {
    match error {
        ocikit_http::Error::Read { path, source } => Error::failed("read", path.display(), source),
        ocikit_http::Error::Certificates { place, source } | ocikit_http::Error::Identity { place, source } => {
            Error::Broken { place, source }
        }
        ocikit_http::Error::Proxy { variable, problem } => Error::Proxy { variable, problem },
        error => Error::broken("the HTTP client", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_error_is_shown_on_one_line() {
        for (body, codes, text) in [
            (
                r#"{"errors":[{"code":"NAME_UNKNOWN","message":"no such\nrepository","detail":{"name":"x"}}]}"#,
                &["NAME_UNKNOWN"][..],
                "NAME_UNKNOWN: no such repository (status 400)",
            ),
            (r#"{"errors":[{"code":"A"},{"message":"b"}]}"#, &["A"], "A; b (status 400)"),
            (r#"{"errors":[]}"#, &[], r#"{"errors":[]} (status 400)"#),
            ("too\tmuch \u{1b}[31m", &[], "too much [31m (status 400)"),
            ("<html>nginx</html>", &[], "a web page, not the answer of a registry (status 400)"),
            (
                "<!DOCTYPE html><html><TITLE> 502 Bad\nGateway </TITLE>",
                &[],
                "a web page with the title `502 Bad Gateway`, not the answer of a registry (status 400)",
            ),
            ("<title>", &[], "a web page, not the answer of a registry (status 400)"),
            ("", &[], "status 400"),
        ] {
            let problem = Problem::parse(400, body.as_bytes(), &Secrets::default());
            assert_eq!(
                (&problem.codes[..], &problem.text[..]),
                (&codes.iter().map(|code| code.to_string()).collect::<Vec<_>>()[..], text)
            );
        }
        assert!(Problem::parse(400, "ä".repeat(1000).as_bytes(), &Secrets::default()).text.chars().count() < 330);
    }
}
