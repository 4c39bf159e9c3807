//! What the conversions keep and lose, for any value.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::{Algorithm, History};

fn digest() -> impl Strategy<Value = Digest> {
    (any::<[u8; 8]>(), any::<bool>())
        .prop_map(|(bytes, long)| Digest::of(if long { Algorithm::Sha512 } else { Algorithm::Sha256 }, &bytes))
}

fn platform() -> impl Strategy<Value = Platform> {
    let names = (
        "[a-z][a-z0-9]{0,9}",
        "[a-z][a-z0-9]{0,9}",
        option::of("[0-9.]{1,9}"),
        vec("[a-z0-9]{1,6}", 0..3),
        option::of("v[0-9]"),
    );
    names.prop_map(|(os, architecture, os_version, os_features, variant)| Platform {
        os_version,
        os_features,
        variant,
        ..Platform::new(os, architecture)
    })
}

/// Annotations in any order.
fn annotations() -> impl Strategy<Value = Annotations> {
    btree_map("[a-z.]{1,9}", ".{0,9}", 0..5)
        .prop_flat_map(|map| Just(map.into_iter().collect::<Vec<_>>()).prop_shuffle())
        .prop_map(Annotations::from_iter)
}

fn descriptor() -> impl Strategy<Value = Descriptor> {
    let media_type = "[a-z]{1,9}/[a-z.+]{1,9}";
    let others = (
        vec("https://[a-z]{1,9}", 0..3),
        option::of("[A-Za-z0-9+/]{4}"),
        option::of(platform()),
        option::of(media_type),
    );
    (media_type, digest(), any::<u64>(), annotations(), others).prop_map(
        |(media_type, digest, size, annotations, (urls, data, platform, artifact_type))| Descriptor {
            annotations,
            urls,
            data,
            platform,
            artifact_type: artifact_type.map(MediaType::new),
            ..Descriptor::new(MediaType::new(media_type), digest, size)
        },
    )
}

fn new_document() -> impl Strategy<Value = NewDocument> {
    (option::of(descriptor()), option::of("[a-z]{1,9}/[a-z.+]{1,9}"), annotations()).prop_map(
        |(subject, artifact_type, annotations)| NewDocument {
            media_type: None,
            artifact_type: artifact_type.map(MediaType::new),
            subject,
            annotations,
        },
    )
}

