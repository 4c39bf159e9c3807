//! Which Dockerfile an agent builds.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::config::BuildConfig;
use crate::error::{Error, Result};
use crate::generate::{GenerateOptions, Generated, generate};
use crate::inputs::Dockerfile;

/// Where a Dockerfile comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DockerfileOrigin {
    /// The file `Dockerfile` in the source.
    Source,
    /// The key `dockerfile` of `build.json`.
    Parameter,
    /// Generated for the key `runtime` of `build.json`.
    Generated,
}

impl fmt::Display for DockerfileOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DockerfileOrigin::Source => "the source",
            DockerfileOrigin::Parameter => "build.json",
            DockerfileOrigin::Generated => "the runtime",
        })
    }
}

/// The Dockerfile that is built, and those that are not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DockerfileChoice {
    /// The Dockerfile to build.
    pub dockerfile: Dockerfile,
    /// Where it comes from.
    pub origin: DockerfileOrigin,
    /// The other Dockerfiles that are given.
    pub ignored: Vec<DockerfileOrigin>,
    /// What a user should know about a generated Dockerfile, such as a missing lock file.
    pub notes: Vec<String>,
}

impl DockerfileChoice {
    /// Chooses the Dockerfile of a build: that of the source, else that of `build.json`, else a generated one. A service can
    /// call this before it starts a machine.
    ///
    /// # Errors
    ///
    /// [`Error::NoDockerfile`] if there is none of them, [`Error::Config`] if `runtime` is not known, [`Error::Generate`] if the
    /// source is not a project for it.
    pub fn of(config: &BuildConfig, source: &Path) -> Result<DockerfileChoice> {
        let file = source.join("Dockerfile");
        let is_file = file.symlink_metadata().is_ok_and(|found| found.is_file());
        let mut given = Vec::new();
        given.extend(is_file.then_some(DockerfileOrigin::Source));
        given.extend(config.dockerfile.is_some().then_some(DockerfileOrigin::Parameter));
        given.extend(config.runtime.is_some().then_some(DockerfileOrigin::Generated));
        let [origin, ignored @ ..] = &given[..] else { return Err(Error::NoDockerfile) };
        let (dockerfile, notes) = match origin {
            DockerfileOrigin::Source => (Dockerfile::File(file), Vec::new()),
            DockerfileOrigin::Parameter => {
                (Dockerfile::Text(config.dockerfile.clone().unwrap_or_default().into()), Vec::new())
            }
            DockerfileOrigin::Generated => generated(config, source)?,
        };
        Ok(DockerfileChoice { dockerfile, origin: *origin, ignored: ignored.to_vec(), notes })
    }
}

/// Generates the Dockerfile for the runtime of a build.
fn generated(config: &BuildConfig, source: &Path) -> Result<(Dockerfile, Vec<String>)> {
    let runtime = config.runtime.as_deref().unwrap_or_default();
    let mut options = GenerateOptions::default();
    if runtime != "auto" {
        let problem = |error: Error| Error::Config { key: "runtime".to_owned(), problem: error.to_string() };
        options.runtime = Some(runtime.parse().map_err(problem)?);
    }
    // A digest alone is compared after the build: it does not say of which image it is.
    options.base = config.base_image.as_ref().and_then(|base| Some(format!("{}@{}", base.name.as_ref()?, base.digest)));
    let Generated { dockerfile, ignore, notes, .. } = generate(source, &options)?;
    Ok((Dockerfile::Generated { text: dockerfile, ignore }, notes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(extra: &str) -> BuildConfig {
        let text = format!(
            r#"{{"job_id":"b1","registry_url":"localhost:5000","source_path":"/src","timeout_seconds":0,"network_mode":"egress"{extra}}}"#
        );
        BuildConfig::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn hyp_2_the_dockerfile_of_the_source_wins() {
        let source = tempfile::tempdir().unwrap();
        let parameter = config(r#","dockerfile":"FROM scratch""#);
        let choice = DockerfileChoice::of(&parameter, source.path()).unwrap();
        assert_eq!((choice.origin, &choice.ignored[..]), (DockerfileOrigin::Parameter, &[][..]));
        assert_eq!(choice.dockerfile, Dockerfile::Text(b"FROM scratch".to_vec()));
        let error = DockerfileChoice::of(&config(""), source.path()).unwrap_err();
        assert!(
            matches!(error, Error::NoDockerfile) && error.to_string().starts_with("Dockerfile required"),
            "{error}"
        );

        std::fs::write(source.path().join("Dockerfile"), "FROM scratch").unwrap();
        let choice = DockerfileChoice::of(&parameter, source.path()).unwrap();
        assert_eq!(
            (choice.origin, &choice.ignored[..]),
            (DockerfileOrigin::Source, &[DockerfileOrigin::Parameter][..])
        );
    }

    fn text(choice: &DockerfileChoice) -> &str {
        match &choice.dockerfile {
            Dockerfile::Generated { text, .. } => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn hyp_3_a_runtime_generates_a_dockerfile() {
        for (runtime, files, expected) in [
            (
                "nodejs20",
                &["package.json", "pnpm-lock.yaml", "index.js"][..],
                &["FROM node:20-alpine", "COPY package.json pnpm-lock.yaml ./", "pnpm install --frozen-lockfile"][..],
            ),
            (
                "python312",
                &["requirements.txt", "main.py"],
                &["FROM python:3.12-slim", "COPY requirements.txt ./", "-r requirements.txt", "\"main.py\""],
            ),
        ] {
            let source = tempfile::tempdir().unwrap();
            for name in files {
                let text = if name.ends_with(".json") { "{}" } else { "" };
                std::fs::write(source.path().join(name), text).unwrap();
            }
            let choice = DockerfileChoice::of(&config(&format!(r#","runtime":"{runtime}""#)), source.path()).unwrap();
            assert_eq!(choice.origin, DockerfileOrigin::Generated);
            for part in expected {
                assert!(text(&choice).contains(part), "{part}: {}", text(&choice));
            }
            let digest = ocikit_spec::Digest::sha256_of(b"");
            let base = format!(r#","runtime":"{runtime}","base_image_digest":"mirror.test/base@{digest}""#);
            let choice = DockerfileChoice::of(&config(&base), source.path()).unwrap();
            assert!(text(&choice).contains(&format!("FROM mirror.test/base@{digest}\n")), "{}", text(&choice));
        }
    }

    #[test]
    fn hyp_4_a_project_without_a_lock_file_is_built_or_refused() {
        let source = tempfile::tempdir().unwrap();
        let of = |runtime: &str| DockerfileChoice::of(&config(&format!(r#","runtime":"{runtime}""#)), source.path());
        let error = of("python312").unwrap_err().to_string();
        assert!(error.contains("requirements.txt") && error.contains("poetry.lock"), "{error}");
        assert!(matches!(of("cobol"), Err(Error::Config { key, .. }) if key == "runtime"));
        std::fs::write(source.path().join("package.json"), "{}").unwrap();
        std::fs::write(source.path().join("index.js"), "").unwrap();
        let choice = of("nodejs20").unwrap();
        assert!(!text(&choice).contains("package-lock.json") && !choice.notes.is_empty(), "{choice:?}");
    }
}
