use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use ocikit_image::Name;
use ocikit_spec::{Digest, Reference, Tag};

/// The location of an image: a directory, an archive, a registry, or a pipe.
///
/// The kind is decided by the text alone, never by the file system:
///
/// | text | is |
/// |---|---|
/// | `oci:PATH[:NAME][@DIGEST]` (synonyms `ocidir://`, `oci-layout://`) | OCI layout directory |
/// | `oci-archive:PATH[:NAME][@DIGEST]` | OCI layout in a tar |
/// | `docker-archive:PATH[:NAME[:TAG]\|@DIGEST]` | archive in the format of `docker save` |
/// | `docker://REFERENCE` | registry |
/// | `.`, `..`, or begins with `/`, `./`, `../`, `~/` or a Windows drive (`C:\`, `C:/`), or ends in `.tar`, `.tar.gz`, `.tgz`, `.tar.zst`,
/// `.tar.xz`, `.tar.bz2`, then optionally `#TAG` or `#FULL-NAME`, `@DIGEST` or both | path |
/// | `-` | an archive on standard input or output |
/// | anything else | registry reference |
///
/// A NAME is a tag or a full name, such as `docker.io/library/app:1`. A `#` starts a name only directly after one of these suffixes: `dir#7/app.tar` and `./app#1` are paths as a whole.
///
/// ```
/// use ocikit::Location;
///
/// assert!(matches!("app.tar#v1".parse()?, Location::Path { .. }));
/// assert!(matches!("app".parse()?, Location::Registry(_)));
/// assert!(matches!("oci:app:v1".parse()?, Location::Layout { .. }));
/// # Ok::<(), ocikit::spec::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// An OCI layout in a directory.
    Layout {
        /// The directory.
        path: PathBuf,
        /// The selected image.
        name: Name,
    },
    /// An OCI layout in a tar.
    Archive {
        /// The file.
        path: PathBuf,
        /// The selected image.
        name: Name,
    },
    /// An archive in the format of `docker save`.
    DockerArchive {
        /// The file.
        path: PathBuf,
        /// The selected image.
        name: Name,
    },
    /// A path. For reading, the contents decide what it is. For writing, a name with a suffix such as `.tar` is an OCI
    /// archive, any other an OCI layout directory.
    Path {
        /// The path.
        path: PathBuf,
        /// The selected image.
        name: Name,
    },
    /// An archive on standard input or output.
    Stdio,
    /// A registry.
    Registry(Reference),
}

/// The suffixes that make a text without a slash a path.
const ARCHIVE_SUFFIXES: [&str; 6] = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2"];

/// The beginnings of a path.
const PATH_STARTS: [&str; 4] = ["/", "./", "../", "~/"];

/// Transports of other tools, and what to write instead. They are never taken for repositories on Docker Hub.
const FOREIGN_TRANSPORTS: [(&str, &str); 8] = [
    ("dir:", "write `oci:PATH` for an OCI layout"),
    ("docker-daemon:", "save the image with `docker save -o app.tar NAME` and write `./app.tar`"),
    ("containers-storage:", "save the image with `podman save -o app.tar NAME` and write `./app.tar`"),
    ("ostree:", "write `oci:PATH` for an OCI layout"),
    ("sif:", "write `oci-archive:PATH` for an OCI archive"),
    ("tarball:", "write `oci-archive:PATH` for an OCI archive"),
    ("atomic:", "write `docker://REFERENCE` for a registry"),
    ("oci-layout:", "write `oci:PATH` or `oci-layout://PATH` for an OCI layout"),
];

impl Location {
    /// Returns the location of an OCI layout in a directory, as `oci:PATH` does. Select an image in it with
    /// [`Location::with_name`].
    ///
    /// ```
    /// use ocikit::{Location, Tag};
    ///
    /// let layout = Location::layout("images");
    /// assert_eq!(layout, "oci:images".parse()?);
    /// assert_eq!(layout.with_name("v1".parse::<Tag>()?.into()), "oci:images:v1".parse()?);
    /// # Ok::<(), ocikit::spec::Error>(())
    /// ```
    pub fn layout(path: impl Into<PathBuf>) -> Location {
        Location::Layout { path: path.into(), name: Name::Only }
    }

