use ocikit_archive::{END, Header, padding};

/// A builder for the tar of a layer.
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
    /// Creates an empty tar.
    pub fn new() -> Tar {
        Tar::default()
    }

    /// Sets the permissions of the following entries.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Tar {
        self.mode = Some(mode);
        self
    }

    /// Sets the modification time of the following entries, in seconds.
    #[must_use]
    pub fn modified(mut self, seconds: u64) -> Tar {
        self.modified = seconds;
        self
    }

    /// Adds a file.
    #[must_use]
    pub fn file(self, name: &str, bytes: &[u8]) -> Tar {
        self.entry(b'0', name, "", bytes)
    }

    /// Adds a directory.
    #[must_use]
    pub fn directory(self, name: &str) -> Tar {
        self.entry(b'5', &format!("{}/", name.trim_end_matches('/')), "", b"")
    }

    /// Adds a symlink.
    #[must_use]
    pub fn symlink(self, name: &str, target: &str) -> Tar {
        self.entry(b'2', name, target, b"")
    }

    /// Adds a hard link.
    #[must_use]
    pub fn link(self, name: &str, target: &str) -> Tar {
        self.entry(b'1', name, target, b"")
    }

    /// Adds an extended header for the following entry.
    #[must_use]
    pub fn records(self, records: &[(&str, &[u8])]) -> Tar {
        let mut data = Vec::new();
        for (key, value) in records {
            // A space, an equals sign and a newline; and the digits of the length, which count too.
            let rest = key.len() + value.len() + 3;
            let length = (1..8).map(|digits| rest + digits).find(|length| length.to_string().len() + rest == *length);
            data.extend_from_slice(format!("{} {key}=", length.unwrap_or_default()).as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.entry(b'x', "PaxHeaders/entry", "", &data)
    }

    /// Adds a device: of type `3` for characters, `4` for blocks.
    #[must_use]
    pub fn device(self, kind: u8, name: &str, major: u32, minor: u32) -> Tar {
        self.entry_with(kind, name, "", b"", |header| {
            header[329..337].copy_from_slice(format!("{major:07o}\0").as_bytes());
            header[337..345].copy_from_slice(format!("{minor:07o}\0").as_bytes());
        })
    }

    /// Adds an entry of any type; name and target must fit into the header.
    #[must_use]
    pub fn entry(self, kind: u8, name: &str, target: &str, bytes: &[u8]) -> Tar {
        self.entry_with(kind, name, target, bytes, |_| ())
    }

    fn entry_with(mut self, kind: u8, name: &str, target: &str, bytes: &[u8], change: impl Fn(&mut [u8])) -> Tar {
        let size = bytes.len() as u64;
        let mode = self.mode.unwrap_or(if kind == b'5' { 0o755 } else { 0o644 });
        let mut header = Header { name, size, mode, modified: self.modified }.to_bytes();
        header[156] = kind;
        header[157..157 + target.len()].copy_from_slice(target.as_bytes());
        change(&mut header);
        header[148..156].fill(b' ');
        let sum: u32 = header[..512].iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len() + padding(size) as usize, 0);
        self
    }

    /// Returns the tar, with its end marker.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&END);
        self.bytes
    }
}
