//! Pagination: `n`, `last`, and the `Link` to the next page.

use crate::query::Query;

/// The requested part of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// Maximum number of entries.
    pub(crate) n: Option<usize>,
    /// Only entries after this one.
    pub(crate) last: Option<String>,
}

impl Page {
    /// Parses the parameters; `None` if `n` is not a number.
    pub(crate) fn of(query: &Query) -> Option<Page> {
        let n = query.get("n").map(str::parse).transpose().ok()?;
        Some(Page { n, last: query.get("last").map(str::to_owned) })
    }

    /// Returns the entries of this page of a sorted list, and whether there are more.
    ///
    /// A page has at most `max_entries` entries, whatever `n` is. `n=0` returns an empty page without a next one.
    pub(crate) fn cut<T>(
        &self,
        list: impl Iterator<Item = T>,
        key: impl Fn(&T) -> String,
        max_entries: usize,
    ) -> (Vec<T>, bool) {
        let limit = self.n.unwrap_or(usize::MAX).min(max_entries);
        if limit == 0 {
            return (Vec::new(), false);
        }
        let mut rest = list.skip_while(|entry| self.last.as_ref().is_some_and(|last| key(entry) <= *last));
        let page: Vec<_> = rest.by_ref().take(limit).collect();
        let more = rest.next().is_some();
        (page, more)
    }

    /// Returns the `Link` header (RFC 8288) to the page after the entry `last`; `filter` is a parameter to repeat.
    pub(crate) fn link(&self, path: &str, last: &str, filter: Option<(&str, &str)>) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if let Some(n) = self.n {
            query.append_pair("n", &n.to_string());
        }
        query.append_pair("last", last);
        if let Some((key, value)) = filter {
            query.append_pair(key, value);
        }
        format!("<{path}?{}>; rel=\"next\"", query.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(query: &str) -> Page {
        Page::of(&Query::parse(Some(query))).unwrap()
    }

    #[test]
    fn lists_are_paginated() {
        let list = ["a", "b", "c", "d"];
        for (query, max_entries, expected, more) in [
            ("", 100, &["a", "b", "c", "d"][..], false),
            ("n=4", 100, &["a", "b", "c", "d"], false),
            ("n=2", 100, &["a", "b"], true),
            ("n=2&last=b", 100, &["c", "d"], false),
            ("n=2&last=bb", 100, &["c", "d"], false),
            ("last=c", 100, &["d"], false),
            ("last=z", 100, &[], false),
            ("n=0", 100, &[], false),
            ("", 3, &["a", "b", "c"], true),
            ("n=9", 3, &["a", "b", "c"], true),
        ] {
            let found = page(query).cut(list.iter().copied(), |entry| (*entry).to_owned(), max_entries);
            assert_eq!(found, (expected.to_vec(), more), "{query}");
        }
    }

    #[test]
    fn n_is_a_number() {
        for query in ["n=", "n=-1", "n=x", "n=1.5", "n=99999999999999999999999"] {
            assert_eq!(Page::of(&Query::parse(Some(query))), None, "{query}");
        }
    }

    #[test]
    fn the_link_leads_to_the_next_page() {
        assert_eq!(page("n=2").link("/v2/a/tags/list", "b", None), r#"</v2/a/tags/list?n=2&last=b>; rel="next""#);
        let link = page("").link("/x", "sha256:1", Some(("artifactType", "a/b+c")));
        assert_eq!(link, r#"</x?last=sha256%3A1&artifactType=a%2Fb%2Bc>; rel="next""#);
    }
}