    /// Returns the location of an OCI archive, as `oci-archive:PATH` does.
    ///
    /// ```
    /// use ocikit::Location;
    ///
    /// assert_eq!(Location::archive("app.tar"), "oci-archive:app.tar".parse()?);
    /// # Ok::<(), ocikit::spec::Error>(())
    /// ```
    pub fn archive(path: impl Into<PathBuf>) -> Location {
        Location::Archive { path: path.into(), name: Name::Only }
    }

    /// Returns the location of an archive in the format of `docker save`, as `docker-archive:PATH` does.
    ///
    /// ```
    /// use ocikit::Location;
    ///
    /// assert_eq!(Location::docker_archive("app.tar"), "docker-archive:app.tar".parse()?);
    /// # Ok::<(), ocikit::spec::Error>(())
    /// ```
    pub fn docker_archive(path: impl Into<PathBuf>) -> Location {
        Location::DockerArchive { path: path.into(), name: Name::Only }
    }

    /// Returns a location in a registry.
    ///
    /// ```
    /// use ocikit::{Location, Reference};
    ///
    /// let reference: Reference = "ghcr.io/acme/app:1".parse()?;
    /// assert_eq!(Location::registry(reference), "ghcr.io/acme/app:1".parse()?);
    /// # Ok::<(), ocikit::spec::Error>(())
    /// ```
    pub fn registry(reference: Reference) -> Location {
        Location::Registry(reference)
    }

    /// Returns the location of another image in the same place.
    #[must_use]
    pub fn with_name(&self, name: Name) -> Location {
        let mut location = self.clone();
        match &mut location {
            Location::Layout { name: old, .. }
            | Location::Archive { name: old, .. }
            | Location::DockerArchive { name: old, .. }
            | Location::Path { name: old, .. } => *old = name,
            Location::Registry(reference) => match name {
                Name::Tag(tag) => *reference = Reference::tagged(reference.repository().clone(), tag),
                Name::Digest(digest) => *reference = Reference::digested(reference.repository().clone(), digest),
                Name::Only | Name::Full(_) => {}
            },
            Location::Stdio => {}
        }
        location
    }

    /// Replaces the user name and password in the text of a location by `***`, as [`ocikit_spec::hide_user_information`] does.
    /// Paths stay as they are.
    ///
    /// ```
    /// use ocikit::Location;
    ///
    /// assert_eq!(Location::hide_user_information("https://alice:secret@host/app.tar"), "https://***@host/app.tar");
    /// assert_eq!(Location::hide_user_information("oci:dir/a@b.c"), "oci:dir/a@b.c");
    /// ```
    pub fn hide_user_information(text: &str) -> Cow<'_, str> {
        let mut starts =
            PATH_STARTS.iter().chain(&["oci:", "ocidir:", "oci-layout:", "oci-archive:", "docker-archive:"]);
        match starts.any(|start| text.starts_with(start)) || has_drive(text) {
            true => Cow::Borrowed(text),
            false => ocikit_spec::hide_user_information(text),
        }
    }

    /// Returns whether writing to a path creates an archive.
    pub fn names_an_archive(path: &std::path::Path) -> bool {
        path.file_name().and_then(|name| name.to_str()).is_some_and(ends_like_an_archive)
    }

    /// Returns the name that selects the image in its place.
    pub fn name(&self) -> Name {
        match self {
            Location::Layout { name, .. }
            | Location::Archive { name, .. }
            | Location::DockerArchive { name, .. }
            | Location::Path { name, .. } => name.clone(),
            Location::Stdio => Name::Only,
            Location::Registry(reference) => reference.into(),
        }
    }

    /// Returns the reference of a location in a registry.
    pub fn reference(&self) -> Option<&Reference> {
        match self {
            Location::Registry(reference) => Some(reference),
            Location::Layout { .. }
            | Location::Archive { .. }
            | Location::DockerArchive { .. }
            | Location::Path { .. }
            | Location::Stdio => None,
        }
    }

    /// Returns whether the location is a docker archive, which holds one platform of an index only.
    pub fn is_docker_archive(&self) -> bool {
        matches!(self, Location::DockerArchive { .. })
    }

    /// Returns the path of a file or directory.
    pub fn path(&self) -> Option<&std::path::Path> {
        match self {
            Location::Layout { path, .. }
            | Location::Archive { path, .. }
            | Location::DockerArchive { path, .. }
            | Location::Path { path, .. } => Some(path),
            Location::Stdio | Location::Registry(_) => None,
        }
    }

    /// Returns whether both locations are in the same repository, archive or directory, as far as the text shows.
    pub(crate) fn is_beside(&self, other: &Location) -> bool {
        match (self.reference(), other.reference()) {
            (Some(one), Some(other)) => one.repository() == other.repository(),
            _ => {
                let is_same_kind = std::mem::discriminant(self) == std::mem::discriminant(other);
                is_same_kind && self.path().is_some() && self.path() == other.path()
            }
        }
    }

    /// Returns the path of a file or directory, to change it.
    pub fn path_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Location::Layout { path, .. }
            | Location::Archive { path, .. }
            | Location::DockerArchive { path, .. }
            | Location::Path { path, .. } => Some(path),
            Location::Stdio | Location::Registry(_) => None,
        }
    }
}

