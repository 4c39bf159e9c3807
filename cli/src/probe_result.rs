//! The results of `ocikit probe`, cached for later commands on the same registry.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ocikit::Registry;
use ocikit::registry::Capabilities;
use serde::{Deserialize, Serialize};

use crate::environment::cache_directory;
use crate::failure::{Code, Failure, Result};
use crate::file;

/// The result of a probe, as it is cached.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProbeResult {
    registry: String,
    /// The time of the probe, in seconds since 1970.
    probed: u64,
    pub(crate) capabilities: Capabilities,
}

/// How long a result is used. It expires because registries are upgraded.
const CACHE_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl ProbeResult {
    /// Reads the cached result for a registry. A missing, expired or unreadable result is `None`, because it is only an
    /// optimization.
    pub(crate) fn read(registry: &Registry) -> Option<ProbeResult> {
        let known: ProbeResult = serde_json::from_slice(&std::fs::read(ProbeResult::path(registry)?).ok()?).ok()?;
        let age = now().checked_sub(known.probed)?;
        (known.registry == registry.as_str() && age < CACHE_LIFETIME.as_secs()).then_some(known)
    }

    /// Returns a new result of now.
    pub(crate) fn new(registry: &Registry, capabilities: Capabilities) -> ProbeResult {
        ProbeResult { registry: registry.to_string(), probed: now(), capabilities }
    }

    fn path(registry: &Registry) -> Option<PathBuf> {
        let name = registry.as_str().replace([':', '[', ']'], "_");
        Some(cache_directory()?.join("registries").join(format!("{name}.json")))
    }

    /// Caches the result for later commands.
    pub(crate) fn write(&self, registry: &Registry) -> Result {
        let Some(path) = ProbeResult::path(registry) else { return Ok(()) };
        let text = serde_json::to_vec(self).map_err(|error| Failure::new(Code::Other, error))?;
        let directory = path.parent().unwrap_or(&path);
        std::fs::create_dir_all(directory).map_err(|error| Failure::io("create", directory.display(), &error))?;
        file::write(&path, &text)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
