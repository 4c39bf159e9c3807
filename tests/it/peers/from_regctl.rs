//! The rows of `docs/from-regctl.md`: each command of regctl beside the one of ocikit, with the same result.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use ocikit_tests::{Peers, Registry, multi, single};
use serde_json::Value;

use super::pages;
use super::rows::{Rows, json};
use crate::bench;

const PAGE: &str = include_str!("../../../docs/from-regctl.md");

fn rows() -> Option<Rows> {
    let peers = Peers::find(&["regctl", "olareg"])?;
    let registry = peers.olareg();
    let prepare = |rows: &Rows| drop(rows.regctl(&format!("registry set --tls disabled {}", rows.host())));
    Some(Rows::with(peers, registry, prepare, &[("a.txt", "a")]))
}

impl Rows {
    fn regctl(&self, line: &str) -> String {
        self.peer("regctl", line)
    }

    /// Runs a command that reads standard input.
    fn regctl_with_input(&self, line: &str, input: &[u8]) -> String {
        let mut command = self.peers.command("regctl");
        let child = command.args(line.split_whitespace()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{line}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// Returns what identifies each layer; Docker's format has no annotations.
fn contents_of(layers: &Value) -> Vec<String> {
    let layers = layers.as_array().unwrap().iter();
    layers.map(|layer| format!("{} {} {}", layer["digest"], layer["mediaType"], layer["size"])).collect()
}

fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn the_page_has_every_subcommand() {
    let Some(peers) = Peers::find(&["regctl"]) else { return };
    pages::has_every_subcommand(&peers, "regctl", "from-regctl.md");
    let help = peers.ok("regctl image mod --help");
    let flags = help.lines().skip_while(|line| *line != "Flags:").take_while(|line| !line.starts_with("Global"));
    let flags: Vec<_> = flags.filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--"))).collect();
    assert!(flags.len() > 25, "{flags:?}");
    for flag in flags.iter().filter(|flag| **flag != "--help") {
        assert!(PAGE.contains(&format!("{flag} ")) || PAGE.contains(&format!("{flag}`")), "the page lacks {flag}");
    }
}

#[test]
fn artifacts() {
    let Some(rows) = rows() else { return };
    let flags = "--artifact-type a/b --file a.txt --file-media-type text/plain --file-title --strip-dirs";
    rows.regctl(&format!("artifact put {flags} {}", rows.at("files:regctl")));
    rows.ours(&["artifact", "push", &rows.at("files:ours"), "a.txt:text/plain", "--artifact-type", "a/b"]);
    let layers = |name: &str| json(&rows.ours(&["manifest", "get", &rows.at(name)]))["layers"].clone();
    assert_eq!(layers("files:ours"), layers("files:regctl"));
    assert_eq!(rows.regctl(&format!("artifact get {}", rows.at("files:ours"))), "a");
    rows.ours(&["artifact", "pull", &rows.at("files:regctl"), "-o", "out"]);
    assert_eq!(rows.bench.read("out/a.txt"), "a");
    let subject = rows.at("app:1");
    rows.regctl(&format!("artifact put {flags} --subject {subject}"));
    rows.ours(&["attach", &subject, "a.txt:text/plain", "--artifact-type", "a/c"]);
    let listed = rows.regctl(&format!("artifact list {subject}"));
    let ours = json(&rows.ours(&["referrers", "--json", &subject]));
    let ours: Vec<_> =
        ours["referrers"].as_array().unwrap().iter().map(|it| it["digest"].as_str().unwrap().to_owned()).collect();
    assert!(ours.len() == 2 && ours.iter().all(|digest| listed.contains(digest)), "{ours:?} {listed}");
    let (theirs, tree) = (rows.regctl(&format!("artifact tree {subject}")), rows.ours(&["tree", &subject]));
    assert!(ours.iter().all(|digest| theirs.contains(digest) && tree.contains(digest)), "{theirs}\n{tree}");
}

#[test]
fn blobs() {
    let Some(rows) = rows() else { return };
    let (repository, layer) = (rows.at("app"), rows.layer());
    let blob = format!("{repository}@{layer}");
    rows.ours(&["blob", "get", &blob, "-o", "ours"]);
    let bytes = fs::read(rows.bench.path("ours")).unwrap();
    let output = rows.peers.command("regctl").args(["blob", "get", &repository, &layer]).output().unwrap();
    assert_eq!(output.stdout, bytes);
    let head = rows.regctl(&format!("blob head {repository} {layer}"));
    let size = json(&rows.ours(&["blob", "head", "--json", &blob]))["size"].to_string();
    assert!(head.contains(&format!("Content-Length: {size}")), "{head}");
    assert_eq!(
        rows.regctl_with_input(&format!("blob put {repository}"), b"a"),
        rows.ours(&["blob", "put", "a.txt", &repository])
    );
    let pushed = format!("{repository}@{}", rows.ours(&["blob", "put", "a.txt", &repository]));
    rows.ours(&["blob", "delete", &pushed]);
    let digest = pushed.split_once('@').unwrap().1;
    assert_ne!(rows.peers.run(&format!("regctl blob head {repository} {digest}")).code, 0);
    rows.ours(&["blob", "put", "a.txt", &repository]);
    rows.regctl(&format!("blob delete {repository} {digest}"));
    assert_eq!(rows.bench.ocikit(&["blob", "head", &pushed]).code, 3);
    // One pipe copies a blob between any two places.
    rows.regctl(&format!("blob copy {repository} {} {layer}", rows.at("regctl")));
    rows.bench.ocikit_with_input(&["blob", "put", "-", &rows.at("ours")], &bytes).ok();
    for name in ["regctl", "ours"] {
        rows.ours(&["blob", "head", &rows.at(&format!("{name}@{layer}"))]);
    }
}

#[test]
fn files_and_differences() {
    let Some(rows) = rows() else { return };
    let image = rows.at("app:1");
    let listed = rows.ours(&["ls", "--platform", "linux/amd64", &image]);
    let file = listed.lines().find(|name| name.starts_with("/etc/") && !name.ends_with('/')).unwrap();
    let ours = rows.ours(&["cat", "--platform", "linux/amd64", &image, file]);
    assert_eq!(rows.regctl(&format!("image get-file --platform linux/amd64 {image} {file}")), ours);
    rows.ours(&["annotate", "-q", "-o", &rows.at("app:2"), &image, "k=v"]);
    let (two, platform) = (rows.at("app:2"), "linux/amd64");
    let theirs = rows.regctl(&format!("manifest diff {image} {two}"));
    let ours = rows.bench.ocikit(&["diff", &image, &two]);
    assert!(theirs.contains("\"k\": \"v\"") && ours.stdout.contains('k'), "{theirs}\n{ours}");
    assert_eq!(
        rows.regctl(&format!("image get-file --platform {platform} {two} {file}")),
        rows.ours(&["cat", "--platform", platform, &two, file])
    );
}

#[test]
fn images() {
    let Some(rows) = rows() else { return };
    let image = rows.at("app:1");
    rows.regctl(&format!("image copy {image} {}", rows.at("regctl:1")));
    rows.ours(&["copy", "-q", &image, &rows.at("ours:1")]);
    assert_eq!(rows.digest("ours:1"), rows.digest("regctl:1"));
    assert_eq!(rows.regctl(&format!("image digest {image}")), rows.digest("app:1"));
    let arm = rows.ours(&["digest", "--platform", "linux/arm64", &image]);
    assert_eq!(rows.regctl(&format!("image digest --platform linux/arm64 {image}")), arm);
    rows.regctl(&format!("image export {image} image.tar"));
    rows.ours(&["pull", "-q", &image, "-o", "image.tar"]);
    let theirs = rows.peers.path("image.tar").display().to_string();
    assert_eq!(rows.ours(&["digest", &theirs]), rows.ours(&["digest", "image.tar"]));
    let ours = rows.bench.path("image.tar").display().to_string();
    rows.regctl(&format!("image import {} {ours}", rows.at("regctl:2")));
    rows.ours(&["push", "-q", &theirs, &rows.at("ours:2")]);
    assert_eq!((rows.digest("regctl:2"), rows.digest("ours:2")), (rows.digest("app:1"), rows.digest("app:1")));
    let theirs = json(&rows.regctl(&format!("image inspect --platform linux/arm64 {image}")));
    let config = json(&rows.ours(&["config", "--platform", "linux/arm64", &image]));
    assert_eq!((&theirs["architecture"], &theirs["rootfs"]), (&config["architecture"], &config["rootfs"]));
    assert_eq!(
        rows.regctl(&format!("image manifest --format raw-body {image}")),
        rows.ours(&["manifest", "get", &image])
    );
    let digest = rows.digest("app:1");
    rows.regctl(&format!("image delete {}", rows.at(&format!("regctl@{digest}"))));
    rows.ours(&["delete", &rows.at(&format!("ours@{digest}"))]);
    for name in ["regctl:1", "ours:1"] {
        assert_eq!(rows.bench.ocikit(&["digest", &rows.at(name)]).code, 3, "{name}");
    }
    rows.regctl(&format!("image mod {image} --create {} --annotation [*]k=v", rows.at("app:regctl")));
    rows.ours(&["annotate", "-q", "-o", &rows.at("app:ours"), &image, "k=v"]);
    let annotated = |name: &str| {
        let manifest = rows.ours(&["manifest", "get", "--platform", "linux/arm64", &rows.at(name)]);
        json(&manifest)["annotations"].clone()
    };
    assert_eq!(annotated("app:ours"), annotated("app:regctl"));
}

#[test]
fn settings_of_a_container() {
    let Some(rows) = rows() else { return };
    let image = rows.at("app:1");
    let flags = "--label team=web --env MODE=prod --config-entrypoint [\"/run\"] --config-cmd [\"-v\"] --expose-add 9000/tcp \
                 --volume-add /cache";
    rows.regctl(&format!("image mod {image} --create {} {flags}", rows.at("app:regctl")));
    rows.ours(&[
        "edit",
        "-q",
        "-o",
        &rows.at("app:ours"),
        "--label",
        "team=web",
        "--env",
        "MODE=prod",
        "--entrypoint",
        "/run",
        "--cmd",
        "-v",
        "--port",
        "9000/tcp",
        "--volume",
        "/cache",
        &image,
    ]);
    let settings = |name: &str| {
        let config = json(&rows.ours(&["config", "--platform", "linux/arm64", &rows.at(name)]))["config"].clone();
        ["Labels", "Env", "Entrypoint", "Cmd", "ExposedPorts", "Volumes"].map(|key| config[key].clone())
    };
    assert_eq!(settings("app:ours"), settings("app:regctl"));
    let flags = "--label com.acme.tier= --env LANG= --expose-rm 8080/tcp --volume-rm /data";
    let ours = "edit --remove-label com.acme.tier --remove-env LANG --remove-port 8080/tcp --remove-volume /data";
    rows.change("app:1", flags, ours);
    assert_eq!(settings("app:ours"), settings("app:regctl"));
}

impl Rows {
    /// Changes `app:1` or another image with both programs, to `app:regctl` and `app:ours`.
    fn change(&self, name: &str, regctl: &str, ours: &str) {
        let name = self.at(name);
        self.regctl(&format!("image mod {name} --create {} {regctl}", self.at("app:regctl")));
        let output = self.at("app:ours");
        let mut words: Vec<_> = ours.split_whitespace().collect();
        words.splice(1..1, ["-q", "-o", &output, &name]);
        self.ours(&words);
    }

    /// Returns a document of an image, or of the one for linux/arm64 of an index.
    fn document(&self, command: &[&str], name: &str) -> Value {
        let root = json(&self.ours(&["manifest", "get", &self.at(name)]));
        let name = self.at(name);
        let platform = ["--platform", "linux/arm64"];
        let platform = if root.get("manifests").is_some() { &platform[..] } else { &[] };
        json(&self.ours(&[command, &[&name], platform].concat()))
    }

    fn manifest(&self, name: &str) -> Value {
        self.document(&["manifest", "get"], name)
    }

    fn config(&self, name: &str) -> Value {
        self.document(&["config"], name)
    }

    /// Checks that both results have these members of the manifest and of the config.
    fn same(&self, manifest: &[&str], config: &[&str]) {
        let (ours, theirs) = (self.manifest("app:ours"), self.manifest("app:regctl"));
        for member in manifest {
            match *member {
                "layers" => assert_eq!(contents_of(&ours[member]), contents_of(&theirs[member])),
                member => assert_eq!(ours[member], theirs[member], "{member}"),
            }
        }
        let (ours, theirs) = (self.config("app:ours"), self.config("app:regctl"));
        for member in config {
            assert_eq!(ours[member], theirs[member], "{member}");
        }
    }

    /// Returns the entries of the exported files of an image in the order of their names.
    fn files(&self, name: &str) -> Vec<String> {
        self.ours(&["export", "--platform", "linux/arm64", &self.at(name), "-o", "files.tar"]);
        let tar = self.bench.path("files.tar").display().to_string();
        sorted(&self.peers.ok(&format!("tar --full-time --numeric-owner -tvf {tar}")))
    }
}

#[test]
fn annotations_platforms_and_times() {
    let Some(rows) = rows() else { return };
    rows.change("app:1", "--label-to-annotation", "edit --label-to-annotation");
    rows.same(&["annotations"], &["config"]);
    rows.ours(&["annotate", "-q", "--on", "manifests", "-o", &rows.at("app:2"), &rows.at("app:1"), "team=web"]);
    rows.change("app:2", "--annotation-promote", "edit --promote team");
    let index = |name: &str| json(&rows.ours(&["manifest", "get", &rows.at(name)]))["annotations"]["team"].clone();
    assert_eq!((index("app:ours"), index("app:regctl")), ("web".into(), "web".into()));
    let (base, digest) = (rows.at("app:2"), rows.digest("app:2"));
    let annotation = "org.opencontainers.image.base";
    let ours = format!("annotate {annotation}.name={base} {annotation}.digest={digest}");
    rows.change("app:1", &format!("--annotation-base {base},{digest}"), &ours);
    rows.same(&["annotations"], &["config"]);
    rows.change("app:1", "--config-time set=2020-01-01T00:00:00Z", "edit --created 2020-01-01T00:00:00Z");
    rows.same(&["layers"], &["created", "config", "rootfs"]);
    rows.change("app:1", "--time set=2020-01-01T00:00:00Z", "normalize --all-times --time 2020-01-01T00:00:00Z");
    rows.same(&[], &["created", "config"]);
    assert_eq!(rows.files("app:ours"), rows.files("app:regctl"));
    rows.change("app:1", "--reproducible", "normalize");
    rows.same(&[], &["config"]);
    assert_eq!(rows.files("app:ours"), rows.files("app:regctl"));
    let single = single();
    rows.ours(&["push", "-q", &single, &rows.at("app:3")]);
    rows.change("app:3", "--config-platform linux/arm/v7", "edit --os linux --architecture arm --variant v7");
    rows.same(&["layers"], &["os", "architecture", "variant", "config", "rootfs"]);
}

#[test]
fn layers_and_formats() {
    let Some(rows) = rows() else { return };
    rows.peers.ok("tar -cf layer.tar a.txt");
    fs::copy(rows.peers.path("layer.tar"), rows.bench.path("layer.tar")).unwrap();
    rows.change("app:1", "--layer-add tar=layer.tar", "append layer.tar");
    rows.same(&[], &["config", "rootfs"]);
    rows.change("app:1", "--layer-compress zstd", "recompress --compression zstd");
    rows.same(&[], &["config", "rootfs", "history"]);
    let types = |name: &str| {
        let manifest = rows.manifest(name);
        manifest["layers"].as_array().unwrap().iter().map(|layer| layer["mediaType"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(types("app:ours"), types("app:regctl"));
    rows.change("app:1", "--to-docker", "convert --to docker");
    rows.same(&["mediaType", "layers", "config"], &["config", "rootfs", "history"]);
    rows.ours(&["copy", "-q", &rows.at("app:ours"), &rows.at("app:docker")]);
    rows.change("app:docker", "--to-oci", "convert --to oci");
    rows.same(&["mediaType", "layers", "config"], &["config", "rootfs", "history"]);
    let single = single();
    rows.ours(&["push", "-q", &single, &rows.at("app:3")]);
    rows.change("app:3", "--layer-rm-index 0", "append --remove-layer 1");
    rows.same(&["layers"], &["config", "rootfs", "history"]);
}

#[test]
fn another_base_image() {
    let Some(rows) = rows() else { return };
    rows.bench.write("b.txt", "b");
    let (old, new, built) = (rows.at("base:1"), rows.at("base:2"), rows.at("app:built"));
    rows.ours(&["copy", "-q", &rows.at("app:1"), &old]);
    rows.ours(&["append", "-q", &old, "a.txt", "--destination", "/new/", "-o", &new]);
    rows.ours(&["append", "-q", &old, "b.txt", "--destination", "/own/", "-o", &built]);
    rows.change(
        "app:built",
        &format!("--rebase-ref {old},{new}"),
        &format!("rebase --keep-config --old-base {old} --new-base {new}"),
    );
    rows.same(&["layers"], &["config", "rootfs"]);
    // By the annotations, after the tag of the base has moved.
    let (name, digest) = ("org.opencontainers.image.base.name", "org.opencontainers.image.base.digest");
    let before = rows.digest("base:1");
    rows.ours(&["annotate", "-q", &built, &format!("{name}={old}"), &format!("{digest}={before}")]);
    rows.ours(&["tag", &new, "1"]);
    rows.change("app:built", "--rebase", "rebase --keep-config");
    rows.same(&["layers"], &["config", "rootfs"]);
    // regctl leaves the digest of the old base.
    let named = |name: &str| rows.manifest(name)["annotations"][digest].clone();
    assert_eq!((named("app:ours"), named("app:regctl")), (rows.digest("base:1").into(), before.into()));
}

#[test]
fn a_base_image_that_moved() {
    let Some(rows) = rows() else { return };
    let (base, digest) = (rows.at("app:1"), rows.digest("app:1"));
    let (name, at) = (
        format!("org.opencontainers.image.base.name={base}"),
        format!("org.opencontainers.image.base.digest={digest}"),
    );
    let built = rows.at("built:1");
    rows.ours(&["annotate", "-q", "-o", &built, &base, &name, &at]);
    let check = |code: i32| {
        assert_eq!(rows.bench.ocikit(&["inspect", "--check-base", &built]).code, code);
        let theirs = rows.peers.run(&format!("regctl image check-base {built}"));
        assert_eq!(theirs.code == 0, code == 0, "{theirs}");
    };
    check(0);
    rows.ours(&["annotate", "-q", &base, "new=1"]);
    check(5);
}

#[test]
fn indexes() {
    let Some(rows) = rows() else { return };
    let image = rows.at("app:1");
    let (ours, theirs) = (rows.at("app:ours"), rows.at("app:regctl"));
    let same = |what: &str| assert_eq!(rows.digest("app:ours"), rows.digest("app:regctl"), "{what}");
    rows.regctl(&format!("index create {theirs} --ref {image} --platform linux/amd64"));
    rows.ours(&["index", "create", &ours, &image, "--platform", "linux/amd64"]);
    same("create");
    rows.regctl(&format!("index add {theirs} --ref {image} --platform linux/arm64 --desc-annotation k=v"));
    rows.ours(&["index", "add", "-q", &ours, &image, "--platform", "linux/arm64", "--entry-annotation", "k=v"]);
    same("add");
    rows.regctl(&format!("index delete {theirs} --platform linux/amd64"));
    rows.ours(&["index", "remove", "-q", &ours, "--platform", "linux/amd64"]);
    same("delete");
    rows.regctl(&format!("index create {theirs}"));
    rows.ours(&["index", "create", &ours]);
    same("an empty index");
}

#[test]
fn manifests_repositories_and_tags() {
    let Some(rows) = rows() else { return };
    let image = rows.at("app:1");
    let text = rows.ours(&["manifest", "get", &image]);
    assert_eq!(rows.regctl(&format!("manifest get --format raw-body {image}")), text);
    assert_eq!(rows.regctl(&format!("manifest head {image}")), rows.digest("app:1"));
    let raw = fs::File::create(rows.bench.path("m.json")).and_then(|mut file| file.write_all(text.as_bytes()));
    raw.unwrap();
    rows.regctl_with_input(&format!("manifest put {}", rows.at("app:regctl")), text.as_bytes());
    rows.ours(&["manifest", "put", "m.json", &rows.at("app:ours")]);
    assert_eq!(rows.digest("app:ours"), rows.digest("app:regctl"));
    rows.regctl(&format!("repo copy {} {}", rows.at("app"), rows.at("regctl")));
    rows.ours(&["copy", "-q", "--all-tags", &rows.at("app"), &rows.at("ours")]);
    let tags = |name: &str| sorted(&rows.ours(&["tags", &rows.at(name)]));
    assert_eq!(tags("ours"), tags("regctl"));
    assert_eq!(sorted(&rows.regctl(&format!("tag ls {}", rows.at("app")))), tags("app"));
    rows.regctl(&format!("tag delete {}", rows.at("app:regctl")));
    rows.ours(&["delete", &rows.at("app:ours")]);
    assert_eq!(tags("app"), ["1"]);
    let digest = rows.digest("app:1");
    rows.regctl(&format!("manifest delete {}", rows.at(&format!("regctl@{digest}"))));
    rows.ours(&["delete", &rows.at(&format!("ours@{digest}"))]);
    assert_eq!(rows.bench.ocikit(&["digest", &rows.at("ours:1")]).code, 3);
}

#[test]
fn registries() {
    let Some(peers) = Peers::find(&["regctl"]) else { return };
    let (bench, registry) = (bench(), Registry::for_user("user", "secret"));
    let host = registry.name().replace("127.0.0.1", "localhost");
    peers.ok(&format!("regctl registry set --skip-check --tls disabled {host}"));
    assert_ne!(peers.run(&format!("regctl repo ls {host}")).code, 0);
    assert_eq!(bench.ocikit(&["repos", &host]).code, 4);
    peers.ok(&format!("regctl registry login -u user -p secret {host}"));
    bench.ocikit_with_input(&["login", "-u", "user", "--password-stdin", &host], b"secret").ok();
    let image = multi();
    for name in ["b/app:1", "a/app:1"] {
        bench.ok(&["push", "-q", &image, &format!("{host}/{name}")]);
    }
    assert_eq!(sorted(&peers.ok(&format!("regctl repo ls {host}"))), sorted(&bench.ok(&["repos", &host])));
    assert_eq!(peers.ok(&format!("regctl registry whoami {host}")), "user");
    peers.ok("regctl registry config");
    peers.ok(&format!("regctl registry logout {host}"));
    bench.ok(&["logout", &host]);
    assert_ne!(peers.run(&format!("regctl repo ls {host}")).code, 0);
    assert_eq!(bench.ocikit(&["repos", &host]).code, 4);
}