impl From<Reference> for Location {
    fn from(reference: Reference) -> Location {
        Location::Registry(reference)
    }
}

impl From<&Reference> for Location {
    fn from(reference: &Reference) -> Location {
        Location::Registry(reference.clone())
    }
}

/// Returns the location of a path: for reading, the contents decide what it is. See [`Location::Path`].
impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Location {
        Location::Path { path, name: Name::Only }
    }
}

/// Returns the location of a path: for reading, the contents decide what it is. See [`Location::Path`].
impl From<&std::path::Path> for Location {
    fn from(path: &std::path::Path) -> Location {
        path.to_owned().into()
    }
}

impl FromStr for Location {
    type Err = ocikit_spec::Error;

    fn from_str(text: &str) -> Result<Location, Self::Err> {
        Location::parse_or(text, |text| Ok(Location::Registry(text.parse()?)))
    }
}

impl Location {
    /// Reads a location where only a file or directory is possible: a text that names nothing else is a path, not a registry
    /// reference.
    ///
    /// ```
    /// use ocikit::Location;
    ///
    /// assert!(matches!(Location::parse_path("app")?, Location::Path { .. }));
    /// assert!(matches!(Location::parse_path("oci:app:v1")?, Location::Layout { .. }));
    /// # Ok::<(), ocikit::spec::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// An empty text, a prefix without a path, and transports of other tools.
    pub fn parse_path(text: &str) -> Result<Location, ocikit_spec::Error> {
        Location::parse_or(text, |text| match text.is_empty() {
            true => Err(refuse(text, "the path is empty")),
            false => {
                let (path, name) = path_and_choice(text);
                Ok(Location::Path { path: path.into(), name })
            }
        })
    }

    /// Reads a location; `otherwise` reads what is neither `-`, nor has a prefix, nor looks like a path.
    fn parse_or(
        text: &str,
        otherwise: impl Fn(&str) -> Result<Location, ocikit_spec::Error>,
    ) -> Result<Location, ocikit_spec::Error> {
        if text == "-" {
            return Ok(Location::Stdio);
        }
        if let Some(reference) = text.strip_prefix("docker://") {
            return Ok(Location::Registry(reference.parse()?));
        }
        for (prefix, make) in [
            ("ocidir://", (|path, name| Location::Layout { path, name }) as fn(PathBuf, Name) -> Location),
            ("oci-layout://", |path, name| Location::Layout { path, name }),
            ("oci:", |path, name| Location::Layout { path, name }),
            ("oci-archive:", |path, name| Location::Archive { path, name }),
            ("docker-archive:", |path, name| Location::DockerArchive { path, name: full(name) }),
        ] {
            if let Some(rest) = text.strip_prefix(prefix) {
                let (path, name) = path_and_name(rest);
                return match path.is_empty() {
                    true => Err(refuse(text, "no path follows the colon")),
                    false => Ok(make(path.into(), name)),
                };
            }
        }
        for (transport, instead) in FOREIGN_TRANSPORTS {
            if text.starts_with(transport) {
                return Err(ocikit_spec::Error::Transport { transport, instead });
            }
        }
        let (path, name) = path_and_choice(text);
        let is_path = PATH_STARTS.iter().any(|start| text.starts_with(start)) || [".", ".."].contains(&text);
        if is_path || has_drive(text) || ends_like_an_archive(path) {
            return Ok(Location::Path { path: path.into(), name });
        }
        otherwise(text)
    }
}

