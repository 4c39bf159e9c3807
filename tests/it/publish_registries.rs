//! `publish` to several registries: the acceptance statements of the image builder (KYM), by number.

use std::fs;
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ocikit_server::{Action, Fault, Point, Reply};
use ocikit_tests::{
    Archive, Bench, Outcome, Registry, attested, json, single, testdata, verified_digest, write_archive,
};
use serde_json::{Value, json};

use super::publish::{COMMIT, digests, tags};
use crate::bench;
use crate::faults::{for_each_parallel, pseudo_random};
use crate::stub_server::{StubServer, answer};

/// A bench in a recorded job of GitHub Actions, with a configuration for three registries.
fn github(name: &str, registries: &[Registry; 3], more: &str) -> Bench {
    let fixture: Value = serde_json::from_slice(&fs::read(testdata(&format!("ci/{name}.json"))).unwrap()).unwrap();
    let mut bench = bench();
    for (name, value) in fixture["environment"].as_object().unwrap() {
        bench = bench.with(name, value.as_str().unwrap());
    }
    for (name, file) in [("GITHUB_OUTPUT", "outputs"), ("GITHUB_STEP_SUMMARY", "summary.md")] {
        bench.write(file, "");
        let path = bench.path(file).display().to_string();
        bench = bench.with(name, &path);
    }
    bench.write("event.json", fixture["event"].to_string());
    let [prod, second, dev] = registries.each_ref().map(Registry::name);
    let config = format!(
        "name: team/app
registry: [{prod}/prod, {second}/mirror]
dev-registry: {dev}/dev
restricted-registry: [{{push: {prod}/restricted-images, read: {prod}/virtual}}]
default-commit-tag: {{name: default_tag, value: 'v{{{{ .Date }}}}-{{{{ .ShortSHA }}}}', validation: '^(v[0-9]{{8}}-[0-9a-f]{{8}})$'}}
default-pr-tag: {{name: default_tag, value: 'PR-{{{{ .PRNumber }}}}', validation: '^(PR-[0-9]+)$'}}
default-merge-group-tag: {{name: default_tag, value: '0.0.0-MG.{{{{ .ShortSHA }}}}', validation: '^0\\.0\\.0-MG\\.[0-9a-f]{{8}}$'}}
additional-pr-tag: {{name: semver_pr_tag, value: 'v{{{{ .PRNumber }}}}-PR', validation: '^v[0-9]+-PR$'}}
{more}"
    );
    bench.write("config.yaml", config);
    bench.with("SOURCE_DATE_EPOCH", "0")
}

fn publish(bench: &Bench, more: &[&str]) -> Outcome {
    bench.ocikit(&[&["publish", &attested(), "--config", "config.yaml"], more].concat())
}

fn three() -> [Registry; 3] {
    [(); 3].map(|()| Registry::start())
}

#[test]
fn kym_1_and_4_tags_are_written_to_a_file() {
    let registries = three();
    let bench = github("github-push", &registries, "");
    let line = ["publish", "tags", "--config", "config.yaml", "--tag", "latest", "--tag", "v=v{{ .ShortSHA }}"];
    bench.ok(&[&line[..], &["--tags-file", "tags.json"]].concat());
    let tags: Value = serde_json::from_slice(&fs::read(bench.path("tags.json")).unwrap()).unwrap();
    assert_eq!(
        tags,
        json!([
            {"name": "latest", "value": "latest"},
            {"name": "v", "value": "v6c22711f"},
            {"name": "default_tag", "value": "v19700101-6c22711f", "validation": "^(v[0-9]{8}-[0-9a-f]{8})$"},
        ])
    );
    fs::remove_file(bench.path("tags.json")).unwrap();
    let config = bench.read("config.yaml");
    for (from, to, problem) in [
        ("v{{ .Date }}", "w{{ .Date }}", "does not match"),
        (", validation: '^(v", ", validation: '(^(v", "cannot validate"),
    ] {
        bench.write("config.yaml", config.replace(from, to));
        let outcome = bench.ocikit(&[&line[..], &["--tags-file", "tags.json"]].concat());
        assert!(outcome.code == 2 && outcome.stderr.contains(problem), "{outcome}");
        assert!(!bench.path("tags.json").exists());
    }
}

