//! Messages and debug output without secrets.

use std::fmt;

use ocikit_http::Url;

/// Returns scheme, host, port and path of a URL: user information and query may be secret.
pub(crate) fn address(url: &str) -> String {
    url.parse::<Url>().map_or_else(|_| "(not a URL)".to_owned(), |url| url.to_string())
}

/// Shows the [`address`] of a URL.
pub(crate) struct Redacted<'a>(pub(crate) &'a str);

impl fmt::Debug for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&address(self.0), f)
    }
}

/// Shows each URL of a list as [`Redacted`].
pub(crate) struct RedactedList<'a>(pub(crate) &'a [String]);

impl fmt::Debug for RedactedList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|url| Redacted(url))).finish()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use ocikit_http::TlsSettings;

    use crate::http::{Http, HttpOptions};
    use crate::sigstore::{LogUrl, LogVersion, ServiceUrls, VerificationMaterial};
    use crate::timestamp::TimestampAuthority;

    #[test]
    fn urls_are_shown_without_secrets() {
        let url = "https://me:hidden@log.example:8443/api?token=hidden#hidden".to_owned();
        let tls = TlsSettings::default().system_authorities(false);
        let http = Http::new(&HttpOptions { tls, ..HttpOptions::default() }).unwrap();
        let log = LogUrl { url: url.clone(), version: LogVersion::Two };
        let (logs, timestamps) = (vec![log], vec![url.clone()]);
        let now = Timestamp::UNIX_EPOCH;
        let services = ServiceUrls { authority: Some(url.clone()), logs: logs.clone(), timestamps: timestamps.clone() };
        let material = VerificationMaterial { logs, timestamps, ..VerificationMaterial::new(http.clone(), now) };
        let authority = TimestampAuthority::new(http, url, Vec::new());
        for text in [format!("{services:?}"), format!("{material:?}"), format!("{authority:?}")] {
            assert!(text.contains("https://log.example:8443/api") && !text.contains("hidden"), "{text}");
        }
    }
}
