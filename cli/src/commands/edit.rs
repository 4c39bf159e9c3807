use std::time::Duration;

use clap::builder::{NonEmptyStringValueParser, PossibleValue};
use clap::{Args, ValueEnum};
use ocikit::image::{ConfigChange, CopyKey, EditOptions, edit_images};
use ocikit::spec::{ConfigField, Healthcheck};
use ocikit::{AnnotateOptions, Location};

use super::annotate::On;
use crate::change::{ChangeArguments, PlatformArguments};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::values::key_value;

const EXAMPLES: &str = "\
Examples:
  ocikit edit --label team=web --env LANG=C.UTF-8 --user 1000 ghcr.io/acme/app:1
  ocikit edit --remove env --env PATH=/bin --entrypoint /app --cmd serve --cmd --verbose app.tar
  ocikit edit --label-to-annotation --promote org.opencontainers.image.revision app.tar
  ocikit edit --platform linux/arm64 --os-version 6.1 -o edited.tar app.tar";

/// Change annotations and config of an image, for one or all platforms
///
/// Changes a local archive or layout in place in constant time, and moves a tag in a registry; no layer is transferred.
/// Fields are removed first, then set, so that `--remove env --env A=1` replaces all variables. Everything else is kept,
/// including unknown fields. Values are taken byte for byte. Prints the new digest.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Edit {
    /// Image to change
    location: Location,
    #[command(flatten)]
    annotations: AnnotationArguments,
    #[command(flatten)]
    config: ConfigArguments,
    #[command(flatten)]
    healthcheck: HealthcheckArguments,
    #[command(flatten)]
    platforms: PlatformArguments,
    #[command(flatten)]
    change: ChangeArguments,
    /// Point referrers other than signatures to the new digest
    ///
    /// Each gets a copy with another subject. Signatures and in-toto attestations name the old digest in what they contain;
    /// they are left as they are and counted.
    #[arg(long, conflicts_with = "output")]
    update_referrers: bool,
}

#[derive(Debug, Args)]
struct AnnotationArguments {
    /// Set this annotation; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    annotation: Vec<(String, String)>,
    /// Remove this annotation; repeatable
    #[arg(long, value_name = "KEY")]
    remove_annotation: Vec<String>,
    /// Annotate these documents; default: manifests and their index
    #[arg(long, value_enum, value_name = "DOCUMENTS")]
    on: Option<On>,
    /// Copy a label to an annotation; without a key, all labels
    #[arg(long, value_name = "KEY[=NEW]", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    label_to_annotation: Vec<String>,
    /// Copy an annotation to a label; without a key, all annotations
    #[arg(long, value_name = "KEY[=NEW]", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    annotation_to_label: Vec<String>,
    /// Copy this annotation from the manifests to the index; repeatable
    #[arg(long, value_name = "KEY")]
    promote: Vec<String>,
    /// Remove the subject of the image
    #[arg(long)]
    remove_subject: bool,
}

