use ocikit_archive::{END, Header, padding};

/// The tar of a layer, entry by entry.
///
/// ```
/// # use ocikit_image::testing::Tar;
/// let tar = Tar::new().directory("etc").file("etc/motd", b"hello").symlink("motd", "etc/motd").finish();
/// assert_eq!(tar.len() % 512, 0);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Tar {
    bytes: Vec<u8>,
    mode: Option<u32>,
    modified: u64,
}

impl Tar {
    /// An empty one.
    pub fn new() -> Tar {
        Tar::default()
    }

    /// Entries from here on have these permissions.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Tar {
        self.mode = Some(mode);
        self
    }

    /// Entries from here on were changed at this second.
    #[must_use]
    pub fn modified(mut self, seconds: u64) -> Tar {
        self.modified = seconds;
        self
    }

    /// A file.
    #[must_use]
    pub fn file(self, name: &str, bytes: &[u8]) -> Tar {
        self.entry(b'0', name, "", bytes)
    }

    /// A directory.
    #[must_use]
    pub fn directory(self, name: &str) -> Tar {
        self.entry(b'5', &format!("{}/", name.trim_end_matches('/')), "", b"")
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(self, name: &str, target: &str) -> Tar {
        self.entry(b'2', name, target, b"")
    }

    /// A hard link.
    #[must_use]
    pub fn link(self, name: &str, target: &str) -> Tar {
        self.entry(b'1', name, target, b"")
    }

    /// An entry of any type; name and target have to fit the header.
    #[must_use]
    pub fn entry(mut self, kind: u8, name: &str, target: &str, bytes: &[u8]) -> Tar {
        let size = bytes.len() as u64;
        let mode = self.mode.unwrap_or(if kind == b'5' { 0o755 } else { 0o644 });
        let mut header = Header { name, size, mode, modified: self.modified }.to_bytes();
        header[156] = kind;
        header[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header[148..156].fill(b' ');
        let sum: u32 = header[..512].iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len() + padding(size) as usize, 0);
        self
    }

    /// The tar with its end.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&END);
        self.bytes
    }
}
