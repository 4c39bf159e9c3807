use clap::Args;
use clap_complete::Shell;

use crate::context::Context;
use crate::failure::Result;
use crate::program::Program;

const EXAMPLES: &str = "\
Examples:
  ocikit completion bash > /etc/bash_completion.d/ocikit
  ocikit completion zsh > ~/.zfunc/_ocikit";

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Completion {
    /// Shell to complete for
    shell: Shell,
}

impl Completion {
    pub(crate) fn run(&self, context: &Context, program: &Program) -> Result {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut (program.parser)(), "ocikit", &mut script);
        context.output.bytes(&script)
    }
}
