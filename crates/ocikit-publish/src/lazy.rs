//! Lazily pulled images beside a published one: which formats, where, and their tags.

use std::fmt;
use std::str::FromStr;

use ocikit::{Error, Root, Tag};
use ocikit_lazy::{Format, LazyOptions, Placement, SociVersion, Warning};

/// The lazily pulled images that an image gets.
///
/// ```
/// use ocikit_lazy::Format;
/// use ocikit_publish::LazyRequest;
///
/// let mut request = LazyRequest::default();
/// request.formats = vec![Format::Nydus(Default::default())];
/// request.check()?;
/// let tag = request.tag(&request.formats[0], &"v1".parse()?)?;
/// assert_eq!(tag.as_str(), "v1-fastpull");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LazyRequest {
    /// The formats; none if empty. The version of SOCI follows from the place.
    pub formats: Vec<Format>,
    /// Where they are.
    pub placement: LazyPlacement,
    /// What follows the tag of the image, for [`LazyPlacement::Tag`].
    pub suffix: LazySuffix,
    /// The resources; the placement in it is not used.
    pub options: LazyOptions,
}

/// Where lazily pulled images are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LazyPlacement {
    /// At a second tag: that of the image with a suffix.
    #[default]
    Tag,
    /// In one index beside the image: zstd:chunked, SOCI and Nydus.
    Index,
    /// As referrers of the image: SOCI and Nydus.
    Referrer,
}

/// What follows a tag. `{format}` stands for the name of the format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LazySuffix(String);

/// What stands for the name of the format in a suffix.
const FORMAT: &str = "{format}";

/// Why a lazily pulled image cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LazyError {
    /// The format is not lazily pulled.
    #[error("the format `{0}` is not lazily pulled")]
    NotLazy(&'static str),
    /// A format is listed twice.
    #[error("the format `{0}` is listed twice")]
    Twice(&'static str),
    /// Several formats would have the same tag.
    #[error("several formats would have the tag with the suffix `{0}`; write `{FORMAT}` in the suffix")]
    SameTag(LazySuffix),
    /// No client finds images of the format there.
    #[error("images of the format `{format}` cannot be placed with `{placement}`: no client would find them")]
    Placement {
        /// The format.
        format: &'static str,
        /// The place.
        placement: LazyPlacement,
    },
    /// The name is not that of a placement.
    #[error("`{0}` is none of {names}", names = LazyPlacement::ALL.map(LazyPlacement::name).join(", "))]
    UnknownPlacement(String),
    /// The text cannot end a tag.
    #[error("`{0}` cannot end a tag: use letters, digits, `.`, `_`, `-` and {FORMAT}")]
    Suffix(String),
    /// The tag with the suffix is not valid.
    #[error("cannot put a lazily pulled image beside the tag `{of}`: {problem}")]
    Tag {
        /// The tag of the image.
        of: Tag,
        /// The problem, which names the tag with the suffix.
        problem: String,
    },
    /// The image itself has the tag with the suffix.
    #[error("cannot put a lazily pulled image beside `{of}`: `{taken}` is also a name of the plain image")]
    Taken {
        /// The tag or the place of the image.
        of: String,
        /// The tag or the place with the suffix.
        taken: String,
    },
    /// Nothing of the image can have the format.
    #[error("nothing of the image can have the format `{format}`: {}", reasons(.warnings))]
    NotConverted {
        /// The format.
        format: &'static str,
        /// The reasons.
        warnings: Vec<Warning>,
    },
    /// The conversion failed.
    #[error("cannot convert the image to the format `{format}`")]
    Convert {
        /// The format.
        format: &'static str,
        /// The reason.
        source: Box<Error>,
    },
}

/// A lazily pulled image that is complete, and visible nowhere yet.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LazyImage {
    /// The image or index; for [`LazyPlacement::Index`] with the plain images, and for [`LazyPlacement::Referrer`] the
    /// plain one itself.
    pub root: Root,
    /// The referrers of [`LazyPlacement::Referrer`].
    pub referrers: Vec<Root>,
    /// What the format cannot express, and was left as it is.
    pub warnings: Vec<Warning>,
}