#[test]
fn kym_5_and_6_bad_templates_are_named() {
    let bench = bench().with("SECRET", "canary-secret");
    let line = ["publish", "tags", "--event", "push", "--commit", COMMIT, "--tag"];
    for (tag, problem) in [
        ("v={{ .PRNumber }}", "cannot use `` as the tag `v`: it is empty"),
        ("v={{ .Env \"SECRET\" }}", "`SECRET` is not on the allow-list"),
        ("v={{ range .X }}{{ end }}", "`range` is not supported"),
        ("a=b=c", "cannot use `b=c` as the tag `a`"),
    ] {
        let outcome = bench.ocikit(&[&line[..], &[tag]].concat());
        assert!(outcome.code == 2 && outcome.stderr.contains(problem), "{outcome}");
        assert!(!outcome.stderr.contains("canary"), "{outcome}");
    }
    let allowed = bench.ok(&[&line[..], &["v={{ .Env \"SECRET\" }}", "--allow-env", "SECRET"]].concat());
    assert_eq!(allowed, "canary-secret  a template");
}

#[test]
fn kym_13_14_15_and_17_push_goes_to_every_registry() {
    let registries = three();
    let bench = github("github-push", &registries, "");
    let outcome =
        publish(&bench, &["--tag", "latest", "--report", "r.json", "--build-report", "b.json", "--html", "r.html"]);
    let digest = verified_digest(&testdata("buildkit-attested/multi.tar"));
    for (registry, repository) in registries.iter().zip(["prod/team/app", "mirror/team/app"]) {
        for tag in ["latest", "v19700101-6c22711f"] {
            assert_eq!(registry.verified_digest(repository, tag), Some(digest), "{outcome}");
        }
    }
    assert!(registries[2].requests().is_empty());
    outcome.ok();
    let images =
        json!(["latest", "v19700101-6c22711f"].map(|tag| format!("{}/prod/team/app:{tag}", registries[0].name())));
    let build: Value = serde_json::from_slice(&fs::read(bench.path("b.json")).unwrap()).unwrap();
    assert_eq!(build.as_object().unwrap().len(), 9);
    assert_eq!((&build["pushed"], &build["signed"], &build["digest"]), (&true.into(), &false.into(), &json!(digest)));
    assert_eq!(build["images_list"].as_array().unwrap()[..2], images.as_array().unwrap()[..]);
    assert_eq!(build["architectures"], json!(["linux/amd64", "linux/arm64"]));
    let outputs = bench.read("outputs");
    for name in ["images", "architectures", "digest", "build-report"] {
        assert_eq!(outputs.matches(&format!("{name}<<ocikit-")).count(), 1, "{outputs}");
    }
    let summary = bench.read("summary.md");
    assert!(summary.contains("| Image | Architecture |\n|---|---|\n"), "{summary}");
    let report: Value = serde_json::from_slice(&fs::read(bench.path("r.json")).unwrap()).unwrap();
    assert_eq!((&report["status"], report["targets"].as_array().unwrap().len()), (&"succeeded".into(), 2));
    assert!(report["targets"][0]["uploaded"]["bytes"].as_u64().unwrap() > 0, "{report}");
    assert!(bench.read("r.html").contains("</html>"));
    // A rerun changes nothing.
    registries.iter().for_each(Registry::clear_requests);
    publish(&bench, &["--tag", "latest"]).ok();
    assert_eq!(registries.each_ref().map(Registry::writes), [0; 3]);
}

#[test]
fn kym_13_pull_requests_go_to_dev_and_are_not_signed() {
    let registries = three();
    for (name, expected) in [
        ("github-pull_request_target", &["PR-123", "v123-PR"][..]),
        ("github-merge_group", &["0.0.0-MG.da39a3ee", "PR-123", "v123-PR"]),
    ] {
        let bench = github(name, &registries, "");
        bench.ok(&["keygen", "--unencrypted", "-o", "ocikit"]);
        let outcome = publish(&bench, &["--key", "ocikit.key"]);
        assert!(outcome.stderr.contains("not signed"), "{outcome}");
        outcome.ok();
        assert_eq!(tags(&registries[2], "dev/team/app"), expected);
        assert!(registries[..2].iter().all(|registry| registry.requests().is_empty()));
    }
    let bench = github("github-push", &registries, "");
    bench.ok(&["keygen", "--unencrypted", "-o", "ocikit"]);
    publish(&bench, &["--key", "ocikit.key"]).ok();
    for (registry, repository) in registries.iter().zip(["prod", "mirror"]) {
        let reference = format!("{}/{repository}/team/app:v19700101-6c22711f", registry.name());
        bench.ok(&["verify", "--key", "ocikit.pub", &reference]);
    }
    registries.iter().for_each(Registry::clear_requests);
    publish(&bench, &["--key", "ocikit.key"]).ok();
    assert_eq!(registries.each_ref().map(Registry::writes), [0; 3], "it is signed already");
}

