use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyUsagePurpose};

use super::testing::{FOR_TIMESTAMPS, TokenContent, Tsa, usage};
use super::*;

const MESSAGE: &[u8] = b"a message";
const NOON: &str = "20260601120000Z";

fn check(tsa: &Tsa, token: &[u8]) -> Result<VerifiedTimestamp, Refusal> {
    verify(token, MESSAGE, Authorities { roots: std::slice::from_ref(&tsa.root), others: &[] })
}

fn why(found: Result<VerifiedTimestamp, Refusal>) -> String {
    found.map(|stamp| stamp.time).unwrap_err().to_string()
}

fn fixture(name: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/timestamps");
    std::fs::read(folder.join(name)).unwrap()
}

#[test]
fn a_timestamp_has_an_accuracy() {
    let tsa = Tsa::new();
    for hash in [Hash::Sha256, Hash::Sha384, Hash::Sha512] {
        let stamp = check(&tsa, &tsa.token(MESSAGE, &TokenContent { hash, ..TokenContent::at(NOON) })).unwrap();
        assert_eq!(stamp.time.to_string(), "2026-06-01T12:00:00Z");
        assert_eq!(stamp.earliest().to_string(), "2026-06-01T11:59:57.5Z");
        assert_eq!(stamp.latest().to_string(), "2026-06-01T12:00:02.5Z");
        assert_eq!(stamp.chain, [tsa.certificate.clone(), tsa.root.clone()]);
        assert!(is_answer(&stamp, 7) && !is_answer(&stamp, 8));
    }
}

#[test]
fn a_token_and_its_response_verify_alike() {
    let (root, answer) = (Certificate::read_all(&fixture("openssl.pem")).unwrap(), fixture("openssl.tsr"));
    let found = [&answer[..], token(&answer).unwrap()].map(|bytes| verify_timestamp(bytes, MESSAGE, &root).unwrap());
    assert_eq!(found[0], found[1]);
    assert!(verify_timestamp(&answer, b"another", &root).is_err());
    assert!(verify_timestamp(&answer, MESSAGE, &[]).is_err());
}

#[test]
fn timestamps_of_public_authorities_verify() {
    let chain = Certificate::read_all(&fixture("sigstore.pem")).unwrap();
    let [signer, between, root] = &chain[..] else { panic!("there are three") };
    // The token has the signer's certificate and the intermediate is given, or the token has no certificates.
    for (name, others) in [("sigstore.tsr", &chain[1..2]), ("sigstore-bare.tsr", &chain[..2])] {
        let answer = fixture(name);
        let token = token(&answer).unwrap();
        let stamp = verify(token, MESSAGE, Authorities { roots: &chain[2..], others }).unwrap();
        assert_eq!(stamp.chain, [signer.clone(), between.clone(), root.clone()], "{name}");
        assert_eq!(stamp.accuracy, SignedDuration::from_secs(1), "{name}");
        assert!(verify(token, MESSAGE, Authorities { roots: &chain[2..], others: &[] }).is_err(), "{name}");
        assert!(verify(token, b"another", Authorities { roots: &chain[2..], others }).is_err(), "{name}");
    }
    let (root, answer) = (Certificate::read_all(&fixture("openssl.pem")).unwrap(), fixture("openssl.tsr"));
    let stamp = verify(token(&answer).unwrap(), MESSAGE, Authorities { roots: &root, others: &[] }).unwrap();
    assert_eq!(stamp.accuracy, SignedDuration::from_micros(2_500_100));
    assert_ne!(stamp.time.subsec_nanosecond(), 0);
    assert!(verify(token(&answer).unwrap(), MESSAGE, Authorities { roots: &chain[2..], others: &[] }).is_err());
}

