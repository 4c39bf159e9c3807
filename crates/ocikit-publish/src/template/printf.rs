//! `printf`, as far as tags need it: `%s %v %d %q %x %X %t %%` with flags, width and precision.

use std::iter::{self, Peekable};
use std::str::Chars;

use super::error::MAX_VALUE_BYTES;
use super::value::Value;

/// The maximum width of a field, in characters. A tag has at most 128.
const MAX_WIDTH: usize = 128;

/// A format and its values do not belong together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormatError {
    #[error("has a width of more than {}", MAX_WIDTH)]
    TooWide,
    #[error("ends with `%`")]
    NoVerb,
    #[error("has no value for `%{0}`")]
    NoValue(char),
    #[error("has more values than its format")]
    UnusedValue,
    #[error("cannot write {kind} with `%{verb}`")]
    Unprintable { verb: char, kind: &'static str },
    #[error("writes more than {} bytes", MAX_VALUE_BYTES)]
    TooLong,
}

pub(super) fn printf(format: &str, values: &[Value]) -> Result<String, FormatError> {
    let mut printed = String::new();
    let mut values = values.iter();
    let mut letters = format.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            printed.push(letter);
            continue;
        }
        let flags: String = iter::from_fn(|| letters.next_if(|letter| matches!(letter, '-' | '0' | '+'))).collect();
        let width = match &*digits(&mut letters) {
            "" => 0,
            digits => digits.parse().ok().filter(|width| *width <= MAX_WIDTH).ok_or(FormatError::TooWide)?,
        };
        let precision = letters.next_if_eq(&'.').map(|_| digits(&mut letters));
        let precision = precision.map(|digits| digits.parse::<usize>().unwrap_or_default().min(MAX_VALUE_BYTES));
        let verb = letters.next().ok_or(FormatError::NoVerb)?;
        if verb == '%' {
            printed.push('%');
            continue;
        }
        let value = values.next().ok_or(FormatError::NoValue(verb))?;
        let text = formatted(verb, value, flags.contains('+'), precision)?;
        printed.push_str(&padded(text, &flags, width, matches!(value, Value::Number(_))));
        if printed.len() > MAX_VALUE_BYTES {
            return Err(FormatError::TooLong);
        }
    }
    match values.next() {
        Some(_) => Err(FormatError::UnusedValue),
        None => Ok(printed),
    }
}

fn digits(letters: &mut Peekable<Chars<'_>>) -> String {
    iter::from_fn(|| letters.next_if(char::is_ascii_digit)).collect()
}

fn formatted(verb: char, value: &Value, plus: bool, precision: Option<usize>) -> Result<String, FormatError> {
    let cut = |text: String| match precision {
        Some(precision) => text.chars().take(precision).collect(),
        None => text,
    };
    match (verb, value) {
        ('s', Value::Text(_) | Value::Time(_)) | ('v', Value::Text(_)) => Ok(cut(value.text())),
        ('d' | 'v', Value::Number(number)) if plus && *number >= 0 => Ok(format!("+{number}")),
        ('d', Value::Number(_)) | ('t', Value::Bool(_)) | ('v', _) => Ok(value.text()),
        ('q', Value::Text(text)) => Ok(format!("{:?}", cut(text.clone()))),
        ('x', Value::Number(number)) => Ok(format!("{number:x}")),
        ('X', Value::Number(number)) => Ok(format!("{number:X}")),
        ('x', Value::Text(text)) => Ok(hex::encode(text)),
        _ => Err(FormatError::Unprintable { verb, kind: value.kind() }),
    }
}

fn padded(text: String, flags: &str, width: usize, is_number: bool) -> String {
    let missing = width.saturating_sub(text.chars().count());
    if flags.contains('-') {
        return text + &" ".repeat(missing);
    }
    match (flags.contains('0') && is_number, text.strip_prefix(['-', '+'])) {
        (true, Some(digits)) => format!("{}{}{digits}", &text[..1], "0".repeat(missing)),
        (true, None) => "0".repeat(missing) + &text,
        (false, _) => " ".repeat(missing) + &text,
    }
}
