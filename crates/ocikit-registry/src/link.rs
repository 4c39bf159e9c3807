//! Reads the `Link` header of paginated lists.

use ocikit_http::{InvalidUrl, Url};

/// Why a `Link` header cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidLink {
    #[error("its `Link` header is malformed")]
    Malformed,
    #[error("the URL of its next page is invalid: {0}")]
    NotUrl(InvalidUrl),
    #[error("the URL of its next page has the scheme `{0}`")]
    Scheme(String),
}

/// Returns the URL of the next page; `None` if the header names none. RFC 8288; distribution specification, "Listing
/// Tags". As lenient as other clients: crane and skopeo do not require `rel`, and skopeo does not require angle
/// brackets.
///
/// # Errors
///
/// If the header is malformed: then the list may have more pages than are known.
pub(crate) fn next(from: &Url, header: &str) -> Result<Option<Url>, InvalidLink> {
    let Some(target) = target(header)? else { return Ok(None) };
    let next = from.join(target).map_err(InvalidLink::NotUrl)?;
    if !matches!(next.scheme(), "http" | "https") {
        return Err(InvalidLink::Scheme(next.scheme().to_owned()));
    }
    // A registry behind a proxy may not know its own host name. As in skopeo, only path and query count: the next page
    // is on the host of the list.
    let mut url = from.clone();
    url.set_path_and_query(next.path(), next.query());
    Ok(Some(url))
}

/// Returns the target of the link whose relation is `next`, or that has no relation.
fn target(header: &str) -> Result<Option<&str>, InvalidLink> {
    let mut rest = header.trim_matches([' ', '\t', ',']);
    if !rest.is_empty() && !rest.starts_with('<') {
        let (target, parameters) = rest.split_once(';').unwrap_or((rest, ""));
        return Ok(is_next(parameters).then_some(target.trim()));
    }
    while let Some((_, after)) = rest.split_once('<') {
        let (target, after) = after.split_once('>').ok_or(InvalidLink::Malformed)?;
        // The parameters end at the next link: targets may contain commas and semicolons, but quoted parameters contain
        // no `<`.
        if is_next(after.split('<').next().unwrap_or_default()) {
            return Ok(Some(target.trim()));
        }
        rest = after;
    }
    Ok(None)
}

fn is_next(parameters: &str) -> bool {
    let pairs = parameters.split([';', ',']).filter_map(|parameter| parameter.split_once('='));
    let mut relations = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("rel")).map(|(_, value)| value);
    match relations.next() {
        None => true,
        Some(value) => {
            let mut words = value.trim().trim_matches(['"', '\'']).split_ascii_whitespace();
            words.any(|relation| relation.eq_ignore_ascii_case("next"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_link_to_next_page() {
        let from: Url = "https://a/v2/x/tags/list?n=2".parse().unwrap();
        for (header, expected) in [
            (r#"</v2/x/tags/list?n=2&last=b>; rel="next""#, Ok(Some("https://a/v2/x/tags/list?n=2&last=b"))),
            (r#"<https://a/v2/x/tags/list?last=b>;rel=next"#, Ok(Some("https://a/v2/x/tags/list?last=b"))),
            (r#"<http://a/v2/x/tags/list?last=b>;rel=next"#, Ok(Some("https://a/v2/x/tags/list?last=b"))),
            (r#"<?last=b>; rel="next""#, Ok(Some("https://a/v2/x/tags/list?last=b"))),
            (r#"</p?a=1,2;3>; rel="prev", </q>; title="x"; REL="last next""#, Ok(Some("https://a/q"))),
            (r#"</p>; rel="prev""#, Ok(None)),
            (r#"</p>; title="rel=prev""#, Ok(Some("https://a/p"))),
            (r#"</p?last=b>; rel='next'"#, Ok(Some("https://a/p?last=b"))),
            ("</p?last=b>", Ok(Some("https://a/p?last=b"))),
            (r#"/p?last=b; rel="next""#, Ok(Some("https://a/p?last=b"))),
            ("/p?last=b", Ok(Some("https://a/p?last=b"))),
            (r#"/p?last=b; rel="prev""#, Ok(None)),
            ("", Ok(None)),
            ("</p", Err(())),
            (r#"<https://b/p?last=b>; rel="next""#, Ok(Some("https://a/p?last=b"))),
            (r#"<http://internal:5000/p?last=b>; rel="next""#, Ok(Some("https://a/p?last=b"))),
            (r#"<ftp://a/p>; rel="next""#, Err(())),
        ] {
            let found = next(&from, header);
            let shown = found.as_ref().map(|url| url.as_ref().map(Url::reveal)).map_err(drop);
            assert_eq!(shown, expected, "{header}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_link_header_is_parsed_without_panic(header in ".*|[<>;,=a-z\"/ ]{0,40}") {
            let _ = next(&"https://a/".parse().unwrap(), &header);
        }
    }
}
