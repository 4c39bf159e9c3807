use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use ocikit_image::retry::causes;
use ocikit_image::{Error, NoAnswer};

use super::address::{OutOfReach, Unresolved};
use super::certificate;
use super::proxy_failure::ProxyFailure;

type BoxError = Box<dyn StdError + Send + Sync>;

/// The reason why there is no answer, or why its body is incomplete.
#[derive(Debug)]
pub(crate) enum Fault {
    /// A retry would fail the same way: TLS, a refused address, an invalid setting.
    Final(BoxError),
    /// The server speaks TLS, and the request was sent over plain HTTP.
    SpeaksTls,
    /// The request was not sent.
    Unsent(BoxError),
    /// The connection was lost.
    Cut(BoxError),
    /// There was no progress for this time.
    Silent(Duration),
    /// A small document was incomplete after this time. A retry would be as slow.
    Slow(Duration),
    /// The body of the request could not be read from its source.
    Payload(Error),
    /// The settings for the server are unusable, for example because a certificate file is missing.
    Setup(Error),
}

impl Fault {
    /// Returns whether a retry would fail the same way.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Fault::Final(_) | Fault::SpeaksTls | Fault::Slow(_) | Fault::Payload(_) | Fault::Setup(_))
    }

    /// Returns whether a retry rarely helps: nothing listens on the port, name resolution failed, or the proxy refuses.
    pub(crate) fn is_lasting(&self) -> bool {
        matches!(self.cause(), NoAnswer::ConnectionRefused | NoAnswer::NameResolution | NoAnswer::Proxy)
    }

    pub(crate) fn cause(&self) -> NoAnswer {
        match self {
            Fault::SpeaksTls => NoAnswer::SpeaksTls,
            Fault::Silent(_) | Fault::Slow(_) => NoAnswer::TimedOut,
            Fault::Payload(error) | Fault::Setup(error) => error.no_answer().unwrap_or(NoAnswer::Other),
            Fault::Final(error) | Fault::Unsent(error) | Fault::Cut(error) => {
                causes(&**error).find_map(cause_of).unwrap_or(NoAnswer::Other)
            }
        }
    }
}

fn cause_of(error: &(dyn StdError + 'static)) -> Option<NoAnswer> {
    if error.is::<OutOfReach>() {
        return Some(NoAnswer::OutOfReach);
    }
    if error.is::<ProxyFailure>() {
        return Some(NoAnswer::Proxy);
    }
    if error.is::<Unresolved>() {
        return Some(NoAnswer::NameResolution);
    }
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        // The first byte of an HTTP answer is not a TLS record type.
        let is_http = matches!(error, rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType));
        let problem = certificate::problem(error).map(|(cause, _)| cause);
        return Some(if is_http { NoAnswer::SpeaksPlainHttp } else { problem.unwrap_or(NoAnswer::Tls) });
    }
    match error.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => Some(NoAnswer::ConnectionRefused),
        Some(io::ErrorKind::TimedOut) => Some(NoAnswer::TimedOut),
        _ => error.downcast_ref::<reqwest::Error>().filter(|error| error.is_timeout()).map(|_| NoAnswer::TimedOut),
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.cause()) {
            (_, NoAnswer::ConnectionRefused) => f.write_str("connection refused"),
            (_, NoAnswer::SpeaksPlainHttp) => f.write_str("the server speaks plain HTTP, not TLS"),
            (_, NoAnswer::SpeaksTls) => f.write_str("the server speaks TLS, not plain HTTP"),
            (Fault::Final(error) | Fault::Unsent(error) | Fault::Cut(error), cause) => {
                let named = causes(&**error).find(|error| cause_of(*error).is_some());
                match (named, named.and_then(|error| error.downcast_ref::<rustls::Error>())) {
                    (_, Some(error)) => match certificate::problem(error) {
                        Some((_, problem)) => write!(f, "TLS failed: {problem}"),
                        None => write!(f, "TLS failed: {error}"),
                    },
                    (Some(error), None) if cause == NoAnswer::TimedOut => {
                        f.write_str("timed out: ")?;
                        write_chain(f, error)
                    }
                    (Some(error), None) => write!(f, "{error}"),
                    (None, None) => write_chain(f, &**error),
                }
            }
            (Fault::Silent(time), _) => write!(f, "timed out: nothing was received for {} s", time.as_secs_f64()),
            (Fault::Slow(time), _) => {
                write!(f, "timed out: the answer was not complete after {} s", time.as_secs_f64())
            }
            (Fault::Payload(error) | Fault::Setup(error), _) => fmt::Display::fmt(error, f),
            (Fault::SpeaksTls, _) => Ok(()),
        }
    }
}

impl StdError for Fault {}

/// Writes an error and its causes on one line. The message of `reqwest::Error` alone does not name the cause.
fn write_chain(f: &mut fmt::Formatter<'_>, error: &(dyn StdError + 'static)) -> fmt::Result {
    let mut last = error.to_string();
    f.write_str(&last)?;
    let mut next = error.source();
    while let Some(error) = next {
        let text = error.to_string();
        if !last.contains(&text) {
            write!(f, ": {text}")?;
            last = text;
        }
        next = error.source();
    }
    Ok(())
}

/// Classifies an error of the HTTP client.
pub(super) fn classify(error: reqwest::Error) -> Fault {
    // The URL may contain signatures, and the caller knows it.
    let error = error.without_url();
    let unsent = error.is_connect();
    // A TLS error on an established connection is damage in transit, which a retry may avoid.
    let refused = |cause: &(dyn StdError + 'static)| cause.is::<OutOfReach>() || unsent && cause.is::<rustls::Error>();
    let is_final = error.is_builder() || causes(&error).any(refused);
    let error = Box::new(error);
    match (is_final, unsent) {
        (true, _) => Fault::Final(error),
        (false, true) => Fault::Unsent(error),
        (false, false) => Fault::Cut(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_message_names_its_cause() {
        let io = |kind: io::ErrorKind| Box::new(io::Error::from(kind));
        let tls = |error: rustls::Error| Box::new(io::Error::other(error));
        let http = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        let issuer = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        for (fault, cause, text) in [
            (Fault::Unsent(io(io::ErrorKind::ConnectionRefused)), NoAnswer::ConnectionRefused, "connection refused"),
            (Fault::Final(tls(http)), NoAnswer::SpeaksPlainHttp, "the server speaks plain HTTP, not TLS"),
            (Fault::SpeaksTls, NoAnswer::SpeaksTls, "the server speaks TLS, not plain HTTP"),
            (
                Fault::Final(tls(issuer)),
                NoAnswer::UntrustedCertificate,
                "TLS failed: no trusted certificate authority issued the server's certificate",
            ),
            (
                Fault::Final(tls(rustls::Error::DecryptError)),
                NoAnswer::Tls,
                "TLS failed: cannot decrypt peer's message",
            ),
            (Fault::Silent(Duration::from_secs(5)), NoAnswer::TimedOut, "timed out: nothing was received for 5 s"),
            (Fault::Unsent(io(io::ErrorKind::TimedOut)), NoAnswer::TimedOut, "timed out: timed out"),
            (Fault::Cut("reset".into()), NoAnswer::Other, "reset"),
        ] {
            assert_eq!((fault.cause(), fault.to_string().as_str()), (cause, text), "{fault:?}");
        }
    }
}
