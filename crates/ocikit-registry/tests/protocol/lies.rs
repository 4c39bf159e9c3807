//! A registry that sends wrong statuses, headers and bodies.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use hyper::Method;
use ocikit_image::{CopyOptions, Memory, Name, Naming, Referrers, Root, Sink, Source, SourceExt, copy, testing};
use ocikit_spec::{Descriptor, Digest, Document, MediaType, Platform};
use proptest::prelude::*;

use crate::double::{Action, Double, Seen, status};
use crate::support::{client, failed, repository};

const PAGE: &str = "<!DOCTYPE html><html><title>Sign in</title></html>";

/// The manifest of an image that was not requested.
const OTHER: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}"#;

/// An index of two images, with all their blobs and manifests.
async fn image() -> (Root, Vec<Descriptor>) {
    let memory = Arc::new(Memory::new());
    let one = testing::image(&memory, 1, &Platform::new("linux", "amd64"), &[10, 5_000]);
    let two = testing::image(&memory, 2, &Platform::new("linux", "arm64"), &[5_000, 700]);
    let index = testing::index(&memory, &[one.clone(), two.clone()]);
    let root = Root::at(memory.clone(), index.clone()).await.unwrap();
    let mut parts = vec![index, one.clone(), two.clone()];
    for manifest in [one, two] {
        parts.extend(memory.document(&manifest).await.unwrap().children().cloned());
    }
    (root, parts)
}

fn named(tag: &str) -> CopyOptions {
    let naming = Naming::of_tag(tag.parse().unwrap());
    CopyOptions::default().names(vec![naming])
}

/// Returns whether a repository has a complete image.
fn holds(double: &Double, parts: &[Descriptor]) -> bool {
    parts.iter().all(|part| match part.media_type.is_document() {
        true => double.manifest("a", &part.digest).is_some_and(|bytes| Digest::sha256_of(&bytes) == part.digest),
        false => double.blob("a", &part.digest).is_some_and(|bytes| Digest::sha256_of(&bytes) == part.digest),
    })
}

