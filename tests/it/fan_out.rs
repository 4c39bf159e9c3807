//! Copies from one source to several targets.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::Stdio;

use ocikit_server::{Action, Fault, Point};
use ocikit_tests::{
    Archive, Bench, Direction, Proxy, ProxyFault, Registry, attested, json, multi, verified_digest, write_archive,
};

use crate::bench;

fn count(registry: &Registry, method: &str, part: &str) -> usize {
    let requests = registry.requests();
    requests.iter().filter(|request| request.method.as_str() == method && request.path.contains(part)).count()
}

/// Returns the number of copied, mounted and existing blobs of each target.
fn facts(text: &str) -> Vec<[u64; 3]> {
    let facts = json(text);
    let targets = facts["targets"].as_array().unwrap().iter();
    targets.map(|target| ["sent", "mounted", "present"].map(|kind| target[kind]["blobs"].as_u64().unwrap())).collect()
}

/// Writes an archive with two layers of this size to `a.tar` and returns its digest.
fn layers(bench: &Bench, size: u64) -> String {
    write_archive(&bench.path("a.tar"), Archive { layers: 2, size, valid_digests: true }).to_string()
}

#[test]
fn source_is_read_once_for_all_targets() {
    let bench = bench();
    let [from, one, two] = [(); 3].map(|()| Registry::start());
    let digest = layers(&bench, 3 << 20);
    let source = format!("{}/app:1", from.name());
    bench.ok(&["push", "-q", "a.tar", &source]);
    from.clear_requests();
    let targets = [format!("{}/app:1", one.name()), format!("{}/app:1", two.name()), "b.tar".into(), "./layout".into()];
    let arguments = [vec!["copy", "--json", &source], targets.iter().map(String::as_str).collect()].concat();
    // Two layers, a config and a manifest.
    assert_eq!(facts(&bench.ok(&arguments)), [[4, 0, 0]; 4]);
    assert_eq!(count(&from, "GET", "/blobs/"), 3, "{:?}", from.requests());
    let received: u64 = from.requests().iter().map(|request| request.response_bytes).sum();
    assert!((6 << 20..7 << 20).contains(&received), "{received}");
    for target in &targets {
        assert_eq!(bench.ok(&["digest", target]), digest);
    }
    assert_eq!(verified_digest(&bench.path("b.tar")).to_string(), digest);
    assert_eq!(one.verified_digest("app", "1").unwrap().to_string(), digest);
    // A second copy reads no blob and sends one request to each registry.
    [&from, &one, &two].into_iter().for_each(Registry::clear_requests);
    bench.ok(&arguments[..5]);
    assert_eq!((count(&from, "GET", "/blobs/"), one.requests().len(), two.requests().len()), (0, 1, 1));
}

#[test]
fn tags_share_uploads_and_repositories_mount_blobs() {
    let (bench, registry) = (bench(), Registry::start());
    let digest = layers(&bench, 1 << 20);
    let targets = ["app:1", "app:2", "other:1", "app:3"].map(|name| format!("{}/{name}", registry.name()));
    let arguments = [vec!["push", "--json", "a.tar"], targets.iter().map(String::as_str).collect()].concat();
    // Only blobs can be mounted; the manifest is uploaded to each repository.
    assert_eq!(facts(&bench.ok(&arguments)), [[4, 0, 0], [0, 0, 4], [1, 3, 0], [0, 0, 4]]);
    assert_eq!((count(&registry, "PUT", "/uploads/"), count(&registry, "POST", "/uploads/")), (3, 6));
    for (repository, tag) in [("app", "1"), ("app", "2"), ("app", "3"), ("other", "1")] {
        assert_eq!(registry.verified_digest(repository, tag).unwrap().to_string(), digest);
    }
}

#[test]
fn archive_and_layout_take_several_tags() {
    let bench = bench();
    let digest = layers(&bench, 1000);
    bench.ok(&["copy", "-q", "a.tar", "b.tar#one", "b.tar#two", "oci:layout:one", "oci:layout:two"]);
    for place in ["b.tar#one", "b.tar#two", "oci:layout:one", "oci:layout:two"] {
        assert_eq!(bench.ok(&["digest", place]), digest);
    }
}

