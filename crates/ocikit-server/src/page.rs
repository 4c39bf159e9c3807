//! Lists in pages: `n`, `last` and the `Link` to what follows.

use crate::query::Query;

/// What part of a list is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// At most this many.
    pub(crate) n: Option<usize>,
    /// Those behind this one.
    pub(crate) last: Option<String>,
}

impl Page {
    /// Reads the parameters; `None` if `n` is not a number.
    pub(crate) fn of(query: &Query) -> Option<Page> {
        let n = match query.get("n") {
            None => None,
            Some(text) => Some(text.parse().ok()?),
        };
        Some(Page { n, last: query.get("last").map(str::to_owned) })
    }

    /// The entries of this page out of a sorted list, and whether there are more.
    ///
    /// The server gives no more than `most` at once, whatever is asked for. Nothing asked for is nothing more to have.
    pub(crate) fn cut<T>(
        &self,
        list: impl Iterator<Item = T>,
        key: impl Fn(&T) -> String,
        most: usize,
    ) -> (Vec<T>, bool) {
        let limit = self.n.unwrap_or(usize::MAX).min(most);
        if limit == 0 {
            return (Vec::new(), false);
        }
        let mut rest = list.skip_while(|entry| self.last.as_ref().is_some_and(|last| key(entry) <= *last));
        let page: Vec<_> = rest.by_ref().take(limit).collect();
        let more = rest.next().is_some();
        (page, more)
    }

    /// The `Link` header (RFC 8288) to the page behind the entry `last`; `filter` is a parameter to be kept.
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
    fn a_list_is_cut_into_pages() {
        let list = ["a", "b", "c", "d"];
        for (query, most, expected, more) in [
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
            let found = page(query).cut(list.iter().copied(), |entry| (*entry).to_owned(), most);
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