/// A wrong answer.
#[derive(Debug, Clone)]
enum Lie {
    /// Has no effect and sends this answer.
    Answer { status: u16, headers: Vec<(&'static str, String)>, body: &'static str },
    /// Processes the request and sends other headers.
    Headers(Vec<(&'static str, String)>),
}

impl Lie {
    fn told_to(&self, seen: &Seen) -> Action {
        // A `Content-Length` that differs from the length of the body breaks the connection.
        let fitting = |headers: &[(&'static str, String)]| {
            let is_head = seen.method == Method::HEAD;
            headers.iter().filter(|(name, _)| is_head || *name != "content-length").cloned().collect::<Vec<_>>()
        };
        match self {
            Lie::Answer { status, headers, body } => {
                let mut headers = fitting(headers);
                headers.retain(|(_, value)| !value.is_empty());
                Action::Reply(*status, headers, Bytes::from_static(body.as_bytes()))
            }
            Lie::Headers(headers) => Action::Headers(fitting(headers)),
        }
    }
}

fn header() -> impl Strategy<Value = (&'static str, String)> {
    let of = |name: &'static str, values: &[&str]| {
        let values: Vec<_> = values.iter().map(|value| (*value).to_owned()).collect();
        prop::sample::select(values).prop_map(move |value| (name, value))
    };
    let (lie, other) = (Digest::sha256_of(b"lie").to_string(), Digest::sha256_of(OTHER.as_bytes()).to_string());
    prop_oneof![
        4 => of("content-type", &[
            MediaType::OCI_MANIFEST.as_str(), MediaType::OCI_INDEX.as_str(), MediaType::DOCKER_MANIFEST.as_str(),
            MediaType::DOCKER_MANIFEST_LIST.as_str(), MediaType::DOCKER_SCHEMA1_SIGNED.as_str(),
            MediaType::DOCKER_SCHEMA1.as_str(), "application/octet-stream", "text/html; charset=utf-8", "",
        ]),
        3 => of("docker-content-digest", &["", "nonsense", &lie, &other]),
        1 => of("content-length", &["", "0", "3", "99999"]),
        1 => of("location", &["", "/v2/a/blobs/uploads/other", "/", "//"]),
        1 => of("range", &["", "0-0", "0-4999", "x"]),
        1 => of("oci-subject", &[&lie]),
        1 => of("link", &["<", "</v2/a/tags/list?last=x>; rel=\"next\"", ""]),
        1 => of("www-authenticate", &["", "Basic realm=\"x\""]),
    ]
}

fn lie() -> impl Strategy<Value = Lie> {
    let headers = || prop::collection::vec(header(), 0..3);
    let statuses = vec![200, 201, 202, 204, 206, 304, 307, 400, 401, 403, 404, 405, 416, 500];
    let bodies = vec![
        "",
        PAGE,
        "{}",
        "true",
        OTHER,
        r#"{"schemaVersion":2,"manifests":[]}"#,
        r#"{"schemaVersion":1,"fsLayers":[]}"#,
    ];
    prop_oneof![
        (prop::sample::select(statuses), headers(), prop::sample::select(bodies))
            .prop_map(|(status, headers, body)| Lie::Answer { status, headers, body }),
        headers().prop_map(Lie::Headers),
    ]
}

/// Wrong answers, each sent once at one request, or to every later request of one method.
fn lies() -> impl Strategy<Value = Vec<(usize, Option<Method>, Lie)>> {
    let methods = vec![None, None, Some(Method::GET), Some(Method::HEAD), Some(Method::PUT), Some(Method::POST)];
    prop::collection::vec((0..25_usize, prop::sample::select(methods), lie()), 1..5)
}

fn tell(double: &Double, lies: &[(usize, Option<Method>, Lie)]) {
    for (position, method, lie) in lies.iter().cloned() {
        let count = AtomicUsize::new(0);
        double.rule(move |seen| {
            let number = count.fetch_add(1, Ordering::Relaxed);
            let is_told = match &method {
                None => number == position,
                Some(method) => number >= position && seen.method == *method,
            };
            if is_told { lie.told_to(seen) } else { Action::Pass }
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pinned_digest_returns_its_bytes_or_an_error(lies in lies()) {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let (root, parts) = image().await;
            let double = Double::start().await;
            let to: Arc<dyn Sink> = Arc::new(repository(&client(), &double, "a"));
            copy(&root, &to, &named("v1")).await.unwrap();
            tell(&double, &lies);
            let from = Arc::new(repository(&client(), &double, "a"));
            let Ok(opened) = Root::open(from, &Name::Digest(root.digest())).await else { return };
            assert_eq!(opened.digest(), root.digest());
            assert_eq!(opened.document().as_ref().map(Document::bytes), root.document().as_ref().map(Document::bytes));
            let memory = Arc::new(Memory::new());
            let there: Arc<dyn Sink> = memory.clone();
            if copy(&opened, &there, &CopyOptions::default()).await.is_ok() {
                for part in &parts {
                    memory.read(part).await.unwrap();
                }
            }
        });
    }

    #[test]
    fn successful_push_means_complete_target(lies in lies()) {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let (root, parts) = image().await;
            let double = Double::start().await;
            tell(&double, &lies);
            let to: Arc<dyn Sink> = Arc::new(repository(&client(), &double, "a"));
            if copy(&root, &to, &named("v1")).await.is_ok() {
                assert!(holds(&double, &parts), "the target is incomplete");
                assert_eq!(double.tag("a", "v1"), Some(root.digest()));
            }
        });
    }
}

#[tokio::test]
async fn accepted_manifest_without_a_digest_must_be_readable() {
    let (root, _) = image().await;
    let digest = root.digest().to_string();
    for (status, headers, is_proof) in [
        (200, vec![], false),
        (201, vec![], false),
        (201, vec![("location", "/v2/a/manifests/v1".to_owned())], false),
        (201, vec![("location", format!("/v2/a/manifests/{digest}"))], true),
        (201, vec![("docker-content-digest", digest.clone())], true),
    ] {
        let double = Double::start().await;
        let to = repository(&client(), &double, "a");
        let sink: Arc<dyn Sink> = Arc::new(to.clone());
        copy(&root, &sink, &CopyOptions::default()).await.unwrap();
        // A user who may push and not pull cannot check what a registry claims.
        double.rule(move |seen| match seen.method {
            Method::PUT if seen.path.ends_with("/v1") => Action::Reply(status, headers.clone(), Bytes::new()),
            Method::HEAD | Method::GET => Action::Reply(403, vec![], Bytes::new()),
            _ => Action::Pass,
        });
        let outcome = copy(&root, &sink, &named("v1")).await;
        assert_eq!(outcome.is_ok(), is_proof, "{status}: {outcome:?}");
    }
}

#[tokio::test]
async fn web_page_with_any_status_is_an_error() {
    let (root, _) = image().await;
    for status in [200, 201, 202, 204] {
        let double = Double::start().await;
        double.rule(move |_| {
            let headers = vec![("content-type", "text/html".to_owned())];
            Action::Reply(status, headers, Bytes::from_static(if status == 204 { b"" } else { PAGE.as_bytes() }))
        });
        let to = repository(&client(), &double, "a");
        let sink: Arc<dyn Sink> = Arc::new(to.clone());
        let blob = Descriptor::of(MediaType::OCI_LAYER, b"x");
        assert!(copy(&root, &sink, &named("v1")).await.is_err(), "{status}");
        let memory = Memory::new();
        memory.insert(&b"x"[..]);
        assert!(sink.put(&blob, &memory).await.is_err(), "{status}");
        assert!(!to.has(&blob).await.unwrap_or_default(), "{status}");
        assert!(to.blob(&blob.digest).await.is_err(), "{status}");
        assert!(to.tags().await.is_err(), "{status}");
        assert!(to.referrers(&root.digest()).await.is_err(), "{status}");
        assert!(to.head(&Name::Tag("v1".parse().unwrap())).await.is_err(), "{status}");
        assert!(Root::open(Arc::new(to.clone()), &Name::Tag("v1".parse().unwrap())).await.is_err(), "{status}");
        assert!(client().check(to.name().registry()).await.is_err(), "{status}");
        assert!(client().catalog(to.name().registry()).await.is_err(), "{status}");
        if status != 202 {
            assert!(to.delete_tag(&"v1".parse().unwrap()).await.is_err(), "{status}");
            assert!(to.delete_blob(&blob.digest).await.is_err(), "{status}");
        }
    }
}

/// Quay answers `/v2/` with `true` as `text/html`, and uploads with HTML content types.
#[tokio::test]
async fn quay_with_html_content_types_is_accepted() {
    let double = Double::start().await;
    double.rule(|seen| match seen.path.as_str() {
        "/v2/" => Action::Reply(200, vec![("content-type", "text/html; charset=utf-8".to_owned())], "true".into()),
        _ if seen.method == Method::GET => Action::Pass,
        _ => Action::Headers(vec![("content-type", "text/html; charset=utf-8".to_owned())]),
    });
    let (root, parts) = image().await;
    let to = repository(&client(), &double, "a");
    client().check(to.name().registry()).await.unwrap();
    let sink: Arc<dyn Sink> = Arc::new(to);
    copy(&root, &sink, &named("v1")).await.unwrap();
    assert!(holds(&double, &parts));
}

#[tokio::test]
async fn blob_exists_only_if_the_answer_proves_it() {
    let double = Double::start().await;
    let digest = double.put_blob("a", "12345");
    let blob = Descriptor::new(MediaType::OCI_LAYER, digest, 5);
    let lie = Digest::sha256_of(b"lie").to_string();
    for (headers, expected) in [
        (vec![("content-length", "5")], true),
        (vec![("content-length", "4")], false),
        (vec![("content-length", "0")], false),
        (vec![("content-length", "0"), ("docker-content-digest", digest.to_string().as_str())], true),
        (vec![("docker-content-digest", lie.as_str())], false),
    ] {
        let double = Double::start().await;
        double.put_blob("a", "12345");
        let sent: Vec<_> = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        double.rule(move |_| Action::Headers(sent.clone()));
        assert_eq!(repository(&client(), &double, "a").has(&blob).await.unwrap(), expected, "{headers:?}");
    }
}

#[tokio::test]
async fn lists_are_parsed_leniently_and_completely() {
    let pages = [
        (r#"{"name":"a","tags":["x","y"]}"#, vec![], Some(vec!["x", "y"])),
        (r#"{"tags":["x"],"extra":[1,{"a":[]}]}"#, vec![], Some(vec!["x"])),
        (r#"{"name":"a","tags":null}"#, vec![], Some(vec![])),
        (r#"{"tags":null}"#, vec![], Some(vec![])),
        (r#"{"name":"a"}"#, vec![], Some(vec![])),
        ("{}", vec![], None),
        (r#"{"errors":[]}"#, vec![], None),
        ("[]", vec![], None),
        (r#"{"tags":["x",null]}"#, vec![], None),
        // An invalid entry is an error and is not skipped.
        (r#"{"tags":["x","not a tag"]}"#, vec![], None),
        (r#"{"tags":["x"]}"#, vec!["</v2/a/tags/list?last=x>"], Some(vec!["x", "end"])),
        (r#"{"tags":["x"]}"#, vec!["</other>; rel=\"first\"", "<?last=x>; rel=next"], Some(vec!["x", "end"])),
        (r#"{"tags":["x"]}"#, vec!["</v2/a/tags/list?last=x"], None),
    ];
    for (page, links, expected) in pages {
        let double = Double::start().await;
        let links: Vec<_> = links.iter().map(|link| ("link", (*link).to_owned())).collect();
        let page = Bytes::from_static(page.as_bytes());
        let shown = format!("{page:?} {links:?}");
        double.rule(move |seen| match seen.query.is_empty() {
            true => Action::Reply(200, links.clone(), page.clone()),
            false => Action::Reply(200, vec![], r#"{"tags":["end"]}"#.into()),
        });
        let tags = repository(&client(), &double, "a").tags().await;
        let tags = tags.ok().map(|tags| tags.iter().map(ToString::to_string).collect::<Vec<_>>());
        let expected = expected.map(|tags| tags.into_iter().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(tags, expected, "{shown}");
    }
}

#[tokio::test]
async fn unknown_fields_of_a_list_are_skipped() {
    let zeros = vec!["0"; 1_000_000].join(",");
    let (subject, listed) = (Digest::sha256_of(b"subject"), Descriptor::of(MediaType::OCI_MANIFEST, b"listed"));
    for (index, is_fine) in [
        (format!(r#"{{"schemaVersion":2,"x":[{zeros}],"manifests":[{}]}}"#, entry(&listed, "1")), true),
        (format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entry(&listed, &format!("[{zeros}]"))), false),
    ] {
        let double = Double::start().await;
        double.rule(move |seen| match seen.path.contains("/referrers/") {
            true => Action::Reply(200, vec![], index.clone().into()),
            false => status(404),
        });
        let found = repository(&client(), &double, "a").referrers(&subject).await;
        assert_eq!(found.is_ok(), is_fine);
        match found {
            Ok(found) => assert_eq!(found[0].digest, listed.digest),
            error => assert!(failed(error).contains("unknown fields"), "the limit is named"),
        }
    }
}

fn entry(listed: &Descriptor, extra: &str) -> String {
    let Descriptor { media_type, digest, size, .. } = listed;
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size},"x":{extra}}}"#)
}

/// A proxy or a broken server answers any request with status 200.
#[tokio::test]
async fn root_that_is_no_manifest_is_refused() {
    for body in ["upstream timeout", "", "5", "[]", "{}", r#"{"ok":true}"#, r#"{"errors":[]}"#] {
        let double = Double::start().await;
        double.rule(move |_| Action::Reply(200, vec![], body.into()));
        let source: Arc<dyn Source> = Arc::new(repository(&client(), &double, "a"));
        let name = Name::Tag("v1".parse().unwrap());
        let error = failed(Root::open(source.clone(), &name).await);
        assert!(error.contains("not a valid manifest or index"), "{body}: {error}");
        // The bytes can be read nevertheless.
        let found = source.resolve(&name).await.unwrap();
        assert_eq!(source.read(&found).await.unwrap(), body);
    }
}

/// Text under the fallback tag is not an empty list, nor is it a signature under the tag of cosign.
#[tokio::test]
async fn text_under_referrer_tags_is_an_error() {
    for suffix in ["", ".sig"] {
        let double = Double::with(crate::double::Behaviour { referrers: false, ..Default::default() }).await;
        let memory = Arc::new(Memory::new());
        let subject = testing::image(&memory, 1, &Platform::new("linux", "amd64"), &[10]);
        let from = Arc::new(repository(&client(), &double, "a"));
        let to: Arc<dyn Sink> = from.clone();
        copy(&Root::at(memory, subject.clone()).await.unwrap(), &to, &named("v1")).await.unwrap();
        let tag = format!("{}{suffix}", subject.digest.to_string().replace(':', "-"));
        double.rule(move |seen| match seen.path.ends_with(&tag) {
            true => Action::Reply(200, vec![], "upstream timeout".into()),
            false => Action::Pass,
        });
        let root = Root::at(from, subject).await.unwrap();
        let options = CopyOptions::default().referrers(Referrers::All);
        let error = failed(copy(&root, &(Arc::new(Memory::new()) as Arc<dyn Sink>), &options).await);
        assert!(error.contains("cannot list the referrers"), "{error}");
    }
}

/// An unreadable list must not be replaced by one that lacks its entries.
#[tokio::test]
async fn unreadable_fallback_tag_is_not_overwritten() {
    let double = Double::with(crate::double::Behaviour { referrers: false, ..Default::default() }).await;
    let memory = Arc::new(Memory::new());
    let subject = testing::image(&memory, 1, &Platform::new("linux", "amd64"), &[10]);
    let referrer = testing::referrer(&memory, &subject, "application/x");
    let tag = subject.digest.to_string().replace(':', "-");
    let kept = r#"{"schemaVersion":2,"manifests":[{"digest":"md5:1","size":1}]}"#;
    let digest = double.put_manifest("a", &tag, MediaType::OCI_INDEX.as_str(), kept);
    let to: Arc<dyn Sink> = Arc::new(repository(&client(), &double, "a"));
    let root = Root::at(memory, referrer).await.unwrap();
    assert!(copy(&root, &to, &CopyOptions::default()).await.is_err());
    assert_eq!(double.tag("a", &tag), Some(digest));
}

#[tokio::test]
async fn content_type_is_a_hint_and_the_bytes_decide() {
    let (root, parts) = image().await;
    let labels = [
        MediaType::DOCKER_MANIFEST_LIST.to_string(),
        MediaType::DOCKER_SCHEMA1_SIGNED.to_string(),
        MediaType::OCI_MANIFEST.to_string(),
        "text/plain".to_owned(),
        String::new(),
    ];
    for label in labels {
        let double = Double::start().await;
        let to: Arc<dyn Sink> = Arc::new(repository(&client(), &double, "a"));
        copy(&root, &to, &named("v1")).await.unwrap();
        let shown = label.clone();
        double.rule(move |seen| match seen.path.contains("/manifests/") && seen.method != Method::PUT {
            true => Action::Headers(vec![("content-type", label.clone())]),
            false => Action::Pass,
        });
        let names = [Name::Tag("v1".parse().unwrap()), Name::Digest(root.digest())];
        for name in names {
            let opened = Root::open(Arc::new(repository(&client(), &double, "a")), &name).await.unwrap();
            assert_eq!(opened.descriptor().media_type, root.descriptor().media_type, "{shown}");
            let memory = Arc::new(Memory::new());
            let there: Arc<dyn Sink> = memory.clone();
            copy(&opened, &there, &CopyOptions::default()).await.unwrap();
            let mut wanting: HashSet<_> = parts.iter().map(|part| part.digest).collect();
            for part in &parts {
                memory.read(part).await.unwrap();
                wanting.remove(&part.digest);
            }
            assert!(wanting.is_empty(), "{shown}");
        }
    }
}
