//! Arguments for certificates, transparency logs and timestamps: for keyless signing, and for verifying its signatures.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use ocikit_sign::{
    CertificateTrust, Http, KeyKind, LogCheck, LogUrl, LogVersion, Pattern, PrivateKey, ServiceUrls, Signer,
    SigningConfig, TrustedRoot, VerificationMaterial, certify, github_token,
};
use zeroize::Zeroizing;

use crate::context::Context;
use crate::environment::variable;
use crate::failure::{Failure, Result};
use crate::keys::{SignerArguments, named, read_secret};
use crate::waiting::Waiting;
use crate::{file, keys};

/// The certificate authority, transparency logs and timestamp authorities of new signatures.
#[derive(Debug, Args)]
#[command(next_help_heading = "Certificates, logs and timestamps")]
pub(crate) struct VerificationMaterialArguments {
    /// Use the services of this sigstore signing configuration
    ///
    /// With --key, uses its transparency logs and timestamp authorities; without a key, its certificate authority too.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["fulcio_url", "rekor_url", "timestamp_server_url"])]
    signing_config: Option<PathBuf>,
    /// Get a certificate for keyless signing from this authority (Fulcio)
    ///
    /// The authority issues a certificate for the identity in the OIDC token and for a key that is used once.
    #[arg(long, value_name = "URL", conflicts_with = "key")]
    fulcio_url: Option<String>,
    /// Add each signature to this transparency log (Rekor); repeatable
    #[arg(long, value_name = "URL")]
    rekor_url: Vec<String>,
    /// Use this API version of the logs: 2, or 1 as on rekor.sigstore.dev
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2), requires = "rekor_url")]
    rekor_version: u8,
    /// Request timestamps (RFC 3161) from this authority; repeatable
    #[arg(long, value_name = "URL")]
    timestamp_server_url: Vec<String>,
    /// Read the OIDC token from this file, or - for standard input
    ///
    /// Without it, the token comes from SIGSTORE_ID_TOKEN, as in GitLab, or from GitHub Actions for a workflow with
    /// `id-token: write`.
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    identity_token: Option<PathBuf>,
    /// Verify the responses of the services against this trusted root
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    /// Use this certificate chain of the key (PEM), for formats of cosign
    ///
    /// Signatures then carry the certificate instead of the public key.
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
}

fn neither_key_nor_authority() -> Failure {
    Failure::usage("cannot sign: neither a key nor a certificate authority is given")
        .hint("add --key, or add --signing-config or --fulcio-url with --identity-token for keyless signing")
}

impl VerificationMaterialArguments {
    /// Returns the flags and whether each is given. `--rekor-version` requires `--rekor-url`, so it is not listed.
    pub(crate) fn flags(&self) -> impl Iterator<Item = (&'static str, bool)> {
        [
            ("--signing-config", self.signing_config.is_some()),
            ("--fulcio-url", self.fulcio_url.is_some()),
            ("--rekor-url", !self.rekor_url.is_empty()),
            ("--timestamp-server-url", !self.timestamp_server_url.is_empty()),
            ("--identity-token", self.identity_token.is_some()),
            ("--trusted-root", self.trusted_root.is_some()),
            ("--certificate", self.certificate.is_some()),
        ]
        .into_iter()
    }

