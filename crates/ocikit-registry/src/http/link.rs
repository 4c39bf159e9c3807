//! The `Link` header of lists that come in pages.

use reqwest::Url;

use super::redirect;

/// The next page, if the header names one. RFC 8288; distribution specification, "Listing Tags".
///
/// # Errors
///
/// If it is elsewhere: pages of a list are where the list is.
pub(crate) fn next(from: &Url, header: &str) -> Result<Option<Url>, String> {
    let Some(target) = target(header) else { return Ok(None) };
    let url = redirect::resolve(from, target)?;
    if !redirect::same_server(from, &url) {
        return Err(format!("the next page of the list is on another host, {}", redirect::shown(&url)));
    }
    Ok(Some(url))
}

/// The target of the link whose relation is `next`.
fn target(header: &str) -> Option<&str> {
    let mut rest = header;
    while let Some((_, after)) = rest.split_once('<') {
        let (target, after) = after.split_once('>')?;
        // Up to the next link: targets may hold commas and semicolons, quoted parameters no `<`.
        let parameters = after.split('<').next().unwrap_or_default();
        if parameters.split([';', ',']).any(is_next) {
            return Some(target.trim());
        }
        rest = after;
    }
    None
}

fn is_next(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return false };
    let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
    name.trim().eq_ignore_ascii_case("rel") && relations.any(|relation| relation.eq_ignore_ascii_case("next"))
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
            (r#"</p>; title="rel=next""#, Ok(None)),
            ("", Ok(None)),
            ("</p", Ok(None)),
            (r#"<https://b/p>; rel="next""#, Err(())),
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