#[test]
fn weak_keys_and_hashes_are_refused() {
    let root = Certificate::read_all(&fixture("openssl.pem")).unwrap();
    for (name, said) in [
        ("openssl-weak.tsr", "2048 to 8192 bits"),
        ("openssl-sha1.tsr", "its hash is not supported"),
        ("openssl-sha1-certificate.tsr", "does not name"),
    ] {
        let answer = fixture(name);
        let authorities = Authorities { roots: &root, others: &[] };
        let said_here = why(verify(token(&answer).unwrap(), MESSAGE, authorities));
        assert!(said_here.contains(said), "{name}: {said_here}");
    }
}

/// Certificates in a token that the chain does not need are not covered by a signature. Here that is the root, for
/// which the trust anchor is used.
#[test]
fn no_byte_of_a_token_can_be_changed() {
    let tsa = Tsa::new();
    let mut tokens = vec![(tsa.token(MESSAGE, &TokenContent::at(NOON)), vec![tsa.root.clone()], Vec::new())];
    let answer = fixture("openssl.tsr");
    tokens.push((
        token(&answer).unwrap().to_vec(),
        Certificate::read_all(&fixture("openssl.pem")).unwrap(),
        Vec::new(),
    ));
    let chain = Certificate::read_all(&fixture("sigstore.pem")).unwrap();
    let answer = fixture("sigstore.tsr");
    tokens.push((token(&answer).unwrap().to_vec(), chain[2..].to_vec(), chain[1..2].to_vec()));
    for (token, roots, others) in tokens {
        let authorities = Authorities { roots: &roots, others: &others };
        let good = verify(&token, MESSAGE, authorities).unwrap();
        let root = roots[0].to_der();
        let embedded = token.windows(root.len()).position(|window| window == root);
        let is_covered = |position: usize| embedded.is_none_or(|at| !(at..at + root.len()).contains(&position));
        for position in 0..token.len() {
            for mask in [1, 0x20, 0x80] {
                let mut changed = token.clone();
                changed[position] ^= mask;
                match verify(&changed, MESSAGE, authorities) {
                    Err(_) => {}
                    Ok(found) => {
                        assert!(!is_covered(position), "byte {position}");
                        assert_eq!((found.time, found.accuracy, &found.chain), (good.time, good.accuracy, &good.chain));
                    }
                }
            }
            assert!(verify(&token[..position], MESSAGE, authorities).is_err(), "{position}");
        }
        assert!(verify(&[&token[..], b"x"].concat(), MESSAGE, authorities).is_err());
    }
}

#[test]
fn tokens_that_break_a_rule_are_refused() {
    let tsa = Tsa::new();
    let makings: Vec<(&str, TokenContent, &str)> = vec![
        ("no certificate named", TokenContent { named: Some(Vec::new()), ..TokenContent::at(NOON) }, "does not name"),
        ("nothing named", TokenContent { named: Some(vec![0x30, 0]), ..TokenContent::at(NOON) }, "malformed"),
        (
            "another certificate named",
            TokenContent {
                named: Some([&[0x30, 0x26, 0x30, 0x24, 0x30, 0x22, 4, 32][..], &[1; 32]].concat()),
                ..TokenContent::at(NOON)
            },
            "is missing",
        ),
        (
            "another content",
            TokenContent { digest: Some(vec![1; 32]), ..TokenContent::at(NOON) },
            "not what was signed",
        ),
        ("something critical", TokenContent { critical: true, ..TokenContent::at(NOON) }, "1.2.3 is not understood"),
        ("no certificate", TokenContent { with_certificate: false, ..TokenContent::at(NOON) }, "is missing"),
        ("before its certificate", TokenContent::at("20250601120000Z"), "is not valid at"),
        ("after its certificate", TokenContent::at("20310601120000Z"), "is not valid at"),
        ("no time", TokenContent::at("20260601120000+0100"), "its time is malformed"),
        ("a leap day that is none", TokenContent::at("20260229120000Z"), "its time is malformed"),
    ];
    for (name, making, said) in makings {
        let said_here = why(check(&tsa, &tsa.token(MESSAGE, &making)));
        assert!(said_here.contains(said), "{name}: {said_here}");
    }
    // Unsigned attributes are ignored.
    let unsigned = field(outer(1), &[0x30, 0]).unwrap();
    assert!(check(&tsa, &tsa.token(MESSAGE, &TokenContent { unsigned, ..TokenContent::at(NOON) })).is_ok());
    let bare = tsa.token(MESSAGE, &TokenContent { with_certificate: false, ..TokenContent::at(NOON) });
    let others = [tsa.certificate.clone()];
    assert!(verify(&bare, MESSAGE, Authorities { roots: std::slice::from_ref(&tsa.root), others: &others }).is_ok());
    let token = tsa.token(b"another", &TokenContent::at(NOON));
    assert!(why(check(&tsa, &token)).contains("of something else"));
    assert!(why(check(&Tsa::new(), &tsa.token(MESSAGE, &TokenContent::at(NOON)))).contains("the signature is wrong"));
}

