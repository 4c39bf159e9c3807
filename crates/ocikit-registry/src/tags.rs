use std::collections::HashSet;

use ocikit_http::{Method, Url};
use ocikit_image::{Error, Result};
use ocikit_spec::BoundedList;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};

use crate::auth::Scopes;
use crate::call::{Fetched, Refusal};
use crate::link;
use crate::target::Target;

/// Maximum size of one page of a list.
const MAX_PAGE_BYTES: u64 = 16 << 20;

/// Maximum number of pages, in case a list never ends.
const MAX_PAGES: usize = 100_000;

/// Maximum size of all pages together.
const MAX_LIST_BYTES: u64 = 64 << 20;

/// Maximum number of entries in a list.
const MAX_LIST_ENTRIES: usize = 500_000;

/// The entries of one page.
type Names = BoundedList<String, MAX_LIST_ENTRIES>;

/// Selects a part of a list; all of it by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListOptions {
    /// Maximum number of entries.
    pub limit: Option<usize>,
    /// Only entries that the registry lists after this one.
    pub after: Option<String>,
}

ocikit_spec::setters! {
    ListOptions {
        limit: Option<usize>,
        after: Option<String>,
    }
}

impl ListOptions {
    fn apply(&self, mut url: Url) -> Url {
        if let Some(limit) = self.limit {
            url.append_query("n", &limit.to_string());
        }
        if let Some(after) = &self.after {
            url.append_query("last", after);
        }
        url
    }
}

/// Returns the tags of a repository, in the order of the registry.
pub(crate) async fn list(target: &Target, options: &ListOptions) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Page {
        name: Option<IgnoredAny>,
        #[serde(default, deserialize_with = "present")]
        tags: Option<Names>,
    }
    let pages = Pages::new(target, target.access(), options.apply(target.tags()), "tags");
    // A page without `tags` is an empty list, as for Go's clients, which decode it so. It must have `name` then, since
    // an object without both may be anything.
    let entries = |page: Page| page.tags.or(page.name.map(|_| Names::default()));
    pages.entries(options, entries).await
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Names>, D::Error> {
    Names::deserialize(deserializer).map(Some)
}

/// Returns the repositories of a registry, in the order of the registry.
pub(crate) async fn catalog(registry: &Target, options: &ListOptions) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Page {
        repositories: Names,
    }
    let url = options.apply(registry.endpoint.url("_catalog"));
    let pages = Pages::new(registry, Scopes::catalog(), url, "repositories");
    pages.entries(options, |page: Page| Some(page.repositories)).await
}

/// A list that is read page by page.
pub(crate) struct Pages<'a> {
    target: &'a Target,
    access: Scopes,
    next: Option<Url>,
    /// The URLs of the pages read so far.
    seen: HashSet<Url>,
    /// The size of those pages in bytes.
    length: u64,
    what: &'static str,
}

impl<'a> Pages<'a> {
    pub(crate) fn new(target: &'a Target, access: Scopes, first: Url, what: &'static str) -> Pages<'a> {
        Pages { target, access, next: Some(first), seen: HashSet::new(), length: 0, what }
    }

    /// Reads the next page; `None` after the last page.
    pub(crate) async fn next(&mut self) -> Result<Option<Result<Fetched, Refusal>>> {
        let Some(asked) = self.next.take() else { return Ok(None) };
        let request = self.target.request(Method::GET, asked.clone());
        let fetched = match self.target.fetch(&self.access, request, MAX_PAGE_BYTES).await? {
            Ok(fetched) => fetched,
            Err(refusal) => return Ok(Some(Err(refusal))),
        };
        for header in fetched.headers.get_all("link") {
            let header = header.to_str().map_err(|_| self.broken("its `Link` header is malformed"))?;
            let next = link::next(&fetched.url, header).map_err(|problem| self.broken(&problem.to_string()))?;
            self.next = self.next.take().or(next);
        }
        self.seen.insert(asked);
        if self.next.as_ref().is_some_and(|next| self.seen.contains(next)) || self.seen.len() > MAX_PAGES {
            return Err(self.broken("it has no end"));
        }
        self.length += fetched.body.len() as u64;
        if self.length > MAX_LIST_BYTES {
            return Err(self.broken("it is too long"));
        }
        Ok(Some(Ok(fetched)))
    }

    /// Returns the entries of all pages, or of as many as the limit needs.
    async fn entries<T: DeserializeOwned>(
        mut self,
        options: &ListOptions,
        entries: impl Fn(T) -> Option<Names>,
    ) -> Result<Vec<String>> {
        let most = options.limit.unwrap_or(usize::MAX);
        let mut found = Vec::new();
        // The limit is applied here, since distribution before version 3 ignores `n` (distribution/distribution#1936).
        // A page may also have fewer entries than requested and a link to the next one.
        while found.len() < most
            && let Some(page) = self.next().await?
        {
            let Fetched { body, .. } = page.map_err(|refusal| refusal.error(self.what, &self.target.place))?;
            let page = serde_json::from_slice(&body).map_err(|error| self.broken(&error.to_string()))?;
            let mut page = entries(page).ok_or_else(|| self.broken("one of its pages is not a list"))?.0;
            // Distribution before version 3 ignores `last` too and always sends everything
            // (distribution/distribution#1936).
            if let Some(position) = page.iter().position(|entry| Some(entry) == options.after.as_ref()) {
                found.clear();
                page.drain(..=position);
            }
            found.append(&mut page);
            if found.len() > MAX_LIST_ENTRIES {
                return Err(self.broken(&format!("it has more than {MAX_LIST_ENTRIES} entries")));
            }
        }
        found.truncate(most);
        Ok(found)
    }

    pub(crate) fn broken(&self, problem: &str) -> Error {
        Error::protocol(&self.target.place, format!("its list of {} cannot be used: {problem}", self.what))
    }
}
