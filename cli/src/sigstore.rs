//! Signing and verifying where there is no key: who vouches for signatures, and whom to believe.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use ocikit_sign::{
    Certificate, CertificateTrust, Http, KeyKind, LogCheck, LogUrl, LogVersion, Pattern, PrivateKey, ServiceUrls,
    Signer, SigningConfig, TrustedRoot, VerificationMaterial, certify, github_token,
};
use zeroize::Zeroizing;

use crate::context::{Context, variable};
use crate::failure::{Failure, Result};
use crate::keys::{SignerArguments, named, read_secret};
use crate::{file, keys};

/// Who vouches for signatures.
#[derive(Debug, Args)]
#[command(next_help_heading = "Certificates, logs and timestamps")]
pub(crate) struct VoucherArguments {
    /// The services to ask, as cosign has them in a file: with --key those for logs and timestamps, without it the authority
    /// for certificates as well
    #[arg(long, value_name = "FILE", conflicts_with_all = ["fulcio_url", "rekor_url", "timestamp_server_url"])]
    signing_config: Option<PathBuf>,
    /// The authority (Fulcio) that gives a certificate for an identity token, for a key that is made for it and forgotten
    #[arg(long, value_name = "URL", conflicts_with = "key")]
    fulcio_url: Option<String>,
    /// A transparency log (Rekor) that gets an entry of each signature; may be repeated
    #[arg(long, value_name = "URL")]
    rekor_url: Vec<String>,
    /// The version of the API of these logs: 2, or 1 as that of sigstore.dev has had it since 2021
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2), requires = "rekor_url")]
    rekor_version: u8,
    /// An authority that says when each signature was made (RFC 3161); may be repeated
    #[arg(long, value_name = "URL")]
    timestamp_server_url: Vec<String>,
    /// The file with the identity token, or - for standard input; SIGSTORE_ID_TOKEN, as GitLab sets it, or what GitHub gives
    /// to a workflow with `id-token: write` if this is not given
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    identity_token: Option<PathBuf>,
    /// Check what the services answer against this trusted root before it is stored
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    /// The certificate of the key, and those that lead from it to a root (PEM), which cosign's formats then name instead of the
    /// key
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
}