    /// Returns the signer and the verification material of its signatures. A dry run contacts no service, because an entry in
    /// a transparency log cannot be deleted.
    pub(crate) async fn signer(
        &self,
        given: &SignerArguments,
        context: &Context,
        dry_run: bool,
    ) -> Result<(Arc<dyn Signer>, Option<VerificationMaterial>)> {
        let now = Timestamp::now();
        let ServiceUrls { authority, logs, timestamps, .. } = self.services(now)?;
        let has_service = authority.is_some() || !logs.is_empty() || !timestamps.is_empty();
        if self.trusted_root.is_some() && !has_service {
            return Err(Failure::usage("--trusted-root verifies the responses of services, but no service is named")
                .hint("add --signing-config, --rekor-url or --timestamp-server-url, or leave out --trusted-root"));
        }
        let root = self.trusted_root.as_deref().map(trusted_root).transpose()?;
        let signer = given.signer().await?;
        if dry_run {
            let signer =
                signer.map_or_else(|| PrivateKey::generate(KeyKind::P256).map(|key| Arc::new(key) as _), Ok)?;
            return Ok((signer, None));
        }
        let certificates = || self.certificate.as_deref().map(keys::certificates).transpose();
        let is_alone = logs.is_empty() && timestamps.is_empty() && self.certificate.is_none();
        let http = || Ok::<_, Failure>(Http::new(&context.http_options()?)?);
        let (signer, certificates, http) = match (signer, authority) {
            (Some(signer), _) if is_alone => return Ok((signer, None)),
            (Some(signer), _) => (signer, certificates()?.unwrap_or_default(), http()?),
            (None, None) => return Err(neither_key_nor_authority()),
            (None, Some(authority)) => {
                let http = http()?;
                let token = self.token(&http).await?;
                // The key is used for this command only; the certificate limits its validity.
                let key = PrivateKey::generate(KeyKind::P256)?;
                let certificates = certify(&http, &authority, &token, &key).await?;
                (Arc::new(key) as Arc<dyn Signer>, certificates, http)
            }
        };
        let material = VerificationMaterial::new(http, now).certificates(certificates);
        Ok((signer, Some(material.logs(logs).timestamps(timestamps).root(root))))
    }

    fn services(&self, now: Timestamp) -> Result<ServiceUrls> {
        let version = if self.rekor_version == 1 { LogVersion::One } else { LogVersion::Two };
        match &self.signing_config {
            Some(path) => {
                let config = SigningConfig::parse(&file::read(path)?).and_then(|config| config.services(now));
                config.map_err(|error| named(path, error))
            }
            None => Ok(ServiceUrls::default()
                .authority(self.fulcio_url.clone())
                .logs(self.rekor_url.iter().map(|url| LogUrl { url: url.clone(), version }).collect())
                .timestamps(self.timestamp_server_url.clone())),
        }
    }

    /// Returns the OIDC token that identifies the signer.
    async fn token(&self, http: &Http) -> Result<Zeroizing<String>> {
        if let Some(path) = &self.identity_token {
            // Other users can see the command line, and readers of logs can see messages, so the message must not repeat the token.
            if path.as_os_str().len() > 100 && path.to_string_lossy().split('.').count() == 3 && !path.exists() {
                return Err(Failure::usage("--identity-token takes a file with the token, not the token itself"));
            }
            let text = if path == Path::new("-") { read_stdin()? } else { read_secret(path)? };
            let text = std::str::from_utf8(&text)
                .map_err(|_| Failure::usage("cannot read the identity token: it is not UTF-8"))?;
            return Ok(Zeroizing::new(text.trim().to_owned()));
        }
        if let Some(token) = variable("SIGSTORE_ID_TOKEN") {
            return Ok(Zeroizing::new(token));
        }
        let github = variable("ACTIONS_ID_TOKEN_REQUEST_URL").zip(variable("ACTIONS_ID_TOKEN_REQUEST_TOKEN"));
        match github {
            Some((url, secret)) => Ok(github_token(http, &url, &Zeroizing::new(secret)).await?),
            None => Err(Failure::usage("cannot sign: neither a key nor an OIDC token is given").hint(
                "add --identity-token, set SIGSTORE_ID_TOKEN, or give the workflow the permission `id-token: write`",
            )),
        }
    }
}

/// Which certificates are trusted when signatures are verified.
#[derive(Debug, Args)]
#[command(next_help_heading = "Certificates, logs and timestamps")]
pub(crate) struct CertificateArguments {
    /// Require this identity in the certificate: an email, URI or name
    #[arg(long, value_name = "TEXT")]
    certificate_identity: Option<String>,
    /// Require an identity that this regular expression matches completely
    #[arg(long, value_name = "REGEX", conflicts_with = "certificate_identity")]
    certificate_identity_regexp: Option<String>,
    /// Require this issuer of the OIDC token
    #[arg(long, value_name = "URL")]
    certificate_oidc_issuer: Option<String>,
    /// Require an issuer that this regular expression matches completely
    #[arg(long, value_name = "REGEX", conflicts_with = "certificate_oidc_issuer")]
    certificate_oidc_issuer_regexp: Option<String>,
    /// Trust the authorities and logs of this sigstore trusted root
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    /// Trust these certificates of a private authority, root last (PEM)
    ///
    /// Replaces the trusted root. No transparency log entry and no SCT is required.
    #[arg(long, value_name = "FILE", conflicts_with = "trusted_root")]
    certificate_chain: Option<PathBuf>,
    /// Trust these certificates of a timestamp authority
    #[arg(long, value_name = "FILE", requires = "certificate_chain")]
    timestamp_certificate_chain: Option<PathBuf>,
    /// Do not require a transparency log entry
    #[arg(long, requires = "trusted_root")]
    insecure_ignore_tlog: bool,
    /// Do not require an SCT of a certificate transparency log
    #[arg(long, requires = "trusted_root")]
    insecure_ignore_sct: bool,
}

