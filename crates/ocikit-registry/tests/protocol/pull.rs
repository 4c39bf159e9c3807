//! The requests of a pull, and its resilience.

use std::sync::Arc;

use futures::StreamExt;
use ocikit_image::{ByteRange, Memory, Name, Root, Source, SourceExt, testing};
use ocikit_registry::{ListOptions, NoAnswer};
use ocikit_spec::{Descriptor, MediaType};

use crate::double::{Action, Double, status};
use crate::support::{client, failed, repository, with_causes};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn blob(double: &Double, length: usize) -> Descriptor {
    let bytes = testing::random(1, length);
    double.put_blob("a", bytes.clone());
    Descriptor::of(MediaType::OCI_LAYER, &bytes)
}

fn manifest(double: &Double, tag: &str) -> String {
    let config = double.put_blob("a", "{}");
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"{}","digest":"{config}","size":2}},"layers":[]}}"#,
        MediaType::OCI_CONFIG
    );
    double.put_manifest("a", tag, MANIFEST, text.clone());
    text
}

#[tokio::test]
async fn olareg_returns_a_manifest_of_unknown_type_as_a_blob() {
    let double = Double::start().await;
    let memory = Memory::new();
    let root = testing::image(&memory, 1, &"linux/amd64".parse().unwrap(), &[10]);
    let bytes = memory.read(&root).await.unwrap();
    double.put_blob("a", bytes.clone());
    let repository = repository(&client(), &double, "a");
    assert!(repository.read(&root).await.unwrap_err().is_not_found());
    let listed = Descriptor { media_type: MediaType::new("application/x"), ..root.clone() };
    assert_eq!(repository.read(&listed).await.unwrap(), bytes);
    assert_eq!(repository.read(&root).await.unwrap(), bytes);
    assert!(repository.has(&root).await.unwrap());
    let absent = Descriptor::of(MediaType::OCI_MANIFEST, b"{}");
    assert!(repository.read(&absent).await.unwrap_err().is_not_found());
    assert!(!repository.has(&absent).await.unwrap());
}

#[tokio::test]
async fn opening_a_root_takes_one_request() {
    let double = Double::start().await;
    manifest(&double, "v1");
    let source = Arc::new(repository(&client(), &double, "a"));
    let root = Root::open(source.clone(), &Name::Tag("v1".parse().unwrap())).await.unwrap();
    assert_eq!(root.source().read(root.descriptor()).await.unwrap().len() as u64, root.descriptor().size);
    let seen = double.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].line(), "GET /v2/a/manifests/v1");
    assert_eq!(source.head(&Name::Digest(root.digest())).await.unwrap().unwrap(), *root.descriptor());
}

#[tokio::test]
async fn media_type_of_a_manifest_is_detected() {
    for header in
        ["", "application/json", "text/plain; charset=utf-8", "application/vnd.oci.image.manifest.v1+json; x=y"]
    {
        let double = Double::start().await;
        manifest(&double, "v1");
        let headers = || vec![("content-type", header.to_owned()), ("docker-content-digest", String::new())];
        double.rule(move |_| Action::Headers(headers()));
        let source = repository(&client(), &double, "a");
        let name = Name::Tag("v1".parse().unwrap());
        let found = source.resolve(&name).await.unwrap();
        assert_eq!(found.media_type, MediaType::OCI_MANIFEST, "{header}");
        assert_eq!(source.head(&name).await.unwrap().unwrap(), found, "{header}");
    }
}

#[tokio::test]
async fn manifest_with_a_wrong_digest_is_refused() {
    let double = Double::start().await;
    manifest(&double, "v1");
    let lie = ocikit_spec::Digest::sha256_of(b"lie");
    double.rule(move |_| Action::Headers(vec![("docker-content-digest", lie.to_string())]));
    let source = repository(&client(), &double, "a");
    assert!(failed(source.resolve(&Name::Tag("v1".parse().unwrap())).await).contains("damaged"));

    let double = Double::start().await;
    let other = manifest(&double, "v1");
    double.rule(move |_| Action::Reply(200, vec![("content-type", MANIFEST.to_owned())], other.clone().into()));
    let source = repository(&client(), &double, "a");
    let wanted = Descriptor::of(MediaType::OCI_MANIFEST, b"wanted");
    assert!(failed(source.read(&wanted).await).contains("damaged"));
}

