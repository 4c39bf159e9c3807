//! Runs the examples in `crates/ocikit/examples`.

use std::process::Command;

use ocikit_server::{Authentication, Server, User};
use ocikit_tests::{Bench, Outcome, Registry, json, run, testdata, verified_digest};
use serde_json::Value;

use crate::bench;

/// Runs an example in the directory of the bench, without environment variables.
fn example(bench: &Bench, program: &str, arguments: &[&str]) -> Outcome {
    run(Command::new(program).args(arguments).current_dir(bench.path("")).env_clear(), &[])
}

fn archive(bench: &Bench) -> String {
    let path = bench.path("app.tar");
    std::fs::copy(testdata("buildkit-multi/image.tar"), &path).unwrap();
    verified_digest(&path).to_string()
}

#[test]
fn push_after_build_uploads_an_archive() {
    let (bench, registry) = (bench(), Registry::start());
    let digest = archive(&bench);
    let push = || {
        let target = format!("{}/app:1", registry.name());
        example(&bench, env!("CARGO_BIN_EXE_example-push-after-build"), &["app.tar", &target]).ok()
    };
    let said = push();
    assert!(
        said.starts_with(&format!("1 is {digest}\n")) && said.ends_with(" were uploaded, 0 already existed"),
        "{said}"
    );
    assert_eq!(registry.verified_digest("app", "1").unwrap().to_string(), digest);
    assert!(push().ends_with("0 blobs with 0 bytes were uploaded, 0 already existed"), "nothing is uploaded again");
    let denied = Registry::for_user("alice", "secret");
    let target = format!("{}/app:1", denied.name());
    let outcome = example(&bench, env!("CARGO_BIN_EXE_example-push-after-build"), &["app.tar", &target]);
    assert!(outcome.code == 1 && outcome.stderr.contains("log in to"), "{outcome}");
}

#[test]
fn annotate_and_push_updates_three_registries() {
    let (bench, registries) = (bench(), [Registry::start(), Registry::start(), Registry::start()]);
    let before = archive(&bench);
    let targets: Vec<_> = registries.iter().map(|registry| format!("{}/app:1", registry.name())).collect();
    let arguments = ["app.tar", "6c22711", &targets[0], &targets[1], &targets[2]];
    let said = example(&bench, env!("CARGO_BIN_EXE_example-annotate-and-push"), &arguments).ok();
    let after = verified_digest(&bench.path("app.tar"));
    assert!(said.starts_with(&format!("{before} became {after}\n")), "{said}");
    for registry in &registries {
        assert_eq!(registry.verified_digest("app", "1"), Some(after));
        assert!(said.contains(&format!("{}/app:1@{after}", registry.name())), "{said}");
    }
    let partly = ["app.tar", "6c22711", &targets[0], "localhost:1/app:1"];
    let outcome = example(&bench, env!("CARGO_BIN_EXE_example-annotate-and-push"), &partly);
    assert!(outcome.code == 1 && outcome.stdout.contains(&format!("{}@{after}", targets[0])), "{outcome}");
}

#[test]
fn mirror_tags_copies_tags_with_a_prefix() {
    let (bench, from, to) = (bench(), Registry::start(), Registry::start());
    archive(&bench);
    let (source, target) = (format!("{}/acme/app", from.name()), format!("{}/mirror", to.name()));
    bench.ok(&["push", "-q", "app.tar", &format!("{source}:3.1")]);
    bench.ok(&["tag", &format!("{source}:3.1"), "3.2", "4.0"]);
    let mirror = || example(&bench, env!("CARGO_BIN_EXE_example-mirror-tags"), &[&source, &target, "3."]).ok();
    let said = mirror();
    assert_eq!(said.lines().map(|line| line.split(' ').next().unwrap()).collect::<Vec<_>>(), ["3.1", "3.2"]);
    assert_eq!(to.verified_digest("mirror", "3.2"), from.verified_digest("acme/app", "3.2"));
    assert_eq!(to.verified_digest("mirror", "4.0"), None);
    assert!(mirror().lines().all(|line| line.ends_with(" 0 bytes")));
}

#[test]
fn report_annotations_prints_json() {
    let bench = bench();
    let digest = archive(&bench);
    let said = example(&bench, env!("CARGO_BIN_EXE_example-report-annotations"), &["app.tar"]).ok();
    let report = json(&said);
    let expected = bench.json(&["inspect", "--json", "app.tar"]);
    assert_eq!((&report["digest"], &report["annotations"]), (&Value::from(digest), &expected["annotations"]));
    assert_eq!(report["manifests"][1]["annotations"], expected["manifests"][1]["annotations"]);
    assert_eq!(report["manifests"][0]["platform"], "linux/amd64");
}

