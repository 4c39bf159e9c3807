//! The requests of a push, and its resilience.

use std::sync::Arc;

use ocikit_image::{Body, ByteRange, CopyOptions, Memory, Naming, Put, Root, Sink, Source, copy, testing};
use ocikit_registry::{
    Capabilities, Client, FileJournal, Journal, JournalEntry, JournalKey, JournalOptions, RemoteRepository,
    RetryOptions,
};
use ocikit_spec::{Descriptor, Digest, MediaType, Platform};

use crate::double::{Action, Double, Seen, status};
use crate::support::{client, failed, repository};

/// An image with layers of these lengths.
async fn image(layers: &[usize]) -> Root {
    let memory = Arc::new(Memory::new());
    let image = testing::image(&memory, 1, &Platform::new("linux", "amd64"), layers);
    Root::at(memory, image).await.unwrap()
}

fn named(tags: &[&str]) -> CopyOptions {
    let naming = |tag: &&str| Naming::of_tag(tag.parse().unwrap());
    CopyOptions::default().names(tags.iter().map(naming).collect())
}

async fn push(root: &Root, to: &RemoteRepository, tags: &[&str]) -> Result<Vec<Put>, ocikit_registry::Error> {
    let to: Arc<dyn Sink> = Arc::new(to.clone());
    let copied = copy(root, &to, &named(tags)).await?;
    Ok(copied.blobs.into_iter().map(|(_, put)| put).collect())
}

/// A blob in memory.
fn blob(seed: u64, length: usize) -> (Memory, Descriptor) {
    let memory = Memory::new();
    let bytes = testing::random(seed, length);
    memory.insert(bytes.clone());
    (memory, Descriptor::of(MediaType::OCI_LAYER, &bytes))
}

async fn put(double: &Double, path: &str, seed: u64, length: usize) -> Result<Put, ocikit_registry::Error> {
    let (memory, descriptor) = blob(seed, length);
    let put = repository(&client(), double, path).put(&descriptor, &memory).await?;
    assert_eq!(double.blob(path, &descriptor.digest).unwrap(), testing::random(seed, length));
    Ok(put)
}

#[tokio::test]
async fn new_image_takes_three_requests_per_blob_and_manifest() {
    let double = Double::start().await;
    let root = image(&[10, 70_000]).await;
    push(&root, &repository(&client(), &double, "a/b"), &["v1"]).await.unwrap();
    let mut log = double.log();
    assert_eq!(log.remove(0), "HEAD /v2/a/b/manifests/v1");
    assert_eq!(log.pop().unwrap(), "PUT /v2/a/b/manifests/v1");
    // It is tagged only after it was put and confirmed.
    assert_eq!(log.pop().unwrap(), format!("HEAD /v2/a/b/manifests/{}", root.digest()));
    assert_eq!(log.pop().unwrap(), format!("PUT /v2/a/b/manifests/{}", root.digest()));
    let blobs = 3; // with the config
    for (line, count) in [
        ("HEAD /v2/a/b/blobs/sha256", blobs),
        ("POST /v2/a/b/blobs/uploads/", blobs),
        ("PUT /v2/a/b/blobs/uploads/", blobs),
    ] {
        assert_eq!(log.iter().filter(|found| found.starts_with(line)).count(), count, "{line}: {log:#?}");
    }
    assert_eq!(log.len(), 3 * blobs);
    assert_eq!(double.tag("a/b", "v1"), Some(root.digest()));
}

#[tokio::test]
async fn existing_image_takes_one_request_per_tag() {
    let double = Double::start().await;
    let root = image(&[10]).await;
    push(&root, &repository(&client(), &double, "a"), &["v1", "v2"]).await.unwrap();
    double.log();
    push(&root, &repository(&client(), &double, "a"), &["v1", "v2"]).await.unwrap();
    assert_eq!(double.log(), ["HEAD /v2/a/manifests/v1", "HEAD /v2/a/manifests/v2"]);
    // Another tag of the same image: existing content is checked and not uploaded.
    let puts = push(&root, &repository(&client(), &double, "a"), &["v3"]).await.unwrap();
    assert!(puts.iter().all(|put| *put == Put::Present), "{puts:?}");
    assert_eq!(
        double.log().iter().filter(|line| !line.starts_with("HEAD")).collect::<Vec<_>>(),
        ["PUT /v2/a/manifests/v3"]
    );
}

