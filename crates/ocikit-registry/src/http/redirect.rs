//! Where to go when a server says that what was asked for is elsewhere.

use ocikit_spec::Registry;
use reqwest::{Method, Url};

/// How many redirects are followed for one request.
const MOST: usize = 10;

/// A redirect that is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hop {
    pub(crate) url: Url,
    pub(crate) method: Method,
    /// Whether it stays with the server that was asked, which may then see the credentials again.
    pub(crate) same: bool,
}

/// Whether an answer with this status sends us elsewhere.
pub(crate) fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// Decides about a redirect of a request that has been to these places, the last of which answered.
///
/// # Errors
///
/// Why it is not followed.
pub(crate) fn follow(visited: &[Url], method: &Method, status: u16, location: Option<&str>) -> Result<Hop, String> {
    let from = visited.last().ok_or("a redirect of nothing")?;
    let location = location.ok_or_else(|| format!("it redirects to nowhere with status {status}"))?;
    let url = resolve(from, location)?;
    if visited.len() > MOST {
        return Err(format!("it redirects more than {MOST} times"));
    }
    if visited.contains(&url) {
        return Err("it redirects in a circle".to_owned());
    }
    // What is not safe is repeated as it was. Browsers turn it into a GET, which means nothing to a registry.
    let method = if status == 303 && *method != Method::HEAD { Method::GET } else { method.clone() };
    Ok(Hop { same: same_server(from, &url), url, method })
}

/// The URL that a `Location` means, relative to where it was given.
///
/// distribution behind a proxy that ends TLS names itself with `http` (distribution/distribution#479, #996); that is put
/// right. To go elsewhere without TLS is refused.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn resolve(from: &Url, location: &str) -> Result<Url, String> {
    let mut url = from.join(location).map_err(|error| format!("it names a location that is no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("it names a location with the scheme `{}`", url.scheme()));
    }
    url.set_fragment(None);
    // Whatever stands there is not ours to send.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    // A server on this machine that turned out to speak TLS names itself with `https`; the connection knows better than
    // the scheme, which stays what it was.
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

/// Whether two URLs are answered by the same server as far as credentials are concerned.
pub(crate) fn same_server(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host_str() == other.host_str()
        && one.port_or_known_default() == other.port_or_known_default()
}

/// A URL for messages: what follows the path may hold signatures and tokens.
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
    fn locations_are_absolute_or_relative() {
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
    fn credentials_stay_with_the_server() {
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
    fn circles_and_long_ways_end() {
        let visited: Vec<_> = (0..=MOST).map(|step| url(&format!("https://a/{step}"))).collect();
        let ask = |visited: &[Url], location| follow(visited, &Method::GET, 307, Some(location));
        assert!(ask(&visited[..1], "/1").is_ok());
        assert!(ask(&visited[..1], "/0").is_err());
        assert!(ask(&visited[..3], "/1").is_err());
        assert!(ask(&visited[..MOST], "/new").is_ok());
        assert!(ask(&visited, "/new").is_err());
        assert!(follow(&visited[..1], &Method::GET, 307, None).is_err());
    }

    #[test]
    fn the_method_stays() {
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
    fn a_signature_is_not_shown() {
        assert_eq!(shown(&url("https://u:p@a/x?X-Amz-Signature=abc")), "https://a/x?…");
        assert_eq!(shown(&url("https://a/x")), "https://a/x");
    }

    proptest::proptest! {
        #[test]
        fn no_location_leads_out_of_tls(location in ".*|http://[a-z.:/]{0,20}|[a-z:/.]{0,12}") {
            if let Ok(found) = resolve(&url("https://a/v2/"), &location) {
                proptest::prop_assert_eq!(found.scheme(), "https");
            }
        }
    }
}