/// Splits `PATH`, `PATH:TAG`, `PATH:FULL-NAME` or `PATH@DIGEST` like skopeo: the first colon ends the path, except the
/// one of a drive letter.
fn path_and_name(text: &str) -> (&str, Name) {
    if let Some((path, digest)) = text.rsplit_once('@')
        && let Ok(digest) = digest.parse::<Digest>()
    {
        // A tag beside a digest, as messages show it, is not looked up: the digest selects the image.
        return (path_and_name(path).0, Name::Digest(digest));
    }
    let drive = if has_drive(text) { DRIVE_LENGTH } else { 0 };
    let colon = text[drive..].find(':').map(|at| drive + at);
    match colon.map(|at| (&text[..at], &text[at + 1..])) {
        None => (text, Name::Only),
        Some((path, "")) => (path, Name::Only),
        Some((path, name)) => (path, name.parse::<Tag>().map_or_else(|_| Name::Full(name.to_owned()), Name::Tag)),
    }
}

/// The length of a Windows drive, `C:`, in bytes.
const DRIVE_LENGTH: usize = 2;

/// Returns whether a text starts with a Windows drive: `C:\` or `C:/`. No tag or name starts with a slash, so such a
/// colon cannot end a path of one letter.
fn has_drive(text: &str) -> bool {
    matches!(text.as_bytes(), [letter, b':', b'\\' | b'/', ..] if letter.is_ascii_alphabetic())
}

/// Returns the full name for a docker archive: a name without a tag means `latest`.
fn full(name: Name) -> Name {
    match name {
        Name::Tag(name) => Name::Full(name.to_string()),
        name => name,
    }
}

/// Splits `PATH`, `PATH#TAG` or `PATH@DIGEST`. A path may contain `#`; it separates a tag only after the suffix of an
/// archive (docker/buildx#4092).
fn path_and_choice(text: &str) -> (&str, Name) {
    if let Some((path, digest)) = text.rsplit_once('@')
        && let Ok(digest) = digest.parse::<Digest>()
    {
        return (path_and_choice(path).0, Name::Digest(digest));
    }
    if ends_like_an_archive(text) {
        return (text, Name::Only);
    }
    for (at, _) in text.match_indices('#').filter(|(at, _)| ends_like_an_archive(&text[..*at])) {
        let (path, name) = (&text[..at], &text[at + 1..]);
        if let Ok(tag) = name.parse::<Tag>() {
            return (path, Name::Tag(tag));
        }
        if name.parse::<Reference>().is_ok() {
            return (path, Name::Full(name.to_owned()));
        }
    }
    (text, Name::Only)
}

fn ends_like_an_archive(text: &str) -> bool {
    ARCHIVE_SUFFIXES.iter().any(|ending| text.len() > ending.len() && text.ends_with(ending))
}

