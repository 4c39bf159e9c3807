use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use ocikit_spec::{Descriptor, Digest, Platform};
use tokio::time::Instant;

use super::*;
use crate::body::Body;
use crate::bridge::CHUNK;
use crate::error::Mismatch;
use crate::memory::Memory;
use crate::related::Referrers;
use crate::source::{ByteRange, Name, Source, SourceExt};
use crate::testing;

/// A source that counts the bytes that are read from it, and returns them in chunks.
#[derive(Debug, Default)]
struct Counting {
    memory: Memory,
    opened: Mutex<Vec<(Digest, u64)>>,
    read: Arc<AtomicU64>,
    /// Whether the last byte of large blobs is wrong.
    spoiled: AtomicBool,
}

impl Counting {
    fn opened(&self, digest: &Digest) -> usize {
        self.opened.lock().unwrap().iter().filter(|(found, _)| found == digest).count()
    }
}

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a source that counts")
    }
}

#[async_trait]
impl Source for Counting {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        self.memory.resolve(name).await
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        self.opened.lock().unwrap().push((descriptor.digest, range.offset));
        let mut bytes = self.memory.open_unverified(descriptor, range).await?.bytes().await?.to_vec();
        let length = bytes.len() as u64;
        if self.spoiled.load(Ordering::Relaxed) && length > CHUNK as u64 {
            *bytes.last_mut().unwrap() ^= 1;
        }
        let chunks: Vec<_> = bytes.chunks(CHUNK).map(Bytes::copy_from_slice).collect();
        let read = self.read.clone();
        Ok(Body::new(
            length,
            stream::iter(chunks).map(move |chunk| {
                read.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                Ok(chunk)
            }),
        ))
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        self.memory.has(descriptor).await
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.memory.referrers(subject).await
    }
}

/// How a target handles large blobs.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Manner {
    Good,
    /// Waits this many seconds before each chunk.
    Slow(u64),
    /// Fails after this many bytes.
    Fails(u64),
    /// Reads again after this many bytes, from the same offset or from the start.
    Resumes(u64),
    Restarts(u64),
}

#[derive(Debug)]
struct Place {
    memory: Memory,
    manner: Manner,
    /// Whether every large body was already checked.
    known: AtomicBool,
    done: Mutex<Option<Instant>>,
    again: AtomicUsize,
}

impl Place {
    fn new(manner: Manner) -> Arc<Place> {
        let (memory, known) = (Memory::new(), AtomicBool::new(true));
        Arc::new(Place { memory, manner, known, done: Mutex::default(), again: AtomicUsize::new(0) })
    }

    /// Reads the bytes of a blob in the manner of the target.
    async fn take(&self, blob: &Descriptor, from: &dyn Source) -> Result<Vec<u8>> {
        let mut body = from.open_unverified(blob, ByteRange::ALL).await?;
        if !body.is_known_to_be(&blob.digest) {
            self.known.store(false, Ordering::Relaxed);
            body = body.verified(blob, from);
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await.transpose()? {
            bytes.extend_from_slice(&chunk);
            let passed = bytes.len() as u64;
            match self.manner {
                Manner::Slow(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                Manner::Fails(after) if passed > after => {
                    return Err(Error::broken(self, "it has had enough"));
                }
                Manner::Resumes(after) if passed > after && self.again.fetch_add(1, Ordering::Relaxed) == 0 => {
                    body = from.open_unverified(blob, ByteRange::from(passed)).await?;
                }
                Manner::Restarts(after) if passed > after && self.again.fetch_add(1, Ordering::Relaxed) == 0 => {
                    bytes.clear();
                    body = from.open_unverified(blob, ByteRange::ALL).await?;
                }
                _ => {}
            }
        }
        Ok(bytes)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a place that is {:?}", self.manner)
    }
}

#[async_trait]
impl Source for Place {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        self.memory.resolve(name).await
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        self.memory.open_unverified(descriptor, range).await
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        self.memory.has(descriptor).await
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.memory.referrers(subject).await
    }
}

#[async_trait]
impl Sink for Place {
    async fn put(&self, blob: &Descriptor, from: &dyn Source) -> Result<Put> {
        if self.memory.has(blob).await? {
            return Ok(Put::Present);
        }
        let bytes =
            if blob.size > CHUNK as u64 { self.take(blob, from).await? } else { from.read(blob).await?.to_vec() };
        assert_eq!(Digest::sha256_of(&bytes), blob.digest);
        self.memory.insert(bytes);
        Ok(Put::Copied)
    }

