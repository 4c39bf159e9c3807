use clap::Args;
use clap::builder::{NonEmptyStringValueParser, TypedValueParser};
use ocikit::image::ConfigChange;
use ocikit::spec::{ConfigField, History};

use crate::context::Context;
use crate::failure::Result;
use crate::values::{key_value, one_of};

/// Changes of the config of an image.
#[derive(Debug, Args)]
pub(super) struct ConfigArguments {
    /// Remove this field; repeatable
    #[arg(long, value_name = "FIELD", value_parser = one_of(FIELDS).map(ConfigChange::Remove))]
    remove: Vec<ConfigChange>,
    /// Set this label; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = |text: &str| pair(text, ConfigChange::Label))]
    label: Vec<ConfigChange>,
    /// Remove this label; repeatable
    #[arg(long, value_name = "KEY", value_parser = of(ConfigChange::RemoveLabel))]
    remove_label: Vec<ConfigChange>,
    /// Set this environment variable; repeatable
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = |text: &str| pair(text, ConfigChange::Env))]
    env: Vec<ConfigChange>,
    /// Remove this environment variable; repeatable
    #[arg(long, value_name = "NAME", value_parser = of(ConfigChange::RemoveEnv))]
    remove_env: Vec<ConfigChange>,
    /// Set the program: a word, repeatable, or a JSON array of words
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// Set the default arguments: a word, repeatable, or a JSON array
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// Set the user, or user and group, by name or number
    #[arg(long, value_name = "USER[:GROUP]", value_parser = of(ConfigChange::User))]
    user: Option<ConfigChange>,
    /// Set the working directory, an absolute path
    #[arg(long, value_name = "DIR", value_parser = ConfigChange::working_dir)]
    workdir: Option<ConfigChange>,
    /// Expose this port; repeatable
    #[arg(long, alias = "expose", value_name = "PORT[/PROTOCOL]", value_parser = ConfigChange::port)]
    port: Vec<ConfigChange>,
    /// Remove this exposed port; repeatable
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    remove_port: Vec<String>,
    /// Add this directory for a volume, an absolute path; repeatable
    #[arg(long, value_name = "DIR", value_parser = ConfigChange::volume)]
    volume: Vec<ConfigChange>,
    /// Remove this directory for a volume; repeatable
    #[arg(long, value_name = "DIR", value_parser = of(ConfigChange::RemoveVolume))]
    remove_volume: Vec<ConfigChange>,
    /// Set the signal that stops the program, such as SIGTERM or 15
    #[arg(long, value_name = "SIGNAL", value_parser = ConfigChange::stop_signal)]
    stop_signal: Option<ConfigChange>,
    /// Set the author
    #[arg(long, value_name = "TEXT", value_parser = of(ConfigChange::Author))]
    author: Option<ConfigChange>,
    /// Set the creation time, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = time)]
    created: Option<String>,
    /// Set the operating system of the config and of its entry
    #[arg(long, value_name = "OS", value_parser = NonEmptyStringValueParser::new().map(ConfigChange::Os))]
    os: Option<ConfigChange>,
    /// Set the architecture of the config and of its entry
    #[arg(long, value_name = "ARCH", value_parser = NonEmptyStringValueParser::new().map(ConfigChange::Architecture))]
    architecture: Option<ConfigChange>,
    /// Set the variant of the architecture
    #[arg(long, value_name = "VARIANT", value_parser = of(ConfigChange::Variant))]
    variant: Option<ConfigChange>,
    /// Set the version of the operating system
    #[arg(long, value_name = "VERSION", value_parser = of(ConfigChange::OsVersion))]
    os_version: Option<ConfigChange>,
    /// Set a feature that the operating system must have; repeatable
    #[arg(long, value_name = "FEATURE")]
    os_feature: Vec<String>,
    /// Add an entry without a layer to the history; repeatable
    #[arg(long, value_name = "TEXT")]
    history: Vec<String>,
}

/// The fields that can be removed, by the names of their flags.
const FIELDS: [(&str, ConfigField); 16] = [
    ("author", ConfigField::Author),
    ("created", ConfigField::Created),
    ("variant", ConfigField::Variant),
    ("os-version", ConfigField::OsVersion),
    ("os-features", ConfigField::OsFeatures),
    ("history", ConfigField::History),
    ("env", ConfigField::Env),
    ("entrypoint", ConfigField::Entrypoint),
    ("cmd", ConfigField::Cmd),
    ("user", ConfigField::User),
    ("workdir", ConfigField::WorkingDir),
    ("ports", ConfigField::ExposedPorts),
    ("volumes", ConfigField::Volumes),
    ("labels", ConfigField::Labels),
    ("stop-signal", ConfigField::StopSignal),
    ("healthcheck", ConfigField::Healthcheck),
];

impl ConfigArguments {
    /// Returns the changes of the flags: first what is removed, then what is set.
    pub(super) fn changes(&self, context: &Context) -> Result<Vec<ConfigChange>> {
        let ConfigArguments { remove, remove_label, remove_env, remove_volume, label, env, port, volume, .. } = self;
        let mut changes = [&remove[..], remove_label, remove_env, remove_volume].concat();
        changes.extend(self.remove_port.iter().map(|port| ConfigChange::remove_port(port)));
        changes.extend([&label[..], env, port, volume].concat());
        changes.extend((!self.entrypoint.is_empty()).then(|| ConfigChange::entrypoint(&self.entrypoint)));
        changes.extend((!self.cmd.is_empty()).then(|| ConfigChange::cmd(&self.cmd)));
        let ConfigArguments { user, workdir, stop_signal, author, os, architecture, variant, os_version, .. } = self;
        let single = [user, workdir, stop_signal, author, os, architecture, variant, os_version];
        changes.extend(single.into_iter().flatten().cloned());
        changes.extend(self.created.clone().map(ConfigChange::Created));
        let features = &self.os_feature;
        changes.extend((!features.is_empty()).then(|| ConfigChange::OsFeatures(features.clone())));
        if !self.history.is_empty() {
            let created = Some(self.created.clone().map_or_else(|| context.time(), Ok)?);
            let step = |text: &String| {
                let created_by = Some(text.clone());
                ConfigChange::History(History { created: created.clone(), created_by, ..History::default() })
            };
            changes.extend(self.history.iter().map(step));
        }
        Ok(changes)
    }
}

/// Returns the parser of a change that any text is a value of.
fn of(change: fn(String) -> ConfigChange) -> impl TypedValueParser<Value = ConfigChange> {
    clap::builder::StringValueParser::new().map(change)
}

fn pair(text: &str, change: fn(String, String) -> ConfigChange) -> Result<ConfigChange, String> {
    key_value(text).map(|(key, value)| change(key, value))
}

fn time(text: &str) -> Result<String, String> {
    let parsed: Result<jiff::Timestamp, _> = text.parse();
    parsed.map(|_| text.to_owned()).map_err(|_| "it is not a time such as 2026-01-31T12:00:00Z".to_owned())
}
