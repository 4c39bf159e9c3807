use std::io::Read;

use crate::error::Result;
use crate::layer::budget::Reservation;
use crate::layer::entry::{Entry, FileKind, Kind};
use crate::layer::reader::Reader;

/// The entries of a layer in their order, including whiteouts. A budget bounds their memory.
#[derive(Debug)]
pub struct Listing {
    entries: Vec<Entry>,
    /// Returned to the budget with the entries.
    _held: Reservation,
}

impl Listing {
    /// Reads all entries without the contents of files.
    ///
    /// # Errors
    ///
    /// Those of the reader, and [`Error::Limit`](crate::Error::Limit).
    pub fn read<R: Read>(reader: &mut Reader<R>) -> Result<Listing> {
        let (mut entries, mut held) = (Vec::new(), Reservation::of(reader.budget()));
        while let Some(entry) = reader.next_entry()? {
            held.take(bytes_of(&entry))?;
            entries.push(entry);
        }
        Ok(Listing { entries, _held: held })
    }
}

impl std::ops::Deref for Listing {
    type Target = [Entry];

    fn deref(&self) -> &[Entry] {
        &self.entries
    }
}

fn bytes_of(entry: &Entry) -> usize {
    let other = match &entry.kind {
        Kind::File(FileKind::Symlink { target }) => target.len(),
        Kind::File(_) => 0,
        Kind::HardLink { target } => target.as_bytes().len(),
        Kind::Whiteout(whiteout) => whiteout.path().as_bytes().len(),
    };
    let owner =
        [&entry.metadata.user, &entry.metadata.group].into_iter().flatten().map(|name| name.len()).sum::<usize>();
    entry.path.as_bytes().len() + other + owner + entry.metadata.xattr_bytes()
}
