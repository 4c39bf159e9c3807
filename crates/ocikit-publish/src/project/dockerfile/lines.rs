//! Splits a Dockerfile into pieces and instructions, as `parser.Parse` of BuildKit does.

use std::ops::Range;

use super::error::{DockerfileError, DockerfileProblem as Problem};
use super::expand::{LexOptions, Lexer, NoVariables};
use super::model::{Dockerfile, Instruction, Piece, PieceKind};
use super::traced::{Traced, indent};
use super::words::first_word;
use crate::project::limits::{MAX_DOCKERFILE_BYTES, MAX_LINE_BYTES};
use crate::project::place::{Span, line_and_column};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The parser directives. Another `#NAME=VALUE` is a comment.
const DIRECTIVES: [&str; 3] = ["syntax", "escape", "check"];

impl Dockerfile {
    /// Reads a Dockerfile.
    ///
    /// # Errors
    ///
    /// [`DockerfileError`] for files that BuildKit refuses to split into instructions, and for files that exceed the
    /// limits.
    pub fn parse(bytes: &[u8]) -> Result<Dockerfile, DockerfileError> {
        let fail = |offset: usize, problem| {
            let (line, column) = line_and_column(bytes, offset);
            DockerfileError { offset, line, column, problem }
        };
        if bytes.len() > MAX_DOCKERFILE_BYTES {
            return Err(fail(0, Problem::TooLarge));
        }
        let mut parser = Parser { bytes, at: 0, escape: b'\\', directives: Some(Vec::new()), pieces: Vec::new() };
        if bytes.starts_with(BYTE_ORDER_MARK) {
            parser.piece(PieceKind::ByteOrderMark, 0..BYTE_ORDER_MARK.len());
            parser.at = BYTE_ORDER_MARK.len();
        }
        let mut instructions = Vec::new();
        while parser.at < bytes.len() {
            let start = parser.at;
            let read = parser.step().map_err(|problem| fail(start, problem))?;
            instructions.extend(read);
        }
        if instructions.is_empty() {
            return Err(fail(0, Problem::Empty));
        }
        Ok(Dockerfile { bytes: bytes.to_vec(), escape: parser.escape, pieces: parser.pieces, instructions })
    }
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    escape: u8,
    /// The parser directives that were read; `None` after the first line that is none.
    directives: Option<Vec<&'static str>>,
    pieces: Vec<Piece>,
}

