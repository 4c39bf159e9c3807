use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;

use super::base::{Edit, Item, change_map, item, list, no_item, parsed, raw, remove, set, set_or_remove};
use crate::document::{Config, Execution, History};
use crate::error::{Error, Result};
use crate::json::Object;
use crate::{Digest, Platform};

/// The time of a step without one: the zero value of Go's `time.Time`, as go-containerregistry writes it.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// Changes to the config of an image, which produce a new one.
///
/// Everything that is not changed keeps its exact text: unknown fields, the order of keys, the spelling of numbers. A
/// list or map is removed with its last item.
///
/// The history stays aligned with the layers: if it has one entry for each layer, not counting entries with
/// `empty_layer`, then it still has after the edit. A history that is not aligned is not changed with the layers.
///
/// ```
/// use ocikit_spec::Config;
///
/// let config = Config::parse(r#"{"architecture":"arm64","os":"linux","config":{"Healthcheck":{"Test":["NONE"]}}}"#)?;
/// let edited = config.edit().entrypoint(["/app", "--serve"]).env("LANG", "C.UTF-8").label("team", "web").finish()?;
/// assert_eq!(edited.execution().env, ["LANG=C.UTF-8"]);
/// assert!(edited.text().contains(r#""Healthcheck":{"Test":["NONE"]}"#));
/// # Ok::<(), ocikit_spec::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ConfigEdit {
    edit: Edit,
    original: Config,
}

/// A field of a config that can be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigField {
    /// The author.
    Author,
    /// The creation time.
    Created,
    /// The variant of the architecture.
    Variant,
    /// The version of the operating system.
    OsVersion,
    /// The features that the operating system must have.
    OsFeatures,
    /// The history of the build.
    History,
    /// The environment variables.
    Env,
    /// The program and its fixed arguments.
    Entrypoint,
    /// The default arguments.
    Cmd,
    /// The user.
    User,
    /// The working directory.
    WorkingDir,
    /// The exposed ports.
    ExposedPorts,
    /// The volumes.
    Volumes,
    /// The labels.
    Labels,
    /// The signal that stops the program.
    StopSignal,
    /// The health check.
    Healthcheck,
}

/// A command that checks whether a container works, as Docker stores it in image configs.
///
/// Docker, "HEALTHCHECK". The image specification reserves the field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["CMD", …]` to run a program, `["CMD-SHELL", command]` for a shell command, `["NONE"]` to disable an inherited
    /// check.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// The time between two checks; the default of the runtime if zero.
    #[serde(with = "nanoseconds", skip_serializing_if = "Duration::is_zero")]
    pub interval: Duration,
    /// The time after which a check fails; the default of the runtime if zero.
    #[serde(with = "nanoseconds", skip_serializing_if = "Duration::is_zero")]
    pub timeout: Duration,
    /// The time for the container to start; the default of the runtime if zero.
    #[serde(with = "nanoseconds", skip_serializing_if = "Duration::is_zero")]
    pub start_period: Duration,
    /// The time between two checks while the container starts; the default of the runtime if zero.
    #[serde(with = "nanoseconds", skip_serializing_if = "Duration::is_zero")]
    pub start_interval: Duration,
    /// The number of failed checks in a row after which the container is unhealthy; the default of the runtime if zero.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Durations as Go's `time.Duration`: an integer of nanoseconds.
mod nanoseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Ok(Duration::from_nanos(Option::<u64>::deserialize(deserializer)?.unwrap_or_default()))
    }
}

impl Config {
    /// Starts an edit.
    pub fn edit(&self) -> ConfigEdit {
        ConfigEdit { edit: Edit::begin("config", &self.text), original: self.clone() }
    }

    /// Returns the health check; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Document`] if it does not have the form that Docker writes.
    pub fn healthcheck(&self) -> Result<Option<Healthcheck>> {
        let invalid = |error: serde_json::Error| Error::Document { document: "config", problem: error.to_string() };
        let object = self.edit().edit.object?;
        let Some(execution) = object.get::<Option<Object>>("config").map_err(invalid)? else { return Ok(None) };
        execution.get("Healthcheck").map_err(invalid)
    }

