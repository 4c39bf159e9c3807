//! The program under test.

use std::process::ExitCode;

fn main() -> ExitCode {
    ocikit_cli::main()
}
