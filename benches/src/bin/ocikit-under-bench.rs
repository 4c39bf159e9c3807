//! The program, for benches to start.

use std::process::ExitCode;

fn main() -> ExitCode {
    ocikit_cli::main()
}
