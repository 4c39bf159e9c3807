//! Conditional requests: RFC 9110, section 13. The entity tag of content is its digest.

use axum::http::header::{HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH, IF_RANGE};
use ocikit_spec::Digest;

/// Returns the entity tag of content.
pub(crate) fn entity_tag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// The preconditions of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Condition {
    matches: Option<String>,
    none_matches: Option<String>,
}

/// Returns whether a list of entity tags, or `*`, names the current content.
fn names(tags: &str, current: Option<&Digest>) -> bool {
    let Some(digest) = current else { return false };
    // The content does not depend on its encoding here, so weak tags are equivalent to strong ones.
    let is_it = |tag: &str| tag.trim().trim_start_matches("W/") == entity_tag(digest);
    tags == "*" || tags.split(',').any(is_it)
}

impl Condition {
    pub(crate) fn of(headers: &HeaderMap) -> Condition {
        let tags = |name: HeaderName| Some(headers.get(name)?.to_str().ok()?.trim().to_owned());
        Condition { matches: tags(IF_MATCH), none_matches: tags(IF_NONE_MATCH) }
    }

    /// Returns whether a write is allowed, given the current content.
    pub(crate) fn holds(&self, current: Option<&Digest>) -> bool {
        self.matches.as_ref().is_none_or(|tags| names(tags, current)) && !self.is_known(current)
    }

    /// Returns whether the client already has the current content.
    pub(crate) fn is_known(&self, current: Option<&Digest>) -> bool {
        self.none_matches.as_ref().is_some_and(|tags| names(tags, current))
    }
}

/// Returns whether a range refers to this content (`If-Range`), and not to an earlier one.
pub(crate) fn range_holds(headers: &HeaderMap, digest: &Digest) -> bool {
    headers.get(IF_RANGE).is_none_or(|tag| tag.as_bytes() == entity_tag(digest).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluates_preconditions() {
        let (one, two) = (Digest::sha256_of(b"1"), Digest::sha256_of(b"2"));
        let tag = entity_tag(&one);
        let both = format!("\"x\", W/{tag}");
        for (name, value, for_one, for_two, for_nothing) in [
            (IF_MATCH, tag.as_str(), true, false, false),
            (IF_MATCH, &both, true, false, false),
            (IF_MATCH, "*", true, true, false),
            (IF_MATCH, "", false, false, false),
            (IF_NONE_MATCH, &tag, false, true, true),
            (IF_NONE_MATCH, "*", false, false, true),
            (IF_NONE_MATCH, "", true, true, true),
        ] {
            let headers = HeaderMap::from_iter([(name.clone(), value.parse().unwrap())]);
            let condition = Condition::of(&headers);
            let found = [Some(&one), Some(&two), None].map(|current| condition.holds(current));
            assert_eq!(found, [for_one, for_two, for_nothing], "{name}: {value}");
        }
        assert!(Condition::default().holds(None) && Condition::default().holds(Some(&one)));
    }
}
