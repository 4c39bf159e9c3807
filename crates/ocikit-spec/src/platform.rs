use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, excerpt};

/// What an image runs on.
///
/// Image specification, "Image Index Property Descriptions". Written `os/architecture[/variant]`, with the operating
/// system's version in parentheses where there is one, as containerd does: `windows(10.0.20348)/amd64`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// The processor, by Go's name for it: `amd64`, `arm64`, …
    pub architecture: String,
    /// The operating system, by Go's name for it: `linux`, `windows`, …
    pub os: String,
    /// The version of the operating system; only Windows images have it.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features that the operating system must have.
    #[serde(
        rename = "os.features",
        default,
        deserialize_with = "crate::descriptor::null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// The variant of the processor: `v7`, `v8`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// A platform without variant.
    pub fn new(os: impl Into<String>, architecture: impl Into<String>) -> Platform {
        Platform {
            os: os.into(),
            architecture: architecture.into(),
            os_version: None,
            os_features: Vec::new(),
            variant: None,
        }
    }

    /// The platform that this program was compiled for, with Linux as the operating system, since that is what
    /// containers run on wherever they are started.
    pub fn of_this_machine() -> Platform {
        Platform::new("linux", std::env::consts::ARCH).normalized()
    }

    /// The same in the usual spelling: `x86_64` is `amd64`, `aarch64` is `arm64`, `armhf` is `arm/v7`; the variants
    /// that go without saying, `v8` of `arm64` and `v7` of `arm`, are left out and put in.
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
            ("arm64", Some("8" | "v8")) | ("amd64", Some("v1")) => None,
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

    /// Whether an image for `other` answers a request for this platform.
    ///
    /// A request without variant takes every variant; a version of the operating system is a prefix of the image's.
    pub fn accepts(&self, other: &Platform) -> bool {
        let (wanted, found) = (self.normalized(), other.normalized());
        let any_variant = self.variant.is_none() && !["armhf", "armel"].contains(&self.architecture.as_str());
        wanted.os == found.os
            && wanted.architecture == found.architecture
            && (any_variant || wanted.variant == found.variant)
            && match (&wanted.os_version, &found.os_version) {
                (Some(wanted), Some(found)) => found.starts_with(wanted.as_str()),
                (wanted, _) => wanted.is_none(),
            }
            && wanted.os_features.iter().all(|feature| found.os_features.contains(feature))
    }

    /// Whether the platform says nothing, as BuildKit's `unknown/unknown` on attestations does.
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
    fn is_written_as_it_is_read() {
        for text in ["linux/amd64", "linux/arm/v7", "windows(10.0.20348.1)/amd64", "unknown/unknown"] {
            assert_eq!(platform(text).to_string(), text);
        }
        for text in ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "windows(10/amd64", "windows()/amd64", "a b/c"]
        {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn accepts_what_runs_there() {
        for (wanted, found, accepts) in [
            ("linux/amd64", "linux/amd64", true),
            ("linux/x86_64", "linux/amd64", true),
            ("linux/amd64", "linux/arm64", false),
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/arm64/v8", "linux/arm64", true),
            ("linux/aarch64", "linux/arm64/v8", true),
            ("linux/arm", "linux/arm/v6", true),
            ("linux/arm/v7", "linux/arm", true),
            ("linux/arm/v7", "linux/arm/v6", false),
            ("linux/armhf", "linux/arm/v7", true),
            ("linux/armhf", "linux/arm/v6", false),
            ("windows(10.0)/amd64", "windows(10.0.20348.1)/amd64", true),
            ("windows(10.1)/amd64", "windows(10.0.20348.1)/amd64", false),
            ("windows/amd64", "windows(10.0.20348.1)/amd64", true),
            ("linux/amd64", "windows/amd64", false),
        ] {
            assert_eq!(platform(wanted).accepts(&platform(found)), accepts, "{wanted} {found}");
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