#[test]
fn kym_16_restricted_images_have_a_virtual_address() {
    let registries = three();
    let bench = github("github-push", &registries, "");
    let printed = publish(&bench, &["--restricted"]).ok();
    let name = registries[0].name();
    assert!(printed.starts_with(&format!("{name}/virtual/team/app:v19700101-6c22711f@sha256:")), "{printed}");
    assert!(registries[0].verified_digest("restricted-images/team/app", "v19700101-6c22711f").is_some());
}

#[test]
fn kym_11_unsigned_images_are_refused_unless_allowed() {
    let registries = three();
    let signers = "
sign-config:
  enabled-signers: {'*': [one]}
  signers: [{name: one, job-type: [schedule], config: {endpoint: 'https://localhost:1/', secret: {path: s.json}}}]
";
    let bench = github("github-push", &registries, signers);
    let outcome = publish(&bench, &[]);
    assert_eq!((outcome.code, registries[0].writes()), (2, 0), "{outcome}");
    assert!(outcome.stderr.contains("no signer signs for acme/app in a postsubmit job; not asked: one"), "{outcome}");
    let outcome = publish(&bench, &["--allow-unsigned", "--build-report", "b.json"]);
    assert!(outcome.stderr.contains("warning: "), "{outcome}");
    outcome.ok();
    let build: Value = serde_json::from_slice(&fs::read(bench.path("b.json")).unwrap()).unwrap();
    assert_eq!((&build["pushed"], &build["signed"]), (&true.into(), &false.into()));
    let required = github("github-push", &registries, "events: {push: {sign: true}}\n");
    assert_eq!(publish(&required, &[]).code, 2);
}

#[test]
fn dry_run_prints_the_plan() {
    let registries = three();
    let bench = github("github-push", &registries, "");
    let plan = json(&publish(&bench, &["--dry-run", "--json"]).ok());
    assert_eq!(
        (&plan["event"], &plan["dryRun"], plan["targets"].as_array().unwrap().len()),
        (&"push".into(), &true.into(), 2)
    );
    assert_eq!(plan["targets"][0]["tags"], json!(["v19700101-6c22711f"]));
    assert_eq!(registries.each_ref().map(Registry::writes), [0; 3]);
}

/// What every step of a job appends to is checked before anything is published.
#[test]
fn files_of_the_job_are_checked_first() {
    let registries = three();
    for name in ["GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"] {
        for path in ["missing/file", "directory"] {
            let bench = github("github-push", &registries, "");
            fs::create_dir(bench.path("directory")).unwrap();
            let path = bench.path(path).display().to_string();
            let bench = bench.with(name, &path);
            let outcome = publish(&bench, &[]);
            assert_ne!(outcome.code, 0, "{name}: {outcome}");
            assert!(outcome.stderr.contains(&path), "{name}: {outcome}");
            assert_eq!(registries.each_ref().map(Registry::writes), [0; 3], "{name}");
        }
    }
    // A file that does not exist is created at the end, and one that does is not changed at the start.
    let bench = github("github-push", &registries, "");
    bench.write("outputs", "before=1\n");
    fs::remove_file(bench.path("summary.md")).unwrap();
    publish(&bench, &[]).ok();
    assert!(bench.read("outputs").starts_with("before=1\n"));
    assert!(bench.path("summary.md").exists());
}

