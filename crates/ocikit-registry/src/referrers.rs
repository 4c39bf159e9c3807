use std::collections::HashSet;

use futures::future::join;
use ocikit_image::{Error, Result, retry};
use ocikit_spec::{BoundedList, Descriptor, Digest, Document, Index, MediaType, Tag};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::client::{Inner, Refusal};
use crate::manifests::{self, Found, Key};
use crate::tags::Pages;
use crate::target::Target;

/// How many referrers a registry may list, as many as an index of them could have.
const MOST: usize = 25_000;

/// How often an index of referrers is written again because somebody else wrote it too.
const ATTEMPTS: u32 = 10;

/// The manifests that are about a subject, each once, of one type if one is wanted.
///
/// Where the registry has no API for that, or answers nonsense, the index with the tag that the specification sets
/// aside tells. Distribution specification, "Listing Referrers" and "Referrers Tag Schema".
pub(crate) async fn list(
    inner: &Inner,
    target: &Target,
    subject: &Digest,
    artifact_type: Option<&MediaType>,
) -> Result<Vec<Descriptor>> {
    let tag = fallback_tag(subject);
    let asked = ask(inner, target, subject, artifact_type);
    // Where an answer is far away nobody waits for a no before asking on.
    let at_once = inner.memory.lists_referrers(&target.endpoint).is_none() && inner.http.is_far(&target.endpoint.base);
    let (listed, tagged) = match at_once {
        true => {
            let (listed, tagged) = join(asked, read_tagged(inner, target, &tag)).await;
            (listed?, Some(tagged))
        }
        false => (asked.await?, None),
    };
    let found = match listed {
        Listing::Complete(listed) => listed,
        Listing::Unsupported | Listing::Forbidden(_) => {
            let index = match tagged {
                Some(tagged) => tagged?,
                None => read_tagged(inner, target, &tag).await?,
            };
            match (index, listed) {
                // The registry may list referrers, and does not let us look.
                (None, Listing::Forbidden(refusal)) => return Err(refusal.error("referrers", &target.place)),
                (index, _) => of_type(index.map(|index| index.manifests().to_vec()).unwrap_or_default(), artifact_type),
            }
        }
    };
    let mut seen = HashSet::new();
    Ok(found.into_iter().filter(|found| seen.insert(found.digest)).collect())
}

/// What the API says.
enum Listing {
    /// All referrers.
    Complete(Vec<Descriptor>),
    /// The registry has no such API.
    Unsupported,
    /// It is not allowed to ask.
    Forbidden(Refusal),
}

/// Asks the API.
async fn ask(inner: &Inner, target: &Target, subject: &Digest, artifact_type: Option<&MediaType>) -> Result<Listing> {
    if inner.memory.lists_referrers(&target.endpoint) == Some(false) {
        return Ok(Listing::Unsupported);
    }
    #[derive(Deserialize)]
    struct Page {
        manifests: BoundedList<Descriptor, MOST>,
    }
    /// What tells a list from an image or an error, though it may be `null`.
    #[derive(Deserialize)]
    struct Shape {
        #[serde(rename = "manifests")]
        _manifests: IgnoredAny,
    }
    let mut url = target.referrers(subject);
    if let Some(artifact_type) = artifact_type {
        url.query_pairs_mut().append_pair("artifactType", artifact_type.as_str());
    }
    let mut pages = Pages::new(url, "referrers", &target.place);
    let mut found = Vec::new();
    let mut first = true;
    while let Some(page) = pages.next(inner, &target.endpoint, &target.access()).await? {
        let (headers, body) = match page {
            Ok(page) => page,
            // One that has too much to do may have the API all the same.
            Err(refusal) if first && (400..500).contains(&refusal.status) && !retry::is_passing(refusal.status) => {
                if matches!(refusal.status, 401 | 403) {
                    return Ok(Listing::Forbidden(refusal));
                }
                // A repository that does not exist says nothing about what the registry can do.
                if !refusal.problem.has("NAME_UNKNOWN") {
                    inner.memory.note_referrers(&target.endpoint, false);
                }
                return Ok(Listing::Unsupported);
            }
            Err(refusal) => return Err(refusal.error("referrers", &target.place)),
        };
        if serde_json::from_slice::<Shape>(&body).is_err() {
            let known = inner.memory.lists_referrers(&target.endpoint) == Some(true);
            return if first && !known {
                Ok(Listing::Unsupported)
            } else {
                Err(pages.broken("a page of it is no index"))
            };
        }
        let page: Page = serde_json::from_slice(&body).map_err(|error| pages.broken(&error.to_string()))?;
        first = false;
        let applied = headers.get_all("oci-filters-applied").iter();
        let applied = applied.filter_map(|header| header.to_str().ok()).flat_map(|header| header.split(','));
        let filtered = applied.map(str::trim).any(|filter| filter.eq_ignore_ascii_case("artifactType"));
        found.extend(of_type(page.manifests.0, artifact_type.filter(|_| !filtered)));
        if found.len() > MOST {
            return Err(pages.broken("it is too long"));
        }
    }
    inner.memory.note_referrers(&target.endpoint, true);
    Ok(Listing::Complete(found))
}

