//! Leaves warnings of BuildKit out that are about what this program does.

use std::sync::Arc;

use ocikit_build::{Observer, Progress};

/// The warning about a `FROM` that has no image name if its build arguments are not given.
const NO_DEFAULT: &str = "InvalidDefaultArgInFrom";

/// Returns an observer that is not told the warning about a `FROM` that needs this build argument, which every build of a
/// project gets.
pub(super) fn without_noise(steps: Arc<dyn Observer>, argument: &str) -> Arc<dyn Observer> {
    Arc::new(WithoutNoise { steps, argument: argument.to_owned() })
}

#[derive(Debug)]
struct WithoutNoise {
    steps: Arc<dyn Observer>,
    argument: String,
}

impl Observer for WithoutNoise {
    fn progress(&self, progress: &Progress) {
        match progress {
            Progress::Warning { message } if is_noise(message, &self.argument) => {}
            progress => self.steps.progress(progress),
        }
    }
}

/// Returns whether a warning is about a missing default of no argument but this one.
fn is_noise(message: &str, argument: &str) -> bool {
    let mut uses = message.split('$').skip(1).peekable();
    let is_argument = |rest: &str| {
        let rest = rest.strip_prefix('{').unwrap_or(rest).strip_prefix(argument);
        rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_'))
    };
    message.starts_with(NO_DEFAULT) && uses.peek().is_some() && uses.all(is_argument)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_warning_about_the_argument_is_noise() {
        let of =
            |name: &str| format!("InvalidDefaultArgInFrom: Default value for ARG {name} results in empty or invalid");
        for (message, expected) in [
            (of("${REGISTRY}/mid:1.0.0"), true),
            (of("$REGISTRY/mid:1.0.0"), true),
            (of("${REGISTRY}/${NAME}"), false),
            (of("${REGISTRY_2}/mid"), false),
            (of("mid"), false),
            ("UndefinedVar: ${REGISTRY}".to_owned(), false),
        ] {
            assert_eq!(is_noise(&message, "REGISTRY"), expected, "{message}");
        }
    }
}
