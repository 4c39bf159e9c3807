//! The only module that prints: results on standard output, everything else on standard error.
//!
//! Human-readable text consists of [`Lines`]. A line may contain untrusted text, so every line is escaped when it is added:
//! text of an image or a registry cannot end the line, move the cursor or reorder the output. Exact bytes and JSON go through
//! [`Output::bytes`] and are not changed.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the only module that prints")]

use std::borrow::Cow;
use std::error::Error;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::{Code, FailedItem, Failure, Result};
use crate::hidden::without_secrets;
use crate::waiting::Waiting;

/// How much to print, and in which format.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    /// Prints no results either: the command is a step of another command, which prints its own result.
    pub(crate) mute: bool,
}

#[derive(Serialize)]
struct Images<'a, T> {
    images: &'a [LocatedImage<T>],
}

/// One of the images of a location.
#[derive(Serialize)]
pub(crate) struct LocatedImage<T> {
    pub(crate) location: String,
    #[serde(flatten)]
    pub(crate) facts: T,
}

impl Output {
    /// Prints a result: as one JSON object with `--json`, and else as these lines.
    pub(crate) fn result<L: Into<Lines>>(self, result: &impl Serialize, lines: impl FnOnce() -> L) -> Result {
        if !self.json {
            return self.bytes(lines().into().0.as_bytes());
        }
        let text = serde_json::to_string(result).map_err(|error| Failure::new(Code::Other, error))?;
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Prints the facts about the images of a location: of a single one only the facts with `--json`, and else a list.
    pub(crate) fn images<T: Serialize>(self, images: &[LocatedImage<T>], lines: impl FnOnce() -> Lines) -> Result {
        match images {
            [image] => self.result(&image.facts, lines),
            _ => self.result(&Images { images }, lines),
        }
    }

    /// Writes bytes to standard output unchanged.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result {
        if self.mute {
            return Ok(());
        }
        let _waiting = Waiting::new();
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            // The reader, such as `head`, closed the pipe; that is not a failure.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(Failure::io("write to", "standard output", &error)),
            Ok(()) => Ok(()),
        }
    }

    /// Prints lines to standard error, unless `--quiet` is given.
    pub(crate) fn say(self, lines: impl Into<Lines>) {
        if !self.quiet {
            print_lines(lines);
        }
    }
}