/// Whether the registry leaves it to its clients to keep the list of referrers.
pub(crate) async fn is_by_tag(inner: &Inner, target: &Target, subject: &Digest) -> Result<bool> {
    Ok(!matches!(ask(inner, target, subject, None).await?, Listing::Complete(_)))
}

/// Lists a manifest among the referrers of its subject where the registry does not do that by itself.
pub(crate) async fn add(inner: &Inner, target: &Target, found: &Found) -> Result<()> {
    let Some((subject, entry)) = described(found) else { return Ok(()) };
    edit(inner, target, &subject, |index| match index {
        Some(index) if index.manifests().iter().any(|listed| listed.digest == entry.digest) => Ok(None),
        Some(index) => index.edit().push(&entry).finish().map(Some),
        None => Ok(Some(Index::of(std::slice::from_ref(&entry)))),
    })
    .await
}

/// The same for a manifest that was there: whoever put it may have got no further than that.
pub(crate) async fn add_again(inner: &Inner, target: &Target, found: &Found) -> Result<()> {
    if inner.memory.lists_referrers(&target.endpoint) == Some(true) {
        return Ok(());
    }
    match described(found) {
        Some((subject, _)) if is_by_tag(inner, target, &subject).await? => add(inner, target, found).await,
        _ => Ok(()),
    }
}

/// Whether a manifest that was put is found by whoever looks for what is about its subject.
pub(crate) async fn is_listed(inner: &Inner, target: &Target, found: &Found) -> Result<bool> {
    let Some((subject, entry)) = described(found) else { return Ok(true) };
    if !is_by_tag(inner, target, &subject).await? {
        return Ok(true);
    }
    let index = read_tagged(inner, target, &fallback_tag(&subject)).await?;
    Ok(index.is_some_and(|index| index.manifests().iter().any(|listed| listed.digest == entry.digest)))
}

/// Takes a manifest that was removed out of the list of its subject's referrers, if it is there.
pub(crate) async fn remove(inner: &Inner, target: &Target, found: &Found) -> Result<()> {
    let Some((subject, entry)) = described(found) else { return Ok(()) };
    edit(inner, target, &subject, |index| {
        let listed = |index: &Index| index.manifests().iter().position(|listed| listed.digest == entry.digest);
        let Some((index, position)) = index.and_then(|index| Some((index, listed(index)?))) else { return Ok(None) };
        index.edit().remove(position).finish().map(Some)
    })
    .await
}

