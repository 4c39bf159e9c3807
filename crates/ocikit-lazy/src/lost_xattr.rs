use ocikit_archive::layer::Path;

/// An extended attribute that RAFS cannot hold: its name does not start with `user.`, `trusted.` or `security.` and is not
/// that of an access control list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostXattr {
    /// The file.
    pub path: Path,
    /// The name of the attribute.
    pub name: String,
}
