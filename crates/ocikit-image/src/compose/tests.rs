use ocikit_spec::annotations;

use super::*;
use crate::copy::{CopyOptions, copy};
use crate::source::{Name, Sink, SourceExt};
use crate::testing;

fn platform(text: &str) -> Platform {
    text.parse().unwrap()
}

/// Returns an image for a platform in a memory of its own.
async fn image(seed: u64, text: &str) -> Root {
    let memory = Arc::new(Memory::new());
    let descriptor = testing::image(&memory, seed, &platform(text), &[100]);
    Root::at(memory, descriptor).await.unwrap()
}

fn member(root: &Root) -> Member {
    Member::new(root.clone())
}

fn digests(index: &Index) -> Vec<Digest> {
    index.manifests().iter().map(|entry| entry.digest).collect()
}

async fn created(members: &[Member]) -> Index {
    create_index(members, &ComposeOptions::default()).await.unwrap().index
}

/// Returns an index with an image and its attestation manifest, as BuildKit writes it.
async fn attested(seed: u64, text: &str) -> Index {
    let memory = Arc::new(Memory::new());
    let image = testing::image(&memory, seed, &platform(text), &[100]);
    let mut entry = image.bare();
    entry.platform = Some(platform(text));
    let mut attestation = testing::image(&memory, seed + 1000, &platform("unknown/unknown"), &[10]).bare();
    attestation.platform = Some(platform("unknown/unknown"));
    attestation.annotations.insert(annotations::DOCKER_REFERENCE_TYPE, "attestation-manifest");
    attestation.annotations.insert(annotations::DOCKER_REFERENCE_DIGEST, image.digest.to_string());
    let document = ocikit_spec::Index::of(&[entry, attestation]);
    let descriptor = Descriptor::of(MediaType::OCI_INDEX, document.bytes());
    memory.insert(document.bytes().clone());
    match Root::at(memory, descriptor).await.unwrap() {
        Root::Index(index) => index,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_index_of_images_from_several_places_is_copied_whole() {
    let (amd, arm) = (image(1, "linux/amd64").await, image(2, "linux/arm64").await);
    let index = created(&[member(&amd), member(&arm)]).await;
    assert_eq!(digests(&index), [amd.digest(), arm.digest()]);
    let target = Arc::new(Memory::new());
    let sink: Arc<dyn Sink> = target.clone();
    copy(&Root::Index(index.clone()), &sink, &CopyOptions::default()).await.unwrap();
    let copied = Root::open(target.clone(), &Name::Digest(index.digest())).await.unwrap();
    for wanted in ["linux/amd64", "linux/arm64"] {
        let Root::Image(found) = copied.clone().for_platform(&platform(wanted)).await.unwrap() else { panic!() };
        for layer in found.layers() {
            target.read(layer.descriptor()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn duplicates_are_refused_replaced_or_kept() {
    let (first, second) = (image(1, "linux/arm64").await, image(2, "linux/arm64").await);
    let index = created(&[member(&first)]).await;
    let add = async |on_duplicate, root: &Root| {
        let options = ComposeOptions { on_duplicate, ..ComposeOptions::default() };
        add_to_index(&index, &[member(root)], &options).await
    };
    for root in [&first, &second] {
        let error = add(OnDuplicate::Refuse, root).await.unwrap_err();
        assert!(matches!(error, Error::Exists { .. }), "{error}");
    }
    let replaced = add(OnDuplicate::Replace, &second).await.unwrap();
    assert_eq!(digests(&replaced.index), [second.digest()]);
    assert_eq!(replaced.removed.len(), 1);
    let kept = add(OnDuplicate::Keep, &second).await.unwrap();
    assert_eq!(digests(&kept.index), [first.digest(), second.digest()]);
    for policy in [OnDuplicate::Replace, OnDuplicate::Keep] {
        let same = add(policy, &first).await.unwrap();
        assert_eq!(same.index.digest(), index.digest(), "{policy:?}: nothing changed");
        assert!(same.removed.is_empty());
    }
}

#[tokio::test]
async fn attestations_stay_with_the_image_that_they_describe() {
    let (amd, arm) = (attested(1, "linux/amd64").await, attested(2, "linux/arm64").await);
    let roots = [Root::Index(amd.clone()), Root::Index(arm.clone())];
    let flatten = ComposeOptions { flatten: true, ..ComposeOptions::default() };
    let flat = create_index(&roots.iter().map(member).collect::<Vec<_>>(), &flatten).await.unwrap().index;
    assert_eq!(digests(&flat), [digests(&amd), digests(&arm)].concat());

    let mut one = member(&Root::Index(flat.clone()));
    one.platforms = vec![platform("linux/arm64")];
    assert_eq!(digests(&created(&[one]).await), digests(&arm), "selected by platform");

    let removed = remove_from_index(&flat, &[], &[platform("linux/amd64")]).unwrap();
    assert_eq!(digests(&removed.index), digests(&arm));
    assert_eq!(removed.removed.len(), 2);
    let by_digest = remove_from_index(&flat, &[digests(&amd)[0]], &[]).unwrap();
    assert_eq!(by_digest.index.digest(), removed.index.digest());

    let other = image(9, "linux/amd64").await;
    let replace = ComposeOptions { on_duplicate: OnDuplicate::Replace, ..ComposeOptions::default() };
    let replaced = add_to_index(&flat, &[member(&other)], &replace).await.unwrap();
    assert_eq!(digests(&replaced.index), [vec![other.digest()], digests(&arm)].concat());
    assert_eq!(replaced.removed.len(), 2, "the attestation of the old image goes too");
}

#[tokio::test]
async fn an_index_is_nested_unless_it_is_flattened() {
    let inner = Root::Index(attested(1, "linux/amd64").await);
    let outer = created(&[member(&inner), member(&image(5, "linux/arm64").await)]).await;
    assert_eq!(digests(&outer)[0], inner.digest());
    assert!(outer.manifests()[0].media_type.is_index());
    let nested = created(&[member(&Root::Index(outer.clone()))]).await;
    let options = ComposeOptions { flatten: true, ..ComposeOptions::default() };
    let flat = create_index(&[member(&Root::Index(nested))], &options).await.unwrap().index;
    assert_eq!(flat.manifests().len(), 3, "all levels are flattened");
}

#[tokio::test]
async fn adding_and_removing_gives_the_original_bytes() {
    let text = format!(
        r#"{{ "schemaVersion": 2, "future": [1.50, "\u0026"], "manifests": [{{"size":{},"x":{{"y":1}},"digest":"{}","mediaType":"{}"}}] }}"#,
        10,
        Digest::sha256_of(b"x"),
        MediaType::OCI_MANIFEST
    );
    let memory = Arc::new(Memory::new());
    let digest = memory.insert(text.clone());
    let descriptor = Descriptor::new(MediaType::OCI_INDEX, digest, text.len() as u64);
    let Root::Index(index) = Root::at(memory, descriptor).await.unwrap() else { panic!() };
    let new = image(1, "linux/amd64").await;
    let added = add_to_index(&index, &[member(&new)], &ComposeOptions::default()).await.unwrap().index;
    let text = added.document().text();
    assert!(text.contains(r#""x":{"y":1}"#) && text.contains(r#"[1.50,"\u0026"]"#), "{text}");
    let back = remove_from_index(&added, &[new.digest()], &[]).unwrap().index;
    let plain: String = index.document().text().split(' ').collect();
    assert_eq!(back.document().text(), plain, "only the layout of the text differs");
}

#[tokio::test]
async fn the_format_of_docker_is_for_docker_manifests_only() {
    let oci = image(1, "linux/amd64").await;
    let docker = ComposeOptions { format: Some(IndexFormat::Docker), ..ComposeOptions::default() };
    let error = create_index(&[member(&oci)], &docker).await.unwrap_err();
    assert!(matches!(error, Error::Unmet { need: Need::OciIndex, .. }), "{error}");

    let Root::Image(image) = &oci else { panic!() };
    let text = image.manifest().text().replace(MediaType::OCI_MANIFEST.as_str(), MediaType::DOCKER_MANIFEST.as_str());
    let text = text.replace(MediaType::OCI_CONFIG.as_str(), MediaType::DOCKER_CONFIG.as_str());
    let memory = Arc::new(Memory::new());
    memory.insert(image.source().read(image.manifest().config().unwrap()).await.unwrap());
    let digest = memory.insert(text.clone());
    let descriptor = Descriptor::new(MediaType::DOCKER_MANIFEST, digest, text.len() as u64);
    let converted = Root::at(memory, descriptor).await.unwrap();
    let list = created(&[member(&converted)]).await;
    assert_eq!(list.document().media_type(), MediaType::DOCKER_MANIFEST_LIST);
    assert!(add_to_index(&list, &[member(&oci)], &ComposeOptions::default()).await.is_err());
    let keep =
        ComposeOptions { format: Some(IndexFormat::Oci), on_duplicate: OnDuplicate::Keep, ..ComposeOptions::default() };
    let mixed = add_to_index(&list, &[member(&oci)], &keep).await.unwrap().index;
    assert_eq!(mixed.document().media_type(), MediaType::OCI_INDEX);
    let annotated = ComposeOptions { annotations: [("k", "v")].into_iter().collect(), ..ComposeOptions::default() };
    let index = create_index(&[member(&converted)], &annotated).await.unwrap().index;
    assert_eq!(index.document().media_type(), MediaType::OCI_INDEX, "a list of docker has no annotations");
}

#[tokio::test]
async fn a_platform_can_be_given_and_is_needed() {
    let memory = Arc::new(Memory::new());
    let config = Descriptor::of(MediaType::OCI_CONFIG, b"{}");
    memory.insert(&b"{}"[..]);
    let manifest = NewDocument::default().manifest(&config, &[]).unwrap();
    let descriptor = Descriptor::of(MediaType::OCI_MANIFEST, manifest.bytes());
    memory.insert(manifest.bytes().clone());
    let mut member = member(&Root::at(memory, descriptor).await.unwrap());
    let error = create_index(&[member.clone()], &ComposeOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("states no platform"), "{error}");
    member.platform = Some(platform("linux/arm/v6"));
    member.annotations.insert("k", "v");
    let index = created(&[member]).await;
    assert_eq!(index.manifests()[0].platform, Some(platform("linux/arm/v6")));
    assert_eq!(index.manifests()[0].annotations.get("k"), Some("v"));
}

#[tokio::test]
async fn what_is_missing_is_an_error() {
    let index = created(&[member(&image(1, "linux/amd64").await)]).await;
    assert!(remove_from_index(&index, &[Digest::sha256_of(b"")], &[]).unwrap_err().is_not_found());
    let error = remove_from_index(&index, &[], &[platform("linux/arm64")]).unwrap_err();
    assert!(matches!(error, Error::NoPlatform { .. }), "{error}");
    let mut arm = member(&Root::Index(index));
    arm.platforms = vec![platform("linux/arm64")];
    let error = create_index(&[arm], &ComposeOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::NoPlatform { .. }), "{error}");
}
