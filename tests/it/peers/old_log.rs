//! A test double for a transparency log with the API of Rekor 1, as far as signing uses it: Rekor needs a database and two
//! other services. cosign verifies the entries of the double, and recorded bundles test entries of real logs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ocikit_sign::{KeyKind, PrivateKey, Scheme};
use ocikit_spec::Digest;
use ocikit_tests::json;
use serde_json::{Value, json};

pub(super) struct OldLog {
    pub(super) url: String,
    log: Arc<Log>,
}

struct Log {
    key: PrivateKey,
    entries: Mutex<Vec<Value>>,
    ends: AtomicBool,
}

/// The ID of the tree: a log of Rekor consists of several trees.
const TREE: &str = "00000000000004d2";

impl OldLog {
    pub(super) fn start() -> OldLog {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let key = PrivateKey::generate(KeyKind::P256).unwrap();
        let log = Arc::new(Log { key, entries: Mutex::default(), ends: AtomicBool::default() });
        let old = OldLog { url: format!("http://{}", listener.local_addr().unwrap()), log: log.clone() };
        thread::spawn(move || {
            for client in listener.incoming().flatten().take_while(|_| !log.ends.load(Ordering::Relaxed)) {
                let _ = log.serve(client);
            }
        });
        old
    }

    /// Returns the public key of the log in PEM.
    pub(super) fn public_key(&self) -> String {
        self.log.key.public_key().to_pem()
    }

    pub(super) fn entries(&self) -> usize {
        self.log.entries.lock().unwrap().len()
    }
}

impl Log {
    fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(client.try_clone()?);
        let (mut asked, mut length) = (String::new(), 0);
        reader.read_line(&mut asked)?;
        for line in (&mut reader).lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
            if let Some(found) = line.to_lowercase().strip_prefix("content-length:") {
                length = found.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let (status, location, answer) = match asked.split(' ').collect::<Vec<_>>()[..] {
            ["POST", "/api/v1/log/entries", _] => self.enter(&serde_json::from_slice(&body).unwrap()),
            ["GET", path, _] => match path.strip_prefix("/api/v1/log/entries/") {
                Some(id) => self.find(id),
                None => ("404 Not Found", String::new(), Value::Null),
            },
            _ => ("404 Not Found", String::new(), Value::Null),
        };
        let answer = answer.to_string();
        write!(client, "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n{location}")?;
        write!(client, "content-length: {}\r\n\r\n{answer}", answer.len())
    }

    fn enter(&self, proposed: &Value) -> (&'static str, String, Value) {
        let entry = entry(proposed);
        let id = id(&entry);
        let is_new = {
            let mut entries = self.entries.lock().unwrap();
            let is_new = !entries.contains(&entry);
            if is_new {
                entries.push(entry);
            }
            is_new
        };
        let location = format!("location: /api/v1/log/entries/{id}\r\netag: {id}\r\n");
        match is_new {
            true => ("201 Created", location, self.find(&id).2),
            false => ("409 Conflict", location, json!({"code": 409, "message": "an equivalent entry already exists"})),
        }
    }

    fn find(&self, wanted: &str) -> (&'static str, String, Value) {
        let entries = self.entries.lock().unwrap();
        let Some(index) = entries.iter().position(|entry| id(entry) == wanted) else {
            return ("404 Not Found", String::new(), Value::Null);
        };
        let leaves: Vec<_> = entries.iter().map(leaf).collect();
        let body = STANDARD.encode(entries[index].to_string());
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let name = Digest::sha256_of(self.key.public_key().to_der());
        let sign = |text: &str| self.key.sign(Scheme::EcdsaP256Sha256, text.as_bytes()).unwrap();
        // The index counts over all trees, and the other trees have a hundred entries.
        let (all, log_id) = (index + 100, name.hex());
        let said = format!(r#"{{"body":"{body}","integratedTime":{time},"logID":"{log_id}","logIndex":{all}}}"#);
        let root = root(&leaves);
        let note = format!("127.0.0.1 - 1234\n{}\n{}\n", leaves.len(), STANDARD.encode(root.as_bytes()));
        let signature = STANDARD.encode([&name.as_bytes()[..4], &sign(&note)].concat());
        let hashes: Vec<_> = siblings(&leaves, index).iter().map(Digest::hex).collect();
        let answer = json!({wanted: {
            "body": body, "integratedTime": time, "logID": log_id, "logIndex": all,
            "verification": {
                "inclusionProof": {
                    "checkpoint": format!("{note}\n— 127.0.0.1 {signature}\n"), "hashes": hashes, "logIndex": index,
                    "rootHash": root.hex(), "treeSize": leaves.len(),
                },
                "signedEntryTimestamp": STANDARD.encode(sign(&said)),
            },
        }});
        ("200 OK", String::new(), answer)
    }
}

impl Drop for OldLog {
    fn drop(&mut self) {
        self.log.ends.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
    }
}

/// Returns the stored entry for a proposed one. Of an envelope only the hashes are stored.
fn entry(proposed: &Value) -> Value {
    if proposed["kind"] == "hashedrekord" {
        return proposed.clone();
    }
    let content = &proposed["spec"]["proposedContent"];
    let text = content["envelope"].as_str().unwrap();
    let envelope = json(text);
    let hash = |bytes: &[u8]| json!({"algorithm": "sha256", "value": Digest::sha256_of(bytes).hex()});
    json!({"apiVersion": "0.0.1", "kind": "dsse", "spec": {
        "envelopeHash": hash(text.as_bytes()),
        "payloadHash": hash(&STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap()),
        "signatures": [{"signature": envelope["signatures"][0]["sig"], "verifier": content["verifiers"][0]}],
    }})
}

fn leaf(entry: &Value) -> Digest {
    Digest::sha256_of(&[&[0], entry.to_string().as_bytes()].concat())
}

fn id(entry: &Value) -> String {
    format!("{TREE}{}", leaf(entry).hex())
}

/// RFC 9162, 2.1.1.
fn root(leaves: &[Digest]) -> Digest {
    match leaves {
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            Digest::sha256_of(&[&[1], root(left).as_bytes(), root(right).as_bytes()].concat())
        }
    }
}

/// Returns the sibling hashes on the path from a leaf to the root, the lowest first.
fn siblings(leaves: &[Digest], index: usize) -> Vec<Digest> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let half = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(half);
    let (mut way, other) = match index < half {
        true => (siblings(left, index), root(right)),
        false => (siblings(right, index - half), root(left)),
    };
    way.push(other);
    way
}
