//! Values of a config that are checked before they are set, as docker and BuildKit check them.

use crate::edit_images::ConfigChange;

/// A value that an image must not have in its config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidConfigValue(&'static str);

/// The names of Linux signals without `SIG`, as moby/sys has them. The real-time signals are [`RTMIN_OFFSETS`] and
/// [`RTMAX_OFFSETS`].
const SIGNALS: [&str; 34] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
    "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1",
    "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// The highest number after `RTMIN+`.
const RTMIN_OFFSETS: u32 = 15;

/// The highest number after `RTMAX-`.
const RTMAX_OFFSETS: u32 = 14;

impl ConfigChange {
    /// Returns the change that adds an exposed port, or a range of ports; `tcp` if no protocol is given. Image
    /// specification, "ExposedPorts".
    ///
    /// ```
    /// use ocikit_image::ConfigChange;
    ///
    /// assert_eq!(ConfigChange::port("8080")?, ConfigChange::Port("8080/tcp".to_owned()));
    /// assert!(ConfigChange::port("99999").is_err());
    /// # Ok::<(), ocikit_image::InvalidConfigValue>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidConfigValue`] if it is not a port.
    pub fn port(text: &str) -> Result<ConfigChange, InvalidConfigValue> {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let is_port = |port: &str| port.parse::<u16>().is_ok_and(|number| number > 0);
        match ports.split('-').all(is_port) && matches!(protocol, "tcp" | "udp" | "sctp") {
            true => Ok(ConfigChange::Port(with_protocol(text))),
            false => Err(InvalidConfigValue("it is not a port from 1 to 65535, such as 8080 or 53/udp")),
        }
    }

    /// Returns the change that removes an exposed port; `tcp` if no protocol is given.
    pub fn remove_port(text: &str) -> ConfigChange {
        ConfigChange::RemovePort(with_protocol(text))
    }

    /// Returns the change that adds a volume. Docker starts no container with a volume at a relative path, or at the
    /// root.
    ///
    /// # Errors
    ///
    /// [`InvalidConfigValue`] if it is not an absolute path below the root.
    pub fn volume(path: &str) -> Result<ConfigChange, InvalidConfigValue> {
        match is_absolute(path) && !path.trim_matches('/').is_empty() {
            true => Ok(ConfigChange::Volume(path.to_owned())),
            false => Err(InvalidConfigValue("it is not an absolute path such as /data")),
        }
    }

    /// Returns the change that sets the working directory. Docker creates no container with a relative one.
    ///
    /// # Errors
    ///
    /// [`InvalidConfigValue`] if it is not an absolute path.
    pub fn working_dir(path: &str) -> Result<ConfigChange, InvalidConfigValue> {
        match is_absolute(path) {
            true => Ok(ConfigChange::WorkingDir(path.to_owned())),
            false => Err(InvalidConfigValue("it is not an absolute path such as /srv")),
        }
    }

    /// Returns the change that sets the signal that stops the program. BuildKit refuses others in a Dockerfile.
    ///
    /// # Errors
    ///
    /// [`InvalidConfigValue`] if it is neither a positive number nor the name of a signal of Linux, with or without
    /// `SIG`.
    pub fn stop_signal(text: &str) -> Result<ConfigChange, InvalidConfigValue> {
        let name = text.to_ascii_uppercase();
        let name = name.strip_prefix("SIG").unwrap_or(&name);
        let is_offset = |text: &str, highest| text.parse().is_ok_and(|offset: u32| (1..=highest).contains(&offset));
        let is_real_time = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
            (Some(rest), _) => {
                rest.is_empty() || rest.strip_prefix('+').is_some_and(|rest| is_offset(rest, RTMIN_OFFSETS))
            }
            (None, Some(rest)) => {
                rest.is_empty() || rest.strip_prefix('-').is_some_and(|rest| is_offset(rest, RTMAX_OFFSETS))
            }
            (None, None) => false,
        };
        let is_number = text.parse::<u32>().is_ok_and(|number| number > 0);
        match is_number || is_real_time || SIGNALS.contains(&name) {
            true => Ok(ConfigChange::StopSignal(text.to_owned())),
            false => Err(InvalidConfigValue("it is not a signal such as SIGTERM or 15")),
        }
    }

    /// Returns the change that replaces the program: the given words, or those of a single JSON array as in a
    /// Dockerfile.
    pub fn entrypoint(given: &[String]) -> ConfigChange {
        ConfigChange::Entrypoint(words(given))
    }

    /// Returns the change that replaces the default arguments: the given words, or those of a single JSON array as in a
    /// Dockerfile.
    pub fn cmd(given: &[String]) -> ConfigChange {
        ConfigChange::Cmd(words(given))
    }
}

fn words(given: &[String]) -> Vec<String> {
    match given {
        [only] => serde_json::from_str(only).unwrap_or_else(|_| given.to_vec()),
        _ => given.to_vec(),
    }
}

fn with_protocol(port: &str) -> String {
    if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") }
}

/// Returns whether a path is absolute on Linux or on Windows.
fn is_absolute(path: &str) -> bool {
    let has_drive = matches!(path.as_bytes(), [letter, b':', b'\\' | b'/', ..] if letter.is_ascii_alphabetic());
    path.starts_with(['/', '\\']) || has_drive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_as_docker_does() {
        for (text, is_valid) in [
            ("SIGTERM", true),
            ("term", true),
            ("15", true),
            ("SIGRTMIN+3", true),
            ("RTMAX-14", true),
            ("RTMAX", true),
            ("RTMIN+16", false),
            ("RTMAX-15", false),
            ("0", false),
            ("-1", false),
            ("", false),
            ("SIG", false),
            ("SIGNOPE", false),
            ("9 ", false),
        ] {
            assert_eq!(ConfigChange::stop_signal(text).is_ok(), is_valid, "{text}");
        }
        for (path, volume, directory) in [
            ("/data", true, true),
            ("/", false, true),
            ("C:\\data", true, true),
            ("data", false, false),
            ("./data", false, false),
            ("", false, false),
            ("C:data", false, false),
        ] {
            assert_eq!(ConfigChange::volume(path).is_ok(), volume, "{path}");
            assert_eq!(ConfigChange::working_dir(path).is_ok(), directory, "{path}");
        }
        for (port, is_valid) in
            [("1", true), ("53/udp", true), ("80-90", true), ("0", false), ("80/x", false), ("", false)]
        {
            assert_eq!(ConfigChange::port(port).is_ok(), is_valid, "{port}");
        }
    }
}
