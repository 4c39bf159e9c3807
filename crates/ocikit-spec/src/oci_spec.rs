//! Conversions to and from the types of the `oci-spec` crate.
//!
//! They are made field by field: version 0.10 of that crate writes `os_version` for `os.version`, so a conversion
//! through JSON would lose it. Fields that it lacks, such as unknown keys of a descriptor, are lost; whole documents
//! should therefore be converted as text, by [`Manifest::text`](crate::Manifest::text).

use oci_spec::distribution as theirs_distribution;
use oci_spec::image as theirs;

use crate::{Annotations, Descriptor, Digest, Error, MediaType, Platform, Reference};

impl TryFrom<&theirs::Digest> for Digest {
    type Error = Error;

    /// # Errors
    ///
    /// [`Error::Algorithm`] for algorithms other than sha256 and sha512.
    fn try_from(digest: &theirs::Digest) -> Result<Digest, Error> {
        digest.as_ref().parse()
    }
}

impl From<&Digest> for theirs::Digest {
    fn from(digest: &Digest) -> theirs::Digest {
        digest.to_string().parse().expect("both crates read the specification's grammar")
    }
}

impl From<&theirs::MediaType> for MediaType {
    fn from(media_type: &theirs::MediaType) -> MediaType {
        MediaType::new(media_type.to_string())
    }
}

impl From<&MediaType> for theirs::MediaType {
    fn from(media_type: &MediaType) -> theirs::MediaType {
        media_type.as_str().into()
    }
}

impl From<&theirs::Platform> for Platform {
    fn from(platform: &theirs::Platform) -> Platform {
        Platform {
            architecture: platform.architecture().to_string(),
            os: platform.os().to_string(),
            os_version: platform.os_version().clone(),
            os_features: platform.os_features().clone().unwrap_or_default(),
            variant: platform.variant().clone(),
        }
    }
}

impl From<&Platform> for theirs::Platform {
    fn from(platform: &Platform) -> theirs::Platform {
        let mut builder = theirs::PlatformBuilder::default()
            .architecture(platform.architecture.as_str())
            .os(platform.os.as_str())
            .os_features(platform.os_features.clone());
        if let Some(version) = &platform.os_version {
            builder = builder.os_version(version.clone());
        }
        if let Some(variant) = &platform.variant {
            builder = builder.variant(variant.clone());
        }
        builder.build().expect("architecture and os are set")
    }
}

impl TryFrom<&theirs::Descriptor> for Descriptor {
    type Error = Error;

    /// # Errors
    ///
    /// [`Error::Algorithm`] for digests other than sha256 and sha512.
    fn try_from(descriptor: &theirs::Descriptor) -> Result<Descriptor, Error> {
        let annotations = descriptor.annotations().clone().unwrap_or_default();
        // The source is a hash map. It is sorted, so that the same descriptor always gives the same text.
        let sorted: std::collections::BTreeMap<_, _> = annotations.into_iter().collect();
        Ok(Descriptor {
            urls: descriptor.urls().clone().unwrap_or_default(),
            annotations: Annotations::from_iter(sorted),
            data: descriptor.data().clone(),
            platform: descriptor.platform().as_ref().map(Platform::from),
            artifact_type: descriptor.artifact_type().as_ref().map(MediaType::from),
            ..Descriptor::new(descriptor.media_type().into(), descriptor.digest().try_into()?, descriptor.size())
        })
    }
}

impl From<&Descriptor> for theirs::Descriptor {
    fn from(descriptor: &Descriptor) -> theirs::Descriptor {
        let mut theirs = theirs::Descriptor::new(
            (&descriptor.media_type).into(),
            descriptor.size,
            theirs::Digest::from(&descriptor.digest),
        );
        let some = |condition: bool| condition.then_some(());
        theirs.set_urls(some(!descriptor.urls.is_empty()).map(|()| descriptor.urls.clone()));
        theirs.set_annotations(
            some(!descriptor.annotations.is_empty()).map(|()| {
                descriptor.annotations.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
            }),
        );
        theirs.set_data(descriptor.data.clone());
        theirs.set_platform(descriptor.platform.as_ref().map(theirs::Platform::from));
        theirs.set_artifact_type(descriptor.artifact_type.as_ref().map(theirs::MediaType::from));
        theirs
    }
}

impl TryFrom<&theirs_distribution::Reference> for Reference {
    type Error = Error;

    /// # Errors
    ///
    /// [`Error::Reference`] if that crate accepts a reference that the grammar does not allow.
    fn try_from(reference: &theirs_distribution::Reference) -> Result<Reference, Error> {
        reference.whole().parse()
    }
}

impl TryFrom<&Reference> for theirs_distribution::Reference {
    type Error = theirs_distribution::ParseError;

    /// # Errors
    ///
    /// Those of that crate, for registries with an IPv6 address, which it does not support.
    fn try_from(reference: &Reference) -> Result<theirs_distribution::Reference, Self::Error> {
        reference.to_string().parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_cross_both_ways() {
        let mut descriptor = Descriptor::of(MediaType::OCI_MANIFEST, b"{}");
        descriptor.platform = Some(Platform {
            os_version: Some("10.0".to_owned()),
            os_features: vec!["win32k".to_owned()],
            ..Platform::new("windows", "amd64")
        });
        descriptor.annotations = [("a", "1"), ("b", "2")].into_iter().collect();
        descriptor.urls = vec!["https://example.com/x".to_owned()];
        descriptor.artifact_type = Some("application/vnd.example".into());
        descriptor.data = Some("e30=".to_owned());
        let there = theirs::Descriptor::from(&descriptor);
        assert_eq!(Descriptor::try_from(&there).unwrap(), descriptor);
    }

    #[test]
    fn references_cross_both_ways() {
        for text in ["alpine", "ghcr.io/acme/app:1", "localhost:5000/a/b:2"] {
            let reference: Reference = text.parse().unwrap();
            let there = theirs_distribution::Reference::try_from(&reference).unwrap();
            assert_eq!(Reference::try_from(&there).unwrap(), reference);
        }
    }
}