#[test]
fn own_keychain_provides_credentials() {
    let (bench, open) = (bench(), Registry::start());
    let authentication = Authentication::bearer([User::new("alice", "s3cret with spaces")]);
    let closed = Registry::start_with(Server::default().authentication(authentication));
    let digest = archive(&bench);
    bench.write("passwords", format!("{} alice s3cret with spaces\n", closed.name()));
    let (one, two) = (format!("{}/app:1", closed.name()), format!("{}/app:1", open.name()));
    let copy =
        |from: &str, to: &str| example(&bench, env!("CARGO_BIN_EXE_example-own-keychain"), &["passwords", from, to]);
    assert_eq!(copy("app.tar", &one).ok(), digest);
    assert_eq!(copy(&one, &two).ok(), digest);
    bench.write("passwords", "");
    let outcome = copy(&one, &two);
    assert!(outcome.code == 1 && !outcome.stderr.contains("s3cret"), "{outcome}");
}

#[test]
fn wasm_publisher_pushes_an_artifact() {
    let (bench, registry) = (bench(), Registry::start());
    bench.write("filter.wasm", b"\0asm\x01\0\0\0");
    let target = format!("{}/filter:1", registry.name());
    bench.ok(&["keygen", "--unencrypted", "-o", "release"]);
    let publish = |arguments: &[&str]| {
        let arguments = [&["filter.wasm", &target], arguments].concat();
        example(&bench, env!("CARGO_BIN_EXE_example-wasm-publisher"), &arguments).ok()
    };
    let unsigned = publish(&[]);
    assert_ne!(bench.ocikit(&["verify", "--key", "release.pub", &target]).code, 0);
    let digest = publish(&["release.key"]);
    assert_eq!(digest, unsigned);
    bench.ok(&["verify", "--key", "release.pub", &target]);
    assert_eq!(registry.verified_digest("filter", "1").unwrap().to_string(), digest.trim());
    let manifest = bench.json(&["manifest", "get", &target]);
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
    assert_eq!(
        (&manifest["layers"][0]["mediaType"], &manifest["layers"][0]["size"]),
        (&"application/wasm".into(), &8.into())
    );
    bench.ok(&["validate", &target]);
}

#[test]
fn image_builder_adds_a_layer_to_every_platform() {
    let (bench, registry) = (bench(), Registry::start());
    archive(&bench);
    let base = format!("{}/base:1", registry.name());
    bench.ok(&["push", "-q", "app.tar", &base]);
    std::fs::create_dir(bench.path("bin")).unwrap();
    bench.write("bin/server", b"#!/bin/sh\n");
    let target = format!("{}/app:1", registry.name());
    let build = |platforms: &[&str]| {
        let arguments = [&[&base, "bin", &target], platforms].concat();
        example(&bench, env!("CARGO_BIN_EXE_example-image-builder"), &arguments).ok()
    };
    let digest = build(&[]);
    assert_eq!(digest, build(&[]), "the same files give the same image");
    assert_eq!(registry.verified_digest("app", "1").unwrap().to_string(), digest.trim());
    let before = bench.json(&["inspect", "--json", &base]);
    let after = bench.json(&["inspect", "--json", &target]);
    let platforms = |image: &Value| -> Vec<Value> {
        image["manifests"].as_array().unwrap().iter().map(|entry| entry["platform"].clone()).collect()
    };
    assert_eq!(platforms(&before), platforms(&after));
    bench.ok(&["validate", &target]);
    for platform in ["linux/amd64", "linux/arm64"] {
        assert_eq!(bench.ok(&["cat", "--platform", platform, &target, "/app/server"]), "#!/bin/sh");
        let config = bench.json(&["config", "--platform", platform, &target]);
        assert_eq!(config["config"]["Entrypoint"][0], "/app/server");
        let environment = config["config"]["Env"].as_array().unwrap();
        assert!(environment.contains(&"PORT=8080".into()), "{environment:?}");
    }
    let one = build(&["linux/arm64"]);
    assert_ne!(one, digest);

    bench.ok(&["keygen", "--unencrypted", "-o", "release"]);
    let mut program = Command::new(env!("CARGO_BIN_EXE_example-image-builder"));
    program.args([&base, "bin", &target]).current_dir(bench.path("")).env_clear().env("SIGNING_KEY", "release.key");
    assert_eq!(run(&mut program, &[]).ok(), digest);
    bench.ok(&["verify", "--key", "release.pub", &target]);
    bench.ok(&["verify", "--key", "release.pub", "--recursive", &target]);
}

/// The sizes that a publisher on the library has; more means that the library lacks something.
#[test]
fn publishers_are_short() {
    for (name, most) in [("wasm_publisher", 40), ("image_builder", 60)] {
        let text = std::fs::read_to_string(testdata(&format!("../crates/ocikit/examples/{name}.rs"))).unwrap();
        assert!(text.lines().count() < most, "{name} has {} lines", text.lines().count());
    }
}