    /// Returns the config with additional layers, given their `diff_ids`. Each gets a history entry if the config has a
    /// history with one for each layer.
    ///
    /// # Errors
    ///
    /// [`Error::Document`] if the result would not be a config.
    pub fn with_layers(&self, diff_ids: &[Digest]) -> Result<Config> {
        let mut edit = self.edit();
        if edit.edit.object.as_ref().is_ok_and(|object| object.raw("rootfs").is_some_and(|rootfs| rootfs != "null")) {
            diff_ids.iter().for_each(|diff_id| {
                edit.push_layer(diff_id, None);
            });
        }
        edit.finish()
    }
}

impl ConfigEdit {
    /// Sets an environment variable. The first variable of this name gets the value; further ones, of which readers take
    /// one or the other, are removed. Names of Windows images have no case.
    pub fn env(&mut self, name: &str, value: &str) -> &mut ConfigEdit {
        self.set_env(name, Some(format!("{name}={value}")))
    }

    /// Removes the environment variables of this name.
    pub fn remove_env(&mut self, name: &str) -> &mut ConfigEdit {
        self.set_env(name, None)
    }

    /// Sets a label.
    pub fn label(&mut self, key: &str, value: &str) -> &mut ConfigEdit {
        self.within(|execution| change_map(execution, "Labels", |labels| labels.set(key, raw(value))))
    }

    /// Removes a label, if it exists.
    pub fn remove_label(&mut self, key: &str) -> &mut ConfigEdit {
        self.within(|execution| change_map(execution, "Labels", |labels| labels.remove(key)))
    }

    /// Adds an exposed port, as `port/protocol`.
    pub fn port(&mut self, port: &str) -> &mut ConfigEdit {
        self.within(|execution| change_set(execution, "ExposedPorts", |ports| add_key(ports, port)))
    }

    /// Removes an exposed port, if it exists.
    pub fn remove_port(&mut self, port: &str) -> &mut ConfigEdit {
        self.within(|execution| change_set(execution, "ExposedPorts", |ports| ports.remove(port)))
    }

    /// Adds a directory for a volume.
    pub fn volume(&mut self, directory: &str) -> &mut ConfigEdit {
        self.within(|execution| change_set(execution, "Volumes", |volumes| add_key(volumes, directory)))
    }

    /// Removes a directory for a volume, if it exists.
    pub fn remove_volume(&mut self, directory: &str) -> &mut ConfigEdit {
        self.within(|execution| change_set(execution, "Volumes", |volumes| volumes.remove(directory)))
    }

    /// Replaces the program and its fixed arguments.
    pub fn entrypoint<T: AsRef<str>>(&mut self, words: impl IntoIterator<Item = T>) -> &mut ConfigEdit {
        self.words("Entrypoint", words)
    }

    /// Replaces the default arguments, which a user may replace.
    pub fn cmd<T: AsRef<str>>(&mut self, words: impl IntoIterator<Item = T>) -> &mut ConfigEdit {
        self.words("Cmd", words)
    }

    /// Sets the user, or user and group, by name or number.
    pub fn user(&mut self, user: &str) -> &mut ConfigEdit {
        self.within(|execution| set(execution, "User", user))
    }

    /// Sets the working directory.
    pub fn working_dir(&mut self, directory: &str) -> &mut ConfigEdit {
        self.within(|execution| set(execution, "WorkingDir", directory))
    }

    /// Sets the signal that stops the program.
    pub fn stop_signal(&mut self, signal: &str) -> &mut ConfigEdit {
        self.within(|execution| set(execution, "StopSignal", signal))
    }

    /// Replaces the health check. Its unknown fields are kept.
    pub fn healthcheck(&mut self, check: &Healthcheck) -> &mut ConfigEdit {
        self.change_healthcheck(|old| old.clone_from(check))
    }

    /// Changes the health check, which is created if there is none. Its unknown fields are kept.
    pub fn change_healthcheck(&mut self, change: impl FnOnce(&mut Healthcheck)) -> &mut ConfigEdit {
        self.within(|execution| {
            let present = execution.raw("Healthcheck").filter(|value| *value != "null");
            let mut object = Object::parse(present.unwrap_or("{}"))?;
            let mut check: Healthcheck = execution.get::<Option<_>>("Healthcheck")?.unwrap_or_default();
            change(&mut check);
            let new: serde_json::Value = serde_json::to_value(check)?;
            let mut changed = present.is_none();
            for key in ["Test", "Interval", "Timeout", "StartPeriod", "StartInterval", "Retries"] {
                changed |= set_or_remove(&mut object, key, new.get(key))?;
            }
            Ok(changed && execution.set("Healthcheck", object.to_raw()?))
        })
    }

