use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ocikit_spec::Registry;

use crate::error::{Error, Result};
use crate::settings::{Identity, Pem, TlsSettings};

impl TlsSettings {
    /// Adds the certificates for a registry from a directory in the layout of docker and podman (`certs.d`):
    /// `HOST[:PORT]/` with CA certificates in `*.crt`, and a client certificate in `*.cert` with its key in the `*.key`
    /// of the same name. A client certificate that is already set is kept. Returns whether there were any.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] if a directory cannot be read, [`Error::Identity`] if a key is missing.
    pub fn add_registry(&mut self, directory: &Path, registry: &Registry) -> Result<bool> {
        let mut found = false;
        let mut directories = list(directory)?;
        directories.sort();
        for directory in directories {
            // Names are compared in canonical form.
            let name = directory.file_name().and_then(|name| name.to_str()).map(str::parse::<Registry>);
            if name.is_some_and(|name| name.as_ref() == Ok(registry)) {
                found |= self.add_directory(&directory)?;
            }
        }
        Ok(found)
    }

    /// Adds the certificates from the directory of one registry. Returns whether there were any.
    ///
    /// # Errors
    ///
    /// As [`TlsSettings::add_registry`].
    pub fn add_directory(&mut self, directory: &Path) -> Result<bool> {
        let mut files = list(directory)?;
        files.sort();
        let with_extension = |wanted: &'static str| {
            files.iter().filter(move |file| file.extension().is_some_and(|extension| extension == wanted))
        };
        self.authorities.extend(with_extension("crt").cloned().map(Pem::File));
        if self.identity.is_none()
            && let Some(certificate) = with_extension("cert").next()
        {
            let key = certificate.with_extension("key");
            if !files.contains(&key) {
                let (place, source) =
                    (certificate.display().to_string(), format!("its key {} is missing", key.display()));
                return Err(Error::Identity { place, source: source.into() });
            }
            self.identity = Some(Identity { certificate: Pem::File(certificate.clone()), key: Pem::File(key) });
        }
        Ok(with_extension("crt").chain(with_extension("cert")).next().is_some())
    }
}

fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries,
    };
    let files = entries.and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    files.map_err(|source| Error::Read { path: directory.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_certificates_of_a_host() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir_all(path("a:5000")).unwrap();
        for file in ["b.crt", "a.crt", "client.cert", "client.key", "notes.txt"] {
            fs::write(path("a:5000").join(file), "").unwrap();
        }
        let mut settings = TlsSettings::default();
        let add = |settings: &mut TlsSettings, directory: &Path, name: &str| {
            settings.add_registry(directory, &name.parse().unwrap())
        };
        for other in ["a", "a:5001"] {
            assert!(!add(&mut settings, directory.path(), other).unwrap());
        }
        assert_eq!(settings, TlsSettings::default());
        assert!(!add(&mut settings, &path("nothing"), "a:5000").unwrap());
        assert!(add(&mut settings, directory.path(), "A.:05000").unwrap());
        assert_eq!(settings.authorities, [path("a:5000/a.crt").into(), path("a:5000/b.crt").into()]);
        let identity =
            Identity { certificate: path("a:5000/client.cert").into(), key: path("a:5000/client.key").into() };
        assert_eq!(settings.identity, Some(identity));

        fs::remove_file(path("a:5000/client.key")).unwrap();
        assert!(add(&mut settings, directory.path(), "a:5000").is_ok(), "one that was given counts more");
        assert!(add(&mut TlsSettings::default(), directory.path(), "a:5000").is_err());
    }
}