#[tokio::test]
async fn endless_manifest_is_an_error() {
    let double = Double::start().await;
    double.put_manifest("a", "v1", MANIFEST, vec![b' '; 17 << 20]);
    let source = repository(&client(), &double, "a");
    let text = failed(source.resolve(&Name::Tag("v1".parse().unwrap())).await);
    assert!(text.contains("more than"), "{text}");
}

#[tokio::test]
async fn interrupted_download_is_resumed() {
    for ranges in [true, false] {
        let double = Double::start().await;
        double.behaviour(|behaviour| behaviour.ranges = ranges);
        let descriptor = blob(&double, 1_000_000);
        double.script("GET", vec![Action::CutResponse(300_000), status(503), Action::CutResponse(500_000)]);
        let bytes = repository(&client(), &double, "a").read(&descriptor).await.unwrap();
        assert_eq!(bytes, testing::random(1, 1_000_000));
        let seen = double.seen();
        assert_eq!(seen.len(), 4);
        assert_eq!(seen[0].header("range"), "");
        assert!(seen[2].header("range").ends_with("-999999"), "{}", seen[2].header("range"));
    }
}

#[tokio::test]
async fn ranges_work_without_support_by_the_registry() {
    for ranges in [true, false] {
        let double = Double::start().await;
        double.behaviour(|behaviour| behaviour.ranges = ranges);
        let descriptor = blob(&double, 500_000);
        let source = repository(&client(), &double, "a");
        for (offset, length) in [(0, None), (0, Some(10)), (100_000, Some(300_000)), (499_999, None), (500_000, None)] {
            let range = ByteRange { offset, length };
            let body = source.open_unverified(&descriptor, range).await.unwrap();
            let (offset, length) = range.within(500_000);
            assert_eq!(body.length(), length);
            let expected = &testing::random(1, 500_000)[offset as usize..(offset + length) as usize];
            assert_eq!(body.bytes().await.unwrap(), expected, "{range:?}");
        }
    }
}

#[tokio::test]
async fn short_ranges_are_continued() {
    let (double, all) = (Double::start().await, testing::random(1, 500_000));
    let descriptor = blob(&double, 500_000);
    let bytes = all.clone();
    // A proxy that limits the size of every answer.
    double.rule(move |seen| {
        let range = seen.header("range").strip_prefix("bytes=").and_then(|range| range.split_once('-'));
        let Some((start, end)) = range else { return Action::Pass };
        let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
        let end = end.min(start + 99_999);
        let header = ("content-range", format!("bytes {start}-{end}/500000"));
        Action::Reply(206, vec![header], bytes[start..=end].to_vec().into())
    });
    let source = repository(&client(), &double, "a");
    let range = ByteRange { offset: 50_000, length: Some(400_000) };
    let body = source.open_unverified(&descriptor, range).await.unwrap();
    assert!(body.bytes().await.unwrap() == all[50_000..450_000]);
    assert_eq!(double.log().len(), 4);
    // An answer without a byte ends the download.
    let double = Double::start().await;
    let empty = ("content-range", "bytes 50000-49999/500000".to_owned());
    double.rule(move |_| Action::Reply(206, vec![empty.clone()], bytes::Bytes::new()));
    let body = repository(&client(), &double, "a").open_unverified(&descriptor, range).await.unwrap();
    assert!(body.bytes().await.map_or(true, |bytes| bytes.is_empty()));
    assert_eq!(double.log().len(), 1);
}

#[tokio::test]
async fn wrong_missing_and_surplus_bytes_are_detected() {
    for bytes in [testing::random(2, 1000), testing::random(1, 999), testing::random(1, 1001), Vec::new()] {
        let double = Double::start().await;
        let descriptor = blob(&double, 1000);
        double.rule(move |_| Action::Reply(200, Vec::new(), bytes.clone().into()));
        let error = failed(repository(&client(), &double, "a").read(&descriptor).await);
        assert!(error.contains("damaged"), "{error}");
    }
}

#[tokio::test]
async fn redirect_to_another_host_has_no_credentials() {
    let (double, elsewhere) = (Double::start().await, Double::start().await);
    let descriptor = blob(&double, 1000);
    blob(&elsewhere, 1000);
    let there = elsewhere.host();
    double.rule(move |seen| match seen.header("authorization") {
        "" => Action::Reply(401, vec![("www-authenticate", "Basic realm=\"x\"".to_owned())], bytes::Bytes::new()),
        _ => Action::Reply(307, vec![("location", format!("http://{there}{}?sig=x", seen.path))], bytes::Bytes::new()),
    });
    let options = crate::support::options().keychain(Arc::new(ocikit_registry::Fixed {
        registry: None,
        credential: ocikit_registry::Credential::password("u", "p"),
    }));
    let source = repository(&ocikit_registry::Client::new(options), &double, "a");
    assert_eq!(source.read(&descriptor).await.unwrap(), testing::random(1, 1000));
    let seen = elsewhere.seen();
    assert_eq!((seen.len(), seen[0].header("authorization")), (1, ""));
}

