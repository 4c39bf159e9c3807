//! Pushes and pulls with one injected fault at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ocikit_image::{CopyOptions, Memory, Name, Naming, Root, Sink, Source, SourceExt, copy, testing};
use ocikit_registry::{Client, Error, NoAnswer, Timeouts};
use ocikit_spec::{Descriptor, MediaType, Platform};

use crate::double::{Action, Double, status};
use crate::support::{FakeClock, client, failed, options, repository};

/// Creates an index of two images that share a layer.
async fn source() -> Root {
    let memory = Arc::new(Memory::new());
    let one = testing::image(&memory, 1, &Platform::new("linux", "amd64"), &[10, 300_000]);
    let two = testing::image(&memory, 2, &Platform::new("linux", "arm64"), &[300_000]);
    let index = testing::index(&memory, &[one, two]);
    Root::at(memory, index).await.unwrap()
}

fn named() -> CopyOptions {
    let naming = Naming::of_tag("v1".parse().unwrap());
    CopyOptions::default().names(vec![naming])
}

/// Pushes and pulls through a registry, and returns the number of requests.
async fn round_trip(double: &Double) -> Result<usize, Error> {
    let root = source().await;
    let to: Arc<dyn Sink> = Arc::new(repository(&client(), double, "a"));
    copy(&root, &to, &named()).await?;
    assert_eq!(double.tag("a", "v1"), Some(root.digest()), "the tag names the pushed index");
    let from = Arc::new(repository(&client(), double, "a"));
    let pulled = Root::open(from, &Name::Tag("v1".parse().unwrap())).await?;
    let there = Arc::new(Memory::new());
    let sink: Arc<dyn Sink> = there.clone();
    let copied = copy(&pulled, &sink, &CopyOptions::default()).await?;
    for (blob, _) in &copied.blobs {
        there.read(blob).await.unwrap();
    }
    Ok(double.log().len())
}

/// Injects a fault at the request with this number.
fn disturb(double: &Double, number: usize, action: impl Fn() -> Action + Send + 'static) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counting = count.clone();
    double.rule(move |_| if counting.fetch_add(1, Ordering::Relaxed) == number { action() } else { Action::Pass });
    count
}

#[tokio::test]
async fn one_fault_at_any_request_is_survived() {
    let requests = round_trip(&Double::start().await).await.unwrap();
    let actions: [fn() -> Action; 8] = [
        || status(429),
        || status(500),
        || status(503),
        || Action::Reply(503, vec![("retry-after", "1".to_owned())], bytes::Bytes::new()),
        || Action::CutRequest(0),
        || Action::CutRequest(100_000),
        || Action::CutResponse(5),
        || Action::Swallow,
    ];
    for (kind, action) in actions.into_iter().enumerate() {
        for number in 0..requests {
            let double = Double::start().await;
            disturb(&double, number, action);
            let taken = round_trip(&double).await;
            let taken = taken
                .unwrap_or_else(|error| panic!("kind {kind} at {number}: {}", crate::support::with_causes(&error)));
            assert!(taken <= requests + 4, "kind {kind} at {number}: {taken} for {requests}");
        }
    }
}

#[tokio::test]
async fn many_faults_are_survived() {
    for one_in in [3, 5, 11] {
        let double = Double::start().await;
        let mut count = 0;
        double.rule(move |_| {
            count += 1;
            if count % one_in == 0 { status(503) } else { Action::Pass }
        });
        round_trip(&double).await.unwrap();
    }
}

#[tokio::test]
async fn permanent_faults_fail_and_leave_no_tag() {
    let requests = round_trip(&Double::start().await).await.unwrap();
    for number in 0..requests {
        let double = Double::start().await;
        let count = AtomicUsize::new(0);
        double.rule(move |_| if count.fetch_add(1, Ordering::Relaxed) >= number { status(502) } else { Action::Pass });
        match round_trip(&double).await {
            Err(Error::Unreachable { .. }) => {}
            other => panic!("at {number}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn retry_after_is_respected() {
    let double = Double::start().await;
    let clock = Arc::new(FakeClock::default());
    let client = Client::new(options().clock(clock.clone()));
    let (memory, descriptor) = blob(1000);
    for method in ["HEAD", "POST", "PUT"] {
        let after = || Action::Reply(429, vec![("retry-after", "17".to_owned())], bytes::Bytes::new());
        double.script(method, vec![after()]);
    }
    repository(&client, &double, "a").put(&descriptor, &memory).await.unwrap();
    let slept = clock.slept();
    assert_eq!(slept.len(), 3, "{slept:?}");
    assert!(slept.iter().all(|slept| (17..18).contains(&slept.as_secs())), "{slept:?}");

    let far = || Action::Reply(429, vec![("retry-after", "3600".to_owned())], bytes::Bytes::new());
    double.rule(move |_| far());
    failed(repository(&client, &double, "a").has(&descriptor).await);
    assert_eq!(clock.slept().len(), 3, "a delay of one hour is not waited for");
}

#[tokio::test]
async fn stalled_upload_is_resumed() {
    let double = Double::start().await;
    double.script("PUT", vec![Action::Hang]);
    let silence = Duration::from_millis(200);
    let timeouts = Timeouts::default().silence(silence);
    let client = Client::new(options().timeouts(timeouts));
    let (memory, descriptor) = blob(20_000_000);
    repository(&client, &double, "a").put(&descriptor, &memory).await.unwrap();
    assert_eq!(double.blob("a", &descriptor.digest).unwrap().len(), 20_000_000);
}

#[tokio::test]
async fn stalled_download_is_resumed() {
    let double = Double::start().await;
    let (memory, descriptor) = blob(1_000_000);
    double.put_blob("a", memory.read(&descriptor).await.unwrap());
    double.script("GET", vec![Action::StallResponse(300_000)]);
    let timeouts = Timeouts::default().silence(Duration::from_millis(200));
    let client = Client::new(options().timeouts(timeouts));
    repository(&client, &double, "a").read(&descriptor).await.unwrap();
    assert!(double.seen()[1].header("range").ends_with("-999999"));
}

#[tokio::test]
async fn refused_connection_fails_within_a_second() {
    // A port on which no server listens.
    let host = Double::start().await.host();
    let clock = Arc::new(FakeClock::default());
    let client = Client::new(options().clock(clock.clone()));
    let repository = client.repository(format!("{host}/a").parse().unwrap()).unwrap();
    let absent = Descriptor::of(MediaType::OCI_LAYER, b"absent");
    let asked = futures::future::join_all((0..20).map(|_| repository.has(&absent))).await;
    for outcome in asked {
        let error = outcome.unwrap_err();
        assert_eq!(error.no_answer(), Some(NoAnswer::ConnectionRefused));
        assert_eq!(failed::<()>(Err(error)), format!("cannot connect to {host}/a: connection refused"));
    }
    assert_eq!(clock.slept().len(), 20 * 2);
    assert!(
        clock.slept().iter().sum::<Duration>() < Duration::from_secs(20),
        "the client gives up after one second per request"
    );
    let missing = client.repository("registry.invalid/a".parse().unwrap()).unwrap().has(&absent).await.unwrap_err();
    assert_eq!(missing.no_answer(), Some(NoAnswer::NameResolution));
}

fn blob(length: usize) -> (Memory, Descriptor) {
    let memory = Memory::new();
    let bytes = testing::random(1, length);
    memory.insert(bytes.clone());
    (memory, Descriptor::of(MediaType::OCI_LAYER, &bytes))
}
