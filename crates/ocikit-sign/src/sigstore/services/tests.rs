use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::Value;

use super::*;
use crate::http::tests::{Server, local, said};
use crate::key::{KeyKind, PrivateKey};
use crate::refusal::Refusal;
use crate::sigstore::config::{LogUrl, LogVersion};
use crate::sigstore::entry::{SignedMessage, VerificationKey};
use crate::sigstore::material::VerificationMaterial;
use crate::sigstore::testing::{TestServices, WHO, at};
use crate::timestamp::testing::TokenContent;

fn http() -> Http {
    Http::new(&local()).unwrap()
}

fn token(claims: &Value) -> String {
    format!("e30.{}.c2VjcmV0", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

#[test]
fn a_token_has_a_mail_address_or_a_subject() {
    for (claims, expected) in [
        (json!({"sub": "1", "email": WHO}), Some(WHO)),
        (json!({"sub": "repo:acme/app:ref", "email": ""}), Some("repo:acme/app:ref")),
        (json!({"sub": "x", "iss": "https://issuer.example"}), Some("x")),
        (json!({"email": WHO}), None),
        (json!([]), None),
    ] {
        assert_eq!(subject(&token(&claims)).ok().as_deref(), expected, "{claims}");
    }
    let standard = format!("e30.{}==.x", STANDARD_NO_PAD.encode(r#"{"sub":"12"}"#));
    assert_eq!(subject(&standard).unwrap(), "12");
    for text in ["", "a.b", "a.b.c.d", "a.!.c", "a.e30.c"] {
        let error = subject(text).unwrap_err();
        assert!(matches!(error, Error::Unsupported(_)), "{text}");
    }
}

#[tokio::test]
async fn certificates_match_the_key_and_tokens_are_not_leaked() {
    let (world, key) = (TestServices::new(), PrivateKey::generate(KeyKind::P256).unwrap());
    let other = PrivateKey::generate(KeyKind::P256).unwrap();
    let chain = |key: &PrivateKey| {
        let leaf = world.certificate(key, |_| {});
        let chain: Vec<_> = std::iter::once(&leaf).chain(&world.chain).map(Certificate::to_pem).collect();
        json!({"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}).to_string()
    };
    let token = token(&json!({"sub": "1", "email": WHO}));
    for (status, body, expected) in [
        ("200 OK", chain(&key), None),
        ("200 OK", chain(&key).replace("Embedded", "Detached"), None),
        ("200 OK", chain(&other), Some("for another key")),
        ("200 OK", "{}".to_owned(), Some("no certificate")),
        ("200 OK", chain(&key).replace("BEGIN", "BEGUN"), Some("the file has no certificates")),
        ("200 OK", "[".to_owned(), Some("malformed")),
        ("400 Bad Request", "no\n".to_owned(), Some("status 400: no")),
        ("400 Bad Request", format!("not {token}"), Some("status 400")),
        ("400 Bad Request", "c2VjcmV0".to_owned(), Some("status 400")),
        ("302 Found", String::new(), Some("status 302")),
        ("503 Busy", "no".to_owned(), Some("status 503, asked 6 times: no")),
        ("503 Busy", token.clone(), Some("status 503, asked 6 times")),
    ] {
        let server = Server::start(said(status, "", &body), None).await;
        let url = format!("http://127.0.0.1:{}/", server.port);
        match (certify(&http(), &url, &token, &key).await, expected) {
            (Ok(certificates), None) => assert_eq!(certificates.len(), 3),
            (Err(error), Some(expected)) => {
                let error = error.to_string();
                assert!(error.contains(expected) && !error.contains(&token) && !error.contains("c2VjcmV0"), "{error}");
            }
            (found, _) => panic!("{body}: {found:?}"),
        }
        assert!(server.asked().starts_with("POST /api/v2/signingCert "), "{}", server.asked());
    }
    // After a transient error, the whole request is sent again.
    let busy = said("500 Oh", "", &token);
    let server = Server::answering(vec![busy.clone(), Vec::new(), said("201 Created", "", &chain(&key))], None).await;
    let url = format!("http://127.0.0.1:{}/", server.port);
    assert_eq!(certify(&http(), &url, &token, &key).await.unwrap().len(), 3);
    assert!(server.times() == 3 && server.asked().contains(&token), "{}", server.asked());
    let server = Server::answering(vec![busy, said("200 OK", "", r#"{"value": "x"}"#)], None).await;
    let url = format!("http://127.0.0.1:{}/?a=b", server.port);
    assert_eq!(*github_token(&http(), &url, "secret").await.unwrap(), "x");
    assert!(server.times() == 2 && server.asked().to_lowercase().contains("bearer secret"), "{}", server.asked());
    let error = certify(&http(), "http://fulcio.example", &token, &key).await.unwrap_err();
    assert!(matches!(error, Error::Unsupported(_)), "{error}");
    let error = github_token(&http(), "http://github.example/?a=b", "secret").await.unwrap_err();
    assert!(matches!(error, Error::Unsupported(_)), "{error}");
}

#[tokio::test]
async fn responses_of_services_are_verified_before_they_are_stored() {
    let (world, key) = (TestServices::new(), PrivateKey::generate(KeyKind::P256).unwrap());
    let leaf = world.certificate(&key, |_| {});
    let signature = key.sign(Scheme::EcdsaP256Sha256, b"message").unwrap();
    let signed = SignedMessage {
        by: VerificationKey::Certificate(&leaf),
        message: b"message",
        payload: b"message",
        signature: &signature,
    };
    let material = |logs: Vec<LogUrl>, timestamps| VerificationMaterial {
        certificates: vec![leaf.clone()],
        logs,
        timestamps,
        root: Some(world.root()),
        ..VerificationMaterial::new(http(), at("2026-06-15T12:00:00Z"))
    };
    // The nonce of these responses is 7 and not the requested one.
    let making = TokenContent::at("20260615120000Z");
    let right = world.tsa.answer(&signature, &making);
    let wrong = world.tsa.answer(b"another", &making);
    let rejected = vec![0x30, 5, 0x30, 3, 2, 1, 2];
    for (body, expected) in [
        (right, "response is to another request"),
        (wrong, "it is of something else"),
        (rejected, "status 2"),
        (b"no".to_vec(), "malformed"),
    ] {
        let mut answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        let answer = [std::mem::take(&mut answer).into_bytes(), body].concat();
        let server = Server::start(answer, None).await;
        let url = format!("http://127.0.0.1:{}/", server.port);
        let error = material(Vec::new(), vec![url]).collect_evidence(&signed, &key).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let entry = json!({
        "logIndex": "0", "logId": {"keyId": ""}, "kindVersion": {"kind": "hashedrekord", "version": "0.0.2"},
        "canonicalizedBody": STANDARD.encode(r#"{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{}}"#),
    });
    for body in [entry.to_string(), "{}".to_owned()] {
        let server = Server::start(said("201 Created", "", &body), None).await;
        let url = format!("http://127.0.0.1:{}", server.port);
        let log = LogUrl { url, version: LogVersion::Two };
        let error = material(vec![log], Vec::new()).collect_evidence(&signed, &key).await.unwrap_err();
        assert!(matches!(error, Error::Refused(Refusal::Log(_)) | Error::Service { .. }), "{error}");
    }
    // Without any service the certificate must be valid now.
    assert!(material(Vec::new(), Vec::new()).collect_evidence(&signed, &key).await.is_ok());
    let late = VerificationMaterial { now: at("2026-08-01T00:00:00Z"), ..material(Vec::new(), Vec::new()) };
    assert!(late.collect_evidence(&signed, &key).await.is_err());
}

#[tokio::test]
async fn a_v1_log_signs_the_time_of_an_entry() {
    let (world, key) = (TestServices::new(), PrivateKey::generate(KeyKind::P256).unwrap());
    let leaf = world.certificate(&key, |_| {});
    let signature = key.sign(Scheme::EcdsaP256Sha256, b"message").unwrap();
    let bare = SignedMessage {
        by: VerificationKey::Certificate(&leaf),
        message: b"message",
        payload: b"message",
        signature: &signature,
    };
    let hash = |text: &[u8]| json!({"algorithm": "sha256", "value": ocikit_spec::Digest::sha256_of(text).hex()});
    let (pem, content) = (STANDARD.encode(leaf.to_pem()), STANDARD.encode(&signature));
    let hashed = json!({"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {
        "data": {"hash": hash(b"message")}, "signature": {"content": content, "publicKey": {"content": pem}},
    }});
    let envelope = json!({"apiVersion": "0.0.1", "kind": "dsse", "spec": {
        "envelopeHash": hash(b"{}"), "payloadHash": hash(b"payload"),
        "signatures": [{"signature": content, "verifier": pem}],
    }});
    let time = "2026-06-15T12:00:00Z";
    let asked = async |answers: Vec<Vec<u8>>, signed: &SignedMessage<'_>| {
        let server = Server::answering(answers, None).await;
        let log = LogUrl { url: format!("http://127.0.0.1:{}/", server.port), version: LogVersion::One };
        // The time is that of the log and not the current one, at which the certificate is no longer valid.
        let now = at("2026-08-01T00:00:00Z");
        let (certificates, root) = (vec![leaf.clone()], Some(world.root()));
        let material =
            VerificationMaterial { certificates, logs: vec![log], root, ..VerificationMaterial::new(http(), now) };
        let evidence = material.collect_evidence(signed, &key).await;
        (evidence.map(|evidence| evidence.entries.len()), server.asked())
    };
    let vouch = async |answer: &Value, signed: &SignedMessage<'_>| {
        asked(vec![said("201 Created", "", &answer.to_string())], signed).await
    };
    let sealed = SignedMessage { payload: b"payload", ..bare };
    for (signed, body) in [(bare, &hashed), (sealed, &envelope)] {
        let (made, asked) = vouch(&world.entered(body, time), &signed).await;
        assert_eq!(made.unwrap(), 1);
        assert!(asked.starts_with("POST /api/v1/log/entries "), "{asked}");
        let (_, sent) = asked.split_once("\r\n\r\n").unwrap();
        let sent: Value = serde_json::from_str(sent).unwrap();
        match sent["spec"]["proposedContent"]["envelope"].as_str() {
            None => assert_eq!(&sent, body),
            Some(text) => {
                let envelope: Value = serde_json::from_str(text).unwrap();
                assert_eq!(envelope["signatures"], json!([{"sig": content}]));
                assert_eq!(envelope["payload"], STANDARD.encode("payload"));
                assert_eq!(sent["spec"]["proposedContent"]["verifiers"], json!([pem]));
            }
        }
    }
    let changes: [fn(&mut Value); 8] = [
        |answer| answer["verification"]["signedEntryTimestamp"] = json!(""),
        |answer| answer["verification"]["inclusionProof"]["rootHash"] = json!("00"),
        |answer| answer["verification"]["inclusionProof"]["rootHash"] = json!("no"),
        |answer| answer["integratedTime"] = json!(1),
        |answer| answer["logID"] = json!("xyz"),
        |answer| answer["logIndex"] = json!(-1),
        |answer| answer["body"] = json!("e30="),
        |answer| answer["verification"] = json!({}),
    ];
    for change in changes {
        let mut answer = world.entered(&hashed, time);
        change(answer.as_object_mut().unwrap().values_mut().next().unwrap());
        let (made, _) = vouch(&answer, &bare).await;
        assert!(matches!(made, Err(Error::Refused(Refusal::Log(_)) | Error::Service { .. })), "{made:?}");
    }
    let mut twice = world.entered(&hashed, time);
    twice["another"] = twice["24296fb24b8ad77a"].clone();
    for answer in
        [twice, json!({}), json!([]), world.entered(&envelope, time), world.entered(&hashed, "2026-08-01T00:00:00Z")]
    {
        assert!(vouch(&answer, &bare).await.0.is_err(), "{answer}");
    }
    // An existing entry is fetched from the log that was asked, whatever host its location names.
    let conflict = |location: &str| said("409 Conflict", &format!("location: {location}\r\n"), "there");
    let told = said("200 OK", "", &world.entered(&hashed, time).to_string());
    let there = "https://elsewhere.example/api/v1/log/entries/00ff";
    let (made, question) = asked(vec![conflict(there), told.clone()], &bare).await;
    assert_eq!(made.unwrap(), 1);
    assert!(question.starts_with("GET /api/v1/log/entries/00ff "), "{question}");
    for nowhere in ["/api/v1/log/entries/", "/x/..", "/x/00?a"] {
        let (made, question) = asked(vec![conflict(nowhere), told.clone()], &bare).await;
        assert!(made.is_err() && question.starts_with("POST "), "{question}");
    }
}
