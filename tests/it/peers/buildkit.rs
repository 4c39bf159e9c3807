//! Which BuildKit `build` uses: installed, running at an address, or started without root.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ocikit_spec::Digest;
use ocikit_tests::{Bench, CertificateAuthority, Daemon, Outcome, Peers, free_port, run, single};
use serde_json::Value;

use super::build::{BUILDERS, context};
use crate::bench;

/// Returns the path of a program.
fn program(peers: &Peers, name: &str) -> PathBuf {
    peers.command(name).get_program().into()
}

/// Creates a directory with symlinks to programs, as a search path.
fn search_path(peers: &Peers, name: &str, programs: &[&str]) -> String {
    let directory = peers.path(name);
    fs::create_dir_all(&directory).unwrap();
    for name in programs {
        symlink(program(peers, name), directory.join(name)).unwrap();
    }
    directory.display().to_string()
}

/// What every search path has: the shell that ends the programs of a build.
const SHELL: [&str; 3] = ["sh", "rm", "sleep"];

/// Pushes an image with the programs of BuildKit for two platforms. Returns its reference with the digest of the index.
fn published(peers: &Peers, registry: &Daemon) -> String {
    let bench = bench();
    let programs = bench.path("app/root/usr/bin");
    fs::create_dir_all(&programs).unwrap();
    for name in ["buildctl", "buildkitd", "runc"] {
        fs::copy(program(peers, name), programs.join(name)).unwrap();
    }
    // The runtime of the image moby/buildkit has another name; a symlink leads to it.
    symlink("/usr/bin/runc", programs.join("buildkit-runc")).unwrap();
    bench.write("app/Dockerfile", "FROM scratch\nCOPY root /\n");
    let tag = format!("{}/moby/buildkit:1", registry.address);
    let platforms = "linux/amd64,linux/arm64";
    let line = ["build", "app", "--no-cache-directory", "--platform", platforms, "--tag", &tag, "--push"];
    let digest = bench.ok(&[&line[..], &["--compression", "zstd:1"]].concat());
    format!("{tag}@{digest}")
}

/// Returns a bench without any BuildKit on its search path.
fn bare(peers: &Peers) -> Bench {
    bench().with("PATH", &search_path(peers, "bare", &SHELL))
}

fn installed(bench: &Bench) -> Vec<Value> {
    let list = bench.json(&["buildkit", "list", "--json"]);
    list["installations"].as_array().unwrap().clone()
}

/// Returns what the directory of installations holds besides them.
fn remains(bench: &Bench) -> Vec<String> {
    let entries = fs::read_dir(bench.path("home/.cache/ocikit/buildkit-programs")).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "lock" && !name.starts_with("sha256-")).collect()
}

#[test]
fn an_installed_buildkit_builds() {
    let Some(peers) = Peers::find(&[&BUILDERS[..], &["registry", "olareg"]].concat()) else { return };
    for (kind, mut registry) in peers.registries() {
        let reference = published(&peers, &registry);
        let path = peers.path(kind);
        fs::create_dir(&path).unwrap();
        let bench = bench().with("PATH", &search_path(&peers, &format!("{kind}/bare"), &SHELL));
        let status = bench.ocikit(&["buildkit", "status"]);
        assert_eq!(status.code, 3, "{status}");
        assert!(status.stdout.contains("no BuildKit is installed in"), "{status}");

        let programs = bench.ok(&["buildkit", "install", "--from", &reference]);
        assert!(Path::new(&programs).join("buildkitd").is_file(), "{programs}");
        let status = bench.ocikit(&["buildkit", "status"]);
        assert!(status.code == 0 && status.stdout.contains(": used"), "{status}");
        let list = installed(&bench);
        assert_eq!((list.len(), list[0]["location"].as_str()), (1, Some(reference.as_str())), "{list:?}");
        assert!(list[0]["version"].as_str().is_some_and(|version| version.starts_with('v')), "{list:?}");
        assert_eq!(list[0]["platform"], "linux/amd64");

        context(&bench.path("app"));
        let built = bench.ocikit(&["build", "app", "-o", "app.tar"]);
        assert_eq!(built.code, 0, "{built}");
        assert!(built.stderr.contains("| seen") && !built.stderr.contains("without a cache"), "{built}");
        assert!(bench.ok(&["ls", "app.tar"]).contains("built"));
        bench.ok(&["build", "--check", "app"]);

        // Nothing is downloaded again.
        registry.stop();
        let again = bench.ocikit(&["buildkit", "install", "--from", &reference]);
        assert!(again.code == 0 && again.stderr.contains("installed already"), "{again}");
        assert!(remains(&bench).is_empty(), "{:?}", remains(&bench));

        let digest = list[0]["digest"].as_str().unwrap();
        assert_eq!(bench.ocikit(&["buildkit", "uninstall", "000000000000"]).code, 3);
        bench.ok(&["buildkit", "uninstall", &digest["sha256:".len()..][..12]]);
        assert!(installed(&bench).is_empty() && remains(&bench).is_empty());
        assert!(!Path::new(&programs).exists());
    }
}

