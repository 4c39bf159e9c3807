/// Why there is no answer from a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
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
    /// Another server named this one, which has an address that the other one may not name.
    OutOfReach,
    /// No bytes arrived within the time limit, or a small document took too long.
    TimedOut,
    /// Any other failure: the connection broke, or the answer cannot be parsed.
    Other,
}
