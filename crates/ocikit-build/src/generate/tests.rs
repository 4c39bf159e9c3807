use std::fs;

use tempfile::TempDir;

use super::*;

fn project(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

fn generated(runtime: &str, files: &[(&str, &str)]) -> Result<Generated> {
    let runtime = (runtime != "auto").then(|| runtime.parse()).transpose()?;
    generate(project(files).path(), &GenerateOptions { runtime, base: None })
}

fn text(runtime: &str, files: &[(&str, &str)]) -> String {
    generated(runtime, files).unwrap().dockerfile
}

fn problem(runtime: &str, files: &[(&str, &str)]) -> String {
    generated(runtime, files).unwrap_err().to_string()
}

const INDEX: (&str, &str) = ("index.js", "");
const PACKAGE: (&str, &str) = ("package.json", "{}");

/// Returns the instructions COPY, RUN and CMD.
fn steps(runtime: &str, files: &[(&str, &str)]) -> Vec<String> {
    let text = text(runtime, files);
    let lines =
        text.lines().filter(|line| !line.is_empty() && !line.starts_with("FROM") && !line.starts_with("WORKDIR"));
    lines.map(str::to_owned).collect()
}

#[test]
fn node_projects_use_their_package_manager() {
    insta::assert_snapshot!(text("nodejs20", &[PACKAGE, ("package-lock.json", ""), INDEX]), @r#"
    FROM node:20-alpine

    WORKDIR /app

    COPY package.json package-lock.json ./

    RUN npm ci

    COPY . .

    CMD ["node","index.js"]
    "#);
    for (lock, content, copied, run) in [
        ("pnpm-lock.yaml", "", "package.json pnpm-lock.yaml", "corepack enable && pnpm install --frozen-lockfile"),
        ("yarn.lock", "# yarn lockfile v1", "package.json yarn.lock", "yarn install --frozen-lockfile"),
        ("npm-shrinkwrap.json", "", "package.json npm-shrinkwrap.json", "npm ci"),
    ] {
        let files = [PACKAGE, (lock, content), ("src/index.js", ""), ("server.js", "")];
        let expected =
            [&format!("COPY {copied} ./"), &format!("RUN {run}"), "COPY . .", "CMD [\"node\",\"src/index.js\"]"];
        let mut steps = steps("nodejs20", &files);
        steps.retain(|step| !step.starts_with("ENV "));
        assert_eq!(steps, expected, "{lock}");
    }
    let both = [PACKAGE, ("pnpm-lock.yaml", ""), ("yarn.lock", ""), ("package-lock.json", ""), INDEX];
    assert!(steps("nodejs20", &both)[2].contains("pnpm"), "the first lock file counts");
}

/// Returns the instruction RUN that installs the dependencies.
fn installation(runtime: &str, package: &str, lock: &str, content: &str) -> String {
    let text = text(runtime, &[("package.json", package), (lock, content), INDEX]);
    text.lines().find_map(|line| line.strip_prefix("RUN ")).unwrap().to_owned()
}

#[test]
fn node_projects_get_a_package_manager_that_reads_their_lock_file() {
    for (lock, content, version) in [
        ("pnpm-lock.yaml", "lockfileVersion: '9.0'\n", ""),
        ("pnpm-lock.yaml", "lockfileVersion: '6.0'\n", "corepack install --global pnpm@8 && "),
        ("pnpm-lock.yaml", "lockfileVersion: 5.4\n", "corepack install --global pnpm@7 && "),
        ("yarn.lock", "__metadata:\n  version: 8\n", "corepack install --global yarn@4 && "),
        ("yarn.lock", "__metadata:\n  version: 6\n", "corepack install --global yarn@3 && "),
        ("yarn.lock", "__metadata:\n  version: 4\n", "corepack install --global yarn@2 && "),
    ] {
        let install = match lock {
            "yarn.lock" => "yarn install --immutable",
            _ => "pnpm install --frozen-lockfile",
        };
        let named = r#"{"packageManager":"a@1"}"#;
        assert_eq!(installation("nodejs20", "{}", lock, content), format!("corepack enable && {version}{install}"));
        assert_eq!(installation("nodejs20", named, lock, content), format!("corepack enable && {install}"));
        let without = installation("nodejs25", named, lock, content);
        assert_eq!(without, format!("npm install --global corepack && corepack enable && {install}"));
    }
    let files =
        [PACKAGE, ("yarn.lock", "__metadata:\n"), (".yarnrc.yml", "yarnPath: .yarn/releases/yarn.cjs\n"), INDEX];
    assert_eq!(steps("nodejs20", &files)[1], "RUN corepack enable && yarn install --immutable");
}

/// Yarn 2 and later installs no `node_modules` unless it is set to.
#[test]
fn node_projects_without_node_modules_start_with_the_loader_of_yarn() {
    let command = |package: &str, settings: &str| {
        let files = [("package.json", package), ("yarn.lock", "__metadata:\n"), (".yarnrc.yml", settings), INDEX];
        steps("nodejs20", &files).pop().unwrap()
    };
    let loader = r#"CMD ["node","--require","./.pnp.cjs","index.js"]"#;
    assert_eq!(command("{}", ""), loader);
    assert_eq!(command("{}", "nodeLinker: pnp\n"), loader);
    assert_eq!(command("{}", "nodeLinker: \"node-modules\"\n"), r#"CMD ["node","index.js"]"#);
    assert!(command(r#"{"type":"module"}"#, "").contains(r#""--experimental-loader","./.pnp.loader.mjs""#));
}

#[test]
fn projects_with_dependencies_in_their_own_directories_are_copied_first() {
    let app = ("app.py", "");
    let poetry = |source: &str| format!("[[package]]\nname = \"a\"\n\n[package.source]\n{source}\n");
    let (directory, legacy) = (poetry("type = \"directory\""), poetry("type = \"legacy\""));
    let pipenv = |package: &str| format!(r#"{{"default":{{"a":{package}}}}}"#);
    let (path, url) = (pipenv(r#"{"path":"./a"}"#), pipenv(r#"{"file":"https://example.com/a.whl"}"#));
    let npm = ("package.json", r#"{"dependencies":{"a":"file:./a"}}"#);
    let composer = r#"{"repositories":[{"type":"path","url":"./a"}]}"#;
    for (runtime, files, is_copied) in [
        ("python312", &[("pyproject.toml", ""), ("poetry.lock", &*directory), app][..], true),
        ("python312", &[("pyproject.toml", ""), ("poetry.lock", &*legacy), app], false),
        ("python312", &[("Pipfile", ""), ("Pipfile.lock", &*path), app], true),
        ("python312", &[("Pipfile", ""), ("Pipfile.lock", &*url), app], false),
        ("nodejs20", &[npm, ("package-lock.json", ""), INDEX], true),
        ("php84", &[("composer.json", composer), ("index.php", "")], true),
        ("php84", &[("composer.json", "{}"), ("index.php", "")], false),
    ] {
        assert_eq!(steps(runtime, files)[0] == "COPY . .", is_copied, "{files:?}");
    }
}

#[test]
fn node_projects_without_a_lock_file_install_the_newest_versions() {
    let generated = generated("nodejs22", &[PACKAGE, INDEX]).unwrap();
    assert!(generated.dockerfile.contains("COPY package.json ./\n\nRUN npm install\n"), "{generated:?}");
    assert!(generated.notes[0].contains("no lock file"), "{generated:?}");
    assert_eq!((generated.runtime.as_str(), generated.ignore.as_str()), ("nodejs22", ".git\nnode_modules\n"));
}

#[test]
fn node_projects_copy_all_files_first_if_the_installation_needs_them() {
    for package in [r#"{"workspaces":["a"]}"#, r#"{"scripts":{"postinstall":"node setup.js"}}"#] {
        let files = [("package.json", package), ("package-lock.json", ""), INDEX];
        assert_eq!(steps("nodejs20", &files), ["COPY . .", "RUN npm ci", "CMD [\"node\",\"index.js\"]"], "{package}");
    }
    let built = r#"{"main":"dist/a\"b.js","scripts":{"build":"tsc"}}"#;
    assert_eq!(
        steps("nodejs20", &[("package.json", built), ("yarn.lock", "")])[2..],
        ["COPY . .", "RUN yarn run build", "CMD [\"node\",\"dist/a\\\"b.js\"]"]
    );
    let started = r#"{"scripts":{"start":"node x.js"}}"#;
    assert_eq!(steps("nodejs20", &[("package.json", started)]).last().unwrap(), "CMD [\"npm\",\"run\",\"start\"]");
    assert!(problem("nodejs20", &[("package.json", r#"{"main":"../x.js"}"#)]).contains("index.js, src/index.js"));
    assert!(problem("nodejs20", &[INDEX]).contains("package.json not found in source directory"));
    assert!(problem("nodejs20", &[("package.json", "{"), INDEX]).contains("package.json is not valid"));
}

#[test]
fn python_projects_use_their_lock_file() {
    insta::assert_snapshot!(text("python312", &[("requirements.txt", "flask==3\n"), ("main.py", "")]), @r#"
    FROM python:3.12-slim

    WORKDIR /app

    COPY requirements.txt ./

    RUN pip install --no-cache-dir -r requirements.txt

    COPY . .

    CMD ["python","main.py"]
    "#);
    let app = ("app.py", "");
    for (files, copied, run) in [
        (
            &[("poetry.lock", ""), ("pyproject.toml", ""), app][..],
            "pyproject.toml poetry.lock",
            "pip install poetry && poetry config virtualenvs.create false && poetry install --only main --no-root \
             --no-interaction --no-ansi",
        ),
        (
            &[("Pipfile.lock", ""), ("Pipfile", ""), app],
            "Pipfile Pipfile.lock",
            "pip install pipenv && pipenv install --system --deploy --ignore-pipfile",
        ),
        (
            &[("requirements.txt", "a==1 --hash=sha256:00\n"), app],
            "requirements.txt",
            "pip install --require-hashes --only-binary :all: -r requirements.txt",
        ),
    ] {
        let expected = [&format!("COPY {copied} ./"), &format!("RUN {run}"), "COPY . .", "CMD [\"python\",\"app.py\"]"];
        assert_eq!(steps("python3.12", files), expected);
    }
    for line in ["-r other.txt", "-e .", "./local", "a @ file:///src/a", "wheels/a.whl"] {
        let all = steps("python312", &[("requirements.txt", line), app]);
        assert_eq!(all[..2], ["COPY . .", "RUN pip install --no-cache-dir -r requirements.txt"], "{line}");
    }
    let package = generated("python312", &[("pyproject.toml", ""), app]).unwrap();
    assert!(package.dockerfile.contains("COPY . .\n\nRUN pip install --no-cache-dir .\n"), "{package:?}");
    assert!(problem("python312", &[("poetry.lock", ""), app]).contains("pyproject.toml not found"));
    assert!(problem("python312", &[app]).contains("poetry.lock, Pipfile.lock, requirements.txt"));
    assert!(problem("python312", &[("requirements.txt", "")]).contains("main.py"));
}

#[test]
fn other_runtimes_build_in_stages() {
    insta::assert_snapshot!(text("auto", &[("go.mod", "module a\n\ngo 1.24.1\n"), ("go.sum", ""), ("cmd/a/main.go", "package main\n")]), @r#"
    FROM golang:1.24-alpine AS build

    WORKDIR /src

    COPY go.mod go.sum ./

    RUN go mod download

    COPY . .

    RUN CGO_ENABLED=0 go build -trimpath -o /out/app ./cmd/a

    FROM alpine:3.22

    COPY --from=build /out/app /usr/local/bin/app

    CMD ["/usr/local/bin/app"]
    "#);
    insta::assert_snapshot!(text("rust1", &[("Cargo.toml", "[package]\nname = \"a\"\n"), ("Cargo.lock", "")]), @r#"
    FROM rust:1-slim-bookworm AS build

    WORKDIR /src

    COPY . .

    RUN cargo install --locked --path . --root /out

    FROM debian:bookworm-slim

    COPY --from=build /out/bin/ /usr/local/bin/

    CMD ["/usr/local/bin/a"]
    "#);
    insta::assert_snapshot!(text("ruby34", &[("Gemfile", ""), ("Gemfile.lock", ""), ("config.ru", "")]), @r#"
    FROM ruby:3.4

    WORKDIR /app

    COPY Gemfile Gemfile.lock ./

    RUN bundle config set frozen true && bundle config set without development:test && bundle install

    COPY . .

    CMD ["bundle","exec","rackup","--host","0.0.0.0"]
    "#);
    insta::assert_snapshot!(text("java17", &[("pom.xml", "")]), @r#"
    FROM maven:3-eclipse-temurin-17 AS build

    WORKDIR /src

    COPY . .

    RUN mvn -B -DskipTests package && cp "$(ls -S target/*.jar | head -n 1)" /app.jar

    FROM eclipse-temurin:17-jre

    COPY --from=build /app.jar /app/app.jar

    CMD ["java","-jar","/app/app.jar"]
    "#);
    insta::assert_snapshot!(text("php84", &[("composer.json", "{}"), ("composer.lock", ""), ("public/index.php", "")]), @r#"
    FROM composer:2 AS vendor

    WORKDIR /app

    COPY composer.json composer.lock ./

    RUN composer install --no-dev --no-interaction --no-scripts --no-autoloader --ignore-platform-reqs

    COPY . .

    RUN composer dump-autoload --no-dev --no-scripts --optimize --ignore-platform-reqs

    FROM php:8.4-cli

    WORKDIR /app

    COPY --from=vendor /app .

    CMD ["php","-S","0.0.0.0:8080","-t","public"]
    "#);
    assert!(problem("go", &[("go.mod", "module a\n")]).contains("no package `main`"));
    let programs = [("go.mod", ""), ("cmd/a/a.go", "package main"), ("cmd/b/b.go", "package main")];
    assert!(problem("go", &programs).contains("cmd/a, cmd/b"));
    assert!(problem("rust", &[("Cargo.toml", "[workspace]\n")]).contains("no package"));
    assert!(text("java21", &[("build.gradle.kts", "")]).contains("gradle:8-jdk21"));
}

#[test]
fn the_runtime_is_found_by_files() {
    let version = |files: &[(&str, &str)]| generated("auto", files).unwrap().runtime;
    assert_eq!(version(&[PACKAGE, INDEX]), "nodejs22");
    assert_eq!(version(&[PACKAGE, INDEX, (".nvmrc", "v20.11.1\n")]), "nodejs20");
    assert_eq!(version(&[("requirements.txt", ""), ("main.py", ""), (".python-version", "3.11.4")]), "python311");
    assert_eq!(version(&[("requirements.txt", ""), ("main.py", ""), (".python-version", "pypy")]), "python312");
    assert!(problem("auto", &[]).contains("package.json, pyproject.toml"));
    assert!(problem("auto", &[PACKAGE, ("Gemfile", "")]).contains("nodejs or ruby"));
    for text in ["cobol", "", "nodejs20x", "python3.", "node.js"] {
        assert!(text.parse::<Runtime>().is_err(), "{text}");
    }
}

#[test]
fn another_base_image_is_used_as_it_is() {
    let place = project(&[PACKAGE, INDEX, (".dockerignore", "x\n")]);
    let digest = format!("localhost:5000/node@sha256:{}", "0".repeat(64));
    let mut options = GenerateOptions { runtime: None, base: Some(digest.clone()) };
    let generated = generate(place.path(), &options).unwrap();
    assert!(generated.dockerfile.starts_with(&format!("FROM {digest}\n")), "{generated:?}");
    assert_eq!(generated.ignore, "", "the project has its own");
    for base in ["", "a b", "a\nRUN x", "$X"] {
        options.base = Some(base.to_owned());
        assert!(generate(place.path(), &options).is_err(), "{base}");
    }
}

#[cfg(unix)]
#[test]
fn symlinks_are_not_followed() {
    let place = project(&[("index.js", "")]);
    let outside = project(&[PACKAGE]);
    std::os::unix::fs::symlink(outside.path().join("package.json"), place.path().join("package.json")).unwrap();
    assert!(generate(place.path(), &GenerateOptions::default()).unwrap_err().to_string().contains("has none of"));
}