#[test]
fn standard_output_can_be_one_of_several_targets() {
    let (bench, registry) = (bench(), Registry::start());
    let digest = layers(&bench, 1 << 20);
    let target = format!("{}/app:1", registry.name());
    let output = bench.command(&["copy", "-q", "a.tar", "-", &target, "b.tar"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let archive = fs::read(bench.path("b.tar")).unwrap();
    assert!(output.stdout == archive, "standard output holds only the archive");
    assert_eq!(registry.verified_digest("app", "1").unwrap().to_string(), digest);
}

#[test]
fn pipe_is_copied_to_several_targets() {
    let bench = bench();
    let [one, two] = [(); 2].map(|()| Registry::start());
    let digest = layers(&bench, 3 << 20);
    let archive = fs::read(bench.path("a.tar")).unwrap();
    let targets = [
        format!("{}/app:1", one.name()),
        format!("{}/app:1", two.name()),
        format!("{}/other:1", one.name()),
        "b.tar".into(),
    ];
    let arguments = [vec!["copy", "--json", "-"], targets.iter().map(String::as_str).collect()].concat();
    let outcome = bench.ocikit_with_input(&arguments, &archive);
    assert_eq!(facts(&outcome.ok()), [[4, 0, 0], [4, 0, 0], [1, 3, 0], [4, 0, 0]]);
    for target in &targets {
        assert_eq!(bench.ok(&["digest", target]), digest);
    }
    assert_eq!(verified_digest(&bench.path("b.tar")).to_string(), digest);
    assert_eq!(one.verified_digest("other", "1").unwrap().to_string(), digest);

    // A target fails; the pipe is read to its end for the others.
    let bad = "localhost:1/app:1";
    let outcome =
        bench.ocikit_with_input(&["push", "--retries", "0", "-", bad, &targets[0], "localhost:1/b:1"], &archive);
    assert_eq!(outcome.code, 7, "{outcome}");
    assert!(outcome.stdout.starts_with(&targets[0]) && outcome.stderr.contains("2 of 3 targets failed"), "{outcome}");
    let outcome = bench.ocikit_with_input(&["push", "--retries", "0", "-", bad, "localhost:1/b:1"], &archive);
    assert_eq!(outcome.code, 6, "{outcome}");
    // A truncated archive is tagged in no registry.
    let fresh = [format!("{}/cut:1", one.name()), format!("{}/cut:1", two.name())];
    let cut = bench.ocikit_with_input(&["push", "-", &fresh[0], &fresh[1]], &archive[..4 << 20]);
    assert_eq!(cut.code, 3, "{cut}");
    assert_eq!((one.verified_digest("cut", "1"), two.verified_digest("cut", "1")), (None, None));
}

#[test]
fn failing_target_is_retried_without_the_others() {
    let bench = bench();
    let [one, two] = [(); 2].map(|()| Registry::start());
    let digest = layers(&bench, 4 << 20);
    let refused = Fault::on("PUT /v2/**/uploads/*", Action::Cut(Point::RequestBody(1_500_000))).nth(1);
    let active = two.faults().add(refused);
    let proxy = Proxy::start(one.address());
    proxy.inject_after(Direction::ToRegistry, 3 << 20, ProxyFault::CloseAll);
    let targets = [format!("{}/app:1", proxy.name()), format!("{}/app:1", two.name())];
    bench.ok(&["push", "-q", "a.tar", &targets[0], &targets[1]]);
    assert!(proxy.has_injected() && active.happened() == 1);
    for registry in [&one, &two] {
        assert_eq!(registry.verified_digest("app", "1").unwrap().to_string(), digest);
    }
    // A permanent failure of one target does not stop the other.
    two.faults().add(Fault::on("* /v2/more/**", Action::Answer(ocikit_server::Reply::status(500))));
    let targets = [format!("{}/more:1", two.name()), format!("{}/more:1", one.name())];
    let outcome = bench.ocikit(&["push", "-q", "--retries", "0", "a.tar", &targets[0], &targets[1]]);
    assert_eq!(outcome.code, 7, "{outcome}");
    assert_eq!(one.verified_digest("more", "1").unwrap().to_string(), digest);
}

#[test]
fn referrers_are_copied_to_all_targets() {
    let bench = bench();
    let [from, one, two] = [(); 3].map(|()| Registry::start());
    let source = format!("{}/app:1", from.name());
    bench.ok(&["push", "-q", &attested(), &source]);
    let digest = bench.ok(&["digest", &source]);
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"a/b","config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}},"layers":[],"subject":{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{digest}","size":{}}}}}"#,
        bench.ok(&["manifest", "get", &source]).len()
    );
    bench.write("empty", "{}");
    bench.write("referrer.json", manifest);
    let repository = format!("{}/app", from.name());
    bench.ok(&["blob", "put", "empty", &repository]);
    bench.ok(&["manifest", "put", "referrer.json", &repository]);
    let about = bench.ok(&["referrers", &source]);
    let targets = [format!("{}/app:1", one.name()), format!("{}/app:1", two.name())];
    // The first target has the image without its referrers.
    bench.ok(&["copy", "-q", "--no-referrers", &source, &targets[0]]);
    let facts = facts(&bench.ok(&["copy", "--json", &source, &targets[0], &targets[1]]));
    assert!(facts[0] == [1, 0, 1] && facts[1][0] == 18, "{facts:?}");
    for target in &targets {
        assert_eq!(bench.ok(&["referrers", target]), about);
        assert_eq!(bench.ok(&["digest", target]), digest);
    }
}

