use std::fmt;
use std::str::FromStr;

use ocikit::Registry;

/// A way to get a short-lived credential of a registry from the identity of a CI job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExchangeKind {
    /// GitHub's registry: the token of the job, which the registry's token service exchanges.
    GitHub,
    /// GitLab's registry: the token of the job, which GitLab exchanges.
    GitLab,
    /// Amazon's ECR: an OIDC token for a role, and the role for a password.
    Ecr,
    /// Amazon's public registry, `public.ecr.aws`: the same, with the service of that registry.
    EcrPublic,
    /// Google's Artifact Registry: an OIDC token for an access token, of a service account if one is named.
    ArtifactRegistry,
    /// Azure's container registry: an OIDC token for an access token, and that for a refresh token of the registry.
    Acr,
}

impl ExchangeKind {
    /// All kinds.
    pub const ALL: [ExchangeKind; 6] = [
        ExchangeKind::GitHub,
        ExchangeKind::GitLab,
        ExchangeKind::Ecr,
        ExchangeKind::EcrPublic,
        ExchangeKind::ArtifactRegistry,
        ExchangeKind::Acr,
    ];

    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            ExchangeKind::GitHub => "github",
            ExchangeKind::GitLab => "gitlab",
            ExchangeKind::Ecr => "ecr",
            ExchangeKind::EcrPublic => "ecr-public",
            ExchangeKind::ArtifactRegistry => "artifact-registry",
            ExchangeKind::Acr => "acr",
        }
    }

    /// Returns the kind of a registry by its host; `None` for a host that is none of those of the services.
    pub fn of(registry: &Registry) -> Option<ExchangeKind> {
        let is_of = |host: &str, ends: &[&str]| ends.iter().any(|end| host.ends_with(end));
        Some(match registry.as_str() {
            "ghcr.io" | "docker.pkg.github.com" => ExchangeKind::GitHub,
            "registry.gitlab.com" => ExchangeKind::GitLab,
            "public.ecr.aws" => ExchangeKind::EcrPublic,
            "gcr.io" => ExchangeKind::ArtifactRegistry,
            host if ecr_region(host).is_some() => ExchangeKind::Ecr,
            host if is_of(host, &["-docker.pkg.dev", ".gcr.io"]) => ExchangeKind::ArtifactRegistry,
            host if is_of(host, &[".azurecr.io", ".azurecr.cn", ".azurecr.us"]) => ExchangeKind::Acr,
            _ => return None,
        })
    }
}

/// Returns the region of a private registry of Amazon: `ACCOUNT.dkr.ecr.REGION.amazonaws.com`, also with `-fips` and in
/// the partition of China.
pub(super) fn ecr_region(host: &str) -> Option<&str> {
    let rest = host.strip_suffix(".amazonaws.com.cn").or_else(|| host.strip_suffix(".amazonaws.com"))?;
    let (account, rest) = rest.split_once('.')?;
    let region = rest.strip_prefix("dkr.ecr.").or_else(|| rest.strip_prefix("dkr.ecr-fips."))?;
    let is_account = account.len() == 12 && account.bytes().all(|digit| digit.is_ascii_digit());
    (is_account && !region.is_empty() && !region.contains('.')).then_some(region)
}

impl fmt::Display for ExchangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name is not that of a way to exchange tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of {names}", names = ExchangeKind::ALL.map(ExchangeKind::name).join(", "))]
pub struct UnknownKind(String);

impl FromStr for ExchangeKind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<ExchangeKind, UnknownKind> {
        let found = ExchangeKind::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| UnknownKind(name.to_owned()))
    }
}