#[tokio::test]
async fn index_is_uploaded_once_and_once_per_tag() {
    let double = Double::start().await;
    let memory = Arc::new(Memory::new());
    let one = testing::image(&memory, 1, &Platform::new("linux", "amd64"), &[10]);
    let two = testing::image(&memory, 9, &Platform::new("linux", "arm64"), &[10]);
    let index = testing::index(&memory, &[one.clone(), two.clone()]);
    let root = Root::at(memory, index).await.unwrap();
    push(&root, &repository(&client(), &double, "a"), &["v1", "v2"]).await.unwrap();
    let puts: Vec<_> = double.log().into_iter().filter(|line| line.starts_with("PUT /v2/a/manifests")).collect();
    assert_eq!(puts.len(), 5, "{puts:?}");
    assert_eq!(puts[3..], ["PUT /v2/a/manifests/v1", "PUT /v2/a/manifests/v2"]);

    push(&root, &repository(&client(), &double, "untagged"), &[]).await.unwrap();
    assert!(double.manifest("untagged", &root.digest()).is_some());
}

#[tokio::test]
async fn unreadable_manifest_gets_no_tag() {
    let root = image(&[10]).await;
    let other = Digest::sha256_of(b"other");
    let by_digest = format!("/v2/a/manifests/{}", root.digest());
    let media_type = ("content-type", root.descriptor().media_type.to_string());
    let named = |digest: Digest| ("docker-content-digest", digest.to_string());
    let length = ("content-length", "7".to_owned());
    for (what, header, problem) in [
        ("another digest", vec![named(other)], "its bytes have digest"),
        ("another length", vec![named(root.digest()), media_type, length], "it has 7 bytes"),
    ] {
        let double = Double::start().await;
        let path = by_digest.clone();
        double.rule(move |seen| match seen.method.as_str() == "HEAD" && seen.path == path {
            true => Action::Reply(200, header.clone(), bytes::Bytes::new()),
            false => Action::Pass,
        });
        let error = failed(push(&root, &repository(&client(), &double, "a"), &["v1"]).await);
        assert!(error.contains(problem), "{what}: {error}");
        assert_eq!(double.tag("a", "v1"), None, "{what}");
    }
    let double = Double::start().await;
    let path = by_digest.clone();
    double.rule(move |seen| if seen.line() == format!("HEAD {path}") { status(404) } else { Action::Pass });
    let error = failed(push(&root, &repository(&client(), &double, "a"), &["v1"]).await);
    assert!(error.contains("it accepted sha256:") && error.contains("and does not return it"), "{error}");
    assert_eq!(double.tag("a", "v1"), None);
}

#[tokio::test]
async fn confirmation_waits_for_a_slow_registry() {
    let double = Double::start().await;
    let root = image(&[10]).await;
    let (path, mut times) = (format!("HEAD /v2/a/manifests/{}", root.digest()), 0);
    double.rule(move |seen| {
        times += u32::from(seen.line() == path);
        if seen.line() == path && times <= 3 { status(404) } else { Action::Pass }
    });
    push(&root, &repository(&client(), &double, "a"), &["v1"]).await.unwrap();
    assert_eq!(double.tag("a", "v1"), Some(root.digest()));
    // A registry that does not support `HEAD` of manifests gets a `GET`.
    let double = Double::start().await;
    let path = format!("HEAD /v2/a/manifests/{}", root.digest());
    double.rule(move |seen| if seen.line() == path { status(405) } else { Action::Pass });
    push(&root, &repository(&client(), &double, "a"), &["v1"]).await.unwrap();
    assert_eq!(double.tag("a", "v1"), Some(root.digest()));
}

#[tokio::test]
async fn concurrent_puts_upload_a_blob_once() {
    let double = Double::start().await;
    let (memory, descriptor) = blob(1, 100_000);
    let repository = repository(&client(), &double, "a");
    let puts = futures::future::join_all((0..100).map(|_| repository.put(&descriptor, &memory))).await;
    let copied = puts.into_iter().filter(|put| *put.as_ref().unwrap() == Put::Copied).count();
    assert_eq!((copied, double.log().len()), (1, 3));
}