/// Returns how often each blob was looked for and uploaded, at least once each: the highest number of any blob.
fn most_often(registry: &Registry, method: &str) -> usize {
    let mut counts = BTreeMap::<String, usize>::new();
    for request in registry.requests().into_iter().filter(|request| request.method.as_str() == method) {
        let digest = match method {
            "HEAD" => request.path.split_once("/blobs/").map(|(_, digest)| digest.to_owned()),
            _ => request.query.and_then(|query| Some(query.split_once("digest=")?.1.to_owned())),
        };
        digest.into_iter().for_each(|digest| *counts.entry(digest).or_default() += 1);
    }
    counts.into_values().max().unwrap_or_default()
}

/// Writes a layout with an image for each tag. All share their layers and their config.
fn sharing(bench: &Bench, name: &str, tags: &[&str]) {
    let digest = write_archive(&bench.path("base.tar"), Archive { layers: 2, size: 100_000, valid_digests: true });
    for tag in tags {
        let place = format!("oci:{name}:{tag}");
        bench.ok(&["annotate", "base.tar", &format!("tag={tag}"), "-o", &place]);
        assert_ne!(bench.ok(&["digest", &place]), digest.to_string());
    }
}

#[test]
fn blobs_shared_by_archives_and_tags_are_read_and_uploaded_once() {
    let bench = bench();
    let [to, mirror] = [(); 2].map(|()| Registry::start());
    let tags = ["1", "2", "3", "4", "5"];
    sharing(&bench, "images", &tags);
    let check = |registry: &Registry, repository: &str, max_heads: usize| {
        // Two layers and a config; a manifest for each tag.
        assert_eq!(count(registry, "PUT", "/uploads/"), 3, "{:?}", registry.requests());
        assert_eq!(most_often(registry, "PUT"), 1, "{:?}", registry.requests());
        assert!(most_often(registry, "HEAD") <= max_heads, "{:?}", registry.requests());
        for tag in tags {
            let digest = bench.ok(&["digest", &format!("oci:images:{tag}")]);
            assert_eq!(registry.verified_digest(repository, tag).unwrap().to_string(), digest);
        }
        registry.clear_requests();
    };
    let sources = tags.map(|tag| format!("oci:images:{tag}"));
    let repository = format!("{}/several", to.name());
    bench.ok(&[vec!["push", "-q"], sources.iter().map(String::as_str).collect(), vec![&*repository]].concat());
    check(&to, "several", 1);
    bench.ok(&["copy", "-q", "--all-tags", "oci:images", &format!("{}/tags", mirror.name())]);
    check(&mirror, "tags", 1);
    let from = format!("{}/tags", mirror.name());
    let fresh = Registry::start();
    fs::write(bench.path("sync.yaml"), format!("jobs: 5\nimages: [{{from: {from}, to: {}/sync}}]", fresh.name()))
        .unwrap();
    bench.ok(&["sync", "-q", "sync.yaml"]);
    // Every image looks for its blobs.
    check(&fresh, "sync", tags.len());
    assert_eq!(count(&mirror, "GET", "/blobs/"), 3, "{:?}", mirror.requests());
}

