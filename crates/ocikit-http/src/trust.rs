//! Decides which redirects are followed, and what a server gets that another server names.

use std::sync::Arc;

use reqwest::Method;

use crate::address::Reach;
use crate::settings::TlsSettings;
use crate::url::{InvalidUrl, Url};

/// Maximum number of redirects that are followed for one request.
const MAX_REDIRECTS: usize = 10;

/// Who named the server that a request goes to. It decides what the server gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The user. It is contacted at any address, with the TLS settings for it, and may get its credentials.
    User(Arc<TlsSettings>),
    /// Another server. It is contacted only at an address within reach, with the TLS settings for servers that are
    /// named like this, and gets no credentials of the server that named it.
    Server(Reach),
}

impl Origin {
    /// Returns the origin of a URL that the server at `from` named, which itself has this origin; `None` if the URL is
    /// on the same server, which is trusted as before. `reach` is what a server at the address of `from` may name.
    ///
    /// This is the one place that decides whether a URL in an answer is trusted like the server that sent it.
    pub(crate) fn of_other(&self, from: &Url, to: &Url, reach: Reach) -> Option<Origin> {
        match self {
            _ if is_same_server(from, to) => None,
            Origin::User(_) => Some(Origin::Server(reach)),
            Origin::Server(before) => Some(Origin::Server(before.narrowed(reach))),
        }
    }

    /// Returns the addresses that may be contacted.
    pub(crate) fn reach(&self) -> Reach {
        match self {
            Origin::User(_) => Reach::Anywhere,
            Origin::Server(reach) => *reach,
        }
    }
}

/// Why a location that a server names is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidLocation {
    /// A redirect has no location.
    #[error("it redirects with status {status} and without a location")]
    Missing {
        /// The status of the redirect.
        status: u16,
    },
    /// The location is not a URL.
    #[error("it names a location that is not a URL: {0}")]
    NotUrl(InvalidUrl),
    /// The location has another scheme than `http` and `https`.
    #[error("it names a location with the scheme `{scheme}`")]
    Scheme {
        /// The scheme.
        scheme: String,
    },
    /// A location that is reached without TLS follows from one that is reached with TLS.
    #[error("it names a location without TLS")]
    WithoutTls,
    /// There are too many redirects.
    #[error("it redirects more than {MAX_REDIRECTS} times")]
    TooMany,
    /// A location was visited before.
    #[error("it redirects in a loop")]
    Loop,
}

/// Returns whether two URLs belong to the same server, which may get the same credentials.
fn is_same_server(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme() && one.host() == other.host() && one.port() == other.port()
}

/// Returns whether a status is a redirect.
pub(crate) fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// Returns URL and method of the next request after a redirect. `visited` are the URLs requested so far; the last of them
/// answered.
///
/// # Errors
///
/// [`InvalidLocation`] if the redirect is not followed.
pub(crate) fn follow(
    visited: &[Url],
    method: &Method,
    status: u16,
    location: Option<&str>,
) -> Result<(Url, Method), InvalidLocation> {
    let from = visited.last().ok_or(InvalidLocation::Missing { status })?;
    let location = location.ok_or(InvalidLocation::Missing { status })?;
    let url = resolve(from, location)?;
    if visited.len() > MAX_REDIRECTS {
        return Err(InvalidLocation::TooMany);
    }
    if visited.contains(&url) {
        return Err(InvalidLocation::Loop);
    }
    // The method is kept. Browsers turn `PUT` into `GET` after 301 and 302, which means nothing to a registry.
    let method = if status == 303 && *method != Method::HEAD { Method::GET } else { method.clone() };
    Ok((url, method))
}

/// Resolves a `Location` header relative to the URL that answered.
///
/// Distribution behind a proxy that terminates TLS names itself with `http` (distribution/distribution#479,
/// distribution/distribution#996). For the same host the scheme is corrected; any other change from HTTPS to HTTP is
/// refused.
///
/// # Errors
///
/// [`InvalidLocation::NotUrl`], [`InvalidLocation::Scheme`] and [`InvalidLocation::WithoutTls`].
pub fn resolve(from: &Url, location: &str) -> Result<Url, InvalidLocation> {
    let mut url = from.join(location).map_err(InvalidLocation::NotUrl)?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_empty() {
        return Err(InvalidLocation::Scheme { scheme: url.scheme().to_owned() });
    }
    url.strip();
    // A loopback server that was found to speak TLS names itself with `https`. The URL keeps `http`, since the
    // transport upgrades it for every request to this server.
    if from.scheme() == "http" && url.scheme() == "https" && is_same_loopback(from, &url) {
        let port = url.port();
        url.set_scheme("http", Some(port));
    }
    if from.scheme() == "https" && url.scheme() == "http" {
        let port = url.explicit_port();
        let named_itself = url.host() == from.host() && (port.is_none() || port == from.explicit_port());
        if !named_itself {
            return Err(InvalidLocation::WithoutTls);
        }
        url.set_scheme("https", from.explicit_port());
    }
    Ok(url)
}

