//! The program `ocikit`: parses arguments, calls the library and prints the result.
//!
//! # Rules of this crate
//!
//! * Decisions that every program needs belong in the library, not here.
//! * Results go to standard output, all other text goes to standard error.
//! * Secrets are never printed.

mod archive;
mod base;
mod build;
mod change;
mod commands;
mod context;
mod coverage;
mod credentials;
mod environment;
mod failure;
mod file;
mod file_list;
mod help;
mod hidden;
mod hint;
mod hosts;
mod inside;
mod inspection;
mod interrupt;
mod keys;
mod layers;
mod lazy;
mod notation;
mod output;
mod pipe;
mod policy;
mod probe_result;
mod program;
mod progress;
mod publish;
mod quote;
mod remote;
mod report;
mod signed;
mod signify;
mod signing;
mod sigstore;
mod synced;
mod transfer;
mod values;
mod verbose;
mod waiting;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser};
use futures::FutureExt;

use crate::context::{Context, Global};
use crate::failure::{Failure, Result};
use crate::program::Program;

/// Build, copy, inspect, change, sign and serve container images
///
/// Reads and writes OCI archives, OCI layouts and registries. Needs no daemon and no root.
#[derive(Debug, Parser)]
#[command(name = "ocikit", version, max_term_width = 120, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: commands::Command,
}

/// Runs the program with the arguments and the environment of this process.
pub fn main() -> ExitCode {
    let (cli, command) = match parse() {
        Ok(parsed) => parsed,
        Err(error) => {
            output::usage(&error);
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    let json = cli.global.is_json();
    match run(cli, json) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let arguments = || std::env::args_os().skip(1).filter_map(|argument| argument.into_string().ok());
            let failure = failure.with_file_hint(arguments()).with_typed_names(arguments());
            output::print_failure(&failure, failure.hint_for(&parser(), &command), json);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Parses the arguments of this process. Returns them, and the names of the command and its subcommand.
fn parse() -> std::result::Result<(Cli, Vec<String>), clap::Error> {
    let matches = parser().try_get_matches()?;
    let mut command = Vec::new();
    let mut level = matches.subcommand();
    while let Some((name, matches)) = level {
        command.push(name.to_owned());
        level = matches.subcommand();
    }
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut parser()))?;
    Ok((cli, command))
}

/// Returns the parser of the command line.
fn parser() -> clap::Command {
    help::with_headings(Cli::command())
}

/// Returns the program, for commands that describe or run other commands.
fn program() -> Program {
    Program {
        parser,
        run: |line, mute| {
            async move {
                let cli = Cli::try_parse_from(line).map_err(Failure::usage)?;
                let context = if mute { Context::mute(cli.global) } else { Context::new(cli.global) }?;
                cli.command.run(&context, &program()).await
            }
            .boxed()
        },
    }
}

fn run(cli: Cli, json: bool) -> Result {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::io("start", "the runtime", &error))?;
    let outcome = runtime.block_on(async {
        interrupt::ignore_file_size_signal();
        let interrupted = interrupt::watch(json);
        let mut global = cli.global;
        global.calls_services = cli.command.calls_services();
        global.stores_credentials = matches!(cli.command, commands::Command::Login(_));
        let context = Context::new(global)?;
        let program = program();
        let outcome = tokio::select! {
            outcome = cli.command.run(&context, &program) => outcome,
            _ = interrupted => Err(interrupt::failure()),
        };
        if outcome.is_err() {
            context.settle().await;
        }
        outcome
    });
    match &outcome {
        // A thread that is blocked on standard input would keep the program running.
        Ok(()) => runtime.shutdown_background(),
        // Tasks get a moment to undo what they began, such as temporary files.
        Err(_) => runtime.shutdown_timeout(Duration::from_secs(1)),
    }
    outcome
}
