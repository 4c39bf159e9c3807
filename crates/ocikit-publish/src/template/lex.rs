//! Splits a template into text and actions, and an action into tokens.

use super::error::{TemplateError, TemplateProblem};

/// A part of a template.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Action { offset: usize, tokens: Vec<Token> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) offset: usize,
    pub(super) kind: TokenKind,
    /// Whether white space precedes the token: `.Time .Date` are two operands, `.Time.Date` is one.
    pub(super) spaced: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A name with its dot, without it: `.Name` is `Field("Name")`.
    Field(String),
    /// A variable with its `$`.
    Variable(String),
    Word(String),
    Text(String),
    Number(i64),
    Pipe,
    Open,
    Close,
    Declare,
    Assign,
}

impl TokenKind {
    pub(super) fn describe(&self) -> String {
        match self {
            TokenKind::Field(name) => format!("`.{name}`"),
            TokenKind::Variable(name) | TokenKind::Word(name) => format!("`{name}`"),
            TokenKind::Text(_) => "text".to_owned(),
            TokenKind::Number(number) => format!("`{number}`"),
            TokenKind::Pipe => "`|`".to_owned(),
            TokenKind::Open => "`(`".to_owned(),
            TokenKind::Close => "`)`".to_owned(),
            TokenKind::Declare => "`:=`".to_owned(),
            TokenKind::Assign => "`=`".to_owned(),
        }
    }
}

pub(super) fn unexpected(offset: usize, found: impl Into<String>) -> TemplateError {
    TemplateError { offset, problem: TemplateProblem::Unexpected { found: found.into() } }
}

/// Splits a template. Text beside `{{-` and `-}}` loses its white space there, as in Go.
pub(super) fn split(text: &str) -> Result<Vec<Part>, TemplateError> {
    let mut parts = Vec::new();
    let (mut at, mut trim_next) = (0, false);
    while at < text.len() {
        let begin = text[at..].find("{{").map(|found| at + found);
        let mut before = &text[at..begin.unwrap_or(text.len())];
        if trim_next {
            before = before.trim_start();
        }
        let Some(begin) = begin else {
            push_text(&mut parts, before);
            break;
        };
        let inner = begin + 2;
        let trims = text[inner..].starts_with('-') && text[inner + 1..].starts_with(is_space);
        push_text(&mut parts, if trims { before.trim_end() } else { before });
        let inner = if trims { inner + 1 } else { inner };
        let body = text[inner..].trim_start_matches(is_space);
        let body_at = text.len() - body.len();
        if body.starts_with("/*") {
            let end = body.find("*/").ok_or_else(|| unexpected(begin, "comment without an end"))?;
            let rest = body[end + 2..].trim_start_matches(is_space);
            let closing = if rest.starts_with("-}}") { 3 } else { 2 };
            if !rest.starts_with("-}}") && !rest.starts_with("}}") {
                return Err(unexpected(body_at + end, "text after a comment"));
            }
            trim_next = closing == 3;
            at = text.len() - rest.len() + closing;
            continue;
        }
        let (tokens, end, trims) = tokens(text, inner)?;
        parts.push(Part::Action { offset: begin, tokens });
        (at, trim_next) = (end, trims);
    }
    Ok(parts)
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
}

fn is_space(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | '\r' | '\n')
}

fn is_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// Reads the tokens of an action that starts at an offset. Returns them, the offset behind `}}`, and whether `-}}`
/// ends it.
fn tokens(text: &str, start: usize) -> Result<(Vec<Token>, usize, bool), TemplateError> {
    let mut tokens = Vec::new();
    let mut at = start;
    loop {
        let rest = &text[at..];
        let unspaced = rest.trim_start_matches(is_space);
        let spaced = unspaced.len() != rest.len();
        let offset = text.len() - unspaced.len();
        if unspaced.starts_with("}}") {
            return Ok((tokens, offset + 2, false));
        }
        if unspaced.starts_with("-}}") && spaced {
            return Ok((tokens, offset + 3, true));
        }
        let Some(first) = unspaced.chars().next() else {
            return Err(unexpected(start.saturating_sub(2), "action without `}}`"));
        };
        let (kind, length) = token(unspaced, first, offset)?;
        tokens.push(Token { offset, kind, spaced });
        at = offset + length;
    }
}

fn token(rest: &str, first: char, offset: usize) -> Result<(TokenKind, usize), TemplateError> {
    let name = |from: usize| {
        let name = &rest[from..];
        let end = name.find(|letter| !is_name(letter)).unwrap_or(name.len());
        &name[..end]
    };
    let one = |kind| Ok((kind, 1));
    match first {
        '|' => one(TokenKind::Pipe),
        '(' => one(TokenKind::Open),
        ')' => one(TokenKind::Close),
        '=' => one(TokenKind::Assign),
        ':' if rest.starts_with(":=") => Ok((TokenKind::Declare, 2)),
        '.' => {
            let name = name(1);
            Ok((TokenKind::Field(name.to_owned()), 1 + name.len()))
        }
        '$' => {
            let name = &rest[..1 + name(1).len()];
            Ok((TokenKind::Variable(name.to_owned()), name.len()))
        }
        '`' => {
            let end = rest[1..].find('`').ok_or_else(|| unexpected(offset, "text without an end"))?;
            Ok((TokenKind::Text(rest[1..=end].to_owned()), end + 2))
        }
        '"' => quoted(rest, offset),
        '-' | '+' | '0'..='9' => {
            let sign = usize::from(!first.is_ascii_digit());
            let text = &rest[..sign + name(sign).len()];
            let number = text.parse().map_err(|_| unexpected(offset, format!("`{text}`")))?;
            Ok((TokenKind::Number(number), text.len()))
        }
        letter if letter.is_ascii_alphabetic() || letter == '_' => {
            let name = name(0);
            Ok((TokenKind::Word(name.to_owned()), name.len()))
        }
        other => Err(unexpected(offset, format!("`{}`", other.escape_debug()))),
    }
}

/// Reads a text in double quotes.
fn quoted(rest: &str, offset: usize) -> Result<(TokenKind, usize), TemplateError> {
    let mut text = String::new();
    let mut letters = rest.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((TokenKind::Text(text), at + 1)),
            '\n' => break,
            '\\' => match letters.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, escaped @ ('"' | '\\'))) => text.push(escaped),
                _ => return Err(unexpected(offset + at, "escape sequence")),
            },
            letter => text.push(letter),
        }
    }
    Err(unexpected(offset, "text without an end"))
}
