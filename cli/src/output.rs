//! Words: facts on standard output, talk on standard error.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the one place that prints")]

use std::borrow::Cow;
use std::io::{self, Write};

use serde::Serialize;

use crate::failure::{Code, Failure, Result};

/// How much is said, and in which form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    /// Facts are not stated either: the command is a part of another, which states its own.
    pub(crate) mute: bool,
}

impl Output {
    /// States facts: one JSON object, or these words.
    pub(crate) fn facts(self, facts: &impl Serialize, words: impl FnOnce() -> String) -> Result {
        if !self.json {
            return self.data(&plain(&words()));
        }
        let text = serde_json::to_string(facts).map_err(|error| Failure::new(Code::Other, error))?;
        self.data(&text)
    }

    /// Writes data, a line or several, to standard output.
    pub(crate) fn data(self, text: &str) -> Result {
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        self.bytes(format!("{text}{end}").as_bytes())
    }

    /// Writes bytes to standard output as they are.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result {
        if self.mute {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            // Whoever reads has read enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(Failure::io("write to", "standard output", &error)),
            Ok(()) => Ok(()),
        }
    }

    /// Says something that is not data.
    pub(crate) fn say(self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }
}

/// Asks for a line.
pub(crate) fn prompt(text: &str) {
    eprint!("{text}");
}

/// Says why a command failed.
pub(crate) fn complain(failure: &Failure) {
    if failure.message.is_empty() {
        return;
    }
    eprintln!("error: {}", plain(&failure.message));
    if let Some(hint) = &failure.hint {
        eprintln!("hint: {}", plain(hint));
    }
}

/// Words with control characters spelled out: names and annotations are somebody else's, and a terminal obeys them.
fn plain(words: &str) -> Cow<'_, str> {
    spelled(words, |letter| letter.is_control() && letter != '\n')
}

/// A name or value that has to stay on its line: a line break is spelled out too.
pub(crate) fn line(words: &str) -> Cow<'_, str> {
    spelled(words, char::is_control)
}

fn spelled(words: &str, obeyed: fn(char) -> bool) -> Cow<'_, str> {
    if !words.contains(obeyed) {
        return Cow::Borrowed(words);
    }
    let spell = |letter: char| if obeyed(letter) { letter.escape_default().to_string() } else { letter.to_string() };
    Cow::Owned(words.chars().map(spell).collect())
}

/// A number of bytes for people.
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

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_short() {
        for (count, text) in [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")]
        {
            assert_eq!(super::bytes(count), text);
        }
    }
}
