//! Requests to a registry with a long round-trip time.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use ocikit_image::{Memory, Name, Put, Sink, Source, testing};
use ocikit_registry::{Client, ClientOptions};
use ocikit_spec::{Descriptor, Digest, MediaType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::double::{Action, Behaviour, Double};
use crate::support::{FakeClock, client, repository};

/// Starts a registry whose responses take 50 ms on the clock of the client.
async fn far(behaviour: Behaviour) -> (Client, Double) {
    let (clock, double) = (Arc::new(FakeClock::default()), Double::with(behaviour).await);
    let passing = clock.clone();
    double.rule(move |_| {
        passing.pass(Duration::from_millis(50));
        Action::Pass
    });
    (Client::new(ClientOptions::default().clock(clock)), double)
}

/// Uploads blobs one after the other, announced to the sink like in a copy.
async fn put_all(client: &Client, double: &Double, lengths: &[usize]) -> Vec<Put> {
    let (memory, to) = (Memory::new(), repository(client, double, "a"));
    let blobs: Vec<_> = lengths.iter().map(|length| memory.insert(testing::random(7, *length))).collect();
    let blobs: Vec<_> = blobs
        .iter()
        .zip(lengths)
        .map(|(digest, length)| Descriptor::new(MediaType::OCI_LAYER, *digest, *length as u64))
        .collect();
    // The first answer shows the round-trip time.
    assert!(to.head(&Name::Digest(Digest::sha256_of(b"nothing"))).await.unwrap().is_none());
    to.expect(&blobs).await.unwrap();
    let mut puts = Vec::new();
    for blob in &blobs {
        puts.push(to.put(blob, &memory).await.unwrap());
        assert!(double.blob("a", &blob.digest).is_some());
    }
    puts
}

fn count(log: &[String], line: &str) -> usize {
    log.iter().filter(|found| found.starts_with(line)).count()
}

#[tokio::test]
async fn upload_starts_before_the_check_has_ended() {
    let (client, double) = far(Behaviour::default()).await;
    double.put_blob("a", testing::random(7, 2000));
    double.put_blob("a", testing::random(7, 3000));
    let puts = put_all(&client, &double, &[1000, 2000, 3000, 4000]).await;
    assert_eq!(puts, [Put::Copied, Put::Present, Put::Present, Put::Copied]);
    let log = double.log();
    // The third and the fourth blob are checked by mounts alone, since the registry has answered an earlier mount with
    // 201.
    assert_eq!(count(&log, "POST /v2/a/blobs/uploads/"), 4, "{log:#?}");
    assert_eq!(count(&log, "PUT /v2/a/blobs/uploads/"), 2, "{log:#?}");
    assert!(count(&log, "HEAD /v2/a/blobs/") <= 4, "{log:#?}");
    assert_eq!(count(&log, "DELETE"), 0, "{log:#?}");
}

#[tokio::test]
async fn unneeded_upload_is_cancelled() {
    let (client, double) = far(Behaviour { mount: false, ..Behaviour::default() }).await;
    double.put_blob("a", testing::random(7, 2000));
    double.put_blob("a", testing::random(7, 3000));
    let puts = put_all(&client, &double, &[1000, 2000, 3000, 4000]).await;
    assert_eq!(puts, [Put::Copied, Put::Present, Put::Present, Put::Copied]);
    let log = double.log();
    // After the second blob it is known that the registry does not report existing blobs for mounts, and `HEAD` is sent
    // first.
    assert_eq!(count(&log, "POST /v2/a/blobs/uploads/"), 3, "{log:#?}");
    assert_eq!(count(&log, "PUT /v2/a/blobs/uploads/"), 2, "{log:#?}");
    assert_eq!(count(&log, "DELETE /v2/a/blobs/uploads/"), 1, "{log:#?}");
    assert_eq!(count(&log, "HEAD /v2/a/blobs/"), 4, "{log:#?}");
    assert!(!double.is_uploading());
}

#[tokio::test]
async fn referrers_api_and_fallback_tag_are_requested_concurrently() {
    for referrers in [true, false] {
        let (client, double) = far(Behaviour { referrers, ..Behaviour::default() }).await;
        let from = repository(&client, &double, "a");
        assert!(from.head(&Name::Digest(Digest::sha256_of(b"nothing"))).await.unwrap().is_none());
        let subject = double.put_manifest("a", "v1", "application/vnd.oci.image.index.v1+json", "{}");
        double.log();
        for known in [false, true] {
            assert_eq!(from.referrers(&subject).await.unwrap(), []);
            let log = double.log();
            let asked = (count(&log, "GET /v2/a/referrers/"), count(&log, "GET /v2/a/manifests/sha256-"));
            let once = (usize::from(referrers), usize::from(!referrers));
            assert_eq!(asked, if known { once } else { (1, 1) }, "{log:#?}");
        }
    }
}

/// A server that answers nothing until it has a number of connections, and then every request with 404.
struct Slow {
    address: std::net::SocketAddr,
    connections: watch::Receiver<usize>,
    server: tokio::task::JoinHandle<()>,
}

impl Slow {
    async fn until(wanted: usize) -> Slow {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (count, connections) = watch::channel(0);
        let watched = connections.clone();
        let server = tokio::spawn(async move {
            let mut answering = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.send_modify(|count| *count += 1);
                answering.spawn(Slow::answer(stream, watched.clone(), wanted));
            }
        });
        Slow { address, connections, server }
    }

    async fn answer(mut stream: TcpStream, mut connections: watch::Receiver<usize>, wanted: usize) {
        let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            request.extend_from_slice(&buffer[..read]);
            if request.ends_with(b"\r\n\r\n") {
                request.clear();
                connections.wait_for(|count| *count >= wanted).await.unwrap();
                stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            }
        }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[tokio::test]
async fn connections_are_opened_in_advance() {
    let slow = Slow::until(5).await;
    let client = client();
    client.open_ahead(4);
    let repository = client.repository(format!("{}/a", slow.address).parse().unwrap()).unwrap();
    // The answer arrives only when the other connections are open, and no request has asked for them.
    let head = |number: usize| {
        let (repository, digest) = (&repository, Digest::sha256_of(number.to_string().as_bytes()));
        async move { repository.head(&Name::Digest(digest)).await.unwrap() }
    };
    assert_eq!(head(0).await, None);
    assert_eq!(*slow.connections.borrow(), 5);
    assert!(join_all((1..=5).map(head)).await.iter().all(Option::is_none));
    assert_eq!(*slow.connections.borrow(), 5);
}

#[tokio::test]
async fn no_spare_connections_unless_announced() {
    let slow = Slow::until(1).await;
    let repository = client().repository(format!("{}/a", slow.address).parse().unwrap()).unwrap();
    assert_eq!(repository.head(&Name::Digest(Digest::sha256_of(b"x"))).await.unwrap(), None);
    assert_eq!(*slow.connections.borrow(), 1);
}
