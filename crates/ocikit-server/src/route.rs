//! Maps method and path to an endpoint.
//!
//! The name of a repository contains slashes, so a path is parsed from its end. `axum`'s router cannot do that.

use std::fmt;

use axum::http::{Method, StatusCode};
use ocikit_spec::{Digest, Tag};
use percent_encoding::percent_decode_str;

use crate::name::RepositoryName;
use crate::refusal::{Code, Refusal, Result};

/// The path of the token endpoint. Not below `/v2/`, where a repository could have the same path.
pub(crate) const TOKEN_PATH: &str = "/token";

/// The endpoint and object of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Ping,
    Token,
    Catalog,
    Tags(RepositoryName),
    Referrers(RepositoryName, Digest),
    Manifest(RepositoryName, ManifestReference),
    Blob(RepositoryName, Digest),
    /// The collection of uploads.
    Uploads(RepositoryName),
    /// One upload, by its identifier.
    Upload(RepositoryName, String),
}

/// Names a manifest in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ManifestReference {
    Tag(Tag),
    Digest(Digest),
}

impl fmt::Display for ManifestReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ManifestReference::Tag(tag) => fmt::Display::fmt(tag, f),
            ManifestReference::Digest(digest) => fmt::Display::fmt(digest, f),
        }
    }
}

impl Route {
    /// Parses a path.
    ///
    /// An invalid reference is "manifest unknown" for a request that reads, and an error for one that writes.
    pub(crate) fn parse(method: &Method, path: &str) -> Result<Route> {
        let path = percent_decode_str(path)
            .decode_utf8()
            .map_err(|_| Refusal::invalid(Code::NameInvalid, "the path is not UTF-8"))?;
        match &*path {
            "/v2" | "/v2/" => return Ok(Route::Ping),
            "/v2/_catalog" => return Ok(Route::Catalog),
            TOKEN_PATH => return Ok(Route::Token),
            _ => {}
        }
        let path = path.strip_prefix("/v2/").ok_or_else(nothing_here)?;
        let (rest, last) = path.rsplit_once('/').ok_or_else(nothing_here)?;
        let (before, kind) = rest.rsplit_once('/').unwrap_or(("", rest));
        match kind {
            "manifests" => Ok(Route::Manifest(name(before)?, reference(method, last)?)),
            "tags" if last == "list" => Ok(Route::Tags(name(before)?)),
            "referrers" => Ok(Route::Referrers(name(before)?, digest(last)?)),
            "blobs" if last == "uploads" => Ok(Route::Uploads(name(before)?)),
            "blobs" => Ok(Route::Blob(name(before)?, digest(last)?)),
            "uploads" => {
                let name = name(before.strip_suffix("/blobs").ok_or_else(nothing_here)?)?;
                Ok(if last.is_empty() { Route::Uploads(name) } else { Route::Upload(name, last.to_owned()) })
            }
            _ => Err(nothing_here()),
        }
    }
}

fn nothing_here() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, Code::Unsupported, "the path is not an endpoint of the specification")
}

fn name(text: &str) -> Result<RepositoryName> {
    text.parse().map_err(|error| Refusal::invalid(Code::NameInvalid, error))
}

pub(crate) fn digest(text: &str) -> Result<Digest> {
    text.parse().map_err(|error| Refusal::invalid(Code::DigestInvalid, error))
}

