//! The services of keyless signing on this machine: Fulcio, Rekor, a timestamp authority and an OIDC issuer.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ocikit_sign::{KeyKind, PrivateKey, Scheme};
use ocikit_tests::{Bench, Daemon, Outcome, Peers, free_port, json};
use serde_json::{Value, json};

pub(super) const WHO: &str = "signer@example.com";

/// An OpenID Connect issuer with the endpoints that Fulcio uses.
pub(super) struct Issuer {
    pub(super) url: String,
    pub(super) key: PrivateKey,
    pub(super) ends: Arc<AtomicBool>,
}

impl Issuer {
    pub(super) fn start() -> Issuer {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let key = PrivateKey::generate(KeyKind::Rsa { bits: 2048 }).unwrap();
        // The modulus follows 33 bytes that all keys of this length share, and precedes the exponent, 65537.
        let modulus = URL_SAFE_NO_PAD.encode(&key.public_key().to_der()[33..289]);
        let keys =
            json!({"keys": [{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1", "n": modulus, "e": "AQAB"}]});
        let facts = json!({
            "issuer": url, "jwks_uri": format!("{url}/keys"), "authorization_endpoint": format!("{url}/a"),
            "token_endpoint": format!("{url}/t"), "response_types_supported": ["code"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["RS256"],
        });
        let issuer = Issuer { url, key, ends: Arc::default() };
        // The token that GitHub returns for the secret of a workflow.
        let token = json!({"value": issuer.token(WHO)});
        let ends = issuer.ends.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten().take_while(|_| !ends.load(Ordering::Relaxed)) {
                let _ = Issuer::answer(client, &facts, &keys, &token);
            }
        });
        issuer
    }

    fn answer(mut client: TcpStream, facts: &Value, keys: &Value, token: &Value) -> std::io::Result<()> {
        let mut lines = BufReader::new(client.try_clone()?).lines();
        let asked = lines.next().transpose()?.unwrap_or_default();
        let headers: Vec<_> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        let may = headers.iter().any(|line| line.eq_ignore_ascii_case("authorization: Bearer workflow"));
        let body = match asked.split(' ').nth(1) {
            Some("/keys") => keys.to_string(),
            Some("/github?x=y&audience=sigstore") if may => token.to_string(),
            _ => facts.to_string(),
        };
        let length = body.len();
        write!(client, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n")?;
        write!(client, "content-length: {length}\r\n\r\n{body}")
    }

    pub(super) fn token(&self, email: &str) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = json!({
            "iss": self.url, "sub": email, "aud": "sigstore", "email": email, "email_verified": true,
            "iat": now, "nbf": now - 5, "exp": now + 600,
        });
        let signed = format!("{}.{}", part(json!({"alg": "RS256", "kid": "1", "typ": "JWT"})), part(claims));
        let signature = self.key.sign(Scheme::RsaPkcs1Sha256, signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
    }
}

/// The services, and the signing configuration and trusted root that cosign writes for them.
pub(super) struct Services {
    pub(super) issuer: Issuer,
    pub(super) fulcio: Daemon,
    pub(super) rekor: Daemon,
    pub(super) timestamps: Daemon,
    pub(super) config: String,
    pub(super) root: String,
}

impl Services {
    pub(super) fn start(peers: &Peers) -> Services {
        // The timestamp server sends no certificates: they are in the trusted root. Starting it waits for a lock, which also
        // serializes the starts of Fulcio, whose socket has the same name for all instances.
        let timestamps = peers.timestamp_server_with(&[]);
        let issuer = Issuer::start();
        let url = &issuer.url;
        let rule = json!({"IssuerURL": url, "ClientID": "sigstore", "Type": "email"});
        fs::write(peers.path("fulcio.json"), json!({"OIDCIssuers": {url: rule}}).to_string()).unwrap();
        let fulcio = service(peers, |port| {
            let ports = format!("--port {port} --grpc-port {} --metrics-port {}", free_port(), free_port());
            let here =
                "--host 127.0.0.1 --grpc-host 127.0.0.1 --ca ephemeralca --config-path fulcio.json --ct-log-url=";
            format!("fulcio serve {here} {ports}")
        });
        peers.ok("openssl genpkey -algorithm ed25519 -out log.key");
        peers.ok("openssl pkey -in log.key -pubout -out log.pub");
        let rekor = service(peers, |port| {
            let ports = format!("--http-port {port} --grpc-port {} --http-metrics-port {}", free_port(), free_port());
            let log = "--hostname 127.0.0.1 --storage-dir log --signer-filepath log.key --checkpoint-interval 1s";
            format!("rekor-server serve {log} {ports}")
        });
        let bundle = get(&fulcio, "/api/v2/trustBundle");
        let bundle = json(&bundle);
        fs::write(peers.path("fulcio.pem"), bundle["chains"][0]["certificates"][0].as_str().unwrap()).unwrap();
        fs::write(peers.path("stamps.pem"), get(&timestamps, "/api/v1/timestamp/certchain")).unwrap();
        let since = "start-time=2026-01-01T00:00:00Z";
        let nothing = "--no-default-fulcio --no-default-rekor --no-default-tsa";
        peers.ok(&format!(
            "cosign signing-config create {nothing} --no-default-oidc --out config.json \
             --fulcio url=http://{},api-version=1,{since},operator=test \
             --rekor url=http://{},api-version=2,{since},operator=test --rekor-config ANY \
             --tsa url=http://{}/api/v1/timestamp,api-version=1,{since},operator=test --tsa-config ANY \
             --oidc-provider url={url},api-version=1,{since},operator=test",
            fulcio.address, rekor.address, timestamps.address
        ));
        peers.ok(&format!(
            "cosign trusted-root create {nothing} --no-default-ctfe --out root.json \
             --fulcio url=http://{},certificate-chain=fulcio.pem \
             --rekor url=http://{},public-key=log.pub,{since},origin=127.0.0.1 \
             --tsa url=http://{},certificate-chain=stamps.pem",
            fulcio.address, rekor.address, timestamps.address
        ));
        let path = |name: &str| peers.path(name).display().to_string();
        let (config, root) = (path("config.json"), path("root.json"));
        Services { issuer, fulcio, rekor, timestamps, config, root }
    }

    /// Writes a token for this mail address to a file.
    pub(super) fn token(&self, bench: &Bench, email: &str) -> PathBuf {
        let path = bench.path("token");
        fs::write(&path, self.issuer.token(email)).unwrap();
        path
    }

    /// Returns the flags for the trusted root, the identity and the issuer, which cosign and ocikit share.
    pub(super) fn trust(&self, who: &str) -> [String; 3] {
        [
            format!("--trusted-root={}", self.root),
            format!("--certificate-identity={who}"),
            format!("--certificate-oidc-issuer={}", self.issuer.url),
        ]
    }

    pub(super) fn cosign_verifies(
        &self,
        peers: &Peers,
        command: &str,
        flags: &str,
        who: &str,
        reference: &str,
    ) -> Outcome {
        let trust = self.trust(who).join(" ");
        peers.run(&format!("cosign {command} {trust} {flags} --insecure-ignore-sct --allow-http-registry {reference}"))
    }

    pub(super) fn ocikit_verifies(&self, bench: &Bench, who: &str, more: &[&str]) -> Outcome {
        let trust = self.trust(who);
        let trust: Vec<_> = trust.iter().map(String::as_str).collect();
        bench.ocikit(&[&["verify", "--insecure-ignore-sct"], &trust[..], more].concat())
    }
}

pub(super) fn service(peers: &Peers, line: impl FnOnce(u16) -> String) -> Daemon {
    let port = free_port();
    let line = line(port);
    let mut words = line.split_whitespace();
    let program = words.next().unwrap();
    let mut command = peers.command(program);
    command.args(words);
    let mut daemon = Daemon::start(command, &peers.path(&format!("{program}.log")));
    daemon.address = format!("127.0.0.1:{port}");
    let address = daemon.address.clone();
    daemon.wait(|| TcpStream::connect(&address).is_ok());
    daemon
}

pub(super) fn get(daemon: &Daemon, path: &str) -> String {
    let mut stream = TcpStream::connect(&daemon.address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", daemon.address).unwrap();
    let answer = std::io::read_to_string(stream).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}