#[test]
fn no_tag_changes_anywhere_if_one_registry_fails() {
    let registries = three();
    let bench = bench();
    let digest = write_archive(&bench.path("a.tar"), Archive { layers: 2, size: 100_000, valid_digests: true });
    let to = registries.each_ref().map(|registry| format!("{}/acme/app", registry.name()));
    let mut line = vec!["publish", "a.tar", "--event", "push", "--commit", COMMIT, "--branch", "main"];
    to.iter().for_each(|repository| line.extend(["--to", repository]));
    registries[1].faults().add(Fault::on("POST /v2/**", Action::Answer(Reply::status(403))));
    let outcome = bench.ocikit(&line);
    assert_eq!(outcome.code, 4, "{outcome}");
    assert!(outcome.stderr.contains("no tag was changed") && outcome.stdout.is_empty(), "{outcome}");
    for registry in &registries {
        assert_eq!(digests(registry, &["main", "main-6c22711"]), [None, None]);
    }
    registries[1].faults().clear();
    bench.ok(&line);
    for registry in &registries {
        assert_eq!(digests(registry, &["main", "main-6c22711"]), [Some(digest); 2]);
    }
    registries.iter().for_each(Registry::clear_requests);
    bench.ok(&line);
    assert_eq!(registries.each_ref().map(Registry::writes), [0; 3]);
}