#[tokio::test]
async fn blob_is_mounted_from_an_earlier_target() {
    let double = Double::start().await;
    let client = client();
    let (memory, descriptor) = blob(1, 1000);
    let [one, two, three] = ["one", "two", "three"].map(|path| repository(&client, &double, path));
    assert_eq!(one.put(&descriptor, &memory).await.unwrap(), Put::Copied);
    double.log();
    assert_eq!(two.put(&descriptor, &memory).await.unwrap(), Put::Mounted);
    assert_eq!(double.log(), ["POST /v2/two/blobs/uploads/"]);
    // mounts from the source repository, also with a new client
    let other = crate::support::client();
    assert_eq!(repository(&other, &double, "three").put(&descriptor, &one).await.unwrap(), Put::Mounted);
    assert_eq!(three.put(&descriptor, &three).await.unwrap(), Put::Present);
    // if mounts are refused, the session of the answer is used
    double.behaviour(|behaviour| behaviour.mount = false);
    double.log();
    assert_eq!(repository(&client, &double, "four").put(&descriptor, &memory).await.unwrap(), Put::Copied);
    assert_eq!(double.log(), ["POST /v2/four/blobs/uploads/", "PUT /v2/four/blobs/uploads/session-2"]);
}

#[tokio::test]
async fn empty_blob_is_uploaded() {
    let double = Double::start().await;
    assert_eq!(put(&double, "a", 1, 0).await.unwrap(), Put::Copied);
}

#[tokio::test]
async fn interrupted_upload_is_resumed() {
    let double = Double::start().await;
    double.script("PUT /v2/a/blobs", vec![Action::CutRequest(300_000)]);
    double.script("PATCH /v2/a/blobs", vec![Action::CutRequest(400_000)]);
    put(&double, "a", 1, 2_000_000).await.unwrap();
    let session = "/v2/a/blobs/uploads/session-1";
    let expected = ["PUT", "GET", "PATCH", "GET", "PATCH", "PUT"].map(|method| format!("{method} {session}"));
    let seen = double.seen();
    assert_eq!(seen[2..].iter().map(|seen| seen.line()).collect::<Vec<_>>(), expected);
    assert_eq!(seen[4].header("content-range"), "300000-1999999");
    assert_eq!(seen[6].header("content-range"), "700000-1999999");
    assert_eq!(seen[7].parameter("digest").unwrap(), Digest::sha256_of(&testing::random(1, 2_000_000)).to_string());
}

#[tokio::test]
async fn upload_survives_every_transient_status() {
    for code in [408, 425, 429, 500, 502, 503, 504] {
        let double = Double::start().await;
        for line in ["HEAD", "POST", "PUT"] {
            double.script(line, vec![status(code)]);
        }
        put(&double, "a", 1, 100_000).await.unwrap();
        assert!(double.log().len() <= 7, "{code}");
    }
}

#[tokio::test]
async fn completed_upload_with_a_lost_response_is_detected() {
    let double = Double::start().await;
    double.script("PUT /v2/a/blobs", vec![Action::Swallow]);
    put(&double, "a", 1, 100_000).await.unwrap();
    let methods: Vec<_> = double.seen().iter().map(|seen| seen.method.to_string()).collect();
    assert_eq!(methods, ["HEAD", "POST", "PUT", "GET", "HEAD"]);
}

#[tokio::test]
async fn permanently_failing_registry_is_an_error() {
    let double = Double::start().await;
    double.rule(|seen| if seen.method == "PUT" { status(503) } else { Action::Pass });
    let (memory, descriptor) = blob(1, 1000);
    let error = failed(repository(&client(), &double, "a").put(&descriptor, &memory).await);
    assert_eq!(error, format!("cannot get an answer from {}/a: status 503", double.host()));
}

#[tokio::test]
async fn absolute_and_relative_upload_locations_are_followed() {
    for location in ["", "relative", "absolute", "query"] {
        let double = Double::start().await;
        let host = double.host();
        double.script(
            "POST",
            vec![Action::Headers(match location {
                "" => vec![("location", String::new()), ("docker-upload-uuid", "session-1".to_owned())],
                "relative" => vec![("location", "session-1".to_owned())],
                "absolute" => vec![("location", format!("http://{host}/v2/a/blobs/uploads/session-1"))],
                _ => vec![("location", "/v2/a/blobs/uploads/session-1?x=%2F&_state=a%3Db".to_owned())],
            })],
        );
        put(&double, "a", 1, 1000).await.unwrap();
        if location == "query" {
            let seen = double.seen();
            assert_eq!(
                (seen[2].parameter("_state").unwrap(), seen[2].parameter("x").unwrap()),
                ("a=b".into(), "/".into())
            );
        }
    }
    let double = Double::start().await;
    double.script("POST", vec![Action::Headers(vec![("location", String::new())])]);
    failed(put(&double, "a", 1, 1000).await);
}

