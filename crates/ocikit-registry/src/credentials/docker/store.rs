//! Writes the credentials file. All functions block.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ocikit_image::{Error, Result};
use serde::Serialize;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::file::{normalize, server};
use crate::credentials::keychain::Credential;
use crate::credentials::scope::CredentialScope;

/// Returns the contents of the file; `None` if it is missing or empty.
pub(crate) fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>> {
    match ocikit_http::files::read(path) {
        Ok(text) if text.iter().all(u8::is_ascii_whitespace) => Ok(None),
        Ok(text) => Ok(Some(Zeroizing::new(text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::failed("read", path.display(), error)),
    }
}

/// Writes a copy of the file that has a credential for a scope, and no helper for it.
pub(crate) fn copy_with(from: &Path, to: &Path, scope: &CredentialScope, credential: &Credential) -> Result<()> {
    edit(from, to, |file| {
        // Docker takes the empty name for the file itself, even if there is a store for all registries.
        let helpers = object(from, file, "credHelpers")?;
        helpers.retain(|key, _| normalize(key) != scope.to_string());
        helpers.insert(server(scope), json!(""));
        set(object(from, file, "auths")?, scope, entry(credential));
        Ok(true)
    })
    .map(drop)
}

/// Sets the entry of a scope. Without a credential the entry is empty, which means that a helper has it.
pub(crate) fn insert(path: &Path, scope: &CredentialScope, credential: Option<&Credential>) -> Result<()> {
    let entry = credential.map_or(json!({}), entry);
    edit(path, path, |file| {
        set(object(path, file, "auths")?, scope, entry);
        Ok(true)
    })
    .map(drop)
}

fn entry(credential: &Credential) -> Value {
    match credential {
        Credential::Password { username, password } => {
            let pair = Zeroizing::new(format!("{username}:{}", password.reveal()));
            json!({ "auth": STANDARD.encode(pair.as_bytes()) })
        }
        Credential::Identity(token) => json!({ "identitytoken": token.reveal() }),
        Credential::Bearer(token) => json!({ "registrytoken": token.reveal() }),
    }
}

fn set(auths: &mut Map<String, Value>, scope: &CredentialScope, entry: Value) {
    let name = scope.to_string();
    let key = auths.keys().find(|key| normalize(key) == name).cloned();
    auths.insert(key.unwrap_or_else(|| server(scope)), entry);
}

/// Returns an object of the file at a path, which is created if it is missing.
fn object<'a>(path: &Path, file: &'a mut Map<String, Value>, key: &str) -> Result<&'a mut Map<String, Value>> {
    let object = file.entry(key).or_insert_with(|| json!({}));
    if object.is_null() {
        *object = json!({});
    }
    object.as_object_mut().ok_or_else(|| Error::broken(path.display(), format!("its `{key}` are not a JSON object")))
}

/// Removes the entries of a scope and returns whether there were any.
pub(crate) fn remove(path: &Path, scope: &CredentialScope) -> Result<bool> {
    edit(path, path, |file| {
        let auths = object(path, file, "auths")?;
        let (before, name) = (auths.len(), scope.to_string());
        auths.retain(|key, _| normalize(key) != name);
        Ok(auths.len() < before)
    })
}

/// Edits a file and preserves everything else. `change` returns whether it changed anything.
fn edit(from: &Path, to: &Path, change: impl FnOnce(&mut Map<String, Value>) -> Result<bool>) -> Result<bool> {
    let broken = |problem: &str| Error::broken(from.display(), problem.to_owned());
    let text = read(from)?;
    let mut file: Value = match &text {
        Some(text) => serde_json::from_slice(text).map_err(|_| broken("it is not JSON"))?,
        None => json!({}),
    };
    let root = file.as_object_mut().ok_or_else(|| broken("it is not a JSON object"))?;
    let changed = change(root)?;
    if changed {
        write(to, &file).map_err(|error| Error::failed("write", to.display(), error))?;
    }
    Ok(changed)
}

/// Writes a temporary file and renames it, so that the file is never incomplete and never readable by others. Indented
/// as docker does.
fn write(path: &Path, file: &Value) -> io::Result<()> {
    // A symlink stays, and its target is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_directory(directory)?;
    let mut text = Zeroizing::new(Vec::new());
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    file.serialize(&mut serde_json::Serializer::with_formatter(&mut *text, formatter))?;
    text.push(b'\n');
    // `tempfile` creates files with mode 0600.
    let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
    temporary.write_all(&text)?;
    temporary.as_file().sync_all()?;
    temporary.persist(path)?;
    Ok(())
}

#[cfg(unix)]
fn create_directory(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

#[cfg(not(unix))]
fn create_directory(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)
}