    /// Sets the author.
    pub fn author(&mut self, author: &str) -> &mut ConfigEdit {
        self.text("author", author)
    }

    /// Sets the creation time, RFC 3339.
    pub fn created(&mut self, time: &str) -> &mut ConfigEdit {
        self.text("created", time)
    }

    /// Replaces all fields of the platform; those that it does not state are removed.
    pub fn platform(&mut self, platform: &Platform) -> &mut ConfigEdit {
        self.edit.change(|object| set_platform(object, platform));
        self
    }

    /// Sets the operating system, by Go's name for it.
    pub fn os(&mut self, os: &str) -> &mut ConfigEdit {
        self.text("os", os)
    }

    /// Sets the architecture, by Go's name for it.
    pub fn architecture(&mut self, architecture: &str) -> &mut ConfigEdit {
        self.text("architecture", architecture)
    }

    /// Sets the variant of the architecture.
    pub fn variant(&mut self, variant: &str) -> &mut ConfigEdit {
        self.text("variant", variant)
    }

    /// Sets the version of the operating system.
    pub fn os_version(&mut self, version: &str) -> &mut ConfigEdit {
        self.text("os.version", version)
    }

    /// Replaces the features that the operating system must have.
    pub fn os_features<T: AsRef<str>>(&mut self, features: impl IntoIterator<Item = T>) -> &mut ConfigEdit {
        let features: Vec<String> = features.into_iter().map(|feature| feature.as_ref().to_owned()).collect();
        self.edit.change(|object| set(object, "os.features", &features));
        self
    }

    /// Removes a field, if it exists.
    pub fn remove(&mut self, field: ConfigField) -> &mut ConfigEdit {
        let (key, is_top) = match field {
            ConfigField::Author => ("author", true),
            ConfigField::Created => ("created", true),
            ConfigField::Variant => ("variant", true),
            ConfigField::OsVersion => ("os.version", true),
            ConfigField::OsFeatures => ("os.features", true),
            ConfigField::History => ("history", true),
            ConfigField::Env => ("Env", false),
            ConfigField::Entrypoint => ("Entrypoint", false),
            ConfigField::Cmd => ("Cmd", false),
            ConfigField::User => ("User", false),
            ConfigField::WorkingDir => ("WorkingDir", false),
            ConfigField::ExposedPorts => ("ExposedPorts", false),
            ConfigField::Volumes => ("Volumes", false),
            ConfigField::Labels => ("Labels", false),
            ConfigField::StopSignal => ("StopSignal", false),
            ConfigField::Healthcheck => ("Healthcheck", false),
        };
        match is_top {
            true => self.edit.set_text(key, None),
            false => self.edit.change(|object| {
                let Some(mut execution) = object.get::<Option<Object>>("config")? else { return Ok(false) };
                Ok(remove(&mut execution, key) && object.set("config", execution.to_raw()?))
            }),
        }
        self
    }

    /// Adds a history entry for a step that created no layer.
    pub fn push_history(&mut self, step: &History) -> &mut ConfigEdit {
        let step = raw(&History { empty_layer: true, ..step.clone() });
        self.edit.change_list("history", |history| {
            history.push(step);
            Ok(())
        });
        self
    }

    /// Changes a history entry. Its unknown fields are kept, and so is whether it created a layer.
    /// [`finish`](ConfigEdit::finish) fails if there is no such entry.
    pub fn replace_history(&mut self, position: usize, step: &History) -> &mut ConfigEdit {
        self.edit.change_list("history", |history| {
            let old = item(history, "history entry", position)?;
            let mut object = Object::parse(old.get())?;
            for (key, value) in [
                ("created", &step.created),
                ("created_by", &step.created_by),
                ("author", &step.author),
                ("comment", &step.comment),
            ] {
                set_or_remove(&mut object, key, value.as_ref())?;
            }
            *old = object.to_raw()?;
            Ok(())
        });
        self
    }

