//! Refuses requests that web pages make browsers send.
//!
//! A server on a loopback or private address can be reached by every browser on the machine or network, and so by every
//! page that such a browser shows. Two checks keep pages out. The `Host` of a request must be one of this server's,
//! because a page can let its own name resolve to this server's address (DNS rebinding), which makes both the same
//! origin for the browser. A request that changes something must not come from a page of another origin.

use std::net::IpAddr;

use axum::http::header::{HOST, HeaderName, ORIGIN};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, Version};

use crate::refusal::{Code, Refusal, Result};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses a request for another host, or one that changes something and was sent by a page of another origin.
pub(crate) fn check(parts: &Parts, allowed_hosts: &[String]) -> Result<()> {
    let host = host(parts)?;
    if let Some(host) = host.as_ref().filter(|host| !is_own(host, allowed_hosts)) {
        let message = format_args!("`{}` is not an allowed host name of this registry", host.host());
        return Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, Code::Denied, message));
    }
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    if !reads && !is_same_origin(&parts.headers, host.as_ref()) {
        let message = "a web page of another origin sent the request";
        return Err(Refusal::new(StatusCode::FORBIDDEN, Code::Denied, message));
    }
    Ok(())
}

/// Returns the host that a request names. Only requests older than HTTP/1.1, which browsers do not send, name none.
fn host(parts: &Parts) -> Result<Option<Authority>> {
    let invalid = |problem| Refusal::invalid(Code::Unsupported, problem);
    let mut headers = parts.headers.get_all(HOST).iter();
    let header = headers.next().map(|value| value.to_str().ok().and_then(|text| text.parse::<Authority>().ok()));
    let header = header.map(|host| host.ok_or_else(|| invalid("the header `Host` is not a host"))).transpose()?;
    // RFC 9112, section 3.2
    if headers.next().is_some() {
        return Err(invalid("there are several headers `Host`"));
    }
    match parts.uri.authority().cloned().or(header) {
        None if parts.version > Version::HTTP_10 => Err(invalid("the header `Host` is missing")),
        host => Ok(host),
    }
}

/// Returns whether a host is this server's, at any port, since a tunnel or container may publish another port.
///
/// The name of an attacker's page cannot be an IP address or `localhost`, so these are always allowed. The address need
/// not be the server's own: network address translation may be in front of it.
fn is_own(host: &Authority, allowed_hosts: &[String]) -> bool {
    if host.as_str().contains('@') {
        return false;
    }
    let name = host.host().trim_matches(['[', ']']);
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let is_loopback = name == "localhost" || name.ends_with(".localhost");
    is_loopback || name.parse::<IpAddr>().is_ok() || allowed_hosts.iter().any(|host| host.eq_ignore_ascii_case(&name))
}

/// Returns whether a request comes from no web page, or from one of this server. Browsers state the origin in requests
/// that may change something; other clients do not.
fn is_same_origin(headers: &HeaderMap, host: Option<&Authority>) -> bool {
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter().peekable();
    if sites.peek().is_some() {
        return sites.all(|site| site == "same-origin" || site == "none");
    }
    headers.get_all(ORIGIN).iter().all(|origin| {
        let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, rest)| rest);
        authority.zip(host).is_some_and(|(authority, host)| authority.eq_ignore_ascii_case(host.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn status(method: &str, uri: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        check(&parts, &["registry.lan".to_owned()]).map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn only_addresses_local_and_allowed_host_names_are_accepted() {
        for (host, expected) in [
            ("127.0.0.1:5000", 200),
            ("127.0.0.1", 200),
            ("192.168.1.7:5000", 200),
            ("[::1]:5000", 200),
            ("localhost:1", 200),
            ("LOCALHOST.", 200),
            ("registry.localhost:5000", 200),
            ("registry.lan:5000", 200),
            ("Registry.LAN.", 200),
            ("evil.example:5000", 421),
            ("localhost.evil.example", 421),
            ("127.0.0.1.evil.example", 421),
            ("notlocalhost", 421),
            ("sub.registry.lan", 421),
            ("localhost@evil.example", 421),
            ("evil.example@localhost", 421),
            ("", 400),
            ("a b", 400),
            ("localhost/x", 400),
        ] {
            assert_eq!(status("GET", "/v2/", &[("host", host)]), expected, "{host}");
        }
        assert_eq!(status("GET", "/v2/", &[]), 400);
        assert_eq!(status("GET", "/v2/", &[("host", "localhost"), ("host", "localhost")]), 400);
        assert_eq!(status("GET", "http://evil.example/v2/", &[("host", "localhost")]), 421);
    }

    #[test]
    fn writes_of_another_origin_are_refused() {
        for (method, header, value, expected) in [
            ("POST", "origin", "http://evil.example", 403),
            ("POST", "origin", "null", 403),
            ("POST", "origin", "http://localhost:3000", 403),
            ("POST", "origin", "http://localhost:5000", 200),
            ("POST", "sec-fetch-site", "cross-site", 403),
            ("POST", "sec-fetch-site", "same-site", 403),
            ("POST", "sec-fetch-site", "same-origin", 200),
            ("POST", "sec-fetch-site", "none", 200),
            ("PUT", "origin", "http://evil.example", 403),
            ("PATCH", "origin", "http://evil.example", 403),
            ("DELETE", "sec-fetch-site", "cross-site", 403),
            // The browser does not let the page read the response.
            ("GET", "origin", "http://evil.example", 200),
            ("POST", "content-type", "text/plain", 200),
        ] {
            let headers = [("host", "localhost:5000"), (header, value)];
            assert_eq!(status(method, "/v2/a/blobs/uploads/", &headers), expected, "{method} {header}: {value}");
        }
        let both = [("host", "localhost"), ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")];
        assert_eq!(status("POST", "/token", &both), 403);
    }
}
