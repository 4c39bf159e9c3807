use ocikit_archive::{END, padding};

/// A tar writer that accepts invalid fields.
#[derive(Debug, Clone, Default)]
pub(super) struct RawTar(Vec<u8>);

/// The fields of a tar header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raw<'a> {
    pub(super) name: &'a [u8],
    pub(super) kind: u8,
    pub(super) link: &'a [u8],
    /// The twelve bytes of the size field, or `None` for the size of the content.
    pub(super) size: Option<[u8; 12]>,
}

impl<'a> Raw<'a> {
    pub(super) fn file(name: &'a str) -> Raw<'a> {
        Raw { name: name.as_bytes(), kind: b'0', link: b"", size: None }
    }

    pub(super) fn link(name: &'a str, kind: u8, link: &'a str) -> Raw<'a> {
        Raw { kind, link: link.as_bytes(), ..Raw::file(name) }
    }
}

impl RawTar {
    pub(super) fn header(&mut self, raw: Raw<'_>, length: usize) {
        let mut block = [0; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &raw.name[..raw.name.len().min(100)]);
        put(100, b"0000644\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, &raw.size.unwrap_or_else(|| octal(length as u64)));
        put(136, b"00000000000\0");
        put(148, b"        ");
        put(156, &[raw.kind]);
        put(157, &raw.link[..raw.link.len().min(100)]);
        put(257, b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(block);
    }

    pub(super) fn entry(&mut self, raw: Raw<'_>, content: &[u8]) -> &mut RawTar {
        self.header(raw, content.len());
        self.bytes(content)
    }

    pub(super) fn file(&mut self, name: &str, content: &[u8]) -> &mut RawTar {
        self.entry(Raw::file(name), content)
    }

    /// Appends an extended header with these records.
    pub(super) fn extended(&mut self, kind: u8, records: &[(&str, &str)]) -> &mut RawTar {
        let mut text = String::new();
        for (key, value) in records {
            let rest = format!(" {key}={value}\n");
            let digits = |length: usize| (rest.len() + length.to_string().len()).to_string().len() + rest.len();
            let length = digits(rest.len() + digits(rest.len()).to_string().len());
            text += &format!("{length}{rest}");
        }
        self.entry(Raw { kind, ..Raw::file("PaxHeaders/x") }, text.as_bytes())
    }

    /// Appends content without a header, padded to a multiple of 512 bytes.
    pub(super) fn bytes(&mut self, content: &[u8]) -> &mut RawTar {
        self.0.extend(content);
        self.0.extend(&END[..padding(content.len() as u64) as usize]);
        self
    }

    /// Returns the archive without the end-of-archive blocks.
    pub(super) fn open(&self) -> Vec<u8> {
        self.0.clone()
    }

    pub(super) fn end(&self) -> Vec<u8> {
        [&self.0[..], &END].concat()
    }
}

pub(super) fn octal(number: u64) -> [u8; 12] {
    let mut field = [0; 12];
    field[..11].copy_from_slice(format!("{number:011o}").as_bytes());
    field
}

/// Encodes a number in base 256, with the first bit set (a GNU extension for numbers that do not fit in octal).
pub(super) fn binary(number: i64) -> [u8; 12] {
    let mut field = if number < 0 { [0xff; 12] } else { [0; 12] };
    field[4..].copy_from_slice(&number.to_be_bytes());
    field[0] |= 0x80;
    field
}