    async fn publish(&self, root: &Descriptor, naming: &Naming) -> Result<()> {
        *self.done.lock().unwrap() = Some(Instant::now());
        self.memory.publish(root, naming).await
    }
}

/// Returns an image with layers of these lengths in a counting source, and its total size in bytes.
async fn image(layers: &[usize]) -> (Arc<Counting>, Root, u64) {
    let source = Counting::default();
    let image = testing::image(&source.memory, 1, &Platform::new("linux", "amd64"), layers);
    let source = Arc::new(source);
    let root = Root::at(source.clone(), image).await.unwrap();
    let memory: Arc<dyn Sink> = Arc::new(Memory::new());
    let all = copy(&root, &memory, &CopyOptions::default()).await.unwrap().count(Put::Copied).1;
    source.opened.lock().unwrap().clear();
    source.read.store(0, Ordering::Relaxed);
    (source, root, all)
}

fn targets(places: &[Arc<Place>]) -> Vec<Target> {
    let names = vec![Naming::of_tag("1".parse().unwrap())];
    places.iter().map(|place| Target { sink: place.clone(), names: names.clone() }).collect()
}

async fn has_it(place: &Place, root: &Root) -> bool {
    let found = place.resolve(&Name::Tag("1".parse().unwrap())).await;
    found.is_ok_and(|found| found.digest == root.digest())
}

const LAYERS: [usize; 3] = [10 * CHUNK, 70_000, 9 * CHUNK + 5];

#[tokio::test(flavor = "multi_thread")]
async fn reads_and_hashes_each_blob_once_for_all_targets() {
    let (source, root, all) = image(&LAYERS).await;
    let places: Vec<_> = (0..5).map(|_| Place::new(Manner::Good)).collect();
    for outcome in copy_to_each(&root, &targets(&places), &CopyOptions::default()).await {
        assert_eq!(outcome.unwrap().count(Put::Copied), (5, all));
    }
    let documents = source.opened(&root.digest());
    assert_eq!(source.read.load(Ordering::Relaxed), all, "{documents}");
    assert_eq!(source.opened.lock().unwrap().len(), 5);
    for place in &places {
        assert!(has_it(place, &root).await);
        assert!(place.known.load(Ordering::Relaxed), "no target hashes the bytes again");
    }
    // Blobs that exist are not read.
    let read = source.read.load(Ordering::Relaxed);
    let some = [places[0].clone(), Place::new(Manner::Good), places[1].clone()];
    let again = copy_to_each(&root, &targets(&some), &CopyOptions::default()).await;
    let sent: Vec<_> = again.into_iter().map(|outcome| outcome.unwrap().count(Put::Copied).1).collect();
    assert_eq!((sent, source.read.load(Ordering::Relaxed) - read), (vec![0, all, 0], all));
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_target_does_not_stop_the_others() {
    let (source, root, all) = image(&LAYERS).await;
    for after in [0, 3 * CHUNK as u64, 9 * CHUNK as u64] {
        source.read.store(0, Ordering::Relaxed);
        let places = [Manner::Good, Manner::Fails(after), Manner::Good].map(Place::new);
        let outcomes = copy_to_each(&root, &targets(&places), &CopyOptions::default()).await;
        assert!(matches!(&outcomes[1], Err(Error::Broken { place, .. }) if place.contains("Fails")));
        for (place, outcome) in places.iter().zip(&outcomes) {
            assert_eq!(has_it(place, &root).await, outcome.is_ok());
        }
        assert!(outcomes[0].is_ok() && outcomes[2].is_ok());
        assert_eq!(source.read.load(Ordering::Relaxed), all);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn target_that_restarts_reads_by_itself() {
    for (manner, more) in [
        (Manner::Resumes(5 * CHUNK as u64), 2 * LAYERS[0] as u64),
        (Manner::Restarts(6 * CHUNK as u64), LAYERS[0] as u64),
    ] {
        let (source, root, all) = image(&LAYERS[..1]).await;
        let places = [manner, Manner::Good, Manner::Good].map(Place::new);
        for (place, outcome) in places.iter().zip(copy_to_each(&root, &targets(&places), &CopyOptions::default()).await)
        {
            outcome.unwrap();
            assert!(has_it(place, &root).await);
        }
        let read = source.read.load(Ordering::Relaxed);
        assert!(read >= all && read <= all + more, "{manner:?}: {read} of {all}");
    }
}

#[tokio::test(start_paused = true)]
async fn slow_target_is_detached_after_the_maximum_delay() {
    let (source, root, all) = image(&[20 * CHUNK, 20 * CHUNK]).await;
    let begun = Instant::now();
    // Two layers in parallel, twenty chunks each: 40 s for the slow target.
    let places = [Manner::Good, Manner::Slow(2), Manner::Good].map(Place::new);
    for outcome in copy_to_each(&root, &targets(&places), &CopyOptions::default()).await {
        outcome.unwrap();
    }
    let took: Vec<_> = places.iter().map(|place| (place.done.lock().unwrap().unwrap() - begun).as_secs()).collect();
    assert!(took[0] <= 11 && took[2] <= 11 && took[0] >= 9, "{took:?}");
    assert!((40..=45).contains(&took[1]), "{took:?}");
    // The detached target reads only the rest, from where it was detached.
    let read = source.read.load(Ordering::Relaxed);
    assert!(read > all && read < 2 * all, "{read} of {all}");

    // A target that is only a little slower keeps up, and nothing is read twice.
    let (source, root, all) = image(&[8 * CHUNK]).await;
    let places = [Manner::Good, Manner::Slow(1)].map(Place::new);
    for outcome in copy_to_each(&root, &targets(&places), &CopyOptions::default()).await {
        outcome.unwrap();
    }
    assert_eq!(source.read.load(Ordering::Relaxed), all);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_image_is_published_nowhere() {
    let (source, root, _) = image(&LAYERS).await;
    source.spoiled.store(true, Ordering::Relaxed);
    let places = [Manner::Good, Manner::Good].map(Place::new);
    for (place, outcome) in places.iter().zip(copy_to_each(&root, &targets(&places), &CopyOptions::default()).await) {
        let Err(Error::Mismatch { mismatch, place: said, .. }) = outcome else { panic!("{outcome:?}") };
        assert!(matches!(*mismatch, Mismatch::Digest(_)) && said == "a source that counts");
        assert!(!has_it(place, &root).await);
    }
}

/// A source whose blobs can be opened once.
#[derive(Debug)]
struct Once(Arc<Counting>);

impl fmt::Display for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a pipe")
    }
}

#[async_trait]
impl Source for Once {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        self.0.resolve(name).await
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        assert_eq!((self.0.opened(&descriptor.digest), range), (0, ByteRange::ALL), "it cannot be read again");
        self.0.open_unverified(descriptor, range).await
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        self.0.has(descriptor).await
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.0.referrers(subject).await
    }
}

#[tokio::test(start_paused = true)]
async fn pipe_is_passed_to_all_targets_at_the_speed_of_the_slowest() {
    let (source, root, _) = image(&[20 * CHUNK]).await;
    let layer = root.document().unwrap().children().last().cloned().unwrap();
    let places = [Manner::Good, Manner::Slow(3), Manner::Fails(0), Manner::Restarts(19 * CHUNK as u64)].map(Place::new);
    let tee = Tee::new(places.iter().map(|place| place.clone() as Arc<dyn Sink>).collect());
    assert_eq!(tee.put(&layer, &Once(source.clone())).await.unwrap(), Put::Copied);
    assert_eq!(source.read.load(Ordering::Relaxed), layer.size);
    let outcomes = tee.outcomes();
    for position in [0, 1] {
        assert_eq!(outcomes[position].as_ref().unwrap()[&layer.digest], Put::Copied);
        assert!(places[position].has(&layer).await.unwrap());
    }
    assert!(matches!(&outcomes[2], Err(Error::Broken { .. })));
    assert!(matches!(&outcomes[3], Err(Error::Unsupported { what, .. }) if what.contains("only once")));
    // A single target behaves the same.
    let place = Place::new(Manner::Good);
    let tee = Tee::new(vec![place.clone()]);
    source.opened.lock().unwrap().clear();
    assert_eq!(tee.put(&layer, &Once(source.clone())).await.unwrap(), Put::Copied);
    assert_eq!(tee.put(&layer, &Once(source.clone())).await.unwrap(), Put::Present);
    // A target that failed receives no more blobs, and when all have failed the put fails.
    let places = [Manner::Fails(0), Manner::Fails(CHUNK as u64)].map(Place::new);
    let tee = Tee::new(places.iter().map(|place| place.clone() as Arc<dyn Sink>).collect());
    source.opened.lock().unwrap().clear();
    assert!(tee.put(&layer, &Once(source.clone())).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn several_roots_go_to_several_targets_and_each_blob_is_read_once() {
    let (source, one, _) = image(&LAYERS).await;
    let other = testing::image(&source.memory, 1, &Platform::new("linux", "amd64"), &[LAYERS[0], LAYERS[1], 5]);
    let other = Root::at(source.clone(), other).await.unwrap();
    let about = testing::referrer(&source.memory, other.descriptor(), "application/vnd.x");
    source.opened.lock().unwrap().clear();
    source.read.store(0, Ordering::Relaxed);
    let places: Vec<_> = (0..2).map(|_| Place::new(Manner::Good)).collect();
    let roots = [one, other].map(|root| {
        let tag = format!("n-{}", &root.digest().hex()[..8]).parse().unwrap();
        (root, vec![Naming::of_tag(tag)])
    });
    let sinks: Vec<Arc<dyn Sink>> = places.iter().map(|place| place.clone() as Arc<dyn Sink>).collect();
    let options = CopyOptions { referrers: Referrers::All, ..CopyOptions::default() };
    for copied in copy_all_to_each(&roots, &sinks, &options).await.all().unwrap() {
        assert_eq!(copied.iter().map(|copied| copied.blobs.len()).collect::<Vec<_>>(), [5, 3 + 2]);
        assert_eq!(copied[1].referrers.iter().map(|found| found.digest).collect::<Vec<_>>(), [about.digest]);
    }
    let mut opened = source.opened.lock().unwrap().clone();
    opened.retain(|(digest, _)| !roots.iter().any(|(root, _)| root.digest() == *digest) && *digest != about.digest);
    let count = opened.len();
    opened.sort();
    opened.dedup();
    assert_eq!(opened.len(), count, "no blob is read twice");
    for (place, (root, names)) in places.iter().flat_map(|place| roots.iter().map(move |root| (place, root))) {
        let name = Name::Tag(names[0].tag.clone().unwrap());
        assert_eq!(place.resolve(&name).await.unwrap().digest, root.digest());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_that_lack_different_referrers_receive_theirs() {
    let (source, root, _) = image(&LAYERS[1..2]).await;
    let about = testing::referrer(&source.memory, root.descriptor(), "application/vnd.x");
    let places: Vec<_> = (0..3).map(|_| Place::new(Manner::Good)).collect();
    let options = CopyOptions { referrers: Referrers::All, ..CopyOptions::default() };
    // The first has the root alone, the second has both.
    copy_to_each(&root, &targets(&places[..1]), &CopyOptions::default()).await.all().unwrap();
    copy_to_each(&root, &targets(&places[1..2]), &options).await.all().unwrap();
    copy_to_each(&root, &targets(&places), &options).await.all().unwrap();
    for place in &places {
        assert!(has_it(place, &root).await && place.has(&about).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_copy_leaves_no_visible_root_and_stops() {
    for count in [1, 3] {
        let (source, root, _) = image(&[20 * CHUNK, 20 * CHUNK]).await;
        let places: Vec<_> = (0..count).map(|_| Place::new(Manner::Slow(1))).collect();
        let (targets, options) = (targets(&places), CopyOptions::default());
        let copy = copy_to_each(&root, &targets, &options);
        assert!(tokio::time::timeout(Duration::from_secs(5), copy).await.is_err());
        tokio::time::sleep(Duration::from_secs(1)).await;
        let read = source.read.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(source.read.load(Ordering::Relaxed), read, "nothing reads any more");
        for place in &places {
            assert!(!has_it(place, &root).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_target_reads_from_the_source_itself() {
    let (source, root, all) = image(&LAYERS).await;
    let places = [Place::new(Manner::Restarts(6 * CHUNK as u64))];
    copy_to_each(&root, &targets(&places), &CopyOptions::default()).await.all().unwrap();
    assert!(has_it(&places[0], &root).await);
    // Without a channel, nothing is read ahead: the sink hashes what it reads, and the rest of its second read.
    assert!(!places[0].known.load(Ordering::Relaxed));
    assert!(source.read.load(Ordering::Relaxed) <= all + 8 * CHUNK as u64);
}
