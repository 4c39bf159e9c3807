//! Renews the client certificate for a signing service.
//!
//! The secret file has the address of a token service and of a certificate authority. The old certificate gets a token;
//! the token and a request for a new key get the new certificate.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use ocikit_sign::Http;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use x509_cert::Certificate;
use x509_cert::der::asn1::{Any, BitString, Null};
use x509_cert::der::{Decode, Encode};
use x509_cert::name::Name;
use x509_cert::request::{CertReq, CertReqInfo, Version};
use x509_cert::spki::{AlgorithmIdentifierOwned, ObjectIdentifier, SubjectPublicKeyInfoOwned};
use zeroize::Zeroizing;

use super::{Error, Result};

/// The maximum size of a response, in bytes.
const MAX_RESPONSE_BYTES: usize = 256 << 10;
/// The maximum number of certificates in a chain.
const MAX_CERTIFICATES: usize = 16;
/// `sha256WithRSAEncryption` (RFC 8017).
const SHA256_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
/// `signedData` (RFC 5652), with its tag and length.
const SIGNED_DATA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];

/// What to ask the certificate authority for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RenewOptions {
    /// The validity of the new certificate, in days.
    pub days: u32,
    /// The policy of the authority.
    pub policy: String,
}

impl Default for RenewOptions {
    /// 7 days and the policy `sap-cloud-platform-clients`.
    fn default() -> RenewOptions {
        RenewOptions { days: 7, policy: "sap-cloud-platform-clients".to_owned() }
    }
}

/// The addresses in a secret.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Services {
    #[serde(rename = "certServiceURL")]
    certificates: String,
    #[serde(rename = "tokenURL")]
    tokens: String,
    #[serde(rename = "clientID")]
    client: String,
}

#[derive(Deserialize)]
struct TokenJson {
    access_token: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChainJson {
    certificate_chain: ChainValue,
}

#[derive(Deserialize)]
struct ChainValue {
    value: String,
}

/// Gets a new certificate, for a new key, and returns the secret with both. `http` must have the old certificate.
///
/// Nothing is stored: the old secret stays valid until the caller replaces it.
///
/// # Errors
///
/// [`Error::ClientCertificate`] if the secret is malformed; [`Error::Renewal`] if a service refuses, or its certificate
/// is not for the new key.
pub async fn renew(secret: &[u8], http: &Http, options: &RenewOptions, now: Timestamp) -> Result<Zeroizing<Vec<u8>>> {
    let renewal = Renewal::new(secret, KeySize::Rsa4096)?;
    let Services { certificates, tokens, client } = &renewal.services;
    for url in [certificates, tokens] {
        if !Http::is_private(url) {
            return Err(failed("an address in the secret is not https"));
        }
    }
    let fields = [("grant_type", "client_credentials"), ("client_id", client)];
    let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let form = http.post(tokens, "application/x-www-form-urlencoded", &[], form.into_bytes(), MAX_RESPONSE_BYTES);
    let token: TokenJson = answer("the token service", form.await)?;
    let bearer = Zeroizing::new(format!("Bearer {}", token.access_token));
    let request = json!({
        "csr": {"value": renewal.request()?},
        "validity": {"value": options.days, "type": "DAYS"},
        "policy": options.policy,
    });
    let headers = [("authorization", bearer.as_str())];
    let request = request.to_string().into_bytes();
    let chain = http.post(certificates, "application/json", &headers, request, MAX_RESPONSE_BYTES).await;
    let chain: ChainJson = answer("the certificate authority", chain)?;
    renewal.finish(&chain.certificate_chain.value, now)
}

/// Parses the response of a service; its text is not repeated, because it may be secret.
fn answer<T: for<'a> Deserialize<'a>>(who: &str, response: ocikit_sign::Result<ocikit_http::Document>) -> Result<T> {
    let response = response.map_err(|error| failed(error.to_string()))?;
    if !(200..300).contains(&response.status) {
        return Err(failed(format!("{who} answered {}", response.status)));
    }
    serde_json::from_slice(&response.body).map_err(|_| failed(format!("{who} gave an answer of another form")))
}

fn failed(problem: impl Into<String>) -> Error {
    Error::Renewal { problem: problem.into() }
}

/// A renewal: the old secret and the new key.
struct Renewal {
    secret: Map<String, Value>,
    services: Services,
    subject: Name,
    key: KeyPair,
}

impl Renewal {
    fn new(secret: &[u8], size: KeySize) -> Result<Renewal> {
        let refuse = |problem| Error::ClientCertificate { problem };
        let secret: Map<String, Value> =
            serde_json::from_slice(secret).map_err(|_| refuse("it is not a JSON object"))?;
        let services = serde_json::from_value(Value::Object(secret.clone()))
            .map_err(|_| refuse("it has no `certServiceURL`, `tokenURL` and `clientID`"))?;
        let chain = secret.get("certData").and_then(Value::as_str).ok_or_else(|| refuse("it has no `certData`"))?;
        let chain = STANDARD.decode(chain.trim()).map_err(|_| refuse("a part is not in base64"))?;
        let chain = String::from_utf8(chain).map_err(|_| refuse("`certData` is not PEM"))?;
        let old = pem(&chain, "CERTIFICATE").ok_or_else(|| refuse("`certData` is not PEM"))?;
        let old = Certificate::from_der(&old).map_err(|_| refuse("`certData` is not a certificate"))?;
        let subject = old.tbs_certificate().subject().clone();
        let key = KeyPair::generate(size).map_err(|_| failed("cannot create a key"))?;
        Ok(Renewal { secret, services, subject, key })
    }

