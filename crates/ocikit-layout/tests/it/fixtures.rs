//! Layouts and archives of other programs, compared with the output of other programs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says where it fails by panicking")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use ocikit_image::{
    AnnotateOptions, ArtifactKind, CopyOptions, Error, Memory, Name, Put, Root, Sink, Source, annotate, copy,
};
use ocikit_layout::{Scratch, Tar};
use serde_json::{Map, Value};

async fn open(path: impl Into<PathBuf>) -> Result<Arc<dyn Source>, Error> {
    ocikit_layout::open(path, &Scratch::default()).await
}

fn testdata() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata")
}

/// Returns the fixtures with an OCI layout, and their expected contents.
fn fixtures() -> Vec<(String, Value)> {
    let text = std::fs::read_to_string(testdata().join("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    let fixtures = expected["fixtures"].as_object().unwrap();
    let oci: Vec<_> = fixtures.iter().filter(|(_, facts)| facts["oci"]["tags"].is_object()).collect();
    assert!(oci.len() > 20);
    oci.into_iter().map(|(name, facts)| (name.clone(), facts["oci"].clone())).collect()
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap()
}

#[tokio::test]
async fn every_root_is_found_and_complete() {
    for (name, facts) in fixtures() {
        let source = open(testdata().join(&name)).await.unwrap();
        for root in facts["roots"].as_array().unwrap() {
            let digest = root["digest"].as_str().unwrap().parse().unwrap();
            let opened = Root::open(source.clone(), &Name::Digest(digest)).await.unwrap();
            assert_eq!(opened.descriptor().size, root["size"].as_u64().unwrap(), "{name}");
            assert_eq!(opened.descriptor().media_type.as_str(), root["media_type"].as_str().unwrap(), "{name}");
            let there: Arc<dyn Sink> = Arc::new(Memory::new());
            let copied = copy(&opened, &there, &CopyOptions::default()).await.unwrap();
            assert_eq!(copied.count(Put::Copied).0, copied.blobs.len(), "{name}");
            let manifests: BTreeSet<_> = root["manifests"]
                .as_array()
                .unwrap()
                .iter()
                .map(|digest| digest.as_str().unwrap().to_owned())
                .collect();
            let copied: BTreeSet<_> = copied.blobs.iter().map(|(blob, _)| blob.digest.to_string()).collect();
            assert!(manifests.is_subset(&copied), "{name}");
        }
    }
}

#[tokio::test]
async fn names_resolve_as_in_other_programs() {
    for (name, facts) in fixtures() {
        let source = open(testdata().join(&name)).await.unwrap();
        for (key, full) in [("tags", false), ("names", true)] {
            for (tag, digest) in object(&facts[key]) {
                let wanted = match tag.parse() {
                    Ok(tag) if !full => Name::Tag(tag),
                    _ => Name::Full(tag.clone()),
                };
                let found = source.resolve(&wanted).await;
                // If two images have the same tag, other programs silently select different ones.
                match digest.as_str() {
                    Some(digest) => assert_eq!(found.unwrap().digest.to_string(), digest, "{name} {tag}"),
                    None => assert!(matches!(found, Err(Error::Ambiguous { .. })), "{name} {tag}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn referrers_are_those_a_registry_lists() {
    for (name, facts) in fixtures() {
        let source = open(testdata().join(&name)).await.unwrap();
        for (subject, listed) in object(&facts["referrers"]) {
            // Only the entries of index.json are found: other programs do not search for referrers inside images.
            let entries: BTreeSet<_> = {
                let roots = facts["roots"].as_array().unwrap().iter();
                roots.map(|root| root["digest"].as_str().unwrap().to_owned()).collect()
            };
            let listed = listed.as_array().unwrap().iter().map(|found| found["digest"].as_str().unwrap().to_owned());
            let listed: BTreeSet<_> = listed.filter(|digest| entries.contains(digest)).collect();
            let found = source.referrers(&subject.parse().unwrap()).await.unwrap();
            let found: BTreeSet<_> = found.iter().map(|found| found.digest.to_string()).collect();
            assert!(found.is_superset(&listed), "{name} {subject}: {found:?} {listed:?}");
        }
    }
}

#[tokio::test]
async fn only_image_is_selected_without_a_name() {
    for (name, only) in [
        ("buildkit-single/image.tar", true),
        ("buildkit-multi/image.tar", true),
        ("buildkit-tags/image.tar", true),
        ("buildkit-attested/image.tar", true),
        ("archive-nested/image.tar", true),
        ("archive-oras/image.tar", false),
        ("layout-oras/layout", true),
        ("layout-oras-referrers/layout", true),
        ("layout-skopeo/layout", false),
        ("layout-buildkit-cache/layout", true),
    ] {
        let source = open(testdata().join(name)).await.unwrap();
        match source.resolve(&Name::Only).await {
            Ok(_) => assert!(only, "{name}"),
            Err(Error::Ambiguous { choices, .. }) => {
                assert!(!only, "{name}: {choices:?}");
                assert!(choices.iter().all(|choice| !choice.starts_with("sha256:")), "{name}: {choices:?}");
            }
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

#[tokio::test]
async fn attestation_manifests_are_recognized() {
    for (name, kinds) in [
        ("buildkit-attested/image.tar", &[ArtifactKind::Image, ArtifactKind::Attestation][..]),
        ("buildkit-attested/config.tar", &[ArtifactKind::Image, ArtifactKind::Attestation]),
        (
            "buildkit-attested/multi.tar",
            &[ArtifactKind::Image, ArtifactKind::Image, ArtifactKind::Attestation, ArtifactKind::Attestation],
        ),
    ] {
        let tar = Arc::new(Tar::open(testdata().join(name)).await.unwrap());
        let Root::Index(index) = Root::open(tar, &Name::Only).await.unwrap() else { panic!("{name}") };
        let mut found = Vec::new();
        for entry in index.manifests() {
            found.push(ArtifactKind::of(&index.open(entry).await.unwrap()));
        }
        assert_eq!(found, kinds, "{name}");
    }
}

#[tokio::test]
async fn attestation_manifests_follow_an_annotated_image() {
    for name in ["buildkit-attested/image.tar", "buildkit-attested/config.tar", "buildkit-attested/multi.tar"] {
        let tar = Arc::new(Tar::open(testdata().join(name)).await.unwrap());
        let root = Root::open(tar, &Name::Only).await.unwrap();
        let set = vec![("k".to_owned(), "v".to_owned())];
        let annotated = annotate(&root, &AnnotateOptions::default().set(set)).await.unwrap();
        let there: Arc<dyn Sink> = Arc::new(Memory::new());
        copy(&annotated, &there, &CopyOptions::default()).await.unwrap();
        let Root::Index(index) = annotated else { panic!("{name}") };
        let images: BTreeSet<_> = {
            let images = index.manifests().iter().filter(|entry| !entry.is_attestation());
            images.map(|entry| entry.digest.to_string()).collect()
        };
        for entry in index.manifests().iter().filter(|entry| entry.is_attestation()) {
            assert!(images.contains(entry.annotations.get("vnd.docker.reference.digest").unwrap()), "{name}");
            let document = index.open(entry).await.unwrap().document().unwrap();
            assert!(document.subject().is_none_or(|subject| images.contains(&subject.digest.to_string())), "{name}");
        }
    }
}

#[tokio::test]
async fn docker_archives_have_the_contents_that_other_programs_find() {
    let text = std::fs::read_to_string(testdata().join("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    let fixtures = object(&expected["fixtures"]).iter().filter(|(_, facts)| facts["docker"].is_array());
    let mut count = 0;
    for (name, facts) in fixtures {
        let source = open(testdata().join(name)).await.unwrap();
        for item in facts["docker"].as_array().unwrap() {
            let tags: Vec<_> = item["tags"].as_array().into_iter().flatten().map(|tag| tag.as_str().unwrap()).collect();
            let wanted: Vec<_> = match &tags[..] {
                [] => vec![Name::Only],
                tags => tags.iter().map(|tag| Name::Full((*tag).to_owned())).collect(),
            };
            for wanted in wanted {
                let root = Root::open(source.clone(), &wanted).await.unwrap();
                let image = match root {
                    Root::Image(image) => image,
                    Root::Index(index) => index.image_for(&"linux/amd64".parse().unwrap()).await.unwrap(),
                    Root::Other(_) => panic!("{name} {wanted}"),
                };
                let config = image.config().await.unwrap();
                assert_eq!(config.digest().to_string(), item["config"], "{name} {wanted}");
                let diff_ids: Vec<_> = config.rootfs().diff_ids.iter().map(ToString::to_string).collect();
                assert_eq!(Value::from(diff_ids), item["diff_ids"], "{name} {wanted}");
                let there: Arc<dyn Sink> = Arc::new(Memory::new());
                copy(&Root::Image(image), &there, &CopyOptions::default()).await.unwrap();
                count += 1;
            }
        }
    }
    assert!(count > 15, "{count}");
}

#[tokio::test]
async fn manifests_generated_for_an_archive_are_reproducible() {
    let path = testdata().join("docker-archive/docker20-tags.tar");
    let name = Name::Full("acme/pair:1".to_owned());
    let one = open(&path).await.unwrap().resolve(&name).await.unwrap();
    let two = open(&path).await.unwrap().resolve(&Name::Only).await.unwrap();
    assert_eq!(one.digest, two.digest);
    assert_eq!(one.platform.unwrap().to_string(), "linux/amd64");
}

#[tokio::test]
async fn compressed_archives_have_the_same_contents() {
    for ending in ["gz", "zst"] {
        let compressed = open(testdata().join(format!("buildkit-single/image.tar.{ending}"))).await.unwrap();
        let plain = open(testdata().join("buildkit-single/image.tar")).await.unwrap();
        assert_eq!(compressed.resolve(&Name::Only).await.unwrap(), plain.resolve(&Name::Only).await.unwrap());
    }
}

#[tokio::test]
async fn platforms_listed_without_an_index_of_their_own_are_one_image() {
    let directory = tempfile::tempdir().unwrap();
    copy_tree(&testdata().join("layout-skopeo/layout"), directory.path());
    let multi = open(directory.path()).await.unwrap();
    let Root::Index(index) = Root::open(multi, &Name::Tag("1".parse().unwrap())).await.unwrap() else {
        panic!("an index")
    };
    // The entries of the image's index become those of the layout, as some builders write them.
    let flat = ocikit_spec::Index::of(index.manifests());
    std::fs::write(directory.path().join("index.json"), flat.bytes()).unwrap();
    let opened = open(directory.path()).await.unwrap();
    let root = Root::open(opened, &Name::Only).await.unwrap();
    assert_eq!(root.digest(), flat.digest());
    let there: Arc<dyn Sink> = Arc::new(Memory::new());
    let copied = copy(&root, &there, &CopyOptions::default()).await.unwrap();
    assert_eq!(copied.root.digest, flat.digest());
}

fn copy_tree(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
