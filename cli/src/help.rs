//! The help of the program: `ocikit --help` lists the commands under headings, with examples at the end.

use std::fmt::Write;

use clap::Command;

/// The headings of `ocikit --help` with their commands. Every command is under one heading.
const HEADINGS: [(&str, &[&str]); 9] = [
    ("Copy", &["copy", "push", "pull", "sync", "export", "unpack"]),
    ("Inspect", &["inspect", "tags", "repos", "kind", "digest", "tree", "referrers", "ls", "cat", "diff", "validate"]),
    (
        "Change",
        &[
            "annotate",
            "edit",
            "append",
            "rebase",
            "flatten",
            "recompress",
            "normalize",
            "convert",
            "repack",
            "index",
            "tag",
            "delete",
            "gc",
        ],
    ),
    ("Artifacts", &["artifact", "attach"]),
    ("Trust", &["keygen", "sign", "verify", "attest", "signify", "verify-token"]),
    ("Build and publish", &["build", "fastpull", "buildkit", "publish", "project", "agent"]),
    ("Low level", &["manifest", "blob", "config"]),
    ("Registries", &["login", "logout", "probe", "serve"]),
    ("Other", &["tour", "completion", "version", "help"]),
];

const EXAMPLES: &str = "\
Examples:
  ocikit tour
  ocikit inspect alpine:3.22
  ocikit annotate app.tar org.opencontainers.image.revision=6c22711
  ocikit push app.tar ghcr.io/acme/app:1

`ocikit COMMAND --help` describes a command and shows examples.";

/// Lists the commands under [`HEADINGS`] in the help of the program.
pub(crate) fn with_headings(command: Command) -> Command {
    let list = list(&command);
    let template = "{about-with-newline}\n{usage-heading} {usage}\n\n";
    command
        .help_template(format!("{template}{list}{{all-args}}{{after-help}}"))
        // clap leaves `<COMMAND>` out of the usage when all commands are hidden.
        .override_usage("ocikit [OPTIONS] <COMMAND>")
        .after_help(EXAMPLES)
        // The template lists the commands already.
        .mut_subcommands(|subcommand| subcommand.hide(true))
}

/// Returns the headings with a line for each command.
fn list(command: &Command) -> String {
    let names = HEADINGS.iter().flat_map(|(_, names)| *names);
    let width = names.map(|name| name.len()).max().unwrap_or_default();
    let styles = command.get_styles();
    let (header, literal) = (styles.get_header(), styles.get_literal());
    let mut text = String::new();
    for (heading, names) in HEADINGS {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{header}{heading}:{header:#}");
        for name in names {
            let _ = writeln!(text, "  {literal}{name:<width$}{literal:#}  {}", summary(command, name));
        }
        text.push('\n');
    }
    text
}

/// Returns the first line of the help of a command, with the other names of the command.
fn summary(command: &Command, name: &str) -> String {
    let Some(found) = command.find_subcommand(name) else {
        // clap adds the command `help` when it parses.
        return "Print the help of a command".to_owned();
    };
    let about = found.get_about().map(ToString::to_string).unwrap_or_default();
    let aliases: Vec<_> = found.get_visible_aliases().collect();
    match aliases.is_empty() {
        true => about,
        false => format!("{about} [also: {}]", aliases.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::Cli;

    /// The longest first line of the help of a command or flag, in characters.
    const MAX_SUMMARY_CHARS: usize = 70;

    /// Calls a function for a command and all commands below it.
    fn walk(command: &Command, path: &str, visit: &mut dyn FnMut(&str, &Command)) {
        visit(path, command);
        for subcommand in command.get_subcommands() {
            walk(subcommand, &format!("{path} {}", subcommand.get_name()), visit);
        }
    }

    #[test]
    fn every_command_is_under_one_heading() {
        let mut listed: Vec<_> = HEADINGS.iter().flat_map(|(_, names)| *names).copied().collect();
        listed.sort_unstable();
        let command = Cli::command();
        let mut names: Vec<_> = command.get_subcommands().map(Command::get_name).chain(["help"]).collect();
        names.sort_unstable();
        assert_eq!(listed, names);
    }

    #[test]
    fn help_lists_headings_commands_and_examples() {
        let text = with_headings(Cli::command()).render_help().to_string();
        for part in
            ["Usage: ocikit [OPTIONS] <COMMAND>", "Copy:\n  copy  ", "  Copy an image", "[also: cp]", "Examples:"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(text.matches("\n  push ").count(), 1, "{text}");
    }

    #[test]
    fn first_lines_of_help_are_short() {
        let mut wrong = Vec::new();
        walk(&Cli::command(), "ocikit", &mut |path, command| {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let flags = command.get_arguments().filter_map(|argument| Some((argument.get_id(), argument.get_help()?)));
            let flags = flags.map(|(id, help)| (id.to_string(), help.to_string()));
            for (name, text) in flags.chain([(String::new(), about)]) {
                let length = text.chars().count();
                if !(1..=MAX_SUMMARY_CHARS).contains(&length) {
                    wrong.push(format!("{path} {name}: {length} characters: {text}"));
                }
            }
        });
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn examples_of_every_command_are_accepted() {
        walk(&Cli::command(), "ocikit", &mut |path, command| {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            if path == "ocikit" {
                return;
            }
            let (first, examples) = text.split_once('\n').unwrap_or_default();
            assert_eq!(first, "Examples:", "{path}");
            assert!((2..=4).contains(&examples.lines().count()), "{path}: {examples}");
            for example in examples.lines() {
                let words: Vec<_> =
                    example.split([';', '<', '>']).next().unwrap_or_default().split_whitespace().collect();
                assert!(words.join(" ").starts_with(path), "{path}: {example}");
                assert!(Cli::try_parse_from(words).is_ok(), "{example}");
            }
        });
        for example in EXAMPLES.lines().filter(|line| line.starts_with("  ")) {
            assert!(Cli::try_parse_from(example.split_whitespace()).is_ok(), "{example}");
        }
    }
}
