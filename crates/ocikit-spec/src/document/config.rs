use std::sync::Arc;

use bytes::Bytes;
use indexmap::IndexMap;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::text::{Text, check_keys, invalid, parse_object, text_of_document};
use crate::bounded::{self, NamesBlobs};
use crate::error::Result;
use crate::json::null_is_default;
use crate::keys;
use crate::{Annotations, Digest, Platform};

/// The maximum number of history entries.
const MAX_HISTORY: usize = 10_000;

/// The config of a container image.
///
/// Image specification, "Image Configuration". Docker's has the same format and a few more fields, which are kept.
///
/// ```
/// use ocikit_spec::Config;
///
/// let config = Config::parse(
///     r#"{"architecture":"amd64","os":"linux","config":{"Env":["A=1"],"Healthcheck":{"Test":["NONE"]}},"rootfs":{"type":"layers","diff_ids":[]}}"#,
/// )?;
/// assert_eq!(config.execution().env, ["A=1"]);
/// let mut edit = config.edit();
/// edit.env("B", "2");
/// assert!(edit.finish()?.text().contains("Healthcheck"), "an edit keeps what it does not know");
/// # Ok::<(), ocikit_spec::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    pub(super) text: Text,
    view: Arc<ConfigView>,
}

#[derive(Debug, Clone, Deserialize)]
struct ConfigView {
    created: Option<String>,
    author: Option<String>,
    // The fields of a platform are listed one by one: a flattened struct would hold every unknown field in memory.
    architecture: Option<String>,
    os: Option<String>,
    #[serde(rename = "os.version")]
    os_version: Option<String>,
    #[serde(rename = "os.features", default, deserialize_with = "null_is_default")]
    os_features: Vec<String>,
    variant: Option<String>,
    #[serde(skip)]
    platform: Option<Platform>,
    #[serde(default, deserialize_with = "null_is_default")]
    config: Execution,
    #[serde(default, deserialize_with = "null_is_default")]
    rootfs: RootFs,
    #[serde(default, deserialize_with = "bounded::list::<_, _, MAX_HISTORY>")]
    history: Vec<History>,
}

impl ConfigView {
    fn take_platform(&mut self) -> Option<Platform> {
        Some(Platform {
            os: self.os.take()?,
            architecture: self.architecture.take()?,
            os_version: self.os_version.take(),
            os_features: std::mem::take(&mut self.os_features),
            variant: self.variant.take(),
        })
    }
}

/// The settings of a container of the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Execution {
    /// The user, or user and group, by name or number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The exposed ports, as `port/protocol`.
    #[serde(deserialize_with = "keys_of_map", serialize_with = "map_of_keys", skip_serializing_if = "Vec::is_empty")]
    pub exposed_ports: Vec<String>,
    /// The environment variables, as `NAME=value`.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The program and its fixed arguments.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// The default arguments, which a user may replace.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// The directories for data volumes.
    #[serde(deserialize_with = "keys_of_map", serialize_with = "map_of_keys", skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// The working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// The labels.
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    pub labels: Annotations,
    /// The signal that stops the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
}

/// The uncompressed layers of the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default, deserialize_with = "null_is_default")]
    pub kind: String,
    /// The digests of the uncompressed layers, from the lowest to the highest.
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<Digest>,
}

/// A build step that created a layer or only metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// The time of the step, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// The author.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// A comment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether the step created no layer.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

text_of_document!(Config);

impl Config {
    /// Parses the config of a container image.
    ///
    /// # Errors
    ///
    /// [`Error::Document`](crate::Error::Document) if it is not one, or has a known key twice or in another case (`Architecture`) at any depth.
    pub fn parse(bytes: impl Into<Bytes>) -> Result<Config> {
        const WHAT: &str = "config";
        let text = Text(bytes.into());
        parse_object(WHAT, &text.0)?;
        check_keys(WHAT, &text, keys::CONFIG)?;
        // Ignored fields have no limit on nesting here, but other readers fail at theirs.
        serde_json::from_slice::<NamesBlobs>(&text.0).map_err(|error| invalid(WHAT, error))?;
        let mut view: ConfigView = serde_json::from_slice(&text.0).map_err(|error| invalid(WHAT, error))?;
        view.platform = view.take_platform();
        Ok(Config { text, view: Arc::new(view) })
    }

    /// Returns the creation time, RFC 3339.
    pub fn created(&self) -> Option<&str> {
        self.view.created.as_deref()
    }

    /// Returns the author.
    pub fn author(&self) -> Option<&str> {
        self.view.author.as_deref()
    }

    /// Returns the platform; `None` if the config does not state one.
    pub fn platform(&self) -> Option<&Platform> {
        self.view.platform.as_ref()
    }

    /// Returns the settings of a container.
    pub fn execution(&self) -> &Execution {
        &self.view.config
    }

    /// Returns the uncompressed layers.
    pub fn rootfs(&self) -> &RootFs {
        &self.view.rootfs
    }

    /// Returns the history of the build.
    pub fn history(&self) -> &[History] {
        &self.view.history
    }
}

/// Deserializes a Go set: an object whose values are empty objects.
fn keys_of_map<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let map: Option<IndexMap<String, IgnoredAny>> = Option::deserialize(deserializer)?;
    Ok(map.unwrap_or_default().into_keys().collect())
}

fn map_of_keys<S: serde::Serializer>(keys: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(keys.iter().map(|key| (key, serde_json::Map::new())))
}
