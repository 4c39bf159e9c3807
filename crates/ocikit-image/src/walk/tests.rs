use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use proptest::prelude::*;

use super::limits::MAX_DEPTH;
use super::*;
use crate::body::Body;
use crate::memory::Memory;
use crate::source::ByteRange;
use crate::testing;

/// A memory that counts the reads of each digest and those at the same time.
#[derive(Debug, Default)]
struct Counting {
    memory: Arc<Memory>,
    reads: std::sync::Mutex<HashMap<Digest, usize>>,
    running: AtomicUsize,
    most: AtomicUsize,
    /// These do not exist.
    missing: HashSet<Digest>,
    /// Referrers besides those of the memory, which may form cycles.
    claimed: HashMap<Digest, Vec<Descriptor>>,
}

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("counting")
    }
}

#[async_trait]
impl Source for Counting {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        self.memory.resolve(name).await
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        *self.reads.lock().unwrap().entry(descriptor.digest).or_default() += 1;
        let running = self.running.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(running, Ordering::Relaxed);
        // Later reads may end first.
        for _ in 0..descriptor.digest.hex().as_bytes()[0] % 5 {
            tokio::task::yield_now().await;
        }
        self.running.fetch_sub(1, Ordering::Relaxed);
        match self.missing.contains(&descriptor.digest) {
            true => Err(Error::not_found(descriptor.digest, self)),
            false => self.memory.open_unverified(descriptor, range).await,
        }
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        self.memory.has(descriptor).await
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let mut found = self.memory.referrers(subject).await?;
        found.extend(self.claimed.get(subject).into_iter().flatten().cloned());
        Ok(found)
    }
}

/// One document of a random graph: its kind, the earlier documents that it lists, and whether it is missing.
type Plan = (u8, Vec<usize>, bool);

/// Builds the graph and returns its source and root.
fn build(plans: &[Plan], claims: &[(usize, usize)]) -> (Counting, Descriptor) {
    let memory = Arc::new(Memory::new());
    let platform = "linux/amd64".parse().unwrap();
    let mut documents: Vec<Descriptor> = Vec::new();
    let mut missing = HashSet::new();
    for (kind, picks, is_missing) in plans {
        let picked: Vec<_> =
            picks.iter().filter_map(|pick| documents.get(pick % documents.len().max(1)).cloned()).collect();
        let document = match (kind % 4, picked.first()) {
            (0, _) | (_, None) => {
                testing::image(&memory, picks.first().map_or(1, |seed| *seed as u64 % 5), &platform, &[10, 20])
            }
            (1, Some(subject)) => testing::referrer(&memory, subject, "application/x"),
            _ => testing::index(&memory, &picked),
        };
        if *is_missing {
            missing.insert(document.digest);
        }
        documents.push(document);
    }
    let root = testing::index(&memory, &documents.iter().rev().take(3).cloned().collect::<Vec<_>>());
    let mut claimed: HashMap<_, Vec<_>> = HashMap::new();
    for (subject, referrer) in claims {
        let (subject, referrer) = (&documents[subject % documents.len()], &documents[referrer % documents.len()]);
        claimed.entry(subject.digest).or_default().push(referrer.clone());
    }
    (Counting { memory, missing, claimed, ..Counting::default() }, root)
}

/// What is visited: the digest, whether it could be read, and how many steps from a subject it is.
type Visit = (Digest, bool, usize);

/// The same visits, by two nested loops over sets.
async fn naive(source: &Counting, root: &Descriptor) -> Vec<Visit> {
    let (mut seen, mut visits) = (HashSet::from([root.digest]), Vec::new());
    let mut parts = VecDeque::from([(root.clone(), true)]);
    for distance in 0.. {
        let mut subjects = Vec::new();
        while let Some((descriptor, is_read)) = parts.pop_front() {
            let document = match is_read {
                true => source.document(&descriptor).await.ok(),
                false => None,
            };
            visits.push((descriptor.digest, document.is_some(), distance));
            let Some(document) = document else { continue };
            subjects.push(descriptor.digest);
            for child in document.children() {
                if seen.insert(child.digest) {
                    parts.push_back((child.clone(), document.may_be_document(child)));
                }
            }
        }
        for subject in subjects {
            for referrer in source.referrers(&subject).await.unwrap() {
                if seen.insert(referrer.digest) {
                    parts.push_back((referrer, true));
                }
            }
        }
        if parts.is_empty() {
            return visits;
        }
    }
    unreachable!("the graph is finite")
}

