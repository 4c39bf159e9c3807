//! Hostile docker archives.

use ocikit_spec::Digest;
use serde_json::json;

use super::documents::{config_of_image, deep};
use super::layers::XZ_DICTIONARY;
use super::tar::RawTar;

fn docker(list: &str) -> Vec<u8> {
    let config = config_of_image("");
    let mut tar = RawTar::default();
    tar.file("config.json", config.as_bytes());
    tar.file("layer.tar", &RawTar::default().file("etc/motd", b"hello\n").end());
    tar.file("manifest.json", list.as_bytes()).end()
}

pub(super) fn docker_up() -> Vec<u8> {
    docker(r#"[{"Config":"config.json","RepoTags":["a:1"],"Layers":["../../../../etc/passwd"]}]"#)
}

pub(super) fn docker_many() -> Vec<u8> {
    let item = r#"{"Config":"config.json","RepoTags":["a:1"],"Layers":["layer.tar"]}"#;
    docker(&format!("[{}]", vec![item; 1000].join(",")))
}

pub(super) fn docker_tags() -> Vec<u8> {
    let tags: Vec<_> = (0..700_000).map(|number| format!("\"a:{number:x}\"")).collect();
    docker(&format!(r#"[{{"Config":"config.json","RepoTags":[{}],"Layers":["layer.tar"]}}]"#, tags.join(",")))
}

pub(super) fn docker_deep() -> Vec<u8> {
    docker(&deep(20_000))
}

pub(super) fn docker_xz_dictionary() -> Vec<u8> {
    let diff_id = Digest::sha256_of(b"");
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}});
    let list = json!([{"Config": "config.json", "RepoTags": ["a:1"], "Layers": ["layer.tar"]}]);
    let mut tar = RawTar::default();
    tar.file("config.json", config.to_string().as_bytes()).file("layer.tar", &XZ_DICTIONARY);
    tar.file("manifest.json", list.to_string().as_bytes()).end()
}
