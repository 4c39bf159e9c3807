//! Proxies: which one a request uses, with the semantics of Go's `golang.org/x/net/http/httpproxy`.
//!
//! docker, podman, crane, skopeo, oras and cosign are written in Go, so their settings work unchanged. reqwest differs:
//! it treats a port in `NO_PROXY` as a part of the name (seanmonstar/reqwest#2579) and does not match a leading dot as
//! Go does (seanmonstar/reqwest#705).

use std::fmt;
use std::net::IpAddr;

use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::url::{Url, bare};

/// The proxies of a program, with the values of the environment variables of the same name.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct ProxyOptions {
    /// The proxy for `http` URLs: `HTTP_PROXY`. Its URL may hold a password.
    pub http: Option<Zeroizing<String>>,
    /// The proxy for `https` URLs: `HTTPS_PROXY`.
    pub https: Option<Zeroizing<String>>,
    /// The hosts that are reached without a proxy: `NO_PROXY`. See [`ProxyOptions::proxy_for`].
    pub except: String,
}

ocikit_spec::setters! {
    ProxyOptions {
        http: Option<Zeroizing<String>>,
        https: Option<Zeroizing<String>>,
        except: String,
    }
}

impl ProxyOptions {
    /// Returns the URL of the proxy for a request, or `None` if the request goes to its host directly.
    ///
    /// `localhost`, the names below it and loopback addresses are always reached directly. Entries of
    /// [`except`](ProxyOptions::except) are separated by commas: `*` for every host, an address, a network as
    /// `ADDRESS/BITS`, a domain, which stands for itself and all names below it, or `.DOMAIN` and `*.DOMAIN` for the names
    /// below it alone. Addresses and domains may have a `:PORT`. A proxy without a scheme is an `http` proxy.
    ///
    /// ```
    /// use ocikit_http::ProxyOptions;
    ///
    /// let http = Some("proxy.example:3128".to_owned().into());
    /// let proxies = ProxyOptions::default().http(http).except("example.com:8080,10.0.0.0/8".to_owned());
    /// let found = proxies.proxy_for("http", "registry.example.com", 80);
    /// assert_eq!(found.as_ref().map(|url| url.as_str()), Some("http://proxy.example:3128"));
    /// assert!(proxies.proxy_for("http", "registry.example.com", 8080).is_none());
    /// assert!(proxies.proxy_for("http", "10.1.2.3", 80).is_none());
    /// ```
    pub fn proxy_for(&self, scheme: &str, host: &str, port: u16) -> Option<Zeroizing<String>> {
        let proxy = match scheme {
            "https" => self.https.as_ref(),
            "http" => self.http.as_ref(),
            _ => None,
        };
        let proxy = proxy.filter(|proxy| !proxy.trim().is_empty())?;
        if !self.uses_proxy(host, port) {
            return None;
        }
        Some(url_of(proxy))
    }

    /// Checks that the addresses are URLs.
    ///
    /// # Errors
    ///
    /// [`Error::Proxy`] if one is not.
    pub fn check(&self) -> Result<()> {
        for (variable, proxy) in [("HTTP_PROXY", &self.http), ("HTTPS_PROXY", &self.https)] {
            let Some(proxy) = proxy.as_ref().filter(|proxy| !proxy.trim().is_empty()) else { continue };
            let parsed = url_of(proxy).parse::<Url>();
            parsed.map_err(|error| Error::Proxy { variable, problem: error.to_string() })?;
        }
        Ok(())
    }

    fn uses_proxy(&self, host: &str, port: u16) -> bool {
        let host = bare(host.trim()).to_ascii_lowercase();
        if host.is_empty() || host == "localhost" || host.ends_with(".localhost") {
            return host.is_empty();
        }
        let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        if address.is_some_and(|address| address.is_loopback()) {
            return false;
        }
        !self.except.split(',').any(|entry| matches(&entry.trim().to_lowercase(), &host, address, port))
    }
}

/// Returns the URL of a proxy. An address without a scheme is an `http` proxy.
///
/// A `socks5` proxy resolves the names of servers itself, like a `socks5h` proxy: so does Go (golang/go#24135). In curl
/// and reqwest, `socks5` means that the client resolves them.
fn url_of(proxy: &str) -> Zeroizing<String> {
    let proxy = proxy.trim();
    if let Some((scheme, rest)) = proxy.split_once("://")
        && scheme.eq_ignore_ascii_case("socks5")
    {
        return Zeroizing::new(format!("socks5h://{rest}"));
    }
    let has_scheme = proxy.find("://").is_some_and(|at| at > 0);
    Zeroizing::new(if has_scheme { proxy.to_owned() } else { format!("http://{proxy}") })
}

/// Returns whether an entry of `NO_PROXY` matches a host.
fn matches(entry: &str, host: &str, address: Option<IpAddr>, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let Some((network, bits)) = entry.split_once('/')
        && let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u8>())
    {
        return address.is_some_and(|address| is_within(address, network, bits));
    }
    let (name, wanted) = split_port(entry);
    if name.is_empty() {
        return false;
    }
    let is_port = wanted.is_none_or(|wanted| wanted.parse() == Ok(port));
    if let Ok(named) = name.parse::<IpAddr>() {
        return is_port && address == Some(named.to_canonical());
    }
    if address.is_some() {
        return false;
    }
    let suffix = name.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(name);
    let is_named = match suffix.starts_with('.') {
        true => host.ends_with(suffix),
        false => host == suffix || host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.')),
    };
    is_port && is_named
}

/// Splits a host and its port like Go's `net.SplitHostPort`: an IPv6 address with a port has brackets.
fn split_port(entry: &str) -> (&str, Option<&str>) {
    let split = match entry.strip_prefix('[') {
        Some(rest) => rest.split_once("]:"),
        None => entry.split_once(':').filter(|(_, port)| !port.contains(':')),
    };
    split.map_or((entry, None), |(host, port)| (host, Some(port).filter(|port| !port.is_empty())))
}

