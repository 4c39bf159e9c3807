//! Owners of unpacked files.

use crate::error::{Error, Result};
use crate::layer::{Metadata, Path};

/// What happens to the owners of files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Owners {
    /// Files get the owners of their entries. Needs the privileges of root.
    #[default]
    Keep,
    /// Files get mapped owners, as in a user namespace. An owner outside of the ranges is an error.
    #[non_exhaustive]
    Mapped {
        /// Ranges of user IDs.
        users: Vec<IdRange>,
        /// Ranges of group IDs.
        groups: Vec<IdRange>,
    },
    /// All files belong to the current user. Owners other than root are recorded in the attribute
    /// `user.rootlesscontainers`, as umoci does, and device nodes become empty files.
    Rootless,
    /// All files belong to the current user, without a record of other owners, and device nodes become empty files.
    Current,
}

/// A range of IDs of an image, and those that they are on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first ID in the image.
    pub container: u32,
    /// The first ID on this machine.
    pub host: u32,
    /// The number of IDs.
    pub size: u32,
}

/// Parses `CONTAINER:HOST[:SIZE]`; the size is 1 by default.
impl std::str::FromStr for IdRange {
    type Err = Error;

    fn from_str(text: &str) -> Result<IdRange> {
        let invalid = || Error::IdRange { text: text.to_owned() };
        let mut numbers = text.split(':').map(|number| number.parse::<u32>().map_err(|_| invalid()));
        let (Some(container), Some(host), size, None) =
            (numbers.next(), numbers.next(), numbers.next(), numbers.next())
        else {
            return Err(invalid());
        };
        let range = IdRange { container: container?, host: host?, size: size.transpose()?.unwrap_or(1) };
        let fits = |start: u32| range.size > 0 && start.checked_add(range.size).is_some();
        if fits(range.container) && fits(range.host) { Ok(range) } else { Err(invalid()) }
    }
}

impl IdRange {
    /// Returns the ID on this machine.
    pub fn to_host(ranges: &[IdRange], id: u32) -> Option<u32> {
        let range = ranges.iter().find(|range| id.checked_sub(range.container).is_some_and(|at| at < range.size))?;
        Some(range.host + (id - range.container))
    }

    /// Returns the ID in the image.
    pub fn to_container(ranges: &[IdRange], id: u32) -> Option<u32> {
        let range = ranges.iter().find(|range| id.checked_sub(range.host).is_some_and(|at| at < range.size))?;
        Some(range.container + (id - range.host))
    }
}

/// The attribute that records the owner of a file for rootless containers.
pub const ROOTLESS_XATTR: &str = "user.rootlesscontainers";

/// Returns the effective user and group of this process.
pub fn current_user() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// The owner that a file gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Set(u32, u32),
    /// The current user, with a record of the owner if it is not root.
    Recorded(Option<(u32, u32)>),
}

impl Owners {
    /// Returns the owners for these ranges of user and group IDs.
    pub fn mapped(users: Vec<IdRange>, groups: Vec<IdRange>) -> Owners {
        Owners::Mapped { users, groups }
    }

    pub(super) fn of(&self, path: &Path, metadata: &Metadata) -> Result<Owner> {
        let refuse = |problem| Error::Layer { path: super::directories::shown(path), problem };
        let unmapped = |kind, id| Error::Unmapped { kind, id, path: super::directories::shown(path) };
        // The highest ID means "unchanged" in system calls.
        let id = |id: u64| u32::try_from(id).ok().filter(|id| *id < u32::MAX);
        let (Some(user), Some(group)) = (id(metadata.uid), id(metadata.gid)) else {
            return Err(refuse("its owner is not a valid ID"));
        };
        match self {
            Owners::Keep => Ok(Owner::Set(user, group)),
            Owners::Mapped { users, groups } => {
                match (IdRange::to_host(users, user), IdRange::to_host(groups, group)) {
                    (Some(user), Some(group)) => Ok(Owner::Set(user, group)),
                    (None, _) => Err(unmapped("user", user)),
                    (_, None) => Err(unmapped("group", group)),
                }
            }
            Owners::Rootless => Ok(Owner::Recorded(((user, group) != (0, 0)).then_some((user, group)))),
            Owners::Current => Ok(Owner::Recorded(None)),
        }
    }
}

/// Returns the record of an owner: a protobuf message with the user as field 1 and the group as field 2, without zeros.
/// <https://rootlesscontaine.rs/proto/rootlesscontainers.proto>
pub fn rootless_record(user: u32, group: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (tag, mut id) in [(0x08, user), (0x10, group)] {
        if id == 0 {
            continue;
        }
        bytes.push(tag);
        while id >= 0x80 {
            bytes.push((id & 0x7f) as u8 | 0x80);
            id >>= 7;
        }
        bytes.push(id as u8);
    }
    bytes
}

/// Parses the record of an owner. The highest ID means that the ID of the file itself counts.
pub fn parse_rootless_record(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut owner = (0, 0);
    let mut bytes = bytes.iter();
    while let Some(tag) = bytes.next() {
        let mut id = 0_u64;
        let mut shift = 0;
        loop {
            let byte = *bytes.next()?;
            id |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
            shift += 7;
            if shift > 28 {
                return None;
            }
        }
        let id = u32::try_from(id).ok()?;
        match tag {
            0x08 => owner.0 = id,
            0x10 => owner.1 = id,
            _ => return None,
        }
    }
    Some(owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_owners_are_read_back() {
        for (user, group) in [(0, 0), (1, 0), (0, 1), (127, 128), (1000, 65_534), (u32::MAX, u32::MAX)] {
            assert_eq!(parse_rootless_record(&rootless_record(user, group)), Some((user, group)));
        }
        assert_eq!(rootless_record(1000, 5), [0x08, 0xe8, 0x07, 0x10, 0x05]);
        for bad in [&[0x08][..], &[0x08, 0xff], &[0x18, 1], &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 1]] {
            assert_eq!(parse_rootless_record(bad), None);
        }
    }

    #[test]
    fn ranges_are_parsed_and_mapped() {
        let ranges: Vec<IdRange> = vec!["0:1000".parse().unwrap(), "1:100000:65535".parse().unwrap()];
        assert_eq!(IdRange::to_host(&ranges, 0), Some(1000));
        assert_eq!(IdRange::to_host(&ranges, 65_535), Some(165_534));
        assert_eq!(IdRange::to_host(&ranges, 65_536), None);
        assert_eq!(IdRange::to_container(&ranges, 100_000), Some(1));
        assert_eq!(IdRange::to_container(&ranges, 0), None);
        for bad in ["", "0", "0:1:0", "0:1:2:3", "a:b", "-1:0", "0:4294967295:2"] {
            assert!(bad.parse::<IdRange>().is_err(), "{bad}");
        }
    }
}
