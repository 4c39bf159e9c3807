//! The program. All of its code is in the library of this package, so that tests can run it too.

use std::process::ExitCode;

fn main() -> ExitCode {
    ocikit_cli::main()
}
