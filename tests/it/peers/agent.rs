//! `agent` with a real BuildKit: the builder agent of a microVM, driven by the host of the library over a Unix socket.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ocikit_build::agent::{
    BuildResult, DockerfileOrigin, Endpoint, ErrorCode, Host, HostHandler, LogLine, Secret, SourceHash,
};
use ocikit_tests::{Bench, Peers, Registry, json};
use serde_json::{Value, json};

use super::build::{BUILDERS, context, nothing_remains, shell};
use crate::bench;

/// A running agent.
struct Agent {
    bench: Bench,
    child: Child,
    /// The directory for temporary files of the agent.
    temporary: PathBuf,
}

/// What a host sends and receives.
#[derive(Default)]
struct Follower {
    secrets: BTreeMap<String, String>,
    lines: Mutex<Vec<LogLine>>,
    /// Is notified of each line.
    seen: tokio::sync::Notify,
}

#[async_trait]
impl HostHandler for Follower {
    async fn secret(&self, id: &str) -> Option<Secret> {
        self.secrets.get(id).map(|value| Secret::new(value.as_str()))
    }

    fn log(&self, line: &LogLine) {
        self.lines.lock().unwrap().push(line.clone());
        self.seen.notify_one();
    }
}

impl Follower {
    fn texts(&self) -> Vec<String> {
        self.lines.lock().unwrap().iter().map(|line| line.log.clone()).collect()
    }

    fn has(&self, text: &str) -> bool {
        self.texts().iter().any(|line| line == text)
    }

    /// Waits until a line with this text has arrived.
    async fn wait_for(&self, text: &str) {
        while !self.has(text) {
            self.seen.notified().await;
        }
    }

    /// Every line was received once, in order.
    fn assert_complete(&self) {
        let numbers: Vec<_> = self.lines.lock().unwrap().iter().map(|line| line.sequence).collect();
        assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
    }
}

/// Returns the smallest `build.json` for a registry.
fn config(registry: &str) -> Value {
    json!({
        "version": 1, "job_id": "job1", "registry_url": registry, "source_path": "app", "timeout_seconds": 300,
        "network_mode": "egress",
    })
}

impl Agent {
    /// Starts an agent with this `build.json`.
    fn start(bench: Bench, config: &Value) -> Agent {
        bench.write("build.json", config.to_string());
        let temporary = bench.path("temporary");
        fs::create_dir_all(&temporary).unwrap();
        let mut command = bench.command(&["agent", "--config", "build.json", "--listen", "unix:agent.sock"]);
        let errors = fs::File::create(bench.path("agent.log")).unwrap();
        command.env("TMPDIR", &temporary).stdout(Stdio::piped()).stderr(errors);
        let child = command.spawn().unwrap();
        Agent { bench, child, temporary }
    }

    fn host(&self) -> Host {
        let mut host = Host::new(Endpoint::Unix(self.bench.path("agent.sock")));
        host.interval = Duration::from_millis(50);
        host.attempts = 600;
        host
    }

    /// Follows the build to its end. Returns the result, what the host received, and the exit code.
    fn finish(self, secrets: &[(&str, &str)]) -> (BuildResult, Follower, i32) {
        let secrets = secrets.iter().map(|(id, value)| ((*id).to_owned(), (*value).to_owned())).collect();
        let follower = Follower { secrets, ..Follower::default() };
        let mut host = self.host();
        host.secrets = follower.secrets.keys().cloned().collect();
        let result = runtime().block_on(host.run(&follower)).unwrap();
        let code = self.end();
        follower.assert_complete();
        (result, follower, code)
    }

