use std::fmt::Write as _;

use super::model::Report;

impl Report {
    /// Returns the summary in Markdown: a table of images and architectures.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        if self.references().is_empty() && self.targets.is_empty() {
            return text;
        }
        if self.references().is_empty() {
            text.push_str("### No image published\n");
        } else {
            text.push_str(HEAD);
            rows(&mut text, self);
        }
        // Writing to a string does not fail.
        let _ = writeln!(text, "\nDigest: `{}`, {}", self.digest, cell(&self.signing));
        let problems = self.targets.iter().flat_map(|target| target.tags.iter().map(move |tag| (target, tag)));
        for (target, tag) in problems.filter(|(_, tag)| tag.state != "verified") {
            let problem = tag.problem.as_deref().unwrap_or_default();
            let _ = writeln!(
                text,
                "\n**{}:{} {}**: {}",
                cell(&target.repository),
                cell(&tag.tag),
                tag.state,
                cell(problem)
            );
        }
        for lazy in &self.lazy {
            if let Some(problem) = &lazy.problem {
                let _ = writeln!(text, "\n**The {} image is missing**: {}", lazy.format, cell(problem));
            }
        }
        for target in &self.targets {
            if let Some(problem) = &target.statement_problem {
                let _ = writeln!(text, "\n**{} has no statement**: {}", cell(&target.repository), cell(problem));
            }
        }
        text
    }
}

/// The heading, and the head of the table.
pub(crate) const HEAD: &str = "### Images published\n\n| Image | Architecture |\n|---|---|\n";

/// Writes a row of the table for each reference that points to the image.
pub(crate) fn rows(text: &mut String, report: &Report) {
    let architectures = report.platforms.iter().map(|platform| cell(platform)).collect::<Vec<_>>().join(", ");
    for reference in report.references() {
        let _ = writeln!(text, "| {} | {architectures} |", cell(&reference));
    }
    for lazy in &report.lazy {
        for reference in &lazy.references {
            let _ = writeln!(text, "| {} ({}) | {architectures} |", cell(reference), lazy.format);
        }
    }
}

/// Escapes a text for a cell of a table.
pub(crate) fn cell(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' => {
                // References have `_` often, and GitHub does not read it as emphasis within a word.
                if letter != '_' {
                    escaped.push('\\');
                }
                escaped.push(letter);
            }
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            letter if letter.is_control() => escaped.push(' '),
            letter => escaped.push(letter),
        }
    }
    escaped
}