#[tokio::test]
async fn redirect_loop_is_an_error() {
    let double = Double::start().await;
    let descriptor = blob(&double, 1000);
    double.rule(|seen| {
        let next = seen.parameter("n").and_then(|n| n.parse::<u32>().ok()).unwrap_or_default() + 1;
        Action::Reply(302, vec![("location", format!("{}?n={next}", seen.path))], bytes::Bytes::new())
    });
    let error = failed(repository(&client(), &double, "a").read(&descriptor).await);
    assert!(error.ends_with("it redirects more than 10 times"), "{error}");
    assert_eq!(double.log().len(), 11);
}

#[tokio::test]
async fn redirect_to_a_link_local_address_is_refused() {
    let double = Double::start().await;
    let descriptor = blob(&double, 1000);
    double.rule(|_| {
        Action::Reply(302, vec![("location", "http://169.254.169.254/secret".to_owned())], bytes::Bytes::new())
    });
    let error = repository(&client(), &double, "a").read(&descriptor).await.unwrap_err();
    assert_eq!(error.no_answer(), Some(NoAnswer::OutOfReach));
    assert!(with_causes(&error).contains("169.254.169.254"), "{error}");
}

#[tokio::test]
async fn dropped_body_ends_the_request() {
    let double = Double::start().await;
    let descriptor = blob(&double, 10_000_000);
    let source = repository(&client(), &double, "a");
    let mut body = source.open(&descriptor).await.unwrap();
    assert!(body.next().await.unwrap().is_ok());
    drop(body);
    assert!(source.has(&descriptor).await.unwrap());
}

#[tokio::test]
async fn all_pages_of_tags_are_read() {
    let double = Double::start().await;
    double.behaviour(|behaviour| behaviour.page = 2);
    for tag in ["a", "b", "c", "d", "e"] {
        manifest(&double, tag);
    }
    let tags = repository(&client(), &double, "a").tags().await.unwrap();
    assert_eq!(tags.iter().map(|tag| tag.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "d", "e"]);
    assert_eq!(double.log().len(), 3);
    let error = repository(&client(), &double, "missing").tags().await.unwrap_err();
    assert!(error.is_not_found());
}

