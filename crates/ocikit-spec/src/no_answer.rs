use std::time::Duration;

/// Why there is no usable answer from a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoAnswer {
    /// The connection was refused.
    ConnectionRefused,
    /// The host name could not be resolved.
    NameResolution,
    /// The TLS handshake failed for a reason that is not one of the following.
    Tls,
    /// No trusted certificate authority issued the certificate of the server.
    UntrustedCertificate,
    /// The certificate of the server is for other names.
    CertificateName,
    /// The certificate of the server has expired, or is not valid yet.
    CertificateTime,
    /// The proxy cannot be reached, or it refuses to connect to the server.
    Proxy,
    /// The client started TLS, and the server speaks plain HTTP.
    SpeaksPlainHttp,
    /// The client sent plain HTTP, and the server speaks TLS.
    SpeaksTls,
    /// Another server redirected to this one, which is in a private network that redirects must not reach.
    OutOfReach,
    /// No bytes arrived within the time limit, or a small document took too long.
    TimedOut,
    /// The server limits the rate of requests (status 429).
    RateLimited {
        /// The `Retry-After` of the last answer, if there was one.
        retry_after: Option<Duration>,
    },
    /// Every attempt was answered with this status.
    Failing {
        /// The HTTP status: 408, 425 or 5xx.
        status: u16,
    },
    /// Any other failure: the connection broke, or the answer cannot be parsed.
    Other,
}

impl NoAnswer {
    /// Returns whether no connection was established.
    pub fn is_connect(self) -> bool {
        use NoAnswer::*;
        match self {
            ConnectionRefused | NameResolution | OutOfReach | Proxy => true,
            SpeaksPlainHttp | SpeaksTls | Tls | UntrustedCertificate | CertificateName | CertificateTime => true,
            TimedOut | RateLimited { .. } | Failing { .. } | Other => false,
        }
    }
}
