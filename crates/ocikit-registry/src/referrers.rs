use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use futures::future::join;
use ocikit_image::walk::limits::MAX_REFERRERS;
use ocikit_image::{Error, Result};
use ocikit_spec::{BoundedList, Content, Descriptor, Digest, Document, Index, MediaType, Tag};
use serde::Deserialize;

use crate::call::{Fetched, Refusal};
use crate::inner::Inner;
use crate::manifests::{self, FetchedManifest, is_web_page};
use crate::tags::Pages;
use crate::target::{ManifestKey, Target};

/// Minimum delay before a tag that several clients extend is read again. A random part of up to the same length is added.
const MIN_REREAD_DELAY: Duration = Duration::from_millis(100);

/// Maximum delay before a tag that several clients extend is read again, without the random part.
const MAX_REREAD_DELAY: Duration = Duration::from_secs(2);

/// Maximum number of times that an index of referrers is written because another client overwrote it.
const MAX_INDEX_WRITES: u32 = 10;

/// Returns the referrers of a subject, each once, optionally of one artifact type.
///
/// If the registry has no referrers API, the fallback tag is read. Distribution specification, "Listing Referrers" and
/// "Referrers Tag Schema". A success whose body is no index is an error: an answer that was cut short, or the page of a
/// proxy, would otherwise count as an image without signatures.
pub(crate) async fn list(
    target: &Target,
    subject: &Digest,
    artifact_type: Option<&MediaType>,
) -> Result<Vec<Descriptor>> {
    let tag = fallback_tag(subject);
    let by_api = list_by_api(target, subject, artifact_type);
    // At a long round-trip time both are requested at once, instead of the tag only after the API has answered with
    // 404.
    let concurrently = target.inner.cache.lists_referrers(&target.endpoint).is_none()
        && target.inner.http.speculation(&target.endpoint.base).requests;
    let (listed, tagged) = match concurrently {
        true => {
            let (listed, tagged) = join(by_api, read_tagged(target, &tag)).await;
            (listed?, Some(tagged))
        }
        false => (by_api.await?, None),
    };
    let found = match listed {
        Listing::Complete(listed) => listed,
        Listing::Unsupported | Listing::Forbidden(_) => {
            let index = match tagged {
                Some(tagged) => tagged?,
                None => read_tagged(target, &tag).await?,
            };
            match (index, listed) {
                // The registry may have referrers that this client is not allowed to list.
                (None, Listing::Forbidden(refusal)) => return Err(refusal.error("referrers", &target.place)),
                (index, _) => of_type(index.map(|index| index.manifests().to_vec()).unwrap_or_default(), artifact_type),
            }
        }
    };
    let mut seen = HashSet::new();
    Ok(found.into_iter().filter(|found| seen.insert(found.digest)).collect())
}

/// The answer of the referrers API.
enum Listing {
    /// All referrers.
    Complete(Vec<Descriptor>),
    /// The registry has no such API.
    Unsupported,
    /// The client is not allowed to list referrers.
    Forbidden(Refusal),
}

/// Requests the referrers API.
async fn list_by_api(target: &Target, subject: &Digest, artifact_type: Option<&MediaType>) -> Result<Listing> {
    if target.inner.cache.lists_referrers(&target.endpoint) == Some(false) {
        return Ok(Listing::Unsupported);
    }
    #[derive(Deserialize)]
    struct Page {
        manifests: BoundedList<Descriptor, MAX_REFERRERS>,
    }
    let mut url = target.referrers(subject);
    if let Some(artifact_type) = artifact_type {
        url.append_query("artifactType", artifact_type.as_str());
    }
    let asked = url.path().to_owned();
    let mut pages = Pages::new(target, target.access(), url, "referrers");
    let mut found = Vec::new();
    let mut first = true;
    while let Some(page) = pages.next().await? {
        let Fetched { url, headers, body } = match page {
            Ok(page) => page,
            Err(refusal) if first && matches!(refusal.status, 401 | 403) => return Ok(Listing::Forbidden(refusal)),
            // Registries from before version 1.1 of the specification have no such route, or take it for another one.
            Err(refusal) if first && matches!(refusal.status, 400 | 404 | 405) => {
                // An unknown repository says nothing about the registry.
                if !refusal.problem.has("NAME_UNKNOWN") {
                    target.inner.cache.note_referrers(&target.endpoint, false);
                }
                return Ok(Listing::Unsupported);
            }
            Err(refusal) => return Err(refusal.error("referrers", &target.place)),
        };
        if is_web_page(&body) {
            // registry.k8s.io redirects requests for referrers to its website (oras-project/oras-go#633).
            if first && url.path() != asked {
                return Ok(Listing::Unsupported);
            }
            return Err(pages.broken("the answer is a web page"));
        }
        let page: Page = serde_json::from_slice(&body)
            .map_err(|error| pages.broken(&format!("the answer is not an index: {error}")))?;
        first = false;
        let applied = headers.get_all("oci-filters-applied").iter();
        let applied = applied.filter_map(|header| header.to_str().ok()).flat_map(|header| header.split(','));
        let filtered = applied.map(str::trim).any(|filter| filter.eq_ignore_ascii_case("artifactType"));
        found.extend(of_type(page.manifests.0, artifact_type.filter(|_| !filtered)));
        if found.len() > MAX_REFERRERS {
            return Err(pages.broken("it is too long"));
        }
    }
    target.inner.cache.note_referrers(&target.endpoint, true);
    Ok(Listing::Complete(found))
}