fn is_same_loopback(one: &Url, other: &Url) -> bool {
    one.is_loopback_registry() && one.host() == other.host() && one.port() == other.port()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Zone;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn locations_are_resolved() {
        for (from, location, to) in [
            ("https://a/v2/x", "/v2/y?z=1", Ok("https://a/v2/y?z=1")),
            ("https://a/v2/x", "y", Ok("https://a/v2/y")),
            ("https://a/v2/x", "https://b/y", Ok("https://b/y")),
            ("https://a/v2/x", "//b/y", Ok("https://b/y")),
            ("https://a/v2/x", "http://a/y", Ok("https://a/y")),
            ("https://a:5000/v2/x", "http://a:5000/y", Ok("https://a:5000/y")),
            ("https://a:5000/v2/x", "http://a/y", Ok("https://a:5000/y")),
            ("https://a/v2/x", "http://a:80/y", Ok("https://a/y")),
            ("https://a/v2/x", "http://a:81/y", Err(())),
            ("https://a/v2/x", "http://b/y", Err(())),
            ("http://a/v2/x", "https://b/y", Ok("https://b/y")),
            ("http://a/v2/x", "http://b/y", Ok("http://b/y")),
            ("http://localhost:5000/v2/x", "https://localhost:5000/y", Ok("http://localhost:5000/y")),
            ("http://localhost:5000/v2/x", "https://localhost:5001/y", Ok("https://localhost:5001/y")),
            ("http://a:5000/v2/x", "https://a:5000/y", Ok("https://a:5000/y")),
            ("https://a/v2/x", "https://user:secret@b/y#z", Ok("https://b/y")),
            ("https://a/v2/x", "ftp://b/y", Err(())),
            ("https://a/v2/x", "file:///etc/passwd", Err(())),
            ("https://a/v2/x", "https://", Err(())),
        ] {
            let found = resolve(&url(from), location);
            assert_eq!(found.as_ref().map(Url::reveal).map_err(drop), to, "{location} at {from}");
        }
    }

    #[test]
    fn same_server_compares_scheme_host_and_port() {
        for (one, other, same) in [
            ("https://a/x", "https://a/y", true),
            ("https://a/x", "https://a:443/y", true),
            ("https://a/x", "https://a:444/y", false),
            ("https://a/x", "http://a/y", false),
            ("https://a/x", "https://b.a/y", false),
            ("https://a/x", "https://A/y", true),
        ] {
            assert_eq!(is_same_server(&url(one), &url(other)), same, "{one} {other}");
        }
    }

    #[test]
    fn redirect_loops_and_long_chains_are_refused() {
        let visited: Vec<_> = (0..=MAX_REDIRECTS).map(|step| url(&format!("https://a/{step}"))).collect();
        let ask = |visited: &[Url], location| follow(visited, &Method::GET, 307, Some(location));
        assert!(ask(&visited[..1], "/1").is_ok());
        assert!(ask(&visited[..1], "/0").is_err());
        assert!(ask(&visited[..3], "/1").is_err());
        assert!(ask(&visited[..MAX_REDIRECTS], "/new").is_ok());
        assert!(ask(&visited, "/new").is_err());
        assert!(follow(&visited[..1], &Method::GET, 307, None).is_err());
    }

    #[test]
    fn redirects_keep_the_method() {
        let visited = [url("https://a/x")];
        for (method, status, expected) in [
            (Method::GET, 302, Method::GET),
            (Method::HEAD, 303, Method::HEAD),
            (Method::PUT, 301, Method::PUT),
            (Method::PUT, 307, Method::PUT),
            (Method::PUT, 303, Method::GET),
        ] {
            assert_eq!(follow(&visited, &method, status, Some("/y")).unwrap().1, expected, "{method} {status}");
        }
    }

    #[test]
    fn servers_that_other_servers_name_are_trusted_less() {
        let user = Origin::User(Arc::default());
        let (public, private) = (Origin::Server(Reach::From(Zone::Public)), Origin::Server(Reach::From(Zone::Private)));
        for (origin, to, from_zone, expected) in [
            (&user, "https://a/y", Zone::Public, None),
            (&user, "https://b/y", Zone::Public, Some(&public)),
            (&user, "https://a:444/y", Zone::Private, Some(&private)),
            (&public, "https://a/y", Zone::Public, None),
            (&public, "https://b/y", Zone::Private, Some(&public)),
            (&private, "https://b/y", Zone::Public, Some(&public)),
            (&private, "https://b/y", Zone::Loopback, Some(&private)),
        ] {
            let found = origin.of_other(&url("https://a/x"), &url(to), Reach::From(from_zone));
            assert_eq!(found.as_ref(), expected, "{origin:?} {to}");
        }
        let trusting = user.of_other(&url("https://a/x"), &url("https://b/y"), Reach::Anywhere);
        assert_eq!(trusting, Some(Origin::Server(Reach::Anywhere)));
    }

    proptest::proptest! {
        #[test]
        fn no_location_leaves_tls(location in ".*|http://[a-z.:/]{0,20}|[a-z:/.]{0,12}") {
            if let Ok(found) = resolve(&url("https://a/v2/"), &location) {
                proptest::prop_assert_eq!(found.scheme(), "https");
            }
        }
    }
}
