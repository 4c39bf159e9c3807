//! Signature Version 4 of Amazon's requests:
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use jiff::Timestamp;
use ocikit::registry::Secret;

/// The keys of a role or user.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct AwsKeys {
    pub(super) id: String,
    pub(super) secret: Secret,
    /// The token of temporary keys.
    pub(super) session: Option<Secret>,
}

impl fmt::Debug for AwsKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AwsKeys(***)")
    }
}

/// A request to sign: a POST without a query.
pub(super) struct Post<'a> {
    pub(super) service: &'a str,
    pub(super) region: &'a str,
    /// The host and, unless it is the default one, the port.
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    /// Further headers, with names in lower case.
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a [u8],
}

/// Returns the headers `x-amz-date`, `x-amz-security-token` for temporary keys, and `authorization`.
pub(super) fn sign(post: &Post<'_>, keys: &AwsKeys, now: Timestamp) -> Vec<(&'static str, Secret)> {
    let (date, time) = (now.strftime("%Y%m%d").to_string(), now.strftime("%Y%m%dT%H%M%SZ").to_string());
    let mut headers: Vec<(&str, &str)> = post.headers.to_vec();
    headers.extend([("host", post.host), ("x-amz-date", &time)]);
    headers.extend(keys.session.as_ref().map(|session| ("x-amz-security-token", session.reveal())));
    headers.sort_unstable();
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let canonical = format!("POST\n{}\n\n{lines}\n{names}\n{}", post.path, hashed(post.body));
    let scope = format!("{date}/{}/{}/aws4_request", post.region, post.service);
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hashed(canonical.as_bytes()));
    let first = format!("AWS4{}", keys.secret.reveal());
    let mut key = keyed(first.as_bytes(), date.as_bytes());
    for part in [post.region, post.service, "aws4_request"] {
        key = keyed(key.as_ref(), part.as_bytes());
    }
    let signature = hex::encode(keyed(key.as_ref(), text.as_bytes()));
    let authorization =
        format!("AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}", keys.id);
    let mut signed = vec![("x-amz-date", Secret::new(time.as_str())), ("authorization", Secret::new(authorization))];
    signed.extend(keys.session.iter().map(|session| ("x-amz-security-token", session.clone())));
    signed
}

fn keyed(key: &[u8], text: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text)
}

fn hashed(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors `post-vanilla` and `post-header-key-sort` of Amazon's test suite for Signature Version 4.
    #[test]
    fn signatures_are_those_of_the_test_suite() {
        let keys = AwsKeys {
            id: "AKIDEXAMPLE".to_owned(),
            secret: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            session: None,
        };
        let now: Timestamp = "2015-08-30T12:36:00Z".parse().unwrap();
        let host = "example.amazonaws.com";
        let authorization = |headers: &[(&str, &str)]| {
            let post = Post { service: "service", region: "us-east-1", host, path: "/", headers, body: b"" };
            let signed = sign(&post, &keys, now);
            assert_eq!(signed[0].1.reveal(), "20150830T123600Z");
            signed[1].1.reveal().to_owned()
        };
        let prefix = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=";
        for (headers, expected) in [
            (&[][..], "host;x-amz-date, Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
            (
                &[("my-header1", "value1")],
                "host;my-header1;x-amz-date, Signature=c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
            ),
        ] {
            assert_eq!(authorization(headers), format!("{prefix}{expected}"));
        }
    }
}
