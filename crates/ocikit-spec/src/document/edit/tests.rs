use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::document::{Config, History, Index, Manifest};
use crate::{Descriptor, Digest, MediaType, Platform};

/// A config as BuildKit writes it, with fields that no specification has at every level.
const CONFIG: &str = r#"{"architecture":"arm64","config":{"Env":["PATH=/bin","A=1"],"Cmd":["sh"],"Healthcheck":{"Test":["NONE"],"x":1.50},"Labels":{"a":"\u0026"},"OnBuild":null,"x":[1e3]},"created":"2024-01-01T00:00:00Z","history":[{"created_by":"ADD","x":{}},{"created_by":"ENV","empty_layer":true}],"moby.buildkit.x":1.0,"os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"],"x":null}}"#;

fn config() -> Config {
    Config::parse(CONFIG).unwrap()
}

fn id(text: &str) -> Digest {
    Digest::sha256_of(text.as_bytes())
}

fn created_by(config: &Config) -> Vec<&str> {
    config.history().iter().map(|step| step.created_by.as_deref().unwrap_or("?")).collect()
}

#[test]
fn config_edit_changes_only_the_requested_fields() {
    let edited = config()
        .edit()
        .env("A", "2")
        .env("B", "x=y")
        .cmd(["run", "a b"])
        .user("1:2")
        .label("k", "v,\"ä")
        .port("80/tcp")
        .remove(ConfigField::Created)
        .finish()
        .unwrap();
    let expected = CONFIG
        .replace(r#""A=1""#, r#""A=2","B=x=y""#)
        .replace(r#"["sh"]"#, r#"["run","a b"]"#)
        .replace(r#""a":"\u0026""#, r#""a":"\u0026","k":"v,\"ä""#)
        .replace(r#""x":[1e3]"#, r#""x":[1e3],"User":"1:2","ExposedPorts":{"80/tcp":{}}"#)
        .replace(r#""created":"2024-01-01T00:00:00Z","#, "");
    assert_eq!(edited.text(), expected);
}

#[test]
fn setting_a_field_to_its_value_keeps_the_bytes() {
    let edited = config()
        .edit()
        .env("A", "1")
        .cmd(["sh"])
        .label("a", "&")
        .os("linux")
        .remove_label("none")
        .remove_env("none")
        .remove(ConfigField::User)
        .finish()
        .unwrap();
    assert_eq!(edited.text(), CONFIG);
    let cancelled = config().edit().env("A", "2").env("A", "1").user("x").remove(ConfigField::User).finish().unwrap();
    assert_eq!(cancelled.text(), CONFIG);
    let spaced = format!(" {}\n", CONFIG.replace(r#""os":"linux""#, r#""os" : "linux""#));
    let spaced = Config::parse(spaced).unwrap();
    assert_eq!(spaced.edit().user("x").remove(ConfigField::User).finish().unwrap().text(), spaced.text());
    assert!(spaced.edit().user("x").finish().unwrap().text().ends_with("}\n"), "the end of the last line is kept");
}

#[test]
fn a_variable_that_occurs_twice_occurs_once_after_it_is_set() {
    let twice =
        Config::parse(r#"{"os":"linux","architecture":"amd64","config":{"Env":["A=1","B=2","A=3","C"]}}"#).unwrap();
    assert_eq!(twice.edit().env("A", "4").finish().unwrap().execution().env, ["A=4", "B=2", "C"]);
    assert_eq!(twice.edit().remove_env("A").remove_env("C").finish().unwrap().execution().env, ["B=2"]);
    assert_eq!(twice.edit().env("a", "5").finish().unwrap().execution().env.len(), 5);
    let windows = Config::parse(r#"{"os":"windows","architecture":"amd64","config":{"Env":["Path=1"]}}"#).unwrap();
    assert_eq!(windows.edit().env("PATH", "2").finish().unwrap().execution().env, ["PATH=2"]);
}

#[test]
fn settings_are_created_if_there_are_none() {
    for text in [r#"{"os":"linux"}"#, r#"{"os":"linux","config":null}"#, r#"{"os":"linux","config":{"Env":null}}"#] {
        let edited = Config::parse(text).unwrap().edit().env("A", "1").finish().unwrap();
        assert_eq!(edited.execution().env, ["A=1"], "{text}");
        let same = Config::parse(text).unwrap().edit().remove_env("A").remove(ConfigField::Env).finish().unwrap();
        assert_eq!(same.text(), text);
    }
    let wrong = Config::parse(r#"{"os":"linux","config":{}}"#).unwrap();
    assert!(wrong.edit().replace_history(3, &History::default()).finish().is_err());
}

#[test]
fn platform_is_replaced_as_a_whole_or_by_field() {
    let windows = Platform {
        os_version: Some("10.0".into()),
        os_features: vec!["win32k".into()],
        ..Platform::new("windows", "amd64")
    };
    let edited = config().edit().platform(&windows).finish().unwrap();
    assert_eq!(edited.platform(), Some(&windows));
    let back = edited.edit().platform(&Platform::new("linux", "arm64")).finish().unwrap();
    assert_eq!(back.text(), CONFIG);
    let edited = config().edit().variant("v8").os_version("1").os_features(["f"]).architecture("arm").finish().unwrap();
    assert_eq!(edited.platform().unwrap().to_string(), "linux(1)/arm/v8");
}

#[test]
fn healthcheck_keeps_its_unknown_fields() {
    let check = Healthcheck {
        test: vec!["CMD-SHELL".into(), "true".into()],
        interval: Duration::from_secs(30),
        retries: 3,
        ..Healthcheck::default()
    };
    let edited = config().edit().healthcheck(&check).finish().unwrap();
    assert!(edited.text().contains(r#"{"Test":["CMD-SHELL","true"],"x":1.50,"Interval":30000000000,"Retries":3}"#));
    assert_eq!(edited.healthcheck().unwrap(), Some(check));
    let back = Healthcheck { test: vec!["NONE".into()], ..Healthcheck::default() };
    assert_eq!(edited.edit().healthcheck(&back).finish().unwrap().text(), CONFIG);
    assert_eq!(edited.edit().remove(ConfigField::Healthcheck).finish().unwrap().healthcheck().unwrap(), None);
}

#[test]
fn history_stays_aligned_with_the_layers() {
    let step = |text: &str| History { created_by: Some(text.into()), ..History::default() };
    let mut edit = config().edit();
    edit.push_layer(&id("2"), Some(&step("RUN"))).push_history(&step("USER")).push_layer(&id("3"), None);
    let edited = edit.finish().unwrap();
    assert_eq!(created_by(&edited), ["ADD", "ENV", "RUN", "USER", "?"]);
    let layers = edited.history().iter().filter(|step| !step.empty_layer).count();
    assert_eq!((edited.rootfs().diff_ids.len(), layers), (3, 3));
    let inserted = edited.edit().insert_layer(1, &id("1.5"), Some(&step("COPY"))).finish().unwrap();
    assert_eq!(created_by(&inserted), ["ADD", "ENV", "COPY", "RUN", "USER", "?"]);
    let removed = inserted.edit().remove_layer(1).finish().unwrap();
    assert_eq!(removed.text(), edited.text());
    let fewer = edited.edit().remove_layer(2).remove_layer(1).remove_history(2).finish().unwrap();
    assert_eq!(fewer.text(), CONFIG);
    let emptied = edited.edit().empty_layer(1).finish().unwrap();
    assert_eq!((emptied.rootfs().diff_ids.len(), created_by(&emptied)), (2, created_by(&edited)));
    let empty = |config: &Config| config.history().iter().filter(|step| step.empty_layer).count();
    assert_eq!(empty(&emptied), empty(&edited) + 1);
    assert!(edited.edit().empty_layer(3).finish().is_err());
    let replaced = edited.edit().replace_layer(1, &id("x")).finish().unwrap();
    assert_eq!(replaced.rootfs().diff_ids[1], id("x"));
    assert_eq!(created_by(&replaced), created_by(&edited));
    assert!(edited.edit().remove_history(0).finish().unwrap_err().to_string().contains("at position 0"));
    assert!(
        edited.edit().remove_layer(3).finish().is_err() && edited.edit().replace_layer(3, &id("x")).finish().is_err()
    );
    assert!(edited.edit().insert_layer(4, &id("x"), None).finish().is_err());
    let renamed = config().edit().replace_history(0, &step("COPY")).finish().unwrap();
    assert_eq!(renamed.text(), CONFIG.replace(r#""ADD""#, r#""COPY""#));
}

#[test]
fn a_history_that_is_not_aligned_is_left_alone() {
    let odd =
        Config::parse(CONFIG.replace(r#""created_by":"ADD""#, r#""created_by":"ADD","empty_layer":true"#)).unwrap();
    let edited = odd.edit().push_layer(&id("2"), None).remove_layer(0).finish().unwrap();
    assert_eq!((edited.history().len(), edited.rootfs().diff_ids.as_slice()), (2, &[id("2")][..]));
    let none = Config::parse(r#"{"os":"linux","architecture":"amd64"}"#).unwrap();
    let plain = none.edit().push_layer(&id("1"), None).finish().unwrap();
    assert_eq!(
        plain.text(),
        format!(r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#, id("1"))
    );
    let with_step =
        none.edit().push_layer(&id("1"), Some(&History::default())).push_history(&History::default()).finish();
    let with_step = with_step.unwrap();
    assert_eq!(with_step.history().len(), 2);
    let without = with_step.edit().remove_layer(0).remove_history(0).finish().unwrap();
    assert_eq!(without.text(), r#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}"#);
}

#[test]
fn base_is_replaced_with_its_history() {
    let of = |layers: &[&str], steps: &[(&str, bool)]| {
        let mut edit = Config::parse(r#"{"os":"linux","architecture":"amd64","history":[]}"#).unwrap().edit();
        let mut layers = layers.iter();
        for (text, empty_layer) in steps {
            let step = History { created_by: Some((*text).into()), empty_layer: *empty_layer, ..History::default() };
            match empty_layer {
                true => edit.push_history(&step),
                false => edit.push_layer(&id(layers.next().unwrap()), Some(&step)),
            };
        }
        edit.finish().unwrap()
    };
    let old = of(&["a", "b"], &[("A", false), ("B", false), ("CMD", true)]);
    let new = of(&["c"], &[("C", false), ("ENV", true)]);
    let image = of(&["a", "b", "d"], &[("A", false), ("B", false), ("CMD", true), ("USER", true), ("D", false)]);
    let rebased = image.edit().replace_base(&old, &new).finish().unwrap();
    assert_eq!(rebased.rootfs().diff_ids, [id("c"), id("d")]);
    assert_eq!(created_by(&rebased), ["C", "ENV", "USER", "D"]);
    assert_eq!(rebased.edit().replace_base(&new, &old).finish().unwrap().text(), image.text());
    assert!(image.edit().replace_base(&new, &old).finish().unwrap_err().to_string().contains("old base"));
    let bare = Config::parse(format!(r#"{{"os":"linux","rootfs":{{"diff_ids":["{}"]}}}}"#, id("e"))).unwrap();
    let rebased = image.edit().replace_base(&old, &bare).finish().unwrap();
    assert_eq!(created_by(&rebased), ["?", "USER", "D"]);
}

#[test]
fn layers_of_a_manifest_are_inserted_replaced_and_removed() {
    let layer = |text: &str| Descriptor::of(MediaType::OCI_LAYER_GZIP, text.as_bytes());
    let text = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"{}","size":2,"digest":"{}","annotations":{{"a":"b"}},"data":"e30="}},"layers":[],"x":1.50}}"#,
        MediaType::OCI_CONFIG,
        id("{}")
    );
    let manifest = Manifest::parse(text.clone()).unwrap();
    let mut edit = manifest.edit();
    edit.push_layer(&layer("b")).insert_layer(0, &layer("a")).push_layer(&layer("d")).replace_layer(2, &layer("c"));
    let edited = edit.set_layer_media_type(0, &MediaType::OCI_LAYER_ZSTD).finish().unwrap();
    let digests: Vec<_> = edited.layers().iter().map(|layer| layer.digest).collect();
    assert_eq!(digests, [id("a"), id("b"), id("c")]);
    assert_eq!(edited.layers()[0].media_type, MediaType::OCI_LAYER_ZSTD);
    assert_eq!(edited.edit().remove_layer(2).remove_layer(0).remove_layer(0).finish().unwrap().text(), text);
    for wrong in [
        manifest.edit().remove_layer(0).clone(),
        manifest.edit().insert_layer(1, &layer("a")).clone(),
        manifest.edit().replace_layer(0, &layer("a")).clone(),
        manifest.edit().set_layer_media_type(0, &MediaType::OCI_LAYER).clone(),
    ] {
        assert!(wrong.finish().unwrap_err().to_string().contains("no layer at position"));
    }
    let repointed = manifest.edit().repoint_config(&id("new"), 3).finish().unwrap();
    let config = repointed.config().unwrap();
    assert_eq!((config.digest, config.size, config.annotations.get("a")), (id("new"), 3, Some("b")));
    assert_eq!(config.data, None, "contents of the old digest are not kept");
    let subject = layer("s");
    let typed = manifest.edit().set_subject(&subject).set_artifact_type(Some(&"a/b".into())).finish().unwrap();
    assert_eq!((typed.subject(), typed.artifact_type()), (Some(&subject), Some(&"a/b".into())));
    assert_eq!(typed.edit().remove_subject().set_artifact_type(None).finish().unwrap().text(), text);
    let mut docker = manifest.edit();
    docker.set_media_type(&MediaType::DOCKER_MANIFEST).set_config_media_type(&MediaType::DOCKER_CONFIG);
    assert!(docker.finish().unwrap().config().unwrap().media_type.is_docker());
}

#[test]
fn entries_of_an_index_are_changed_by_position() {
    let entry = |text: &str| Descriptor::of(MediaType::OCI_MANIFEST, text.as_bytes());
    let index = Index::of(&[entry("b")]);
    let edited =
        index.edit().insert(0, &entry("a")).set_platform(0, Some(&Platform::new("linux", "arm"))).finish().unwrap();
    assert_eq!(edited.manifests()[0].platform.as_ref().unwrap().to_string(), "linux/arm");
    assert_eq!(edited.edit().set_platform(0, None).remove(0).finish().unwrap().text(), index.text());
    let text = edited.text().replace(r#""os":"linux""#, r#""os":"linux","x":1.0"#);
    let odd = Index::parse(text.clone()).unwrap();
    let moved = odd.edit().set_platform(0, Some(&"linux/arm/v7".parse().unwrap())).finish().unwrap();
    assert_eq!(moved.text(), text.replace(r#""x":1.0"#, r#""x":1.0,"variant":"v7""#));
    let typed = index
        .edit()
        .set_entry_media_type(0, &MediaType::DOCKER_MANIFEST)
        .set_entry_artifact_type(0, Some(&"a/b".into()))
        .finish();
    assert_eq!(typed.unwrap().manifests()[0].artifact_type, Some("a/b".into()));
    let subject = index.edit().set_subject(&entry("s")).repoint_subject(&id("t"), 7).finish().unwrap();
    assert_eq!(subject.subject().map(|subject| (subject.digest, subject.size)), Some((id("t"), 7)));
    assert_eq!(subject.edit().remove_subject().finish().unwrap().text(), index.text());
    assert!(
        index.edit().insert(3, &entry("x")).finish().is_err() && index.edit().set_platform(3, None).finish().is_err()
    );
}

/// A change of a config and the one that undoes it.
#[derive(Debug, Clone)]
enum Change {
    Env(String, String),
    Label(String, String),
    Port(String),
    Volume(String),
    User(String),
    Entrypoint(Vec<String>),
    Layer(String),
    History(String),
    Author(String),
    Variant(String),
}

fn change() -> impl Strategy<Value = Change> {
    let name = "[a-zA-Z_]{1,8}x";
    prop_oneof![
        (name, ".*").prop_map(|(name, value)| Change::Env(name, value)),
        (".*x", ".*").prop_map(|(key, value)| Change::Label(key, value)),
        ".+".prop_map(Change::Port),
        ".+".prop_map(Change::Volume),
        ".*".prop_map(Change::User),
        prop::collection::vec(".*", 1..3).prop_map(Change::Entrypoint),
        ".*".prop_map(Change::Layer),
        ".*".prop_map(Change::History),
        ".*".prop_map(Change::Author),
        ".*".prop_map(Change::Variant),
    ]
}

fn apply(config: &Config, change: &Change) -> Config {
    let mut edit = config.edit();
    let step = |text: &str| History { created_by: Some(text.to_owned()), ..History::default() };
    match change {
        Change::Env(name, value) => edit.env(name, value),
        Change::Label(key, value) => edit.label(key, value),
        Change::Port(port) => edit.port(port),
        Change::Volume(volume) => edit.volume(volume),
        Change::User(user) => edit.user(user),
        Change::Entrypoint(words) => edit.entrypoint(words),
        Change::Layer(text) => edit.push_layer(&id(text), Some(&step(text))),
        Change::History(text) => edit.push_history(&step(text)),
        Change::Author(author) => edit.author(author),
        Change::Variant(variant) => edit.variant(variant),
    };
    edit.finish().unwrap()
}

fn undo(config: &Config, change: &Change) -> Config {
    let mut edit = config.edit();
    match change {
        Change::Env(name, _) => edit.remove_env(name),
        Change::Label(key, _) => edit.remove_label(key),
        Change::Port(port) => edit.remove_port(port),
        Change::Volume(volume) => edit.remove_volume(volume),
        Change::User(_) => edit.remove(ConfigField::User),
        Change::Entrypoint(_) => edit.remove(ConfigField::Entrypoint),
        Change::Layer(_) => edit.remove_layer(config.rootfs().diff_ids.len() - 1),
        Change::History(_) => edit.remove_history(config.history().len() - 1),
        Change::Author(_) => edit.remove(ConfigField::Author),
        Change::Variant(_) => edit.remove(ConfigField::Variant),
    };
    edit.finish().unwrap()
}

proptest! {
    #[test]
    fn a_change_of_a_config_and_its_inverse_give_the_same_bytes(change in change(), indent in 0..5_usize) {
        let text = match indent {
            0 => CONFIG.to_owned(),
            width => crate::json::lay_out(CONFIG, crate::json::Layout::Indented(&" ".repeat(width))) + "\n",
        };
        let before = Config::parse(text.clone()).unwrap();
        let after = apply(&before, &change);
        prop_assert_ne!(after.digest(), before.digest());
        for kept in ["moby.buildkit.x", "OnBuild", "Healthcheck", "1.50", "1e3", "\\u0026"] {
            prop_assert!(after.text().contains(kept), "{}", kept);
        }
        let back = undo(&after, &change);
        prop_assert_eq!(back.text(), &text);
    }

    #[test]
    fn values_of_a_config_are_kept_byte_for_byte(key in ".*", value in ".*") {
        let edited = config().edit().label(&key, &value).user(&value).cmd([&value]).finish().unwrap();
        prop_assert_eq!(edited.execution().labels.get(&key), Some(value.as_str()));
        prop_assert_eq!(edited.execution().user.as_deref(), Some(value.as_str()));
        prop_assert_eq!(&edited.execution().cmd, &[value]);
    }
}
