//! Conversions to and from the types of the `oci-spec` crate.
//!
//! Descriptors and platforms are converted field by field: version 0.10 of that crate writes `os_version` for `os.version`,
//! so a conversion through JSON would lose it.
//!
//! # What a conversion loses
//!
//! | type | to `oci-spec` | from `oci-spec` |
//! |---|---|---|
//! | [`Manifest`], [`Index`] | unknown fields, the order of keys, the bytes and so the digest | nothing: keys are written in one order |
//! | [`Config`] | the same; also fields of docker such as `Healthcheck`, `Shell` and `OnBuild` | nothing: keys are sorted |
//! | [`Descriptor`] | unknown fields, the order of annotations | nothing: annotations are sorted |
//! | [`Platform`], [`Digest`], [`MediaType`] | nothing | digests of other algorithms than sha256 and sha512 are refused |
//! | [`Reference`] | registries with an IPv6 address are refused | nothing |
//!
//! To change a document and keep the rest, use [`Manifest::edit`], [`Index::edit`] and [`Config::edit`] instead of a conversion both ways.

use oci_spec::distribution as theirs_distribution;
use oci_spec::image as theirs;

use crate::{
    Annotations, Config, Descriptor, Digest, Error, Index, Manifest, MediaType, NewDocument, Platform, Reference,
};

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
        theirs.set_urls((!descriptor.urls.is_empty()).then(|| descriptor.urls.clone()));
        let annotations = descriptor.annotations.iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        theirs.set_annotations((!descriptor.annotations.is_empty()).then(|| annotations.collect()));
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

/// Returns the annotations, sorted: those of that crate are in a hash map, and the same document has to give the same text.
fn annotations(theirs: Option<&std::collections::HashMap<String, String>>) -> Annotations {
    let sorted: std::collections::BTreeMap<_, _> = theirs.into_iter().flatten().collect();
    Annotations::from_iter(sorted.into_iter().map(|(key, value)| (key.clone(), value.clone())))
}

fn descriptors(theirs: &[theirs::Descriptor]) -> Result<Vec<Descriptor>, Error> {
    theirs.iter().map(Descriptor::try_from).collect()
}

impl TryFrom<&Manifest> for theirs::ImageManifest {
    type Error = oci_spec::OciSpecError;

    /// # Errors
    ///
    /// Those of that crate, for a manifest without a config.
    fn try_from(manifest: &Manifest) -> Result<theirs::ImageManifest, Self::Error> {
        let mut theirs = theirs::ImageManifest::from_reader(&manifest.bytes()[..])?;
        if let Some(config) = manifest.config() {
            theirs.set_config(config.into());
        }
        theirs.set_layers(manifest.layers().iter().map(Into::into).collect());
        theirs.set_subject(manifest.subject().map(Into::into));
        Ok(theirs)
    }
}

impl TryFrom<&theirs::ImageManifest> for Manifest {
    type Error = Error;

    /// # Errors
    ///
    /// [`Error::Algorithm`] for digests other than sha256 and sha512; [`Error::Document`] if the manifest exceeds a limit.
    fn try_from(manifest: &theirs::ImageManifest) -> Result<Manifest, Error> {
        let fields = NewDocument {
            media_type: manifest.media_type().as_ref().map(MediaType::from),
            artifact_type: manifest.artifact_type().as_ref().map(MediaType::from),
            subject: manifest.subject().as_ref().map(Descriptor::try_from).transpose()?,
            annotations: annotations(manifest.annotations().as_ref()),
        };
        fields.manifest(&manifest.config().try_into()?, &descriptors(manifest.layers())?)
    }
}

impl TryFrom<&Index> for theirs::ImageIndex {
    type Error = oci_spec::OciSpecError;

    /// # Errors
    ///
    /// Those of that crate.
    fn try_from(index: &Index) -> Result<theirs::ImageIndex, Self::Error> {
        let mut theirs = theirs::ImageIndex::from_reader(&index.bytes()[..])?;
        theirs.set_manifests(index.manifests().iter().map(Into::into).collect());
        theirs.set_subject(index.subject().map(Into::into));
        Ok(theirs)
    }
}

impl TryFrom<&theirs::ImageIndex> for Index {
    type Error = Error;

    /// # Errors
    ///
    /// As for a manifest.
    fn try_from(index: &theirs::ImageIndex) -> Result<Index, Error> {
        let fields = NewDocument {
            media_type: index.media_type().as_ref().map(MediaType::from),
            artifact_type: index.artifact_type().as_ref().map(MediaType::from),
            subject: index.subject().as_ref().map(Descriptor::try_from).transpose()?,
            annotations: annotations(index.annotations().as_ref()),
        };
        fields.index(&descriptors(index.manifests())?)
    }
}

