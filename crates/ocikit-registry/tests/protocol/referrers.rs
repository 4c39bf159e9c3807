//! Referrers by the API, by the fallback tag, and from registries with invalid answers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use ocikit_image::{CopyOptions, Memory, Naming, Referrers, Root, Sink, Source, copy, testing};
use ocikit_registry::{Client, RemoteRepository};
use ocikit_spec::{Descriptor, Digest, Index, Manifest, Platform};

use crate::double::{Action, Double, status};
use crate::support::{client, failed, options, repository};

/// An image in a repository, and referrers of it in memory.
async fn subject(repository: &RemoteRepository, types: &[&str]) -> (Arc<Memory>, Descriptor, Vec<Descriptor>) {
    let memory = Arc::new(Memory::new());
    let image = testing::image(&memory, 1, &Platform::new("linux", "amd64"), &[10]);
    push(repository, &memory, &image).await.unwrap();
    let about = types.iter().map(|artifact_type| testing::referrer(&memory, &image, artifact_type)).collect();
    (memory, image, about)
}

async fn push(to: &RemoteRepository, memory: &Arc<Memory>, what: &Descriptor) -> ocikit_registry::Result<()> {
    let root = Root::at(memory.clone(), what.clone()).await?;
    let to: Arc<dyn Sink> = Arc::new(to.clone());
    copy(&root, &to, &CopyOptions::default()).await.map(drop)
}

fn digests(found: &[Descriptor]) -> Vec<Digest> {
    let mut digests: Vec<_> = found.iter().map(|found| found.digest).collect();
    digests.sort();
    digests
}

const TYPES: [&str; 3] = ["application/vnd.a", "application/vnd.b", "application/vnd.c"];

#[tokio::test]
async fn referrers_are_listed_by_api_or_fallback_tag() {
    for api in [true, false] {
        let double = Double::start().await;
        double.behaviour(|behaviour| (behaviour.referrers, behaviour.page) = (api, 2));
        let repository = repository(&client(), &double, "a");
        let (memory, image, about) = subject(&repository, &TYPES).await;
        for about in &about {
            push(&repository, &memory, about).await.unwrap();
        }
        assert_eq!(digests(&repository.referrers(&image.digest).await.unwrap()), digests(&about), "api: {api}");
        let one = repository.referrers_of_type(&image.digest, &TYPES[1].into()).await.unwrap();
        assert_eq!(digests(&one), [about[1].digest]);
        assert_eq!(one[0].artifact_type, Some(TYPES[1].into()));
        let fallback = double.tag("a", &image.digest.to_string().replace(':', "-"));
        assert_eq!(fallback.is_none(), api);

        repository.delete_manifest(&about[0].digest).await.unwrap();
        assert_eq!(digests(&repository.referrers(&image.digest).await.unwrap()), digests(&about[1..]), "api: {api}");
        assert_eq!(repository.referrers(&about[1].digest).await.unwrap(), []);
    }
}

#[tokio::test]
async fn missing_referrers_api_is_requested_once() {
    let double = Double::start().await;
    double.behaviour(|behaviour| behaviour.referrers = false);
    let repository = repository(&client(), &double, "a");
    for _ in 0..3 {
        repository.referrers(&Digest::sha256_of(b"x")).await.unwrap();
    }
    assert_eq!(double.log().iter().filter(|line| line.contains("/referrers/")).count(), 1);
}

#[tokio::test]
async fn refusals_mean_no_referrers_api() {
    for action in [
        || status(405),
        || status(400),
        || status(403),
        || Action::Reply(307, vec![("location", "/website".to_owned())], Bytes::new()),
    ] {
        let double = Double::start().await;
        double.behaviour(|behaviour| behaviour.referrers = false);
        double.rule(move |seen| match &seen.path {
            path if path.contains("/referrers/") => action(),
            // registry.k8s.io redirects to a page (oras-project/oras-go#633).
            path if path == "/website" => Action::Reply(200, vec![], "<html>".into()),
            _ => Action::Pass,
        });
        let repository = repository(&client(), &double, "a");
        let (memory, image, about) = subject(&repository, &TYPES[..1]).await;
        push(&repository, &memory, &about[0]).await.unwrap();
        assert_eq!(digests(&repository.referrers(&image.digest).await.unwrap()), digests(&about));
    }
}

fn ok(body: &'static str) -> Action {
    Action::Reply(200, vec![], body.into())
}