/// Killed at 50 moments while two platforms with attestations go to three registries under four tags: a tag leads to the
/// whole image or does not exist, and a rerun finishes.
#[test]
fn killed_publication_leaves_no_incomplete_tag() {
    const TAGS: [&str; 4] = ["main", "main-6c22711", "latest", "v6c22711f"];
    let registries = three();
    let digest = verified_digest(&testdata("buildkit-attested/multi.tar"));
    let archive = attested();
    for_each_parallel(50, |number| {
        let bench = bench();
        let repository = format!("case{number}");
        let to = registries.each_ref().map(|registry| format!("{}/{repository}", registry.name()));
        let mut line = vec!["publish", "-q", &archive, "--event", "push", "--commit", COMMIT, "--branch", "main"];
        line.extend(["--default-branch", "--git-tags", "--tag", "v{{ .ShortSHA }}"]);
        to.iter().for_each(|repository| line.extend(["--to", repository]));
        let prefix = format!("/v2/{repository}/");
        let requests = || {
            let all = registries.iter().flat_map(Registry::requests);
            all.filter(|request| request.path.starts_with(&prefix)).count()
        };
        let moment = pseudo_random(number, 120) as usize;
        let mut child = bench.command(&line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while requests() < moment && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        let _ = child.kill();
        child.wait().unwrap();
        registries.iter().for_each(|registry| registry.wait_until_quiet(&repository));
        for registry in &registries {
            for tag in TAGS {
                let found = registry.verified_digest(&repository, tag);
                assert!(found.is_none_or(|found| found == digest), "{number}");
            }
        }
        bench.ok(&line);
        for registry in &registries {
            for tag in TAGS {
                assert_eq!(registry.verified_digest(&repository, tag), Some(digest), "{number}");
            }
        }
    });
}

/// A registry dies at a moment of the publication: no tag changes anywhere unless every registry has the image, and a rerun
/// finishes when it is back.
#[test]
fn registries_that_die_leave_no_tag_before_all_have_the_image() {
    const TAGS: [&str; 2] = ["main", "main-6c22711"];
    let digest = verified_digest(&testdata("buildkit-attested/multi.tar"));
    for_each_parallel(16, |number| {
        let registries = three();
        let bench = bench();
        let to = registries.each_ref().map(|registry| format!("{}/acme/app", registry.name()));
        let source = attested();
        let mut line = vec!["publish", "-q", &source, "--retries", "0", "--event", "push", "--commit", COMMIT];
        line.extend(["--branch", "main"]);
        to.iter().for_each(|repository| line.extend(["--to", repository]));
        let dying = &registries[number % 3];
        // All requests fail from this one on.
        let moment = pseudo_random(number, 40);
        let point = if number % 2 == 0 { Point::Request } else { Point::Answer };
        dying.faults().add(Fault::on("* /v2/**", Action::Cut(point)).after(moment));
        let outcome = bench.ocikit(&line);
        dying.faults().clear();
        let found = registries.each_ref().map(|registry| TAGS.map(|tag| registry.verified_digest("acme/app", tag)));
        assert!(found.iter().flatten().all(|found| found.is_none_or(|found| found == digest)), "{number}: {outcome}");
        if found.iter().flatten().any(Option::is_some) {
            // The image was everywhere before the first tag changed.
            for registry in &registries {
                assert_eq!(
                    registry.verified_digest("acme/app", &digest.to_string()),
                    Some(digest),
                    "{number}: {outcome}"
                );
            }
        }
        bench.ok(&line);
        for registry in &registries {
            assert_eq!(TAGS.map(|tag| registry.verified_digest("acme/app", tag)), [Some(digest); 2], "{number}");
        }
    });
}

#[test]
fn repositories_are_published_to_once() {
    let registry = Registry::start();
    let bench = bench();
    let to = format!("{}/acme/app", registry.name());
    let line = ["publish", &single(), "--to", &to, "--to", &to, "--event", "push", "--commit", COMMIT, "--tag", "x"];
    assert_eq!(bench.ok(&line).lines().count(), 1);
    let puts =
        registry.requests().iter().filter(|request| request.method == "PUT" && request.path.ends_with("/x")).count();
    assert_eq!(puts, 1);
}

#[test]
fn git_tag_without_a_commit_is_explained() {
    let outcome = bench().ocikit(&["publish", "tags", "--git-tag", "v1.2.3"]);
    assert_eq!(outcome.code, 2, "{outcome}");
    assert!(outcome.stderr.contains("the commit of the git tag v1.2.3 is not given"), "{outcome}");
    assert!(outcome.stderr.contains("hint: add --commit SHA"), "{outcome}");
}

/// Attestations of the build and a statement about the publication are signed by the policy of the event, once.
#[test]
fn attestations_follow_the_policy_of_the_event() {
    let registries = three();
    let more = "events: {push: {attest: [build, published]}, schedule: {registry: prod, sign: false}}\n";
    let bench = github("github-push", &registries, more);
    bench.ok(&["keygen", "--unencrypted", "-o", "ocikit"]);
    let unsigned = publish(&bench, &[]);
    assert_eq!((unsigned.code, registries[0].writes()), (2, 0), "{unsigned}");
    let signed = publish(&bench, &["--key", "ocikit.key", "--report", "r.json"]);
    assert!(signed.stderr.contains("attestations signed"), "{signed}");
    signed.ok();
    let report: Value = serde_json::from_slice(&fs::read(bench.path("r.json")).unwrap()).unwrap();
    let kind = "https://github.com/ocikit/ocikit/attestation/published/v1";
    for (position, (registry, path)) in registries.iter().zip(["prod", "mirror"]).enumerate() {
        let reference = format!("{}/{path}/team/app:v19700101-6c22711f", registry.name());
        let found = bench.ok(&["verify", "--json", "--key", "ocikit.pub", "--attestation", kind, &reference]);
        let found = json(&found);
        let text = found.to_string();
        assert!(text.contains("v19700101-6c22711f") && text.contains(COMMIT), "{text}");
        assert!(!text.contains(&registries[1 - position].name()), "a statement names its own repository only: {text}");
        bench.ok(&[
            "verify",
            "--recursive",
            "--images-only",
            "--key",
            "ocikit.pub",
            "--attestation",
            "slsaprovenance1",
            &reference,
        ]);
        assert!(report["targets"][position]["attestations"].as_array().unwrap().len() >= 2, "{report}");
    }
    registries.iter().for_each(Registry::clear_requests);
    publish(&bench, &["--key", "ocikit.key"]).ok();
    assert_eq!(registries.each_ref().map(Registry::writes), [0; 3], "they are signed already");
    let pull_request = github("github-pull_request_target", &registries, more);
    publish(&pull_request, &[]).ok();
}

/// The statements of a build name one image for each platform. With several layer formats there are several, so nothing is sent; one
/// other format is a change that the layers' content does not notice.
#[test]
fn attestations_of_a_build_need_one_layer_format() {
    let registries = three();
    let bench = github("github-push", &registries, "events: {push: {attest: [build]}}\nformats: [gzip, zstd]\n");
    bench.ok(&["keygen", "--unencrypted", "-o", "ocikit"]);
    let (source, to) = (attested(), format!("{}/acme/app", registries[0].name()));
    let line = ["publish", &*source, "--to", &to, "--event", "push", "--commit", COMMIT, "--tag", "x"];
    let flags = ["--attest-build", "--layer-format", "gzip", "--layer-format", "zstd"];
    for outcome in [
        publish(&bench, &["--key", "ocikit.key"]),
        bench.ocikit(&[&line[..], &["--key", "ocikit.key"], &flags].concat()),
    ] {
        assert_eq!(outcome.code, 2, "{outcome}");
        assert!(outcome.stderr.contains("one layer format only") && outcome.stderr.contains("hint: "), "{outcome}");
    }
    assert_eq!(registries.each_ref().map(Registry::writes), [0; 3]);

    let one = bench.ocikit(&[&line[..], &["--key", "ocikit.key", "--attest-build", "--layer-format", "zstd"]].concat());
    assert!(one.code == 0 && one.stderr.contains("attestations signed"), "{one}");
    let reference = format!("{to}:x");
    let verify = ["verify", "--recursive", "--images-only", "--key", "ocikit.pub", "--attestation", "slsaprovenance1"];
    bench.ok(&[&verify[..], &[&reference]].concat());
    publish(&bench, &["--key", "ocikit.key", "--layer-format", "gzip"]).ok();
}

/// Canaries in every secret of the new parts are in no output at the highest verbosity, and in no file.
#[test]
fn kym_19_secrets_of_exchanges_and_tokens_are_not_shown() {
    let registry = Registry::for_user("gitlab-ci-token", "canary-job-token");
    let bench = bench()
        .with("CI_REGISTRY", &registry.name())
        .with("CI_JOB_TOKEN", "canary-job-token")
        .with("AUTHORIZATION", "Bearer canary.canary.canary");
    let to = format!("{}/acme/app", registry.name());
    let source = single();
    let line =
        ["publish", "-v", &*source, "--to", &to, "--exchange", "--event", "push", "--commit", COMMIT, "--tag", "x"];
    let outcome = bench.ocikit(&[&line[..], &["--report", "r.json", "--html", "r.html"]].concat());
    assert_eq!(outcome.code, 0, "{outcome}");
    let login = bench.ocikit(&["login", "-v", "--exchange=gitlab", &registry.name()]);
    assert_eq!(login.code, 0, "{login}");
    let config = format!("trusted-issuers: [{{name: x, issuer: 'http://{}', audiences: [a]}}]\n", registry.name());
    bench.write("config.yaml", config);
    let token = bench.ocikit(&["verify-token", "-v", "--config", "config.yaml"]);
    assert_eq!(token.code, 1, "{token}");
    for outcome in [outcome, login, token] {
        assert!(!outcome.to_string().contains("canary"), "{outcome}");
    }
    for file in ["r.json", "r.html"] {
        assert!(!bench.read(file).contains("canary"), "{file}");
    }
    // A job token goes to its own registry only.
    let other = Registry::start();
    let line = [
        "publish",
        &*source,
        "--to",
        &format!("{}/a", other.name()),
        "--exchange=gitlab",
        "--commit",
        COMMIT,
        "--tag",
        "x",
    ];
    let outcome = bench.ocikit(&line);
    assert!(outcome.code == 2 && outcome.stderr.contains("the token of the job is for"), "{outcome}");
    assert!(other.requests().is_empty());
}

/// The template engine under attack: every case ends with a bounded error of one line.
#[test]
fn hostile_templates_end_with_an_error() {
    let bench = bench().with("SECRET", "canary-secret");
    let nested = "{{ if .Tag }}".repeat(200);
    let calls = format!("{{{{ {}1{} }}}}", "(len ".repeat(200), ")".repeat(200));
    let growing = format!("{{{{ $x := \"{}\" }}}}{}", "a".repeat(100), "{{ $x = print $x $x }}".repeat(60));
    let long = "a".repeat(5000);
    for template in [
        &*nested,
        &*calls,
        &*growing,
        &*long,
        "{{ template \"x\" }}",
        "{{ define \"x\" }}{{ template \"x\" }}{{ end }}{{ template \"x\" }}",
        "{{ range $x := .Env }}{{ end }}",
        "{{ .Env \"SECRET\" }}",
        "{{ .Env \"PATH\" }}",
        "{{ printf \"%1000000000d\" 1 }}",
        "{{ printf \"%s\" .Env }}",
        "{{ index . \"Env\" }}",
        "{{ .ParseTags }}",
        "{{ call .Time }}",
        "{{ slice \"abc\" 9223372036854775807 }}",
        "{{ .Time.Format \"../../etc/passwd\" }}",
        "{{ \"../../etc/passwd\" }}",
        "{{",
        "{{ \"\\u0000\" }}",
    ] {
        let outcome = bench.ocikit(&[
            "publish",
            "tags",
            "--event",
            "push",
            "--commit",
            COMMIT,
            "--tag",
            &format!("v={template}"),
        ]);
        assert!(outcome.code == 2 && outcome.stdout.is_empty(), "{template:.80}: {outcome}");
        assert!(outcome.stderr.len() < 12_000 && !outcome.stderr.contains("canary"), "{template:.80}: {outcome}");
    }
}

/// Returns a token that a key signed, and the set of its public key.
fn token(key: &ocikit_sign::PrivateKey, claims: &Value) -> (String, String) {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let message = format!("{}.{}", encode(br#"{"alg":"EdDSA","kid":"1"}"#), encode(claims.to_string().as_bytes()));
    let signature = key.sign(ocikit_sign::Scheme::Ed25519, message.as_bytes()).unwrap();
    let der = key.public_key().to_der();
    let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": encode(&der[der.len() - 32..])}]});
    (format!("{message}.{}", encode(&signature)), set.to_string())
}

/// The keys come from a file and from the issuer; the exit code is 1 for every token that is refused.
#[test]
fn kym_18_callers_are_verified_by_their_token() {
    const WORKFLOW: &str = "acme/infra/.github/workflows/image-builder.yml@refs/heads/main";
    let key = ocikit_sign::PrivateKey::generate(ocikit_sign::KeyKind::Ed25519).unwrap();
    let now = jiff::Timestamp::now().as_second();
    let server = StubServer::start(vec![Vec::new()]);
    let unreachable = format!("http://{}", server.address);
    let claims = |issuer: &str| json!({"iss": issuer, "aud": "image-builder", "iat": now, "exp": now + 300, "job_workflow_ref": WORKFLOW});
    let (_, keys) = token(&key, &claims(""));
    let answers = StubServer::start(vec![answer("200 OK", b"{}"), answer("200 OK", keys.as_bytes())]);
    let issuer = format!("http://{}", answers.address);
    let config = |source: &str| {
        format!(
            "trusted-issuers:
  - {{name: github, issuer: '{issuer}', audiences: [image-builder], workflows: ['{WORKFLOW}'], algorithms: [EdDSA],
     github-url: 'https://github.example', client-id: 'image-builder'{source}}}
"
        )
    };
    let run = |source: &str, token: &str| {
        let bench = bench().with("AUTHORIZATION", &format!("Bearer {token}"));
        bench.write("config.yaml", config(source));
        bench.write("keys.json", &keys);
        let outcome =
            bench.ocikit(&["verify-token", "--retries", "0", "--config", "config.yaml", "--output", "caller.json"]);
        assert!(!outcome.to_string().contains(token), "{outcome}");
        assert_eq!(bench.path("caller.json").exists(), outcome.code == 0, "{outcome}");
        if outcome.code == 0 {
            let found: Value = serde_json::from_slice(&fs::read(bench.path("caller.json")).unwrap()).unwrap();
            assert_eq!(found, json!({"github_url": "https://github.example", "client_id": "image-builder"}));
        }
        outcome
    };
    let file = ", jwks-file: keys.json";
    let (good, _) = token(&key, &claims(&issuer));
    assert_eq!(run(file, &good).ok(), format!("accepted: github ({issuer})"));
    for (name, value, message) in [
        (
            "iss",
            json!("https://evil.example"),
            format!("wrong issuer: expected `{issuer}`, provided `https://evil.example`"),
        ),
        ("aud", json!("other"), "wrong audience: expected `image-builder`, provided `other`".to_owned()),
        ("job_workflow_ref", json!("x@y"), format!("expected `{WORKFLOW}`, provided `x@y`")),
        ("iat", json!(now - 700), "too old: expected at most 600 seconds".to_owned()),
        ("exp", json!(now - 100), "it has expired".to_owned()),
    ] {
        let mut changed = claims(&issuer);
        changed[name] = value;
        let outcome = run(file, &token(&key, &changed).0);
        assert!(outcome.code == 1 && outcome.stderr.contains(&message), "{message}: {outcome}");
    }
    let other = ocikit_sign::PrivateKey::generate(ocikit_sign::KeyKind::Ed25519).unwrap();
    assert_eq!(run(file, &token(&other, &claims(&issuer)).0).code, 1);
    assert_eq!(run(", jwks-file: missing.json", &good).code, 3);
    // The first answer has no keys: the check is impossible, and not a refusal.
    let jwks = format!(", jwks-url: '{issuer}/keys'");
    let outcome = run(&jwks, &good);
    assert_eq!(outcome.code, 2, "{outcome}");
    run(&jwks, &good).ok();
    assert_eq!(run(&format!(", jwks-url: '{unreachable}/keys'"), &good).code, 6);
}