#[test]
fn authorities_obey_the_rules() {
    type Change = Box<dyn FnOnce(&mut CertificateParams)>;
    let both = [&[0x30, 0x14][..], &FOR_TIMESTAMPS[2..], &[6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 3]].concat();
    let signers: Vec<(&str, Change)> = vec![
        ("no extended usage", Box::new(|params| params.custom_extensions.clear())),
        ("not critical", Box::new(|params| params.custom_extensions = vec![usage(false, FOR_TIMESTAMPS)])),
        ("code as well", Box::new(move |params| params.custom_extensions = vec![usage(true, &both)])),
        ("no usage", Box::new(|params| params.key_usages.clear())),
        ("signs certificates", Box::new(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign))),
        ("an authority", Box::new(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
    ];
    for (name, change) in signers {
        let tsa = Tsa::with(|_| {}, change);
        assert!(check(&tsa, &tsa.token(MESSAGE, &TokenContent::at(NOON))).is_err(), "{name}");
    }
    let roots: Vec<(&str, Change)> = vec![
        ("no authority", Box::new(|params| params.is_ca = IsCa::ExplicitNoCa)),
        ("no usage", Box::new(|params| params.key_usages.clear())),
        ("expired", Box::new(|params| params.not_after = rcgen::date_time_ymd(2026, 5, 1))),
        (
            "for code",
            Box::new(|params| {
                params.custom_extensions = vec![usage(false, &[0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 3])];
            }),
        ),
        (
            "not for this name",
            Box::new(|params| {
                let name = rcgen::GeneralSubtree::DirectoryName(Default::default());
                let permitted_subtrees = vec![rcgen::GeneralSubtree::DnsName("example.com".to_owned())];
                let excluded_subtrees = vec![name];
                params.name_constraints = Some(rcgen::NameConstraints { permitted_subtrees, excluded_subtrees });
            }),
        ),
    ];
    for (name, change) in roots {
        let tsa = Tsa::with(change, |_| {});
        assert!(check(&tsa, &tsa.token(MESSAGE, &TokenContent::at(NOON))).is_err(), "{name}");
    }
}

#[test]
fn requests_and_answers() {
    let asked = request(Hash::Sha384, MESSAGE, 0x80, true).unwrap();
    let print = Hash::Sha384.digest(MESSAGE);
    assert_eq!(asked[..2], [0x30, 0x4d]);
    assert!(asked.windows(48).any(|window| window == print) && asked.ends_with(&[2, 2, 0, 0x80, 1, 1, 0xff]));
    let tsa = Tsa::new();
    let answer = tsa.answer(MESSAGE, &TokenContent::at(NOON));
    assert!(check(&tsa, token(&answer).unwrap()).is_ok());
    let refused = [&[0x30, 13, 0x30, 11, 2, 1, 2, 0x30, 6, 12, 4][..], b"late"].concat();
    assert!(token(&refused).unwrap_err().to_string().contains("status 2 late"));
    for wrong in [&b""[..], &[0x30, 0], &[0x30, 5, 0x30, 3, 2, 1, 0], &refused[..12]] {
        assert!(token(wrong).is_err());
    }
}

#[test]
fn times_follow_rfc_3161() {
    for (text, found) in [
        ("20260601120000Z", Some("2026-06-01T12:00:00Z")),
        ("20260601120000.25Z", Some("2026-06-01T12:00:00.25Z")),
        ("20260601120000.000000001Z", Some("2026-06-01T12:00:00.000000001Z")),
        ("20260601120000.Z", None),
        ("20260601120000.0000000001Z", None),
        ("202606011200Z", None),
        ("20260601120060Z", None),
        ("20260601120000", None),
        ("+0260601120000Z", None),
    ] {
        assert_eq!(time(text.as_bytes()).map(|time| time.to_string()).as_deref(), found, "{text}");
    }
}

/// Starts a server that responds with a token of the requested message, with changes.
async fn serve(tsa: Tsa, status: &'static str, kind: &'static str, change: fn(&mut TokenContent)) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (mut asked, mut buffer) = (Vec::new(), [0; 4096]);
            // The hash follows its header, whose length is one byte.
            let question = loop {
                let read = client.read(&mut buffer).await.unwrap();
                asked.extend_from_slice(&buffer[..read]);
                let body = asked.windows(4).position(|window| window == b"\r\n\r\n").map(|at| &asked[at + 4..]);
                match body {
                    Some(body) if body.len() > 1 && body.len() >= usize::from(body[1]) + 2 => break body.to_vec(),
                    _ => {}
                }
            };
            let mut fields = Fields::of(&question, Tag::Sequence).unwrap();
            fields.bytes().unwrap();
            fields.bytes().unwrap();
            let mut making = TokenContent { nonce: fields.decode().unwrap(), ..TokenContent::at(NOON) };
            change(&mut making);
            let answer = tsa.answer(MESSAGE, &making);
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                answer.len()
            );
            client.write_all(&[head.as_bytes(), &answer].concat()).await.unwrap();
        }
    });
    port
}

