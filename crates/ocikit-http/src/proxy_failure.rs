use std::error::Error as StdError;
use std::io;

use crate::retry::causes;
use crate::tls;
use reqwest::Url;

use crate::address::{OutOfReach, Unresolved};

/// A proxy that cannot be reached, or that does not connect to the server of the request. The address of the proxy is
/// without the user name and the password in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyFailure {
    /// There is no connection to the proxy.
    #[error("cannot connect to the proxy {address}: {reason}")]
    Connect { address: String, reason: String },
    /// The proxy answers 407.
    #[error("the proxy {address} requires credentials, or rejects those in its URL (status 407)")]
    NeedsCredentials { address: String },
    /// The proxy refuses to connect to this host.
    #[error("the proxy {address} refuses to connect to {host}")]
    Refuses { address: String, host: String },
}

impl ProxyFailure {
    /// Returns the failure for a proxy that requires credentials.
    pub(crate) fn needs_credentials(proxy: &str) -> ProxyFailure {
        ProxyFailure::NeedsCredentials { address: address_of(proxy) }
    }

    /// Returns whether a retry would fail the same way.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, ProxyFailure::NeedsCredentials { .. })
    }
}

/// Attributes the failure to send a request to its proxy; `None` if the server of the request had a part in it.
pub(crate) fn attribute(error: &(dyn StdError + 'static), proxy: &str, host: &str) -> Option<ProxyFailure> {
    // TLS is spoken to the server, through the proxy.
    if causes(error).any(|cause| tls::is_error(cause) || cause.is::<OutOfReach>()) {
        return None;
    }
    // hyper-util exports neither the type of its tunnel errors nor the status of the proxy's answer, so the text is the only
    // way to tell a missing password from a refusal.
    let tunnel =
        causes(error).map(ToString::to_string).find_map(|text| Some(text.strip_prefix("tunnel error: ")?.to_owned()));
    let address = address_of(proxy);
    Some(match tunnel.as_deref() {
        Some("proxy authorization required") => ProxyFailure::NeedsCredentials { address },
        Some("unsuccessful") => ProxyFailure::Refuses { address, host: host.to_owned() },
        _ => ProxyFailure::Connect { address, reason: reason(error) },
    })
}

fn reason(error: &(dyn StdError + 'static)) -> String {
    let is = |kind| {
        move |cause: &(dyn StdError + 'static)| {
            cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == kind)
        }
    };
    if causes(error).any(is(io::ErrorKind::ConnectionRefused)) {
        return "connection refused".to_owned();
    }
    let unresolved = causes(error).find(|cause| cause.is::<Unresolved>());
    unresolved.or_else(|| causes(error).last()).map(ToString::to_string).unwrap_or_default()
}

/// Returns the URL of a proxy without the user name, the password and the path.
fn address_of(proxy: &str) -> String {
    match Url::parse(proxy) {
        Ok(url) => {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
        }
        Err(_) => "of the environment".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_name_the_proxy_without_secrets() {
        let proxy = "http://user:secret@proxy.example:3128/";
        let refused: Box<dyn StdError> = io::Error::from(io::ErrorKind::ConnectionRefused).into();
        for (error, text) in [
            (refused, "cannot connect to the proxy http://proxy.example:3128: connection refused"),
            ("tunnel error: unsuccessful".into(), "the proxy http://proxy.example:3128 refuses to connect to ghcr.io"),
            (
                "tunnel error: proxy authorization required".into(),
                "the proxy http://proxy.example:3128 requires credentials, or rejects those in its URL (status 407)",
            ),
        ] {
            assert_eq!(attribute(&*error, proxy, "ghcr.io").unwrap().to_string(), text);
        }
    }
}