impl LazyPlacement {
    /// All places.
    pub const ALL: [LazyPlacement; 3] = [LazyPlacement::Tag, LazyPlacement::Index, LazyPlacement::Referrer];

    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            LazyPlacement::Tag => "tag",
            LazyPlacement::Index => "index",
            LazyPlacement::Referrer => "referrer",
        }
    }

    fn has(self, format: &Format) -> bool {
        match (self, format) {
            (_, Format::Soci(_) | Format::Nydus(_)) | (LazyPlacement::Tag, _) => true,
            (LazyPlacement::Index, Format::ZstdChunked(_)) => true,
            (LazyPlacement::Index | LazyPlacement::Referrer, _) => false,
        }
    }
}

impl fmt::Display for LazyPlacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for LazyPlacement {
    type Err = LazyError;

    fn from_str(name: &str) -> Result<LazyPlacement, LazyError> {
        let found = LazyPlacement::ALL.into_iter().find(|placement| placement.name() == name);
        found.ok_or_else(|| LazyError::UnknownPlacement(name.to_owned()))
    }
}

impl Default for LazySuffix {
    /// Returns `-fastpull`.
    fn default() -> LazySuffix {
        LazySuffix("-fastpull".to_owned())
    }
}

impl fmt::Display for LazySuffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LazySuffix {
    type Err = LazyError;

    fn from_str(text: &str) -> Result<LazySuffix, LazyError> {
        // A tag that is not the suffix alone has no other rule for its later characters.
        let plain = text.replace(FORMAT, "");
        let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        match plain.chars().all(is_allowed) && !text.is_empty() {
            true => Ok(LazySuffix(text.to_owned())),
            false => Err(LazyError::Suffix(text.to_owned())),
        }
    }
}

impl LazySuffix {
    /// Returns the suffix of a format.
    pub fn of(&self, format: &Format) -> String {
        self.0.replace(FORMAT, format.name())
    }
}

impl LazyRequest {
    /// Returns whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.formats.is_empty()
    }

    /// Checks that clients can find and tell apart the images.
    ///
    /// # Errors
    ///
    /// [`LazyError`].
    pub fn check(&self) -> Result<(), LazyError> {
        for (position, format) in self.formats.iter().enumerate() {
            let name = format.name();
            if let Format::Plain(_) = format {
                return Err(LazyError::NotLazy(name));
            }
            if self.formats[..position].iter().any(|known| known.name() == name) {
                return Err(LazyError::Twice(name));
            }
            if !self.placement.has(format) {
                return Err(LazyError::Placement { format: name, placement: self.placement });
            }
        }
        let is_shared = self.formats.len() > 1 && !self.suffix.0.contains(FORMAT);
        match is_shared && self.placement == LazyPlacement::Tag {
            true => Err(LazyError::SameTag(self.suffix.clone())),
            false => Ok(()),
        }
    }

    /// Returns the tag of the image of a format beside this one.
    ///
    /// # Errors
    ///
    /// [`LazyError::Tag`] if it would be too long.
    pub fn tag(&self, format: &Format, tag: &Tag) -> Result<Tag, LazyError> {
        let lazy = format!("{tag}{}", self.suffix.of(format));
        let wrong = |error: ocikit::spec::Error| LazyError::Tag { of: tag.clone(), problem: error.to_string() };
        lazy.parse().map_err(wrong)
    }

    /// Checks, before an image is published under these tags, that each has a tag beside it for every format, and that
    /// the image itself has none of those.
    ///
    /// ```
    /// use ocikit_lazy::Format;
    /// use ocikit_publish::{LazyError, LazyRequest};
    ///
    /// let mut request = LazyRequest::default();
    /// request.formats = vec![Format::Nydus(Default::default())];
    /// request.check_tags(&["main".parse()?, "v1".parse()?])?;
    /// let error = request.check_tags(&["main".parse()?, "main-fastpull".parse()?]).unwrap_err();
    /// assert!(matches!(error, LazyError::Taken { .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`LazyError::Tag`] and [`LazyError::Taken`]; none for places other than [`LazyPlacement::Tag`].
    pub fn check_tags(&self, tags: &[Tag]) -> Result<(), LazyError> {
        if self.placement != LazyPlacement::Tag {
            return Ok(());
        }
        for format in &self.formats {
            for tag in tags {
                let taken = self.tag(format, tag)?;
                if tags.contains(&taken) {
                    return Err(LazyError::Taken { of: tag.to_string(), taken: taken.to_string() });
                }
            }
        }
        Ok(())
    }

    /// Makes the image of a format. It is read from the source of the root, which must have its layers.
    ///
    /// ```no_run
    /// use ocikit::{Location, Session};
    /// use ocikit_lazy::rafs::NydusOptions;
    /// use ocikit_lazy::{Format, LazyOptions, convert};
    ///
    /// async fn beside(session: &Session, plain: &Location, lazy: &Location) -> Result<(), Box<dyn std::error::Error>> {
    ///     let root = session.open(plain).await?;
    ///     let converted = convert(&root, &Format::Nydus(NydusOptions::default()), &LazyOptions::default()).await?;
    ///     if !converted.is_converted() {
    ///         return Err("nothing of the image can have this format".into());
    ///     }
    ///     // Blobs first, then documents, and the tag last.
    ///     session.copy_root(&converted.mapped.root, lazy).await?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`LazyError::Convert`] and [`LazyError::NotConverted`].
    pub async fn convert(&self, root: &Root, format: &Format) -> Result<LazyImage, LazyError> {
        let mut options = self.options.clone();
        let mut format = format.clone();
        options.placement = match self.placement {
            LazyPlacement::Tag => Placement::Replace,
            LazyPlacement::Index => Placement::Index,
            LazyPlacement::Referrer => Placement::Referrer,
        };
        if let Format::Soci(soci) = &mut format {
            soci.version = match self.placement {
                LazyPlacement::Tag | LazyPlacement::Index => SociVersion::V2,
                LazyPlacement::Referrer => SociVersion::V1,
            };
        }
        let name = format.name();
        let converted = ocikit_lazy::convert(root, &format, &options).await;
        let converted = converted.map_err(|source| LazyError::Convert { format: name, source: Box::new(source) })?;
        match converted.is_converted() {
            true => Ok(LazyImage {
                root: converted.mapped.root,
                referrers: converted.referrers,
                warnings: converted.warnings,
            }),
            false => Err(LazyError::NotConverted { format: name, warnings: converted.warnings }),
        }
    }
}

