use std::fmt::Display;

use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use ocikit_spec::Digest;
use serde::Serialize;

use crate::chunk::Unfit;
use crate::name::RepositoryName;

/// An error response, in the JSON form of the specification.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    problems: Vec<Problem>,
    headers: Vec<(HeaderName, String)>,
    /// The internal cause, for the log; it is not sent to the client.
    pub(crate) cause: Option<String>,
}

#[derive(Debug, Serialize)]
struct Problem {
    code: Code,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<serde_json::Value>,
}

/// Distribution specification, "Error Codes".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    /// Not in the specification, whose codes are for client errors.
    Unknown,
}

pub(crate) type Result<T, E = Refusal> = std::result::Result<T, E>;

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: Code, message: impl Display) -> Refusal {
        let problem = Problem { code, message: message.to_string(), detail: None };
        Refusal { status, problems: vec![problem], headers: Vec::new(), cause: None }
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: impl Into<String>) -> Refusal {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn invalid(code: Code, message: impl Display) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(crate) fn unsupported(message: impl Display) -> Refusal {
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, message)
    }

    pub(crate) fn blob_unknown(digest: &Digest) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, Code::BlobUnknown, format_args!("blob {digest} does not exist"))
    }

    pub(crate) fn manifest_unknown(reference: impl Display) -> Refusal {
        let message = format_args!("manifest {reference} does not exist");
        Refusal::new(StatusCode::NOT_FOUND, Code::ManifestUnknown, message)
    }

    pub(crate) fn name_unknown(name: &RepositoryName) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, Code::NameUnknown, format_args!("repository {name} does not exist"))
    }

    pub(crate) fn upload_unknown() -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, Code::BlobUploadUnknown, "the upload does not exist")
    }

    /// Returns one problem for each missing child of a manifest.
    pub(crate) fn children_unknown(missing: &[Digest]) -> Refusal {
        let problem = |digest: &Digest| Problem {
            code: Code::ManifestBlobUnknown,
            message: format!("the manifest refers to {digest}, which does not exist"),
            detail: Some(serde_json::json!({ "digest": digest })),
        };
        let problems = missing.iter().map(problem).collect();
        Refusal { status: StatusCode::NOT_FOUND, problems, headers: Vec::new(), cause: None }
    }

    /// Returns status 500. The cause is logged and not sent.
    pub(crate) fn internal(cause: impl Display) -> Refusal {
        let refusal = Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown, "the registry failed");
        Refusal { cause: Some(cause.to_string()), ..refusal }
    }
}

/// Adds headers to a response. All values are ASCII: paths, digests, numbers.
pub(crate) fn append(response: &mut Response, headers: impl IntoIterator<Item = (HeaderName, String)>) {
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().append(name, value);
        }
    }
}

/// Returns a response with a document.
pub(crate) fn json(media_type: &str, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => ([(CONTENT_TYPE, media_type)], text).into_response(),
        Err(error) => Refusal::internal(error).into_response(),
    }
}

impl From<Unfit> for Refusal {
    fn from(unfit: Unfit) -> Refusal {
        match unfit {
            Unfit::OutOfOrder { .. } => Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid, unfit),
            Unfit::Length { .. } | Unfit::AfterShort { .. } => Refusal::invalid(Code::SizeInvalid, unfit),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct ErrorBody {
            errors: Vec<Problem>,
        }
        let body = serde_json::to_vec(&ErrorBody { errors: self.problems }).unwrap_or_default();
        let mut response = (self.status, [(CONTENT_TYPE, "application/json")], body).into_response();
        append(&mut response, self.headers);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn error_response_follows_the_specification() {
        let missing = [Digest::sha256_of(b"a"), Digest::sha256_of(b"b")];
        let response = Refusal::children_unknown(&missing).into_response();
        assert_eq!(response.status(), 404);
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["errors"][1]["code"], "MANIFEST_BLOB_UNKNOWN");
        assert_eq!(body["errors"][1]["detail"]["digest"], missing[1].to_string());
    }

    #[test]
    fn internal_causes_are_not_sent() {
        let refusal = Refusal::internal("disk on fire");
        assert_eq!(refusal.cause.as_deref(), Some("disk on fire"));
        assert!(!format!("{:?}", refusal.problems).contains("fire"));
    }
}