#[derive(Debug, Args)]
struct ConfigArguments {
    /// Remove this field; repeatable
    #[arg(long, value_enum, value_name = "FIELD")]
    remove: Vec<Field>,
    /// Set this label; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    label: Vec<(String, String)>,
    /// Remove this label; repeatable
    #[arg(long, value_name = "KEY")]
    remove_label: Vec<String>,
    /// Set this environment variable; repeatable
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = key_value)]
    env: Vec<(String, String)>,
    /// Remove this environment variable; repeatable
    #[arg(long, value_name = "NAME")]
    remove_env: Vec<String>,
    /// Set the program: a word, repeatable, or a JSON array of words
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// Set the default arguments: a word, repeatable, or a JSON array
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// Set the user, or user and group, by name or number
    #[arg(long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Set the working directory
    #[arg(long, value_name = "DIR")]
    workdir: Option<String>,
    /// Expose this port; repeatable
    #[arg(long, alias = "expose", value_name = "PORT[/PROTOCOL]", value_parser = port)]
    port: Vec<String>,
    /// Remove this exposed port; repeatable
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    remove_port: Vec<String>,
    /// Add this directory for a volume; repeatable
    #[arg(long, value_name = "DIR")]
    volume: Vec<String>,
    /// Remove this directory for a volume; repeatable
    #[arg(long, value_name = "DIR")]
    remove_volume: Vec<String>,
    /// Set the signal that stops the program
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Set the author
    #[arg(long, value_name = "TEXT")]
    author: Option<String>,
    /// Set the creation time, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = time)]
    created: Option<String>,
    /// Set the operating system of the config and of its entry
    #[arg(long, value_name = "OS", value_parser = NonEmptyStringValueParser::new())]
    os: Option<String>,
    /// Set the architecture of the config and of its entry
    #[arg(long, value_name = "ARCH", value_parser = NonEmptyStringValueParser::new())]
    architecture: Option<String>,
    /// Set the variant of the architecture
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
    /// Set the version of the operating system
    #[arg(long, value_name = "VERSION")]
    os_version: Option<String>,
    /// Set a feature that the operating system must have; repeatable
    #[arg(long, value_name = "FEATURE")]
    os_feature: Vec<String>,
    /// Add an entry without a layer to the history; repeatable
    #[arg(long, value_name = "TEXT")]
    history: Vec<String>,
}

#[derive(Debug, Args)]
struct HealthcheckArguments {
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

/// A field of the config, by the name of its flag.
#[derive(Debug, Clone, Copy)]
struct Field(ConfigField);

impl Field {
    fn name(self) -> &'static str {
        match self.0 {
            ConfigField::Author => "author",
            ConfigField::Created => "created",
            ConfigField::Variant => "variant",
            ConfigField::OsVersion => "os-version",
            ConfigField::OsFeatures => "os-features",
            ConfigField::History => "history",
            ConfigField::Env => "env",
            ConfigField::Entrypoint => "entrypoint",
            ConfigField::Cmd => "cmd",
            ConfigField::User => "user",
            ConfigField::WorkingDir => "workdir",
            ConfigField::ExposedPorts => "ports",
            ConfigField::Volumes => "volumes",
            ConfigField::Labels => "labels",
            ConfigField::StopSignal => "stop-signal",
            ConfigField::Healthcheck => "healthcheck",
            _ => "other",
        }
    }
}

