//! Credentials, TLS and plain HTTP, and the messages of failed connections.

use ocikit_server::{Action, Fault, Reply, Rules, Server, Switch};
use ocikit_tests::{Bench, CertificateAuthority, Registry, TlsProxy, single};

use crate::bench;

/// Writes a file below the home directory.
fn write(bench: &Bench, name: &str, text: &str) {
    bench.write(&format!("home/{name}"), text);
}

fn alice(bench: Bench) -> Bench {
    bench.with("OCIKIT_USERNAME", "alice").with("OCIKIT_PASSWORD", "s3cret")
}

#[test]
fn environment_credentials_are_sent_to_one_registry() {
    let (guarded, open) = (Registry::for_user("alice", "s3cret"), Registry::start());
    let (from, to) = (format!("{}/app:1", guarded.name()), format!("{}/app:1", open.name()));
    alice(bench()).ok(&["push", "-q", &single(), &from]);

    let unnamed = alice(bench()).ocikit(&["copy", &from, &to]);
    assert!(unnamed.code == 4 && unnamed.stderr.contains("set OCIKIT_REGISTRY"), "{unnamed}");
    // The same registry in another spelling: the port has a leading zero.
    let (host, port) = guarded.name().rsplit_once(':').map(|(host, port)| (host.to_owned(), port.to_owned())).unwrap();
    let named = alice(bench()).with("OCIKIT_REGISTRY", &format!("{host}:0{port}"));
    named.ok(&["copy", "-q", &from, &to]);
    bench().ok(&["copy", "-q", "--src-creds", "alice:s3cret", &from, &to]);
    bench().ok(&["copy", "-q", "--dest-creds", "alice:s3cret", &to, &from]);
    let twice = bench().ocikit(&["copy", "--src-creds", "alice:a", "--dest-creds", "alice:b", &from, &from]);
    assert_eq!(twice.code, 2, "{twice}");
    let other = alice(bench()).with("OCIKIT_REGISTRY", "registry.example");
    assert_eq!(other.ocikit(&["digest", &from]).code, 4);
    let wrong = alice(bench()).with("OCIKIT_REGISTRY", "not a registry").ocikit(&["digest", &from]);
    assert_eq!(wrong.code, 2, "{wrong}");
}

