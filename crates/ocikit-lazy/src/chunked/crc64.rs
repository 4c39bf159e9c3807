//! CRC-64 with the polynomial of ISO 3309, which tar-split uses.

/// Reflected.
const POLYNOMIAL: u64 = 0xd800_0000_0000_0000;

/// The checksums of all bytes, each followed by 0 to 7 zero bytes.
static TABLES: [[u64; 256]; 8] = tables();

const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut zeros = 1;
    while zeros < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before: u64 = tables[zeros - 1][byte];
            tables[zeros][byte] = tables[0][(before & 0xff) as usize] ^ (before >> 8);
            byte += 1;
        }
        zeros += 1;
    }
    tables
}

/// A checksum in progress.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crc64(u64);

impl Crc64 {
    pub(crate) fn new() -> Crc64 {
        Crc64(!0)
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        let mut crc = self.0;
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            let parts = (crc ^ u64::from_le_bytes(*word)).to_le_bytes();
            crc = 0;
            for (table, part) in TABLES.iter().rev().zip(parts) {
                crc ^= table[usize::from(part)];
            }
        }
        for byte in rest {
            crc = TABLES[0][usize::from(crc.to_le_bytes()[0] ^ byte)] ^ (crc >> 8);
        }
        self.0 = crc;
    }

    /// Returns the checksum in the order of bytes that tar-split stores.
    pub(crate) fn bytes(self) -> [u8; 8] {
        (!self.0).to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn checksums_are_those_of_tar_split() {
        let mut crc = Crc64::new();
        crc.update(b"x");
        // Read in a layer that containers/storage wrote.
        assert_eq!(STANDARD.encode(crc.bytes()), "IxAAAAAAAAA=");
        let bytes: Vec<u8> = (0..100).collect();
        let mut whole = Crc64::new();
        whole.update(&bytes);
        for cut in 0..100 {
            let mut parts = Crc64::new();
            parts.update(&bytes[..cut]);
            parts.update(&bytes[cut..]);
            assert_eq!(parts.bytes(), whole.bytes());
        }
    }
}