impl CertificateArguments {
    /// Returns the trusted identity with its authorities, or `None` if no identity is given.
    pub(crate) fn trust(&self) -> Result<Option<CertificateTrust>> {
        let identity = pattern(&self.certificate_identity, &self.certificate_identity_regexp)?;
        let issuer = pattern(&self.certificate_oidc_issuer, &self.certificate_oidc_issuer_regexp)?;
        let Some(identity) = identity else {
            let is_given = issuer.is_some() || self.trusted_root.is_some() || self.certificate_chain.is_some();
            return match is_given {
                true => Err(Failure::usage("cannot verify certificates: no identity is given")
                    .hint("add --certificate-identity or --certificate-identity-regexp")),
                false => Ok(None),
            };
        };
        let (root, is_own) = match (&self.trusted_root, &self.certificate_chain) {
            (Some(path), _) if issuer.is_some() => (trusted_root(path)?, false),
            (Some(_), _) => {
                return Err(Failure::usage("cannot verify certificates: no OIDC issuer is given")
                    .hint("add --certificate-oidc-issuer or --certificate-oidc-issuer-regexp"));
            }
            (None, Some(path)) => (own_root(path, self.timestamp_certificate_chain.as_deref())?, true),
            (None, None) => {
                return Err(Failure::usage("cannot verify certificates: no certificate authority is given")
                    .hint("add --trusted-root, or --certificate-chain for a private certificate authority"));
            }
        };
        let check = |skips: bool| if skips { LogCheck::Skipped } else { LogCheck::Required };
        // Certificates have to be valid now, so SOURCE_DATE_EPOCH does not apply.
        let trust = CertificateTrust::new(identity, root, Timestamp::now())
            .issuer(issuer)
            .log(check(is_own || self.insecure_ignore_tlog))
            .certificate_log(check(is_own || self.insecure_ignore_sct));
        Ok(Some(trust))
    }
}

/// Reads the certificates of a private certificate authority, and those of a timestamp authority.
pub(crate) fn own_root(path: &Path, timestamps: Option<&Path>) -> Result<TrustedRoot> {
    let timestamps = timestamps.map(keys::certificates).transpose()?;
    let root = TrustedRoot::of_authorities(vec![keys::certificates(path)?], timestamps.into_iter().collect());
    root.map_err(|error| named(path, error))
}

fn pattern(exact: &Option<String>, expression: &Option<String>) -> Result<Option<Pattern>> {
    match (exact, expression) {
        (Some(exact), _) => Ok(Some(Pattern::Exact(exact.clone()))),
        (None, Some(expression)) => Ok(Some(Pattern::matching(expression)?)),
        (None, None) => Ok(None),
    }
}

/// Reads a trusted root in the format of sigstore.
pub(crate) fn trusted_root(path: &Path) -> Result<TrustedRoot> {
    TrustedRoot::parse(&file::read(path)?).map_err(|error| named(path, error))
}

/// Reads a secret from standard input into memory that is wiped when it is dropped.
fn read_stdin() -> Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(keys::MAX_SECRET_BYTES + 1));
    let _waiting = Waiting::new();
    let read = std::io::stdin().take(keys::MAX_SECRET_BYTES as u64).read_to_end(&mut bytes);
    read.map_err(|error| Failure::io("read", "from standard input", &error))?;
    match bytes.len() == keys::MAX_SECRET_BYTES {
        true => Err(Failure::usage("cannot read the token from standard input: it is too long")),
        false => Ok(bytes),
    }
}
