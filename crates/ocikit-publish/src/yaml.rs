//! Messages of the YAML parser.

/// Returns the problem of a YAML document, with its position. The default messages name options of the parser and quote
/// lines of the file, which may have a password.
pub(crate) fn yaml_problem(error: &serde_saphyr::Error) -> String {
    error.without_snippet().render_with_formatter(&serde_saphyr::UserMessageFormatter)
}
