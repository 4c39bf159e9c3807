use ocikit_image::{Error, Result};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::auth::{Access, Scopes};
use crate::client::{Fetched, Inner};
use crate::endpoint::Endpoint;
use crate::http::link;
use crate::http::send::Request;
use crate::target::Target;

/// The longest page of a list that is read.
const LONGEST_PAGE: u64 = 32 << 20;

/// How many pages are read at most, against a registry whose list never ends.
const MOST_PAGES: usize = 100_000;

/// The tags of a repository, in the order in which the registry lists them.
pub(crate) async fn list(inner: &Inner, target: &Target) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Page {
        tags: Option<Vec<String>>,
    }
    let pages: Pages<Page> =
        Pages::read(inner, &target.endpoint, &target.access(), target.tags(), "tags", &target.place).await?;
    Ok(pages.0.into_iter().flat_map(|page| page.tags.unwrap_or_default()).collect())
}

/// The repositories of a registry, as it lists them.
pub(crate) async fn catalog(inner: &Inner, endpoint: &Endpoint) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Page {
        repositories: Option<Vec<String>>,
    }
    let access = Access { path: String::new(), scopes: Scopes::catalog() };
    let place = endpoint.registry.to_string();
    let first = endpoint.url("_catalog");
    let pages: Pages<Page> = Pages::read(inner, endpoint, &access, first, "repositories", &place).await?;
    Ok(pages.0.into_iter().flat_map(|page| page.repositories.unwrap_or_default()).collect())
}

/// All pages of a list.
pub(crate) struct Pages<T>(pub(crate) Vec<T>);

impl<T: DeserializeOwned> Pages<T> {
    pub(crate) async fn read(
        inner: &Inner,
        endpoint: &Endpoint,
        access: &Access,
        first: Url,
        what: &str,
        place: &str,
    ) -> Result<Pages<T>> {
        let mut pages = Vec::new();
        let mut next = Some(first);
        while let Some(url) = next.take() {
            let request = Request::new(Method::GET, url);
            let fetched = inner.fetch(endpoint, access, request, LONGEST_PAGE, place).await?;
            let Fetched { url, headers, body } = fetched.map_err(|refusal| refusal.error(what, place))?;
            let broken = |problem: String| Error::broken(format!("the list of {what} of {place}"), problem);
            pages.push(serde_json::from_slice(&body).map_err(|error| broken(error.to_string()))?);
            for header in headers.get_all("link").iter().filter_map(|header| header.to_str().ok()) {
                next = next.or(link::next(&url, header).map_err(broken)?);
            }
            if next.as_ref() == Some(&url) || pages.len() > MOST_PAGES {
                return Err(broken("it never ends".to_owned()));
            }
        }
        Ok(Pages(pages))
    }
}