#[test]
fn an_installation_is_complete_or_absent() {
    let Some(peers) = Peers::find(&[&BUILDERS[..], &["registry"]].concat()) else { return };
    let mut registry = peers.distribution("registry");
    let reference = published(&peers, &registry);
    let bench = bare(&peers);
    let fails = |bench: &Bench, reference: &str, code: i32, expected: &str| {
        let outcome = bench.ocikit(&["buildkit", "install", "--retries", "0", "--from", reference]);
        assert_eq!(outcome.code, code, "{outcome}");
        assert!(outcome.stderr.contains(expected), "{expected}: {outcome}");
        assert!(installed(bench).is_empty() && remains(bench).is_empty(), "{:?}", remains(bench));
    };
    let (tag, _) = reference.split_once('@').unwrap();
    fails(&bench, tag, 2, "the digest is missing");
    fails(&bench, &format!("{tag}@{}", Digest::sha256_of(b"other")), 3, "");
    // An image without the programs.
    bench.ok(&["copy", "-q", &single(), &format!("{}/other:1", registry.address)]);
    let other = bench.ok(&["digest", &format!("{}/other:1", registry.address)]);
    fails(&bench, &format!("{}/other@{other}", registry.address), 3, "it has no program `buildctl`");
    // An image for a machine whose programs do not run here.
    let platform = ["buildkit", "install", "--platform", "linux/s390x", "--from", &reference];
    assert_eq!(bench.ocikit(&platform).code, 3);

    // Several at the same time: one installs, the others wait and find it.
    let children: Vec<_> = (0..3)
        .map(|_| {
            let mut command = bench.command(&["buildkit", "install", "--from", &reference]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(installed(&bench).len() == 1 && remains(&bench).is_empty());
    bench.ok(&["buildkit", "uninstall", "--all"]);

    killed(&bench, &reference);
    full_disk(&peers, &reference);

    // A registry that serves other bytes than those of the digest.
    let storage = peers.path("registry-storage/docker/registry/v2/blobs/sha256");
    for directory in fs::read_dir(storage).unwrap().flat_map(|entry| fs::read_dir(entry.unwrap().path()).unwrap()) {
        let data = directory.unwrap().path().join("data");
        let mut bytes = fs::read(&data).unwrap();
        if bytes.len() > 1 << 20 {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&data, bytes).unwrap();
        }
    }
    fails(&bench, &reference, 5, "sha256:");
    registry.stop();
    fails(&bench, &reference, 6, "");
}

/// A process that is killed while it installs leaves nothing that is used, and the next one removes what it left.
fn killed(bench: &Bench, reference: &str) {
    let begun = std::time::Instant::now();
    loop {
        let mut command = bench.command(&["buildkit", "install", "--from", reference]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while remains(bench).is_empty() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if !remains(bench).is_empty() {
            break;
        }
        // It was finished before it was killed.
        bench.ok(&["buildkit", "uninstall", "--all"]);
        assert!(begun.elapsed().as_secs() < 60, "it is never seen while it installs");
    }
    assert!(installed(bench).is_empty());
    bench.ok(&["buildkit", "install", "--from", reference]);
    assert!(installed(bench).len() == 1 && remains(bench).is_empty(), "{:?}", remains(bench));
    bench.ok(&["buildkit", "uninstall", "--all"]);
}

fn full_disk(peers: &Peers, reference: &str) {
    let small = peers.path("small");
    fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=20m", "none"]).arg(&small).status();
    if !mounted.is_ok_and(|status| status.success()) {
        // Only root can mount.
        return;
    }
    let bench = bare_with_cache(peers, &small);
    let outcome = bench.ocikit(&["buildkit", "install", "--from", reference]);
    let left: Vec<_> =
        fs::read_dir(small.join("ocikit/buildkit-programs")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    Command::new("umount").arg(&small).status().unwrap();
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("space"), "{outcome}");
    assert_eq!(left, ["lock"], "{left:?}");
}

fn bare_with_cache(peers: &Peers, cache: &Path) -> Bench {
    let path = peers.path("bare").display().to_string();
    bench().with("PATH", &path).with("XDG_CACHE_HOME", &cache.display().to_string())
}

/// Starts `buildkitd` at an address.
pub(super) fn buildkitd(peers: &Peers, address: &str, more: &[String]) -> Daemon {
    let mut command = peers.command("buildkitd");
    command.arg("--root").arg(peers.path("bk")).args(["--addr", address, "--oci-worker-snapshotter=native"]);
    command.arg(format!("--otel-socket-path={}", peers.path("otel.sock").display())).args(more);
    Daemon::start(command, &peers.path("bk.log"))
}

fn write_executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// Every scheme of `buildctl`. For those that start another program to reach the daemon, that program is a script that records its
/// arguments and connects to a daemon of this test.
#[test]
fn every_scheme_of_buildctl_reaches_a_daemon() {
    let Some(peers) = Peers::find(&BUILDERS) else { return };
    let address = format!("unix://{}", peers.path("bk.sock").display());
    let mut daemon = buildkitd(&peers, &address, &[]);
    daemon.wait(|| peers.run(&format!("buildctl --addr {address} debug workers")).code == 0);
    let scripts = peers.path("scripts");
    fs::create_dir(&scripts).unwrap();
    let calls = peers.path("calls");
    for name in ["docker", "podman", "nerdctl", "kubectl", "ssh"] {
        let line = format!(
            "#!/bin/sh\necho {name} \"$@\" >> {}\nexec buildctl --addr {address} dial-stdio\n",
            calls.display()
        );
        write_executable(&scripts.join(name), &line);
    }
    let path = format!("{}:{}", scripts.display(), std::env::var("PATH").unwrap());
    let bench = bench().with("PATH", &path);
    context(&bench.path("app"));
    for (given, call) in [
        (address.as_str(), ""),
        ("docker-container://name", "docker exec -i name buildctl dial-stdio"),
        ("podman-container://name", "podman exec -i name buildctl dial-stdio"),
        ("nerdctl-container://name", "nerdctl exec -i name buildctl dial-stdio"),
        ("kube-pod://pod?namespace=ci", "kubectl --context= --namespace=ci exec"),
        ("ssh://user@host:2222", "user"),
    ] {
        let _ = fs::remove_file(&calls);
        let outcome = bench.ocikit(&["build", "--no-cache-directory", "--addr", given, "app", "-o", "app.tar"]);
        assert_eq!(outcome.code, 0, "{given}: {outcome}");
        let called = fs::read_to_string(&calls).unwrap_or_default();
        assert!(called.contains(call), "{given}: {called}");
        let status = bench.ocikit(&["buildkit", "status", "--addr", given]);
        assert!(
            status.stdout.lines().next().is_some_and(|line| line.starts_with(given) && line.ends_with(": used")),
            "{status}"
        );
    }
    daemon.stop();
}

#[test]
fn tcp_with_tls_needs_the_certificates() {
    let Some(peers) = Peers::find(&BUILDERS) else { return };
    let (authority, other) = (CertificateAuthority::new(), CertificateAuthority::new());
    let (server, client, foreign) = (authority.server_identity(), authority.client(), other.client());
    let write = |name: &str, text: &str| {
        fs::create_dir_all(peers.path("tls")).unwrap();
        fs::write(peers.path("tls").join(name), text).unwrap();
        peers.path("tls").join(name).display().to_string()
    };
    let ca = write("ca.pem", &authority.pem());
    let (certificate, key) = (write("server.pem", &server.certificate), write("server.key", &server.key));
    let address = format!("tcp://127.0.0.1:{}", free_port());
    let flags = [format!("--tlscacert={ca}"), format!("--tlscert={certificate}"), format!("--tlskey={key}")];
    let mut daemon = buildkitd(&peers, &address, &flags);
    let (certificate, key) = (write("cert.pem", &client.certificate), write("key.pem", &client.key));
    let trusted = format!("buildctl --addr {address} --tlscacert {ca} --tlscert {certificate} --tlskey {key}");
    daemon.wait(|| peers.run(&format!("{trusted} debug workers")).code == 0);

    let bench = bench();
    context(&bench.path("app"));
    let build = |more: &[&str]| -> Outcome {
        let line = ["build", "--no-cache-directory", "--addr", &address, "app", "-o", "app.tar", "--time-limit", "60"];
        bench.ocikit(&[&line[..], more].concat())
    };
    let directory = peers.path("tls").display().to_string();
    for flags in [
        &["--tlscacert", &ca, "--tlscert", &certificate, "--tlskey", &key][..],
        &["--tlsdir", &directory],
        &["--tlsdir", &directory, "--tlsservername", "localhost"],
    ] {
        let outcome = build(flags);
        assert_eq!(outcome.code, 0, "{flags:?}: {outcome}");
        fs::remove_file(bench.path("app.tar")).unwrap();
    }
    let (certificate, key) = (write("foreign.pem", &foreign.certificate), write("foreign.key", &foreign.key));
    let name = ["--tlsdir", &directory, "--tlsservername", "other.example"];
    for flags in [&["--tlscacert", &ca, "--tlscert", &certificate, "--tlskey", &key][..], &name] {
        let status = bench.ocikit(&[&["buildkit", "status", "--addr", &address][..], flags].concat());
        assert!(status.code == 3 && status.stdout.contains("cannot be used: "), "{status}");
    }
    assert!(!bench.path("app.tar").exists());
    daemon.stop();
}

/// A user of the test, with IDs for a user namespace. The files that say so exist in a mount namespace only.
struct OrdinaryUser {
    directory: PathBuf,
}

/// The ID of the user, which no user of the machine has.
const USER: u32 = 54321;

impl OrdinaryUser {
    fn new(peers: &Peers, bench: &Bench, programs: &[&str]) -> OrdinaryUser {
        let directory = peers.path("user");
        for name in ["bin", "home", "tmp"] {
            fs::create_dir_all(directory.join(name)).unwrap();
        }
        for name in programs {
            fs::copy(program(peers, name), directory.join("bin").join(name)).unwrap();
        }
        fs::copy(bench.command::<&str>(&[]).get_program(), directory.join("bin/ocikit")).unwrap();
        context(&directory.join("home/app"));
        for (file, line) in [
            ("passwd", format!("tester:x:{USER}:{USER}::{}:/bin/sh", directory.join("home").display())),
            ("group", format!("tester:x:{USER}:")),
            ("subuid", "tester:500000:65536".to_owned()),
            ("subgid", "tester:500000:65536".to_owned()),
        ] {
            let known = fs::read_to_string(Path::new("/etc").join(file)).unwrap_or_default();
            fs::write(directory.join(file), format!("{known}\n{line}\n")).unwrap();
        }
        // Every directory of the test can be entered; its own files belong to the user.
        let mode = |path: &Path, mode| fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        mode(directory.parent().unwrap(), 0o755);
        let own = [directory.join("home"), directory.join("tmp")];
        let owner = format!("{USER}:{USER}");
        assert!(Command::new("chown").args(["-R", &owner]).args(own).status().unwrap().success());
        OrdinaryUser { directory }
    }

    /// Runs a shell line as the user.
    fn run(&self, path: &str, line: &str) -> Outcome {
        let directory = self.directory.display();
        let mounts: String = ["passwd", "group", "subuid", "subgid"]
            .iter()
            .map(|file| format!("touch /etc/{file}; mount --bind {directory}/{file} /etc/{file}; "))
            .collect();
        let user = format!("setpriv --reuid {USER} --regid {USER} --clear-groups");
        let environment = format!("env -i HOME={directory}/home TMPDIR={directory}/tmp PATH={path}");
        let script = format!("set -e; {mounts} cd {directory}/home; exec {user} {environment} sh -c '{line}'");
        run(Command::new("unshare").args(["--mount", "--propagation", "private", "sh", "-c", &script]), &[])
    }
}

#[test]
fn an_ordinary_user_builds_without_root() {
    let programs = [&BUILDERS[..], &["rootlesskit", "newuidmap", "newgidmap", "setpriv", "unshare"]].concat();
    let Some(peers) = Peers::find(&programs) else { return };
    if !fs::metadata("/proc/self").is_ok_and(|found| std::os::unix::fs::MetadataExt::uid(&found) == 0) {
        // Only root can become another user.
        return;
    }
    let user = OrdinaryUser::new(&peers, &bench(), &["buildctl", "buildkitd"]);
    let path = format!("{}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", user.directory.display());
    // Directories of another user of the container must be removed, too.
    let steps = "RUN [\"/bin/busybox\", \"sh\", \"-c\", \"/bin/busybox mkdir -p /own/dir; /bin/busybox chown -R 1000:1000 /own; /bin/busybox id\"]\n";
    let dockerfile = user.directory.join("home/app/Dockerfile");
    let text = fs::read_to_string(&dockerfile).unwrap();
    fs::write(&dockerfile, format!("{text}{steps}")).unwrap();
    let built = user.run(&path, "id -u && ocikit buildkit status && ocikit build app -o app.tar");
    assert_eq!(built.code, 0, "{built}");
    assert!(built.stdout.starts_with(&USER.to_string()) && built.stdout.contains("buildkitd (rootless)"), "{built}");
    assert!(built.stderr.contains("uid=0"), "{built}");
    let listed = user.run(&path, "ocikit ls --long app.tar");
    assert!(listed.stdout.contains("own/dir") && listed.stdout.contains("1000"), "{listed}");
    let left: Vec<_> = fs::read_dir(user.directory.join("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");

    // A step that fails, and a build that is cancelled, leave nothing either.
    fs::write(&dockerfile, format!("{text}{steps}RUN [\"/bin/busybox\", \"sleep\", \"600\"]\n")).unwrap();
    let cancelled = user.run(&path, "ocikit build app -o app.tar --time-limit 20");
    assert_eq!(cancelled.code, 1, "{cancelled}");
    assert!(cancelled.stderr.contains("was cancelled"), "{cancelled}");
    let left: Vec<_> = fs::read_dir(user.directory.join("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");

    // What is missing is said before anything starts.
    for (missing, expected) in
        [(&["rootlesskit"][..], "cannot start `rootlesskit`"), (&["newuidmap"], "the program `newuidmap` is missing")]
    {
        let needed = ["buildctl", "buildkitd", "rootlesskit", "newuidmap", "newgidmap", "runc", "sh", "rm", "sleep"];
        let kept: Vec<_> = needed.into_iter().filter(|name| !missing.contains(name)).collect();
        let limited = user.directory.join(missing[0]);
        fs::create_dir(&limited).unwrap();
        for name in kept {
            let own = user.directory.join("bin").join(name);
            symlink(if own.exists() { own } else { program(&peers, name) }, limited.join(name)).unwrap();
        }
        symlink(user.directory.join("bin/ocikit"), limited.join("ocikit")).unwrap();
        let outcome = user.run(&limited.display().to_string(), "ocikit build app -o other.tar");
        assert_eq!(outcome.code, 3, "{outcome}");
        assert!(outcome.stderr.contains(expected) && outcome.stderr.contains("hint: "), "{outcome}");
    }
    fs::write(user.directory.join("subuid"), "").unwrap();
    let without = user.run(&path, "ocikit build app -o other.tar");
    assert!(without.code == 3 && without.stderr.contains("/etc/subuid has no user IDs for tester"), "{without}");
}

#[test]
fn the_log_of_a_daemon_that_fails_is_shown() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let bench = bench().with("BUILDKITD_FLAGS", "--no-such-flag");
    context(&bench.path("app"));
    let outcome = bench.ocikit(&["build", "--no-cache-directory", "app", "-o", "app.tar"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("| ") && outcome.stderr.contains("no-such-flag"), "{outcome}");
}
