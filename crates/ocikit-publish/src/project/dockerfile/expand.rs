//! Expands variables as `shell.Lex` of BuildKit does.

use std::rc::Rc;

use super::error::DockerfileProblem as Problem;
use super::pattern::{Pattern, longest_prefix, longest_suffix, replace};
use super::traced::{Traced, letter};
use crate::project::limits::{MAX_EXPANDED_BYTES, MAX_SUBSTITUTION_DEPTH};

/// Values of variables.
pub(super) trait Variables {
    /// Returns the value of a variable.
    fn get(&self, name: &str) -> Option<Rc<Traced>>;

    /// Counts bytes that an expansion produces, also those that it drops again, such as the word of `${UNSET:+word}`.
    fn charge(&self, bytes: usize) -> Result<(), Problem>;
}

/// No variable has a value.
pub(super) struct NoVariables;

impl Variables for NoVariables {
    fn get(&self, _: &str) -> Option<Rc<Traced>> {
        None
    }

    fn charge(&self, _: usize) -> Result<(), Problem> {
        Ok(())
    }
}

/// How text is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct LexOptions {
    /// The escape character.
    pub(super) escape: u8,
    /// Whether quotes stay.
    pub(super) raw_quotes: bool,
    /// Whether escape characters stay.
    pub(super) raw_escapes: bool,
    /// Whether a variable without a value stays as it is.
    pub(super) skip_unset: bool,
}

impl LexOptions {
    /// Returns the options for a value.
    pub(super) fn value(escape: u8) -> LexOptions {
        LexOptions { escape, raw_quotes: false, raw_escapes: false, skip_unset: false }
    }
}

/// Returns text with its variables expanded and its quotes removed.
pub(super) fn expand(text: &Traced, escape: u8, variables: &dyn Variables) -> Result<Traced, Problem> {
    Ok(Lexer::new(text, LexOptions::value(escape), variables).run()?.0)
}

/// One run over one text.
pub(super) struct Lexer<'a> {
    text: &'a Traced,
    at: usize,
    options: LexOptions,
    variables: &'a dyn Variables,
    depth: usize,
}

/// The words of a text, split at white space that is neither quoted nor escaped.
#[derive(Default)]
struct Words {
    words: Vec<Traced>,
    word: Traced,
}

impl Words {
    fn push(&mut self, text: &Traced) {
        let mut at = 0;
        while let Some((letter, width)) = letter(&text.bytes()[at..]) {
            match letter.is_whitespace() {
                true => self.end(),
                false => self.word.push(text, at..at + width),
            }
            at += width;
        }
    }

