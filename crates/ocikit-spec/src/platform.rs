use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, excerpt};

/// The platform of an image.
///
/// Image specification, "Image Index Property Descriptions". Written `os/architecture[/variant]`, with the version of
/// the operating system in parentheses if there is one, as containerd does: `windows(10.0.20348)/amd64`.
///
/// ```
/// use ocikit_spec::Platform;
///
/// let platform: Platform = "linux/arm64".parse()?;
/// assert_eq!(platform, Platform::new("linux", "arm64"));
/// assert!(platform.accepts(&"linux/arm64/v8".parse()?));
/// # Ok::<(), ocikit_spec::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// The architecture, by Go's name for it: `amd64`, `arm64`, …
    pub architecture: String,
    /// The operating system, by Go's name for it: `linux`, `windows`, …
    pub os: String,
    /// The version of the operating system, for Windows images.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// The features that the operating system must have.
    #[serde(
        rename = "os.features",
        default,
        deserialize_with = "crate::json::null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// The variant of the architecture: `v7`, `v8`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// Creates a platform without a variant.
    pub fn new(os: impl Into<String>, architecture: impl Into<String>) -> Platform {
        Platform {
            os: os.into(),
            architecture: architecture.into(),
            os_version: None,
            os_features: Vec::new(),
            variant: None,
        }
    }

    /// Returns the platform that this program was compiled for, with Linux as the operating system, because containers
    /// run on Linux on every host.
    pub fn of_this_machine() -> Platform {
        Platform::new("linux", std::env::consts::ARCH).normalized()
    }

    /// Returns the platform in its usual spelling: `x86_64` is `amd64`, `aarch64` is `arm64`, `armhf` is `arm/v7`. The
    /// default variant `v8` of `arm64` is removed, and `v7` of `arm` is added.
    pub fn normalized(&self) -> Platform {
        let (architecture, implied) = match self.architecture.to_ascii_lowercase().as_str() {
            "x86_64" | "x86-64" => ("amd64".to_owned(), None),
            "i386" | "x86" | "i486" | "i586" | "i686" => ("386".to_owned(), None),
            "aarch64" => ("arm64".to_owned(), None),
            "armhf" => ("arm".to_owned(), Some("v7")),
            "armel" => ("arm".to_owned(), Some("v6")),
            other => (other.to_owned(), None),
        };
        let variant = self.variant.as_deref().filter(|variant| !variant.is_empty()).or(implied);
        let variant = match (architecture.as_str(), variant) {
            ("arm64", Some("8" | "v8" | "v8.0")) | ("amd64", Some("1" | "v1")) => None,
            ("arm", None) => Some("v7".to_owned()),
            ("arm", Some(number @ ("5" | "6" | "7" | "8"))) => Some(format!("v{number}")),
            (_, variant) => variant.map(str::to_owned),
        };
        Platform {
            os: self.os.to_ascii_lowercase(),
            architecture,
            os_version: self.os_version.clone().filter(|version| !version.is_empty()),
            os_features: self.os_features.clone(),
            variant,
        }
    }

    /// Returns whether an image for `other` can be used for this platform.
    pub fn accepts(&self, other: &Platform) -> bool {
        self.rank(other).is_some()
    }

    /// Returns how well an image for `found` fits this platform: the lowest rank is the best, and `None` means that it
    /// cannot be used. Of several images with the same rank, the first is used.
    ///
    /// Variants are ordered like `platforms.Only` of containerd: the requested variant, then the lower ones that run on
    /// it, so `linux/arm`, which means v7, accepts v7, v6 and v5 in this order, and `linux/amd64/v3` accepts v3, v2 and
    /// no variant. A platform without a variant accepts higher ones if there is nothing else. Another architecture is
    /// never accepted. A version of the operating system must be a prefix of that of the image.
    ///
    /// ```
    /// use ocikit_spec::Platform;
    ///
    /// let wanted: Platform = "linux/arm".parse()?;
    /// let found: Vec<Platform> = ["linux/arm/v5", "linux/arm/v7"].iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    /// let best = found.iter().filter(|found| wanted.accepts(found)).min_by_key(|found| wanted.rank(found));
    /// assert_eq!(best.unwrap().to_string(), "linux/arm/v7");
    /// # Ok::<(), ocikit_spec::Error>(())
    /// ```
    pub fn rank(&self, found: &Platform) -> Option<u32> {
        /// The rank of higher variants for a platform without one, after all others.
        const LAST: u32 = 1 << 16;
        let (wanted, found) = (self.normalized(), found.normalized());
        let version = match (&wanted.os_version, &found.os_version) {
            (Some(wanted), Some(found)) => found.starts_with(wanted.as_str()),
            (wanted, _) => wanted.is_none(),
        };
        let features = wanted.os_features.iter().all(|feature| found.os_features.contains(feature));
        if wanted.os != found.os || wanted.architecture != found.architecture || !version || !features {
            return None;
        }
        let is_named = |variant: &Option<String>| variant.as_deref().is_some_and(|variant| !variant.is_empty());
        let any = !is_named(&self.variant) && !["armhf", "armel"].contains(&self.architecture.as_str());
        match (wanted.level(), found.level()) {
            _ if wanted.variant == found.variant => Some(0),
            (Some(wanted), Some(found)) if found <= wanted => Some(wanted - found),
            (Some(wanted), Some(found)) if any => Some(LAST + (found - wanted)),
            (None, _) | (_, None) if any => Some(2 * LAST),
            _ => None,
        }
    }

    /// Returns the variant of a normalized platform as a number that grows with the capabilities of the processor, for
    /// architectures on which lower variants run as well.
    fn level(&self) -> Option<u32> {
        let lowest = match self.architecture.as_str() {
            "amd64" => "v1",
            "arm64" => "v8",
            "arm" => "v7",
            _ => return None,
        };
        let number = self.variant.as_deref().unwrap_or(lowest).strip_prefix('v')?;
        let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
        let (major, minor): (u8, u8) = (major.parse().ok()?, minor.parse().ok()?);
        Some(u32::from(major) << 8 | u32::from(minor))
    }

    /// Returns whether the platform is unspecified, such as BuildKit's `unknown/unknown` on attestation manifests.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Platform> {
        let refuse = |problem| Error::Platform { text: excerpt(text), problem };
        let mut parts = text.split('/');
        let (os, architecture, variant) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        let architecture = architecture.ok_or_else(|| refuse("it has no architecture, as in `linux/amd64`"))?;
        if parts.next().is_some() {
            return Err(refuse("it has more than three parts"));
        }
        let (os, os_version) = match os.split_once('(') {
            Some((os, rest)) => {
                let version = rest.strip_suffix(')').ok_or_else(|| refuse("a parenthesis is not closed"))?;
                (os, Some(version.to_owned()))
            }
            None => (os, None),
        };
        let words = [Some(os), Some(architecture), variant];
        let is_word = |word: &str| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        if !words.into_iter().flatten().all(is_word) || os_version.as_deref() == Some("") {
            return Err(refuse("a part is empty or has a character other than letters, digits, `_`, `-` and `.`"));
        }
        let variant = variant.map(str::to_owned);
        Ok(Platform { os_version, variant, ..Platform::new(os, architecture) })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        if let Some(version) = &self.os_version {
            write!(f, "({version})")?;
        }
        write!(f, "/{}", self.architecture)?;
        match &self.variant {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn text_round_trips() {
        for text in ["linux/amd64", "linux/arm/v7", "windows(10.0.20348.1)/amd64", "unknown/unknown"] {
            assert_eq!(platform(text).to_string(), text);
        }
        for text in ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "windows(10/amd64", "windows()/amd64", "a b/c"]
        {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn accepts_compatible_platforms() {
        for (wanted, found, accepts) in [
            ("linux/amd64", "linux/amd64", true),
            ("linux/x86_64", "linux/amd64", true),
            ("linux/amd64", "linux/arm64", false),
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/arm64/v8", "linux/arm64", true),
            ("linux/aarch64", "linux/arm64/v8", true),
            ("linux/arm", "linux/arm/v6", true),
            ("linux/arm/v7", "linux/arm", true),
            ("linux/arm/v7", "linux/arm/v6", true),
            ("linux/arm/v6", "linux/arm/v7", false),
            ("linux/arm", "linux/arm64", false),
            ("linux/amd64", "linux/386", false),
            ("linux/armhf", "linux/arm/v7", true),
            ("linux/armhf", "linux/arm/v8", false),
            ("linux/armel", "linux/arm/v7", false),
            ("windows(10.0)/amd64", "windows(10.0.20348.1)/amd64", true),
            ("windows(10.1)/amd64", "windows(10.0.20348.1)/amd64", false),
            ("windows/amd64", "windows(10.0.20348.1)/amd64", true),
            ("linux/amd64", "windows/amd64", false),
        ] {
            assert_eq!(platform(wanted).accepts(&platform(found)), accepts, "{wanted} {found}");
        }
    }

    /// moby#34875 and kaniko#1591: the first entry of an architecture was selected, whatever its variant.
    #[test]
    fn moby_34875_kaniko_1591_the_best_variant_is_chosen() {
        for (wanted, found, order) in [
            ("linux/arm", &["v5", "v6", "v7", "v8"][..], &["v7", "v6", "v5", "v8"][..]),
            ("linux/arm", &["v5", ""], &["", "v5"]),
            ("linux/arm/v7", &["v5", "v6", "v7", "v8"], &["v7", "v6", "v5"]),
            ("linux/arm/v8", &["v5", "v6", "v7", "v8"], &["v8", "v7", "v6", "v5"]),
            ("linux/arm/v6", &["v5", "v6", "v7"], &["v6", "v5"]),
            ("linux/armhf", &["v5", "v7", "v8"], &["v7", "v5"]),
            ("linux/amd64", &["v3", "v2", ""], &["", "v2", "v3"]),
            ("linux/amd64", &["v3", "v1"], &["v1", "v3"]),
            ("linux/amd64/v3", &["", "v2", "v3", "v4"], &["v3", "v2", ""]),
            ("linux/amd64/v1", &["v2", ""], &[""]),
            ("linux/arm64", &["v9", "v8"], &["v8", "v9"]),
            ("linux/arm64/v8", &["v9", ""], &[""]),
            ("linux/arm64/v9", &["", "v8.5", "v9"], &["v9", "v8.5", ""]),
            ("linux/riscv64", &["rva23", ""], &["", "rva23"]),
            ("linux/riscv64/rva23", &["", "rva23"], &["rva23"]),
        ] {
            let wanted = platform(wanted);
            let variant = |variant: &str| Platform { variant: Some(variant.to_owned()), ..wanted.normalized() };
            let mut chosen: Vec<_> = found.iter().filter(|found| wanted.accepts(&variant(found))).copied().collect();
            chosen.sort_by_key(|found| wanted.rank(&variant(found)));
            assert_eq!(chosen, order, "{wanted}");
        }
    }

    #[test]
    fn keeps_the_dotted_fields() {
        let text = r#"{"architecture":"amd64","os":"windows","os.version":"10.0","os.features":["win32k"]}"#;
        let platform: Platform = serde_json::from_str(text).unwrap();
        assert_eq!(platform.os_version.as_deref(), Some("10.0"));
        assert_eq!(serde_json::to_string(&platform).unwrap(), text);
    }
}