fn refuse(text: &str, problem: &'static str) -> ocikit_spec::Error {
    ocikit_spec::Error::Reference { text: Location::hide_user_information(text).into_owned(), problem }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefix, path, name) = match self {
            Location::Stdio => return f.write_str("-"),
            Location::Registry(reference) => return reference.fmt(f),
            Location::Layout { path, name } => ("oci:", path, name),
            Location::Archive { path, name } => ("oci-archive:", path, name),
            Location::DockerArchive { path, name } => ("docker-archive:", path, name),
            Location::Path { path, name } => ("", path, name),
        };
        let separator = if prefix.is_empty() { '#' } else { ':' };
        write!(f, "{prefix}{}", path.display())?;
        match name {
            Name::Only => Ok(()),
            Name::Tag(tag) => write!(f, "{separator}{tag}"),
            Name::Full(full) => write!(f, "{separator}{full}"),
            Name::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn tag(text: &str) -> Name {
        Name::Tag(text.parse().unwrap())
    }

    #[test]
    fn location_kind_depends_on_text_alone() {
        let path = |path: &str, name: Name| Location::Path { path: path.into(), name };
        let registry = |text: &str| Location::Registry(text.parse().unwrap());
        let digest = || Name::Digest(DIGEST.parse().unwrap());
        for (text, location) in [
            ("-", Location::Stdio),
            ("app.tar", path("app.tar", Name::Only)),
            ("app.tar#v1", path("app.tar", tag("v1"))),
            ("app.tar#docker.io/acme/app:1", path("app.tar", Name::Full("docker.io/acme/app:1".to_owned()))),
            (&format!("app.tar.gz@{DIGEST}"), path("app.tar.gz", digest())),
            ("dir/app.tgz", path("dir/app.tgz", Name::Only)),
            ("app.tar.zst", path("app.tar.zst", Name::Only)),
            ("./app", path("./app", Name::Only)),
            ("./app#1", path("./app#1", Name::Only)),
            ("./app.tar#1", path("./app.tar", tag("1"))),
            ("dir#7/app.tar", path("dir#7/app.tar", Name::Only)),
            ("dir#7/app.tar#1", path("dir#7/app.tar", tag("1"))),
            ("app#1.2.tar", path("app#1.2.tar", Name::Only)),
            ("app#1.2.tar#v1", path("app#1.2.tar", tag("v1"))),
            ("a.tar#7/b.tar", path("a.tar#7/b.tar", Name::Only)),
            ("app.tar.xz", path("app.tar.xz", Name::Only)),
            ("app.tar.bz2#v1", path("app.tar.bz2", tag("v1"))),
            (r"C:\images\app", path(r"C:\images\app", Name::Only)),
            (r"oci:C:\x:1", Location::Layout { path: r"C:\x".into(), name: tag("1") }),
            ("oci:C:/x", Location::Layout { path: "C:/x".into(), name: Name::Only }),
            ("oci:C:x", Location::Layout { path: "C".into(), name: tag("x") }),
            (r"oci-archive:d:\a.tar:v1", Location::Archive { path: r"d:\a.tar".into(), name: tag("v1") }),
            (
                r"docker-archive:d:\a.tar:x:1",
                Location::DockerArchive { path: r"d:\a.tar".into(), name: Name::Full("x:1".into()) },
            ),
            ("../x:1", path("../x:1", Name::Only)),
            ("/x", path("/x", Name::Only)),
            ("~/x", path("~/x", Name::Only)),
            (".", path(".", Name::Only)),
            ("..", path("..", Name::Only)),
            ("oci:dir", Location::Layout { path: "dir".into(), name: Name::Only }),
            ("oci:dir:v1", Location::Layout { path: "dir".into(), name: tag("v1") }),
            (
                "oci:/a/b:docker.io/x:1",
                Location::Layout { path: "/a/b".into(), name: Name::Full("docker.io/x:1".into()) },
            ),
            (&format!("oci:dir@{DIGEST}"), Location::Layout { path: "dir".into(), name: digest() }),
            ("oci-archive:a.tar:v1", Location::Archive { path: "a.tar".into(), name: tag("v1") }),
            (
                "docker-archive:a.tar:x:1",
                Location::DockerArchive { path: "a.tar".into(), name: Name::Full("x:1".into()) },
            ),
            ("docker-archive:a.tar:x", Location::DockerArchive { path: "a.tar".into(), name: Name::Full("x".into()) }),
            ("ocidir://dir:v1", Location::Layout { path: "dir".into(), name: tag("v1") }),
            ("oci-layout:///srv/dir", Location::Layout { path: "/srv/dir".into(), name: Name::Only }),
            ("docker://alpine", registry("alpine")),
            ("docker://localhost:5000/a.tar", registry("localhost:5000/a.tar")),
            ("alpine", registry("alpine")),
            ("app/tar", registry("app/tar")),
            ("ghcr.io/acme/app:1", registry("ghcr.io/acme/app:1")),
            ("tar", registry("tar")),
        ] {
            assert_eq!(text.parse::<Location>().unwrap(), location, "{text}");
        }
        for text in ["", ".tar", "oci:", "oci-archive:", "docker://", "App", "a b", "docker://./x"] {
            assert!(text.parse::<Location>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_drive_letter_is_part_of_the_path() {
        let layout = |path: &str, name: Name| Location::Layout { path: path.into(), name };
        for (text, location) in [
            ("oci:C:\\x:1", layout("C:\\x", tag("1"))),
            ("oci:c:/x/y", layout("c:/x/y", Name::Only)),
            ("oci:C:\\x:docker.io/x:1", layout("C:\\x", Name::Full("docker.io/x:1".to_owned()))),
            (&format!("oci:C:\\x@{DIGEST}"), layout("C:\\x", Name::Digest(DIGEST.parse().unwrap()))),
            ("oci-archive:D:\\a.tar:v1", Location::Archive { path: "D:\\a.tar".into(), name: tag("v1") }),
            (
                "docker-archive:D:/a.tar:x:1",
                Location::DockerArchive { path: "D:/a.tar".into(), name: Name::Full("x:1".to_owned()) },
            ),
            ("C:\\dir", Location::Path { path: "C:\\dir".into(), name: Name::Only }),
            ("C:\\dir#1", Location::Path { path: "C:\\dir#1".into(), name: Name::Only }),
            // A directory named `C`, and a tag.
            ("oci:C:x", layout("C", tag("x"))),
            ("oci:C:1", layout("C", tag("1"))),
        ] {
            assert_eq!(text.parse::<Location>().unwrap(), location, "{text}");
            assert_eq!(location.to_string(), text);
        }
    }

    #[test]
    fn transports_of_other_tools_are_rejected() {
        for text in [
            "dir:/x",
            "dir:x",
            "docker-daemon:alpine:latest",
            "containers-storage:alpine",
            "ostree:x@/y",
            "sif:x.sif",
            "tarball:x",
            "atomic:x",
            "oci-layout:x",
        ] {
            let error = text.parse::<Location>().unwrap_err();
            let ocikit_spec::Error::Transport { transport, instead } = error else { panic!("{text}: {error}") };
            assert!(text.starts_with(transport) && instead.contains("write `"), "{text}: {instead}");
        }
        // Only the transport is rejected, not a repository with the same name.
        assert!(matches!("docker://dir:1".parse::<Location>().unwrap(), Location::Registry(_)));
    }

    #[test]
    fn a_digest_binds_beside_a_tag() {
        for (text, shown) in [
            ("oci:dir:1", "oci:dir"),
            ("oci:C:\\x:1", "oci:C:\\x"),
            ("oci-archive:a.tar:1", "oci-archive:a.tar"),
            ("docker-archive:a.tar:acme/x:1", "docker-archive:a.tar"),
            ("st.tar#1", "st.tar"),
            ("./d/st.tar#docker.io/acme/x:1", "./d/st.tar"),
        ] {
            let location = format!("{text}@{DIGEST}").parse::<Location>().unwrap();
            assert_eq!(location.to_string(), format!("{shown}@{DIGEST}"));
            assert_eq!(location.name(), Name::Digest(DIGEST.parse().unwrap()));
        }
    }

    #[test]
    fn text_round_trips() {
        for text in
            ["-", "app.tar#v1", r"oci:C:\x:1", "./x", "oci:dir:v1", "oci-archive:a.tar", "docker-archive:a.tar:x:1"]
        {
            assert_eq!(text.parse::<Location>().unwrap().to_string(), text);
        }
        assert_eq!("alpine".parse::<Location>().unwrap().to_string(), "docker.io/library/alpine:latest");
        let digest = format!("app.tar@{DIGEST}");
        assert_eq!(digest.parse::<Location>().unwrap().to_string(), digest);
    }
}