/// Returns the annotations without their order.
fn unordered(annotations: &Annotations) -> BTreeMap<String, String> {
    annotations.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Returns the descriptor without the order of its annotations and without unknown fields, which are what is lost.
fn kept(descriptor: &Descriptor) -> Descriptor {
    let Descriptor { urls, data, platform, artifact_type, .. } = descriptor.clone();
    let annotations = Annotations::from_iter(unordered(&descriptor.annotations));
    Descriptor { annotations, urls, data, platform, artifact_type, ..descriptor.bare() }
}

fn all_kept(descriptors: &[Descriptor]) -> Vec<Descriptor> {
    descriptors.iter().map(kept).collect()
}

/// Adds a field that no specification has to the text of a document.
fn with_unknown_field(text: &str) -> String {
    format!(r#"{{"com.example.unknown":{{"a":1.50}},{}"#, &text[1..])
}

proptest! {
    #[test]
    fn digests_and_platforms_keep_everything(digest in digest(), platform in platform()) {
        prop_assert_eq!(Digest::try_from(&theirs::Digest::from(&digest)).unwrap(), digest);
        prop_assert_eq!(Platform::from(&theirs::Platform::from(&platform)), platform);
    }

    #[test]
    fn descriptors_lose_the_order_of_annotations_and_unknown_fields(descriptor in descriptor()) {
        let text = with_unknown_field(&serde_json::to_string(&descriptor).unwrap());
        let descriptor: Descriptor = serde_json::from_str(&text).unwrap();
        let back = Descriptor::try_from(&theirs::Descriptor::from(&descriptor)).unwrap();
        prop_assert_eq!(&back, &kept(&descriptor));
        prop_assert_eq!(Descriptor::try_from(&theirs::Descriptor::from(&back)).unwrap(), back);
    }

    #[test]
    fn manifests_lose_unknown_fields_and_orders(
        new in new_document(),
        config in descriptor(),
        layers in vec(descriptor(), 0..4),
    ) {
        let manifest = Manifest::parse(with_unknown_field(new.manifest(&config, &layers).unwrap().text())).unwrap();
        let back = Manifest::try_from(&theirs::ImageManifest::try_from(&manifest).unwrap()).unwrap();
        prop_assert_eq!(back.config(), Some(&kept(&config)));
        prop_assert_eq!(back.layers(), all_kept(&layers));
        prop_assert_eq!(back.subject().cloned(), new.subject.as_ref().map(kept));
        prop_assert_eq!(back.artifact_type(), manifest.artifact_type());
        prop_assert_eq!(unordered(back.annotations()), unordered(&new.annotations));
        prop_assert!(!back.text().contains("com.example.unknown"));
        // What has gone through a conversion once loses nothing more.
        let again = Manifest::try_from(&theirs::ImageManifest::try_from(&back).unwrap()).unwrap();
        prop_assert_eq!(again.bytes(), back.bytes());
    }

    #[test]
    fn indexes_lose_unknown_fields_and_orders(new in new_document(), manifests in vec(descriptor(), 0..4)) {
        let index = Index::parse(with_unknown_field(new.index(&manifests).unwrap().text())).unwrap();
        let back = Index::try_from(&theirs::ImageIndex::try_from(&index).unwrap()).unwrap();
        prop_assert_eq!(back.manifests(), all_kept(&manifests));
        prop_assert_eq!(back.subject().cloned(), new.subject.as_ref().map(kept));
        prop_assert_eq!(back.artifact_type(), new.artifact_type.as_ref());
        prop_assert_eq!(unordered(back.annotations()), unordered(&new.annotations));
        prop_assert!(!back.text().contains("com.example.unknown"));
        let again = Index::try_from(&theirs::ImageIndex::try_from(&back).unwrap()).unwrap();
        prop_assert_eq!(again.bytes(), back.bytes());
    }

    #[test]
    fn configs_lose_fields_of_docker_and_orders(
        platform in platform(),
        env in vec("[A-Z]{1,5}=[^\\p{C}]{0,9}", 0..4),
        arguments in vec("[^\\p{C}]{1,9}", 0..4),
        labels in annotations(),
        history in vec("[^\\p{C}]{1,9}", 0..4),
        diff_ids in vec(digest(), 0..4),
    ) {
        let history: Vec<_> =
            history.into_iter().map(|step| History { created_by: Some(step), ..History::default() }).collect();
        let mut text = serde_json::json!({
            "config": {"Env": env, "Cmd": arguments, "Labels": labels, "Healthcheck": {"Test": ["NONE"]}, "User": "0"},
            "history": history,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "created": "2024-01-01T00:00:00Z",
        });
        for (key, value) in serde_json::to_value(&platform).unwrap().as_object().unwrap() {
            text[key] = value.clone();
        }
        let config = Config::parse(text.to_string()).unwrap();
        let back = Config::try_from(&theirs::ImageConfiguration::try_from(&config).unwrap()).unwrap();
        prop_assert_eq!(back.platform(), Some(&platform));
        prop_assert_eq!((&back.execution().env, &back.execution().cmd), (&env, &arguments));
        prop_assert_eq!(unordered(&back.execution().labels), unordered(&labels));
        prop_assert_eq!((back.history(), &back.rootfs().diff_ids), (&history[..], &diff_ids));
        prop_assert_eq!(back.created(), Some("2024-01-01T00:00:00Z"));
        prop_assert!(!back.text().contains("Healthcheck"));
        let again = Config::try_from(&theirs::ImageConfiguration::try_from(&back).unwrap()).unwrap();
        prop_assert_eq!(again.bytes(), back.bytes());
    }

    #[test]
    fn references_keep_everything(
        host in option::of("[a-z]{1,9}\\.[a-z]{2,4}(:[1-9][0-9]{0,3})?"),
        path in "[a-z0-9]{1,9}([_-][a-z0-9]{1,5})?(/[a-z0-9]{1,9}([.][a-z0-9]{1,5})?){0,2}",
        tag in option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,9}"),
        digest in option::of(digest()),
    ) {
        let mut text = host.map(|host| format!("{host}/")).unwrap_or_default() + &path;
        text.extend(tag.map(|tag| format!(":{tag}")));
        text.extend(digest.map(|digest| format!("@{digest}")));
        let reference: Reference = text.parse().unwrap();
        let there = theirs_distribution::Reference::try_from(&reference).unwrap();
        prop_assert_eq!(Reference::try_from(&there).unwrap(), reference);
    }
}
