//! The program. All of it is in the library beside this file, so that tests can start it too.

use std::process::ExitCode;

fn main() -> ExitCode {
    ocikit_cli::main()
}