impl TryFrom<&Config> for theirs::ImageConfiguration {
    type Error = oci_spec::OciSpecError;

    /// # Errors
    ///
    /// Those of that crate, for a config without `os` or `architecture`.
    fn try_from(config: &Config) -> Result<theirs::ImageConfiguration, Self::Error> {
        theirs::ImageConfiguration::from_reader(&config.bytes()[..])
    }
}

impl TryFrom<&theirs::ImageConfiguration> for Config {
    type Error = Error;

    /// # Errors
    ///
    /// [`Error::Document`] if the config exceeds a limit or has a digest that is not valid.
    fn try_from(config: &theirs::ImageConfiguration) -> Result<Config, Error> {
        // Labels, ports and volumes are in hash maps. They are sorted, so that the same config always gives the same text.
        let mut value = serde_json::to_value(config).expect("its keys are strings");
        value.sort_all_objects();
        Config::parse(value.to_string())
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    #[test]
    fn manifests_cross_both_ways() {
        let windows = Platform { os_version: Some("10.0".to_owned()), ..Platform::new("windows", "amd64") };
        let mut layer = Descriptor::of(MediaType::OCI_LAYER_GZIP, b"layer");
        layer.platform = Some(windows);
        let config = Descriptor::of(MediaType::OCI_CONFIG, b"{}");
        let new = NewDocument {
            artifact_type: Some("application/vnd.example".into()),
            subject: Some(Descriptor::of(MediaType::OCI_MANIFEST, b"subject")),
            annotations: [("b", "2"), ("a", "1")].into_iter().collect(),
            ..NewDocument::default()
        };
        let manifest = new.manifest(&config, &[layer.clone()]).unwrap();
        let there = theirs::ImageManifest::try_from(&manifest).unwrap();
        assert_eq!(Manifest::try_from(&there).unwrap().bytes(), manifest.bytes());
        let index = new.index(&[layer]).unwrap();
        let there = theirs::ImageIndex::try_from(&index).unwrap();
        assert_eq!(Index::try_from(&there).unwrap().bytes(), index.bytes());
    }

    #[test]
    fn unknown_fields_and_the_order_of_keys_are_lost() {
        let text = format!(
            r#"{{"x":1,"layers":[],"schemaVersion":2,"config":{{"mediaType":"a/b","digest":"{DIGEST}","size":2,"y":1}}}}"#
        );
        let manifest = Manifest::parse(text).unwrap();
        let back = Manifest::try_from(&theirs::ImageManifest::try_from(&manifest).unwrap()).unwrap();
        assert_eq!(back.config().unwrap().digest, manifest.config().unwrap().digest);
        let text = back.bytes();
        assert!(!text.windows(3).any(|part| part == br#""x""# || part == br#""y""#), "{back:?}");
    }

    #[test]
    fn configs_cross_both_ways() {
        let text = format!(
            r#"{{"architecture":"amd64","config":{{"Env":["A=1"],"Healthcheck":{{"Test":["NONE"]}},"Labels":{{"b":"2","a":"1"}}}},"os":"windows","os.version":"10.0","rootfs":{{"diff_ids":["{DIGEST}"],"type":"layers"}}}}"#
        );
        let config = Config::parse(text).unwrap();
        let there = theirs::ImageConfiguration::try_from(&config).unwrap();
        let back = Config::try_from(&there).unwrap();
        assert_eq!(back.platform(), config.platform());
        assert_eq!(back.rootfs().diff_ids, config.rootfs().diff_ids);
        let text = String::from_utf8(back.bytes().to_vec()).unwrap();
        assert!(text.contains(r#""Labels":{"a":"1","b":"2"}"#), "{text}");
        assert!(!text.contains("Healthcheck"), "that crate does not know it");
        assert_eq!(
            Config::try_from(&theirs::ImageConfiguration::try_from(&back).unwrap()).unwrap().bytes(),
            back.bytes()
        );
    }

    #[test]
    fn platforms_and_digests_cross_both_ways() {
        for text in ["linux/amd64", "linux/arm64/v8", "windows/amd64"] {
            let platform: Platform = text.parse().unwrap();
            assert_eq!(Platform::from(&theirs::Platform::from(&platform)), platform);
        }
        let digest: Digest = DIGEST.parse().unwrap();
        assert_eq!(Digest::try_from(&theirs::Digest::from(&digest)).unwrap(), digest);
    }

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
