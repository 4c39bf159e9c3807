//! The responses of services that exchange tokens.

use ocikit_http::Document;
use serde::de::DeserializeOwned;

use super::error::ExchangeError;

/// The maximum size of a response, in bytes.
pub(super) const MAX_RESPONSE_BYTES: usize = 64 << 10;
/// The type of a form in a request.
pub(super) const FORM: &str = "application/x-www-form-urlencoded";
/// The type of JSON in a request.
pub(super) const JSON: &str = "application/json";

/// Returns the body of a successful response. The text of another one is not repeated, because it may be secret.
pub(super) fn body(service: &'static str, response: ocikit_sign::Result<Document>) -> Result<Document, ExchangeError> {
    let response = response.map_err(|error| ExchangeError::Service { service, problem: error.to_string() })?;
    match response.status {
        200..300 => Ok(response),
        status => Err(ExchangeError::Refused { service, status }),
    }
}

pub(super) fn json<T: DeserializeOwned>(
    service: &'static str,
    response: ocikit_sign::Result<Document>,
) -> Result<T, ExchangeError> {
    let response = body(service, response)?;
    serde_json::from_slice(&response.body).map_err(|_| other_form(service))
}

pub(super) fn other_form(service: &'static str) -> ExchangeError {
    ExchangeError::Service { service, problem: "its response has another form than documented".to_owned() }
}