fn reference(method: &Method, text: &str) -> Result<ManifestReference> {
    // Digests contain a colon and tags do not.
    let parsed = if text.contains(':') {
        text.parse().map(ManifestReference::Digest).map_err(|error| Refusal::invalid(Code::DigestInvalid, error))
    } else {
        text.parse().map(ManifestReference::Tag).map_err(|error| Refusal::invalid(Code::ManifestInvalid, error))
    };
    match *method {
        Method::GET | Method::HEAD => parsed.map_err(|_| Refusal::manifest_unknown("with this name")),
        _ => parsed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parse(path: &str) -> Result<Route, (u16, String)> {
        Route::parse(&Method::PUT, path).map_err(|refusal| (refusal.status.as_u16(), format!("{refusal:?}")))
    }

    #[test]
    fn paths_are_read_from_their_end() {
        let name = |text: &str| text.parse::<RepositoryName>().unwrap();
        let digest: Digest = DIGEST.parse().unwrap();
        let tag = |text: &str| ManifestReference::Tag(text.parse().unwrap());
        for (path, expected) in [
            ("/v2/".to_owned(), Route::Ping),
            ("/v2".to_owned(), Route::Ping),
            ("/token".to_owned(), Route::Token),
            ("/v2/_catalog".to_owned(), Route::Catalog),
            ("/v2/a/tags/list".to_owned(), Route::Tags(name("a"))),
            ("/v2/tags/tags/list".to_owned(), Route::Tags(name("tags"))),
            ("/v2/a/b/c/manifests/1.0".to_owned(), Route::Manifest(name("a/b/c"), tag("1.0"))),
            ("/v2/blobs/uploads/manifests/x".to_owned(), Route::Manifest(name("blobs/uploads"), tag("x"))),
            (format!("/v2/a/manifests/{DIGEST}"), Route::Manifest(name("a"), ManifestReference::Digest(digest))),
            (format!("/v2/a/blobs/{DIGEST}"), Route::Blob(name("a"), digest)),
            (format!("/v2/a/blobs/{}", DIGEST.replace(':', "%3A")), Route::Blob(name("a"), digest)),
            (format!("/v2/a%2Fb/blobs/{DIGEST}"), Route::Blob(name("a/b"), digest)),
            (format!("/v2/a/referrers/{DIGEST}"), Route::Referrers(name("a"), digest)),
            ("/v2/a/blobs/uploads/".to_owned(), Route::Uploads(name("a"))),
            ("/v2/a/blobs/uploads".to_owned(), Route::Uploads(name("a"))),
            ("/v2/a/b/blobs/uploads/1-2".to_owned(), Route::Upload(name("a/b"), "1-2".to_owned())),
        ] {
            assert_eq!(parse(&path), Ok(expected), "{path}");
        }
    }

    #[test]
    fn hostile_paths_are_refused() {
        for (path, status, code) in [
            ("/", 404, "Unsupported"),
            ("", 404, "Unsupported"),
            ("/v1/_ping", 404, "Unsupported"),
            ("/v2/a", 404, "Unsupported"),
            ("/v2/a/tags/other", 404, "Unsupported"),
            ("/v2/a/uploads/1", 404, "Unsupported"),
            ("/v2/tags/list", 400, "NameInvalid"),
            ("/v2//tags/list", 400, "NameInvalid"),
            ("/v2/A/tags/list", 400, "NameInvalid"),
            ("/v2/../tags/list", 400, "NameInvalid"),
            ("/v2/a/../../b/tags/list", 400, "NameInvalid"),
            ("/v2/%2e%2e/tags/list", 400, "NameInvalid"),
            ("/v2/a%00b/tags/list", 400, "NameInvalid"),
            ("/v2/_tags/tags/list", 400, "NameInvalid"),
            ("/v2/%ff/tags/list", 400, "NameInvalid"),
            ("/v2/a/manifests/.x", 400, "ManifestInvalid"),
            ("/v2/a/manifests/", 400, "ManifestInvalid"),
            ("/v2/a/manifests/sha256:x", 400, "DigestInvalid"),
            ("/v2/a/blobs/x", 400, "DigestInvalid"),
            ("/v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e", 400, "DigestInvalid"),
            ("/v2/a/blobs/sha256:..%2f..%2fetc%2fpasswd", 404, "Unsupported"),
            ("/v2/a/referrers/x", 400, "DigestInvalid"),
        ] {
            let (found, text) = parse(path).unwrap_err();
            assert_eq!(found, status, "{path}");
            assert!(text.contains(code), "{path}: {text}");
        }
    }

    #[test]
    fn invalid_reference_is_not_found_for_reads() {
        for reference in [".x", "sha256:x", "md5:d41d8cd98f00b204e9800998ecf8427e"] {
            let path = format!("/v2/a/manifests/{reference}");
            assert_eq!(Route::parse(&Method::GET, &path).unwrap_err().status, 404, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_path_is_parsed_without_panic(path in "(/v2)?(/[a-z0-9._%:-]{0,8}|/blobs|/uploads|/manifests|/tags|/list){0,7}|.*") {
            if let Ok(Route::Tags(name) | Route::Uploads(name) | Route::Upload(name, _)) =
                Route::parse(&Method::GET, &path)
            {
                proptest::prop_assert!(name.as_str().split('/').all(|part| !part.is_empty() && !part.starts_with(['.', '_'])));
            }
        }
    }
}
