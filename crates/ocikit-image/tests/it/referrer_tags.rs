//! Copies keep the signatures of the target.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says where it fails by panicking")]

use std::sync::Arc;

use ocikit_image::testing;
use ocikit_image::{
    CopyOptions, Error, Memory, Name, Naming, ReferrerTag, Referrers, Root, Sink, Source, SourceExt, Target, copy,
    copy_all, copy_to_each, plan, tagged_referrers,
};
use ocikit_spec::{Descriptor, Digest, Document, MediaType, Platform, Tag};

const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// Creates an image that depends only on the seed.
fn image(memory: &Arc<Memory>, seed: u64) -> Descriptor {
    testing::image(memory, seed, &Platform::new("linux", "amd64"), &[100])
}

fn tag(subject: &Digest, ending: &str) -> Tag {
    format!("sha256-{}{ending}", subject.hex()).parse().unwrap()
}

fn named(tag: &Tag) -> Naming {
    Naming::of_tag(tag.clone())
}

/// Stores a signature manifest of cosign under a tag, with one signed layer for each text.
async fn put_signatures(memory: &Memory, tag: &Tag, texts: &[&str]) -> Digest {
    let layers: Vec<_> = texts
        .iter()
        .map(|text| {
            let payload = format!("payload of {text}");
            let digest = memory.insert(payload.clone());
            let size = payload.len();
            format!(
                r#"{{"mediaType":"{SIMPLE_SIGNING}","size":{size},"digest":"{digest}","annotations":{{"dev.cosignproject.cosign/signature":"{text}"}}}}"#
            )
        })
        .collect();
    let ids: Vec<_> = texts
        .iter()
        .map(|text| format!(r#""{}""#, Digest::sha256_of(format!("payload of {text}").as_bytes())))
        .collect();
    let history: Vec<_> = texts.iter().map(|_| r#"{"created":"0001-01-01T00:00:00Z"}"#).collect();
    let config = format!(
        r#"{{"architecture":"","created":"0001-01-01T00:00:00Z","history":[{}],"os":"","rootfs":{{"type":"layers","diff_ids":[{}]}},"config":{{}}}}"#,
        history.join(","),
        ids.join(",")
    );
    let size = config.len();
    let config = memory.insert(config);
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","size":{size},"digest":"{config}"}},"layers":[{}]}}"#,
        MediaType::OCI_MANIFEST,
        MediaType::OCI_CONFIG,
        layers.join(",")
    );
    let descriptor = Descriptor::of(MediaType::OCI_MANIFEST, manifest.as_bytes());
    memory.insert(manifest);
    memory.publish(&descriptor, &named(tag)).await.unwrap();
    descriptor.digest
}

/// Returns the texts of the signatures under a tag in order. Requires that all blobs exist and that the config matches.
async fn signatures(place: &dyn Source, tag: &Tag) -> Vec<String> {
    let found = place.resolve(&Name::Tag(tag.clone())).await.unwrap();
    let Document::Manifest(manifest) = place.document(&found).await.unwrap() else { panic!("no manifest") };
    let config = ocikit_spec::Config::parse(place.read(manifest.config().unwrap()).await.unwrap()).unwrap();
    let digests: Vec<_> = manifest.layers().iter().map(|layer| layer.digest).collect();
    assert_eq!(config.rootfs().diff_ids, digests);
    assert_eq!(config.history().len(), digests.len());
    for layer in manifest.layers() {
        place.read(layer).await.unwrap();
    }
    let signature =
        |layer: &Descriptor| layer.annotations.get("dev.cosignproject.cosign/signature").unwrap().to_owned();
    manifest.layers().iter().map(signature).collect()
}

fn all() -> CopyOptions {
    CopyOptions::default().referrers(Referrers::All)
}

/// Creates a source and a target with the same image and these signatures.
async fn signed(ending: &str, from: &[&str], to: &[&str]) -> (Root, Arc<Memory>, Tag) {
    let (here, there) = (Arc::new(Memory::new()), Arc::new(Memory::new()));
    let descriptor = image(&here, 1);
    let tag = tag(&descriptor.digest, ending);
    if !from.is_empty() {
        put_signatures(&here, &tag, from).await;
    }
    if !to.is_empty() {
        put_signatures(&there, &tag, to).await;
    }
    (Root::at(here, descriptor).await.unwrap(), there, tag)
}

#[tokio::test]
async fn signatures_are_merged_with_those_of_the_target() {
    for ending in [".sig", ".att"] {
        for (from, to, expected) in [
            (&["a"][..], &[][..], &["a"][..]),
            (&[], &["b"], &["b"]),
            (&["a"], &["b"], &["b", "a"]),
            (&["a", "b"], &["b", "c"], &["b", "c", "a"]),
            (&["a"], &["a", "b"], &["a", "b"]),
            (&["b", "a"], &["a"], &["b", "a"]),
        ] {
            let (root, there, tag) = signed(ending, from, to).await;
            let before = there.resolve(&Name::Tag(tag.clone())).await.ok();
            let sink: Arc<dyn Sink> = there.clone();
            let copied = copy(&root, &sink, &all()).await.unwrap();
            assert!(copied.kept.is_empty());
            assert_eq!(signatures(&*there, &tag).await, expected, "{ending} {from:?} {to:?}");
            let after = there.resolve(&Name::Tag(tag.clone())).await.unwrap();
            if to == expected {
                assert_eq!(before.unwrap().digest, after.digest, "the manifest is not rewritten");
            }
            copy(&root, &sink, &all()).await.unwrap();
            assert_eq!(
                there.resolve(&Name::Tag(tag.clone())).await.unwrap().digest,
                after.digest,
                "a second copy changes nothing"
            );
        }
    }
}

#[tokio::test]
async fn copies_between_several_sources_and_targets_keep_all_signatures() {
    let (root, one, tag) = signed(".sig", &["a"], &["b"]).await;
    let (_, two, _) = signed(".sig", &[], &["c"]).await;
    let three = Arc::new(Memory::new());
    let targets: Vec<_> = [&one, &two, &three]
        .into_iter()
        .map(|sink| Target { sink: sink.clone(), names: vec![named(&"v1".parse().unwrap())] })
        .collect();
    copy_to_each(&root, &targets, &all()).await.all().unwrap();
    for (place, expected) in [(&one, &["b", "a"][..]), (&two, &["c", "a"]), (&three, &["a"])] {
        assert_eq!(signatures(&**place, &tag).await, expected);
        assert_eq!(place.resolve(&Name::Tag("v1".parse().unwrap())).await.unwrap().digest, root.digest());
    }
    let (other, there, _) = signed(".sig", &["d"], &["e"]).await;
    let sink: Arc<dyn Sink> = there.clone();
    copy_all(&[(root, Vec::new()), (other, Vec::new())], &sink, &all()).await.unwrap();
    assert_eq!(signatures(&*there, &tag).await, ["e", "a", "d"]);
}

#[tokio::test]
async fn signature_tag_copied_by_name_is_merged() {
    let (root, there, tag) = signed(".sig", &["a"], &["b"]).await;
    let signature = Root::open(root.source().clone(), &Name::Tag(tag.clone())).await.unwrap();
    let sink: Arc<dyn Sink> = there.clone();
    let options = CopyOptions::default().names(vec![named(&tag)]);
    let copied = copy(&signature, &sink, &options).await.unwrap();
    assert_eq!(signatures(&*there, &tag).await, ["b", "a"]);
    assert_eq!(copied.root.digest, there.resolve(&Name::Tag(tag)).await.unwrap().digest);
}

#[tokio::test]
async fn target_keeps_its_sbom_and_the_result_reports_it() {
    let (root, there, tag) = signed(".sbom", &["a"], &["b"]).await;
    let before = there.resolve(&Name::Tag(tag.clone())).await.unwrap().digest;
    let not_copied = root.source().resolve(&Name::Tag(tag.clone())).await.unwrap().digest;
    let sink: Arc<dyn Sink> = there.clone();
    let planned = plan(&root, &sink, &all()).await.unwrap();
    let copied = copy(&root, &sink, &all()).await.unwrap();
    assert_eq!(planned.kept, copied.kept);
    let kept = &copied.kept[0];
    assert_eq!((&kept.tag, kept.there, kept.not_copied), (&tag, before, not_copied));
    assert_eq!(there.resolve(&Name::Tag(tag.clone())).await.unwrap().digest, before);
    // A copy of the SBOM itself to that tag is an error.
    let sbom = Root::open(root.source().clone(), &Name::Tag(tag.clone())).await.unwrap();
    let options = CopyOptions::default().names(vec![named(&tag)]);
    assert!(matches!(copy(&sbom, &sink, &options).await, Err(Error::Exists { .. })));
}

#[tokio::test]
async fn keep_tags_prevents_merging() {
    for ending in [".sig", ".att", ".sbom"] {
        let (root, there, tag) = signed(ending, &["a"], &["b"]).await;
        let before = there.resolve(&Name::Tag(tag.clone())).await.unwrap().digest;
        let sink: Arc<dyn Sink> = there.clone();
        let options = all().keep_tags(true);
        let error = copy(&root, &sink, &options).await.unwrap_err();
        assert!(matches!(&error, Error::Exists { what, .. } if what.contains(tag.as_str())), "{error}");
        let targets = [&sink, &sink].map(|sink| Target { sink: sink.clone(), names: Vec::new() });
        assert!(copy_to_each(&root, &targets, &options).await.all().is_err());
        assert_eq!(there.resolve(&Name::Tag(tag)).await.unwrap().digest, before);
    }
    // A target that already has all signatures does not change.
    for (from, to) in [(&["a"][..], &["a"][..]), (&["a"], &["b", "a"]), (&["a"], &[])] {
        let (root, there, tag) = signed(".sig", from, to).await;
        let sink: Arc<dyn Sink> = there.clone();
        copy(&root, &sink, &all().keep_tags(true)).await.unwrap();
        assert!(signatures(&*there, &tag).await.contains(&"a".to_owned()));
    }
}

/// Stores a list of referrers with an entry for each seed.
async fn put_list(memory: &Arc<Memory>, tag: &Tag, seeds: &[u64]) {
    let entries: Vec<_> = seeds.iter().map(|seed| image(memory, *seed)).collect();
    let index = testing::index(memory, &entries);
    memory.publish(&index, &named(tag)).await.unwrap();
}

async fn entries(place: &Arc<Memory>, tag: &Tag) -> Vec<Digest> {
    let Root::Index(index) = Root::open(place.clone(), &Name::Tag(tag.clone())).await.unwrap() else { panic!() };
    index.manifests().iter().map(|entry| entry.digest).collect()
}

#[tokio::test]
async fn lists_of_referrers_are_merged_and_their_referrers_copied() {
    let (here, there) = (Arc::new(Memory::new()), Arc::new(Memory::new()));
    let tag = tag(&Digest::sha256_of(b"x"), "");
    put_list(&here, &tag, &[1, 2]).await;
    put_list(&there, &tag, &[2, 3]).await;
    let digests = [1, 2, 3].map(|seed| image(&here, seed).digest);
    let source: Arc<dyn Source> = here.clone();
    let referrers = tagged_referrers(&source, &tag, ReferrerTag::List, &Referrers::All).await.unwrap();
    assert_eq!(referrers.iter().map(|(root, _)| root.digest()).collect::<Vec<_>>(), digests[..2]);
    assert!(referrers.iter().all(|(_, naming)| *naming == Naming::default()));
    assert!(tagged_referrers(&source, &tag, ReferrerTag::List, &Referrers::None).await.unwrap().is_empty());
    let list = Root::open(here, &Name::Tag(tag.clone())).await.unwrap();
    let sink: Arc<dyn Sink> = there.clone();
    copy(&list, &sink, &CopyOptions::default().names(vec![named(&tag)])).await.unwrap();
    assert_eq!(entries(&there, &tag).await, [digests[1], digests[2], digests[0]]);
    for digest in digests {
        there.resolve(&Name::Digest(digest)).await.unwrap();
    }
}