    /// Waits for the end of the agent, which must leave nothing.
    fn end(mut self) -> i32 {
        let code = self.child.wait().unwrap().code().unwrap();
        nothing_remains(&self.temporary, "agent");
        assert_eq!(secret_directories(), Vec::<PathBuf>::new());
        assert!(!self.bench.path("agent.sock").exists());
        code
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Returns the directories for secrets of agents. Tests with agents that have secrets run one after another.
fn secret_directories() -> Vec<PathBuf> {
    let places = ["/run", "/dev/shm", "/tmp"].into_iter().filter_map(|place| fs::read_dir(place).ok());
    let entries = places.flatten().filter_map(Result::ok).map(|entry| entry.path());
    entries.filter(|path| path.to_string_lossy().contains("/ocikit-secrets-")).collect()
}

/// Held by every test, because all look at the directories for secrets.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn one_at_a_time() -> std::sync::MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn hyp_2_a_build_without_a_dockerfile_fails_at_once() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let _guard = one_at_a_time();
    let bench = bench();
    fs::create_dir(bench.path("app")).unwrap();
    let (result, _, code) = Agent::start(bench, &config("localhost:1")).finish(&[]);
    assert_eq!(result.code, Some(ErrorCode::DockerfileRequired), "{result:?}");
    assert!(result.error.unwrap().starts_with("Dockerfile required"));
    assert_eq!(code, 3);
}

#[test]
fn hyp_2_and_13_the_source_wins_and_is_hashed() {
    let Some(peers) = Peers::find(&[&BUILDERS[..], &["crane"]].concat()) else { return };
    let _guard = one_at_a_time();
    let (bench, registry) = (bench(), Registry::for_user("builder", "t0ken-of-registry"));
    shell(&bench, "app", &["echo made | /busybox tee /made"]);
    bench.write("app/package-lock.json", "{}");
    let mut config = config(&registry.name());
    config["dockerfile"] = json!("FROM scratch\nCOPY nothing /\n");
    config["registry_token"] = json!("t0ken-of-registry");
    config["registry_username"] = json!("builder");
    let source = bench.path("app");
    let expected = SourceHash::of(&source, None, &|| true).unwrap();
    let (result, follower, code) = Agent::start(bench, &config).finish(&[]);
    assert_eq!((result.success, code), (true, 0), "{result:?} {:?}", follower.texts());
    assert_eq!(result.provenance.dockerfile, Some(DockerfileOrigin::Source));
    assert_eq!(result.provenance.ignored_dockerfiles, [DockerfileOrigin::Parameter]);
    assert!(follower.texts().iter().any(|line| line.contains("build.json is not used")), "{:?}", follower.texts());
    assert_eq!(result.provenance.source_hash, Some(expected.digest));
    assert_eq!(result.provenance.lockfile_hashes, expected.lock_files);
    assert!(result.provenance.buildkit_version.is_some_and(|version| version.starts_with('v')));
    assert!(result.provenance.timestamp.is_some_and(|time| time.ends_with('Z')));

    // HYP-1 and HYP-11: a stock client reads the image with the same credential.
    let name = format!("{}/builds/job1", registry.name());
    assert_eq!(result.image_ref.as_deref(), Some(format!("{name}:latest").as_str()));
    peers.ok(&format!("crane auth login -u builder -p t0ken-of-registry {}", registry.name()));
    let digest = result.image_digest.unwrap().to_string();
    assert_eq!(peers.ok(&format!("crane digest --insecure {name}")), digest);
    let manifest = json(&peers.ok(&format!("crane manifest --insecure {name}@{digest}")));
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json", "{manifest}");
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.image.config.v1+json");
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    assert_eq!(follower.texts().iter().filter(|line| *line == "made").count(), 1, "{:?}", follower.texts());
}

/// Pushes a base image and returns its name and digest.
fn base(bench: &Bench, registry: &str) -> (String, String) {
    context(&bench.path("base"));
    bench.write("base/Dockerfile", "FROM scratch\nCOPY busybox /busybox\n");
    let name = format!("{registry}/base");
    let digest = bench.ok(&["build", "-q", "--no-cache-directory", "base", "--tag", &format!("{name}:1"), "--push"]);
    (name, digest.trim().to_owned())
}

#[test]
fn hyp_5_the_requested_base_image_is_used_or_the_build_fails() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let _guard = one_at_a_time();
    let registry = Registry::for_user("builder", "t0ken-of-registry");
    let user = || bench().with("OCIKIT_USERNAME", "builder").with("OCIKIT_PASSWORD", "t0ken-of-registry");
    for is_right in [true, false] {
        let bench = user();
        let (base, digest) = base(&bench, &registry.name());
        context(&bench.path("app"));
        let dockerfile =
            format!("FROM {base}:1\nRUN [\"/busybox\", \"sh\", \"-c\", \"/busybox grep -c : /proc/net/dev\"]\n");
        bench.write("app/Dockerfile", dockerfile);
        let mut config = config(&registry.name());
        let other = format!("sha256:{}", "0".repeat(64));
        config["base_image_digest"] = json!(if is_right { &digest } else { &other });
        config["job_id"] = json!(if is_right { "right" } else { "wrong" });
        config["network_mode"] = json!("isolated");
        // BuildKit gets it too, for the base image.
        config["registry_username"] = json!("builder");
        config["registry_token"] = json!("t0ken-of-registry");
        let (result, follower, code) = Agent::start(bench, &config).finish(&[]);
        let name = format!("{}/builds/{}", registry.name(), if is_right { "right" } else { "wrong" });
        let pushed = user().ocikit(&["inspect", "--json", &name]);
        assert_eq!(result.provenance.base_images.len(), 1, "{result:?}");
        assert_eq!(result.provenance.base_images[0].digest.to_string(), digest);
        // The loopback interface only.
        assert!(follower.has("1"), "{:?}", follower.texts());
        match is_right {
            true => {
                assert_eq!((result.success, code), (true, 0), "{result:?}");
                let facts = json(&pushed.ok());
                assert_eq!(facts["annotations"]["org.opencontainers.image.base.digest"], digest, "{facts}");
                assert_eq!(facts["annotations"]["org.opencontainers.image.base.name"], format!("{base}:1"));
            }
            false => {
                assert_eq!((result.code, code), (Some(ErrorCode::BaseImageMismatch), 5), "{result:?}");
                assert_eq!(pushed.code, 3, "{pushed}");
            }
        }
    }
}

