//! Uploads by BuildKit itself.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use ocikit::registry::{Credential, DockerConfig};
use ocikit_image::{ScratchDirectory, ScratchKind};
use ocikit_spec::{Digest, Repository};

use crate::error::{Error, Result, UploadProblem};

/// An upload by BuildKit: the layers do not pass through this process.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Upload {
    /// The repository. The image gets no tag.
    pub repository: Repository,
    /// The credential for its registry, which precedes those of the docker configuration.
    pub credential: Option<Credential>,
    /// Whether BuildKit accepts plain HTTP and certificates that cannot be verified, besides its own settings.
    pub is_insecure: bool,
}

impl Upload {
    /// Uploads to a repository with the credentials of the docker configuration and the settings of the daemon.
    pub fn to(repository: Repository) -> Upload {
        Upload { repository, credential: None, is_insecure: false }
    }
}

/// The files of a running upload.
#[derive(Debug)]
pub(crate) struct UploadFiles {
    directory: ScratchDirectory,
    has_credential: bool,
}

impl UploadFiles {
    /// Creates them. `docker_config` is the directory of the docker configuration, unless that of the environment.
    pub(crate) async fn create(upload: &Upload, docker_config: Option<&Path>) -> Result<UploadFiles> {
        let directory = ScratchDirectory::create(&ScratchDirectory::default_parent(), ScratchKind::Build)
            .map_err(Error::failed("make a temporary directory"))?;
        let files = UploadFiles { directory, has_credential: upload.credential.is_some() };
        if let Some(credential) = &upload.credential {
            // Base images and caches have credentials too.
            let found = docker_config.map(Path::to_owned).or_else(|| default_docker_config(|name| env::var_os(name)));
            // Without a directory there is no file, and none of the current directory is meant.
            let config = DockerConfig::new(found.map(|directory| directory.join("config.json")).unwrap_or_default());
            config
                .copy_with(&files.docker_directory().join("config.json"), upload.repository.registry(), credential)
                .await?;
        }
        Ok(files)
    }

    fn docker_directory(&self) -> PathBuf {
        self.directory.path().join("docker")
    }

    /// Returns the directory of the docker configuration with the credential, a secret.
    pub(crate) fn docker_config(&self) -> Option<PathBuf> {
        self.has_credential.then(|| self.docker_directory())
    }

    /// Returns the file to which `buildctl` writes the digest.
    pub(crate) fn metadata(&self) -> PathBuf {
        self.directory.path().join("metadata.json")
    }

    /// Reads the digest of the image from the metadata file of `buildctl`.
    pub(crate) fn digest(&self) -> Result<Digest> {
        #[derive(serde::Deserialize)]
        struct Metadata {
            #[serde(rename = "containerimage.digest")]
            digest: Digest,
        }
        let failed = Error::failed("read the digest of the pushed image");
        let text = fs::read(self.metadata()).map_err(&failed)?;
        let metadata: Metadata = serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
        Ok(metadata.digest)
    }
}

/// Returns the directory where `buildctl` looks for the docker configuration.
fn default_docker_config(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let variable = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("DOCKER_CONFIG").or_else(|| Some(variable("HOME")?.join(".docker")))
}