/// Changes the index of a subject's referrers until it is as it should be, that is until the change has nothing to
/// change.
///
/// The protocol has no way to write a tag only if nobody else did. So it is read again after it was written: whoever
/// finds that another's index replaced theirs adds themselves to that one.
async fn edit(
    inner: &Inner,
    target: &Target,
    subject: &Digest,
    change: impl Fn(Option<&Index>) -> Result<Option<Index>, ocikit_spec::Error>,
) -> Result<()> {
    let _alone = inner.memory.board_index(&target.endpoint, &target.path, subject).await;
    let tag = fallback_tag(subject);
    for attempt in 0..ATTEMPTS {
        let index = read_tagged(inner, target, &tag).await?;
        let changed = change(index.as_ref());
        let changed = changed.map_err(|error| Error::document(subject, &target.place, error))?;
        let Some(changed) = changed else { return Ok(()) };
        if attempt > 0 {
            // Two that keep in step would replace each other's forever.
            let pause = inner.http.pause(1, None).unwrap_or_default();
            inner.http.clock().sleep(pause).await;
        }
        let descriptor = Descriptor::of(changed.media_type(), changed.bytes());
        manifests::put(inner, target, &Key::Tag(tag.clone()), &descriptor, changed.bytes().clone()).await?;
    }
    Err(Error::broken(
        format!("the list of referrers of {subject} in {}", target.place),
        "somebody else keeps replacing it",
    ))
}

/// The index with a tag; `None` if there is no such tag, or if something else has it: GitLab answers a tag that looks like
/// a digest with what has the digest (oras-project/oras-go#1396).
async fn read_tagged(inner: &Inner, target: &Target, tag: &Tag) -> Result<Option<Index>> {
    let found = manifests::get(inner, target, &Key::Tag(tag.clone())).await?;
    let is_subject = |found: &Found| fallback_tag(&found.descriptor.digest) == *tag;
    let found = found.filter(|found| found.descriptor.media_type.is_index() && !is_subject(found));
    let Some(found) = found else { return Ok(None) };
    let digest = found.descriptor.digest;
    // Taken for no list, it would be replaced by one that lacks what this one has.
    Index::parse(found.bytes).map(Some).map_err(|error| Error::document(&digest, &target.place, error))
}

/// The subject of a manifest, and how the list of its referrers describes the manifest.
fn described(found: &Found) -> Option<(Digest, Descriptor)> {
    let document = Document::parse(&found.descriptor.media_type, found.bytes.clone()).ok()?;
    let subject = document.subject()?.digest;
    let artifact_type = match &document {
        Document::Manifest(manifest) => {
            let stated = manifest.artifact_type().or(manifest.config().map(|config| &config.media_type));
            stated.cloned()
        }
        Document::Index(index) => index.artifact_type().cloned(),
    };
    let Descriptor { media_type, digest, size, .. } = found.descriptor.clone();
    let annotations = document.annotations().clone();
    Some((subject, Descriptor { artifact_type, annotations, ..Descriptor::new(media_type, digest, size) }))
}

fn of_type(found: Vec<Descriptor>, artifact_type: Option<&MediaType>) -> Vec<Descriptor> {
    let is_wanted =
        |found: &Descriptor| artifact_type.is_none_or(|wanted| found.artifact_type.as_ref() == Some(wanted));
    found.into_iter().filter(is_wanted).collect()
}

/// The tag that stands for the referrers of a digest.
pub(crate) fn fallback_tag(subject: &Digest) -> Tag {
    let hex = subject.hex();
    let hex = &hex[..hex.len().min(64)];
    format!("{}-{hex}", subject.algorithm().name()).parse().expect("an algorithm, a dash and digits are a tag")
}

#[cfg(test)]
mod tests {
    use ocikit_spec::Algorithm;

    use super::*;

    #[test]
    fn the_tag_of_a_digest_is_a_tag() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let digest = Digest::of(algorithm, b"x");
            let tag = fallback_tag(&digest).to_string();
            assert_eq!(tag, format!("{}-{}", algorithm.name(), &digest.hex()[..64]));
        }
    }
}