    /// Removes the history entry of a step that created no layer. [`finish`](ConfigEdit::finish) fails if there is no
    /// such entry, and if it has a layer: [`remove_layer`](ConfigEdit::remove_layer) removes both.
    pub fn remove_history(&mut self, position: usize) -> &mut ConfigEdit {
        self.edit.change(|object| {
            let mut history = list(object, "history")?;
            let step: History = parsed(item(&mut history, "history entry", position)?)?;
            if !step.empty_layer {
                return Err(no_item("history entry without a layer", position));
            }
            history.remove(position);
            set_history(object, &history)
        });
        self
    }

    /// Adds a layer after the others, by the digest of its uncompressed tar, and its history entry. Without one, the
    /// layer gets an entry without contents if the history is aligned.
    pub fn push_layer(&mut self, diff_id: &Digest, step: Option<&History>) -> &mut ConfigEdit {
        self.change_layers(|layers| {
            layers.insert(layers.diff_ids.len(), raw(diff_id), step);
            Ok(())
        })
    }

    /// Inserts a layer and its history entry, so that the layer has this position. [`finish`](ConfigEdit::finish) fails
    /// if there are fewer layers.
    pub fn insert_layer(&mut self, position: usize, diff_id: &Digest, step: Option<&History>) -> &mut ConfigEdit {
        self.change_layers(|layers| match position <= layers.diff_ids.len() {
            true => {
                layers.insert(position, raw(diff_id), step);
                Ok(())
            }
            false => Err(no_item("layer", position)),
        })
    }

    /// Replaces a layer; its history entry is kept. [`finish`](ConfigEdit::finish) fails if there is no such layer.
    pub fn replace_layer(&mut self, position: usize, diff_id: &Digest) -> &mut ConfigEdit {
        self.change_layers(|layers| {
            let old = item(&mut layers.diff_ids, "layer", position)?;
            if parsed::<Digest>(old)? != *diff_id {
                *old = raw(diff_id);
            }
            Ok(())
        })
    }

    /// Removes a layer and its history entry. [`finish`](ConfigEdit::finish) fails if there is no such layer.
    pub fn remove_layer(&mut self, position: usize) -> &mut ConfigEdit {
        self.change_layers(|layers| {
            item(&mut layers.diff_ids, "layer", position)?;
            layers.remove(position);
            Ok(())
        })
    }

    /// Removes a layer, and keeps its history entry as that of a step that created no layer.
    /// [`finish`](ConfigEdit::finish) fails if there is no such layer.
    pub fn empty_layer(&mut self, position: usize) -> &mut ConfigEdit {
        self.change_layers(|layers| {
            item(&mut layers.diff_ids, "layer", position)?;
            layers.empty(position)
        })
    }

    /// Replaces the layers of an old base image, which are the lowest ones, by those of a new one, and their history
    /// entries by those of the new one. [`finish`](ConfigEdit::finish) fails if the old base has other layers.
    pub fn replace_base(&mut self, old: &Config, new: &Config) -> &mut ConfigEdit {
        let (old, new) = (old.edit().edit.object, new.edit().edit.object);
        let (Ok(old), Ok(new)) = (old, new) else { return self };
        self.change_layers(|layers| layers.replace_base(&Layers::of(&old)?, Layers::of(&new)?))
    }

