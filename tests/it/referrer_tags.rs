//! Signatures and other referrers of copied, mirrored and annotated images.

use std::fs;

use ocikit::registry::RetryOptions;
use ocikit::{Client, ClientOptions, Location, Session, SessionOptions};
use ocikit_server::{Rules, Server, Switch};
use ocikit_tests::{Bench, Registry, json, single};

use crate::bench;

const FORMATS: [&str; 2] = ["--format=cosign-legacy", "--format=cosign"];

/// A program with two key pairs, `one` and `two`.
fn with_keys() -> Bench {
    let bench = bench();
    for name in ["one", "two"] {
        bench.ok(&["keygen", "--unencrypted", "-o", name]);
    }
    bench
}

fn without_referrers_api() -> Registry {
    Registry::start_with(Server::default().rules(Rules::default().referrers(Switch::Off)))
}

fn verified(bench: &Bench, key: &str, image: &str) -> bool {
    bench.ocikit(&["verify", "--key", &format!("{key}.pub"), image]).code == 0
}

#[test]
fn copy_to_a_registry_keeps_signatures_of_the_target() {
    let bench = with_keys();
    for format in FORMATS {
        for registries in [[Registry::start(), Registry::start()], [without_referrers_api(), without_referrers_api()]] {
            let [from, to] = registries.each_ref().map(|registry| format!("{}/app:1", registry.name()));
            for (key, image) in [("one", &from), ("two", &to)] {
                bench.ok(&["push", &single(), image]);
                bench.ok(&["sign", "--key", &format!("{key}.key"), format, image]);
            }
            bench.ok(&["copy", &from, &to]);
            assert!(verified(&bench, "one", &to) && verified(&bench, "two", &to), "{format}");
            assert!(!verified(&bench, "two", &from), "{format}");
        }
    }
}

#[test]
fn copy_to_a_layout_keeps_its_signatures() {
    let bench = with_keys();
    let registry = Registry::start();
    let from = format!("{}/app:1", registry.name());
    bench.ok(&["push", &single(), &from]);
    bench.ok(&["sign", "--key", "one.key", "--format=cosign-legacy", &from]);
    bench.ok(&["copy", &single(), "oci:layout:1"]);
    bench.ok(&["sign", "--key", "two.key", "--format=cosign-legacy", "oci:layout:1"]);
    bench.ok(&["copy", &from, "oci:layout:1"]);
    assert!(verified(&bench, "one", "oci:layout:1") && verified(&bench, "two", "oci:layout:1"));
}

#[test]
fn signatures_under_tags_are_copied_to_new_targets() {
    let bench = with_keys();
    let from = "signed.tar";
    bench.ok(&["copy", &single(), from]);
    bench.ok(&["sign", "--key", "one.key", "--format=cosign-legacy", from]);
    fs::create_dir(bench.path("empty")).unwrap();
    let registry = Registry::start();
    let repository = format!("{}/app", registry.name());
    bench.ok(&["push", from, &format!("{repository}:1")]);
    let pushed = format!("{repository}:1");
    for (arguments, written) in [
        (vec!["copy", from, "oci:layout:1"], vec!["oci:layout:1"]),
        (vec!["copy", from, "oci:empty:1"], vec!["oci:empty:1"]),
        (vec!["copy", "--no-clobber", from, "oci:kept:1"], vec!["oci:kept:1"]),
        (vec!["copy", "--no-clobber", from, "kept.tar"], vec!["kept.tar"]),
        (vec!["copy", from, "oci:first:1", "second.tar"], vec!["oci:first:1", "second.tar"]),
        (vec!["copy", "--all-tags", &repository, "oci:all"], vec!["oci:all:1"]),
        (vec!["copy", "--all-tags", &repository, "all.tar"], vec!["all.tar"]),
        (vec!["pull", "-o", "./pulled/", &pushed], vec!["oci:pulled"]),
        (vec!["pull", "-o", "pulled.tar", &pushed], vec!["pulled.tar"]),
    ] {
        bench.ok(&arguments);
        written.iter().for_each(|place| assert!(verified(&bench, "one", place), "{arguments:?}"));
    }
    for output in ["oci:annotated", "annotated.tar"] {
        bench.ok(&["annotate", from, "k=v", "-o", output]);
    }
}

#[test]
fn no_clobber_keeps_existing_signature_tags() {
    let bench = with_keys();
    let registries = [Registry::start(), Registry::start()];
    let [from, to] = registries.each_ref().map(|registry| format!("{}/app:1", registry.name()));
    for (key, image) in [("one", &from), ("two", &to)] {
        bench.ok(&["push", &single(), image]);
        bench.ok(&["sign", "--key", &format!("{key}.key"), "--format=cosign-legacy", image]);
    }
    let refused = bench.ocikit(&["copy", "--no-clobber", &from, &to]);
    assert_eq!(refused.code, 1, "{refused}");
    assert!(refused.stderr.contains(".sig") && refused.stderr.contains("--no-clobber"), "{refused}");
    assert!(verified(&bench, "two", &to) && !verified(&bench, "one", &to));
    bench.ok(&["copy", "--no-clobber", "--no-referrers", &from, &to]);
}

