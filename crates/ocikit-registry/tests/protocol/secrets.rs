//! Checks that `Debug` shows no secrets.

use std::sync::Arc;

use ocikit_image::{Sink, Source};
use ocikit_registry::hosts::ProxyOptions;
use ocikit_registry::{Client, Credential, Fixed, JournalEntry, Secret};
use ocikit_spec::{Descriptor, MediaType};

use crate::double::{Action, Double, status};
use crate::support::{options, repository};

const SECRET: &str = "correct-horse";

/// Refuses requests without the token, which its token service issues in exchange for the password.
fn with_tokens(double: &Double) {
    let realm = format!("http://{}/token", double.host());
    double.rule(move |seen| {
        if seen.path == "/token" {
            let token = format!(r#"{{"token":"{SECRET}-token","refresh_token":"{SECRET}-refresh"}}"#);
            return Action::Reply(200, Vec::new(), token.into());
        }
        if seen.header("authorization") == format!("Bearer {SECRET}-token") {
            return Action::Pass;
        }
        let challenge = format!(r#"Bearer realm="{realm}",service="double""#);
        Action::Reply(401, vec![("www-authenticate", challenge)], "".into())
    });
}

#[tokio::test]
async fn debug_shows_no_password_token_or_upload_session() {
    let double = Double::start().await;
    with_tokens(&double);
    let proxy = || Some(format!("http://user:{SECRET}@proxy.example:3128").into());
    let proxies = ProxyOptions::default().http(None).https(proxy()).except(String::new());
    let credential = Credential::password("user", format!("{SECRET}-password"));
    let keychain = Fixed { registry: None, credential: credential.clone() };
    let options = options().keychain(Arc::new(keychain.clone())).proxies(proxies);
    let client = Client::new(options.clone());
    let repository = repository(&client, &double, "a");
    let memory = ocikit_image::Memory::new();
    memory.insert(&b"x"[..]);
    let blob = Descriptor::of(MediaType::OCI_LAYER, b"x");
    repository.put(&blob, &memory).await.unwrap();
    let body = repository.open_unverified(&blob, ocikit_image::ByteRange::ALL).await.unwrap();
    double.script("HEAD /v2/a/blobs", vec![status(403)]);
    let refused = repository.has(&blob).await.unwrap_err();
    let entry =
        JournalEntry { url: format!("https://example.com/v2/a/blobs/uploads/{SECRET}?_state={SECRET}"), offset: 1 };
    let identity = Credential::Identity(Secret::from(SECRET));
    let shown = format!("{options:?} {client:?} {repository:?} {body:?} {refused:?} {refused} {entry:?} {entry:#?}");
    let shown = format!("{shown} {keychain:?} {credential:?} {identity:?}");
    assert!(!shown.contains(SECRET), "{shown}");
}
