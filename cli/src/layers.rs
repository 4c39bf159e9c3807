//! Arguments of the commands that write layers.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use ocikit::image::files::{Owner, Time};
use ocikit::image::{EncoderOptions, LayerOptions};
use ocikit::layout::Compression;

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::values::one_of;

/// How new layers are compressed.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct CompressionArguments {
    /// Compression of the layers that are written
    #[arg(long, value_name = "FORMAT", value_parser = one_of(COMPRESSIONS))]
    pub(crate) compression: Option<Compression>,
    /// Level: 1 to 9 for gzip (default 6), 1 to 19 for zstd (default 3)
    #[arg(long, value_name = "NUMBER")]
    level: Option<u32>,
    /// Threads of each compression; default: one per processor
    #[arg(long, value_name = "NUMBER")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Directory of temporary files; default: that of the system
    #[arg(long, value_name = "DIRECTORY")]
    temporary_directory: Option<PathBuf>,
}

/// The names of the compressions that can be written.
const COMPRESSIONS: [(&str, Compression); 3] =
    [("gzip", Compression::Gzip), ("zstd", Compression::Zstd), ("none", Compression::None)];

impl CompressionArguments {
    /// Returns the options, with this compression unless another one is given.
    pub(crate) fn options(&self, default: Compression) -> Result<LayerOptions> {
        let mut options = LayerOptions::from(self.encoder(default)?);
        options.directory = Some(self.directory());
        Ok(options)
    }

    /// Returns the compression, level and threads.
    pub(crate) fn encoder(&self, default: Compression) -> Result<EncoderOptions> {
        let compression = self.compression.unwrap_or(default);
        let mut encoder = EncoderOptions::from(compression);
        encoder.level = self.level;
        encoder.threads = self.threads;
        match (self.level, EncoderOptions::levels(compression)) {
            (Some(level), Some(levels)) if !levels.contains(&level) => Err(Failure::usage(format_args!(
                "cannot use --level {level}: give a number from {} to {}",
                levels.start(),
                levels.end()
            ))),
            (Some(_), None) => Err(Failure::usage("cannot use --level without compression")),
            _ => Ok(encoder),
        }
    }

    /// Returns whether a level was given, which recompresses layers that have the format already.
    pub(crate) fn has_level(&self) -> bool {
        self.level.is_some()
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.temporary_directory.clone().unwrap_or_else(std::env::temp_dir)
    }
}

/// Parses `UID:GID`, `UID`, or `keep`.
pub(crate) fn owner(text: &str) -> Result<Owner, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("`{text}` is not a number"));
    match text.split_once(':') {
        None if text == "keep" => Ok(Owner::Keep),
        None => number(text).map(|uid| Owner::Fixed { uid, gid: uid }),
        Some((uid, gid)) => Ok(Owner::Fixed { uid: number(uid)?, gid: number(gid)? }),
    }
}

/// Parses octal permissions.
pub(crate) fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => Err(format!("`{text}` is not an octal mode such as 0755")),
    }
}

/// Parses a time: seconds since 1970, or RFC 3339.
pub(crate) fn time(text: &str) -> Result<Time, String> {
    let seconds = text.parse().ok().map(|seconds| Time { seconds, nanoseconds: 0 });
    seconds
        .or_else(|| Time::parse(text))
        .ok_or_else(|| format!("`{text}` is neither a number of seconds nor a time such as 2024-02-29T12:00:00Z"))
}

/// Returns the time of `SOURCE_DATE_EPOCH`.
pub(crate) fn epoch(context: &Context) -> Option<Time> {
    let seconds = context.epoch.and_then(|seconds| i64::try_from(seconds).ok())?;
    Some(Time { seconds, nanoseconds: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_parsed() {
        assert_eq!(owner("1000:100"), Ok(Owner::Fixed { uid: 1000, gid: 100 }));
        assert_eq!(owner("1000"), Ok(Owner::Fixed { uid: 1000, gid: 1000 }));
        assert_eq!(owner("keep"), Ok(Owner::Keep));
        assert!(owner("www-data").is_err());
        assert_eq!(mode("0755"), Ok(0o755));
        assert!(mode("888").is_err() && mode("17777").is_err());
        assert_eq!(time("7"), Ok(Time { seconds: 7, nanoseconds: 0 }));
        assert_eq!(time("1970-01-01T00:00:07Z"), time("7"));
        assert!(time("yesterday").is_err());
    }
}
