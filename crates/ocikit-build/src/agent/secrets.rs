//! Secrets of a build: files in memory that end with it.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ocikit::registry::Secret;
use ocikit_image::{ScratchDirectory, ScratchKind};
use serde_json::json;
use zeroize::Zeroizing;

use super::config::BuildConfig;
use crate::error::{Error, Result};
use crate::inputs;

/// Where a directory in memory usually is.
const IN_MEMORY: [&str; 3] = ["/run", "/dev/shm", "/tmp"];

/// A directory in memory with the secrets of a build. It is removed when this is dropped.
#[derive(Debug)]
pub(super) struct SecretFiles {
    directory: ScratchDirectory,
}

impl SecretFiles {
    /// Makes the directory, in the given one or where memory usually is.
    ///
    /// # Errors
    ///
    /// [`Error::NotInMemory`] if no place is a tmpfs: the secrets would be written to a disk.
    pub(super) fn create(wanted: Option<&Path>) -> Result<SecretFiles> {
        let places: Vec<PathBuf> = match wanted {
            Some(place) => vec![place.to_owned()],
            None => IN_MEMORY.map(PathBuf::from).to_vec(),
        };
        let failed = Error::failed("make a directory for the secrets");
        for place in &places {
            if is_in_memory(place) {
                return Ok(SecretFiles {
                    directory: ScratchDirectory::create(place, ScratchKind::Secrets).map_err(failed)?,
                });
            }
        }
        let paths: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
        Err(Error::NotInMemory { paths: paths.join(", ") })
    }

    /// Writes the secrets and returns them as inputs of a build.
    pub(super) fn write(&self, secrets: &BTreeMap<String, Secret>) -> Result<Vec<inputs::Secret>> {
        let mut written = Vec::new();
        for (id, secret) in secrets {
            let path = self.directory.path().join(id);
            write_private(&path, secret.reveal().as_bytes())?;
            written.push(inputs::Secret { id: id.clone(), source: inputs::SecretSource::File(path) });
        }
        Ok(written)
    }

    /// Writes the credential of the registry for BuildKit and returns the directory for `DOCKER_CONFIG`.
    pub(super) fn docker_config(&self, config: &BuildConfig) -> Result<Option<PathBuf>> {
        let Some(token) = &config.registry_token else { return Ok(None) };
        let entry = match &config.registry_username {
            Some(user) => {
                let pair = Zeroizing::new(format!("{user}:{}", token.reveal()));
                json!({ "auth": STANDARD.encode(pair.as_bytes()) })
            }
            // BuildKit ignores a user without a password, but it sends this as a bearer token.
            None => json!({ "registrytoken": token.reveal() }),
        };
        let key =
            if config.registry.is_docker_hub() { "https://index.docker.io/v1/" } else { config.registry.as_str() };
        let text = Zeroizing::new(json!({ "auths": { key: entry } }).to_string());
        // Beside the secrets, whose names do not begin with a dot.
        let directory = self.directory.path().join(".docker");
        std::fs::create_dir(&directory).map_err(Error::failed("make a directory for the credential"))?;
        write_private(&directory.join("config.json"), text.as_bytes())?;
        Ok(Some(directory))
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(bytes)).map_err(Error::failed("write a secret"))
}

/// Returns whether a directory is on a file system in memory.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_in_memory(directory: &Path) -> bool {
    // `TMPFS_MAGIC` and `RAMFS_MAGIC` of statfs(2).
    const KINDS: [u64; 2] = [0x0102_1994, 0x8584_58f6];
    // The type of the field differs between architectures.
    #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss, reason = "its type differs between architectures")]
    rustix::fs::statfs(directory).is_ok_and(|found| KINDS.contains(&(found.f_type as u64 & 0xffff_ffff)))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn is_in_memory(_: &Path) -> bool {
    false
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn hyp_9_secrets_are_private_files_in_memory() {
        let files = SecretFiles::create(None).unwrap();
        let place = files.directory.path().to_owned();
        assert!(is_in_memory(&place));
        let written = files.write(&[("a.b".to_owned(), Secret::new("hunter2"))].into()).unwrap();
        let inputs::SecretSource::File(path) = &written[0].source else { panic!("{written:?}") };
        assert_eq!(std::fs::read_to_string(path).unwrap(), "hunter2");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(path), mode(&place)), (0o600, 0o700));
        let text = r#"{"job_id":"b","registry_url":"localhost:5000","source_path":"/","timeout_seconds":0,"network_mode":"egress","registry_token":"t0ken","registry_username":"u"}"#;
        let config = BuildConfig::parse(text.as_bytes()).unwrap();
        let docker = files.docker_config(&config).unwrap().unwrap();
        let text = std::fs::read_to_string(docker.join("config.json")).unwrap();
        assert_eq!(text, r#"{"auths":{"localhost:5000":{"auth":"dTp0MGtlbg=="}}}"#);
        assert_eq!(mode(&docker.join("config.json")), 0o600);
        drop(files);
        assert!(!place.exists());
    }

    #[test]
    fn hyp_9_a_disk_is_refused() {
        let error = SecretFiles::create(Some(Path::new("/proc"))).unwrap_err();
        assert!(matches!(&error, Error::NotInMemory { paths } if paths == "/proc"), "{error}");
    }
}