#[test]
fn hyp_6_a_wrong_key_is_reported_to_the_host() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let _guard = one_at_a_time();
    let mut unknown = config("localhost:1");
    unknown["registry_tokne"] = json!("t0ken");
    let mut newer = config("localhost:1");
    newer["version"] = json!(2);
    for (config, code, text) in
        [(unknown, ErrorCode::ConfigInvalid, "`registry_tokne`"), (newer, ErrorCode::VersionUnsupported, "version 2")]
    {
        let (result, _, exit) = Agent::start(bench(), &config).finish(&[]);
        assert_eq!((result.code, exit), (Some(code), 2), "{result:?}");
        let error = result.error.unwrap();
        assert!(error.contains(text) && !error.contains("t0ken"), "{error}");
    }
}

#[test]
fn hyp_7_lines_arrive_while_the_build_runs_and_remain() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let _guard = one_at_a_time();
    let bench = bench();
    shell(&bench, "app", &["echo one; printf two; /busybox sleep 1; echo; echo three; /busybox sleep 600"]);
    let agent = Agent::start(bench, &config(&Registry::start().name()));
    let host = agent.host();
    let (result, first, second) = runtime().block_on(async {
        let (first, second) = (Follower::default(), Follower::default());
        // The first host goes away in the middle of the build.
        tokio::select! {
            result = host.run(&first) => panic!("the build ended: {result:?}"),
            () = first.wait_for("three") => {}
        }
        assert_eq!(host.status().await.unwrap(), ocikit_build::agent::Status::Building);
        let cancel = async {
            second.wait_for("three").await;
            host.cancel().await.unwrap();
        };
        let (result, ()) = tokio::join!(host.run(&second), cancel);
        (result.unwrap(), first, second)
    });
    assert_eq!(result.code, Some(ErrorCode::Cancelled), "{result:?}");
    for follower in [&first, &second] {
        follower.assert_complete();
        for text in ["one", "two", "three"] {
            assert_eq!(follower.texts().iter().filter(|line| *line == text).count(), 1, "{:?}", follower.texts());
        }
    }
    assert_eq!(agent.end(), 130);
}

#[test]
fn hyp_8_a_timeout_leaves_no_process_and_keeps_the_log() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let _guard = one_at_a_time();
    let bench = bench();
    shell(&bench, "app", &["echo started; /busybox sleep 600"]);
    let mut config = config(&Registry::start().name());
    config["timeout_seconds"] = json!(20);
    // `finish` checks that no process, mount or file is left.
    let (result, follower, code) = Agent::start(bench, &config).finish(&[]);
    assert_eq!((result.code, code), (Some(ErrorCode::Timeout), 1), "{result:?}");
    assert!(result.error.unwrap().contains("longer than 20 seconds"));
    assert!(follower.has("started"), "{:?}", follower.texts());
}

#[test]
fn hyp_9_secrets_are_in_memory_and_in_no_layer_or_log() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let _guard = one_at_a_time();
    let (bench, registry) = (bench(), Registry::start());
    let mount = "!RUN --mount=type=secret,id=npm_token,target=/token [\"/busybox\", \"sh\", \"-c\", \"/busybox wc -c /token; echo value `/busybox cat /token`; echo waiting; /busybox sleep 2\"]";
    shell(&bench, "app", &[mount]);
    let mut config = config(&registry.name());
    config["secrets"] = json!([{ "id": "npm_token", "env_var": "X" }]);
    let agent = Agent::start(bench, &config);
    let mut host = agent.host();
    host.secrets = ["npm_token".to_owned()].into();
    let follower = Arc::new(Follower {
        secrets: [("npm_token".to_owned(), "s3cret-value".to_owned())].into(),
        ..Follower::default()
    });
    let result = runtime().block_on(async {
        let looking = async {
            follower.wait_for("waiting").await;
            let directories = secret_directories();
            let [directory] = &directories[..] else { panic!("{directories:?}") };
            let file = directory.join("npm_token");
            assert_eq!(fs::read_to_string(&file).unwrap(), "s3cret-value");
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(fs::metadata(directory).unwrap().permissions().mode() & 0o777, 0o700);
            assert_in_no_process("s3cret-value");
        };
        tokio::join!(host.run(&*follower), looking).0.unwrap()
    });
    assert!(result.success, "{result:?}");
    let texts = follower.texts();
    assert!(texts.iter().any(|line| line == "12 /token") && follower.has("value ***"), "{texts:?}");
    assert!(!format!("{texts:?} {result:?}").contains("s3cret-value"));
    let log = agent.bench.read("agent.log");
    assert!(log.contains("value ***") && !log.contains("s3cret-value"), "{log}");
    let bench = crate::bench();
    bench.ok(&["copy", "-q", &format!("{}/builds/job1", registry.name()), "oci:layout:1"]);
    for blob in fs::read_dir(bench.path("layout/blobs/sha256")).unwrap() {
        let blob = fs::read(blob.unwrap().path()).unwrap();
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut ocikit_archive::Decoder::new(&blob[..]).unwrap(), &mut text).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains("s3cret-value"));
    }
    assert_eq!(agent.end(), 0);
}