    fn public_key(&self) -> Result<SubjectPublicKeyInfoOwned> {
        let der: PublicKeyX509Der<'_> =
            self.key.public_key().as_der().map_err(|_| failed("cannot encode the new key"))?;
        SubjectPublicKeyInfoOwned::from_der(der.as_ref()).map_err(|_| failed("cannot encode the new key"))
    }

    /// Returns the certificate request (PKCS #10) in PEM, with the subject of the old certificate.
    fn request(&self) -> Result<String> {
        let wrong = |_| failed("cannot encode the certificate request");
        let info = CertReqInfo {
            version: Version::V1,
            subject: self.subject.clone(),
            public_key: self.public_key()?,
            attributes: Default::default(),
        };
        let signed = info.to_der().map_err(wrong)?;
        let mut signature = vec![0; self.key.public_modulus_len()];
        let made = self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &signed, &mut signature);
        made.map_err(|_| failed("cannot sign the certificate request"))?;
        let parameters = Any::encode_from(&Null).map_err(wrong)?;
        let algorithm = AlgorithmIdentifierOwned { oid: SHA256_WITH_RSA, parameters: Some(parameters) };
        let signature = BitString::from_bytes(&signature).map_err(wrong)?;
        let request = CertReq { info, algorithm, signature }.to_der().map_err(wrong)?;
        Ok(to_pem(&request, "CERTIFICATE REQUEST"))
    }

    /// Returns the secret with the new certificate and key, and without a password. Its other fields stay.
    fn finish(&self, pkcs7: &str, now: Timestamp) -> Result<Zeroizing<Vec<u8>>> {
        let der = pem(pkcs7, "PKCS7").ok_or_else(|| failed("the certificate chain is not PKCS #7 in PEM"))?;
        let mut chain = certificates(&der).ok_or_else(|| failed("the certificate chain is not PKCS #7"))?;
        let key = self.public_key()?;
        let is_own = |der: &Vec<u8>| {
            let parsed = Certificate::from_der(der);
            parsed.is_ok_and(|found| *found.tbs_certificate().subject_public_key_info() == key)
        };
        let own = chain.iter().position(is_own);
        // The first certificate is that of the key, whatever the order of the set.
        chain.swap(0, own.ok_or_else(|| failed("no certificate of the chain is for the new key"))?);
        let chain: String = chain.iter().map(|der| to_pem(der, "CERTIFICATE")).collect();
        let private: Pkcs8V1Der<'_> = self.key.as_der().map_err(|_| failed("cannot encode the new key"))?;
        let private = Zeroizing::new(to_pem(private.as_ref(), "PRIVATE KEY"));
        let mut secret = self.secret.clone();
        secret.insert("certData".to_owned(), STANDARD.encode(chain).into());
        secret.insert("privateKeyData".to_owned(), STANDARD.encode(private.as_bytes()).into());
        secret.insert("password".to_owned(), "".into());
        secret.insert("createdAt".to_owned(), now.to_string().into());
        serde_json::to_vec_pretty(&secret).map(Zeroizing::new).map_err(|error| failed(error.to_string()))
    }
}

/// Returns the content of the first block with a label.
fn pem(text: &str, label: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    STANDARD.decode(body.split_whitespace().collect::<String>()).ok()
}

