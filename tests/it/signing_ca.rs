//! A certificate authority (CA) for signers in the formats of the Notary Project.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384,
};

/// A CA whose root certificate is in the trust stores `ca:NAME` and `signingAuthority:NAME`.
pub(crate) struct SigningCa {
    directory: PathBuf,
    name: &'static str,
    root: String,
    pub(crate) issuer: Issuer<'static, KeyPair>,
}

fn params(company: &str, name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    for (kind, value) in [
        (DnType::CountryName, "US"),
        (DnType::StateOrProvinceName, "WA"),
        (DnType::OrganizationName, company),
        (DnType::CommonName, name),
    ] {
        params.distinguished_name.push(kind, value);
    }
    params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
    params.not_after = (SystemTime::now() + Duration::from_secs(3600)).into();
    params
}

impl SigningCa {
    /// Generates a root certificate. Key files are written to the directory, and trust stores to `notation` below it.
    pub(crate) fn new(directory: PathBuf, name: &'static str) -> SigningCa {
        let mut root = params(name, "root");
        root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = root.self_signed(&key).unwrap().pem();
        for kind in ["ca", "signingAuthority"] {
            let store = directory.join(format!("notation/truststore/x509/{kind}/{name}"));
            fs::create_dir_all(&store).unwrap();
            fs::write(store.join("root.pem"), &pem).unwrap();
        }
        SigningCa { directory, name, root: pem, issuer: Issuer::new(root, key) }
    }

    /// Issues a signing certificate and returns the paths of the key and of the certificate chain.
    pub(crate) fn signer(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> [String; 2] {
        let mut signer = params(self.name, name);
        signer.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        signer.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        change(&mut signer);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let chain = signer.signed_by(&key, &self.issuer).unwrap().pem() + &self.root;
        [("key", key.serialize_pem()), ("pem", chain)].map(|(kind, text)| {
            let path = self.directory.join(format!("{}-{name}.{kind}", self.name));
            fs::write(&path, text).unwrap();
            path.display().to_string()
        })
    }
}