#[test]
fn all_tags_excludes_fallback_tags() {
    let bench = with_keys();
    let (from, api, tags) = (without_referrers_api(), Registry::start(), without_referrers_api());
    let source = format!("{}/app:1", from.name());
    bench.ok(&["push", &single(), &source]);
    bench.ok(&["sign", "--key", "one.key", "--format=cosign", &source]);
    let listed = bench.ok(&["tags", &format!("{}/app", from.name())]);
    assert!(listed.lines().any(|tag| tag.starts_with("sha256-")), "{listed}");
    for to in [&api, &tags] {
        let target = format!("{}/app", to.name());
        // Signatures that only the target has are kept.
        bench.ok(&["push", &single(), &format!("{target}:1")]);
        bench.ok(&["sign", "--key", "two.key", "--format=cosign", &format!("{target}:1")]);
        bench.ok(&["copy", "--all-tags", &format!("{}/app", from.name()), &target]);
        assert!(verified(&bench, "one", &format!("{target}:1")) && verified(&bench, "two", &format!("{target}:1")));
    }
    assert_eq!(bench.ok(&["tags", &format!("{}/app", api.name())]), "1");

    let mirror = Registry::start();
    fs::write(
        bench.path("sync.yaml"),
        format!("images:\n  - {{from: {}/app, to: {}/app}}\n", from.name(), mirror.name()),
    )
    .unwrap();
    bench.ok(&["sync", "sync.yaml"]);
    assert_eq!(bench.ok(&["tags", &format!("{}/app", mirror.name())]), "1");
    assert!(verified(&bench, "one", &format!("{}/app:1", mirror.name())));
}

#[test]
fn sync_refuses_two_sources_for_one_target() {
    let (bench, from, to) = (bench(), Registry::start(), Registry::start());
    for name in ["a/app", "b/app"] {
        bench.ok(&["push", &single(), &format!("{}/{name}:1", from.name())]);
    }
    let (from, to) = (from.name(), to.name());
    let images = |second: &str| {
        let text = format!("images:\n  - {{from: {from}/a/app, to: {to}/app}}\n  - {second}\n");
        bench.write("sync.yaml", text);
        bench.ocikit(&["sync", "-k", "sync.yaml"])
    };
    let refused = images(&format!("{{from: {from}/b/app, to: {to}/app, match: ['^1$']}}"));
    assert_eq!(refused.code, 2, "{refused}");
    for name in ["a/app:1", "b/app:1", &format!("{to}/app:1")] {
        assert!(refused.stderr.contains(name), "{refused}");
    }
    assert_ne!(bench.ocikit(&["tags", &format!("{to}/app")]).code, 0, "nothing was copied");
    // The same source image may be listed twice.
    assert_eq!(images(&format!("{{from: {from}/a/app, to: {to}/app, tags: ['1']}}")).code, 0);
}

#[test]
fn annotate_counts_and_drops_orphaned_referrers() {
    let bench = with_keys();
    let (api, tags) = (Registry::start(), without_referrers_api());
    let places =
        ["a.tar".to_owned(), "oci:dir:1".to_owned(), format!("{}/app:1", api.name()), format!("{}/app:1", tags.name())];
    for place in &places {
        bench.ok(&["copy", &single(), place]);
        for format in FORMATS {
            bench.ok(&["sign", "--key", "one.key", format, place]);
        }
        let planned = bench.ocikit(&["annotate", place, "k=v", "--dry-run"]);
        assert!(planned.code == 0 && planned.stderr.contains("2 signatures"), "{place}: {planned}");
        let facts = bench.ok(&["annotate", place, "k=v", "--json", "--drop-referrers"]);
        let facts = json(&facts);
        assert_eq!((&facts["orphanedReferrers"], &facts["droppedReferrers"]), (&2.into(), &2.into()), "{place}");
        // The annotated image is the only one, so it needs no tag. It can be signed and annotated again.
        let plain = place.trim_end_matches(":1");
        let listed = if place.contains("/app") { place } else { plain };
        assert!(bench.ok(&["inspect", listed]).contains("k"), "{place}");
        let before = facts["before"].as_str().unwrap();
        let old = format!("{plain}@{before}");
        assert!(!verified(&bench, "one", &old), "{place}: the old signatures are gone");
        bench.ok(&["sign", "--key", "one.key", "--format=cosign", listed]);
        let warned = bench.ocikit(&["annotate", listed, "k=w"]);
        assert!(warned.code == 0 && warned.stderr.contains("--drop-referrers"), "{place}: {warned}");
    }
}

#[test]
fn push_to_several_targets_reports_each_failure() {
    let registry = Registry::start();
    let retry = RetryOptions::default().attempts(1);
    let client = Client::new(ClientOptions::default().retry(retry));
    let session = Session::new(client, SessionOptions::default());
    let archive: Location = single().parse().unwrap();
    let good = format!("{}/app:1", registry.name()).parse().unwrap();
    let bad = "localhost:1/app:1".parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let task = runtime.spawn(async move { session.push(&archive, &[good, bad]).await.unwrap() });
    let pushed = runtime.block_on(task).unwrap();
    assert_eq!(pushed.failures().map(|(position, _)| position).collect::<Vec<_>>(), [1]);
    assert!(pushed[0].is_ok());
    assert!(pushed.all().is_err());
}

#[tokio::test]
async fn missing_local_file_is_a_not_found_error() {
    let session = Session::new(Client::default(), SessionOptions::default());
    for place in ["/nowhere/a.tar", "oci:/nowhere/dir", "oci-archive:/nowhere/a", "docker-archive:/nowhere/a"] {
        let error = session.open(&place.parse().unwrap()).await.unwrap_err();
        assert!(error.is_not_found(), "{place}: {error:?}");
    }
}