#[tokio::test]
async fn blob_above_the_request_limit_is_uploaded_in_chunks() {
    for patch_status in [201, 202] {
        let double = Double::start().await;
        double.behaviour(|behaviour| (behaviour.patch_status, behaviour.min_chunk) = (patch_status, Some(3_000_000)));
        double.rule(|seen| {
            let long = seen.header("content-length").parse::<u64>().is_ok_and(|length| length > 4_000_000);
            if seen.method == "PUT" && long { status(413) } else { Action::Pass }
        });
        put(&double, "a", 1, 5_000_000).await.unwrap();
    }
}

#[tokio::test]
async fn upload_session_on_another_host_gets_no_credentials() {
    let (double, elsewhere) = (Double::start().await, Double::start().await);
    let there = elsewhere.host();
    double.rule(|seen| {
        if seen.header("authorization").is_empty() {
            Action::Reply(401, vec![("www-authenticate", "Basic realm=\"x\"".to_owned())], bytes::Bytes::new())
        } else {
            Action::Pass
        }
    });
    double.script("POST", vec![Action::Headers(vec![("location", format!("http://{there}/v2/x/blobs/uploads/s"))])]);
    elsewhere.rule(|seen| if seen.method == "PUT" { status(201) } else { Action::Pass });
    let options = crate::support::options().keychain(Arc::new(ocikit_registry::Fixed {
        registry: None,
        credential: ocikit_registry::Credential::password("u", "p"),
    }));
    let (memory, descriptor) = blob(1, 1000);
    repository(&Client::new(options), &double, "a").put(&descriptor, &memory).await.unwrap();
    let seen = elsewhere.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("authorization"), "");
}

#[tokio::test]
async fn changed_blob_is_never_completed() {
    let double = Double::start().await;
    let (memory, mut descriptor) = blob(1, 1_000_000);
    let wrong = Memory::new();
    wrong.insert(testing::random(2, 10));
    assert!(wrong.has(&descriptor).await.is_ok());
    descriptor.digest = Digest::sha256_of(b"something else");
    assert!(failed(repository(&client(), &double, "a").put(&descriptor, &memory).await).contains("memory has no"));
}

/// A client with a journal, which gives up at once, like a process that is killed.
fn dying(journal: &Arc<FileJournal>, attempts: u32) -> Client {
    let retry = RetryOptions::default().attempts(attempts);
    Client::new(crate::support::options().journal(Some(journal.clone())).retry(retry))
}

#[tokio::test]
async fn next_process_resumes_an_upload() {
    let directory = tempfile::TempDir::new().unwrap();
    let options = JournalOptions::default().min_blob_bytes(0);
    let journal = Arc::new(FileJournal::with_options(directory.path(), options));
    let double = Double::start().await;
    let (memory, descriptor) = blob(1, 2_000_000);
    for cut in [700_000, 800_000] {
        double.script(if cut == 700_000 { "PUT" } else { "PATCH" }, vec![Action::CutRequest(cut)]);
        failed(repository(&dying(&journal, 1), &double, "a").put(&descriptor, &memory).await);
    }
    double.log();
    repository(&dying(&journal, 6), &double, "a").put(&descriptor, &memory).await.unwrap();
    assert_eq!(double.blob("a", &descriptor.digest).unwrap(), testing::random(1, 2_000_000));
    let seen = double.seen();
    let ranges: Vec<_> =
        seen.iter().map(|seen| seen.header("content-range")).filter(|range| !range.is_empty()).collect();
    assert_eq!(ranges, ["1500000-1999999"]);
    assert_eq!(
        std::fs::read_dir(directory.path()).unwrap().count(),
        0,
        "the journal has no entry of a completed upload"
    );
}

