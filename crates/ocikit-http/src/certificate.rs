use ocikit_spec::NoAnswer;
use rustls::CertificateError;

/// Returns what is wrong with the certificate of a server, in plain words, and the kind of failure; `None` for a TLS
/// error of another kind.
pub(crate) fn problem(error: &rustls::Error) -> Option<(NoAnswer, String)> {
    let rustls::Error::InvalidCertificate(error) = error else { return None };
    let plain = |cause, text: &str| Some((cause, text.to_owned()));
    match error {
        CertificateError::UnknownIssuer => {
            plain(NoAnswer::UntrustedCertificate, "no trusted certificate authority issued the server's certificate")
        }
        // webpki's own errors have no variant in rustls. `openssl req -x509` makes such certificates.
        CertificateError::Other(other) if other.0.to_string() == "CaUsedAsEndEntity" => {
            plain(NoAnswer::UntrustedCertificate, "the server's certificate is self-signed, as a certificate authority")
        }
        CertificateError::NotValidForName => {
            plain(NoAnswer::CertificateName, "the server's certificate is for another host name")
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<_> = presented.iter().map(|name| bare(name)).collect();
            let names = if names.is_empty() { "no host name".to_owned() } else { names.join(", ") };
            let text = format!("the server's certificate is for {names}, not for {}", expected.to_str());
            Some((NoAnswer::CertificateName, text))
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            plain(NoAnswer::CertificateTime, "the server's certificate has expired")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            plain(NoAnswer::CertificateTime, "the server's certificate is not valid yet")
        }
        CertificateError::Revoked => plain(NoAnswer::Tls, "the server's certificate is revoked"),
        _ => None,
    }
}

/// Returns a name of a certificate without the type that webpki writes around it: `DnsName("a")` as `a`.
fn bare(name: &str) -> &str {
    name.split_once('(').map_or(name, |(_, name)| name.trim_end_matches(')')).trim_matches('"')
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::OtherError;

    use super::*;

    #[test]
    fn problems_of_certificates_have_plain_words() {
        let presented = vec![r#"DnsName("a.example")"#.to_owned(), "IpAddress(10.0.0.1)".to_owned()];
        let expected = "b.example".try_into().unwrap();
        for (error, cause, text) in [
            (
                CertificateError::UnknownIssuer,
                NoAnswer::UntrustedCertificate,
                "no trusted certificate authority issued",
            ),
            (
                CertificateError::Other(OtherError(Arc::new(std::io::Error::other("CaUsedAsEndEntity")))),
                NoAnswer::UntrustedCertificate,
                "is self-signed",
            ),
            (
                CertificateError::NotValidForNameContext { expected, presented },
                NoAnswer::CertificateName,
                "is for a.example, 10.0.0.1, not for b.example",
            ),
            (CertificateError::Expired, NoAnswer::CertificateTime, "has expired"),
            (CertificateError::NotValidYet, NoAnswer::CertificateTime, "not valid yet"),
        ] {
            let found = problem(&rustls::Error::InvalidCertificate(error)).unwrap();
            assert!(found.0 == cause && found.1.contains(text), "{found:?}");
        }
        assert_eq!(problem(&rustls::Error::DecryptError), None);
    }
}