#[test]
fn failed_target_is_named_and_the_others_are_complete() {
    let bench = bench();
    let registries = [(); 3].map(|()| Registry::start());
    let digest = layers(&bench, 1 << 20);
    let forbidden = Fault::on("POST /v2/**", Action::Answer(ocikit_server::Reply::status(403)));
    registries[1].faults().add(forbidden);
    let targets = registries.each_ref().map(|registry| format!("{}/app:1", registry.name()));
    let outcome = bench.ocikit(&["push", "-q", "a.tar", &targets[0], &targets[1], &targets[2]]);
    assert_eq!(outcome.code, 7, "{outcome}");
    let errors: Vec<_> = outcome.stderr.lines().filter(|line| line.contains(&targets[1])).collect();
    assert!(!errors.is_empty() && !outcome.stderr.contains(&targets[0]), "{outcome}");
    let whole =
        registries.each_ref().map(|registry| registry.verified_digest("app", "1").map(|digest| digest.to_string()));
    assert_eq!(whole, [Some(digest.clone()), None, Some(digest)]);
}

#[test]
fn a_tag_that_is_refused_does_not_stop_the_others_of_its_repository() {
    let bench = bench();
    let registry = Registry::start();
    let digest = layers(&bench, 1 << 20);
    let refused = Fault::on("PUT /v2/app/manifests/two", Action::Answer(ocikit_server::Reply::status(403)));
    registry.faults().add(refused);
    let targets = ["one", "two", "three"].map(|tag| format!("{}/app:{tag}", registry.name()));
    let archive = fs::read(bench.path("a.tar")).unwrap();
    for source in ["a.tar", "-"] {
        let line = ["push", "-q", source, &targets[0], &targets[1], &targets[2]];
        let outcome = match source {
            "-" => bench.ocikit_with_input(&line, &archive),
            _ => bench.ocikit(&line),
        };
        assert_eq!(outcome.code, 7, "{outcome}");
        assert!(outcome.stderr.contains("1 of 3") && outcome.stderr.contains(&targets[1]), "{outcome}");
        let found =
            ["one", "two", "three"].map(|tag| registry.verified_digest("app", tag).map(|found| found.to_string()));
        assert_eq!(found, [Some(digest.clone()), None, Some(digest.clone())]);
    }
}

#[test]
fn killed_copy_leaves_no_tag_at_any_target() {
    let bench = bench();
    let registries = [(); 2].map(|()| Registry::start());
    layers(&bench, 3 << 20);
    let archive = fs::read(bench.path("a.tar")).unwrap();
    let targets = registries.each_ref().map(|registry| format!("{}/app:1", registry.name()));
    let mut command = bench.command(&["push", "-q", "-", &targets[0], &targets[1]]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // The last bytes are missing, so the copy waits for them.
    child.stdin.as_mut().unwrap().write_all(&archive[..archive.len() - 20_000]).unwrap();
    while registries.iter().any(|registry| count(registry, "PUT", "/uploads/") == 0) {
        assert!(child.try_wait().unwrap().is_none(), "it ended before the archive did");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for registry in &registries {
        assert_eq!(registry.verified_digest("app", "1"), None);
        assert_eq!(count(registry, "PUT", "/manifests/"), 0);
    }
}

#[test]
fn dry_run_reads_the_source_once_for_all_targets() {
    let bench = bench();
    let registries = [(); 4].map(|()| Registry::start());
    bench.ok(&["push", "-q", &multi(), &format!("{}/app:1", registries[0].name())]);
    let [from, one, two, three] = registries.each_ref().map(|registry| format!("{}/app:1", registry.name()));
    let reads = |targets: &[&str]| {
        registries[0].clear_requests();
        let planned =
            bench.ok(&[vec!["copy", "--json", "--dry-run", "--no-referrers", &*from], targets.to_vec()].concat());
        (count(&registries[0], "GET", ""), facts(&planned))
    };
    let (alone, planned) = reads(&[&one]);
    assert_eq!(reads(&[&one, &two, &three]), (alone, [&planned[..]; 3].concat()));
    for registry in &registries[1..] {
        assert!(registry.requests().iter().all(|request| request.method == "HEAD"), "{:?}", registry.requests());
    }
}

#[test]
fn docker_archive_has_room_for_several_names() {
    let bench = bench();
    let digest = layers(&bench, 1000);
    bench.ok(&["copy", "-q", "a.tar", "docker-archive:b.tar:one:1", "docker-archive:b.tar:two:2", "c.tar"]);
    for place in ["docker-archive:b.tar:one:1", "docker-archive:b.tar:two:2", "c.tar"] {
        assert_eq!(bench.ok(&["digest", place]), digest);
    }
}