#[tokio::test]
async fn outdated_journal_entry_is_harmless() {
    let directory = tempfile::TempDir::new().unwrap();
    let options = JournalOptions::default().min_blob_bytes(0);
    let journal = Arc::new(FileJournal::with_options(directory.path(), options));
    let elsewhere = Double::start().await;
    for url in ["/v2/a/blobs/uploads/gone", "nonsense", "http://{elsewhere}/v2/x", "http://169.254.169.254/x"] {
        let double = Double::start().await;
        let (memory, descriptor) = blob(1, 100_000);
        let repository = repository(&dying(&journal, 3), &double, "a");
        let key =
            JournalKey { repository: repository.name().clone(), digest: descriptor.digest, size: descriptor.size };
        let url = match url.starts_with('/') {
            true => format!("http://{}{url}", double.host()),
            false => url.replace("{elsewhere}", &elsewhere.host()),
        };
        journal.record(&key, &JournalEntry { url, offset: 10 }).await;
        repository.put(&descriptor, &memory).await.unwrap();
        assert_eq!(double.blob("a", &descriptor.digest).unwrap().len(), 100_000);
        assert_eq!(journal.take(&key).await, None);
    }
}

#[tokio::test]
async fn unfinished_session_is_cancelled() {
    let double = Double::start().await;
    let (_, descriptor) = blob(1, 300_000);
    let broken = Broken(testing::random(1, 299_999));
    failed(repository(&client(), &double, "a").put(&descriptor, &broken).await);
    assert_eq!(double.log().last().unwrap(), "DELETE /v2/a/blobs/uploads/session-1");
}

/// Puts a blob of 1 MB to a registry that never answers the upload, and drops the future when the registry has received
/// the request.
async fn drop_while_sending(double: &Double, repository: &RemoteRepository) {
    let (memory, descriptor) = blob(1, 1_000_000);
    let sending = Arc::new(tokio::sync::Notify::new());
    let mut first = Some(sending.clone());
    double.rule(move |seen| match first.take_if(|_| seen.method == "PUT") {
        Some(sending) => {
            sending.notify_one();
            Action::Hang
        }
        None => Action::Pass,
    });
    tokio::select! {
        put = repository.put(&descriptor, &memory) => panic!("{put:?}"),
        () = sending.notified() => {}
    }
}

/// Waits until the registry has received this request. The time limit of the test ends it otherwise.
async fn wait_for(double: &Double, line: &str) {
    while !double.log().iter().any(|found| found == line) {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn session_of_a_dropped_upload_is_cancelled() {
    let double = Double::start().await;
    drop_while_sending(&double, &repository(&client(), &double, "a")).await;
    wait_for(&double, "DELETE /v2/a/blobs/uploads/session-1").await;
}

#[tokio::test]
async fn session_of_a_failed_upload_is_cancelled() {
    let double = Double::start().await;
    let (memory, descriptor) = blob(1, 1_000_000);
    double.script("PUT /v2/a/blobs/uploads/", vec![status(400)]);
    failed(repository(&client(), &double, "a").put(&descriptor, &memory).await);
    assert_eq!(double.log().last().unwrap(), "DELETE /v2/a/blobs/uploads/session-1");
}

#[tokio::test]
async fn session_kept_by_the_journal_stays_open() {
    let directory = tempfile::TempDir::new().unwrap();
    let options = JournalOptions::default().min_blob_bytes(1_000_000);
    let journal = Arc::new(FileJournal::with_options(directory.path(), options));
    let double = Double::start().await;
    drop_while_sending(&double, &repository(&dying(&journal, 6), &double, "a")).await;
    double.log();
    let (memory, descriptor) = blob(1, 1_000_000);
    repository(&dying(&journal, 6), &double, "a").put(&descriptor, &memory).await.unwrap();
    let seen = double.seen();
    assert!(seen.iter().all(|seen| seen.method != "DELETE"), "{seen:#?}");
    assert!(seen.iter().any(|seen| seen.method == "GET" && seen.path.ends_with("session-1")), "{seen:#?}");
}

/// A source whose body is shorter than announced.
#[derive(Debug)]
struct Broken(Vec<u8>);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken")
    }
}

#[async_trait::async_trait]
impl Source for Broken {
    async fn resolve(&self, name: &ocikit_image::Name) -> ocikit_registry::Result<Descriptor> {
        Err(ocikit_registry::Error::not_found(name, self))
    }

    async fn open_unverified(&self, descriptor: &Descriptor, _: ByteRange) -> ocikit_registry::Result<Body> {
        let chunks: Vec<_> = self.0.chunks(100_000).map(|chunk| Ok(bytes::Bytes::copy_from_slice(chunk))).collect();
        Ok(Body::new(descriptor.size, futures::stream::iter(chunks)))
    }

