use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaEncoding,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_700_000_000;
const ISSUER: &str = "https://token.actions.example";
const WORKFLOW: &str = "acme/infra/.github/workflows/image-builder.yml@refs/heads/main";

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "image-builder", "iat": NOW - 30, "nbf": NOW - 30, "exp": NOW + 270,
        "job_workflow_ref": WORKFLOW, "repository_owner": "acme", "run_attempt": 1
    })
}

fn with(change: Value) -> Value {
    let mut claims = claims();
    let map = claims.as_object_mut().unwrap();
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => map.remove(name),
            value => map.insert(name.clone(), value.clone()),
        };
    }
    claims
}

fn token(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", encoded(header), encoded(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

struct Rsa(RsaKeyPair);

impl Rsa {
    fn new() -> Rsa {
        Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    fn sign(&self, by: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0.sign(by, &SystemRandom::new(), message, &mut signature).unwrap();
        signature
    }

    fn jwk(&self, id: &str) -> Value {
        let key = self.0.public_key();
        let part = |number: &[u8]| URL_SAFE_NO_PAD.encode(number);
        json!({
            "kty": "RSA", "kid": id, "use": "sig",
            "n": part(key.modulus().big_endian_without_leading_zero()),
            "e": part(key.exponent().big_endian_without_leading_zero()),
        })
    }

    fn token(&self, claims: &Value) -> String {
        token(&json!({"alg": "RS256", "kid": "a"}), claims, |message| self.sign(&RSA_PKCS1_SHA256, message))
    }
}

fn set(keys: &[Value]) -> KeySet {
    KeySet::parse(json!({"keys": keys}).to_string().as_bytes()).unwrap()
}

fn issuer() -> TrustedIssuer {
    let mut issuer = TrustedIssuer::new("github", ISSUER, vec!["image-builder".to_owned()]);
    issuer.workflows = vec![WORKFLOW.to_owned()];
    issuer
}

fn verify(text: &str, issuer: &TrustedIssuer, keys: &KeySet) -> Result<Caller, OidcError> {
    verify_with(text, std::slice::from_ref(issuer), keys, jiff::Timestamp::from_second(NOW).unwrap())
}

#[test]
fn kym_18_tokens_are_refused_with_expected_and_provided() {
    let rsa = Rsa::new();
    let keys = set(&[rsa.jwk("a")]);
    let accepted = verify(&rsa.token(&claims()), &issuer(), &keys).unwrap();
    assert_eq!(accepted.claims.all["repository_owner"], "acme");
    for (change, message) in [
        (
            json!({"iss": "https://evil.example"}),
            "wrong issuer: expected `https://token.actions.example`, provided `https://evil.example`",
        ),
        (json!({"aud": "sigstore"}), "wrong audience: expected `image-builder`, provided `sigstore`"),
        (json!({"aud": null}), "wrong audience: expected `image-builder`, provided none"),
        (
            json!({"job_workflow_ref": "acme/infra/.github/workflows/image-builder.yml@refs/heads/evil"}),
            "wrong `job_workflow_ref`: expected `acme/infra/.github/workflows/image-builder.yml@refs/heads/main`, provided `acme/infra/.github/workflows/image-builder.yml@refs/heads/evil`",
        ),
        (json!({"job_workflow_ref": null}), "provided nothing"),
        (json!({"iat": NOW - 661}), "too old: expected at most 600 seconds, provided 661"),
        (json!({"iat": NOW + 61}), "issued in the future"),
        (json!({"iat": null}), "does not say when it was issued"),
        (json!({"nbf": NOW + 61}), "not valid yet"),
        (json!({"exp": NOW - 60}), "it has expired"),
        (json!({"exp": null}), "does not say when it expires"),
    ] {
        let error = verify(&rsa.token(&with(change.clone())), &issuer(), &keys).unwrap_err();
        assert!(error.is_refusal() && error.to_string().contains(message), "{change}: {error}");
    }
}

#[test]
fn clocks_may_differ_by_the_configured_time() {
    let rsa = Rsa::new();
    let keys = set(&[rsa.jwk("a")]);
    for change in [
        json!({"iat": NOW + 60}),
        json!({"iat": NOW - 660}),
        json!({"nbf": NOW + 60}),
        json!({"exp": NOW - 59}),
        json!({"exp": NOW as f64 + 0.5}),
        json!({"nbf": null}),
        json!({"aud": ["other", "image-builder"]}),
    ] {
        verify(&rsa.token(&with(change.clone())), &issuer(), &keys).unwrap_or_else(|error| panic!("{change}: {error}"));
    }
    // A queue may take longer than a token lasts.
    let queued = TrustedIssuer { check_expiry: false, ..issuer() };
    verify(&rsa.token(&with(json!({"exp": NOW - 300}))), &queued, &keys).unwrap();
    verify(&rsa.token(&with(json!({"exp": NOW - 300, "iat": NOW - 700}))), &queued, &keys).unwrap_err();
}

#[test]
fn algorithms_other_than_the_configured_ones_are_refused() {
    let rsa = Rsa::new();
    let keys = set(&[rsa.jwk("a")]);
    for name in ["none", "None", "HS256", "RS384", "ES256", "", "rs256"] {
        let made = token(&json!({"alg": name, "kid": "a"}), &claims(), |message| rsa.sign(&RSA_PKCS1_SHA256, message));
        let error = verify(&made, &issuer(), &keys).unwrap_err().to_string();
        assert!(error.contains(&format!("wrong algorithm: expected `RS256`, provided `{name}`")), "{error}");
    }
    // An empty signature, as `alg: none` has it.
    let unsigned = token(&json!({"alg": "none"}), &claims(), |_| Vec::new());
    verify(&unsigned, &issuer(), &keys).unwrap_err();
    let unsigned = token(&json!({"alg": "RS256", "kid": "a"}), &claims(), |_| Vec::new());
    verify(&unsigned, &issuer(), &keys).unwrap_err();
    let pss = TrustedIssuer { algorithms: vec![Algorithm::Ps256], ..issuer() };
    let made = token(&json!({"alg": "PS256", "kid": "a"}), &claims(), |message| rsa.sign(&RSA_PSS_SHA256, message));
    verify(&made, &pss, &keys).unwrap();
    verify(&rsa.token(&claims()), &pss, &keys).unwrap_err();
}

#[test]
fn keys_are_not_confused() {
    let rsa = Rsa::new();
    let every = TrustedIssuer { algorithms: Algorithm::ALL.to_vec(), ..issuer() };
    // The public key as a shared secret: the classic confusion of RS256 and HS256.
    let public: PublicKeyX509Der<'_> = rsa.0.public_key().as_der().unwrap();
    let secret = hmac::Key::new(hmac::HMAC_SHA256, public.as_ref());
    let made = token(&json!({"alg": "HS256", "kid": "a"}), &claims(), |message| {
        hmac::sign(&secret, message).as_ref().to_vec()
    });
    verify(&made, &every, &set(&[rsa.jwk("a")])).unwrap_err();
    // A key of another kind, or for another algorithm or use, verifies nothing.
    let good = rsa.token(&claims());
    verify(&good, &every, &set(&[rsa.jwk("a")])).unwrap();
    let made = token(&json!({"alg": "ES256", "kid": "a"}), &claims(), |message| rsa.sign(&RSA_PKCS1_SHA256, message));
    verify(&made, &every, &set(&[rsa.jwk("a")])).unwrap_err();
    let mut other = rsa.jwk("a");
    other["alg"] = "PS256".into();
    verify(&good, &every, &set(&[other])).unwrap_err();
    for (name, value) in
        [("use", json!("enc")), ("key_ops", json!(["sign"])), ("kty", json!("oct")), ("alg", json!("HS256"))]
    {
        let mut other = rsa.jwk("a");
        other[name] = value;
        let parsed = KeySet::parse(json!({"keys": [other]}).to_string().as_bytes());
        assert!(parsed.unwrap_err().to_string().contains("no key that verifies"), "{name}");
    }
    // Another id, another key with the same id, and a key inside of the token.
    verify(&good, &every, &set(&[rsa.jwk("b")])).unwrap_err();
    verify(&good, &every, &set(&[Rsa::new().jwk("a")])).unwrap_err();
    verify(&good, &every, &set(&[Rsa::new().jwk("a"), rsa.jwk("a")])).unwrap();
    let own = Rsa::new();
    let made = token(&json!({"alg": "RS256", "kid": "a", "jwk": own.jwk("a")}), &claims(), |message| {
        own.sign(&RSA_PKCS1_SHA256, message)
    });
    verify(&made, &every, &set(&[rsa.jwk("a")])).unwrap_err();
}

#[test]
fn curves_verify_with_their_own_algorithm() {
    let every = TrustedIssuer { algorithms: Algorithm::ALL.to_vec(), ..issuer() };
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = key.public_key().as_ref();
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let jwk = json!({"kty": "EC", "crv": "P-256", "x": part(&point[1..33]), "y": part(&point[33..])});
    let sign = |message: &[u8]| key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
    verify(&token(&json!({"alg": "ES256"}), &claims(), sign), &every, &set(std::slice::from_ref(&jwk))).unwrap();
    verify(&token(&json!({"alg": "ES384"}), &claims(), sign), &every, &set(&[jwk])).unwrap_err();
    let short = json!({"kty": "EC", "crv": "P-256", "x": part(&point[1..32]), "y": part(&point[33..])});
    assert!(KeySet::parse(json!({"keys": [short]}).to_string().as_bytes()).is_err());
    let key = Ed25519KeyPair::generate().unwrap();
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": part(key.public_key().as_ref())});
    let sign = |message: &[u8]| key.sign(message).as_ref().to_vec();
    verify(&token(&json!({"alg": "EdDSA"}), &claims(), sign), &every, &set(&[jwk])).unwrap();
}

#[test]
fn malformed_and_huge_tokens_are_refused() {
    let rsa = Rsa::new();
    let keys = set(&[rsa.jwk("a")]);
    let good = rsa.token(&claims());
    let twice = format!(
        "{}.{}.AA",
        encoded(&json!({"alg": "RS256"})),
        URL_SAFE_NO_PAD.encode(r#"{"iss": "https://token.actions.example", "iss": "https://evil.example"}"#)
    );
    for (text, message) in [
        ("", "three parts"),
        ("a.b", "three parts"),
        ("a.b.c.d.e", "three parts"),
        ("!.b.c", "base64url"),
        (&*"a".repeat(MAX_TOKEN_BYTES + 1), "more than 16384 bytes"),
        (&*format!("{good}="), "base64url"),
        (&*format!("{good}.x"), "three parts"),
        (&*twice, "claims are not a JSON object"),
        (&*token(&json!({"alg": "RS256", "crit": ["b64"], "b64": false}), &claims(), |_| Vec::new()), "crit"),
        (&*token(&json!([]), &claims(), |_| Vec::new()), "header"),
        (&*token(&json!({"alg": "RS256"}), &json!({"aud": "x"}), |_| Vec::new()), "claims"),
        (&*token(&json!({"alg": "RS256"}), &with(json!({"exp": -1})), |_| Vec::new()), "out of range"),
        (&*token(&json!({"alg": "RS256"}), &with(json!({"exp": 1e300})), |_| Vec::new()), "out of range"),
        (&*token(&json!({"alg": "RS256"}), &with(json!({"exp": "soon"})), |_| Vec::new()), "another type"),
    ] {
        let error = verify(text, &issuer(), &keys).unwrap_err().to_string();
        assert!(error.contains(message), "{message}: {error}");
    }
    // Every changed byte breaks it.
    for position in (0..good.len()).step_by(7) {
        let mut bytes = good.clone().into_bytes();
        bytes[position] = if bytes[position] == b'A' { b'B' } else { b'A' };
        verify(&String::from_utf8(bytes).unwrap(), &issuer(), &keys).unwrap_err();
    }
}

#[test]
fn messages_have_no_control_characters_and_a_limit() {
    let rsa = Rsa::new();
    let text = rsa.token(&with(json!({"iss": format!("x\n\u{1b}[31m{}", "y".repeat(1000))})));
    let error = verify(&text, &issuer(), &set(&[rsa.jwk("a")])).unwrap_err().to_string();
    assert!(error.len() < 500 && !error.contains(['\n', '\u{1b}']), "{error}");
}

#[test]
fn issuers_without_audience_or_https_are_refused() {
    for (change, message) in [
        (TrustedIssuer { audiences: Vec::new(), ..issuer() }, "no audience"),
        (TrustedIssuer { issuer: "http://issuer.example".to_owned(), ..issuer() }, "https"),
        (TrustedIssuer { jwks_url: Some("http://x.example/keys".to_owned()), ..issuer() }, "https"),
        (TrustedIssuer { algorithms: Vec::new(), ..issuer() }, "no algorithm"),
        (TrustedIssuer { clock_skew_seconds: 301, ..issuer() }, "more than 300"),
    ] {
        assert!(change.check().unwrap_err().to_string().contains(message), "{message}");
    }
    let file = TrustedIssuer { issuer: "http://x.example".to_owned(), jwks_file: Some("a".to_owned()), ..issuer() };
    file.check().unwrap();
}
