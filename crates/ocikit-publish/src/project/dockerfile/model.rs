use super::error::{DockerfileError, DockerfileProblem};
use super::traced::Traced;
use crate::project::place::{Span, line_and_column};

/// A parsed Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    pub(super) bytes: Vec<u8>,
    pub(super) escape: u8,
    pub(super) pieces: Vec<Piece>,
    pub(super) instructions: Vec<Instruction>,
}

/// A part of a Dockerfile. The pieces in their order are the whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Its kind.
    pub kind: PieceKind,
    /// Its bytes.
    pub span: Span,
}

/// The kind of a part of a Dockerfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceKind {
    /// The byte order mark at the beginning.
    ByteOrderMark,
    /// A line without content.
    Blank,
    /// A comment line outside of an instruction.
    Comment,
    /// A parser directive, such as `# escape=`.
    Directive,
    /// The lines of an instruction, with the comments between them.
    Instruction,
    /// The lines of a here-document, with the line that ends it.
    Heredoc,
}

/// An instruction: a logical line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Instruction {
    /// The instruction in upper case.
    pub(super) keyword: String,
    /// The flags, without quotes.
    pub(super) flags: Vec<Traced>,
    /// What follows the flags.
    pub(super) arguments: Traced,
    /// The lines in the file, with here-documents.
    pub(super) span: Span,
    pub(super) may_have_heredocs: bool,
    pub(super) is_json: bool,
    /// The instruction of `ONBUILD`.
    pub(super) trigger: Option<Box<Instruction>>,
}

impl Dockerfile {
    /// Returns the bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the pieces. Together they are the whole file.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Returns the keywords of the instructions in upper case, in their order.
    pub fn keywords(&self) -> impl Iterator<Item = &str> {
        self.instructions.iter().map(|instruction| instruction.keyword.as_str())
    }

    pub(super) fn error(&self, at: Option<Span>, fallback: Span, problem: DockerfileProblem) -> DockerfileError {
        let offset = at.unwrap_or(fallback).start;
        let (line, column) = line_and_column(&self.bytes, offset);
        DockerfileError { offset, line, column, problem }
    }
}
