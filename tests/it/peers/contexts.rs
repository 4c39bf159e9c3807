//! What `build` builds from: archives on standard input, URLs, and projects without a Dockerfile.

use std::fs;
use std::process::{Command, Stdio};

use ocikit_tests::{Bench, Daemon, Outcome, Peers, Tar, free_port};

use super::build::{BUILDERS, context};
use crate::bench;
use crate::stub_server::{StubServer, answer};

fn build(bench: &Bench, arguments: &[&str], input: &[u8]) -> Outcome {
    bench.ocikit_with_input(&[&["build", "--no-cache-directory"], arguments].concat(), input)
}

/// Returns a tar of a directory as another program writes it.
fn tar_of(bench: &Bench, directory: &str, flags: &[&str]) -> Vec<u8> {
    let mut command = Command::new("tar");
    command.args(["-c", "-C"]).arg(bench.path(directory)).args(flags).arg(".");
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

#[test]
fn a_tar_on_standard_input_is_a_context() {
    let Some(_peers) = Peers::find(&[&BUILDERS[..], &["tar", "gzip", "xz", "zstd"]].concat()) else { return };
    let bench = bench();
    context(&bench.path("app"));
    fs::create_dir(bench.path("app/docker")).unwrap();
    bench.write("app/docker/other", "FROM scratch\nCOPY file /other\n");
    std::os::unix::fs::symlink("other", bench.path("app/docker/link")).unwrap();
    let temporary = bench.path("temporary");
    fs::create_dir(&temporary).unwrap();
    let bench = bench.with("TMPDIR", &temporary.display().to_string());
    for (flags, arguments, expected) in [
        (&[][..], &[][..], "built"),
        (&["--gzip"], &["-f", "docker/other"], "other"),
        (&["--xz"], &["-f", "./docker/link"], "other"),
        (&["--zstd"], &[], "built"),
        // Owners of another machine, and the form of `git archive`.
        (&["--owner=12345", "--group=12345", "--format=posix"], &[], "built"),
    ] {
        let input = tar_of(&bench, "app", flags);
        let outcome = build(&bench, &[&["-", "-o", "app.tar"], arguments].concat(), &input);
        assert_eq!(outcome.code, 0, "{flags:?}: {outcome}");
        let listed = bench.ok(&["ls", "--long", "app.tar"]);
        assert!(listed.contains(expected) && !listed.contains("12345"), "{listed}");
        let left: Vec<_> = fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_tar_that_leads_out_of_the_context_is_refused() {
    let Some(_peers) = Peers::find(&BUILDERS) else { return };
    let bench = bench();
    let good = || Tar::new().file("Dockerfile", b"FROM scratch\nWORKDIR /x\n");
    let steals = Tar::new().symlink("Dockerfile", "/etc/passwd");
    for (input, arguments, code) in [
        (good().file("../x", b"").finish(), &[][..], 3),
        (good().symlink("x", "/etc").finish(), &[], 3),
        (good().entry(b'3', "null", "", b"").finish(), &[], 3),
        (steals.finish(), &[], 3),
        (good().finish(), &["-f", "../../etc/passwd"], 2),
        (good().finish(), &["-f", "missing"], 3),
        (good().finish()[..520].to_vec(), &[], 3),
        (Vec::new(), &[], 3),
    ] {
        let outcome = build(&bench, &[&["-", "-o", "app.tar"], arguments].concat(), &input);
        assert_eq!(outcome.code, code, "{outcome}");
        assert!(!outcome.stderr.contains("root:"), "{outcome}");
    }
    assert_eq!(bench.names(), Vec::<String>::new());
}

#[test]
fn remote_contexts_are_handed_on() {
    let Some(peers) = Peers::find(&[&BUILDERS[..], &["git"]].concat()) else { return };
    let bench = bench();
    context(&bench.path("app"));
    let archive = StubServer::start(vec![answer("200 OK", &tar_of(&bench, "app", &[]))]);
    let url = format!("http://{}/app.tar", archive.address);
    let outcome = build(&bench, &[&url, "-o", "http.tar"], b"");
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(bench.ok(&["ls", "http.tar"]).contains("built"));

    let git = |line: &str| {
        let mut command = peers.command("git");
        command.args(["-c", "user.name=a", "-c", "user.email=a@example.test"]).args(line.split_whitespace());
        assert!(command.current_dir(bench.path("app")).status().unwrap().success(), "{line}");
    };
    git("init -q -b main .");
    fs::create_dir(bench.path("app/sub")).unwrap();
    bench.write("app/sub/Dockerfile", "FROM scratch\nCOPY here /from-git\n");
    bench.write("app/sub/here", "");
    git("add .");
    git("commit -q -m one");
    let port = free_port();
    let mut command = peers.command("git");
    command.args(["daemon", "--export-all", "--listen=127.0.0.1", "--reuseaddr", &format!("--port={port}")]);
    command.arg(format!("--base-path={}", bench.path("app").parent().unwrap().display()));
    let mut daemon = Daemon::start(command, &peers.path("git.log"));
    daemon.wait(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let url = format!("git://127.0.0.1:{port}/app/.git#main:sub");
    let outcome = build(&bench, &[&url, "-o", "git.tar"], b"");
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(bench.ok(&["ls", "git.tar"]).contains("from-git"));
    let own = build(&bench, &[&url, "-f", "-", "-o", "own.tar"], b"FROM scratch\nCOPY here /own\n");
    assert_eq!(own.code, 0, "{own}");
    assert!(bench.ok(&["ls", "own.tar"]).contains("own"));
    daemon.stop();
}

/// A base image for Node.js, as far as a test needs it: its programs record how they were called.
fn node_base(bench: &Bench, reference: &str) {
    context(&bench.path("base"));
    let tool = "#!/bin/busybox sh\necho \"$0 $*\" >> /calls\n";
    for name in ["npm", "corepack", "pnpm", "yarn"] {
        fs::write(bench.path("base").join(name), tool).unwrap();
    }
    let run = "RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n";
    let dockerfile = format!(
        "FROM scratch\nCOPY busybox /bin/busybox\n{run}COPY --chmod=0755 npm corepack pnpm yarn /bin/\nENV PATH=/bin\n"
    );
    bench.write("base/Dockerfile", dockerfile);
    let outcome = build(bench, &["base", "--tag", reference, "--push"], b"");
    assert_eq!(outcome.code, 0, "{outcome}");
}

#[test]
fn a_project_without_a_dockerfile_is_built() {
    let Some(peers) = Peers::find(&[&BUILDERS[..], &["registry", "tar"]].concat()) else { return };
    let (bench, registry) = (bench(), peers.distribution("registry"));
    let base = format!("{}/node:20", registry.address);
    node_base(&bench, &base);
    let digest = bench.ok(&["digest", &base]);
    let base = format!("{}/node@{digest}", registry.address);
    let app = bench.path("app");
    fs::create_dir_all(app.join("node_modules/left")).unwrap();
    for (name, text) in [("package.json", "{}"), ("pnpm-lock.yaml", ""), ("index.js", ""), ("node_modules/left/x", "")]
    {
        fs::write(app.join(name), text).unwrap();
    }
    let line = ["app", "--runtime", "nodejs20", "--base", &base];
    let printed = bench.ok(&[&["build", "--print-dockerfile"], &line[..]].concat());
    assert!(printed.starts_with(&format!("FROM {base}\n\nWORKDIR /app\n")), "{printed}");
    let outcome = build(&bench, &[&line[..], &["-o", "app.tar"]].concat(), b"");
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(outcome.stderr.contains("generated a Dockerfile for nodejs20"), "{outcome}");
    let calls = bench.ok(&["cat", "app.tar", "/calls"]);
    assert_eq!(calls, "/bin/corepack enable\n/bin/pnpm install --frozen-lockfile");
    let files = bench.ok(&["ls", "app.tar"]);
    assert!(files.contains("app/index.js") && !files.contains("node_modules"), "{files}");
    let config = bench.json(&["config", "app.tar"]);
    assert_eq!(config["config"]["Cmd"], serde_json::json!(["node", "index.js"]));

    // The same project from standard input, with its runtime found by its files.
    let input = tar_of(&bench, "app", &[]);
    let outcome = build(&bench, &["-", "--runtime", "auto", "--base", &base, "-o", "again.tar"], &input);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_eq!(bench.ok(&["cat", "again.tar", "/calls"]), calls);

    // A Dockerfile of the project wins over `auto`, and loses against a named runtime.
    fs::write(app.join("Dockerfile"), "FROM scratch\nWORKDIR /own\n").unwrap();
    let own = build(&bench, &["app", "--runtime", "auto", "-o", "own.tar"], b"");
    assert_eq!(own.code, 0, "{own}");
    assert!(bench.ok(&["ls", "own.tar"]).contains("own"));
    let named = build(&bench, &[&line[..], &["-o", "named.tar"]].concat(), b"");
    assert!(named.code == 0 && named.stderr.contains("is not used"), "{named}");
    assert!(bench.ok(&["ls", "named.tar"]).contains("app/index.js"));
}

#[test]
fn a_dockerfile_that_could_not_build_is_not_generated() {
    let bench = bench();
    fs::create_dir(bench.path("app")).unwrap();
    for (arguments, code, expected) in [
        (&["app", "--runtime", "auto"][..], 3, "has none of package.json"),
        (&["app", "--runtime", "python312"], 3, "poetry.lock"),
        (&["app", "--runtime", "cobol"], 2, "nodejs, python, go, ruby, rust, java, php"),
        (&["https://example.com/a.git", "--runtime", "auto"], 2, "is not a directory"),
        (&["app", "--runtime", "auto", "--file", "x"], 2, "--file"),
        (&["app", "--base", "x"], 2, "--runtime"),
    ] {
        let outcome = build(&bench, &[&["--print-dockerfile"], arguments].concat(), b"");
        assert_eq!(outcome.code, code, "{outcome}");
        assert!(outcome.stderr.contains(expected), "{outcome}");
    }
}