#[tokio::test]
async fn limited_list_reads_only_needed_pages() {
    let double = Double::start().await;
    double.behaviour(|behaviour| behaviour.page = 2);
    for tag in ["a", "b", "c", "d", "e"] {
        manifest(&double, tag);
    }
    let repository = repository(&client(), &double, "a");
    let part = |limit, after: Option<&str>| {
        let (repository, options) =
            (repository.clone(), ListOptions::default().limit(limit).after(after.map(str::to_owned)));
        async move {
            repository.tags_part(&options).await.unwrap().iter().map(|tag| tag.as_str().to_owned()).collect::<String>()
        }
    };
    for (limit, after, expected, requests) in [
        (Some(2), None, "ab", 1),
        (Some(3), None, "abc", 2),
        (None, Some("b"), "cde", 2),
        (Some(1), Some("d"), "e", 1),
        (None, Some("e"), "", 1),
    ] {
        double.log();
        assert_eq!(part(limit, after).await, expected);
        assert_eq!(double.log().len(), requests, "{limit:?} {after:?}");
    }
    // Distribution 2.8 sends everything, in no order (distribution/distribution#1936).
    let all = || Action::Reply(200, Vec::new(), r#"{"tags":["d","b","a","c"]}"#.into());
    double.script("GET", vec![all(), all()]);
    assert_eq!(part(None, Some("b")).await, "ac");
    assert_eq!(part(Some(1), Some("d")).await, "b");
}

#[tokio::test]
async fn blob_is_found_by_its_digest() {
    let double = Double::start().await;
    let descriptor = blob(&double, 1000);
    let repository = repository(&client(), &double, "a");
    let found = repository.blob(&descriptor.digest).await.unwrap().unwrap();
    assert_eq!(repository.read(&found).await.unwrap().len(), 1000);
    assert_eq!(repository.blob(&ocikit_spec::Digest::sha256_of(b"absent")).await.unwrap(), None);
}

#[tokio::test]
async fn deletion_with_a_lost_answer_succeeds() {
    let double = Double::start().await;
    manifest(&double, "v1");
    let repository = repository(&client(), &double, "a");
    let descriptor = blob(&double, 10);
    double.script("DELETE", vec![Action::Swallow]);
    repository.delete_tag(&"v1".parse().unwrap()).await.unwrap();
    double.script("DELETE", vec![Action::Swallow]);
    repository.delete_blob(&descriptor.digest).await.unwrap();
    assert_eq!(double.tag("a", "v1"), None);
}

#[tokio::test]
async fn deletion_without_effect_is_an_error() {
    let double = Double::start().await;
    let text = manifest(&double, "v1");
    let repository = repository(&client(), &double, "a");
    double.rule(|seen| if seen.method == "DELETE" { status(202) } else { Action::Pass });
    let error = failed(repository.delete_tag(&"v1".parse().unwrap()).await);
    assert!(error.contains("still returns it"), "{error}");
    let digest = ocikit_spec::Digest::sha256_of(text.as_bytes());
    let error = failed(repository.delete_manifest(&digest).await);
    assert!(error.contains("still returns it"), "{error}");
}

#[tokio::test]
async fn deleted_content_is_gone() {
    let double = Double::start().await;
    let text = manifest(&double, "v1");
    manifest(&double, "v2");
    let client = client();
    let repository = repository(&client, &double, "a");
    let digest = ocikit_spec::Digest::sha256_of(text.as_bytes());
    let tag = "v1".parse().unwrap();
    repository.delete_tag(&tag).await.unwrap();
    assert_eq!((double.tag("a", "v1"), double.tag("a", "v2")), (None, Some(digest)));
    assert!(repository.delete_tag(&tag).await.unwrap_err().is_not_found());
    let registry = repository.name().registry().clone();
    assert_eq!(client.catalog(&registry).await.unwrap(), [repository.name().clone()]);
    repository.delete_manifest(&digest).await.unwrap();
    assert_eq!(double.tag("a", "v2"), None);
    let descriptor = blob(&double, 10);
    repository.delete_blob(&descriptor.digest).await.unwrap();
    assert!(!repository.has(&descriptor).await.unwrap());
}

#[tokio::test]
async fn stalled_answer_times_out() {
    let double = Double::start().await;
    let descriptor = blob(&double, 1000);
    double.script("HEAD", vec![Action::Hang]);
    let timeouts = ocikit_registry::Timeouts::default().answer(std::time::Duration::from_millis(200));
    let client = ocikit_registry::Client::new(crate::support::options().timeouts(timeouts));
    assert!(repository(&client, &double, "a").has(&descriptor).await.unwrap());
    assert!(double.log().len() >= 2);
}

/// A client with a low size threshold, for which every connection is slow, or none.
fn parallel(slow: u64) -> ocikit_registry::Client {
    let parallel = ocikit_registry::ParallelOptions::default().threshold(100_000).part(40_000).ahead(3).slow(slow);
    ocikit_registry::Client::new(crate::support::options().parallel(parallel))
}

#[tokio::test]
async fn large_blob_in_ranges_survives_faults() {
    for (ranges, slow) in [(true, u64::MAX), (true, 0), (false, u64::MAX)] {
        let double = Double::start().await;
        double.behaviour(|behaviour| behaviour.ranges = ranges);
        let descriptor = blob(&double, 510_001);
        let mut count = 0;
        double.rule(move |_| {
            count += 1;
            match count % 4 {
                1 => Action::CutResponse(13_000),
                2 => status(503),
                _ => Action::Pass,
            }
        });
        let source = repository(&parallel(slow), &double, "a");
        assert_eq!(source.read(&descriptor).await.unwrap(), testing::random(1, 510_001));
        let range = ByteRange { offset: 100_001, length: Some(300_000) };
        let part = source.open_unverified(&descriptor, range).await.unwrap().bytes().await.unwrap();
        assert_eq!(part, testing::random(1, 510_001)[100_001..400_001]);
    }
}

#[tokio::test]
async fn ranges_are_used_only_for_slow_connections() {
    let double = Double::start().await;
    let descriptor = blob(&double, 510_001);
    // One request for the whole blob; if that is slow, one for each part after the first two.
    for (slow, requests) in [(u64::MAX, 2..=12), (0, 1..=1)] {
        repository(&parallel(slow), &double, "a").read(&descriptor).await.unwrap();
        let made = double.log().len();
        assert!(requests.contains(&made), "{made}");
    }
    // one request if the registry does not support ranges
    double.behaviour(|behaviour| behaviour.ranges = false);
    let source = repository(&parallel(u64::MAX), &double, "a");
    source.read(&descriptor).await.unwrap();
    assert_eq!(double.log().len(), 1);
    // Only one blob at a time is downloaded in ranges.
    double.behaviour(|behaviour| behaviour.ranges = true);
    let first = source.open(&descriptor).await.unwrap();
    double.log();
    source.read(&descriptor).await.unwrap();
    assert_eq!(double.log().len(), 1);
    drop(first);
    source.read(&descriptor).await.unwrap();
    assert!(double.log().len() > 1);
}

#[tokio::test]
async fn wrong_bytes_of_a_large_blob_are_detected() {
    let double = Double::start().await;
    let descriptor = blob(&double, 510_001);
    for slow in [0, u64::MAX] {
        let source = repository(&parallel(slow), &double, "a");
        for size in [510_000, 510_002, 300_000] {
            let lie = Descriptor { size, ..descriptor.clone() };
            assert!(failed(source.read(&lie).await).contains("damaged"), "{size}");
        }
    }
    let source = repository(&parallel(u64::MAX), &double, "a");
    let range = vec![("content-range", "bytes 0-1/2".to_owned())];
    double.script("GET", vec![Action::Pass, Action::Headers(range)]);
    assert!(failed(source.read(&descriptor).await).contains("another range"));
}

#[tokio::test]
async fn digest_returns_no_other_manifest() {
    let double = Double::start().await;
    manifest(&double, "v1");
    let other = r#"{"schemaVersion":2,"manifests":[]}"#;
    let index = || vec![("content-type", MediaType::OCI_INDEX.to_string())];
    double.rule(move |seen| match seen.path.contains("/manifests/sha256:") {
        true => Action::Reply(200, index(), other.into()),
        false => Action::Pass,
    });
    let wanted = double.tag("a", "v1").unwrap();
    let source = Arc::new(repository(&client(), &double, "a"));
    let error = failed(source.resolve(&Name::Digest(wanted)).await);
    assert!(error.contains("damaged"), "{error}");
    let error = failed(Root::open(source.clone(), &Name::Digest(wanted)).await);
    assert!(error.contains("damaged"), "{error}");
    // It is not tagged either.
    let root = Descriptor::new(MediaType::OCI_MANIFEST, wanted, 1);
    let naming = ocikit_image::Naming::of_tag("v2".parse().unwrap());
    assert!(failed(ocikit_image::Sink::publish(&*source, &root, &naming).await).contains("damaged"));
    assert_eq!(double.tag("a", "v2"), None);
}

#[tokio::test]
async fn pagination_loop_is_an_error() {
    let double = Double::start().await;
    double.rule(|seen| {
        let next = match seen.query.as_str() {
            "last=b" => "last=c",
            "last=c" => "last=d",
            _ => "last=b",
        };
        let link = format!("<{}?{next}>; rel=\"next\"", seen.path);
        Action::Reply(200, vec![("link", link)], r#"{"tags":["x"]}"#.into())
    });
    let error = failed(repository(&client(), &double, "a").tags().await);
    assert!(error.contains("has no end"), "{error}");
    let requests = double.log().len();
    assert!(requests <= 4, "{requests}");
}

#[tokio::test]
async fn endless_list_is_an_error() {
    let double = Double::start().await;
    let page = bytes::Bytes::from(format!(r#"{{"tags":["{}"]}}"#, "x".repeat(15 << 20)));
    let mut count = 0;
    double.rule(move |seen| {
        count += 1;
        // The list must end, so that the test ends.
        let link = format!("<{}?last={count}>; rel=\"next\"", seen.path);
        let headers = if count < 6 { vec![("link", link)] } else { Vec::new() };
        Action::Reply(200, headers, page.clone())
    });
    let error = failed(repository(&client(), &double, "a").tags().await);
    assert!(error.contains("too long"), "{error}");
    assert_eq!(double.log().len(), 5);
}

#[tokio::test]
async fn head_without_a_size_is_no_empty_manifest() {
    let double = Double::start().await;
    let text = manifest(&double, "v1");
    double.script("HEAD", vec![Action::Headers(vec![("content-length", "0".to_owned())])]);
    let found = repository(&client(), &double, "a").head(&Name::Tag("v1".parse().unwrap())).await.unwrap().unwrap();
    assert_eq!(found.size, text.len() as u64);
}
