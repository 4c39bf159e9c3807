//! Parses `Authorization` headers, and builds challenges.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::auth::scope::{Permission, Scope, join};
use crate::query::Query;
use crate::route::Route;

/// The contents of an `Authorization` header.
#[derive(PartialEq, Eq)]
pub(crate) enum Credentials {
    None,
    Basic {
        name: String,
        password: String,
    },
    Bearer(String),
    /// Neither of the two schemes, or malformed.
    Malformed,
}

impl Credentials {
    pub(crate) fn parse(header: Option<&str>) -> Credentials {
        let Some(header) = header else { return Credentials::None };
        let (scheme, rest) = header.split_once(' ').unwrap_or((header, ""));
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") && !rest.is_empty() {
            return Credentials::Bearer(rest.to_owned());
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Credentials::Malformed;
        }
        let decoded = STANDARD.decode(rest).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        match decoded.as_deref().and_then(|text| text.split_once(':')) {
            Some((name, password)) => Credentials::Basic { name: name.to_owned(), password: password.to_owned() },
            None => Credentials::Malformed,
        }
    }
}

/// The scopes that a request needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) scopes: Vec<Scope>,
    /// The scope of the repository to mount from. Without it the request starts an upload.
    pub(crate) optional: Option<Scope>,
}

impl Needs {
    pub(crate) fn of(method: &str, route: &Route, query: &Query) -> Needs {
        let name = match route {
            Route::Ping | Route::Token => return Needs::default(),
            Route::Catalog => return Needs { scopes: vec![Scope::catalog()], optional: None },
            Route::Tags(name) | Route::Referrers(name, _) | Route::Manifest(name, _) | Route::Blob(name, _) => name,
            Route::Uploads(name) | Route::Upload(name, _) => name,
        };
        let upload = matches!(route, Route::Uploads(_) | Route::Upload(..));
        let permissions = match method {
            // Querying and cancelling an upload are part of pushing.
            _ if upload => &[Permission::Pull, Permission::Push][..],
            "GET" | "HEAD" => &[Permission::Pull],
            "DELETE" => &[Permission::Delete],
            _ => &[Permission::Pull, Permission::Push],
        };
        let optional = match (route, query.get("mount"), query.get("from")) {
            (Route::Uploads(name), Some(_), Some(from)) if from != name.as_str() => from.parse().ok(),
            _ => None,
        };
        Needs {
            scopes: vec![Scope::repository(name, permissions)],
            optional: optional.map(|from| Scope::repository(&from, &[Permission::Pull])),
        }
    }

    /// Returns all scopes, the optional one included.
    pub(crate) fn all(&self) -> Vec<Scope> {
        self.scopes.iter().chain(&self.optional).cloned().collect()
    }
}

/// Returns a `WWW-Authenticate` header that names the token endpoint.
pub(crate) fn bearer_challenge(realm: &str, service: &str, needs: &Needs, error: Option<&str>) -> String {
    let mut challenge = format!("Bearer realm={},service={}", quoted(realm), quoted(service));
    let scopes = needs.all();
    if !scopes.is_empty() {
        challenge.push_str(&format!(",scope={}", quoted(&join(&scopes))));
    }
    if let Some(error) = error {
        challenge.push_str(&format!(",error={}", quoted(error)));
    }
    challenge
}

/// Returns a quoted string (RFC 9110, section 5.6.4); control characters are dropped.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars().filter(|character| !character.is_control()) {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;

    #[test]
    fn parses_credentials() {
        let basic = |name: &str, password: &str| Credentials::Basic { name: name.into(), password: password.into() };
        for (header, expected) in [
            (None, Credentials::None),
            (Some("Basic YTpi"), basic("a", "b")),
            (Some("basic  YTpi"), basic("a", "b")),
            (Some("Basic YTpiOmM="), basic("a", "b:c")),
            (Some("Basic YQ=="), Credentials::Malformed),
            (Some("Basic !"), Credentials::Malformed),
            (Some("Basic"), Credentials::Malformed),
            (Some("Bearer x.y"), Credentials::Bearer("x.y".into())),
            (Some("Bearer "), Credentials::Malformed),
            (Some("Digest x"), Credentials::Malformed),
            (Some(""), Credentials::Malformed),
        ] {
            assert!(Credentials::parse(header) == expected, "{header:?}");
        }
    }

    #[test]
    fn scopes_of_requests() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (method, target, expected) in [
            ("GET", "/v2/".to_owned(), ""),
            ("GET", "/token".to_owned(), ""),
            ("GET", "/v2/_catalog".to_owned(), "registry:catalog:*"),
            ("HEAD", "/v2/a/manifests/x".to_owned(), "repository:a:pull"),
            ("PUT", "/v2/a/manifests/x".to_owned(), "repository:a:pull,push"),
            ("DELETE", "/v2/a/manifests/x".to_owned(), "repository:a:delete"),
            ("GET", format!("/v2/a/blobs/{digest}"), "repository:a:pull"),
            ("GET", "/v2/a/tags/list".to_owned(), "repository:a:pull"),
            ("POST", "/v2/a/blobs/uploads/".to_owned(), "repository:a:pull,push"),
            ("GET", "/v2/a/blobs/uploads/1".to_owned(), "repository:a:pull,push"),
            ("DELETE", "/v2/a/blobs/uploads/1".to_owned(), "repository:a:pull,push"),
            ("POST", "/v2/a/blobs/uploads/?mount=x&from=b".to_owned(), "repository:a:pull,push repository:b:pull"),
            ("POST", "/v2/a/blobs/uploads/?mount=x&from=a".to_owned(), "repository:a:pull,push"),
            ("POST", "/v2/a/blobs/uploads/?mount=x&from=../b".to_owned(), "repository:a:pull,push"),
        ] {
            let (path, query) = target.split_once('?').map_or((&*target, None), |(path, query)| (path, Some(query)));
            let route = Route::parse(&Method::GET, path).unwrap();
            assert_eq!(join(&Needs::of(method, &route, &Query::parse(query)).all()), expected, "{method} {target}");
        }
    }

    #[test]
    fn a_challenge_names_realm_service_and_scopes() {
        let needs = Needs { scopes: vec![Scope::parse("repository:a:pull").unwrap()], optional: None };
        assert_eq!(
            bearer_challenge("http://x/token", "s\"", &needs, Some("invalid_token")),
            r#"Bearer realm="http://x/token",service="s\"",scope="repository:a:pull",error="invalid_token""#
        );
        assert_eq!(bearer_challenge("r", "s", &Needs::default(), None), r#"Bearer realm="r",service="s""#);
    }
}
