//! Hints below errors: which flags they name, and whether a command has them.

use clap::Command;

/// Returns whether every flag that a hint names exists: on this command, given by its name and the name of its subcommand,
/// or on the command that the hint quotes (`ocikit COMMAND …`).
pub(crate) fn is_for(hint: &str, root: &Command, command: &[String]) -> bool {
    let mut root = root.clone();
    root.build();
    let own = find(&root, command.iter().map(String::as_str));
    flags(hint).iter().all(|(quoted, flag)| match quoted {
        Some(line) => has(find(&root, line.split_whitespace().skip(1)), flag),
        None => has(own, flag),
    })
}

/// Returns the deepest command that the words name.
fn find<'a>(root: &'a Command, words: impl Iterator<Item = &'a str>) -> &'a Command {
    let mut command = root;
    for word in words {
        match command.find_subcommand(word) {
            Some(below) => command = below,
            None => break,
        }
    }
    command
}

fn has(command: &Command, flag: &str) -> bool {
    let mut names = command.get_arguments().flat_map(|argument| {
        let aliases = argument.get_all_aliases().unwrap_or_default();
        argument.get_long().into_iter().chain(aliases)
    });
    names.any(|name| name == flag) || flag == "help"
}

/// Returns the long flags in a text, without dashes; each with the command line in backticks that it is part of, if that
/// begins with `ocikit `.
fn flags(text: &str) -> Vec<(Option<&str>, &str)> {
    let mut found = Vec::new();
    for (number, part) in text.split('`').enumerate() {
        let quoted = (number % 2 == 1 && part.starts_with("ocikit ")).then_some(part);
        for (at, _) in part.match_indices("--") {
            let is_start =
                part[..at].chars().next_back().is_none_or(|before| !before.is_alphanumeric() && before != '-');
            let name = &part[at + 2..];
            let end = name.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-').unwrap_or(name.len());
            if is_start && end > 0 && !name.starts_with('-') {
                found.push((quoted, &name[..end]));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn flags_of_a_hint_are_found() {
        for (hint, expected) in [
            ("add `--plain-http=ghcr.io`", &[(None, "plain-http")][..]),
            ("give --username with --password-stdin", &[(None, "username"), (None, "password-stdin")]),
            ("see `--a` in `ocikit attest --help`", &[(None, "a"), (Some("ocikit attest --help"), "help")]),
            ("a--b, sha256:a--, `ocikit login x`", &[]),
        ] {
            assert_eq!(flags(hint), expected, "{hint}");
        }
    }

    #[test]
    fn hint_is_for_commands_that_have_its_flags() {
        let root = crate::parser();
        for (hint, command, expected) in [
            ("add `--no-referrers`", &["push"][..], true),
            ("add `--no-referrers`", &["annotate"], false),
            ("raise it with `--timeout SECONDS`", &["annotate"], true),
            ("raise it with `--timeout SECONDS`", &["blob", "get"], true),
            ("see `ocikit push --no-referrers`", &["annotate"], true),
            ("see `ocikit annotate --no-referrers`", &["push"], false),
            ("see `ocikit attest --help`", &["annotate"], true),
        ] {
            let command: Vec<_> = command.iter().map(|name| name.to_string()).collect();
            assert_eq!(is_for(hint, &root, &command), expected, "{hint}");
        }
    }

    /// A hint that is written in the file of a command must be for that command, and a hint in a shared file for some command.
    #[test]
    fn flags_of_hints_in_the_source_exist() {
        let mut root = crate::parser();
        root.build();
        let all = |flag: &str| {
            let mut commands: Vec<&Command> = vec![&root];
            while let Some(command) = commands.pop() {
                if has(command, flag) {
                    return true;
                }
                commands.extend(command.get_subcommands());
            }
            false
        };
        let mut hints = 0;
        for file in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
            let text = fs::read_to_string(&file).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap_or_default();
            let name = file.file_stem().unwrap().to_str().unwrap();
            let own = file.parent().unwrap().ends_with("commands").then(|| root.find_subcommand(name)).flatten();
            for call in text.split("hint(").skip(1) {
                // The literal of the call, if it has one.
                let call = call.trim_start().trim_start_matches("format_args!(").trim_start();
                let Some(literal) = call.strip_prefix('"').and_then(|rest| rest.split('"').next()) else { continue };
                hints += 1;
                for (quoted, flag) in flags(literal) {
                    let exists = match (quoted, own) {
                        (Some(line), _) => has(find(&root, line.split_whitespace().skip(1)), flag),
                        (None, Some(own)) => has(own, flag) || own.get_subcommands().any(|below| has(below, flag)),
                        (None, None) => all(flag),
                    };
                    assert!(exists, "{}: --{flag}: {literal}", file.display());
                }
            }
        }
        assert!(hints > 50, "only {hints} hints were found");
    }

    fn sources(directory: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => found.extend(sources(&path)),
                false => found.push(path),
            }
        }
        found
    }
}
