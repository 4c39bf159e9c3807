//! The program `ocikit`: arguments in, a library call, words out.
//!
//! # What this crate never does
//!
//! * It never decides anything that another program that embeds the library would have to decide as well.
//! * It never prints data to standard error, nor talk to standard output.
//! * It never shows a secret.

mod archive;
mod commands;
mod context;
mod coverage;
mod failure;
mod file;
mod hosts;
mod inside;
mod keys;
mod notation;
mod output;
mod policy;
mod progress;
mod quote;
mod report;
mod sigstore;
mod transfer;
mod verbose;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::context::{Context, Global};
use crate::failure::{Code, Failure, Result};

/// Everything with container images except the solve
///
/// Reads and writes OCI archives, layouts and registries; no daemon, no root, no temporary copies.
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
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            output::usage(&error);
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let arguments = std::env::args_os().skip(1).filter_map(|argument| argument.into_string().ok());
            let failure = failure.with_file_hint(arguments);
            output::complain(&failure);
            ExitCode::from(failure.code as u8)
        }
    }
}

fn run(cli: Cli) -> Result {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::io("start", "the runtime", &error))?;
    let outcome = runtime.block_on(async {
        let mut global = cli.global;
        global.calls_services = cli.command.calls_services();
        let context = Context::new(global)?;
        let outcome = tokio::select! {
            outcome = cli.command.run(&context) => outcome,
            () = interrupted() => Err(Failure::new(Code::Interrupted, "interrupted")),
        };
        if outcome.is_err() {
            context.settle().await;
        }
        outcome
    });
    match &outcome {
        // A thread that waits for standard input would keep the program from ending.
        Ok(()) => runtime.shutdown_background(),
        // What was begun is undone by whoever began it.
        Err(_) => runtime.shutdown_timeout(Duration::from_secs(1)),
    }
    outcome
}

/// Returns when somebody wants the program to end. What it was doing is dropped, and so undone.
async fn interrupted() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
        if let Ok(mut terminate) = terminate {
            tokio::select! {
                _ = interrupt => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = interrupt.await;
}