    async fn has(&self, _: &Descriptor) -> ocikit_registry::Result<bool> {
        Ok(true)
    }

    async fn referrers(&self, _: &Digest) -> ocikit_registry::Result<Vec<Descriptor>> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn announced_blobs_are_checked_once() {
    let double = Double::start().await;
    let root = image(&[10, 11, 12, 13, 14, 15]).await;
    let to: Arc<dyn Sink> = Arc::new(repository(&client(), &double, "a"));
    copy(&root, &to, &named(&["v1"]).jobs(1)).await.unwrap();
    let log = double.log();
    assert_eq!(log.len(), 1 + 7 * 3 + 3);
    assert_eq!(log.iter().filter(|line| line.starts_with("HEAD /v2/a/blobs")).count(), 7, "{log:#?}");
}

#[tokio::test]
async fn mount_replaces_head_if_probed() {
    let double = Double::start().await;
    let known = Capabilities::default().mount_from_itself(Some(true));
    let capabilities = std::collections::HashMap::from([(double.host().parse().unwrap(), known)]);
    let client = || Client::new(crate::support::options().capabilities(capabilities.clone()));
    let (memory, descriptor) = blob(1, 1000);
    for expected in [Put::Copied, Put::Present] {
        assert_eq!(repository(&client(), &double, "a").put(&descriptor, &memory).await.unwrap(), expected);
    }
    let methods: Vec<_> = double.seen().iter().map(|seen| seen.method.to_string()).collect();
    assert_eq!(methods, ["POST", "PUT", "POST"]);
}

#[tokio::test]
async fn concurrent_copies_keep_their_own_roots() {
    let double = Double::start().await;
    let to: Arc<dyn Sink> = Arc::new(repository(&client(), &double, "a"));
    let (one, two) = (image(&[10]).await, image(&[20]).await);
    let descriptors = [&one, &two].map(|root| root.descriptor().clone());
    for (root, descriptor) in [&one, &two].into_iter().zip(&descriptors) {
        to.expect(std::slice::from_ref(descriptor)).await.unwrap();
        to.put(descriptor, &**root.source()).await.unwrap();
    }
    for (tag, descriptor) in ["one", "two"].into_iter().zip(&descriptors) {
        let naming = Naming::of_tag(tag.parse().unwrap());
        to.publish(descriptor, &naming).await.unwrap();
        assert_eq!(double.tag("a", tag), Some(descriptor.digest));
    }
}

#[tokio::test]
async fn probe_finds_capabilities_and_cleans_up() {
    for able in [true, false] {
        let double = Double::start().await;
        double.behaviour(|behaviour| {
            (behaviour.referrers, behaviour.mount, behaviour.ranges) = (able, able, able);
            (behaviour.patch_status, behaviour.min_chunk) = if able { (202, None) } else { (201, Some(5)) };
        });
        let scratch = format!("{}/scratch", double.host()).parse().unwrap();
        let found = client().probe(&scratch).await.unwrap();
        let expected = Capabilities::default()
            .referrers_api(Some(able))
            .subject_header(Some(able))
            .mount(Some(able))
            .anonymous_mount(Some(false))
            .mount_from_itself(Some(able))
            .chunk_minimum((!able).then_some(5))
            .patch_status(Some(if able { 202 } else { 201 }))
            .upload_progress(Some(true))
            .put_location(Some(true))
            .ranges(Some(able))
            .sparse_index(Some(true))
            .delete_tag(Some(true))
            .delete_manifest(Some(true))
            .delete_blob(Some(true));
        assert_eq!(found, expected);
        assert!(double.is_empty());
    }
    let double = Double::start().await;
    double.rule(|_| status(403));
    let scratch = format!("{}/scratch", double.host()).parse().unwrap();
    failed(client().probe(&scratch).await);
}

#[tokio::test]
async fn upload_redirects_are_followed() {
    for length in [1000, 8_000_000] {
        let (double, elsewhere) = (Double::start().await, Double::start().await);
        let there = elsewhere.host();
        let to = move |seen: &Seen| {
            let location = format!("http://{there}{}?{}", seen.path, seen.query);
            Action::Reply(307, vec![("location", location)], bytes::Bytes::new())
        };
        // The whole upload is redirected, from its start.
        let redirect = to.clone();
        double.rule(move |seen| if seen.method == "POST" { redirect(seen) } else { Action::Pass });
        let (memory, descriptor) = blob(1, length);
        repository(&client(), &double, "a").put(&descriptor, &memory).await.unwrap();
        assert_eq!(elsewhere.blob("a", &descriptor.digest).unwrap().len(), length);

        // Only the body is redirected; the target is not asked for a session.
        let (double, elsewhere) = (Double::start().await, Double::start().await);
        let there = elsewhere.host();
        double.rule(move |seen| match seen.method == "PUT" {
            true => Action::Reply(307, vec![("location", format!("http://{there}/bucket?sig=x"))], bytes::Bytes::new()),
            false => Action::Pass,
        });
        // The answer of the bucket does not name the blob, so the registry is asked whether it exists.
        let mut asked = 0;
        double.rule(move |seen| {
            asked += u32::from(seen.method == "HEAD");
            match seen.method == "HEAD" && asked > 1 {
                true => Action::Reply(200, vec![("content-length", length.to_string())], bytes::Bytes::new()),
                false => Action::Pass,
            }
        });
        elsewhere.rule(|_| Action::Taken);
        repository(&client(), &double, "a").put(&descriptor, &memory).await.unwrap();
        let seen = elsewhere.seen();
        assert_eq!(seen.last().unwrap().header("content-length"), length.to_string());
        assert_eq!(seen.last().unwrap().query, "sig=x");
    }
}

#[tokio::test]
async fn location_of_a_complete_blob_is_ignored() {
    let double = Double::start().await;
    double.script("PUT", vec![Action::Headers(vec![("location", "ftp://inside/blob".to_owned())])]);
    let (memory, descriptor) = blob(1, 1000);
    assert_eq!(repository(&client(), &double, "a").put(&descriptor, &memory).await.unwrap(), Put::Copied);
    // An invalid location of a session is an error.
    let double = Double::start().await;
    double.script("POST", vec![Action::Headers(vec![("location", "ftp://inside/session".to_owned())])]);
    assert!(failed(repository(&client(), &double, "a").put(&descriptor, &memory).await).contains("ftp"));
}

#[tokio::test]
async fn empty_body_is_not_completed_as_another_digest() {
    let double = Double::start().await;
    double.script("PUT", vec![Action::Taken]);
    let memory = Memory::new();
    memory.insert(&b"something"[..]);
    let lie = Descriptor { size: 0, ..Descriptor::of(MediaType::OCI_LAYER, b"something") };
    assert!(failed(repository(&client(), &double, "a").put(&lie, &memory).await).contains("damaged"));
    assert!(!double.log().iter().any(|line| line.starts_with("PUT")));
}

#[tokio::test]
async fn session_on_another_host_is_resumed_repeatedly() {
    let directory = tempfile::TempDir::new().unwrap();
    let options = JournalOptions::default().min_blob_bytes(0);
    let journal = Arc::new(FileJournal::with_options(directory.path(), options));
    let (double, elsewhere) = (Double::start().await, Double::start().await);
    let there = elsewhere.host();
    double.rule(move |seen| match seen.method == "POST" {
        true => Action::Reply(
            307,
            vec![("location", format!("http://{there}{}?{}", seen.path, seen.query))],
            bytes::Bytes::new(),
        ),
        false => Action::Pass,
    });
    // A session URL from the journal counts as public, unless it is the registry's own.
    let client = |attempts| {
        let retry = RetryOptions::default().attempts(attempts);
        let redirects = ocikit_registry::Redirects::Trusted;
        Client::new(crate::support::options().journal(Some(journal.clone())).retry(retry).redirects(redirects))
    };
    let (memory, descriptor) = blob(1, 2_000_000);
    for (method, cut) in [("PUT", 700_000), ("PATCH", 600_000), ("PATCH", 200_000)] {
        elsewhere.script(method, vec![Action::CutRequest(cut)]);
        failed(repository(&client(1), &double, "a").put(&descriptor, &memory).await);
    }
    elsewhere.log();
    repository(&client(6), &double, "a").put(&descriptor, &memory).await.unwrap();
    let seen = elsewhere.seen();
    let ranges: Vec<_> =
        seen.iter().map(|seen| seen.header("content-range")).filter(|range| !range.is_empty()).collect();
    assert_eq!(ranges, ["1500000-1999999"]);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
