use std::fmt;

use aws_lc_rs::rand;

use super::{Authorities, MAX_TIMESTAMP_BYTES, VerifiedTimestamp, is_answer, request, token, verify};
use crate::algorithm::Hash;
use crate::error::{Error, Result};
use crate::http::{Http, failed, parsed};
use crate::pki::Certificate;
use crate::redact::Redacted;

/// A timestamp authority with an HTTP interface (RFC 3161, 3.4). It gets only the hash of a signature.
#[derive(Clone)]
pub struct TimestampAuthority {
    http: Http,
    url: String,
    roots: Vec<Certificate>,
}

impl fmt::Debug for TimestampAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimestampAuthority").field("url", &Redacted(&self.url)).finish_non_exhaustive()
    }
}

impl TimestampAuthority {
    /// Returns the authority at this URL; its certificates must lead to one of these roots.
    pub fn new(http: Http, url: String, roots: Vec<Certificate>) -> TimestampAuthority {
        TimestampAuthority { http, url, roots }
    }

    /// Requests a timestamp of a message. Returns the token and the verified timestamp.
    pub(crate) async fn stamp(&self, hash: Hash, message: &[u8]) -> Result<(Vec<u8>, VerifiedTimestamp)> {
        let url = parsed(&self.url)?;
        let refuse = |why: &dyn fmt::Display| failed(&url, why.to_string());
        let mut nonce = [0; 8];
        rand::fill(&mut nonce).map_err(|_| Error::Signer("the system has no randomness".to_owned()))?;
        let nonce = u64::from_be_bytes(nonce);
        let request_body = request(hash, message, nonce, true).map_err(|error| refuse(&error))?;
        let headers = [("accept", RESPONSE_TYPE)];
        let response =
            self.http.post(&self.url, REQUEST_TYPE, &headers, request_body, MAX_TIMESTAMP_BYTES as usize).await?;
        if response.status != 200 && response.status != 201 {
            return Err(refuse(&format_args!("it answers with status {}{}", response.status, response.times())));
        }
        if response.content_type.split(';').next().map(str::trim) != Some(RESPONSE_TYPE) {
            return Err(refuse(&"its response is not a timestamp"));
        }
        let token = token(&response.body).map_err(|why| refuse(&why))?;
        let authorities = Authorities { roots: &self.roots, others: &[] };
        let stamp = verify(token, message, authorities).map_err(|why| refuse(&why))?;
        match is_answer(&stamp, nonce) {
            true => Ok((token.to_vec(), stamp)),
            false => Err(refuse(&"its response is to another request")),
        }
    }
}

const REQUEST_TYPE: &str = "application/timestamp-query";
const RESPONSE_TYPE: &str = "application/timestamp-reply";