    /// Changes the settings that the image inherited from its old base image to those of a new one: every setting that is
    /// equal to that of the old base. Variables, labels, ports and volumes are compared one by one; default arguments are
    /// inherited only together with the program. The platform is that of the new base, field by field.
    pub fn inherit(&mut self, old: &Config, new: &Config) -> &mut ConfigEdit {
        let own = self.original.clone();
        let (was, is, own_settings) = (old.execution(), new.execution(), own.execution());
        self.inherit_lists(was, is, own_settings);
        for (field, was, is, own) in [
            (ConfigField::User, &was.user, &is.user, &own_settings.user),
            (ConfigField::WorkingDir, &was.working_dir, &is.working_dir, &own_settings.working_dir),
            (ConfigField::StopSignal, &was.stop_signal, &is.stop_signal, &own_settings.stop_signal),
        ] {
            match is {
                _ if own != was || is == was => {}
                None => drop(self.remove(field)),
                Some(value) => {
                    match field {
                        ConfigField::User => self.user(value),
                        ConfigField::WorkingDir => self.working_dir(value),
                        _ => self.stop_signal(value),
                    };
                }
            }
        }
        if own_settings.entrypoint == was.entrypoint {
            if own_settings.cmd == was.cmd {
                self.cmd(&is.cmd);
            }
            self.entrypoint(&is.entrypoint);
        }
        if let (Ok(was), Ok(is), Ok(found)) = (old.healthcheck(), new.healthcheck(), own.healthcheck())
            && found == was
            && is != was
        {
            match is {
                Some(check) => self.healthcheck(&check),
                None => self.remove(ConfigField::Healthcheck),
            };
        }
        if let (Some(was), Some(is), Some(found)) = (old.platform(), new.platform(), own.platform()) {
            let mut platform = found.clone();
            if found.os_version == was.os_version {
                platform.os_version.clone_from(&is.os_version);
            }
            if found.os_features == was.os_features {
                platform.os_features.clone_from(&is.os_features);
            }
            if found.variant == was.variant {
                platform.variant.clone_from(&is.variant);
            }
            self.platform(&platform);
        }
        self
    }

    fn inherit_lists(&mut self, was: &Execution, is: &Execution, own: &Execution) {
        let (was_set, is_set, own_set) = (variables(was), variables(is), variables(own));
        for (name, value) in &was_set {
            if own_set.get(name) == Some(value) && !is_set.contains_key(name) {
                self.remove_env(name);
            }
        }
        for (name, value) in &is_set {
            // A variable that the image set or removed stays as it is.
            if own_set.get(name) == was_set.get(name) {
                self.env(name, value);
            }
        }
        for (key, value) in was.labels.iter() {
            if own.labels.get(key) == Some(value) && is.labels.get(key).is_none() {
                self.remove_label(key);
            }
        }
        for (key, value) in is.labels.iter() {
            if own.labels.get(key) == was.labels.get(key) {
                self.label(key, value);
            }
        }
        for port in was.exposed_ports.iter().filter(|port| !is.exposed_ports.contains(port)) {
            self.remove_port(port);
        }
        for port in is.exposed_ports.iter().filter(|port| !was.exposed_ports.contains(port)) {
            self.port(port);
        }
        for directory in was.volumes.iter().filter(|directory| !is.volumes.contains(directory)) {
            self.remove_volume(directory);
        }
        for directory in is.volumes.iter().filter(|directory| !was.volumes.contains(directory)) {
            self.volume(directory);
        }
    }

    /// Returns the config with the changes; the same bytes if nothing changed.
    ///
    /// # Errors
    ///
    /// [`Error::Document`] if the original has another type at a changed place, for example a list of variables that is
    /// no list, if a position does not exist, and if the result is not a config.
    pub fn finish(&self) -> Result<Config> {
        match self.edit.finish()? {
            Some(text) => Config::parse(text),
            None => Ok(self.original.clone()),
        }
    }

    fn is_windows(&self) -> bool {
        let os = self.edit.object.as_ref().ok().and_then(|object| object.get::<Option<String>>("os").ok().flatten());
        os.is_some_and(|os| os.eq_ignore_ascii_case("windows"))
    }

    /// Changes the settings of a container, which are created if they do not exist.
    fn within(&mut self, change: impl FnOnce(&mut Object) -> serde_json::Result<bool>) -> &mut ConfigEdit {
        self.edit.change(|object| {
            let present = object.raw("config").filter(|value| *value != "null");
            let mut execution = Object::parse(present.unwrap_or("{}"))?;
            Ok(change(&mut execution)? && object.set("config", execution.to_raw()?))
        });
        self
    }

    /// Puts a variable, if there is one, at the place of the first one with this name, and removes the others.
    fn set_env(&mut self, name: &str, mut variable: Option<String>) -> &mut ConfigEdit {
        let is_windows = self.is_windows();
        self.within(|execution| {
            let (mut env, mut changed) = (Vec::new(), false);
            for old in list(execution, "Env")? {
                let text: String = parsed(&old)?;
                if !is_named(&text, name, is_windows) {
                    env.push(old);
                    continue;
                }
                match variable.take() {
                    Some(new) if new == text => env.push(old),
                    new => {
                        changed = true;
                        env.extend(new.map(|new| raw(&new)));
                    }
                }
            }
            if let Some(variable) = variable {
                changed = true;
                env.push(raw(&variable));
            }
            if !changed {
                return Ok(false);
            }
            Ok(if env.is_empty() { execution.remove("Env") } else { execution.set("Env", to_raw_value(&env)?) })
        })
    }