fn is_within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let (address, network, width) = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => (address.to_bits().into(), network.to_bits().into(), 32),
        (IpAddr::V6(address), IpAddr::V6(network)) => (address.to_bits(), network.to_bits(), 128),
        _ => return false,
    };
    let differ: u128 = address ^ network;
    bits <= width && differ.checked_shr(u32::from(width - bits)).unwrap_or(0) == 0
}

impl fmt::Debug for ProxyOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |proxy: &Option<Zeroizing<String>>| proxy.as_ref().map(|_| "***");
        f.debug_struct("ProxyOptions")
            .field("http", &shown(&self.http))
            .field("https", &shown(&self.https))
            .field("except", &self.except)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(except: &str) -> ProxyOptions {
        let (http, https) = ("http://plain:1".to_owned(), "secure:2".to_owned());
        ProxyOptions { http: Some(http.into()), https: Some(https.into()), except: except.to_owned() }
    }

    #[test]
    fn go_24135_socks5_proxy_resolves_names_itself() {
        for (proxy, url) in [
            ("socks5://user:pass@proxy:1080", "socks5h://user:pass@proxy:1080"),
            (" SOCKS5://proxy", "socks5h://proxy"),
            ("socks5h://proxy", "socks5h://proxy"),
            ("https://proxy", "https://proxy"),
            ("proxy:3128", "http://proxy:3128"),
        ] {
            assert_eq!(url_of(proxy).as_str(), url);
        }
    }

    /// The table of golang.org/x/net/http/httpproxy, with the cases of seanmonstar/reqwest#705 and #2579.
    #[test]
    fn reqwest_2579_no_proxy_means_what_it_means_in_go() {
        for (except, host, port, direct) in [
            // Local hosts never use a proxy.
            ("", "localhost", 80, true),
            ("", "LOCALHOST", 80, true),
            ("", "registry.localhost", 5000, true),
            ("", "127.0.0.1", 80, true),
            ("", "127.5.5.5", 80, true),
            ("", "[::1]", 80, true),
            ("", "[::ffff:127.0.0.1]", 80, true),
            ("", "localhost.example.com", 80, false),
            // The table of httpproxy's own test.
            (
                "foobar.com, .barbaz.net, *.wildcard.io, 192.168.1.1, 192.168.1.2:81, 192.168.1.3:80, 10.0.0.0/30, 2001:db8::52:0:1, [2001:db8::52:0:2]:443, [2001:db8::52:0:3]:80, 2002:db8:a::45/64",
                "192.168.1.1",
                80,
                true,
            ),
            ("192.168.1.2:81", "192.168.1.2", 80, false),
            ("192.168.1.2:81", "192.168.1.2", 81, true),
            ("192.168.1.3:80", "192.168.1.3", 80, true),
            ("10.0.0.0/30", "10.0.0.2", 80, true),
            ("10.0.0.0/30", "10.0.0.4", 80, false),
            ("2001:db8::52:0:1", "[2001:db8::52:0:1]", 80, true),
            ("[2001:db8::52:0:2]:443", "[2001:db8::52:0:2]", 80, false),
            ("[2001:db8::52:0:3]:80", "[2001:db8::52:0:3]", 80, true),
            ("2002:db8:a::45/64", "[2002:db8:a::123]", 80, true),
            ("2002:db8:a::45/64", "[fe80::424b:c8be:1643:a1b6]", 80, false),
            (".barbaz.net", "barbaz.net", 80, false),
            (".barbaz.net", "www.barbaz.net", 80, true),
            ("foobar.com", "foobar.com", 80, true),
            ("foobar.com", "www.foobar.com", 80, true),
            ("foobar.com", "foofoobar.com", 80, false),
            ("*.wildcard.io", "wildcard.io", 80, false),
            ("*.wildcard.io", "www.wildcard.io", 80, true),
            ("*.wildcard.io", "awildcard.io", 80, false),
            ("baz.com", "baz.com.evil", 80, false),
            // Further cases.
            ("*", "ghcr.io", 443, true),
            ("a,*", "10.9.8.7", 443, true),
            ("*foo.com", "xfoo.com", 80, false),
            ("example.com:5000", "registry.example.com", 5000, true),
            ("example.com:5000", "registry.example.com", 443, false),
            (".example.com:5000", "registry.example.com", 5000, true),
            (" EXAMPLE.com ", "Registry.Example.COM", 443, true),
            ("0.0.0.0/0", "8.8.8.8", 443, true),
            ("::/0", "8.8.8.8", 443, false),
            ("10.0.0.0/33", "10.0.0.0", 443, false),
            ("1.1.1.1", "one.1.1.1.1", 443, false),
            (":80", "ghcr.io", 80, false),
            ("", "ghcr.io", 443, false),
        ] {
            assert_eq!(proxies(except).proxy_for("http", host, port).is_none(), direct, "{except}: {host}:{port}");
        }
    }

    #[test]
    fn the_scheme_chooses_the_proxy() {
        let proxies = proxies("");
        let ask = |scheme| proxies.proxy_for(scheme, "ghcr.io", 443).map(|url| url.to_string());
        assert_eq!(ask("http").as_deref(), Some("http://plain:1"));
        assert_eq!(ask("https").as_deref(), Some("http://secure:2"), "a proxy without a scheme speaks HTTP");
        assert_eq!(ask("ftp"), None);
        assert!(ProxyOptions::default().proxy_for("https", "ghcr.io", 443).is_none());
        assert!(!format!("{proxies:?}").contains("secure:2"));
    }
}