fn reasons(warnings: &[Warning]) -> String {
    let first = warnings.first().map(ToString::to_string).unwrap_or_default();
    match warnings.len() {
        0 | 1 => first,
        more => format!("{first} (and {} more)", more - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(formats: &[Format], placement: LazyPlacement, suffix: &str) -> LazyRequest {
        let options = LazyOptions::default();
        LazyRequest { formats: formats.to_vec(), placement, suffix: suffix.parse().unwrap(), options }
    }

    #[test]
    fn formats_have_places_in_which_clients_find_them() {
        let nydus = || Format::Nydus(Default::default());
        let estargz = || Format::Estargz(Default::default());
        let chunked = || Format::ZstdChunked(Default::default());
        let soci = || Format::Soci(Default::default());
        for (formats, placement, suffix, accepted) in [
            (vec![nydus()], LazyPlacement::Tag, "-fastpull", true),
            (vec![nydus(), estargz()], LazyPlacement::Tag, "-fastpull", false),
            (vec![nydus(), estargz()], LazyPlacement::Tag, "-{format}", true),
            (vec![nydus(), nydus()], LazyPlacement::Tag, "-{format}", false),
            (vec![nydus(), soci(), chunked()], LazyPlacement::Index, "-x", true),
            (vec![estargz()], LazyPlacement::Index, "-x", false),
            (vec![nydus(), soci()], LazyPlacement::Referrer, "-x", true),
            (vec![chunked()], LazyPlacement::Referrer, "-x", false),
            (vec![Format::Plain(Default::default())], LazyPlacement::Tag, "-x", false),
        ] {
            let checked = request(&formats, placement, suffix).check();
            assert_eq!(checked.is_ok(), accepted, "{formats:?} {placement} {checked:?}");
        }
    }

    #[test]
    fn suffixes_end_tags() {
        let request = request(&[], LazyPlacement::Tag, "-{format}");
        let tag = request.tag(&Format::Nydus(Default::default()), &"v1".parse().unwrap()).unwrap();
        assert_eq!(tag.as_str(), "v1-nydus");
        let long: Tag = "x".repeat(125).parse().unwrap();
        assert!(request.tag(&Format::Nydus(Default::default()), &long).is_err());
        for wrong in ["", "/x", " ", "-{form}", "ä"] {
            assert!(wrong.parse::<LazySuffix>().is_err(), "{wrong}");
        }
    }
}
