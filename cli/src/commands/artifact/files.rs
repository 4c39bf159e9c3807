//! The files of a new artifact, as arguments of `artifact push` and `attach`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use ocikit::spec::annotations;
use ocikit::{Annotations, ArtifactBuilder, ArtifactFile};

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::values::{key_value, media_type};
use crate::{file, keys};

#[derive(Debug, Args)]
pub(crate) struct FileArguments {
    /// Files and directories, each with an optional media type
    ///
    /// The last colon begins the media type; `FILE:` is a file whose name has a colon. A directory becomes a compressed tar.
    /// The title of a file is the path as given, or the last part of an absolute path and of one with `..`.
    #[arg(value_name = "FILE[:TYPE]")]
    pub(crate) file: Vec<ArtifactFile>,
    /// Set the artifact type
    #[arg(long, value_name = "TYPE", value_parser = media_type)]
    pub(crate) artifact_type: Option<String>,
    /// Use this file as the config instead of an empty one
    #[arg(long, value_name = "FILE[:TYPE]")]
    pub(crate) config: Option<ArtifactFile>,
    /// Set an annotation of the manifest; repeatable
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) annotation: Vec<(String, String)>,
    /// Read annotations from this JSON file, in the format of oras
    ///
    /// An object with the keys `$manifest`, `$config` and the titles of files, each with an object of annotations.
    #[arg(long, value_name = "FILE")]
    pub(crate) annotation_file: Option<PathBuf>,
}

/// The key for the manifest in a file of annotations.
const OF_MANIFEST: &str = "$manifest";

/// The key for the config.
const OF_CONFIG: &str = "$config";

impl FileArguments {
    /// Reads the files and returns the artifact with them.
    pub(crate) async fn artifact(&self, context: &Context) -> Result<ArtifactBuilder> {
        let mut stated = self.annotations()?;
        let mut artifact = match &self.artifact_type {
            Some(artifact_type) => ArtifactBuilder::new(artifact_type.as_str()),
            None => ArtifactBuilder::without_type(),
        };
        let mut manifest = stated.remove(OF_MANIFEST).unwrap_or_default();
        for (key, value) in &self.annotation {
            manifest.insert(key, value);
        }
        if context.epoch.is_some() && manifest.get(annotations::CREATED).is_none() {
            manifest.insert(annotations::CREATED, keys::now(context.epoch)?.to_string());
        }
        for (key, value) in manifest.iter() {
            artifact.annotation(key, value);
        }
        let of_config = stated.remove(OF_CONFIG).unwrap_or_default();
        if let Some(config) = &self.config {
            let mut config = config.clone();
            config.annotations = of_config;
            artifact.config_file(&config).await?;
        }
        let mut files = Vec::new();
        for file in &self.file {
            let mut file = file.clone();
            file.annotations = stated.remove(&file.title()?).unwrap_or_default();
            files.push(file);
        }
        if let Some(unknown) = stated.keys().next() {
            let message = format!("cannot annotate `{unknown}`: no file has this title");
            return Err(Failure::usage(message).hint("use `$manifest`, `$config` or the title of a file as the key"));
        }
        artifact.files(&files, context.epoch.unwrap_or_default()).await?;
        Ok(artifact)
    }

    fn annotations(&self) -> Result<BTreeMap<String, Annotations>> {
        let Some(path) = &self.annotation_file else { return Ok(BTreeMap::new()) };
        serde_json::from_slice(&file::read(path)?).map_err(|error| {
            Failure::usage(format_args!("cannot read annotations from {}: {error}", path.display()))
                .hint("write an object of objects: {\"$manifest\": {\"key\": \"value\"}}")
        })
    }
}
