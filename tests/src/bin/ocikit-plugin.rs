//! Signing plugins, selected by the name of the program: `notation-raw` returns signatures and `notation-whole` envelopes to
//! notation, `notation-checks` verifies, and `sigstore-kms-…` returns signatures to cosign. Keys are files. The plugin
//! configuration `errs=FAULT` selects a fault.

use std::error::Error;
use std::fs;
use std::io::{Read, Write};
use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ocikit_sign::{Certificate, KeyKind, PrivateKey, Scheme};
use serde_json::{Value, json};

fn main() -> ExitCode {
    match answer() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = write!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn answer() -> Result<(), Box<dyn Error>> {
    let words: Vec<_> = std::env::args().collect();
    let [program, first, rest @ ..] = &words[..] else { return Err("a command is missing".into()) };
    let name = program.rsplit('/').next().unwrap_or_default();
    let mut input = Vec::new();
    let answer = if name.starts_with("sigstore-kms-") {
        let question: Value = serde_json::from_str(rest.first().ok_or("the request is missing")?)?;
        // Standard input holds the message. Without a message, cosign leaves standard input open.
        if question["methodName"] != "publicKey" {
            std::io::stdin().read_to_end(&mut input)?;
        }
        kms(first, &question, &input)
            .or_else(|error| Ok::<_, Box<dyn Error>>(json!({"errorMessage": error.to_string()})))?
    } else {
        std::io::stdin().read_to_end(&mut input)?;
        notation(name, first, &serde_json::from_slice(&input)?)?
    };
    std::io::stdout().write_all(answer.to_string().as_bytes())?;
    Ok(())
}

fn kms(version: &str, question: &Value, message: &[u8]) -> Result<Value, Box<dyn Error>> {
    let options = &question["initOptions"];
    if version != "v1" || options["protocolVersion"] != "v1" {
        return Err("unsupported protocol version".into());
    }
    let key = PrivateKey::from_pem(&fs::read(text(&options["keyResourceID"])?)?, None)?;
    match text(&question["methodName"])? {
        "publicKey" => Ok(json!({"publicKey": {"publicKeyPEM": STANDARD.encode(key.public_key().to_pem())}})),
        "signMessage" => {
            let hash = match key.public_key().kind() {
                KeyKind::P384 => 6,
                KeyKind::P521 => 7,
                _ => 5,
            };
            if options["hashFunc"] != hash {
                return Err(format!("this key does not sign with hash {}", options["hashFunc"]).into());
            }
            let signature = key.sign(Scheme::of_cosign(key.public_key().kind()), message)?;
            Ok(json!({"signMessage": {"signature": STANDARD.encode(signature)}}))
        }
        "verifySignature" => {
            let signature = STANDARD.decode(text(&question["verifySignature"]["signature"])?)?;
            let scheme = Scheme::of_cosign(key.public_key().kind());
            match key.public_key().verifies(scheme, message, &signature) {
                true => Ok(json!({"verifySignature": {}})),
                false => Err("the signature is wrong".into()),
            }
        }
        other => Err(format!("{other} is not done").into()),
    }
}

fn notation(name: &str, command: &str, question: &Value) -> Result<Value, Box<dyn Error>> {
    let name = name.strip_prefix("notation-").ok_or("unknown program name")?;
    let config = &question["pluginConfig"];
    let errs = |how: &str| config["errs"] == how;
    if command == "get-plugin-metadata" {
        let capabilities = match name {
            "raw" => &["SIGNATURE_GENERATOR.RAW"][..],
            "checks" => &[IDENTITY, REVOCATION],
            _ => &["SIGNATURE_GENERATOR.ENVELOPE"],
        };
        return Ok(
            json!({"name": if errs("name") { "other" } else { name }, "description": "signs", "version": "1.0.0",
            "url": "https://example.com", "supportedContractVersions": [if errs("version") { "2.0" } else { "1.0" }],
            "capabilities": capabilities}),
        );
    }
    if errs("denies") {
        return Err(json!({"errorCode": "ACCESS_DENIED", "errorMessage": "not you"}).to_string().into());
    }
    if command == "verify-signature" {
        let mut results = serde_json::Map::new();
        for capability in question["trustPolicy"]["signatureVerification"].as_array().into_iter().flatten() {
            let capability = text(capability)?;
            results.insert(capability.to_owned(), json!({"success": !errs(capability), "reason": "so it is"}));
        }
        let processed = &question["signature"]["unprocessedAttributes"];
        let processed = if errs("processed") { &json!([]) } else { processed };
        return Ok(json!({"verificationResults": results, "processedAttributes": processed}));
    }
    let key = PrivateKey::from_pem(&fs::read(text(&config["key"])?)?, None)?;
    let chain = Certificate::read_all(&fs::read(text(&config["chain"])?)?)?;
    let scheme = Scheme::of_notation(key.public_key().kind()).ok_or("unsupported key type")?;
    let (spec, hash, algorithm, jose) = match scheme {
        Scheme::EcdsaP384Sha384 => ("EC-384", "SHA-384", "ECDSA-SHA-384", "ES384"),
        Scheme::RsaPssSha256 => ("RSA-2048", "SHA-256", "RSASSA-PSS-SHA-256", "PS256"),
        _ => return Err("unsupported key type".into()),
    };
    let sign = |message: &[u8]| -> Result<Vec<u8>, Box<dyn Error>> {
        let signature = key.sign(scheme, message)?;
        let mut signature = if spec == "EC-384" { fixed(&signature, 48) } else { signature };
        if errs("signature") {
            signature[7] ^= 1;
        }
        Ok(signature)
    };
    let id = if errs("key") { "another" } else { text(&question["keyId"])? };
    let payload = || -> Result<Vec<u8>, Box<dyn Error>> { Ok(STANDARD.decode(text(&question["payload"])?)?) };
    match command {
        "describe-key" => Ok(json!({"keyId": id, "keySpec": spec})),
        "generate-signature" => {
            if question["keySpec"] != spec || question["hashAlgorithm"] != hash {
                return Err("the request is for another key or hash".into());
            }
            let chain: Vec<_> = chain.iter().map(|certificate| STANDARD.encode(certificate.to_der())).collect();
            Ok(json!({"keyId": id, "signature": STANDARD.encode(sign(&payload()?)?), "signingAlgorithm": algorithm,
                "certificateChain": chain}))
        }
        "generate-envelope" => {
            if question["signatureEnvelopeType"] != "application/jose+json" {
                return Err("only JWS is supported".into());
            }
            let (now, mut more) = (jiff::Timestamp::now(), Vec::new());
            let time = |time: jiff::Timestamp| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let mut protected = json!({"alg": jose, "cty": question["payloadType"],
                "crit": ["io.cncf.notary.signingScheme"], "io.cncf.notary.signingScheme": "notary.x509",
                "io.cncf.notary.signingTime": time(now)});
            if let Some(seconds) = question["expiryDurationInSeconds"].as_u64() {
                protected["crit"] = json!(["io.cncf.notary.signingScheme", "io.cncf.notary.expiry"]);
                let expiry = now + jiff::SignedDuration::from_secs(i64::try_from(seconds)?);
                protected["io.cncf.notary.expiry"] = time(expiry).into();
            }
            if let Some(plugin) = config["asks"].as_str() {
                let critical = protected["crit"].as_array_mut().ok_or("it is a list")?;
                for (name, value) in [
                    ("io.cncf.notary.verificationPlugin", plugin),
                    ("io.cncf.notary.verificationPluginMinVersion", config["version"].as_str().unwrap_or("1.0.0")),
                    ("com.example.must", "be seen"),
                ] {
                    critical.push(name.into());
                    more.push((name, value));
                }
            }
            for (name, value) in more {
                protected[name] = value.into();
            }
            let payload = if errs("subject") { br#"{"targetArtifact":{}}"#.to_vec() } else { payload()? };
            let [protected, payload] =
                [protected.to_string().into_bytes(), payload].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
            let signature = URL_SAFE_NO_PAD.encode(sign(format!("{protected}.{payload}").as_bytes())?);
            let x5c: Vec<_> = chain.iter().map(|certificate| STANDARD.encode(certificate.to_der())).collect();
            let envelope =
                json!({"payload": payload, "protected": protected, "header": {"x5c": x5c}, "signature": signature});
            Ok(json!({"signatureEnvelope": STANDARD.encode(envelope.to_string()),
                "signatureEnvelopeType": question["signatureEnvelopeType"], "annotations": {"com.example.by": "whole"}}))
        }
        other => Err(format!("{other} is not done").into()),
    }
}

const IDENTITY: &str = "SIGNATURE_VERIFIER.TRUSTED_IDENTITY";
const REVOCATION: &str = "SIGNATURE_VERIFIER.REVOCATION_CHECK";

fn text(value: &Value) -> Result<&str, Box<dyn Error>> {
    value.as_str().ok_or_else(|| "a field is missing".into())
}

/// Converts an ECDSA signature of fewer than 128 bytes from DER to two integers of this length each.
fn fixed(der: &[u8], length: usize) -> Vec<u8> {
    let (mut rest, mut fixed) = (&der[2..], Vec::new());
    while let [2, size, ..] = rest {
        let number = &rest[2..2 + usize::from(*size)];
        rest = &rest[2 + usize::from(*size)..];
        let digits = &number[number.iter().take_while(|byte| **byte == 0).count()..];
        fixed.extend(std::iter::repeat_n(0, length - digits.len()));
        fixed.extend_from_slice(digits);
    }
    fixed
}
