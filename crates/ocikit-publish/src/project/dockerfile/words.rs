//! Splits arguments into words.

use super::traced::{Traced, letter};

/// Splits at blanks, as `FROM` and `COPY` do; quotes have no meaning.
pub(super) fn blank_separated(text: &Traced) -> Vec<Traced> {
    let (mut words, mut at) = (Vec::new(), 0);
    for word in text.bytes().split(is_blank) {
        if !word.is_empty() {
            words.push(text.slice(at..at + word.len()));
        }
        at += word.len() + 1;
    }
    words
}

/// Returns the first word, and the position of the text after it and the blanks that follow.
pub(super) fn first_word(text: &Traced) -> (String, usize) {
    let bytes = text.bytes();
    let end = bytes.iter().position(is_blank).unwrap_or(bytes.len());
    let rest = bytes[end..].iter().position(|byte| !is_blank(byte)).map_or(bytes.len(), |gap| end + gap);
    (String::from_utf8_lossy(&bytes[..end]).into_owned(), rest)
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b'\t' | 0x0b | 0x0c | b'\r' | b' ')
}

/// Splits at white space that is neither quoted nor escaped, as `ARG` and `ENV` do. Quotes stay.
pub(super) fn quoted(text: &Traced, escape: u8) -> Vec<Traced> {
    let bytes = text.bytes();
    let (mut words, mut word, mut quote) = (Vec::new(), Traced::default(), None);
    let mut at = 0;
    while let Some((letter, width)) = letter(&bytes[at..]) {
        let end = at + width;
        if quote.is_none() && letter.is_whitespace() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            at = end;
            continue;
        }
        if bytes[at] == escape && quote != Some('\'') {
            let Some((_, width)) = super::traced::letter(&bytes[end..]) else {
                // BuildKit skips an escape character at the end.
                break;
            };
            word.push(text, at..end + width);
            at = end + width;
            continue;
        }
        match quote {
            None if matches!(letter, '\'' | '"') => quote = Some(letter),
            Some(open) if open == letter => quote = None,
            _ => {}
        }
        word.push(text, at..end);
        at = end;
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Splits a word at its first `=`.
pub(super) fn pair(word: &Traced) -> Option<(String, Traced)> {
    let at = word.find(b'=')?;
    Some((word.slice(0..at).text().into_owned(), word.slice(at + 1..word.len())))
}

/// Reads the fields of a line of comma-separated values with optional quotes, as `--mount` has them. `None` if a quote
/// is not closed or misplaced.
pub(super) fn fields(line: &Traced) -> Option<Vec<Traced>> {
    let bytes = line.bytes();
    let (mut fields, mut at) = (Vec::new(), 0);
    loop {
        let mut field = Traced::default();
        if bytes.get(at) == Some(&b'"') {
            at += 1;
            loop {
                match (bytes.get(at)?, bytes.get(at + 1)) {
                    (b'"', Some(b'"')) => {
                        field.push(line, at..at + 1);
                        at += 2;
                    }
                    (b'"', None | Some(b',')) => break,
                    (b'"', Some(_)) => return None,
                    _ => {
                        field.push(line, at..at + 1);
                        at += 1;
                    }
                }
            }
            at += 1;
        } else {
            let length = bytes[at..].iter().position(|byte| *byte == b',').unwrap_or(bytes.len() - at);
            field.push(line, at..at + length);
            if field.find(b'"').is_some() {
                return None;
            }
            at += length;
        }
        fields.push(field);
        if at >= bytes.len() {
            return Some(fields);
        }
        at += 1;
    }
}