    fn end(&mut self) {
        if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a Traced, options: LexOptions, variables: &'a dyn Variables) -> Lexer<'a> {
        Lexer { text, at: 0, options, variables, depth: 0 }
    }

    /// Returns the expanded text, and its words.
    pub(super) fn run(mut self) -> Result<(Traced, Vec<Traced>), Problem> {
        self.until(None)
    }

    fn peek(&self) -> Option<u8> {
        self.text.bytes().get(self.at).copied()
    }

    /// Takes the next letter; empty at the end.
    fn take(&mut self) -> Traced {
        let width = letter(&self.text.bytes()[self.at..]).map_or(0, |(_, width)| width);
        self.at += width;
        self.text.slice(self.at - width..self.at)
    }

    /// Takes the next byte. Returns it if it stays, and nothing else.
    fn byte(&mut self, stays: bool) -> Traced {
        let start = self.at;
        self.at += 1;
        self.text.slice(if stays { start } else { self.at }..self.at)
    }

    /// Takes the next byte if it is this one. Returns whether it is.
    fn takes(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn until(&mut self, stop: Option<u8>) -> Result<(Traced, Vec<Traced>), Problem> {
        let (mut result, mut words) = (Traced::default(), Words::default());
        while let Some(byte) = self.peek() {
            if stop == Some(byte) {
                self.at += 1;
                words.end();
                return Ok((result, words.words));
            }
            let (value, is_split) = match byte {
                b'$' => (self.dollar()?, true),
                b'<' => (self.possible_heredoc(), false),
                b'"' => (self.double_quoted()?, false),
                b'\'' => (self.single_quoted()?, false),
                _ if byte == self.options.escape => {
                    let mut value = self.byte(self.options.raw_escapes);
                    value.append(&self.take());
                    (value, false)
                }
                _ => (self.take(), true),
            };
            match is_split {
                true => words.push(&value),
                false => words.word.append(&value),
            }
            result.append(&value);
            if result.len() > MAX_EXPANDED_BYTES {
                return Err(Problem::TooMuchExpansion);
            }
        }
        if stop.is_some() {
            return Err(Problem::Substitution("it has no end"));
        }
        words.end();
        Ok((result, words.words))
    }

    fn single_quoted(&mut self) -> Result<Traced, Problem> {
        let start = self.at;
        let rest = &self.text.bytes()[start + 1..];
        let Some(length) = rest.iter().position(|byte| *byte == b'\'') else {
            return Err(Problem::Substitution("a single quote is not closed"));
        };
        self.at = start + length + 2;
        let range = if self.options.raw_quotes { start..self.at } else { start + 1..self.at - 1 };
        Ok(self.text.slice(range))
    }

    fn double_quoted(&mut self) -> Result<Traced, Problem> {
        let mut result = self.byte(self.options.raw_quotes);
        loop {
            let Some(byte) = self.peek() else {
                return Err(Problem::Substitution("a double quote is not closed"));
            };
            match byte {
                b'"' => {
                    result.append(&self.byte(self.options.raw_quotes));
                    return Ok(result);
                }
                b'$' => result.append(&self.dollar()?),
                _ if byte == self.options.escape => {
                    result.append(&self.byte(self.options.raw_escapes));
                    match self.peek() {
                        None => {}
                        Some(next) if matches!(next, b'"' | b'$') || next == self.options.escape => {
                            result.append(&self.byte(true));
                        }
                        // Another escape character stays.
                        Some(_) => result.push(self.text, self.at - 1..self.at),
                    }
                }
                _ => result.append(&self.take()),
            }
            if result.len() > MAX_EXPANDED_BYTES {
                return Err(Problem::TooMuchExpansion);
            }
        }
    }

    /// Keeps the white space between `<<` and the word of a here-document.
    fn possible_heredoc(&mut self) -> Traced {
        let start = self.at;
        self.at += 1;
        if self.takes(b'<') {
            while matches!(self.peek(), Some(b' ' | b'\t')) {
                self.at += 1;
            }
        }
        self.text.slice(start..self.at)
    }

    fn name(&mut self) -> String {
        let start = self.at;
        let bytes = self.text.bytes();
        match self.peek() {
            Some(byte) if byte.is_ascii_digit() => {
                self.at += bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            }
            Some(b'@' | b'*' | b'#' | b'?' | b'-' | b'$' | b'!') => self.at += 1,
            _ => {
                while let Some((letter, width)) = letter(&bytes[self.at..])
                    && (letter == '_' || letter.is_alphabetic() || letter.is_numeric())
                {
                    self.at += width;
                }
            }
        }
        String::from_utf8_lossy(&bytes[start..self.at]).into_owned()
    }

    fn dollar(&mut self) -> Result<Traced, Problem> {
        let start = self.at;
        self.at += 1;
        if !self.takes(b'{') {
            let name = self.name();
            if name.is_empty() {
                return Ok(self.text.slice(start..self.at));
            }
            let value = self.variables.get(&name);
            self.variables.charge(value.as_ref().map_or(0, |value| value.len()))?;
            return Ok(match value {
                Some(value) => value.as_ref().clone(),
                None if self.options.skip_unset => self.text.slice(start..self.at),
                None => Traced::default(),
            });
        }
        match self.peek() {
            None => return Err(Problem::Substitution("`}` is missing")),
            Some(b'{' | b'}' | b':') => return Err(Problem::Substitution("it has no name")),
            Some(_) => {}
        }
        let name = self.name();
        self.depth += 1;
        if self.depth > MAX_SUBSTITUTION_DEPTH {
            return Err(Problem::TooDeep);
        }
        let value = self.substitution(&name);
        self.depth -= 1;
        let value = value?;
        match self.options.skip_unset && self.variables.get(&name).is_none() {
            true => Ok(self.text.slice(start..self.at)),
            false => Ok(value),
        }
    }

    /// Reads the rest of `${NAME…}`.
    fn substitution(&mut self, name: &str) -> Result<Traced, Problem> {
        let modifier = self.modifier()?;
        let value = self.variables.get(name);
        match modifier {
            b'}' => self.copied(value),
            b':' => match self.modifier()? {
                modifier @ (b'-' | b'+' | b'?') => {
                    self.with_default(name, value.filter(|value| !value.is_empty()), modifier)
                }
                _ => Err(Problem::Substitution("its modifier is not known")),
            },
            b'-' | b'+' | b'?' => self.with_default(name, value, modifier),
            b'#' | b'%' => {
                let is_longest = self.takes(modifier);
                let pattern = self.raw_until(b'}')?;
                let value = self.copied(value)?;
                let pattern = Pattern::of(pattern.bytes(), value.len())?;
                Ok(match modifier {
                    b'#' => value.slice(longest_prefix(&pattern, value.bytes(), is_longest)..value.len()),
                    _ => value.slice(0..value.len() - longest_suffix(&pattern, value.bytes(), is_longest)),
                })
            }
            b'/' => {
                let is_each = self.takes(b'/');
                let pattern = self.raw_until(b'/')?;
                let replacement = self.raw_until(b'}')?;
                let value = self.copied(value)?;
                let pattern = Pattern::of(pattern.bytes(), value.len())?;
                replace(&pattern, &value, &replacement, is_each)
            }
            _ => Err(Problem::Substitution("its modifier is not known")),
        }
    }

    fn modifier(&mut self) -> Result<u8, Problem> {
        let modifier = self.peek().ok_or(Problem::Substitution("`}` is missing"))?;
        self.at += 1;
        Ok(modifier)
    }

    /// Returns a copy of a value; empty without one.
    fn copied(&self, value: Option<Rc<Traced>>) -> Result<Traced, Problem> {
        let Some(value) = value else { return Ok(Traced::default()) };
        self.variables.charge(value.len())?;
        Ok(value.as_ref().clone())
    }

    fn with_default(&mut self, name: &str, value: Option<Rc<Traced>>, modifier: u8) -> Result<Traced, Problem> {
        let (word, _) = self.until(Some(b'}'))?;
        match (modifier, value) {
            (b'-', None) | (b'+', Some(_)) => Ok(word),
            (b'+', None) => Ok(Traced::default()),
            (_, Some(value)) => self.copied(Some(value)),
            (_, None) if self.options.skip_unset => Ok(word),
            (_, None) => {
                let message = if word.is_empty() { "it has no value".to_owned() } else { word.text().into_owned() };
                Err(Problem::Required { name: name.to_owned(), message })
            }
        }
    }

    /// Reads a pattern, whose escape characters stay.
    fn raw_until(&mut self, stop: u8) -> Result<Traced, Problem> {
        let before = std::mem::replace(&mut self.options.raw_escapes, true);
        let read = self.until(Some(stop));
        self.options.raw_escapes = before;
        Ok(read?.0)
    }
}
