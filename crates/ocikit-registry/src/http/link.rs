//! The `Link` header of lists that come in pages.

use reqwest::Url;

/// The next page, if the header names one. RFC 8288; distribution specification, "Listing Tags". Read as leniently as other
/// clients do: crane and skopeo ask for no `rel`, and skopeo for no angle brackets.
///
/// # Errors
///
/// If the header makes no sense: then the list may have more pages than are known.
pub(crate) fn next(from: &Url, header: &str) -> Result<Option<Url>, String> {
    let Some(target) = target(header)? else { return Ok(None) };
    let next = from.join(target).map_err(|error| format!("its next page is at no URL: {error}"))?;
    if !matches!(next.scheme(), "http" | "https") {
        return Err(format!("its next page is at a URL with the scheme `{}`", next.scheme()));
    }
    // A registry behind a proxy may not know its own name. Pages of a list are where the list is, so only path and query
    // count, as they do for skopeo.
    let mut url = from.clone();
    url.set_path(next.path());
    url.set_query(next.query());
    Ok(Some(url))
}

/// The target of the link whose relation is `next`, or that has no relation.
fn target(header: &str) -> Result<Option<&str>, String> {
    let mut rest = header.trim_matches([' ', '\t', ',']);
    if !rest.is_empty() && !rest.starts_with('<') {
        let (target, parameters) = rest.split_once(';').unwrap_or((rest, ""));
        return Ok(is_next(parameters).then_some(target.trim()));
    }
    while let Some((_, after)) = rest.split_once('<') {
        let (target, after) = after.split_once('>').ok_or_else(|| "its `Link` header makes no sense".to_owned())?;
        // Up to the next link: targets may hold commas and semicolons, quoted parameters no `<`.
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
    fn finds_the_next_page() {
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
            let shown = found.as_ref().map(|url| url.as_ref().map(Url::as_str)).map_err(drop);
            assert_eq!(shown, expected, "{header}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_read_or_ignored(header in ".*|[<>;,=a-z\"/ ]{0,40}") {
            let _ = next(&"https://a/".parse().unwrap(), &header);
        }
    }
}
