//! The arguments that all commands of a project have.

use std::path::PathBuf;

use clap::Args;
use ocikit::Platform;
use ocikit_publish::project::{Project, ProjectError, ProjectOptions};

use crate::failure::{Code, Failure, Result};

#[derive(Debug, Clone, Args)]
pub(crate) struct ProjectArguments {
    /// Directory of the project
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    pub(super) project_dir: PathBuf,
    /// Directory with the images, below that of the project
    #[arg(long, value_name = "DIRECTORY", default_value = "contexts")]
    contexts: PathBuf,
    /// Build argument that has the registry of the project
    #[arg(long, value_name = "NAME", default_value = "REGISTRY")]
    pub(super) registry_argument: String,
    /// Platforms of images whose metadata have none
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',', default_value = "linux/arm64,linux/amd64")]
    pub(super) default_platforms: Vec<Platform>,
}

impl ProjectArguments {
    /// Reads the project. References to these registries are references to the project too.
    pub(super) fn load(&self, registries: &[String]) -> Result<Project> {
        let mut options = ProjectOptions::default();
        options.contexts.clone_from(&self.contexts);
        options.registry_argument.clone_from(&self.registry_argument);
        options.platforms.clone_from(&self.default_platforms);
        options.registries = registries.to_vec();
        Ok(Project::load(&self.project_dir, &options)?)
    }
}

/// Reads a registry with an optional path, such as `ghcr.io/acme`.
pub(super) fn registry(text: &str) -> Result<String, String> {
    if let Some(scheme) = ["http://", "https://"].into_iter().find(|scheme| text.starts_with(scheme)) {
        return Err(format!("leave out `{scheme}`: a registry is a host with an optional path, as in `ghcr.io/acme`"));
    }
    let text = text.trim_end_matches('/');
    let probe = format!("{text}/image");
    match probe.parse::<ocikit::Repository>() {
        Ok(repository) if repository.to_string() == probe => Ok(text.to_owned()),
        Ok(_) => Err("it has no registry host, as `ghcr.io/acme` and `localhost:5000` have".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

impl From<ProjectError> for Failure {
    fn from(error: ProjectError) -> Failure {
        let message = format!("cannot use the project: {error}");
        match error {
            ProjectError::Invalid(problems) => {
                Failure { details: problems.iter().map(ToString::to_string).collect(), ..Failure::usage(message) }
            }
            ProjectError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Failure::new(Code::Missing, message).hint("name the directory of the project with --project-dir")
            }
            ProjectError::NotAFile { .. } | ProjectError::Outside { .. } => Failure::usage(message),
            ProjectError::Interrupted { .. } => {
                Failure::new(Code::Other, message).hint("finish it with `ocikit project cascade`")
            }
            ProjectError::Journal { .. } => Failure::new(Code::Other, message)
                .hint("restore the file, or remove .ocikit-cascade.json to give the cascade up"),
            _ => Failure::new(Code::Other, message),
        }
    }
}