#[test]
fn podman_7563_credentials_of_podman_login_are_found() {
    let registry = Registry::for_user("alice", "s3cret");
    let name = format!("{}/app:1", registry.name());
    alice(bench()).ok(&["push", "-q", &single(), &name]);
    let auths = format!(r#"{{"auths":{{"{}":{{"auth":"YWxpY2U6czNjcmV0"}}}}}}"#, registry.name());
    let bench = bench();
    assert_eq!(bench.ocikit(&["digest", &name]).code, 4);
    bench.write("own.json", &auths);
    bench.ok(&["digest", "--authfile", "own.json", &name]);
    assert_eq!(bench.ocikit(&["digest", "--authfile", "none.json", &name]).code, 3);
    // A pipe can be read only once, and a command may need the credentials for several clients.
    for (file, code) in [("<(cat own.json)", 0), ("<(echo broken)", 3), ("home", 2)] {
        let script = format!("exec \"$0\" copy -q --authfile {file} {name} {name}-copy");
        let program = bench.command::<&str>(&[]);
        let mut command = std::process::Command::new("bash");
        command.args(["-c", &script]).arg(program.get_program()).current_dir(bench.path(""));
        command.env_clear().envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("PATH", "/usr/bin:/bin");
        let outcome = ocikit_tests::run(&mut command, &[]);
        assert_eq!(outcome.code, code, "{file}: {outcome}");
    }
    write(&bench, ".config/containers/auth.json", &auths);
    bench.ok(&["digest", &name]);
}

#[test]
fn unreadable_credentials_fail_only_where_they_are_required() {
    let (guarded, open) = (Registry::for_user("alice", "s3cret"), Registry::start());
    let (closed, public) = (format!("{}/app:1", guarded.name()), format!("{}/app:1", open.name()));
    alice(bench()).ok(&["push", "-q", &single(), &closed]);
    for (config, cause) in
        [("{ broken", "config.json is broken"), (r#"{"credsStore":"not-there"}"#, "the credential helper `not-there`")]
    {
        let bench = bench();
        write(&bench, ".docker/config.json", config);
        bench.ok(&["push", "-q", &single(), &public]);
        bench.ok(&["digest", &public]);
        let refused = bench.ocikit(&["digest", &closed]);
        assert_eq!(refused.code, 4, "{refused}");
        let error = refused.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        assert!(error.contains(cause), "{refused}");
        assert!(refused.stderr.contains("warning: cannot read credentials for"), "{refused}");
    }
}

#[test]
fn loopback_registry_may_speak_tls() {
    let (bench, registry, authority) = (bench(), Registry::start(), CertificateAuthority::new());
    let secure = TlsProxy::start(registry.address(), &authority, false);
    let name = format!("{}/app:1", secure.name());
    let plain = format!("{}/app:1", registry.name());
    bench.ok(&["push", "-q", &single(), &plain]);
    bench.write("ca.pem", authority.pem());
    bench.ok(&["digest", "--ca-file", "ca.pem", &name]);
    bench.ok(&["digest", "--tls-verify=false", &name]);
    bench.ok(&["digest", "--insecure", &name]);
    let untrusted = bench.ocikit(&["digest", &name]);
    assert_eq!(untrusted.code, 6, "{untrusted}");
    assert!(untrusted.stderr.contains("TLS failed: ") && untrusted.stderr.contains("`--ca-file FILE`"), "{untrusted}");

    // `--ca-file` applies to both registries, and one of them speaks plain HTTP.
    let copy = ["copy", "-q", "--ca-file", "ca.pem", &name, &format!("{}/app:2", registry.name())];
    let refused = bench.ocikit(&copy);
    assert_eq!(refused.code, 6, "{refused}");
    assert!(refused.stderr.contains("the server speaks plain HTTP, not TLS"), "{refused}");
    bench.ok(&[&copy[..], &[&format!("--plain-http={}", registry.name())]].concat());
    for option in ["--insecure", "--tls-verify=false", "--tls-verify=true", "--ca-file=ca.pem"] {
        let refused = bench.ocikit(&["digest", option, &plain]);
        assert_eq!(refused.code, 6, "{refused}");
        assert!(refused.stderr.contains("the server speaks plain HTTP, not TLS"), "{refused}");
        bench.ok(&["digest", option, "--plain-http", &plain]);
    }
    let own = bench.ocikit(&["digest", &format!("--insecure={}", secure.name()), &name]);
    assert_eq!(own.code, 0, "{own}");

    let missing = bench.ocikit(&["digest", "--ca-file", "none.pem", &plain]);
    assert!(missing.code == 3 && missing.stderr.contains("none.pem"), "{missing}");
    bench.write("empty.pem", "");
    let empty = bench.ocikit(&["digest", "--ca-file", "empty.pem", &plain]);
    assert!(empty.code == 2 && empty.stderr.contains("empty.pem"), "{empty}");
}

#[test]
fn no_referrers_skips_a_failing_referrers_api() {
    for (status, code, part) in [(500, 6, "status 500"), (403, 4, "or log in as a user who may read and list them")] {
        let (bench, registry) = (bench(), Registry::start());
        let name = format!("{}/app:1", registry.name());
        bench.ok(&["push", "-q", &single(), &name]);
        registry.faults().add(Fault::on("GET /v2/app/referrers/**", Action::Answer(Reply::status(status))));
        let failed = bench.ocikit(&["pull", "--retries", "0", &name, "-o", "a.tar"]);
        assert_eq!(failed.code, code, "{failed}");
        assert!(failed.stderr.contains("cannot list the referrers of sha256:"), "{failed}");
        assert!(failed.stderr.contains("`--no-referrers`") && failed.stderr.contains(part), "{failed}");
        bench.ok(&["pull", "-q", "--no-referrers", &name, "-o", "a.tar"]);
    }
}

#[test]
fn push_only_credentials_cannot_update_a_list_of_referrers() {
    let (bench, from) = (bench(), Registry::start());
    let image = format!("{}/app:1", from.name());
    bench.ok(&["keygen", "--unencrypted", "-o", "key"]);
    bench.ok(&["push", "-q", &single(), &image]);
    bench.ok(&["sign", "-q", "--key", "key.key", &image]);
    bench.ok(&["pull", "-q", &image, "-o", "signed.tar"]);
    for path in ["GET /v2/app/manifests/sha256-**", "PUT /v2/app/manifests/sha256-**", "GET /v2/app/referrers/**"] {
        let rules = Rules::default().referrers(Switch::Off);
        let registry = Registry::start_with(Server::default().rules(rules));
        let target = format!("{}/app:1", registry.name());
        registry.faults().add(Fault::on(path, Action::Answer(Reply::status(403))));
        let outcome = bench.ocikit(&["push", "signed.tar", &target]);
        if outcome.code == 0 {
            // A list that exists under the fallback tag needs no API.
            assert!(path.contains("referrers"), "{path}: {outcome}");
        } else {
            assert_eq!(outcome.code, 4, "{path}: {outcome}");
            assert!(outcome.stderr.contains(" the referrers of sha256:"), "{path}: {outcome}");
            assert!(outcome.stderr.contains("hint: add `--no-referrers`"), "{path}: {outcome}");
        }
        bench.ok(&["push", "-q", "--no-referrers", "signed.tar", &target]);
    }
}

#[test]
fn hint_for_referrers_names_only_flags_of_the_command() {
    let (bench, registry) = (bench(), Registry::start());
    let name = format!("{}/app:1", registry.name());
    bench.ok(&["push", "-q", &single(), &name]);
    registry.faults().add(Fault::on("GET /v2/app/referrers/**", Action::Answer(Reply::status(403))));
    let changed = bench.ocikit(&["annotate", &name, "a=b"]);
    assert_eq!(changed.code, 0, "{changed}");
    assert!(changed.stderr.contains("the image was changed; its old referrers are not known"), "{changed}");
    for (line, has_flag) in
        [(&["annotate", "--drop-referrers", &name, "a=c"][..], false), (&["pull", &name, "-o", "a.tar"], true)]
    {
        let outcome = bench.ocikit(line);
        assert_eq!(outcome.code, 4, "{outcome}");
        assert_eq!(outcome.stderr.contains("--no-referrers"), has_flag, "{outcome}");
        assert!(outcome.stderr.contains("log in as a user who may read and list them"), "{outcome}");
    }
}

#[test]
fn unresolvable_host_name_is_reported() {
    let outcome = bench().ocikit(&["digest", "registry.invalid/app:1"]);
    assert_eq!(outcome.code, 6, "{outcome}");
    assert!(outcome.stderr.contains("cannot connect to registry.invalid/app: name resolution"), "{outcome}");
    assert!(outcome.stderr.contains("hint: check the spelling of the host name `registry.invalid`"), "{outcome}");
}

#[test]
fn incomplete_credentials_for_another_registry_are_not_needed() {
    let registry = Registry::start();
    let bench = bench().with("OCIKIT_PASSWORD", "s3cret").with("OCIKIT_REGISTRY", "other.example");
    bench.ok(&["push", &single(), &format!("{}/a:1", registry.name())]);
}