async fn walked(source: &dyn Source, root: &Descriptor, limits: Limits) -> Result<Vec<Visit>> {
    let mut walk = Walk::new(source, limits);
    walk.start(root)?;
    let mut visits = Vec::new();
    while let Some(node) = walk.next().await {
        assert!(walk.ahead <= MAX_READ_AHEAD_BYTES && walk.running.len() <= MAX_PARALLEL_READS);
        let Node { descriptor, path, found, .. } = node;
        match found {
            Found::Referrers(found) => {
                for Referrer { descriptor, edge } in found? {
                    walk.add(&path, edge, &descriptor)?;
                }
                continue;
            }
            Found::Unread => visits.push((descriptor.digest, false, path.distance)),
            Found::Content(content) => {
                visits.push((descriptor.digest, content.is_ok(), path.distance));
                if let Ok(Content::Document(document)) = content {
                    walk.add_children(&path, &document)?;
                    walk.add_referrers(&path, &[]);
                }
            }
        }
        let parent = path.parent.as_ref().map(|parent| parent.digest);
        assert!(parent.is_none_or(|parent| visits.iter().any(|(digest, ..)| *digest == parent)), "parents come first");
    }
    Ok(visits)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn each_node_is_visited_once_as_in_a_naive_search(
        plans in prop::collection::vec((any::<u8>(), prop::collection::vec(0_usize..40, 1..60), prop::bool::weighted(0.1)), 1..25),
        claims in prop::collection::vec((0_usize..25, 0_usize..25), 0..6),
        most in 1_usize..30,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (source, root) = build(&plans, &claims);
            let (model, deep) = (naive(&source, &root).await, Limits { depth: usize::MAX, ..Limits::IMAGE });
            source.reads.lock().unwrap().clear();
            source.most.store(0, Ordering::Relaxed);
            let visits = walked(&source, &root, deep).await.unwrap();
            assert_eq!(visits, model);
            assert_eq!(visits.iter().map(|(digest, ..)| digest).collect::<HashSet<_>>().len(), visits.len());
            assert!(source.reads.lock().unwrap().values().all(|reads| *reads == 1));
            assert!(source.most.load(Ordering::Relaxed) <= MAX_PARALLEL_READS);

            // A limit that is exceeded is an error, and no more is read than it allows.
            source.reads.lock().unwrap().clear();
            let limited = walked(&source, &root, deep.with_documents(most)).await;
            let reads = source.reads.lock().unwrap().len();
            let referrers = visits.iter().filter(|(_, _, distance)| *distance > 0).count();
            assert!(limited.map_or_else(|error| matches!(error, Error::Broken { .. }), |visits| visits == model));
            assert!(reads <= most + referrers);
        });
    }
}

#[tokio::test]
async fn limits_are_errors() {
    let memory = Arc::new(Memory::new());
    let source: &dyn Source = &*memory;
    let image = testing::image(&memory, 1, &"linux/amd64".parse().unwrap(), &[10]);
    let mut root = image.clone();
    for _ in 0..MAX_DEPTH {
        root = testing::index(&memory, &[root]);
    }
    assert_eq!(walked(source, &root, Limits::IMAGE).await.unwrap().len(), MAX_DEPTH + 3);
    let deeper = walked(source, &testing::index(&memory, &[root.clone()]), Limits::IMAGE).await;
    assert!(matches!(deeper, Err(Error::Broken { .. })));

    let bytes = Limits { bytes: image.size, ..Limits::IMAGE };
    assert!(matches!(walked(source, &root, bytes).await, Err(Error::Unsupported { .. })));
    for _ in 0..3 {
        root = testing::referrer(&memory, &image, &format!("application/{}", root.digest.hex()));
    }
    let referrers = Limits { referrers: 2, ..Limits::IMAGE };
    assert!(walked(source, &image, referrers).await.is_err());
    assert_eq!(walked(source, &image, Limits { referrers: 3, ..referrers }).await.unwrap().len(), 7);
}

#[tokio::test]
async fn a_part_is_not_a_referrer_and_a_tag_is_a_node_of_its_own() {
    let memory = Arc::new(Memory::new());
    let image = testing::image(&memory, 1, &"linux/amd64".parse().unwrap(), &[10]);
    let listed = testing::referrer(&memory, &image, "application/listed");
    let root = testing::index(&memory, &[image.clone(), testing::index(&memory, std::slice::from_ref(&listed))]);
    let tag: Tag = format!("sha256-{}.sig", image.digest.hex()).parse().unwrap();
    let naming = crate::source::Naming::of_tag(tag.clone());
    crate::source::Sink::publish(&*memory, &listed, &naming).await.unwrap();
    let mut walk = Walk::new(&*memory, Limits::IMAGE);
    walk.start(&root).unwrap();
    let mut paths = Vec::new();
    while let Some(Node { path, found, .. }) = walk.next().await {
        match found {
            Found::Content(content) => {
                paths.push(path.to_string());
                if let Content::Document(document) = content.unwrap() {
                    walk.add_children(&path, &document).unwrap();
                    walk.add_referrers(&path, &["sig"]);
                }
            }
            Found::Referrers(found) => {
                for Referrer { descriptor, edge } in found.unwrap() {
                    walk.add(&path, edge, &descriptor).unwrap();
                }
            }
            Found::Unread => paths.push(path.to_string()),
        }
    }
    let expected = [
        "index",
        "index > manifests[0]",
        "index > manifests[1]",
        "index > manifests[0] > config",
        "index > manifests[0] > layers[0]",
        "index > manifests[1] > manifests[0]",
        "index > manifests[1] > manifests[0] > config",
        &format!("index > manifests[0] > {tag}"),
    ];
    assert_eq!(paths, expected);
}