/// Returns whether clients have to maintain the list of referrers under the fallback tag.
pub(crate) async fn uses_fallback_tag(target: &Target, subject: &Digest) -> Result<bool> {
    Ok(!matches!(list_by_api(target, subject, None).await?, Listing::Complete(_)))
}

/// Adds a manifest to the referrers of its subject, where the registry does not do so by itself.
///
/// # Errors
///
/// [`Error::Referrers`]: a copy without referrers needs no such list. A push-only credential, for example, may not read
/// the fallback tag.
pub(crate) async fn add(target: &Target, found: &FetchedManifest) -> Result<()> {
    let Some((subject, entry)) = subject_and_entry(found) else { return Ok(()) };
    let added = edit(target, &subject, |index| match index {
        Some(index) if index.manifests().iter().any(|listed| listed.digest == entry.digest) => Ok(None),
        Some(index) => index.edit().push(&entry).finish().map(Some),
        None => Ok(Some(Index::of(std::slice::from_ref(&entry)))),
    });
    added.await.map_err(|error| Error::referrers_update(&subject, &target.place, error))
}

/// Adds an existing manifest to the referrers of its subject, in case an earlier push stopped before that.
pub(crate) async fn add_if_missing(target: &Target, found: &FetchedManifest) -> Result<()> {
    let Some((subject, _)) = subject_and_entry(found) else { return Ok(()) };
    let check = target.inner.cache.acquire_referrers_check(&target.endpoint).await;
    if target.inner.cache.lists_referrers(&target.endpoint) == Some(true) || !needs_entry(target, &subject).await? {
        return Ok(());
    }
    drop(check);
    add(target, found).await
}

/// As [`uses_fallback_tag`], with the error of [`add`].
async fn needs_entry(target: &Target, subject: &Digest) -> Result<bool> {
    let uses = uses_fallback_tag(target, subject).await;
    uses.map_err(|error| Error::referrers(subject, &target.place, error))
}

/// Returns whether a manifest is in the list of referrers of its subject.
///
/// # Errors
///
/// [`Error::Referrers`].
pub(crate) async fn is_listed(target: &Target, found: &FetchedManifest) -> Result<bool> {
    let Some((subject, entry)) = subject_and_entry(found) else { return Ok(true) };
    if !needs_entry(target, &subject).await? {
        return Ok(true);
    }
    let index = read_tagged(target, &fallback_tag(&subject)).await;
    let index = index.map_err(|error| Error::referrers(&subject, &target.place, error))?;
    Ok(index.is_some_and(|index| index.manifests().iter().any(|listed| listed.digest == entry.digest)))
}

/// Removes a deleted manifest from the list of referrers of its subject, if it is listed.
pub(crate) async fn remove(target: &Target, found: &FetchedManifest) -> Result<()> {
    let Some((subject, entry)) = subject_and_entry(found) else { return Ok(()) };
    edit(target, &subject, |index| {
        let listed = |index: &Index| index.manifests().iter().position(|listed| listed.digest == entry.digest);
        let Some((index, position)) = index.and_then(|index| Some((index, listed(index)?))) else { return Ok(None) };
        index.edit().remove(position).finish().map(Some)
    })
    .await
}

