//! Escapes for the commands that CI systems read from the log.

/// Escapes the message of a workflow command of GitHub Actions.
pub(super) fn github(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// Escapes the value of a logging command of Azure DevOps.
pub(super) fn azure(text: &str) -> String {
    text.replace('%', "%AZP25").replace('\r', "%0D").replace('\n', "%0A")
}