/// Returns the error of an upload to a repository, if the message of `buildctl` is about one.
pub(crate) fn failure(message: &str, repository: &str) -> Option<Error> {
    let about = message.strip_prefix("failed to solve: ").unwrap_or(message);
    let (target, reason) = match message.split_once("failed to push ") {
        Some((_, about)) => about.split_once(": ")?,
        // A token for a base image has the name of the image before it.
        None if about.starts_with("failed to fetch ") && about.contains(" token: ") => (repository, about),
        None => return None,
    };
    let says = |texts: &[&str]| texts.iter().any(|text| reason.contains(text));
    // The messages of containerd's resolver, and of Go for the token service.
    let unanswered =
        ["failed to do request", "dial tcp", "i/o timeout", "deadline exceeded", "connection reset", ": EOF"];
    let failing = [": 429 ", ": 500 ", ": 502 ", ": 503 ", ": 504 "];
    // A registry may say it by a code of the distribution specification, in lower case.
    let denied = [": 401 ", ": 403 ", "authorization failed", "failed to authorize", "unauthorized: ", "denied: "];
    let problem = if says(&unanswered) || says(&failing) {
        UploadProblem::Unreachable
    } else if says(&denied) {
        UploadProblem::Denied
    } else {
        UploadProblem::Other
    };
    Some(Error::Upload { target: target.to_owned(), problem, message: reason.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Node;
    use crate::solve::{Outputs, Solve};

    #[test]
    fn messages_of_buildctl_tell_why_an_upload_failed() {
        for (reason, expected) in [
            ("unexpected status from POST request to http://r/v2/app/blobs/uploads/: 401 Unauthorized", "Denied"),
            (
                "failed to authorize: failed to fetch anonymous token: unexpected status from GET request to http://r/token: 403 Forbidden",
                "Denied",
            ),
            ("server message: insufficient_scope: authorization failed", "Denied"),
            ("denied: pull only", "Denied"),
            ("unauthorized: authentication required", "Denied"),
            (
                "failed to do request: Head \"http://localhost:1/v2/\": dial tcp 127.0.0.1:1: connect: refused",
                "Unreachable",
            ),
            ("failed to copy: unexpected status from PUT request to http://r/: 503 Service Unavailable", "Unreachable"),
            (
                "failed to do request: Head \"https://r/\": http: server gave HTTP response to HTTPS client",
                "Unreachable",
            ),
            ("unexpected status from PUT request to http://r/v2/a/manifests/1: 400 Bad Request", "Other"),
        ] {
            let message = format!("failed to solve: failed to push localhost:5000/app: {reason}");
            let error = failure(&message, "localhost:5000/app").unwrap();
            let Error::Upload { target, problem, message } = error else { panic!("{reason}") };
            assert_eq!((target.as_str(), message.as_str()), ("localhost:5000/app", reason));
            assert_eq!(format!("{problem:?}"), expected, "{reason}");
        }
        for reason in
            ["failed to fetch oauth token: unauthorized: nope", "failed to fetch anonymous token: a: 401 Unauthorized"]
        {
            let error = failure(&format!("failed to solve: {reason}"), "localhost:5000/app");
            assert!(matches!(error, Some(Error::Upload { problem: UploadProblem::Denied, .. })), "{error:?}");
        }
        for message in [
            "process \"/bin/sh -c exit 401 \" did not complete",
            "r/base:1: failed to resolve source metadata for r/base:1: failed to authorize: failed to fetch oauth token: x",
        ] {
            assert!(failure(&format!("failed to solve: {message}"), "localhost:5000/app").is_none(), "{message}");
        }
    }

    #[tokio::test]
    async fn buildkit_uploads_by_digest_only() {
        let mut upload = Upload::to("localhost:5000/app".parse().unwrap());
        let files = UploadFiles::create(&upload, None).await.unwrap();
        let expected = "--output=type=image,name=localhost:5000/app,push=true,push-by-digest=true,oci-mediatypes=true";
        let metadata = format!("--metadata-file={}", files.metadata().display());
        for (is_insecure, more) in [(false, ""), (true, ",registry.insecure=true")] {
            upload.is_insecure = is_insecure;
            let outputs = Outputs { upload: Some((&upload, &files)), ..Outputs::default() };
            let node = Node { address: "unix:///bk.sock".parse().unwrap(), platforms: Vec::new() };
            let arguments = Solve::of("src").arguments(&node, &outputs);
            assert_eq!(arguments[arguments.len() - 2..], [format!("{expected}{more}"), metadata.clone()]);
        }
    }

    #[tokio::test]
    async fn a_credential_is_added_to_the_docker_configuration() {
        let place = tempfile::tempdir().unwrap();
        let config = r#"{"auths":{"base:5000":{"auth":"YTpi"}},"credsStore":"desktop","proxies":{}}"#;
        fs::write(place.path().join("config.json"), config).unwrap();
        let mut upload = Upload::to("registry.test:5000/acme/app".parse().unwrap());
        let files = UploadFiles::create(&upload, Some(place.path())).await.unwrap();
        assert_eq!(files.docker_config(), None);
        upload.credential = Some(Credential::password("u", "t0ken"));
        let files = UploadFiles::create(&upload, Some(place.path())).await.unwrap();
        let text = fs::read(files.docker_config().unwrap().join("config.json")).unwrap();
        let found: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(
            found,
            serde_json::json!({
                "auths": { "base:5000": { "auth": "YTpi" }, "registry.test:5000": { "auth": "dTp0MGtlbg==" } },
                "credHelpers": { "registry.test:5000": "" },
                "credsStore": "desktop",
                "proxies": {},
            })
        );
        assert_eq!(fs::read_to_string(place.path().join("config.json")).unwrap(), config);
        let (directory, none) = (files.docker_directory(), place.path().join("none"));
        drop(files);
        assert!(!directory.exists());
        // Without a configuration there is only the credential.
        let files = UploadFiles::create(&upload, Some(&none)).await.unwrap();
        let text = fs::read_to_string(files.docker_directory().join("config.json")).unwrap();
        assert!(text.contains("dTp0MGtlbg==") && !text.contains("credsStore"), "{text}");
        let (registry, credential) = (upload.repository.registry(), upload.credential.as_ref().unwrap());
        let alone = place.path().join("alone.json");
        DockerConfig::new("").copy_with(&alone, registry, credential).await.unwrap();
        assert_eq!(fs::read_to_string(alone).unwrap(), text);
    }

    #[test]
    fn the_docker_configuration_is_where_buildctl_looks() {
        let variables = |set: &'static [(&str, &str)]| {
            default_docker_config(move |name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
        };
        assert_eq!(variables(&[("DOCKER_CONFIG", "/c"), ("HOME", "/home/a")]), Some("/c".into()));
        assert_eq!(variables(&[("DOCKER_CONFIG", ""), ("HOME", "/home/a")]), Some("/home/a/.docker".into()));
        assert_eq!(variables(&[]), None);
    }
}