/// Returns a number with the word for one or several things.
pub(crate) fn counted(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

/// Returns whether a number is left out of JSON.
pub(crate) fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Returns an object without the fields that have no value.
pub(crate) fn without_nulls(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    object
}

/// Lines of human-readable text. Every line is escaped, including line breaks, so an added line stays one line.
#[derive(Debug, Default)]
pub(crate) struct Lines(String);

impl Lines {
    /// Adds a line.
    pub(crate) fn push(&mut self, text: impl AsRef<str>) {
        self.0 += &line(text.as_ref());
        self.0.push('\n');
    }

    /// Returns the text.
    #[cfg(test)]
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Adds all lines of another text.
    pub(crate) fn append(&mut self, other: &Lines) {
        self.0 += &other.0;
    }
}

impl<S: AsRef<str>> From<S> for Lines {
    /// Returns the text as one line.
    fn from(text: S) -> Lines {
        [text].into_iter().collect()
    }
}

impl<S: AsRef<str>> FromIterator<S> for Lines {
    fn from_iter<I: IntoIterator<Item = S>>(lines: I) -> Lines {
        let mut text = Lines::default();
        lines.into_iter().for_each(|line| text.push(line));
        text
    }
}

/// Prints lines to standard error.
pub(crate) fn print_lines(lines: impl Into<Lines>) {
    eprint!("{}", without_secrets(lines.into().0));
}

/// Prints JSON to standard error, on one line.
pub(crate) fn print_json(value: &Value) {
    eprintln!("{}", without_secrets(value.to_string()));
}

/// Prints an error of the command line, or the requested help. clap does not escape the arguments that it repeats.
///
/// clap returns the message, the tips and the usage as one text: the parts of an error (`clap::Error::context`) hold the
/// arguments of a message, not its words. The first empty line ends the message.
pub(crate) fn usage(error: &clap::Error) {
    let arguments: Vec<_> = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let hint = match error.source().and_then(|source| source.downcast_ref()) {
        Some(ocikit::spec::Error::Transport { instead, .. }) => Some(*instead),
        _ => None,
    };
    if error.use_stderr() && wants_json(&arguments) {
        let text = error.render().to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        let message = text.split("\n\n").next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        return print_json(&failure_object(&Failure::usage(message), hint));
    }
    let text = error.render().to_string();
    let mut shown = without_secrets(text.clone());
    if hint.is_none() && shown == text && !arguments.iter().any(|argument| argument.contains(is_deceptive)) {
        // clap prints help and version to standard output, and errors to standard error.
        let _ = error.print();
        return;
    }
    for argument in arguments.iter().filter(|argument| argument.contains(is_deceptive)) {
        shown = shown.replace(argument.as_str(), &line(argument));
    }
    if let Some(hint) = hint {
        shown = shown.replacen("\n\n", &format!("\nhint: {hint}\n\n"), 1);
    }
    print_lines(shown.lines().collect::<Lines>());
}

/// Prints a prompt to standard error.
pub(crate) fn prompt(text: &str) {
    eprint!("{}", line(text));
}

/// Prints the message, the details and the hint of a failure; with `--json` as one object.
pub(crate) fn print_failure(failure: &Failure, hint: Option<&str>, json: bool) {
    if failure.message.is_empty() {
        return;
    }
    if json {
        return print_json(&failure_object(failure, hint));
    }
    print_lines(format!("error: {}", failure.message));
    let failed = failure.failed.iter().map(|item| format!("  {}: {}", item.name, item.message));
    let details = failure.details.iter().map(|detail| format!("  {detail}"));
    print_lines(failed.chain(details).collect::<Lines>());
    if let Some(hint) = hint {
        print_lines(format!("hint: {hint}"));
    }
}

/// Returns the object of an error, as `docs/guide.md` describes it.
fn failure_object(failure: &Failure, hint: Option<&str>) -> Value {
    let mut error = json!({
        "kind": failure.code.kind(),
        "message": failure.message,
        "hint": hint,
        "exitCode": failure.exit_code(),
    });
    if !failure.failed.is_empty() {
        let failed = failure.failed.iter().map(|FailedItem { name, code, message }| {
            json!({ "target": name, "kind": code.kind(), "message": message, "exitCode": *code as u8 })
        });
        error["failed"] = failed.collect();
    }
    if !failure.details.is_empty() {
        error["details"] = failure.details.iter().map(String::as_str).collect();
    }
    json!({ "error": error })
}

/// Escapes the characters of a text that a terminal would interpret or not show.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    if !text.contains(is_deceptive) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match is_deceptive(letter) {
            true => shown.extend(letter.escape_default()),
            false => shown.push(letter),
        }
    }
    Cow::Owned(shown)
}

/// Returns whether a character moves the cursor, ends the line, changes the text direction or is invisible: control characters
/// (C0, DEL, C1), line and paragraph separators, bidirectional marks, embeddings, overrides and isolates, zero-width
/// characters, and the invisible tags.
fn is_deceptive(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Formats a number of bytes with a binary unit.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Returns whether arguments that could not be parsed contain `--json`.
fn wants_json(arguments: &[String]) -> bool {
    arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        for (count, text) in [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")]
        {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn lines_are_escaped() {
        for (text, shown) in [
            ("plain ä 漢 🙂", "plain ä 漢 🙂"),
            ("a\nerror: b", "a\\nerror: b"),
            ("\r\t\u{1b}[2J\u{7f}", "\\r\\t\\u{1b}[2J\\u{7f}"),
            ("\u{9b}2J\u{85}", "\\u{9b}2J\\u{85}"),
            ("a\u{202e}b\u{2066}c\u{200f}\u{61c}", "a\\u{202e}b\\u{2066}c\\u{200f}\\u{61c}"),
            ("a\u{200b}b\u{200d}\u{feff}", "a\\u{200b}b\\u{200d}\\u{feff}"),
            ("a\u{2028}b\u{2029}", "a\\u{2028}b\\u{2029}"),
            ("\u{e0041}", "\\u{e0041}"),
        ] {
            assert_eq!(line(text), shown);
        }
        assert_eq!(["a\nb", "c"].into_iter().collect::<Lines>().0, "a\\nb\nc\n");
    }
}