impl VoucherArguments {
    /// The flags that were given. `--rekor-version` comes with `--rekor-url` only.
    pub(crate) fn given(&self) -> Vec<&'static str> {
        let all = [
            ("--signing-config", self.signing_config.is_some()),
            ("--fulcio-url", self.fulcio_url.is_some()),
            ("--rekor-url", !self.rekor_url.is_empty()),
            ("--timestamp-server-url", !self.timestamp_server_url.is_empty()),
            ("--identity-token", self.identity_token.is_some()),
            ("--trusted-root", self.trusted_root.is_some()),
            ("--certificate", self.certificate.is_some()),
        ];
        all.into_iter().filter(|(_, is_given)| *is_given).map(|(flag, _)| flag).collect()
    }

    /// Whoever signs, and what is put beside their signatures. For a trial no service is asked: what logs were told they keep.
    pub(crate) async fn signer(
        &self,
        given: &SignerArguments,
        context: &Context,
        is_trial: bool,
    ) -> Result<(Arc<dyn Signer>, Option<VerificationMaterial>)> {
        let now = Timestamp::now();
        let ServiceUrls { authority, logs, timestamps } = self.services(now)?;
        let is_any_asked = authority.is_some() || !logs.is_empty() || !timestamps.is_empty();
        if self.trusted_root.is_some() && !is_any_asked {
            return Err(Failure::usage("--trusted-root checks what services answer, and no service is named").hint(
                "name one with --signing-config, --rekor-url or --timestamp-server-url, or leave out --trusted-root",
            ));
        }
        let root = self.trusted_root.as_deref().map(trusted_root).transpose()?;
        let signer = given.signer().await?;
        if is_trial {
            let signer =
                signer.map_or_else(|| PrivateKey::generate(KeyKind::P256).map(|key| Arc::new(key) as _), Ok)?;
            return Ok((signer, None));
        }
        if let Some(signer) = signer {
            if logs.is_empty() && timestamps.is_empty() && self.certificate.is_none() {
                return Ok((signer, None));
            }
            let certificates = match &self.certificate {
                Some(path) => Certificate::read_all(&file::read(path)?).map_err(|error| named(path, error))?,
                None => Vec::new(),
            };
            let http = Http::new(&context.http_options()?)?;
            return Ok((
                signer,
                Some(VerificationMaterial {
                    certificates,
                    logs,
                    timestamps,
                    root,
                    ..VerificationMaterial::new(http, now)
                }),
            ));
        }
        let authority = authority.ok_or_else(|| {
            Failure::usage("there is no key, and no authority that gives a certificate without one")
                .hint("give --key; or --signing-config or --fulcio-url, and a token that says who signs")
        })?;
        let http = Http::new(&context.http_options()?)?;
        let token = self.token(&http).await?;
        // It is forgotten when this ends; the certificate says how long it may be used.
        let key = PrivateKey::generate(KeyKind::P256)?;
        let certificates = certify(&http, &authority, &token, &key).await?;
        Ok((
            Arc::new(key),
            Some(VerificationMaterial { certificates, logs, timestamps, root, ..VerificationMaterial::new(http, now) }),
        ))
    }

    fn services(&self, now: Timestamp) -> Result<ServiceUrls> {
        let version = if self.rekor_version == 1 { LogVersion::One } else { LogVersion::Two };
        match &self.signing_config {
            Some(path) => {
                let config = SigningConfig::parse(&file::read(path)?).and_then(|config| config.services(now));
                config.map_err(|error| named(path, error))
            }
            None => Ok(ServiceUrls {
                authority: self.fulcio_url.clone(),
                logs: self.rekor_url.iter().map(|url| LogUrl { url: url.clone(), version }).collect(),
                timestamps: self.timestamp_server_url.clone(),
            }),
        }
    }

    /// What says who signs.
    async fn token(&self, http: &Http) -> Result<Zeroizing<String>> {
        if let Some(path) = &self.identity_token {
            // What is on a command line everybody can see; what is in a message, whoever reads the log.
            if path.as_os_str().len() > 100 && path.to_string_lossy().split('.').count() == 3 && !path.exists() {
                return Err(Failure::usage("--identity-token takes a file that holds the token, not the token"));
            }
            let text = if path == Path::new("-") { read_stdin()? } else { read_secret(path)? };
            let text = std::str::from_utf8(&text).map_err(|_| Failure::usage("the identity token is not text"))?;
            return Ok(Zeroizing::new(text.trim().to_owned()));
        }
        if let Some(token) = variable("SIGSTORE_ID_TOKEN") {
            return Ok(Zeroizing::new(token));
        }
        let github = variable("ACTIONS_ID_TOKEN_REQUEST_URL").zip(variable("ACTIONS_ID_TOKEN_REQUEST_TOKEN"));
        match github {
            Some((url, secret)) => Ok(github_token(http, &url, &Zeroizing::new(secret)).await?),
            None => Err(Failure::usage("there is no key, and no token that says who signs").hint(
                "give --identity-token, set SIGSTORE_ID_TOKEN, or give the workflow the permission `id-token: write`",
            )),
        }
    }
}

/// Whose certificates are believed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Certificates, logs and timestamps")]
pub(crate) struct CertificateArguments {
    /// Whom the certificate has to name: a mail address, a URI, the name of a user
    #[arg(long, value_name = "TEXT")]
    certificate_identity: Option<String>,
    /// The same as an expression, which has to match all of it
    #[arg(long, value_name = "REGEX", conflicts_with = "certificate_identity")]
    certificate_identity_regexp: Option<String>,
    /// Who has to have checked that: the issuer of the identity token
    #[arg(long, value_name = "URL")]
    certificate_oidc_issuer: Option<String>,
    /// The same as an expression, which has to match all of it
    #[arg(long, value_name = "REGEX", conflicts_with = "certificate_oidc_issuer")]
    certificate_oidc_issuer_regexp: Option<String>,
    /// The authorities and logs that are believed, as sigstore publishes them and cosign writes them
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    /// The certificates of an authority of one's own, the one that issues first and the root last (PEM), instead of a trusted
    /// root; logs are not asked for then
    #[arg(long, value_name = "FILE", conflicts_with = "trusted_root")]
    certificate_chain: Option<PathBuf>,
    /// With it, those of an authority for timestamps
    #[arg(long, value_name = "FILE", requires = "certificate_chain")]
    timestamp_certificate_chain: Option<PathBuf>,
    /// Do not ask for an entry in a transparency log
    #[arg(long, requires = "trusted_root")]
    insecure_ignore_tlog: bool,
    /// Do not ask for the promise of a log of certificates
    #[arg(long, requires = "trusted_root")]
    insecure_ignore_sct: bool,
}

