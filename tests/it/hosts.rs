//! Settings of registries in `registries.conf` and `certs.d`.

use std::fs;

use ocikit_tests::{Bench, CertificateAuthority, Registry, TlsProxy, single};

use crate::bench;

/// Writes a file below the home directory.
fn write(bench: &Bench, name: &str, text: &str) {
    bench.write(&format!("home/{name}"), text);
}

fn mirror(registry: &str, mirror: &str) -> String {
    format!("[[registry]]\nlocation = \"{registry}\"\n[[registry.mirror]]\nlocation = \"{mirror}\"\n")
}

const CONF: &str = ".config/containers/registries.conf";

#[test]
fn mirror_is_read_and_never_written() {
    let (bench, registry, copy) = (bench(), Registry::start(), Registry::start());
    let (name, mirrored) = (format!("{}/acme/app:1", registry.name()), format!("{}/cache/acme/app:1", copy.name()));
    let digest = bench.ok(&["digest", &single()]);
    bench.ok(&["push", "-q", &single(), &mirrored]);
    write(&bench, CONF, &mirror(&registry.name(), &format!("{}/cache", copy.name())));
    bench.ok(&["pull", "-q", "--no-referrers", &name, "-o", "a.tar"]);
    assert_eq!(bench.ok(&["digest", "a.tar"]), digest);
    assert!(registry.requests().is_empty(), "everything was read from the mirror: {:?}", registry.requests());

    copy.clear_requests();
    bench.ok(&["push", "-q", "a.tar", &name]);
    assert_eq!(registry.verified_digest("acme/app", "1").map(|digest| digest.to_string()), Some(digest.clone()));
    assert!(copy.requests().iter().all(|request| request.method != "PUT" && request.method != "POST"));

    // The registry provides what the mirror lacks.
    bench.ok(&["tag", &name, "2"]);
    assert_eq!(bench.ok(&["digest", &format!("{}/acme/app:2", registry.name())]), digest);
}

#[test]
fn blocked_registry_is_neither_read_nor_written() {
    let (bench, registry) = (bench(), Registry::start());
    let name = format!("{}/acme/app:1", registry.name());
    let conf = format!("[[registry]]\nlocation = \"{}/acme\"\nblocked = true\n", registry.name());
    write(&bench, ".config/containers/registries.conf.d/10-block.conf", &conf);
    for arguments in
        [vec!["digest", &name], vec!["push", "-q", &single(), &name], vec!["tags", &name[..name.len() - 2]]]
    {
        let outcome = bench.ocikit(&arguments);
        assert_eq!(outcome.code, 4, "{outcome}");
        assert!(outcome.stderr.contains("acme/app is blocked by `registries.conf`\nhint: "), "{outcome}");
    }
    assert!(registry.requests().is_empty());
    bench.ok(&["push", "-q", &single(), &format!("{}/other:1", registry.name())]);
    bench.ok(&["repos", &registry.name()]);

    let conf = format!("[[registry]]\nlocation = \"{}\"\nblocked = true\n", registry.name());
    write(&bench, ".config/containers/registries.conf.d/10-block.conf", &conf);
    let before = registry.requests().len();
    for command in [&["repos"][..], &["login", "-u", "u", "--password-stdin"]] {
        let outcome = bench.ocikit_with_input(&[command, &[&registry.name()]].concat(), b"pw");
        assert_eq!(outcome.code, 4, "{outcome}");
        assert!(outcome.stderr.contains("is blocked by `registries.conf`"), "{outcome}");
    }
    assert_eq!(registry.requests().len(), before);
}

#[test]
fn registries_conf_variable_replaces_the_default_file() {
    let (bench, registry) = (bench(), Registry::start());
    let name = format!("{}/app:1", registry.name());
    bench.ok(&["push", "-q", &single(), &name]);
    let block = format!("[[registry]]\nlocation = \"{}\"\nblocked = true\n", registry.name());
    write(&bench, CONF, &block);
    assert_eq!(bench.ocikit(&["digest", &name]).code, 4);
    bench.write("own.conf", "");
    let bench = bench.with("CONTAINERS_REGISTRIES_CONF", "own.conf");
    bench.ok(&["digest", &name]);
    fs::remove_file(bench.path("own.conf")).unwrap();
    let outcome = bench.ocikit(&["digest", &name]);
    assert!(outcome.code == 2 && outcome.stderr.contains("own.conf: no such file"), "{outcome}");
}

#[test]
fn broken_registries_conf_fails_only_registry_commands() {
    let (bench, registry) = (bench(), Registry::start());
    let name = format!("{}/app:1", registry.name());
    write(&bench, CONF, "[[registry]]\nlocation = \"a.b\"\nblocked = \"yes\"\n");
    let outcome = bench.ocikit(&["push", &single(), &name]);
    assert_eq!(outcome.code, 2, "{outcome}");
    assert!(outcome.stderr.contains("registries.conf is broken") && outcome.stderr.contains("line 3"), "{outcome}");
    bench.ok(&["digest", &single()]);

    write(&bench, CONF, "");
    write(&bench, &format!(".config/containers/certs.d/{}/client.cert", registry.name()), "");
    let outcome = bench.ocikit(&["push", &single(), &name]);
    assert!(outcome.code == 2 && outcome.stderr.contains("client.key is missing"), "{outcome}");
    assert!(registry.requests().is_empty());
}

#[test]
fn certs_d_certificates_are_selected_by_registry_name() {
    let (bench, registry, authority) = (bench(), Registry::start(), CertificateAuthority::new());
    let digest = bench.ok(&["digest", &single()]);
    let open = TlsProxy::start(registry.address(), &authority, false);
    let closed = TlsProxy::start(registry.address(), &authority, true);
    let directory = |name: &str, file: &str| format!(".config/containers/certs.d/{name}/{file}");
    for name in [open.name(), closed.name()] {
        write(&bench, &directory(&name, "ca.crt"), &authority.pem());
    }
    let (one, two) = (format!("{}/app:1", open.name()), format!("{}/app:1", closed.name()));
    bench.ok(&["push", "-q", &single(), &one]);
    assert_eq!(bench.ok(&["digest", &one]), digest);
    assert_eq!(bench.ocikit(&["digest", "--retries", "0", &two]).code, 6, "the server requires a client certificate");
    let client = authority.client();
    write(&bench, &directory(&closed.name(), "client.cert"), &client.certificate);
    write(&bench, &directory(&closed.name(), "client.key"), &client.key);
    assert_eq!(bench.ok(&["digest", &two]), digest);

    write(&bench, &directory(&open.name(), "ca.crt"), &CertificateAuthority::new().pem());
    let outcome = bench.ocikit(&["digest", &one]);
    assert!(outcome.code == 6 && outcome.stderr.contains("certificate"), "{outcome}");
}