#[tokio::test]
async fn unusable_answers_are_not_an_empty_list() {
    for action in [
        || status(500),
        || status(406),
        || status(203),
        || status(204),
        || status(206),
        || status(200),
        || ok("<html>"),
        || ok("upstream timeout"),
        || ok(r#"{"schemaVersion":2,"manifests":[{"mediaType":"a/b","#),
        || ok(r#"{"schemaVersion":2}"#),
        || ok(r#"{"schemaVersion":2,"config":{},"layers":[]}"#),
        || ok(r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#),
    ] {
        let double = Double::start().await;
        let to = repository(&client(), &double, "a");
        let (memory, image, about) = subject(&to, &TYPES[..1]).await;
        push(&to, &memory, &about[0]).await.unwrap();
        double.rule(move |seen| if seen.path.contains("/referrers/") { action() } else { Action::Pass });
        let from = repository(&client(), &double, "a");
        failed(from.referrers(&image.digest).await);
        let root = Root::at(Arc::new(from), image).await.unwrap();
        let into: Arc<dyn Sink> = Arc::new(Memory::new());
        let options = CopyOptions::default().referrers(Referrers::All);
        let error = copy(&root, &into, &options).await.unwrap_err();
        assert!(matches!(error, ocikit_registry::Error::Referrers { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn fallback_tag_of_the_image_itself_is_no_list() {
    let double = Double::start().await;
    double.behaviour(|behaviour| behaviour.referrers = false);
    let repository = repository(&client(), &double, "a");
    let (_, image, _) = subject(&repository, &[]).await;
    let bytes = double.manifest("a", &image.digest).unwrap();
    double.put_manifest("a", &image.digest.to_string().replace(':', "-"), image.media_type.as_str(), bytes);
    assert_eq!(repository.referrers(&image.digest).await.unwrap(), []);
}

#[tokio::test]
async fn filters_that_the_registry_ignores_are_applied_here() {
    let double = Double::start().await;
    double.rule(|seen| match seen.path.contains("/referrers/") {
        true => Action::Reply(
            200,
            vec![],
            format!(
                r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
                ["a", "b"]
                    .map(|name| format!(
                        r#"{{"mediaType":"x","digest":"{}","size":1,"artifactType":"{name}"}}"#,
                        Digest::sha256_of(name.as_bytes())
                    ))
                    .join(",")
            )
            .into(),
        ),
        false => Action::Pass,
    });
    let repository = repository(&client(), &double, "a");
    let found = repository.referrers_of_type(&Digest::sha256_of(b"x"), &"b".into()).await.unwrap();
    assert_eq!(digests(&found), [Digest::sha256_of(b"b")]);
}

#[tokio::test]
async fn concurrent_writers_lose_no_referrer() {
    let double = Double::start().await;
    double.behaviour(|behaviour| behaviour.referrers = false);
    let types: Vec<_> = (0..12).map(|number| format!("application/vnd.{number}")).collect();
    let types: Vec<_> = types.iter().map(String::as_str).collect();
    let one = repository(&client(), &double, "a");
    let (memory, image, about) = subject(&one, &types).await;
    futures::future::join_all(about.iter().map(|about| push(&one, &memory, about))).await;
    assert_eq!(digests(&one.referrers(&image.digest).await.unwrap()), digests(&about));
}

#[tokio::test]
async fn overwritten_entry_is_written_again() {
    let double = Double::start().await;
    double.behaviour(|behaviour| behaviour.referrers = false);
    let repository = repository(&client(), &double, "a");
    let (memory, image, about) = subject(&repository, &TYPES).await;
    let tag = image.digest.to_string().replace(':', "-");
    push(&repository, &memory, &about[0]).await.unwrap();
    let before = double.tag("a", &tag).unwrap();
    let before = double.manifest("a", &before).unwrap();

    // Another process, which has read the list before this client's entry was in it, overwrites it.
    let line = format!("PUT /v2/a/manifests/{tag}");
    let theirs = testing::referrer(&memory, &image, "application/vnd.theirs");
    let document = Index::parse(before).unwrap().edit().push(&theirs).finish().unwrap();
    let overwrite: Arc<Mutex<Option<Bytes>>> = Arc::new(Mutex::new(Some(document.bytes().clone())));
    let double = Arc::new(double);
    let weak = Arc::downgrade(&double);
    let mut written = false;
    double.rule(move |seen| {
        if seen.line() == line {
            written = true;
        } else if written
            && seen.line() == line.replace("PUT", "GET")
            && let Some(document) = overwrite.lock().unwrap().take()
        {
            weak.upgrade().unwrap().put_manifest(
                "a",
                line.rsplit('/').next().unwrap(),
                "application/vnd.oci.image.index.v1+json",
                document,
            );
        }
        Action::Pass
    });
    push(&repository, &memory, &about[1]).await.unwrap();
    let found = digests(&repository.referrers(&image.digest).await.unwrap());
    assert_eq!(found, digests(&[about[0].clone(), about[1].clone(), theirs]));
}

/// A client that had read the list before this one wrote it writes its own later.
#[tokio::test]
async fn list_is_read_again_after_a_delay() {
    let double = Double::start().await;
    double.behaviour(|behaviour| behaviour.referrers = false);
    let options = options();
    let clock = options.clock.clone();
    let repository = repository(&Client::new(options), &double, "a");
    let (memory, _, about) = subject(&repository, &TYPES[..1]).await;
    let before = clock.now();
    push(&repository, &memory, &about[0]).await.unwrap();
    assert!(clock.now() >= before + Duration::from_millis(100));
}

/// Returns the manifest of a signature in the format of cosign, and its layer.
fn signature(payload: &'static str) -> (Bytes, Bytes) {
    let blob = |media_type: &str, bytes: &[u8]| {
        let (digest, size) = (Digest::sha256_of(bytes).to_string(), bytes.len());
        serde_json::json!({ "mediaType": media_type, "digest": digest, "size": size })
    };
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [blob("application/vnd.dev.cosign.simplesigning.v1+json", payload.as_bytes())],
    });
    (manifest.to_string().into(), payload.into())
}

/// Another client that has read the tag before this one moved it moves it too: before this client reads it again, and
/// right before this client moves it.
#[tokio::test]
async fn overwritten_signatures_are_merged_again() {
    for overwritten_after in [1, 2] {
        let double = Arc::new(Double::start().await);
        let repository = repository(&client(), &double, "a");
        let (memory, image, _) = subject(&repository, &[]).await;
        let tag = format!("{}.sig", image.digest.to_string().replace(':', "-"));
        let ((ours, our_layer), (theirs, their_layer)) = (signature("ours"), signature("theirs"));
        for blob in [&ours, &our_layer, &Bytes::from("{}")] {
            memory.insert(blob.clone());
        }
        for blob in [&their_layer, &Bytes::from("{}")] {
            double.put_blob("a", blob.clone());
        }
        let (weak, line) = (Arc::downgrade(&double), format!("GET /v2/a/manifests/{tag}"));
        let mut reads = 0;
        let their_tag = tag.clone();
        double.rule(move |seen| {
            reads += usize::from(seen.line() == line);
            if reads == overwritten_after + 1 {
                reads += 1;
                let media_type = "application/vnd.oci.image.manifest.v1+json";
                weak.upgrade().unwrap().put_manifest("a", &their_tag, media_type, theirs.clone());
            }
            Action::Pass
        });
        let root = Root::at(memory.clone(), Descriptor::of("application/vnd.oci.image.manifest.v1+json".into(), &ours));
        let naming = Naming::of_tag(tag.parse().unwrap());
        let options = CopyOptions::default().names(vec![naming]);
        let to: Arc<dyn Sink> = Arc::new(repository);
        copy(&root.await.unwrap(), &to, &options).await.unwrap();
        let there = double.manifest("a", &double.tag("a", &tag).unwrap()).unwrap();
        let layers = Manifest::parse(there).unwrap().layers().iter().map(|layer| layer.digest).collect::<Vec<_>>();
        for layer in [&our_layer, &their_layer] {
            assert!(layers.contains(&Digest::sha256_of(layer)), "{overwritten_after}: {layers:?}");
        }
    }
}

#[tokio::test]
async fn list_that_never_stays_is_an_error() {
    for (body, problem) in [(None, "does not return it"), (Some(Index::of(&[])), "another client keeps overwriting it")]
    {
        let double = Double::start().await;
        double.behaviour(|behaviour| behaviour.referrers = false);
        let repository = repository(&client(), &double, "a");
        let (memory, _, about) = subject(&repository, &TYPES[..1]).await;
        double.rule(move |seen| match (seen.method == Method::GET && seen.path.contains("/sha256-"), &body) {
            (true, None) => status(404),
            (true, Some(index)) => Action::Reply(200, vec![], index.bytes().clone()),
            (false, _) => Action::Pass,
        });
        let error = failed(push(&repository, &memory, &about[0]).await);
        assert!(error.contains(problem), "{error}");
    }
}

#[tokio::test]
async fn overloaded_registry_is_not_an_empty_list() {
    let double = Double::start().await;
    let repository = repository(&client(), &double, "a");
    let (memory, image, about) = subject(&repository, &TYPES[..1]).await;
    push(&repository, &memory, &about[0]).await.unwrap();
    let busy = Arc::new(Mutex::new(true));
    let is_busy = busy.clone();
    double.rule(move |seen| match seen.path.contains("/referrers/") && *is_busy.lock().unwrap() {
        true => status(429),
        false => Action::Pass,
    });
    let error = failed(repository.referrers(&image.digest).await);
    assert!(error.contains("429"), "{error}");
    *busy.lock().unwrap() = false;
    assert_eq!(digests(&repository.referrers(&image.digest).await.unwrap()), digests(&about));
}

#[tokio::test]
async fn forbidden_referrers_of_one_repository_do_not_affect_others() {
    let double = Double::start().await;
    double.rule(|seen| match seen.path.starts_with("/v2/secret/referrers/") {
        true => status(403),
        false => Action::Pass,
    });
    let client = client();
    let [secret, open] = ["secret", "open"].map(|path| repository(&client, &double, path));
    let (memory, image, about) = subject(&repository(&crate::support::client(), &double, "open"), &TYPES[..1]).await;
    push(&repository(&crate::support::client(), &double, "open"), &memory, &about[0]).await.unwrap();
    let refused = secret.referrers(&image.digest).await;
    assert!(matches!(refused, Err(ocikit_registry::Error::Denied { .. })), "no list is not an empty list: {refused:?}");
    assert_eq!(digests(&open.referrers(&image.digest).await.unwrap()), digests(&about));
}

#[tokio::test]
async fn unlisted_referrer_is_listed_by_the_next_put() {
    let double = Double::start().await;
    double.behaviour(|behaviour| behaviour.referrers = false);
    let (memory, image, about) = subject(&repository(&client(), &double, "a"), &TYPES[..1]).await;
    double.script("PUT /v2/a/manifests/sha256-", vec![status(403)]);
    failed(push(&repository(&client(), &double, "a"), &memory, &about[0]).await);
    assert!(double.manifest("a", &about[0].digest).is_some());
    let repository = repository(&client(), &double, "a");
    push(&repository, &memory, &about[0]).await.unwrap();
    assert_eq!(digests(&repository.referrers(&image.digest).await.unwrap()), digests(&about));
}

#[tokio::test]
async fn too_many_referrers_are_an_error() {
    let double = Double::start().await;
    let mut count = 0;
    double.rule(move |seen| {
        let page = count;
        count += 1;
        let entry = |number: usize| {
            let digest = Digest::sha256_of(format!("{page} {number}").as_bytes());
            serde_json::json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest.to_string(), "size": 1 })
        };
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": (0..10_000).map(entry).collect::<Vec<_>>() });
        // The list must end, so that the test ends.
        let link = format!("<{}?page={count}>; rel=\"next\"", seen.path);
        let headers = if count < 5 { vec![("link", link)] } else { Vec::new() };
        Action::Reply(200, headers, index.to_string().into())
    });
    let error = failed(repository(&client(), &double, "a").referrers(&Digest::sha256_of(b"x")).await);
    assert!(error.contains("too long"), "{error}");
    assert_eq!(double.log().len(), 3);
}

#[tokio::test]
async fn oras_go_1396_an_index_is_not_the_list_of_its_own_referrers() {
    let double = Double::start().await;
    double.behaviour(|behaviour| behaviour.referrers = false);
    let index = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":2}]}"#;
    let subject = Digest::sha256_of(index.as_bytes());
    // GitLab resolves the fallback tag to the image with that digest (oras-project/oras-go#1396).
    double.put_manifest("a", &subject.to_string().replace(':', "-"), "application/vnd.oci.image.index.v1+json", index);
    assert_eq!(repository(&client(), &double, "a").referrers(&subject).await.unwrap(), []);
}
