use std::collections::HashMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use ocikit_image::files::{FileTree, Node, Reader, Tree};
use ocikit_image::{DiffId, Error, Image, Layer, Result};
use ocikit_spec::{Algorithm, Config, Digest, Hasher};

use super::files;
use super::report::{Area, Class, Difference, Report};

/// How many layers are read at the same time. Each keeps a processor busy.
const AT_ONCE: usize = 4;

/// A layer, and the name that its config has for it if the config has one for each.
struct Named {
    layer: Layer,
    diff_id: Option<Digest>,
}

impl Named {
    fn digest(&self) -> Digest {
        self.layer.descriptor().digest
    }

    /// Whether two layers have the same tar, as far as digests tell.
    fn is_same(&self, other: &Named) -> bool {
        self.digest() == other.digest() || self.diff_id.is_some() && self.diff_id == other.diff_id
    }

    fn shown(&self) -> Option<String> {
        let descriptor = self.layer.descriptor();
        Some(format!("{} {} {} bytes", descriptor.digest, descriptor.media_type, descriptor.size))
    }
}

fn named(image: &Image, config: &Config) -> Vec<Named> {
    let diff_ids = &config.rootfs().diff_ids;
    let layers: Vec<_> = image.layers().collect();
    let known = diff_ids.len() == layers.len();
    let diff_id = |at: usize| diff_ids.get(at).filter(|_| known).copied();
    layers.into_iter().enumerate().map(|(at, layer)| Named { layer, diff_id: diff_id(at) }).collect()
}

/// Compares the layers of two images, and their files if any layer differs.
pub(crate) async fn compare(report: &mut Report, left: (&Image, &Config), right: (&Image, &Config)) -> Result<()> {
    let (lefts, rights) = (named(left.0, left.1), named(right.0, right.1));
    let same = lefts.len() == rights.len() && lefts.iter().zip(&rights).all(|(one, other)| one.is_same(other));
    if same {
        for (at, (one, other)) in lefts.iter().zip(&rights).enumerate() {
            recompressed(report, at, one, other);
        }
        return Ok(());
    }
    let trees = read(&lefts.iter().chain(&rights).collect::<Vec<_>>()).await?;
    let merged = |image: &Image, layers: &[Named]| -> Result<FileTree> {
        let mut files = FileTree::new();
        for layer in layers {
            let place = || format!("image {} in {}", image.digest(), image.source());
            files.apply(&trees[&layer.digest()]).map_err(|error| Error::broken(place(), error))?;
        }
        Ok(files)
    };
    let mut below = Report::default();
    files::compare(&mut below, &merged(left.0, &lefts)?, &merged(right.0, &rights)?);
    let worst = worst(&below);
    pairs(report, &lefts, &rights, &trees, worst);
    below.differences.into_iter().for_each(|difference| report.add(difference));
    Ok(())
}

/// The trees of these layers, with the digests of their files, each layer read once.
async fn read(layers: &[&Named]) -> Result<HashMap<Digest, Arc<Tree>>> {
    let mut wanted: Vec<(Vec<Digest>, Layer)> = Vec::new();
    let mut by_diff_id: HashMap<Digest, usize> = HashMap::new();
    for named in layers {
        let known = wanted.iter().position(|(digests, _)| digests.contains(&named.digest()));
        let same = named.diff_id.and_then(|diff_id| by_diff_id.get(&diff_id).copied());
        let at = known.or(same).unwrap_or(wanted.len());
        match wanted.get_mut(at) {
            Some((digests, _)) => digests.push(named.digest()),
            None => wanted.push((vec![named.digest()], named.layer.clone())),
        }
        by_diff_id.extend(named.diff_id.map(|diff_id| (diff_id, at)));
    }
    let reads =
        wanted.into_iter().map(async |(digests, layer)| Ok::<_, Error>((digests, Arc::new(tree(&layer).await?))));
    let mut trees = HashMap::new();
    let mut read = stream::iter(reads).buffer_unordered(AT_ONCE).boxed();
    while let Some((digests, tree)) = read.try_next().await? {
        trees.extend(digests.into_iter().map(|digest| (digest, tree.clone())));
    }
    Ok(trees)
}

async fn tree(layer: &Layer) -> Result<Tree> {
    let work = |tar: &mut ocikit_image::LayerTar<'_>| {
        let mut buffer = vec![0; 64 << 10];
        Tree::read_with(&mut Reader::new(tar), |_, _, reader| {
            let mut hasher = Hasher::new(Algorithm::Sha256);
            loop {
                match std::io::Read::read(reader, &mut buffer)? {
                    0 => return Ok(Some(hasher.finish())),
                    read => hasher.update(&buffer[..read]),
                }
            }
        })
    };
    Ok(layer.decode(DiffId::Skip, work).await?.0)
}

/// What matters most of what was found; how an image is cut into layers does not matter if nothing else does.
fn worst(report: &Report) -> Class {
    let has = |class: Class| report.differences.iter().any(|difference| difference.class == class);
    [Class::Semantic, Class::Time].into_iter().find(|class| has(*class)).unwrap_or(Class::Encoding)
}

/// Reports layers that differ, side by side where there are equally many between those that are the same.
fn pairs(report: &mut Report, lefts: &[Named], rights: &[Named], trees: &HashMap<Digest, Arc<Tree>>, worst: Class) {
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
            // What another layer hides anyway makes no difference.
            let class = class_of(&trees[&one.digest()], &trees[&other.digest()]).max(worst);
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

fn recompressed(report: &mut Report, at: usize, one: &Named, other: &Named) {
    if one.digest() != other.digest() {
        let difference = Difference::of(Area::Layer, at.to_string(), Class::Encoding, one.shown(), other.shown());
        report.add(difference.about("compression"));
    }
}

/// How much two layers differ: in nothing but the form of their tars, in times only, or in earnest.
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
