use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ocikit_spec::Registry;

/// The URL of a request, which may hold secrets: user information, a signature or token in the query, the name of an
/// upload session.
///
/// `Display` and `Debug` show scheme, host, port and path only, and of an upload session the path up to its name. The
/// complete text is returned by [`reveal`](Url::reveal) alone.
///
/// ```
/// let url: ocikit_http::Url = "https://name:secret@example.com:5000/v2/?token=secret".parse()?;
/// assert_eq!(url.to_string(), "https://example.com:5000/v2/");
/// assert_eq!(format!("{url:?}"), "https://example.com:5000/v2/");
/// assert_eq!(url.reveal(), "https://name:secret@example.com:5000/v2/?token=secret");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Url(reqwest::Url);

/// Why a text is not a URL. The text itself is not repeated, since it may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidUrl(String);

/// The path below which a registry names its upload sessions. Distribution specification, "Pushing Blobs".
const UPLOADS: &str = "/blobs/uploads/";

impl Url {
    /// Returns the complete text, secrets included.
    pub fn reveal(&self) -> &str {
        self.0.as_str()
    }

    /// Returns the scheme, in lower case.
    pub fn scheme(&self) -> &str {
        self.0.scheme()
    }

    /// Returns the host, an IPv6 address in brackets; empty if there is none.
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// Returns the port, or the default port of the scheme; 0 if the scheme has none.
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or_default()
    }

    /// Returns the port that the URL states, if it is not the default port of the scheme.
    pub(crate) fn explicit_port(&self) -> Option<u16> {
        self.0.port()
    }

    /// Returns the path.
    pub fn path(&self) -> &str {
        self.0.path()
    }

    /// Returns the query, which may be secret.
    pub fn query(&self) -> Option<&str> {
        self.0.query()
    }

    /// Returns the host, and the port if it is not the default port of the scheme.
    pub fn authority(&self) -> String {
        self.0.port().map_or_else(|| self.host().to_owned(), |port| format!("{}:{port}", self.host()))
    }

    /// Returns whether the URL has a user name or a password.
    pub fn has_user_information(&self) -> bool {
        !self.0.username().is_empty() || self.0.password().is_some()
    }

    /// Resolves a reference relative to this URL. RFC 3986, section 5.
    ///
    /// # Errors
    ///
    /// If the result is not a URL.
    pub fn join(&self, reference: &str) -> Result<Url, InvalidUrl> {
        self.0.join(reference).map(Url).map_err(invalid)
    }

    /// Replaces path and query.
    pub fn set_path_and_query(&mut self, path: &str, query: Option<&str>) {
        self.0.set_path(path);
        self.0.set_query(query);
    }

    /// Appends a parameter to the query, with both parts encoded.
    pub fn append_query(&mut self, name: &str, value: &str) {
        self.0.query_pairs_mut().append_pair(name, value);
    }

    /// Returns whether others cannot read what is sent there: the URL uses TLS, or an address of this machine.
    pub fn is_confidential(&self) -> bool {
        self.scheme() == "https" || self.scheme() == "http" && self.names_this_machine()
    }

    /// Returns whether the host is a loopback address or `localhost`.
    fn names_this_machine(&self) -> bool {
        let address = bare(self.host()).parse::<IpAddr>();
        self.host() == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }

    /// Returns whether the host is a name of this machine that registries are commonly given.
    pub(crate) fn is_loopback_registry(&self) -> bool {
        self.host().parse::<Registry>().is_ok_and(|registry| registry.is_loopback())
    }

    /// Removes everything that is for the server that named the URL, and not for the server that it names: the fragment,
    /// and user and password, which are the server's and are not sent.
    pub(crate) fn strip(&mut self) {
        self.0.set_fragment(None);
        let _ = self.0.set_username("");
        let _ = self.0.set_password(None);
    }

    /// Changes between `http` and `https`, and sets the port. Neither can fail for these schemes.
    pub(crate) fn set_scheme(&mut self, scheme: &str, port: Option<u16>) {
        let _ = self.0.set_scheme(scheme);
        let _ = self.0.set_port(port);
    }

    pub(crate) fn inner(&self) -> &reqwest::Url {
        &self.0
    }
}

/// Returns a host without the brackets of an IPv6 address.
pub(crate) fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// The text of the parser's errors is fixed, and contains nothing of the input.
fn invalid<E: fmt::Display>(error: E) -> InvalidUrl {
    InvalidUrl(error.to_string())
}

impl FromStr for Url {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Url, InvalidUrl> {
        text.parse().map(Url).map_err(invalid)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.authority())?;
        let path = self.path();
        match path.find(UPLOADS).map(|at| path.split_at(at + UPLOADS.len())) {
            Some((uploads, session)) if !session.is_empty() => write!(f, "{uploads}…"),
            _ => f.write_str(path),
        }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_urls_contain_no_secrets() {
        for (url, expected) in [
            ("https://a/v2/x/manifests/1", "https://a/v2/x/manifests/1"),
            (
                "https://user:secret@a:5000/v2/x/blobs/sha256:ab?token=secret#secret",
                "https://a:5000/v2/x/blobs/sha256:ab",
            ),
            ("https://a/v2/x/blobs/uploads/", "https://a/v2/x/blobs/uploads/"),
            ("https://a/v2/x/blobs/uploads/?digest=sha256:ab&mount=secret", "https://a/v2/x/blobs/uploads/"),
            ("https://a/v2/x/blobs/uploads/secret?_state=secret", "https://a/v2/x/blobs/uploads/…"),
            ("https://a/v2/x/blobs/uploads/secret/secret", "https://a/v2/x/blobs/uploads/…"),
            ("https://a/token?service=a&scope=b&account=c", "https://a/token"),
            ("https://a/x?X-Amz-Signature=secret", "https://a/x"),
            ("http://[::1]:5000/x", "http://[::1]:5000/x"),
        ] {
            let url: Url = url.parse().unwrap();
            assert_eq!((url.to_string(), format!("{url:?}")), (expected.to_owned(), expected.to_owned()));
        }
        let error = "https://user:secret@/".parse::<Url>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"));
    }

    #[test]
    fn tls_and_loopback_urls_are_confidential() {
        for (url, expected) in [
            ("https://fulcio.example", true),
            ("http://localhost:1/x", true),
            ("http://127.0.0.1", true),
            ("http://[::1]:5", true),
            ("http://fulcio.example", false),
            ("http://localhost.example", false),
            ("http://127.0.0.1.example", false),
            ("ftp://localhost", false),
        ] {
            assert_eq!(url.parse::<Url>().unwrap().is_confidential(), expected, "{url}");
        }
    }
}