impl ValueEnum for Field {
    fn value_variants<'a>() -> &'a [Field] {
        use ConfigField::*;
        &[
            Field(Author),
            Field(Created),
            Field(Variant),
            Field(OsVersion),
            Field(OsFeatures),
            Field(History),
            Field(Env),
            Field(Entrypoint),
            Field(Cmd),
            Field(User),
            Field(WorkingDir),
            Field(ExposedPorts),
            Field(Volumes),
            Field(Labels),
            Field(StopSignal),
            Field(Healthcheck),
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

impl Edit {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let options = self.options(context)?;
        if options.is_empty() {
            return Err(Failure::usage("cannot edit: give a flag that changes something, such as --label KEY=VALUE"));
        }
        let change = self.change.prepare(context, &self.location, &[])?;
        let is_partial = !self.platforms.platform.is_empty();
        let changed = change.make(is_partial, async |root| edit_images(&root, &options).await).await?;
        change.report_with(&changed, self.update_referrers).await
    }

    fn options(&self, context: &Context) -> Result<EditOptions> {
        let AnnotationArguments { annotation, remove_annotation, on, promote, remove_subject, .. } = &self.annotations;
        let mut options = EditOptions::default();
        options.annotations = AnnotateOptions::default()
            .set(annotation.clone())
            .remove(remove_annotation.clone())
            .on(On::documents(*on))
            .platforms(self.platforms.platform.clone());
        options.labels_to_annotations = self.annotations.label_to_annotation.iter().map(|key| copy_key(key)).collect();
        options.annotations_to_labels = self.annotations.annotation_to_label.iter().map(|key| copy_key(key)).collect();
        options.promote.clone_from(promote);
        options.remove_subject = *remove_subject;
        options.config = self.config.changes(context)?;
        options.config.extend(self.healthcheck.change());
        Ok(options)
    }
}

impl ConfigArguments {
    /// Returns the changes of the flags: first what is removed, then what is set.
    fn changes(&self, context: &Context) -> Result<Vec<ConfigChange>> {
        use ConfigChange::*;
        let mut changes: Vec<_> = self.remove.iter().map(|field| Remove(field.0)).collect();
        changes.extend(self.remove_label.iter().cloned().map(RemoveLabel));
        changes.extend(self.remove_env.iter().cloned().map(RemoveEnv));
        changes.extend(self.remove_port.iter().map(|port| RemovePort(with_protocol(port))));
        changes.extend(self.remove_volume.iter().cloned().map(RemoveVolume));
        changes.extend(self.label.iter().cloned().map(|(key, value)| Label(key, value)));
        changes.extend(self.env.iter().cloned().map(|(name, value)| Env(name, value)));
        changes.extend((!self.entrypoint.is_empty()).then(|| Entrypoint(words(&self.entrypoint))));
        changes.extend((!self.cmd.is_empty()).then(|| Cmd(words(&self.cmd))));
        changes.extend(self.user.clone().map(User));
        changes.extend(self.workdir.clone().map(WorkingDir));
        changes.extend(self.port.iter().cloned().map(Port));
        changes.extend(self.volume.iter().cloned().map(Volume));
        changes.extend(self.stop_signal.clone().map(StopSignal));
        changes.extend(self.author.clone().map(Author));
        changes.extend(self.created.clone().map(Created));
        changes.extend(self.os.clone().map(Os));
        changes.extend(self.architecture.clone().map(Architecture));
        changes.extend(self.variant.clone().map(Variant));
        changes.extend(self.os_version.clone().map(OsVersion));
        changes.extend((!self.os_feature.is_empty()).then(|| OsFeatures(self.os_feature.clone())));
        if !self.history.is_empty() {
            let created = Some(self.created.clone().map_or_else(|| context.time(), Ok)?);
            let step = |text: &String| ocikit::spec::History {
                created: created.clone(),
                created_by: Some(text.clone()),
                ..ocikit::spec::History::default()
            };
            changes.extend(self.history.iter().map(|text| History(step(text))));
        }
        Ok(changes)
    }
}

impl HealthcheckArguments {
    fn change(&self) -> Option<ConfigChange> {
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

/// Parses KEY or KEY=NEW. No text selects all keys.
fn copy_key(text: &str) -> CopyKey {
    let (from, to) = text.split_once('=').unwrap_or((text, text));
    match text.is_empty() {
        true => CopyKey::All,
        false => CopyKey::One { from: from.to_owned(), to: to.to_owned() },
    }
}

/// Returns the words of a command: those given, or those of a single JSON array as in a Dockerfile.
fn words(given: &[String]) -> Vec<String> {
    match given {
        [only] => serde_json::from_str(only).unwrap_or_else(|_| given.to_vec()),
        _ => given.to_vec(),
    }
}

/// Parses an exposed port, or a range of ports as docker has it. Image specification, "ExposedPorts".
fn port(text: &str) -> Result<String, String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|number| number > 0);
    match ports.split('-').all(is_port) && matches!(protocol, "tcp" | "udp" | "sctp") {
        true => Ok(with_protocol(text)),
        false => Err("it is not a port from 1 to 65535, such as 8080 or 53/udp".to_owned()),
    }
}

fn with_protocol(port: &str) -> String {
    if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") }
}

fn time(text: &str) -> Result<String, String> {
    let parsed: Result<jiff::Timestamp, _> = text.parse();
    parsed.map(|_| text.to_owned()).map_err(|_| "it is not a time such as 2026-01-31T12:00:00Z".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: Option<jiff::SignedDuration> = text.parse().ok();
    let parsed = parsed.and_then(|found| Duration::try_from(found).ok()).filter(|found| !found.is_zero());
    parsed.ok_or_else(|| "it is not a duration such as 30s".to_owned())
}