fn to_pem(der: &[u8], label: &str) -> String {
    const LINE_CHARS: usize = 64;
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in STANDARD.encode(der).as_bytes().chunks(LINE_CHARS) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

/// Returns the certificates of a PKCS #7 message without signatures (RFC 5652, section 5.1).
fn certificates(der: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (message, _) = element(der, 0x30)?;
    let (content, _) = element(message.strip_prefix(SIGNED_DATA)?, 0xa0)?;
    let (data, _) = element(content, 0x30)?;
    // The version, the digest algorithms and the signed content, then the certificates.
    let (_, rest) = element(data, 0x02)?;
    let (_, rest) = element(rest, 0x31)?;
    let (_, rest) = element(rest, 0x30)?;
    let (mut set, _) = element(rest, 0xa0)?;
    let mut found = Vec::new();
    while !set.is_empty() {
        let (_, rest) = element(set, 0x30)?;
        found.push(set[..set.len() - rest.len()].to_vec());
        set = rest;
        if found.len() > MAX_CERTIFICATES {
            return None;
        }
    }
    (!found.is_empty()).then_some(found)
}

/// Returns the content of a DER element with this tag, and the bytes after it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    if *first != tag {
        return None;
    }
    let (length, rest) = match length {
        short @ 0..0x80 => (usize::from(*short), rest),
        long => {
            let count = usize::from(*long & 0x7f);
            if count == 0 || count > 4 {
                return None;
            }
            let (bytes, rest) = rest.split_at_checked(count)?;
            (bytes.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, Issuer, PublicKeyData};

    use super::*;

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len() as u32;
        let length = match length {
            0..0x80 => vec![length as u8],
            _ => [&[0x84][..], &length.to_be_bytes()].concat(),
        };
        [&[tag][..], &length, content].concat()
    }

    fn pkcs7(certificates: &[&[u8]]) -> String {
        let content = der(0x30, &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01]);
        let data =
            [&der(0x02, &[1])[..], &der(0x31, &[]), &content, &der(0xa0, &certificates.concat()), &der(0x31, &[])]
                .concat();
        to_pem(&der(0x30, &[SIGNED_DATA, &der(0xa0, &der(0x30, &data))].concat()), "PKCS7")
    }

    struct RsaPublicKey(Vec<u8>);

    impl PublicKeyData for RsaPublicKey {
        fn der_bytes(&self) -> &[u8] {
            &self.0
        }

        fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
            &rcgen::PKCS_RSA_SHA256
        }
    }

    fn authority() -> (Issuer<'static, rcgen::KeyPair>, Vec<u8>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = CertificateParams::new(Vec::new()).unwrap();
        let own = params.self_signed(&key).unwrap().der().to_vec();
        (Issuer::new(params, key), own)
    }

    fn subject() -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "signify client");
        params
    }

    fn secret() -> Vec<u8> {
        let key = rcgen::KeyPair::generate().unwrap();
        let old = subject().self_signed(&key).unwrap();
        json!({
            "certServiceURL": "https://localhost/certificates", "tokenURL": "https://localhost/token",
            "clientID": "client", "password": "old", "certData": STANDARD.encode(old.pem()),
            "privateKeyData": STANDARD.encode(key.serialize_pem()), "createdAt": "2020-01-01T00:00:00Z", "other": [1],
        })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn new_secret_has_the_new_key_and_its_chain() {
        let renewal = Renewal::new(&secret(), KeySize::Rsa2048).unwrap();
        let request = CertReq::from_der(&pem(&renewal.request().unwrap(), "CERTIFICATE REQUEST").unwrap()).unwrap();
        assert_eq!(request.info.subject.to_string(), "CN=signify client");
        let signed = request.info.to_der().unwrap();
        let key = aws_lc_rs::signature::UnparsedPublicKey::new(
            &aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256,
            renewal.key.public_key().as_ref(),
        );
        key.verify(&signed, request.signature.raw_bytes()).unwrap();
        let (issuer, own) = authority();
        let public = RsaPublicKey(renewal.key.public_key().as_ref().to_vec());
        let issued = subject().signed_by(&public, &issuer).unwrap().der().to_vec();
        // A set has no order.
        let chain = pkcs7(&[&own, &issued]);
        let renewed = renewal.finish(&chain, Timestamp::UNIX_EPOCH).unwrap();
        let found: Map<String, Value> = serde_json::from_slice(&renewed).unwrap();
        assert_eq!((&found["password"], &found["createdAt"]), (&"".into(), &"1970-01-01T00:00:00Z".into()));
        assert_eq!(found["other"], json!([1]));
        super::super::identity(&renewed).unwrap();
        let stored = STANDARD.decode(found["certData"].as_str().unwrap()).unwrap();
        assert_eq!(pem(&String::from_utf8(stored).unwrap(), "CERTIFICATE").unwrap(), issued);
        let other = renewal.finish(&pkcs7(&[&own]), Timestamp::UNIX_EPOCH).unwrap_err().to_string();
        assert!(other.contains("no certificate of the chain is for the new key"), "{other}");
    }

    #[test]
    fn broken_chains_are_refused() {
        let (_, own) = authority();
        let whole = pem(&pkcs7(&[&own]), "PKCS7").unwrap();
        assert_eq!(certificates(&whole).unwrap(), std::slice::from_ref(&own));
        for end in 0..whole.len() {
            assert!(certificates(&whole[..end]).is_none(), "{end}");
        }
        assert!(certificates(&pem(&pkcs7(&[&own[..]; 17]), "PKCS7").unwrap()).is_none());
        assert!(Renewal::new(b"{}", KeySize::Rsa2048).is_err() && Renewal::new(b"[]", KeySize::Rsa2048).is_err());
    }
}
