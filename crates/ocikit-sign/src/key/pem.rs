use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// The maximum size of a PEM file, in bytes. Keys and certificate chains are shorter.
const MAX_PEM_BYTES: usize = 1 << 20;

/// A block of a PEM file.
pub(crate) struct Block {
    /// The label between `BEGIN` and the dashes.
    pub(crate) label: String,
    pub(crate) bytes: Zeroizing<Vec<u8>>,
}

/// Parses the blocks of a PEM file (RFC 7468), in order. Text outside of blocks is ignored. Incomplete blocks and
/// blocks with headers, as in old encrypted keys, are refused.
pub(crate) fn blocks(text: &[u8]) -> Result<Vec<Block>, &'static str> {
    if text.len() > MAX_PEM_BYTES {
        return Err("it is too long");
    }
    let text = std::str::from_utf8(text).map_err(|_| "it is not text")?;
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(label) = boundary(line, "BEGIN") else { continue };
        // Reserve all memory now: a buffer that grows leaves a copy that is not wiped.
        let mut body = Zeroizing::new(String::with_capacity(text.len()));
        loop {
            let line = lines.next().ok_or("a block has no end")?;
            if let Some(end) = boundary(line, "END") {
                if end != label {
                    return Err("a block ends as another");
                }
                break;
            }
            body.push_str(line.trim());
        }
        let bytes = STANDARD.decode(body.as_bytes()).map_err(|_| "a block is not in base64")?;
        found.push(Block { label: label.to_owned(), bytes: Zeroizing::new(bytes) });
    }
    Ok(found)
}

fn boundary<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    line.trim().strip_prefix("-----")?.strip_prefix(word)?.strip_prefix(' ')?.strip_suffix("-----")
}

/// Encodes a PEM block, with 64 characters per line.
pub(crate) fn write(label: &str, bytes: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(bytes));
    let mut text = Zeroizing::new(String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 64));
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    for line in body.as_bytes().chunks(64) {
        // Base64 is ASCII.
        text.extend(line.iter().map(|&letter| char::from(letter)));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blocks_are_found_between_other_text() {
        let text = format!("a word\n{}between\n{}", *write("ONE", b"1"), *write("TWO", &[7; 100]));
        let found = blocks(text.as_bytes()).unwrap();
        let found: Vec<_> = found.iter().map(|block| (block.label.as_str(), &block.bytes[..])).collect();
        assert_eq!(found, [("ONE", &b"1"[..]), ("TWO", &[7; 100][..])]);
    }

    #[test]
    fn broken_blocks_are_refused() {
        for text in [
            "-----BEGIN A-----\nQQ==\n",
            "-----BEGIN A-----\nQQ==\n-----END B-----",
            "-----BEGIN A-----\nProc-Type: 4,ENCRYPTED\n\nQQ==\n-----END A-----",
            "-----BEGIN A-----\nQR==\n-----END A-----",
        ] {
            assert!(blocks(text.as_bytes()).is_err(), "{text}");
        }
        assert!(blocks(&[0xff]).is_err());
        assert!(blocks(&vec![b'a'; MAX_PEM_BYTES + 1]).is_err());
    }

    proptest! {
        #[test]
        fn pem_blocks_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let found = blocks(write("A KEY", &bytes).as_bytes()).unwrap();
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!(&*found[0].bytes, &bytes);
        }

        #[test]
        fn untrusted_input_does_not_panic(text in ".*") {
            let _ = blocks(format!("-----BEGIN A-----\n{text}\n-----END A-----").as_bytes());
        }
    }
}
