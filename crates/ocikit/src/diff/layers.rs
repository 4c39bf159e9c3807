use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use ocikit_image::files::{Budget, FileTree, Node, Reader, Tree};
use ocikit_image::{DiffId, Error, Image, Layer, Result};
use ocikit_spec::{Algorithm, Digest, Hasher};

use super::files;
use super::report::{Area, Class, Difference, Report};

/// The number of layers that are read in parallel: two zstd decoders with the maximum window size take 64 MiB.
const MAX_PARALLEL_LAYERS: usize = 2;

/// A layer of one of the images, and its contents.
struct Read {
    layer: Layer,
    /// The computed digest of its tar; the one in the config is not trusted.
    diff_id: Digest,
    tree: Arc<Tree>,
}

impl Read {
    fn digest(&self) -> Digest {
        self.layer.descriptor().digest
    }

    /// Returns whether two layers have the same tar.
    fn is_same(&self, other: &Read) -> bool {
        self.digest() == other.digest() || self.diff_id == other.diff_id
    }

    fn shown(&self) -> Option<String> {
        let descriptor = self.layer.descriptor();
        Some(format!("{} {} {} bytes", descriptor.digest, descriptor.media_type, descriptor.size))
    }
}

/// Compares the layers of two images, and their files if any layer differs.
pub(crate) async fn compare(report: &mut Report, left: &Image, right: &Image) -> Result<()> {
    let (lefts, rights) = (left.file_layers(), right.file_layers());
    let digests = |layers: &[Layer]| -> Vec<_> { layers.iter().map(|layer| layer.descriptor().digest).collect() };
    if digests(&lefts) == digests(&rights) {
        return Ok(());
    }
    let budget = Budget::new();
    let trees = read(lefts.iter().chain(&rights).cloned().collect(), &budget).await?;
    let with_trees = |layers: Vec<Layer>| -> Vec<Read> {
        let read = |layer: Layer| {
            let (diff_id, tree) = trees[&layer.descriptor().digest].clone();
            Read { layer, diff_id, tree }
        };
        layers.into_iter().map(read).collect()
    };
    let (lefts, rights) = (with_trees(lefts), with_trees(rights));
    let same = lefts.len() == rights.len() && lefts.iter().zip(&rights).all(|(one, other)| one.is_same(other));
    if same {
        for (at, (one, other)) in lefts.iter().zip(&rights).enumerate() {
            recompressed(report, at, one, other);
        }
        return Ok(());
    }
    let merged = |image: &Image, layers: &[Read]| -> Result<FileTree> {
        let mut files = FileTree::with_budget(&budget);
        for layer in layers {
            let place = || format!("image {} in {}", image.digest(), image.source());
            files.apply(&layer.tree).map_err(|error| Error::broken(place(), error))?;
        }
        Ok(files)
    };
    let mut below = Report::default();
    files::compare(&mut below, &merged(left, &lefts)?, &merged(right, &rights)?);
    let worst = worst(&below);
    pairs(report, &lefts, &rights, worst);
    below.differences.into_iter().for_each(|difference| report.add(difference));
    Ok(())
}

/// Reads each of these layers once and returns their trees with the digests of the files, and the digests of their
/// tars.
async fn read(layers: Vec<Layer>, budget: &Budget) -> Result<HashMap<Digest, (Digest, Arc<Tree>)>> {
    let mut known = HashSet::new();
    let wanted: Vec<_> = layers.into_iter().filter(|layer| known.insert(layer.descriptor().digest)).collect();
    let reads = wanted.into_iter().map(async |layer| {
        let (tree, diff_id) = tree(&layer, budget).await?;
        let digest = layer.descriptor().digest;
        Ok::<_, Error>((digest, (diff_id.unwrap_or(digest), Arc::new(tree))))
    });
    // Boxed, so that the future is `Send` whatever the closure borrows.
    stream::iter(reads).buffer_unordered(MAX_PARALLEL_LAYERS).boxed().try_collect().await
}

async fn tree(layer: &Layer, budget: &Budget) -> Result<(Tree, Option<Digest>)> {
    let within = budget.clone();
    let work = move |tar: &mut ocikit_image::LayerTar<'_>| {
        let mut buffer = vec![0; 64 << 10];
        Tree::read_with(&mut Reader::within(&within, tar), |_, _, reader| {
            let mut hasher = Hasher::new(Algorithm::Sha256);
            loop {
                match std::io::Read::read(reader, &mut buffer)? {
                    0 => return Ok(Some(hasher.finish())),
                    read => hasher.update(&buffer[..read]),
                }
            }
        })
    };
    layer.decode_within(budget, DiffId::Compute, work).await
}

/// Returns the most important class so far. Different layers alone do not matter if the files are the same.
fn worst(report: &Report) -> Class {
    let has = |class: Class| report.differences.iter().any(|difference| difference.class == class);
    [Class::Semantic, Class::Time].into_iter().find(|class| has(*class)).unwrap_or(Class::Encoding)
}

/// Reports the layers that differ, in pairs if both sides have equally many between two equal ones.
fn pairs(report: &mut Report, lefts: &[Read], rights: &[Read], worst: Class) {
    let start = lefts.iter().zip(rights).take_while(|(one, other)| one.is_same(other)).count();
    let rest = lefts.len().min(rights.len()) - start;
    let backwards = lefts.iter().rev().zip(rights.iter().rev()).take(rest);
    let end = backwards.take_while(|(one, other)| one.is_same(other)).count();
    let (one_middle, other_middle) = (start..lefts.len() - end, start..rights.len() - end);
    let paired = one_middle.len() == other_middle.len();
    for (at, (one, other)) in lefts.iter().zip(rights).enumerate() {
        if one.is_same(other) {
            recompressed(report, at, one, other);
        } else if paired && one_middle.contains(&at) {
            // A difference in files that a higher layer hides has no effect.
            let class = class_of(&one.tree, &other.tree).max(worst);
            report.add(Difference::of(Area::Layer, at.to_string(), class, one.shown(), other.shown()).about("content"));
        }
    }
    if !paired {
        for at in one_middle {
            report.add(Difference::of(Area::Layer, at.to_string(), worst, lefts[at].shown(), None));
        }
        for at in other_middle {
            report.add(Difference::of(Area::Layer, at.to_string(), worst, None, rights[at].shown()));
        }
    }
}

fn recompressed(report: &mut Report, at: usize, one: &Read, other: &Read) {
    if one.digest() != other.digest() {
        let difference = Difference::of(Area::Layer, at.to_string(), Class::Encoding, one.shown(), other.shown());
        report.add(difference.about("compression"));
    }
}

/// Returns how much two layers differ: only in the format of their tars, only in times, or in their files.
fn class_of(left: &Tree, right: &Tree) -> Class {
    if !left.hidden().eq(right.hidden()) || left.iter().count() != right.iter().count() {
        return Class::Semantic;
    }
    let mut class = Class::Encoding;
    for ((path, one), (other_path, other)) in left.iter().zip(right.iter()) {
        let pair = match (one, other) {
            _ if path != other_path => return Class::Semantic,
            (Node::Link(one), Node::Link(other)) if one == other => continue,
            (Node::File(one), Node::File(other)) => (one, other),
            _ => return Class::Semantic,
        };
        let mut below = Report::default();
        files::compare_files(&mut below, path, pair.0, pair.1);
        match worst(&below) {
            Class::Semantic => return Class::Semantic,
            Class::Time => class = Class::Time,
            _ => {}
        }
    }
    class
}
