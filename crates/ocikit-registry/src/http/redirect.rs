//! Decides which redirects are followed.

use ocikit_spec::Registry;
use reqwest::{Method, Url};

/// Maximum number of redirects that are followed for one request.
const MAX_REDIRECTS: usize = 10;

/// The next request after a redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hop {
    pub(crate) url: Url,
    pub(crate) method: Method,
    /// Whether it goes to the same server, which may receive the credentials again.
    pub(crate) same: bool,
}

/// Returns whether a status is a redirect.
pub(crate) fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// Decides about a redirect. `visited` are the URLs requested so far; the last of them answered.
///
/// # Errors
///
/// The reason why the redirect is not followed.
pub(crate) fn follow(visited: &[Url], method: &Method, status: u16, location: Option<&str>) -> Result<Hop, String> {
    let from = visited.last().ok_or("no request to redirect")?;
    let location = location.ok_or_else(|| format!("it redirects with status {status} and without a location"))?;
    let url = resolve(from, location)?;
    if visited.len() > MAX_REDIRECTS {
        return Err(format!("it redirects more than {MAX_REDIRECTS} times"));
    }
    if visited.contains(&url) {
        return Err("it redirects in a loop".to_owned());
    }
    // The method is kept. Browsers turn `PUT` into `GET` after 301 and 302, which means nothing to a registry.
    let method = if status == 303 && *method != Method::HEAD { Method::GET } else { method.clone() };
    Ok(Hop { same: same_server(from, &url), url, method })
}

/// Resolves a `Location` header relative to the URL that answered.
///
/// Distribution behind a proxy that terminates TLS names itself with `http` (distribution/distribution#479,
/// distribution/distribution#996). For the same host the scheme is corrected; any other change from HTTPS to HTTP is
/// refused.
///
/// # Errors
///
/// What is wrong with the location.
pub(crate) fn resolve(from: &Url, location: &str) -> Result<Url, String> {
    let mut url = from.join(location).map_err(|error| format!("it names a location that is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("it names a location with the scheme `{}`", url.scheme()));
    }
    url.set_fragment(None);
    // A user and password in a location are the server's, and are not sent.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    // A loopback server that was found to speak TLS names itself with `https`. The URL keeps `http`, since the
    // transport upgrades it for every request to this server.
    if from.scheme() == "http" && url.scheme() == "https" && is_same_loopback(from, &url) {
        let port = url.port_or_known_default();
        let _ = url.set_scheme("http");
        let _ = url.set_port(port);
    }
    if from.scheme() == "https" && url.scheme() == "http" {
        let port = url.port();
        let named_itself = url.host_str() == from.host_str() && (port.is_none() || port == from.port());
        if !named_itself || url.set_scheme("https").is_err() {
            return Err("it names a location without TLS".to_owned());
        }
        let _ = url.set_port(from.port());
    }
    Ok(url)
}

fn is_same_loopback(one: &Url, other: &Url) -> bool {
    let registry = one.host_str().unwrap_or_default().parse::<Registry>();
    registry.is_ok_and(|registry| registry.is_loopback())
        && one.host_str() == other.host_str()
        && one.port_or_known_default() == other.port_or_known_default()
}

/// Returns whether two URLs belong to the same server, to which the same credentials may be sent.
pub(crate) fn same_server(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host_str() == other.host_str()
        && one.port_or_known_default() == other.port_or_known_default()
}

/// Returns a URL for messages. The query is replaced, since it may hold signatures and tokens.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    if url.query().is_some() {
        url.set_query(Some("…"));
        return url.as_str().replace("%E2%80%A6", "…");
    }
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(found.as_ref().map(Url::as_str).map_err(drop), to, "{location} at {from}");
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
            assert_eq!(same_server(&url(one), &url(other)), same, "{one} {other}");
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
            assert_eq!(follow(&visited, &method, status, Some("/y")).unwrap().method, expected, "{method} {status}");
        }
    }

    #[test]
    fn query_of_a_url_is_hidden() {
        assert_eq!(shown(&url("https://u:p@a/x?X-Amz-Signature=abc")), "https://a/x?…");
        assert_eq!(shown(&url("https://a/x")), "https://a/x");
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
