//! Projects without a Dockerfile, really solved: the base images have the Python, the Node.js and the Go of this machine, and the real
//! package managers install from an index on the loopback interface. The other runtimes have base images whose tools are scripts that
//! record their calls and leave what the real tools would.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use ocikit_tests::{Bench, Daemon, Peers, fixture, free_port};
use serde_json::json;

use super::build::BUILDERS;
use super::builder_image::{buildkit_image, copy_program, program};
use super::buildkit::buildkitd;
use super::engine;
use crate::bench;

/// A BuildKit, a registry, and an index of packages.
struct Site {
    // The daemons end before their directories are removed.
    _buildkit: Daemon,
    index: Option<Daemon>,
    registry: Daemon,
    peers: Peers,
    bench: Bench,
}

impl Site {
    fn new(programs: &[&str]) -> Option<Site> {
        let peers = Peers::find(&[&BUILDERS[..], &["registry", "ldd", "cp", "tar"], programs].concat())?;
        let address = format!("unix://{}", peers.path("bk.sock").display());
        // The images are large; `native` would copy them for every step.
        let mut buildkit = buildkitd(&peers, &address, &["--oci-worker-snapshotter=auto".to_owned()]);
        buildkit.wait(|| peers.run(&format!("buildctl --addr {address} debug workers")).code == 0);
        let registry = peers.distribution("registry");
        let bench = bench().with("BUILDKIT_HOST", &address);
        let mut site = Site { bench, peers, registry, index: None, _buildkit: buildkit };
        if programs.contains(&"package-index") {
            let port = free_port();
            let mut command = site.peers.command("package-index");
            command.arg(port.to_string()).arg(site.bench.path("index"));
            let mut index = Daemon::start(command, &site.peers.path("index.log"));
            index.address = format!("http://127.0.0.1:{port}");
            index.wait(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
            site.index = Some(index);
        }
        Some(site)
    }

    fn index(&self) -> &str {
        &self.index.as_ref().unwrap().address
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.bench.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Writes a script into the root file system of an image.
    fn script(&self, path: &str, text: &str) {
        self.write(path, text);
        fs::set_permissions(self.bench.path(path), PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// Starts the root file system of an image: a shell and its commands.
    fn root(&self, name: &str) -> PathBuf {
        let root = self.bench.path(&format!("{name}/root"));
        for directory in ["bin", "usr/bin", "usr/local/bin", "root", "tmp"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::set_permissions(root.join("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
        copy_program(Path::new(self.peers.command("busybox").get_program()), &root.join("bin/busybox"), &root);
        for tool in
            ["sh", "cp", "ln", "mkdir", "rm", "touch", "echo", "head", "ls", "cat", "dirname", "env", "sleep", "kill"]
        {
            symlink("busybox", root.join("bin").join(tool)).unwrap();
        }
        symlink("/bin/busybox", root.join("usr/bin/env")).unwrap();
        // The libraries of the programs of a builder image, which are static in a release only.
        let program = self.bench.path("program/ocikit");
        if program.exists() {
            for program in [&*program, Path::new(self.peers.command("runc").get_program())] {
                copy_program(program, &root.join("tmp/program"), &root);
            }
            fs::remove_file(root.join("tmp/program")).unwrap();
        }
        self.write(&format!("{name}/root/etc/passwd"), "root:x:0:0::/root:/bin/sh\n");
        root
    }

    /// Builds and pushes an image with the root file system and these variables, and returns its reference.
    fn push(&self, name: &str, variables: &[(&str, &str)]) -> String {
        let variables: String = variables.iter().map(|(name, value)| format!("ENV {name}={value}\n")).collect();
        self.write(&format!("{name}/Dockerfile"), &format!("FROM scratch\nCOPY root /\n{variables}"));
        let reference = format!("{}/{name}:1", self.registry.address);
        let line = ["build", name, "--no-cache-directory", "--compression", "gzip:1", "--tag", &reference, "--push"];
        self.bench.ok(&line);
        reference
    }

    /// Runs commands in a base image with the directory `projects`, and exports files of it to the same directory.
    fn make(&self, base: &str, commands: &str, files: &[&str]) {
        let runs: String = commands.lines().map(|line| format!("RUN {line}\n")).collect();
        let copies: String = files.iter().map(|file| format!("COPY --from=0 /projects/{file} /{file}\n")).collect();
        self.write("make/Dockerfile", &format!("FROM {base}\nCOPY . /projects\n{runs}FROM scratch\n{copies}"));
        let output = format!("type=local,dest={}", self.bench.path("made").display());
        let line = ["build", "projects", "--file", "make/Dockerfile", "--no-cache-directory", "-o", &output];
        self.bench.ok(&line);
        for file in files {
            fs::copy(self.bench.path(&format!("made/{file}")), self.bench.path(&format!("projects/{file}"))).unwrap();
        }
    }

    /// Builds a project, runs its command in a step, and returns what it prints.
    fn run(&self, project: &str, runtime: &str, base: &str) -> String {
        let image = format!("{}/{project}:1", self.registry.address);
        let source = format!("projects/{project}");
        let line = ["build", &source, "--runtime", runtime, "--base", base, "--no-cache-directory", "--tag", &image];
        let outcome = self.bench.ocikit(&[&line[..], &["--push"]].concat());
        assert_eq!(outcome.code, 0, "{project}: {outcome}");
        let config = self.bench.json(&["config", &image]);
        self.write("run/Dockerfile", &format!("FROM {image}\nRUN {}\n", config["config"]["Cmd"]));
        let outcome = self.bench.ocikit(&["build", "run", "--no-cache-directory", "-o", "type=cacheonly"]);
        assert_eq!(outcome.code, 0, "{project}: {outcome}");
        outcome.stderr.lines().filter_map(|line| line.trim().strip_prefix("| ")).collect::<Vec<_>>().join("\n")
    }
}

/// Pushes an image in place of `python:3.12-slim` with the Python of this machine, at the paths that it has here.
fn python_base(site: &Site) -> String {
    const PATHS: &str = "import sys, os, sysconfig, pip; \
        print(os.path.realpath(sys.executable), sysconfig.get_path('stdlib'), os.path.dirname(pip.__file__), sysconfig.get_path('scripts'))";
    let root = site.root("python");
    let mut python = Command::new("python3");
    let paths = ocikit_tests::run(python.args(["-c", PATHS]), &[]).ok();
    let [program, library, pip, scripts] = paths.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{paths}") };
    let inside = |path: &str| root.join(path.trim_start_matches('/'));
    copy_program(Path::new(program), &inside(program), &root);
    // Without what is large, and what forbids `pip` to change the installation of a distribution.
    let without =
        ["__pycache__", "test", "tests", "site-packages", "dist-packages", "idlelib", "EXTERNALLY-MANAGED", "config-*"];
    let without: String = without.iter().map(|name| format!("--exclude={name} ")).collect();
    site.peers.ok(&format!("tar -C / -cf library.tar {without} {}", library.trim_start_matches('/')));
    site.peers.ok(&format!("tar -C / -cf pip.tar --exclude=__pycache__ {}", pip.trim_start_matches('/')));
    for archive in ["library.tar", "pip.tar"] {
        site.peers.ok(&format!("tar -C {} -xf {archive}", root.display()));
    }
    // The libraries of its modules, and those of the packages, which the images of Python have.
    let modules = fs::read_dir(inside(&format!("{library}/lib-dynload"))).unwrap();
    for module in modules.map(|entry| entry.unwrap().path()) {
        copy_program(&module, &root.join("tmp/module"), &root);
    }
    fs::remove_file(root.join("tmp/module")).unwrap();
    let listed = ocikit_tests::run(Command::new("ldd").arg(program), &[]).ok();
    let libc = listed.split_whitespace().find(|word| word.contains("libc.so") && word.starts_with('/')).unwrap();
    for name in ["libpthread.so.0", "libdl.so.2", "libm.so.6", "librt.so.1", "libutil.so.1", "libgcc_s.so.1"] {
        let library = Path::new(libc).with_file_name(name);
        if library.exists() {
            fs::copy(&library, inside(&library.display().to_string())).unwrap();
        }
    }
    for name in ["python", "python3"] {
        symlink(program, root.join("usr/local/bin").join(name)).unwrap();
    }
    site.script("python/root/usr/local/bin/pip", "#!/bin/sh\nexec python -m pip \"$@\"\n");
    let path = format!("{scripts}:/usr/local/bin:/usr/bin:/bin");
    let index = format!("{}/simple/", site.index());
    site.push("python", &[("PATH", &path), ("PIP_INDEX_URL", &index), ("PIP_DISABLE_PIP_VERSION_CHECK", "1")])
}

#[test]
fn hyp_3_python_projects_are_installed_by_their_package_manager() {
    let Some(site) = Site::new(&["python3", "package-index"]) else { return };
    let base = python_base(&site);
    let (url, program) = (format!("{}/simple", site.index()), "import left, right\nprint(left.VALUE, right.VALUE)\n");
    for project in ["plain", "hashed", "poetry", "poetry-path", "pipenv", "pipenv-path", "package"] {
        site.write(&format!("projects/{project}/main.py"), program);
    }
    site.write("projects/plain/requirements.txt", "left==1.0.0\n");
    let hash = |name: &str| {
        let file = site.bench.path("index/simple").join(name).join("index.html");
        fs::read_to_string(file).unwrap().split("#sha256=").nth(1).unwrap()[..64].to_owned()
    };
    let hashed = [("left", "1.0.0"), ("right", "2.0.0")]
        .map(|(name, version)| format!("{name}=={version} \\\n    --hash=sha256:{}\n", hash(name)));
    site.write("projects/hashed/requirements.txt", &hashed.concat());
    let description = |name: &str| {
        format!(
            "[project]\nname = \"{name}\"\nversion = \"1\"\nrequires-python = \">=3.9\"\ndependencies = [\"left==1.0.0\"]\n"
        )
    };
    let modules = "\n[tool.setuptools]\npy-modules = []\n";
    site.write("projects/package/pyproject.toml", &(description("app") + modules));
    // The dependency of the projects with a path is a directory, which needs `left`.
    for (project, dependency) in [("poetry", "left = \"1.0.0\""), ("poetry-path", "part = {path = \"./part\"}")] {
        let source = format!("[[tool.poetry.source]]\nname = \"local\"\nurl = \"{url}\"\npriority = \"primary\"\n");
        let text = format!(
            "[tool.poetry]\npackage-mode = false\n\n[tool.poetry.dependencies]\npython = \">=3.9\"\n{dependency}\n\n{source}"
        );
        site.write(&format!("projects/{project}/pyproject.toml"), &text);
    }
    for (project, dependency) in [("pipenv", "left = \"==1.0.0\""), ("pipenv-path", "part = {path = \"./part\"}")] {
        let source = format!("[[source]]\nurl = \"{url}\"\nverify_ssl = false\nname = \"local\"\n");
        site.write(&format!("projects/{project}/Pipfile"), &format!("{source}\n[packages]\n{dependency}\n"));
    }
    for project in ["poetry-path", "pipenv-path"] {
        site.write(&format!("projects/{project}/part/pyproject.toml"), &(description("part") + modules));
    }
    let commands = "pip install poetry pipenv\n\
        cd /projects/poetry && poetry lock && cd ../poetry-path && poetry lock\n\
        cd /projects/pipenv && pipenv lock && cd ../pipenv-path && pipenv lock";
    let locks = ["poetry/poetry.lock", "poetry-path/poetry.lock", "pipenv/Pipfile.lock", "pipenv-path/Pipfile.lock"];
    site.make(&base, commands, &locks);
    for project in ["plain", "hashed", "poetry", "poetry-path", "pipenv", "pipenv-path", "package"] {
        assert_eq!(site.run(project, "python312", &base), "left 1.0.0 right 2.0.0", "{project}");
    }
    // A package that is not the locked one is refused.
    let wrong = hashed[0].replace(&hash("left"), &hash("right"));
    site.write("projects/hashed/requirements.txt", &(wrong + &hashed[1]));
    let line =
        ["build", "projects/hashed", "--runtime", "python312", "--base", &base, "--no-cache-directory", "-o", "x.tar"];
    let refused = site.bench.ocikit(&line);
    assert!(refused.code == 1 && refused.stderr.contains("HASHES"), "{refused}");
}

/// Pushes an image in place of `node:20-alpine` with the Node.js and npm of this machine, Corepack and Yarn 1.
fn node_base(site: &Site) -> String {
    let root = site.root("node");
    let node = fs::canonicalize(site.peers.command("node").get_program()).unwrap();
    copy_program(&node, &root.join("usr/local/bin/node"), &root);
    let modules = root.join("usr/local/lib/node_modules");
    fs::create_dir_all(&modules).unwrap();
    let npm = Path::new(&site.peers.ok("npm root -g")).join("npm");
    site.peers.ok(&format!("cp -rL {} {}", npm.display(), modules.join("npm").display()));
    for (package, version) in [("corepack", "0.34.6"), ("yarn", "1.22.22")] {
        let archive = site.bench.path(&format!("index/{package}-{version}.tgz"));
        let directory = modules.join(package);
        fs::create_dir_all(&directory).unwrap();
        site.peers.ok(&format!("tar -xf {} -C {} --strip-components=1", archive.display(), directory.display()));
    }
    for (name, program) in
        [("npm", "npm/bin/npm-cli.js"), ("corepack", "corepack/dist/corepack.js"), ("yarn", "yarn/bin/yarn.js")]
    {
        fs::set_permissions(modules.join(program), PermissionsExt::from_mode(0o755)).unwrap();
        symlink(format!("../lib/node_modules/{program}"), root.join("usr/local/bin").join(name)).unwrap();
    }
    let registry = format!("{}/npm", site.index());
    let variables = [
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("npm_config_registry", &format!("{registry}/")),
        ("npm_config_update_notifier", "false"),
        ("COREPACK_NPM_REGISTRY", &registry),
        // The packages of the index are not signed by the registry of npm.
        ("COREPACK_INTEGRITY_KEYS", "0"),
        ("YARN_NPM_REGISTRY_SERVER", &registry),
        ("YARN_UNSAFE_HTTP_WHITELIST", "127.0.0.1"),
        ("YARN_ENABLE_TELEMETRY", "false"),
    ];
    site.push("node", &variables)
}

#[test]
fn hyp_3_node_projects_are_installed_by_their_package_manager() {
    let Some(site) = Site::new(&["node", "npm", "package-index"]) else { return };
    let base = node_base(&site);
    let projects = ["npm", "npm-path", "pnpm", "yarn", "berry", "berry-modules", "none"];
    for project in projects {
        let mut package =
            json!({"name": "app", "version": "1.0.0", "private": true, "dependencies": {"left": "1.0.0"}});
        if project == "npm-path" {
            package["dependencies"] = json!({"part": "file:./part"});
            site.write(
                "projects/npm-path/part/package.json",
                r#"{"name":"part","version":"1.0.0","dependencies":{"left":"1.0.0"}}"#,
            );
            site.write("projects/npm-path/part/index.js", "module.exports = require(\"left\")\n");
        }
        site.write(&format!("projects/{project}/package.json"), &package.to_string());
        let module = if project == "npm-path" { "part" } else { "left" };
        site.write(&format!("projects/{project}/index.js"), &format!("console.log(require({module:?}))\n"));
    }
    site.write("projects/berry-modules/.yarnrc.yml", "nodeLinker: node-modules\n");
    let commands = "cd /projects/npm && npm install --package-lock-only && cd ../npm-path && npm install --package-lock-only\n\
        cd /projects/yarn && yarn install\n\
        corepack enable && corepack install --global yarn@4\n\
        cd /projects/berry && yarn install --mode=update-lockfile && cd ../berry-modules && yarn install --mode=update-lockfile\n\
        cd /projects/pnpm && COREPACK_DEFAULT_TO_LATEST=0 pnpm install --lockfile-only";
    let locks = [
        "npm/package-lock.json",
        "npm-path/package-lock.json",
        "yarn/yarn.lock",
        "berry/yarn.lock",
        "berry-modules/yarn.lock",
        "pnpm/pnpm-lock.yaml",
    ];
    site.make(&base, commands, &locks);
    for project in projects {
        assert_eq!(site.run(project, "nodejs20", &base), "left 1.0.0", "{project}");
    }
    // A project whose lock file does not fit is refused.
    let other = json!({"name": "app", "version": "1.0.0", "private": true, "dependencies": {"left": "2.0.0"}});
    for project in ["npm", "pnpm", "yarn", "berry"] {
        site.write(&format!("projects/{project}/package.json"), &other.to_string());
        let source = format!("projects/{project}");
        let line = ["build", &source, "--runtime", "auto", "--base", &base, "--no-cache-directory", "-o", "x.tar"];
        let refused = site.bench.ocikit(&line);
        assert_eq!(refused.code, 1, "{project}: {refused}");
    }
}

/// Pushes an image in place of `golang:1.25-alpine` with the Go of this machine.
fn go_base(site: &Site) -> String {
    let root = site.root("golang");
    let from = PathBuf::from(site.peers.ok("go env GOROOT"));
    let to = root.join("usr/local/go");
    fs::create_dir_all(to.join("pkg")).unwrap();
    for name in ["bin", "src", "lib", "pkg/tool", "pkg/include", "go.env", "VERSION"] {
        if from.join(name).exists() {
            site.peers.ok(&format!("cp -rL {} {}", from.join(name).display(), to.join(name).display()));
        }
    }
    let proxy = format!("{}/go", site.index());
    let variables = [
        ("PATH", "/usr/local/go/bin:/bin"),
        ("HOME", "/root"),
        ("GOTOOLCHAIN", "local"),
        ("GOPROXY", &proxy),
        ("GOSUMDB", "off"),
    ];
    site.push("golang", &variables)
}

#[test]
fn hyp_3_go_projects_are_built_with_their_modules() {
    let Some(site) = Site::new(&["go", "package-index"]) else { return };
    let base = go_base(&site);
    site.root("alpine");
    let last = site.push("alpine", &[("PATH", "/bin")]);
    site.write("projects/go/go.mod", "module example.com/app\n\ngo 1.25\n\nrequire example.com/left v1.0.0\n");
    let program = "package main\n\nimport \"example.com/left\"\n\nfunc main() { println(left.Value) }\n";
    site.write("projects/go/cmd/app/main.go", program);
    site.make(&base, "cd /projects/go && go mod tidy", &["go/go.sum"]);
    let image = format!("{}/app:1", site.registry.address);
    let line = ["build", "projects/go", "--runtime", "auto", "--no-cache-directory", "--tag", &image, "--push"];
    let contexts = [format!("golang:1.25-alpine=docker-image://{base}"), format!("alpine:3.22=docker-image://{last}")];
    let contexts = contexts.iter().flat_map(|context| ["--build-context", context]).collect::<Vec<_>>();
    let outcome = site.bench.ocikit(&[&line[..], &contexts].concat());
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(outcome.stderr.contains("generated a Dockerfile for go125"), "{outcome}");
    site.write("run/Dockerfile", &format!("FROM {image}\nRUN [\"/usr/local/bin/app\"]\n"));
    let ran = site.bench.ocikit(&["build", "run", "--no-cache-directory", "-o", "type=cacheonly"]);
    assert!(ran.code == 0 && ran.stderr.contains("| left 1.0.0"), "{ran}");
}

/// The recipe for builder images with other tools, on top of an image with Python and one with Node.js: each is built and pushed by one
/// command, has its tools, and builds a project in a Docker engine.
#[test]
fn hyp_19_builder_images_for_python_and_nodejs_build_projects() {
    let more =
        ["python3", "node", "npm", "package-index", "rootlesskit", "newuidmap", "newgidmap", "docker", "dockerd"];
    let Some(site) = Site::new(&more) else { return };
    program(&site.bench);
    let buildkit = format!("{}/moby/buildkit:rootless", site.registry.address);
    buildkit_image(&site.peers, &site.bench, &buildkit);
    let (python, node) = (python_base(&site), node_base(&site));
    site.write("projects/python/main.py", "import left\n");
    site.write("projects/python/requirements.txt", "left==1.0.0\n");
    site.write("projects/node/index.js", "require(\"left\")\n");
    let package = r#"{"name":"app","version":"1.0.0","dependencies":{"left":"1.0.0"}}"#;
    site.write("projects/node/package.json", package);

    let engine = engine(&site.peers);
    let docker = format!("docker -H {}", engine.address);
    let definition = fixture("../docs/builder");
    let file = format!("{definition}/toolchain.Dockerfile");
    for (name, base, runtime, version) in
        [("python", &python, "python312", "python --version"), ("node", &node, "nodejs20", "node --version")]
    {
        let image = format!("{}/builder-{name}:1", site.registry.address);
        let line =
            ["build", &definition, "--file", &file, "--no-cache-directory", "--build-context", "program=program"];
        let arguments = [format!("BUILDKIT={buildkit}"), format!("TOOLCHAIN={base}")];
        let more = ["--build-arg", &arguments[0], "--build-arg", &arguments[1], "--tag", &image, "--push"];
        site.bench.ok(&[&line[..], &more].concat());
        let (tool, flag) = version.split_once(' ').unwrap();
        let printed = site.peers.ok(&format!("{docker} run --rm --entrypoint {tool} {image} {flag}"));
        assert!(
            printed.trim_start_matches("Python ").trim_start_matches('v').starts_with(char::is_numeric),
            "{printed}"
        );

        let (source, output) = (site.bench.path(&format!("projects/{name}")), site.bench.path(&format!("out-{name}")));
        let mounts = format!("-v {}:/source:ro -v {}:/build", source.display(), output.display());
        // The index and the registry are on the loopback interface of this machine.
        let run =
            format!("{docker} run --rm --privileged --network host {mounts} {image} --runtime {runtime} --base {base}");
        let ran = site.peers.run(&run);
        assert_eq!(ran.code, 0, "{name}: {ran}");
        let archive = output.join("container-image.tar").display().to_string();
        let files = site.bench.ok(&["ls", &archive]);
        assert!(files.contains("left.py") || files.contains("app/node_modules/left/index.js"), "{name}: {files}");
    }
}

/// The tools of the other runtimes are scripts, because their toolchains are as large as several hundred megabytes and fetch their
/// parts from public registries. So these solves show that files are where the tools look for them, and that results are taken from
/// where the tools leave them; not that the tools accept the calls.
#[test]
fn hyp_3_projects_of_other_runtimes_are_solved_with_recording_tools() {
    let Some(site) = Site::new(&[]) else { return };
    site.root("tools");
    // Each needs the files that describe the project, and leaves the result of the real tool.
    for (tool, body) in [
        ("go", "[ -f go.mod ]\n[ \"$1\" != build ] || { [ -f main.go ] && mkdir -p /out && echo go > /out/app; }\n"),
        ("bundle", "[ -f Gemfile ]\n"),
        ("ruby", ""),
        ("cargo", "[ -f Cargo.lock ] && [ -f src/main.rs ]\nmkdir -p /out/bin && echo rust > /out/bin/app\n"),
        ("mvn", "[ -f pom.xml ]\nmkdir -p target && echo small > target/a.jar && echo much larger > target/b.jar\n"),
        ("gradle", "[ -f build.gradle ]\nmkdir -p build/libs && echo jar > build/libs/app.jar\n"),
        ("composer", "[ -f composer.json ]\nmkdir -p vendor && echo loader > vendor/autoload.php\n"),
    ] {
        let text = format!("#!/bin/sh\nset -e\necho \"{tool} $*\" >> /calls\n{body}");
        site.script(&format!("tools/root/bin/{tool}"), &text);
    }
    let image = format!("docker-image://{}", site.push("tools", &[("PATH", "/bin")]));
    for (project, files, images, result, content) in [
        (
            "go",
            &[("go.mod", "module a\n\ngo 1.25\n"), ("main.go", "package main\n")][..],
            &["golang:1.25-alpine", "alpine:3.22"][..],
            "/usr/local/bin/app",
            "go",
        ),
        (
            "ruby",
            &[("Gemfile", ""), ("Gemfile.lock", ""), ("main.rb", "")],
            &["ruby:3.4"],
            "/calls",
            "bundle config set frozen true\nbundle config set without development:test\nbundle install",
        ),
        (
            "rust",
            &[("Cargo.toml", "[package]\nname = \"app\"\n"), ("Cargo.lock", ""), ("src/main.rs", "")],
            &["rust:1-slim-bookworm", "debian:bookworm-slim"],
            "/usr/local/bin/app",
            "rust",
        ),
        (
            "java",
            &[("pom.xml", "")],
            &["maven:3-eclipse-temurin-21", "eclipse-temurin:21-jre"],
            "/app/app.jar",
            "much larger",
        ),
        ("java", &[("build.gradle", "")], &["gradle:8-jdk21", "eclipse-temurin:21-jre"], "/app/app.jar", "jar"),
        (
            "php",
            &[("composer.json", "{}"), ("composer.lock", "{}"), ("index.php", "")],
            &["composer:2", "php:8.4-cli"],
            "/app/vendor/autoload.php",
            "loader",
        ),
    ] {
        let _ = fs::remove_dir_all(site.bench.path("projects"));
        files.iter().for_each(|(name, text)| site.write(&format!("projects/{name}"), text));
        let contexts = images.iter().flat_map(|name| ["--build-context".to_owned(), format!("{name}={image}")]);
        let line =
            ["build", "projects", "--runtime", "auto", "--no-cache-directory", "-o", "app.tar"].map(str::to_owned);
        let outcome = site.bench.ocikit(&line.into_iter().chain(contexts).collect::<Vec<_>>());
        assert_eq!(outcome.code, 0, "{project}: {outcome}");
        assert!(outcome.stderr.contains(&format!("generated a Dockerfile for {project}")), "{outcome}");
        assert_eq!(site.bench.ok(&["cat", "app.tar", result]), content, "{project}");
        fs::remove_file(site.bench.path("app.tar")).unwrap();
    }
}
