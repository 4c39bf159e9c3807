use std::time::Duration;

use clap::Args;
use ocikit::image::ConfigChange;
use ocikit::spec::Healthcheck;

/// Changes of the health check in the config.
#[derive(Debug, Args)]
pub(super) struct HealthcheckArguments {
    /// Set the command of the health check, which a shell runs
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Set the time between two health checks, such as 30s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    health_interval: Option<Duration>,
    /// Set the time after which a health check fails
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    health_timeout: Option<Duration>,
    /// Set the time for the container to start
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    health_start_period: Option<Duration>,
    /// Set the time between two health checks while it starts
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    health_start_interval: Option<Duration>,
    /// Set the number of failures that make a container unhealthy
    #[arg(long, value_name = "NUMBER")]
    health_retries: Option<u64>,
    /// Disable the health check
    #[arg(long, conflicts_with = "health_cmd")]
    no_healthcheck: bool,
}

impl HealthcheckArguments {
    /// Returns the change; `None` if no flag was given.
    pub(super) fn change(&self) -> Option<ConfigChange> {
        let test = match (&self.health_cmd, self.no_healthcheck) {
            (_, true) => vec!["NONE".to_owned()],
            (Some(command), false) => vec!["CMD-SHELL".to_owned(), command.clone()],
            (None, false) => Vec::new(),
        };
        let check = Healthcheck {
            test,
            interval: self.health_interval.unwrap_or_default(),
            timeout: self.health_timeout.unwrap_or_default(),
            start_period: self.health_start_period.unwrap_or_default(),
            start_interval: self.health_start_interval.unwrap_or_default(),
            retries: self.health_retries.unwrap_or_default(),
        };
        (check != Healthcheck::default()).then_some(ConfigChange::Healthcheck(check))
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: Option<jiff::SignedDuration> = text.parse().ok();
    let parsed = parsed.and_then(|found| Duration::try_from(found).ok()).filter(|found| !found.is_zero());
    parsed.ok_or_else(|| "it is not a duration such as 30s".to_owned())
}