impl Parser<'_> {
    fn piece(&mut self, kind: PieceKind, range: Range<usize>) {
        self.pieces.push(Piece { kind, span: range.into() });
    }

    /// Takes the next line, with its end.
    fn line(&mut self) -> Result<Option<Range<usize>>, Problem> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return Ok(None);
        }
        let length = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1);
        if length > MAX_LINE_BYTES {
            return Err(Problem::LongLine);
        }
        let start = self.at;
        self.at += length;
        Ok(Some(start..self.at))
    }

    /// Reads an instruction with its here-documents, or a line without one.
    fn step(&mut self) -> Result<Option<Instruction>, Problem> {
        let start = self.at;
        let Some(first) = self.line()? else { return Ok(None) };
        let content = self.without_indent(self.without_end(first.clone()));
        if self.directive(content.clone())? {
            self.piece(PieceKind::Directive, first);
            return Ok(None);
        }
        if self.is_comment(content.clone()) {
            self.piece(PieceKind::Comment, first);
            return Ok(None);
        }
        let (content, mut is_continued) = self.without_continuation(content);
        if content.is_empty() && !is_continued {
            self.piece(PieceKind::Blank, first);
            return Ok(None);
        }
        let mut logical = Traced::of(self.bytes, content);
        while is_continued && let Some(next) = self.line()? {
            let content = self.without_end(next);
            self.directive(content.clone())?;
            let is_blank = self.without_indent(content.clone()).is_empty();
            if is_blank || self.is_comment(content.clone()) {
                continue;
            }
            let (content, goes_on) = self.without_continuation(content);
            is_continued = goes_on;
            logical.push_file(self.bytes, content);
        }
        self.piece(PieceKind::Instruction, start..self.at);
        let mut instruction = split(&logical, self.escape, (start..self.at).into())?;
        self.heredocs(&logical, &mut instruction)?;
        Ok(Some(instruction))
    }

    fn heredocs(&mut self, logical: &Traced, instruction: &mut Instruction) -> Result<(), Problem> {
        if !instruction.may_have_heredocs || !logical.bytes().windows(2).any(|pair| pair == b"<<") {
            return Ok(());
        }
        for heredoc in heredocs_of(logical)? {
            let start = self.at;
            loop {
                let Some(line) = self.line()? else { return Err(Problem::Heredoc(heredoc.name)) };
                let mut end = &self.bytes[self.without_end(line)];
                while heredoc.strips_tabs && end.first() == Some(&b'\t') {
                    end = &end[1..];
                }
                if end == heredoc.name.as_bytes() {
                    break;
                }
            }
            self.piece(PieceKind::Heredoc, start..self.at);
            instruction.span.end = self.at;
        }
        Ok(())
    }

    /// Reads a parser directive. Returns whether the line is one.
    fn directive(&mut self, line: Range<usize>) -> Result<bool, Problem> {
        let Some(seen) = &mut self.directives else { return Ok(false) };
        let Some((name, value)) = directive_of(&self.bytes[line]) else {
            self.directives = None;
            return Ok(false);
        };
        if seen.contains(&name) {
            return Err(Problem::RepeatedDirective(name));
        }
        seen.push(name);
        if name == "escape" {
            self.escape = match value {
                b"\\" => b'\\',
                b"`" => b'`',
                _ => return Err(Problem::Escape),
            };
        }
        Ok(true)
    }

    fn without_end(&self, line: Range<usize>) -> Range<usize> {
        let content = self.bytes[line.clone()].iter().rposition(|byte| !matches!(byte, b'\r' | b'\n'));
        line.start..line.start + content.map_or(0, |last| last + 1)
    }

    fn without_indent(&self, line: Range<usize>) -> Range<usize> {
        line.start + indent(&self.bytes[line.clone()])..line.end
    }

    fn is_comment(&self, line: Range<usize>) -> bool {
        self.bytes[self.without_indent(line)].first() == Some(&b'#')
    }

    /// Removes the escape character at the end of the line. Returns whether there was one that is not escaped itself.
    fn without_continuation(&self, line: Range<usize>) -> (Range<usize>, bool) {
        let content = &self.bytes[line.clone()];
        let last = content.iter().rposition(|byte| !matches!(byte, b' ' | b'\t'));
        match last.filter(|last| content[*last] == self.escape) {
            Some(last) if last == 0 || content[last - 1] != self.escape => (line.start..line.start + last, true),
            _ => (line, false),
        }
    }
}

/// Reads `# NAME = VALUE` with a known name.
fn directive_of(line: &[u8]) -> Option<(&'static str, &[u8])> {
    let rest = line.strip_prefix(b"#")?.trim_ascii_start();
    let end = rest.iter().position(|byte| !byte.is_ascii_alphanumeric())?;
    let (name, rest) = rest.split_at(end);
    let value = rest.trim_ascii_start().strip_prefix(b"=")?.trim_ascii();
    let known = DIRECTIVES.into_iter().find(|known| known.as_bytes().eq_ignore_ascii_case(name))?;
    (!value.is_empty()).then_some((known, value))
}

