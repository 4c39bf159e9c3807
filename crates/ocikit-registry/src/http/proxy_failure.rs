use std::error::Error as StdError;
use std::fmt;
use std::io;

use ocikit_image::retry::causes;
use reqwest::Url;

use super::address::{OutOfReach, Unresolved};
use super::fault::Fault;

/// A proxy that cannot be reached, or that does not connect to the server of the request.
#[derive(Debug)]
pub(super) struct ProxyFailure {
    /// The address of the proxy, without the user name and the password in it.
    address: String,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    /// There is no connection to the proxy, for this reason.
    Connect(String),
    /// The proxy answers 407.
    NeedsCredentials,
    /// The proxy refuses to connect to this host.
    Refuses(String),
}

impl ProxyFailure {
    /// Returns the failure for a proxy that requires credentials.
    pub(super) fn needs_credentials(proxy: &str) -> ProxyFailure {
        ProxyFailure { address: address_of(proxy), problem: Problem::NeedsCredentials }
    }
}

impl fmt::Display for ProxyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = &self.address;
        match &self.problem {
            Problem::Connect(reason) => write!(f, "cannot connect to the proxy {address}: {reason}"),
            Problem::NeedsCredentials => {
                write!(f, "the proxy {address} requires credentials, or rejects those in its URL (status 407)")
            }
            Problem::Refuses(host) => write!(f, "the proxy {address} refuses to connect to {host}"),
        }
    }
}

impl StdError for ProxyFailure {}

/// Attributes the failure of a request to its proxy, if the server of the request had no part in it.
pub(super) fn attribute(fault: Fault, proxy: &str, host: &str) -> Fault {
    let Fault::Unsent(error) = fault else { return fault };
    // TLS is spoken to the server, through the proxy.
    if causes(&*error).any(|cause| cause.is::<rustls::Error>() || cause.is::<OutOfReach>()) {
        return Fault::Unsent(error);
    }
    // hyper-util does not export the type of its tunnel errors, nor the status of the proxy's answer.
    let tunnel =
        causes(&*error).map(ToString::to_string).find_map(|text| Some(text.strip_prefix("tunnel error: ")?.to_owned()));
    let problem = match tunnel.as_deref() {
        Some("proxy authorization required") => Problem::NeedsCredentials,
        Some("unsuccessful") => Problem::Refuses(host.to_owned()),
        _ => Problem::Connect(reason(&*error)),
    };
    let is_final = matches!(problem, Problem::NeedsCredentials);
    let failure = Box::new(ProxyFailure { address: address_of(proxy), problem });
    if is_final { Fault::Final(failure) } else { Fault::Unsent(failure) }
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
        let refused = || Fault::Unsent(Box::new(io::Error::from(io::ErrorKind::ConnectionRefused)));
        for (fault, text) in [
            (refused(), "cannot connect to the proxy http://proxy.example:3128: connection refused"),
            (
                Fault::Unsent("tunnel error: unsuccessful".into()),
                "the proxy http://proxy.example:3128 refuses to connect to ghcr.io",
            ),
            (
                Fault::Unsent("tunnel error: proxy authorization required".into()),
                "the proxy http://proxy.example:3128 requires credentials, or rejects those in its URL (status 407)",
            ),
            (Fault::Cut("reset".into()), "reset"),
        ] {
            assert_eq!(attribute(fault, proxy, "ghcr.io").to_string(), text);
        }
    }
}
