use clap::Args;
use ocikit::Digest;

use super::installed::installed;
use crate::context::Context;
use crate::failure::{Code, Failure, Result};

const UNINSTALL_EXAMPLES: &str = "\
Examples:
  ocikit buildkit uninstall 0123456789ab
  ocikit buildkit uninstall --all";

/// Remove an installed BuildKit
///
/// Fails if a build uses it.
#[derive(Debug, Args)]
#[command(after_help = UNINSTALL_EXAMPLES)]
pub(super) struct Uninstall {
    /// Digest, or at least 12 hex digits of it
    #[arg(required_unless_present = "all")]
    digest: Option<String>,
    /// Remove all installed BuildKits
    #[arg(long, conflicts_with = "digest")]
    all: bool,
}

impl Uninstall {
    pub(super) async fn run(&self, context: &Context) -> Result {
        let installations = installed()?;
        let mut found = installations.list()?;
        found.retain(|found| self.digest.as_ref().is_none_or(|digest| is_meant(&found.digest, digest)));
        match (&self.digest, found.len()) {
            (Some(digest), 0) => {
                return Err(Failure::new(Code::Missing, format_args!("no BuildKit {digest} is installed"))
                    .hint("give at least 12 hex digits of a digest; `ocikit buildkit list` lists them"));
            }
            (Some(digest), 2..) => {
                return Err(Failure::usage(format_args!("several installed BuildKits have a digest {digest}")));
            }
            (Some(_), 1) | (None, _) => {}
        }
        for installation in &found {
            installations.remove(installation).await?;
            context.output.say(format!("removed BuildKit {} {}", installation.version, installation.digest));
        }
        Ok(())
    }
}

/// Returns whether a text is a digest, or the first hex digits of it.
fn is_meant(digest: &Digest, text: &str) -> bool {
    const MIN_HEX_DIGITS: usize = 12;
    let hex = text.rsplit(':').next().unwrap_or_default();
    let has_algorithm = text.len() == hex.len() || digest.to_string().starts_with(text);
    has_algorithm && hex.len() >= MIN_HEX_DIGITS && digest.hex().starts_with(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_given_by_its_first_digits() {
        let digest = Digest::sha256_of(b"one");
        let (hex, whole) = (digest.hex(), digest.to_string());
        for text in [&whole, &whole[..19], &hex[..12], &hex] {
            assert!(is_meant(&digest, text), "{text}");
        }
        for text in [&hex[..11], "sha256:", "", "sha512:000000000000", &format!("sha512:{hex}")] {
            assert!(!is_meant(&digest, text), "{text}");
        }
    }
}