/// Splits a logical line into the instruction, its flags and its arguments.
pub(super) fn split(line: &Traced, escape: u8, span: Span) -> Result<Instruction, Problem> {
    let line = line.trimmed();
    let (keyword, rest) = first_word(&line);
    let keyword = keyword.to_ascii_uppercase();
    let (flags, at) = flags(&line, rest, escape);
    let arguments = line.slice(at..line.len()).trimmed();
    let mut instruction =
        Instruction { keyword, flags, arguments, span, may_have_heredocs: false, is_json: false, trigger: None };
    match instruction.keyword.as_str() {
        "ADD" | "COPY" | "RUN" => {
            instruction.is_json = is_json(&instruction.arguments)?;
            instruction.may_have_heredocs = !instruction.is_json;
        }
        "ONBUILD" if !instruction.arguments.is_empty() => {
            // `ONBUILD ONBUILD` is refused by BuildKit; the limit on the line bounds the depth otherwise.
            let is_nested =
                instruction.arguments.bytes().get(..7).is_some_and(|word| word.eq_ignore_ascii_case(b"onbuild"));
            if !is_nested {
                let trigger = split(&instruction.arguments, escape, span)?;
                instruction.may_have_heredocs = trigger.may_have_heredocs;
                instruction.trigger = Some(Box::new(trigger));
            }
        }
        _ => {}
    }
    Ok(instruction)
}

/// Returns whether arguments are a JSON array of strings.
fn is_json(arguments: &Traced) -> Result<bool, Problem> {
    if !arguments.bytes().starts_with(b"[") {
        return Ok(false);
    }
    match serde_json::from_slice::<Vec<serde_json::Value>>(arguments.bytes()) {
        Ok(values) if values.iter().all(serde_json::Value::is_string) => Ok(true),
        Ok(_) => Err(Problem::NotStrings),
        Err(_) => Ok(false),
    }
}

/// Reads the flags, which start with `--`, without their quotes. Returns them and the position of the arguments.
///
/// BuildKit reads bytes here, so that the bytes 0x85 and 0xA0 end a flag.
fn flags(line: &Traced, start: usize, escape: u8) -> (Vec<Traced>, usize) {
    let is_space = |byte: u8| byte.is_ascii_whitespace() || matches!(byte, 0x0b | 0x85 | 0xa0);
    let bytes = line.bytes();
    let mut flags = Vec::new();
    let mut at = start;
    loop {
        while at < bytes.len() && is_space(bytes[at]) {
            at += 1;
        }
        if !bytes[at..].starts_with(b"--") {
            return (flags, at);
        }
        let (mut flag, mut quote, mut is_quoted) = (Traced::default(), None, false);
        while at < bytes.len() {
            let byte = bytes[at];
            match quote {
                None if is_space(byte) => break,
                None if matches!(byte, b'\'' | b'"') => (quote, is_quoted) = (Some(byte), true),
                Some(end) if byte == end => quote = None,
                _ if byte == escape => {
                    at += 1;
                    if at < bytes.len() {
                        flag.push(line, at..at + 1);
                    }
                }
                _ => flag.push(line, at..at + 1),
            }
            at += 1;
        }
        at = at.min(bytes.len());
        if flag.bytes() == b"--" {
            return (flags, at);
        }
        if is_quoted || !flag.is_empty() {
            flags.push(flag);
        }
    }
}

struct HeredocStart {
    name: String,
    strips_tabs: bool,
}

/// Finds the here-documents that a line starts. The escape character is always a backslash here, as in BuildKit.
fn heredocs_of(line: &Traced) -> Result<Vec<HeredocStart>, Problem> {
    let raw = LexOptions { escape: b'\\', raw_quotes: true, raw_escapes: true, skip_unset: true };
    let Ok((_, words)) = Lexer::new(line, raw, &NoVariables).run() else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for word in words {
        let bytes = word.bytes();
        let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let Some(rest) = bytes[digits..].strip_prefix(b"<<") else { continue };
        let (strips_tabs, rest) = rest.strip_prefix(b"-").map_or((false, rest), |rest| (true, rest));
        let rest = rest.trim_ascii_start();
        if rest.is_empty() || rest.contains(&b'<') {
            continue;
        }
        let rest = word.slice(bytes.len() - rest.len()..bytes.len());
        let plain = LexOptions { escape: b'\\', raw_quotes: false, raw_escapes: false, skip_unset: true };
        let (_, names) = Lexer::new(&rest, plain, &NoVariables).run()?;
        if let [name] = &names[..] {
            found.push(HeredocStart { name: name.text().into_owned(), strips_tabs });
        }
    }
    Ok(found)
}