/// Edits the referrers index of a subject until the edit is a no-op.
///
/// The protocol has no lock and no conditional write. So the index is read again some time after each write: a client
/// whose index was overwritten adds its entry to the new one.
async fn edit(
    target: &Target,
    subject: &Digest,
    change: impl Fn(Option<&Index>) -> Result<Option<Index>, ocikit_spec::Error>,
) -> Result<()> {
    let tag = fallback_tag(subject);
    let mut is_returned = false;
    for attempt in 0..=MAX_INDEX_WRITES {
        let inflight = target.inner.cache.acquire_index(&target.endpoint, &target.path, subject).await;
        let started = target.inner.options.clock.now();
        let index = read_tagged(target, &tag).await?;
        is_returned |= attempt > 0 && index.is_some();
        let changed = change(index.as_ref());
        let changed = changed.map_err(|error| Error::document(subject, &target.place, error))?;
        let Some(changed) = changed else { return Ok(()) };
        if attempt == MAX_INDEX_WRITES {
            break;
        }
        let descriptor = Descriptor::of(changed.media_type(), changed.bytes());
        manifests::put(target, &ManifestKey::Tag(tag.clone()), &descriptor, changed.bytes().clone(), None).await?;
        drop(inflight);
        await_other_writers(&target.inner, started).await;
    }
    if !is_returned {
        return Err(Error::protocol(&target.place, format!("it accepted the tag {tag} and does not return it")));
    }
    Err(Error::broken(
        format!("the list of referrers of {subject} in {}", target.place),
        "another client keeps overwriting it",
    ))
}

/// Waits until another client that had read a tag before this one moved it has probably written too. `started` is the
/// time before this client read the tag: the other one needs about as long.
pub(crate) async fn await_other_writers(inner: &Inner, started: SystemTime) {
    let clock = &inner.options.clock;
    let took = clock.now().duration_since(started).unwrap_or_default();
    let least = took.saturating_mul(4).clamp(MIN_REREAD_DELAY, MAX_REREAD_DELAY);
    // Random, since clients in lockstep would overwrite each other's index forever.
    let chance = clock.random() as f64 / u64::MAX as f64;
    clock.sleep(least.mul_f64(1.0 + chance)).await;
}

/// Returns the index under a tag; `None` if the tag does not exist or names something else. GitLab resolves a tag that
/// looks like a digest to the image with that digest (oras-project/oras-go#1396).
async fn read_tagged(target: &Target, tag: &Tag) -> Result<Option<Index>> {
    let found = manifests::get(target, &ManifestKey::Tag(tag.clone()), &target.access()).await?;
    let is_subject = |found: &FetchedManifest| fallback_tag(&found.descriptor.digest) == *tag;
    let Some(found) = found.filter(|found| !is_subject(found)) else { return Ok(None) };
    let digest = found.descriptor.digest;
    // Otherwise the index would be overwritten and its entries lost.
    let invalid = |error| Error::document(&digest, &target.place, error);
    match found.descriptor.media_type.is_index() {
        true => Index::parse(found.bytes).map(Some).map_err(invalid),
        // Not the answer of a registry: a text, an error, or an answer that was cut short.
        false => Content::check_root(&found.bytes).map(|()| None).map_err(invalid),
    }
}

/// Returns the subject of a manifest, and the manifest's entry in the list of referrers.
pub(crate) fn subject_and_entry(found: &FetchedManifest) -> Option<(Digest, Descriptor)> {
    let document = Document::parse(&found.descriptor.media_type, found.bytes.clone()).ok()?;
    let subject = document.subject()?.digest;
    let artifact_type = document.listed_artifact_type().cloned();
    let annotations = document.annotations().clone();
    Some((subject, Descriptor { artifact_type, annotations, ..found.descriptor.bare() }))
}

fn of_type(found: Vec<Descriptor>, artifact_type: Option<&MediaType>) -> Vec<Descriptor> {
    let is_wanted =
        |found: &Descriptor| artifact_type.is_none_or(|wanted| found.artifact_type.as_ref() == Some(wanted));
    found.into_iter().filter(is_wanted).collect()
}

/// Returns the fallback tag of a subject.
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
    fn fallback_tag_is_a_valid_tag() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let digest = Digest::of(algorithm, b"x");
            let tag = fallback_tag(&digest).to_string();
            assert_eq!(tag, format!("{}-{}", algorithm.name(), &digest.hex()[..64]));
        }
    }
}
