//! What a registry says when it refuses.

use std::time::{Duration, SystemTime};

use ocikit_image::{Error, NoAnswer, retry};
use serde::Deserialize;

use super::fault::Fault;
use super::redact::Secrets;
use super::send::Reply;

/// How much of an error is read.
const LONGEST: u64 = 64 << 10;

/// How much of it is shown.
const SHOWN: usize = 300;

/// The errors of an answer, as the distribution specification has them ("Error Codes").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) codes: Vec<String>,
    /// One line for people.
    pub(crate) text: String,
    /// How long the server asks to wait.
    pub(crate) retry_after: Option<Duration>,
}

impl Problem {
    pub(crate) async fn of(reply: Reply) -> Problem {
        let status = reply.answer.status;
        let retry_after = reply.answer.header("retry-after");
        let retry_after = retry_after.and_then(|header| retry::retry_after(header, SystemTime::now()));
        let secrets = reply.secrets;
        let body = reply.answer.read(LONGEST).await;
        Problem { retry_after, ..Problem::parse(status, &body.ok().flatten().unwrap_or_default(), &secrets) }
    }

    fn parse(status: u16, body: &[u8], secrets: &Secrets) -> Problem {
        let clean = |text: &str| clean(&secrets.hide(text));
        let listed = serde_json::from_slice::<Body>(body).map(|body| body.errors).unwrap_or_default();
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
struct Body {
    #[serde(default)]
    errors: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    code: Option<String>,
    message: Option<String>,
}

impl Entry {
    fn shown(&self, secrets: &Secrets) -> String {
        let parts = [&self.code, &self.message].into_iter().flatten().map(|part| clean(&secrets.hide(part)));
        parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
    }
}

/// What is said of a web page in place of an answer: a proxy or a load balancer sent it.
fn page(html: &str) -> String {
    let lower = html.to_ascii_lowercase();
    let title = lower.find("<title>").map(|at| at + "<title>".len());
    let title = title.and_then(|from| html.get(from..from + lower.get(from..)?.find('<')?)).unwrap_or_default().trim();
    match title {
        "" => "a web page, not the answer of a registry".to_owned(),
        title => format!("a web page with the title `{title}`, not the answer of a registry"),
    }
}

/// In one line, without anything that a terminal would obey, and not too long.
fn clean(text: &str) -> String {
    let visible: String = text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    let mut words = visible.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((at, _)) = words.char_indices().nth(SHOWN) {
        words.truncate(at);
        words.push('…');
    }
    words
}

/// The error that an answer amounts to, for something that was wanted from a place.
pub(crate) async fn error(reply: Reply, what: &str, place: &str) -> Error {
    let status = reply.answer.status;
    let problem = Problem::of(reply).await;
    sort(status, problem, what, place)
}

pub(crate) fn sort(status: u16, problem: Problem, what: &str, place: &str) -> Error {
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

/// The error that a missing answer amounts to.
pub(crate) fn unreachable(fault: Fault, place: &str) -> Error {
    match fault {
        Fault::Payload(error) | Fault::Setup(error) => error,
        fault => Error::Unreachable { place: place.to_owned(), cause: fault.cause(), source: Box::new(fault) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_one_line_for_people() {
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
