//! The pages for users of other tools.

use std::fs;

use ocikit_tests::Peers;

/// Checks that a page mentions every subcommand of a program that has its help in the format of Go's cobra.
pub(super) fn has_every_subcommand(peers: &Peers, program: &str, page: &str) {
    let path = format!("{}/../docs/{page}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(path).unwrap();
    let mut pending = vec![program.to_owned()];
    let mut found = 0;
    while let Some(command) = pending.pop() {
        let below = subcommands(&peers.ok(&format!("{command} --help")));
        if below.is_empty() {
            found += 1;
            assert!(
                text.contains(&format!("`{command} ")) || text.contains(&format!("`{command}`")),
                "{page}: {command}"
            );
        }
        pending.extend(below.iter().map(|name| format!("{command} {name}")));
    }
    assert!(found > 20, "{found}");
}

fn subcommands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| !line.starts_with("Available Commands:")).skip(1);
    let names = lines.take_while(|line| !line.trim().is_empty()).filter_map(|line| line.split_whitespace().next());
    // Both are those of the library for command lines.
    names.filter(|name| !["help", "completion"].contains(name)).map(str::to_owned).collect()
}