/// Checks the arguments and the environment of every process.
fn assert_in_no_process(secret: &str) {
    let own = std::process::id().to_string();
    for process in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        if process.file_name() == own.as_str() {
            continue;
        }
        for file in ["cmdline", "environ"] {
            let text = fs::read(process.path().join(file)).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&text).contains(secret), "{process:?} {file}");
        }
    }
}

#[test]
fn hyp_9_a_missing_secret_fails_before_the_first_step() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let _guard = one_at_a_time();
    let bench = bench();
    shell(&bench, "app", &["echo ran"]);
    let mut config = config("localhost:1");
    config["secrets"] = json!([{ "id": "one" }, { "id": "two" }]);
    let (result, follower, code) = Agent::start(bench, &config).finish(&[("one", "s3cret-value")]);
    assert_eq!((result.code, code), (Some(ErrorCode::SecretMissing), 3), "{result:?}");
    assert!(result.error.unwrap().contains("two"));
    assert!(!follower.has("ran"));
}

#[test]
fn hyp_19_one_command_builds_and_pushes_a_builder_image() {
    let Some(peers) = Peers::find(&[&BUILDERS[..], &["crane"]].concat()) else { return };
    let (bench, registry) = (bench(), Registry::start());
    context(&bench.path("builder"));
    let lines = "FROM scratch\nCOPY busybox /usr/bin/ocikit\nENTRYPOINT [\"/usr/bin/ocikit\", \"agent\"]\n";
    bench.write("builder/Dockerfile", lines);
    let name = format!("{}/hypeman/builder:1", registry.name());
    let line = ["build", "--no-cache-directory", "builder", "--tag", &name, "--push", "-o", "oci:layout:1"];
    let digest = bench.ok(&line);
    assert_eq!(peers.ok(&format!("crane digest --insecure {name}")), digest);
    assert_eq!(bench.ok(&["digest", "oci:layout:1"]), digest);
    let manifest = json(&peers.ok(&format!("crane manifest --insecure {name}")));
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
}

#[test]
fn the_cache_of_a_scope_is_used_by_the_next_machine() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let _guard = one_at_a_time();
    let registry = Registry::start();
    for (round, state) in ["DONE", "CACHED"].into_iter().enumerate() {
        let bench = bench();
        shell(&bench, "app", &["echo ran"]);
        let mut config = config(&registry.name());
        config["cache_scope"] = json!("team-a");
        config["job_id"] = json!(format!("job{round}"));
        let (result, follower, _) = Agent::start(bench, &config).finish(&[]);
        assert!(result.success, "{result:?}");
        let lines = follower.lines.lock().unwrap();
        let is_run = |line: &&LogLine| line.step.as_ref().is_some_and(|step| step.contains("RUN")) && line.log == state;
        assert!(lines.iter().any(|line| is_run(&line)), "{round}: {lines:?}");
    }
}

#[test]
fn an_interrupted_agent_leaves_nothing() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let _guard = one_at_a_time();
    let bench = bench();
    shell(&bench, "app", &["echo started; /busybox sleep 600"]);
    let agent = Agent::start(bench, &config(&Registry::start().name()));
    let host = agent.host();
    runtime().block_on(async {
        let follower = Follower::default();
        tokio::select! {
            result = host.run(&follower) => panic!("the build ended: {result:?}"),
            () = follower.wait_for("started") => {}
        }
    });
    std::process::Command::new("kill").args(["-INT", &agent.child.id().to_string()]).status().unwrap();
    assert_eq!(agent.end(), 130);
}
