use tar::{Builder, EntryType};

/// The size of a tar block in bytes: headers consist of blocks, and contents are padded to them.
pub const BLOCK: u64 = 512;

/// The end of a tar: two zero blocks. Go's readers reject a single one.
pub const END: [u8; 2 * BLOCK as usize] = [0; 2 * BLOCK as usize];

/// Returns the number of padding zeros after this many bytes.
pub fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK
}

/// The header of an entry to write.
///
/// Owner and group are root without a name, so that the bytes depend on these fields only.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    /// The name; that of a directory ends with a slash.
    pub name: &'a str,
    /// The size of the contents in bytes.
    pub size: u64,
    /// The permissions.
    pub mode: u32,
    /// The modification time, in seconds since 1970.
    pub modified: u64,
}

impl<'a> Header<'a> {
    /// Returns the header of a file with mode 0644 and time 0.
    pub fn file(name: &'a str, size: u64) -> Header<'a> {
        Header { name, size, mode: 0o644, modified: 0 }
    }

    /// Returns the header of a directory; its name must end with a slash.
    pub fn directory(name: &'a str) -> Header<'a> {
        Header { name, size: 0, mode: 0o755, modified: 0 }
    }

    /// Returns the blocks of the header: one, or with an extended header before it if the name is longer than 100 bytes
    /// or the size exceeds 8 GiB.
    pub fn to_bytes(&self) -> Vec<u8> {
        // The maximum number with eleven octal digits, which every reader supports.
        const MAX_OCTAL: u64 = (1 << 33) - 1;
        let mut header = tar::Header::new_ustar();
        let mut extended = Vec::new();
        let name = self.name.as_bytes();
        let field = &mut header.as_old_mut().name;
        let length = name.len().min(field.len());
        field[..length].copy_from_slice(&name[..length]);
        if length < name.len() {
            extended.push(("path", name));
        }
        header.set_mode(self.mode & 0o7777);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(self.modified.min(MAX_OCTAL));
        header.set_entry_type(if self.name.ends_with('/') { EntryType::Directory } else { EntryType::Regular });
        let size = self.size.to_string();
        if self.size > MAX_OCTAL {
            header.set_size(0);
            extended.push(("size", size.as_bytes()));
        } else {
            header.set_size(self.size);
        }
        header.set_cksum();
        let mut bytes = Vec::new();
        // Writing to a vector does not fail.
        let _ = Builder::new(&mut bytes).append_pax_extensions(extended);
        // Dropping the builder ended the tar, which goes on here.
        bytes.truncate(bytes.len() - END.len());
        bytes.extend_from_slice(header.as_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TarIndex;

    #[test]
    fn padding_fills_a_block() {
        for (size, zeros) in [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511), (u64::MAX, 1)] {
            assert_eq!(padding(size), zeros);
        }
    }

    #[test]
    fn long_names_and_sizes_are_read_back() {
        let name = format!("{}/x", "d".repeat(120));
        let mut tar = Header { modified: 7, ..Header::file(&name, 3) }.to_bytes();
        tar.extend_from_slice(b"abc");
        tar.resize(tar.len().next_multiple_of(512), 0);
        tar.extend_from_slice(&END);
        let index = TarIndex::read(&tar).unwrap();
        assert_eq!(index.file(&name).unwrap().size, 3);

        let size = 10 << 30;
        let header = Header::file("large", size).to_bytes();
        match TarIndex::read(&header) {
            Err(crate::Error::Truncated { what, missing, .. }) => assert_eq!((what.as_str(), missing), ("large", size)),
            other => panic!("{other:?}"),
        }
    }
}
