//! Credentials of registries from the identity of a CI job: no password is stored anywhere.
//!
//! | kind | protocol |
//! |---|---|
//! | `github` | the token of the job, which the token service of the registry exchanges |
//! | `gitlab` | the same, for the registry of the GitLab that runs the job |
//! | `ecr` | `AssumeRoleWithWebIdentity`, then `GetAuthorizationToken`, signed with Signature Version 4 |
//! | `ecr-public` | the same in `us-east-1`, with the service of `public.ecr.aws` |
//! | `artifact-registry` | the token exchange of RFC 8693, then `generateAccessToken` for a service account |
//! | `acr` | a federated token for an access token, then `/oauth2/exchange` of the registry |
//!
//! Tokens are sent to `https` and loopback addresses only, and a job token only to the registry of its own CI system.

mod answer;
mod aws;
mod azure;
mod error;
mod exchange;
mod google;
mod identity;
mod keychain;
mod kind;
mod sigv4;
mod source;

pub use error::ExchangeError;
pub use exchange::{Exchange, Exchanged};
pub use keychain::ExchangeKeychain;
pub use kind::{ExchangeKind, UnknownKind};

#[cfg(test)]
mod tests;
