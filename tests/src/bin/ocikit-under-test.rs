//! The program, for tests to start.

use std::process::ExitCode;

fn main() -> ExitCode {
    ocikit_cli::main()
}