    fn text(&mut self, key: &str, value: &str) -> &mut ConfigEdit {
        self.edit.set_text(key, Some(value));
        self
    }

    fn words<T: AsRef<str>>(&mut self, key: &str, words: impl IntoIterator<Item = T>) -> &mut ConfigEdit {
        let words: Vec<String> = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self.within(|execution| set_or_remove(execution, key, Some(&words).filter(|words| !words.is_empty())))
    }

    fn change_layers(&mut self, change: impl FnOnce(&mut Layers) -> serde_json::Result<()>) -> &mut ConfigEdit {
        self.edit.change(|object| {
            let mut layers = Layers::of(object)?;
            change(&mut layers)?;
            let present = object.raw("rootfs").filter(|value| *value != "null");
            let mut rootfs = Object::parse(present.unwrap_or(r#"{"type":"layers"}"#))?;
            let mut changed =
                rootfs.set("diff_ids", to_raw_value(&layers.diff_ids)?) && object.set("rootfs", rootfs.to_raw()?);
            if let Some(history) = layers.history {
                changed |= set_history(object, &history)?;
            }
            Ok(changed)
        });
        self
    }
}

/// The layers of a config, and its history if that is aligned with them.
struct Layers {
    diff_ids: Vec<Item>,
    history: Option<Vec<Item>>,
    /// Whether the config has a history at all.
    has_history: bool,
}

impl Layers {
    fn of(config: &Object) -> serde_json::Result<Layers> {
        let diff_ids = match config.get::<Option<Object>>("rootfs")? {
            Some(rootfs) => list(&rootfs, "diff_ids")?,
            None => Vec::new(),
        };
        let history = config.get::<Option<Vec<Item>>>("history")?;
        let has_history = history.is_some();
        let history = history.unwrap_or_default();
        let is_aligned = with_layer(&history)?.count() == diff_ids.len();
        Ok(Layers { diff_ids, history: is_aligned.then_some(history), has_history })
    }

    /// Returns the position of the history entry of a layer, or the end.
    fn step_of(&self, layer: usize) -> usize {
        let history = self.history.as_deref().unwrap_or_default();
        with_layer(history).ok().and_then(|mut steps| steps.nth(layer)).unwrap_or(history.len())
    }

    fn insert(&mut self, position: usize, diff_id: Item, step: Option<&History>) {
        let at = self.step_of(position);
        self.diff_ids.insert(position, diff_id);
        if let Some(history) = &mut self.history
            && (self.has_history || step.is_some())
        {
            let step = step.map(|step| History { empty_layer: false, ..step.clone() });
            history.insert(at, raw(&step.unwrap_or_else(unknown_step)));
            self.has_history = true;
        } else {
            // Without a history before and without an entry for this layer, there is none afterwards.
            self.history = None;
        }
    }

    fn remove(&mut self, position: usize) {
        let at = self.step_of(position);
        self.diff_ids.remove(position);
        if let Some(history) = &mut self.history
            && at < history.len()
        {
            history.remove(at);
        }
    }

    fn empty(&mut self, position: usize) -> serde_json::Result<()> {
        let at = self.step_of(position);
        self.diff_ids.remove(position);
        if let Some(step) = self.history.as_mut().and_then(|history| history.get_mut(at)) {
            let mut object = Object::parse(step.get())?;
            set(&mut object, "empty_layer", &true)?;
            *step = object.to_raw()?;
        }
        Ok(())
    }

    fn replace_base(&mut self, old: &Layers, new: Layers) -> serde_json::Result<()> {
        let digests = |items: &[Item]| items.iter().map(parsed::<Digest>).collect::<serde_json::Result<Vec<_>>>();
        let old_ids = digests(&old.diff_ids)?;
        if !digests(&self.diff_ids)?.starts_with(&old_ids) {
            return Err(serde::de::Error::custom("its lowest layers are not those of the old base image"));
        }
        let own: Vec<Item> = self.diff_ids.split_off(old_ids.len());
        let own_steps = match &mut self.history {
            Some(history) if self.has_history => {
                let start = match &old.history {
                    Some(steps) if same(history, steps) => steps.len(),
                    // Entries without a layer after the last one of the base may be of either.
                    _ => {
                        let last = with_layer(history)?.nth(old_ids.len().wrapping_sub(1));
                        last.map_or(0, |last| last + 1)
                    }
                };
                Some(history.split_off(start))
            }
            _ => None,
        };
        let new_steps = new.history.filter(|_| new.has_history);
        self.history = match (new_steps, own_steps) {
            (None, None) => None,
            (base, own_steps) => {
                let unknown = |count: usize| (0..count).map(|_| raw(&unknown_step())).collect::<Vec<_>>();
                let mut steps = base.unwrap_or_else(|| unknown(new.diff_ids.len()));
                steps.extend(own_steps.unwrap_or_else(|| unknown(own.len())));
                Some(steps)
            }
        };
        self.diff_ids = new.diff_ids;
        self.diff_ids.extend(own);
        Ok(())
    }
}

/// Sets the history, and removes its key with the last entry.
fn set_history(config: &mut Object, history: &[Item]) -> serde_json::Result<bool> {
    let is_listed = config.get::<Option<Vec<Item>>>("history")?.is_some_and(|history| !history.is_empty());
    Ok(match history.is_empty() {
        false => config.set("history", to_raw_value(history)?),
        true => is_listed && config.remove("history"),
    })
}

/// Returns the environment variables by name, in order. Of two with one name the last counts.
fn variables(settings: &Execution) -> IndexMap<&str, &str> {
    settings.env.iter().filter_map(|variable| variable.split_once('=')).collect()
}

fn unknown_step() -> History {
    History { created: Some(NO_TIME.to_owned()), ..History::default() }
}

/// Returns the positions of the history entries that have a layer.
fn with_layer(history: &[Item]) -> serde_json::Result<impl Iterator<Item = usize>> {
    let steps: Vec<History> = history.iter().map(parsed).collect::<serde_json::Result<_>>()?;
    Ok(steps.into_iter().enumerate().filter(|(_, step)| !step.empty_layer).map(|(at, _)| at))
}

/// Returns whether a history starts with these entries.
fn same(history: &[Item], start: &[Item]) -> bool {
    let entry = |item: &Item| parsed::<History>(item).ok();
    history.len() >= start.len() && history.iter().zip(start).all(|(one, other)| entry(one) == entry(other))
}

/// Sets the fields of a platform in a config, or in the platform of a descriptor.
pub(super) fn set_platform(holder: &mut Object, platform: &Platform) -> serde_json::Result<bool> {
    let mut changed = set(holder, "architecture", &platform.architecture)? | set(holder, "os", &platform.os)?;
    let features = Some(&platform.os_features).filter(|features| !features.is_empty());
    changed |= set_or_remove(holder, "os.version", platform.os_version.as_ref())?;
    changed |= set_or_remove(holder, "os.features", features)?;
    changed |= set_or_remove(holder, "variant", platform.variant.as_ref())?;
    Ok(changed)
}

/// Returns whether an environment variable has a name.
fn is_named(variable: &str, name: &str, is_windows: bool) -> bool {
    let found = variable.split_once('=').map_or(variable, |(found, _)| found);
    if is_windows { found.eq_ignore_ascii_case(name) } else { found == name }
}

/// Changes a Go set, an object whose values are empty objects; the key is removed with the last of them.
fn change_set(holder: &mut Object, key: &str, change: impl FnOnce(&mut Object) -> bool) -> serde_json::Result<bool> {
    let present = holder.raw(key).filter(|value| *value != "null");
    let mut keys = Object::parse(present.unwrap_or("{}"))?;
    if !change(&mut keys) {
        return Ok(false);
    }
    Ok(if keys.is_empty() { holder.remove(key) } else { holder.set(key, keys.to_raw()?) })
}

fn add_key(keys: &mut Object, key: &str) -> bool {
    keys.raw(key).is_none() && keys.set(key, raw(&serde_json::Map::new()))
}