impl CertificateArguments {
    /// Who is trusted, if somebody is named.
    pub(crate) fn trust(&self) -> Result<Option<CertificateTrust>> {
        let identity = pattern(&self.certificate_identity, &self.certificate_identity_regexp)?;
        let issuer = pattern(&self.certificate_oidc_issuer, &self.certificate_oidc_issuer_regexp)?;
        let Some(identity) = identity else {
            let is_given = issuer.is_some() || self.trusted_root.is_some() || self.certificate_chain.is_some();
            return match is_given {
                true => Err(Failure::usage("whose certificate is asked for?")
                    .hint("give --certificate-identity or --certificate-identity-regexp")),
                false => Ok(None),
            };
        };
        let (root, is_own) = match (&self.trusted_root, &self.certificate_chain) {
            (Some(path), _) if issuer.is_some() => (trusted_root(path)?, false),
            (Some(_), _) => {
                return Err(Failure::usage("who has to have checked the identity?")
                    .hint("give --certificate-oidc-issuer or --certificate-oidc-issuer-regexp"));
            }
            (None, Some(path)) => (own_root(path, self.timestamp_certificate_chain.as_deref())?, true),
            (None, None) => {
                return Err(Failure::usage("whose certificates are believed?")
                    .hint("give --trusted-root, or --certificate-chain for an authority of your own"));
            }
        };
        let check = |skips: bool| if skips { LogCheck::Skipped } else { LogCheck::Required };
        Ok(Some(CertificateTrust {
            name: identity.to_string(),
            identity,
            issuer,
            root,
            log: check(is_own || self.insecure_ignore_tlog),
            certificate_log: check(is_own || self.insecure_ignore_sct),
            // Whether certificates are valid is a matter of now, whatever the time of a build.
            now: Timestamp::now(),
        }))
    }
}

/// Reads the certificates of an authority of one's own, and those of one for timestamps.
pub(crate) fn own_root(path: &Path, timestamps: Option<&Path>) -> Result<TrustedRoot> {
    let read = |path: &Path| Certificate::read_all(&file::read(path)?).map_err(|error| named(path, error));
    let timestamps = timestamps.map(read).transpose()?;
    let root = TrustedRoot::of_authorities(vec![read(path)?], timestamps.into_iter().collect());
    root.map_err(|error| named(path, error))
}

fn pattern(exact: &Option<String>, expression: &Option<String>) -> Result<Option<Pattern>> {
    match (exact, expression) {
        (Some(exact), _) => Ok(Some(Pattern::Exact(exact.clone()))),
        (None, Some(expression)) => Ok(Some(Pattern::matching(expression)?)),
        (None, None) => Ok(None),
    }
}

/// Reads whom to believe, as sigstore publishes it.
pub(crate) fn trusted_root(path: &Path) -> Result<TrustedRoot> {
    TrustedRoot::parse(&file::read(path)?).map_err(|error| named(path, error))
}

/// Reads a secret from standard input into memory that is wiped.
fn read_stdin() -> Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(keys::LONGEST_SECRET + 1));
    let read = std::io::stdin().take(keys::LONGEST_SECRET as u64).read_to_end(&mut bytes);
    read.map_err(|error| Failure::io("read", "from standard input", &error))?;
    match bytes.len() == keys::LONGEST_SECRET {
        true => Err(Failure::usage("what standard input holds is too long for a token")),
        false => Ok(bytes),
    }
}
