//! The program itself, for commands that describe or run other commands.

use futures::future::BoxFuture;

use crate::failure::Result;

/// The parser of the command line, and a way to run one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    /// Returns the parser.
    pub(crate) parser: fn() -> clap::Command,
    /// Runs a command line, which begins with the name of the program. The flag turns all output off.
    pub(crate) run: for<'a> fn(Vec<&'a str>, bool) -> BoxFuture<'a, Result>,
}
