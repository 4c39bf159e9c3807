//! What signs an envelope, and its content besides the descriptor of the image.

use jiff::Timestamp;
use ocikit_spec::Annotations;

use crate::algorithm::Hash;
use crate::error::{Error, Result};
use crate::key::Scheme;
use crate::notation::attributes::{AUTHENTIC_TIME, EXPIRY, SCHEME, SigningScheme, to_fixed, within};
use crate::notation::chain::Chain;
use crate::notation::plugin::NotationPlugin;
use crate::signer::{Signer, checked};
use crate::timestamp::TimestampAuthority;

/// What signs an envelope.
#[derive(Debug, Clone, Copy)]
pub(crate) enum EnvelopeSigner<'a> {
    /// A key and its certificate chain.
    Key { signer: &'a dyn Signer, chain: &'a Chain },
    /// A plugin, which has both.
    Plugin(&'a NotationPlugin),
}

impl EnvelopeSigner<'_> {
    /// Returns the signature scheme. Plugins that create whole envelopes do not get here.
    pub(crate) fn scheme(&self) -> Result<Scheme> {
        let scheme = match self {
            EnvelopeSigner::Key { chain, .. } => chain.scheme(),
            EnvelopeSigner::Plugin(plugin) => plugin.scheme(),
        };
        scheme.ok_or_else(|| Error::Certificates("the key is not supported".to_owned()))
    }
}

/// Options for Notary Project envelopes.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct NotationOptions {
    /// The certificate chain of the signer; ignored for plugins, which have their own.
    pub chain: Option<Chain>,
    /// The expiry time of the signature.
    pub expiry: Option<Timestamp>,
    /// Additional metadata to sign.
    pub metadata: Annotations,
    /// Where the signing time comes from.
    pub scheme: SigningScheme,
    /// A timestamp authority. It is requested for each signature, and the timestamp is verified and stored with the
    /// signature.
    pub authority: Option<TimestampAuthority>,
}

ocikit_spec::setters! {
    NotationOptions {
        chain: Option<Chain>,
        expiry: Option<Timestamp>,
        metadata: Annotations,
        scheme: SigningScheme,
        authority: Option<TimestampAuthority>,
    }
}

/// The content of an envelope in addition to the descriptor.
#[derive(Debug, Clone)]
pub(crate) struct Options<'a> {
    pub(crate) by: EnvelopeSigner<'a>,
    pub(crate) time: Timestamp,
    pub(crate) expiry: Option<Timestamp>,
    pub(crate) metadata: &'a Annotations,
    pub(crate) scheme: SigningScheme,
    /// The timestamp authority that proves the signing time.
    pub(crate) authority: Option<&'a TimestampAuthority>,
}

impl Options<'_> {
    /// Returns the names of the critical attributes.
    pub(crate) fn critical(&self) -> Vec<String> {
        let time = (self.scheme == SigningScheme::SigningAuthority).then_some(AUTHENTIC_TIME);
        let all = [Some(SCHEME), time, self.expiry.map(|_| EXPIRY)];
        all.into_iter().flatten().map(str::to_owned).collect()
    }

    /// Signs a message. Returns the signature in the encoding of JOSE and COSE, the chain and the timestamp, all
    /// checked as verification checks them.
    pub(crate) async fn seal(&self, scheme: Scheme, message: &[u8]) -> Result<Sealed> {
        let (signature, chain) = match self.by {
            EnvelopeSigner::Key { signer, chain } => {
                (to_fixed(scheme, checked(signer, scheme, message).await?)?, chain.clone())
            }
            EnvelopeSigner::Plugin(plugin) => plugin.sign(scheme, message).await?,
        };
        self.check(&chain)?;
        let Some(authority) = self.authority else { return Ok(Sealed { signature, chain, timestamp: None }) };
        let hash = Hash::of_scheme(scheme).ok_or_else(|| Error::Certificates("the key is not supported".to_owned()))?;
        let (token, stamp) = authority.stamp(hash, &signature).await?;
        within(&stamp, &chain).map_err(|why| Error::Unsupported(why.to_string()))?;
        Ok(Sealed { signature, chain, timestamp: Some(token) })
    }

    pub(crate) fn check(&self, chain: &Chain) -> Result<()> {
        match chain.invalid_at(self.time) {
            Some(invalid) => Err(Error::Certificates(format!("{} is not valid at {}", invalid.subject(), self.time))),
            None => Ok(()),
        }
    }
}

/// A signature, its certificate chain and its timestamp.
pub(crate) struct Sealed {
    pub(crate) signature: Vec<u8>,
    pub(crate) chain: Chain,
    pub(crate) timestamp: Option<Vec<u8>>,
}
