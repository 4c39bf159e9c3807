//! `pull`, `login` and `logout`.

use std::fs;

use ocikit_archive::TarIndex;
use ocikit_tests::{Registry, attested, multi, single};
use serde_json::Value;

use crate::bench;

#[test]
fn pulled_image_has_the_pushed_digest() {
    let (bench, registry) = (bench(), Registry::start());
    let reference = format!("{}/acme/app:1", registry.name());
    let source = attested();
    bench.ok(&["push", &source, &reference]);
    bench.ok(&["pull", &reference]);
    assert_eq!(bench.names(), ["app.tar"], "the default name is that of the repository");
    assert_eq!(bench.ok(&["digest", "app.tar"]), bench.ok(&["digest", &source]));
    assert_eq!(bench.ok(&["digest", &format!("app.tar#{reference}")]), bench.ok(&["digest", "app.tar#1"]));
    let first = fs::read(bench.path("app.tar")).unwrap();
    bench.ok(&["pull", &reference, "--jobs", "1"]);
    assert!(fs::read(bench.path("app.tar")).unwrap() == first, "the same images give the same bytes");
    bench.ok(&["pull", &reference, "-o", "./layout"]);
    assert_eq!(bench.ok(&["digest", "./layout"]), bench.ok(&["digest", &source]));
}

#[test]
fn several_images_are_pulled_into_one_archive() {
    let (bench, registry) = (bench(), Registry::start());
    let (one, two) = (format!("{}/one:1", registry.name()), format!("{}/two:1", registry.name()));
    bench.ok(&["push", &multi(), &one]);
    bench.ok(&["push", &single(), &two]);
    bench.ok(&["pull", &one, &two, "-o", "both.tar"]);
    for reference in [&one, &two] {
        assert_eq!(bench.ok(&["digest", &format!("both.tar#{reference}")]), bench.ok(&["digest", reference]));
    }
    let listed = bench.ok(&["inspect", "both.tar"]);
    for reference in [&one, &two] {
        assert!(listed.contains(&format!("both.tar#{reference}")), "every image is listed: {listed}");
    }
    let outcome = bench.ocikit(&["config", "both.tar"]);
    assert_eq!(outcome.code, 2, "{outcome}");
    assert!(outcome.stderr.contains(&format!("both.tar#{one}")), "the choices are listed: {outcome}");
    assert_eq!(bench.ocikit(&["pull", &one, &two]).code, 2, "several images require `-o`");
}

#[test]
fn pulled_archive_lists_its_tag_for_docker_load() {
    let (bench, registry) = (bench(), Registry::start());
    let reference = format!("{}/acme/app:1", registry.name());
    bench.ok(&["push", &single(), &reference]);
    bench.ok(&["pull", &reference, "--docker"]);
    let bytes = fs::read(bench.path("app.tar")).unwrap();
    let span = TarIndex::read(&bytes).unwrap().file("manifest.json").unwrap();
    let items: Value = serde_json::from_slice(&bytes[span.offset as usize..][..span.size as usize]).unwrap();
    assert_eq!(items[0]["RepoTags"][0], reference);
    assert_eq!(items[0]["Layers"].as_array().unwrap().len(), 4);
}

#[test]
fn login_to_a_namespace_is_for_its_repositories_only() {
    let (bench, registry) = (bench(), Registry::for_user("alice", "s3cret"));
    let (name, source) = (registry.name(), single());
    let scope = format!("{name}/acme");
    let login = |scope: &str| bench.ocikit_with_input(&["login", scope, "-u", "alice", "--password-stdin"], b"s3cret");
    let said = login(&scope);
    assert!(said.code == 0 && said.stderr.contains(&format!("logged in to {scope};")), "{said}");
    let config: Value = serde_json::from_slice(&fs::read(bench.path("home/.docker/config.json")).unwrap()).unwrap();
    assert_eq!(config["auths"].as_object().unwrap().keys().collect::<Vec<_>>(), [&scope]);
    bench.ok(&["push", "-q", &source, &format!("{scope}/app:1")]);
    assert_eq!(bench.ocikit(&["push", "-q", &source, &format!("{name}/other/app:1")]).code, 4);
    assert_eq!(login(&name).code, 0);
    bench.ok(&["logout", &scope]);
    bench.ok(&["digest", &format!("{scope}/app:1")]);

    bench.write("helper.json", r#"{"credsStore":"store"}"#);
    let refused = bench.ocikit_with_input(
        &["login", &scope, "-u", "alice", "--password-stdin", "--authfile", "helper.json"],
        b"s3cret",
    );
    assert!(refused.code != 0 && refused.stderr.contains("`store` cannot store credentials for"), "{refused}");
}

#[test]
fn login_checks_and_stores_and_logout_removes_credentials() {
    let (bench, registry) = (bench(), Registry::for_user("alice", "s3cret,\"=ä"));
    let (name, reference) = (registry.name(), format!("{}/app:1", registry.name()));
    let source = single();
    let denied = bench.ocikit(&["push", &source, &reference]);
    assert_eq!(denied.code, 4, "{denied}");
    assert!(denied.stderr.contains(&format!("hint: log in with `ocikit login {name}`")), "{denied}");

    let login = |password: &str| {
        bench.ocikit_with_input(&["login", &name, "--username", "alice", "--password-stdin"], password.as_bytes())
    };
    let wrong = login("s3cret");
    assert_eq!(wrong.code, 4, "{wrong}");
    assert!(wrong.stderr.contains("hint: check the user name and the password or token"), "{wrong}");
    assert!(!bench.path("home/.docker/config.json").exists(), "a refused credential is not stored");
    let right = login("s3cret,\"=ä\n");
    assert_eq!(right.code, 0, "{right}");
    for text in [&wrong.stderr, &wrong.stdout, &right.stderr, &right.stdout] {
        assert!(!text.contains("s3cret"), "{text}");
    }
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(bench.path("home/.docker/config.json")).unwrap().permissions().mode() & 0o777, 0o600);
    bench.ok(&["push", &source, &reference]);
    bench.ok(&["logout", &name]);
    assert_eq!(bench.ocikit(&["digest", &reference]).code, 4);

    let flags = bench.ocikit_with_input(
        &["digest", &reference, "--username", "alice", "--password-stdin"],
        "s3cret,\"=ä".as_bytes(),
    );
    assert_eq!(flags.code, 0, "{flags}");
    let bench = bench.with("OCIKIT_USERNAME", "alice").with("OCIKIT_PASSWORD", "s3cret,\"=ä");
    bench.ok(&["digest", &reference]);
    let two = bench.ocikit(&["copy", &reference, "example.com/app:1"]);
    assert!(
        two.code == 4 && two.stderr.contains("OCIKIT_REGISTRY"),
        "one password is not sent to two registries: {two}"
    );
}