#[tokio::test]
async fn responses_of_authorities_are_verified() {
    let retries = ocikit_http::RetryOptions::never();
    let http = crate::Http::new(&crate::HttpOptions { retries, ..crate::http::tests::local() }).unwrap();
    const KIND: &str = "application/timestamp-reply";
    type Case<'a> = (&'static str, &'static str, fn(&mut TokenContent), &'a [u8], &'a str);
    let cases: [Case<'_>; 6] = [
        ("200 OK", KIND, |_| {}, MESSAGE, ""),
        ("200 OK", KIND, |making| making.nonce = 1, MESSAGE, "another request"),
        ("200 OK", KIND, |_| {}, b"other", "of something else"),
        ("200 OK", KIND, |making| making.critical = true, MESSAGE, "not understood"),
        ("500 Oh", KIND, |_| {}, MESSAGE, "status 500"),
        ("200 OK", "text/html", |_| {}, MESSAGE, "not a timestamp"),
    ];
    for (status, kind, change, message, said) in cases {
        let tsa = Tsa::new();
        let root = tsa.root.clone();
        let url = format!("http://127.0.0.1:{}/", serve(tsa, status, kind, change).await);
        let authority = TimestampAuthority::new(http.clone(), url, vec![root]);
        match authority.stamp(Hash::Sha256, message).await {
            Ok((_, stamp)) => assert_eq!((said, stamp.time.to_string().as_str()), ("", "2026-06-01T12:00:00Z")),
            Err(error) => {
                let text = error.to_string();
                assert!(!said.is_empty() && text.contains(said) && text.starts_with("http://127.0.0.1"), "{text}");
            }
        }
    }
}

proptest! {
    #[test]
    fn untrusted_input_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let authorities = Authorities { roots: &[], others: &[] };
        prop_assert!(verify(&bytes, MESSAGE, authorities).is_err());
        let _ = token(&bytes);
        let _ = TimestampInfo::read(&field(Tag::Sequence, &bytes).unwrap(), MESSAGE);
    }
}
