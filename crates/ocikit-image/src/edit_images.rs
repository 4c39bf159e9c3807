use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use ocikit_spec::{ConfigEdit, ConfigField, Healthcheck, History};

use crate::annotate::{AnnotateOptions, annotate_image, annotate_images, annotate_index};
use crate::error::{Error, Result};
use crate::map_images::{Mapped, Selection, map_images, map_index};
use crate::root::{Image, Index, Root};

/// Changes to images: to annotations, to configs, and between both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EditOptions {
    /// Changes to annotations, the documents that they apply to, and the platforms whose images are changed.
    pub annotations: AnnotateOptions,
    /// Changes to the configs, in this order.
    pub config: Vec<ConfigChange>,
    /// Labels to copy to annotations of the manifest.
    pub labels_to_annotations: Vec<CopyKey>,
    /// Annotations of the manifest to copy to labels.
    pub annotations_to_labels: Vec<CopyKey>,
    /// Annotations of the manifests to copy to the index. The selected images must agree about the value.
    pub promote: Vec<String>,
    /// Whether to remove the subject of the images.
    pub remove_subject: bool,
}

ocikit_spec::setters! {
    EditOptions {
        annotations: AnnotateOptions,
        config: Vec<ConfigChange>,
        labels_to_annotations: Vec<CopyKey>,
        annotations_to_labels: Vec<CopyKey>,
        promote: Vec<String>,
        remove_subject: bool,
    }
}

/// Which keys are copied between labels and annotations.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CopyKey {
    /// All keys, with their names.
    All,
    /// One key, under another name or its own. It must exist.
    One {
        /// The key.
        from: String,
        /// The key of the copy.
        to: String,
    },
}

/// A change to the config of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigChange {
    /// Removes a field.
    Remove(ConfigField),
    /// Sets an environment variable.
    Env(String, String),
    /// Removes an environment variable.
    RemoveEnv(String),
    /// Sets a label.
    Label(String, String),
    /// Removes a label.
    RemoveLabel(String),
    /// Adds an exposed port.
    Port(String),
    /// Removes an exposed port.
    RemovePort(String),
    /// Adds a volume.
    Volume(String),
    /// Removes a volume.
    RemoveVolume(String),
    /// Replaces the program and its fixed arguments.
    Entrypoint(Vec<String>),
    /// Replaces the default arguments.
    Cmd(Vec<String>),
    /// Sets the user.
    User(String),
    /// Sets the working directory.
    WorkingDir(String),
    /// Sets the signal that stops the program.
    StopSignal(String),
    /// Replaces the fields of the health check that are not empty or zero.
    Healthcheck(Healthcheck),
    /// Sets the author.
    Author(String),
    /// Sets the creation time, RFC 3339.
    Created(String),
    /// Sets the operating system.
    Os(String),
    /// Sets the architecture.
    Architecture(String),
    /// Sets the variant of the architecture.
    Variant(String),
    /// Sets the version of the operating system.
    OsVersion(String),
    /// Replaces the features that the operating system must have.
    OsFeatures(Vec<String>),
    /// Adds a history entry without a layer.
    History(History),
}

impl ConfigChange {
    fn apply(&self, edit: &mut ConfigEdit) {
        match self {
            ConfigChange::Remove(field) => edit.remove(*field),
            ConfigChange::Env(name, value) => edit.env(name, value),
            ConfigChange::RemoveEnv(name) => edit.remove_env(name),
            ConfigChange::Label(key, value) => edit.label(key, value),
            ConfigChange::RemoveLabel(key) => edit.remove_label(key),
            ConfigChange::Port(port) => edit.port(port),
            ConfigChange::RemovePort(port) => edit.remove_port(port),
            ConfigChange::Volume(directory) => edit.volume(directory),
            ConfigChange::RemoveVolume(directory) => edit.remove_volume(directory),
            ConfigChange::Entrypoint(words) => edit.entrypoint(words),
            ConfigChange::Cmd(words) => edit.cmd(words),
            ConfigChange::User(user) => edit.user(user),
            ConfigChange::WorkingDir(directory) => edit.working_dir(directory),
            ConfigChange::StopSignal(signal) => edit.stop_signal(signal),
            ConfigChange::Healthcheck(new) => edit.change_healthcheck(|check| update(check, new)),
            ConfigChange::Author(author) => edit.author(author),
            ConfigChange::Created(time) => edit.created(time),
            ConfigChange::Os(os) => edit.os(os),
            ConfigChange::Architecture(architecture) => edit.architecture(architecture),
            ConfigChange::Variant(variant) => edit.variant(variant),
            ConfigChange::OsVersion(version) => edit.os_version(version),
            ConfigChange::OsFeatures(features) => edit.os_features(features),
            ConfigChange::History(step) => edit.push_history(step),
        };
    }

    /// Returns whether images for several platforms have one platform after the change.
    fn makes_platforms_equal(&self) -> bool {
        matches!(self, ConfigChange::Os(_) | ConfigChange::Architecture(_))
    }
}

fn update(check: &mut Healthcheck, new: &Healthcheck) {
    if !new.test.is_empty() {
        check.test.clone_from(&new.test);
    }
    for (old, new) in [
        (&mut check.interval, new.interval),
        (&mut check.timeout, new.timeout),
        (&mut check.start_period, new.start_period),
        (&mut check.start_interval, new.start_interval),
    ] {
        if !new.is_zero() {
            *old = new;
        }
    }
    if new.retries != 0 {
        check.retries = new.retries;
    }
}

impl EditOptions {
    /// Returns whether nothing would change, on any image.
    pub fn is_empty(&self) -> bool {
        self.annotations.set.is_empty() && self.annotations.remove.is_empty() && !self.is_more_than_annotations()
    }

    /// Returns whether a manifest or config of an image may change.
    fn changes_images(&self) -> bool {
        let annotates = !self.annotations.set.is_empty() || !self.annotations.remove.is_empty();
        (annotates && self.annotations.on.manifests()) || self.is_more_than_annotations()
    }

    fn is_more_than_annotations(&self) -> bool {
        !self.config.is_empty()
            || !self.labels_to_annotations.is_empty()
            || !self.annotations_to_labels.is_empty()
            || !self.promote.is_empty()
            || self.remove_subject
    }
}

/// Changes annotations and configs of an image, or of all images of an index, in one pass. Layers are unchanged.
///
/// Labels are copied before annotations are changed, and annotations before labels are, so that a copied value can be
/// changed by the same call.
///
/// # Errors
///
/// Those of [`map_images`](crate::map_images()) and of [`ImageEdit::finish`](crate::ImageEdit::finish).
/// [`Error::NotFound`] if a label or annotation to copy does not exist; [`Error::Unsupported`] if several images would get
/// the same platform, and if the images disagree about an annotation for the index.
pub async fn edit_images(root: &Root, options: &EditOptions) -> Result<Mapped> {
    if !options.is_more_than_annotations() {
        return annotate_images(root, &options.annotations).await;
    }
    let unsupported = |what: String| Err(Error::Unsupported { place: root.source().to_string(), what });
    let selection = Selection::of(options.annotations.platforms.clone());
    // The values of each annotation for the index.
    let promoted: Mutex<HashMap<String, HashSet<Option<String>>>> = Mutex::default();
    let change = |image: Image| async {
        let edited = edited(image, options).await?;
        let mut promoted = promoted.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &options.promote {
            let value = edited.manifest.annotations().get(key).map(str::to_owned);
            promoted.entry(key.clone()).or_default().insert(value);
        }
        drop(promoted);
        Ok(edited)
    };
    let mut mapped = match root {
        Root::Index(index) => {
            let change = options.changes_images().then_some(&change);
            let annotations = &options.annotations;
            map_index(index, &selection, change, &|edit, selected| annotate_index(edit, &selected, annotations)).await?
        }
        Root::Image(_) | Root::Other(_) if !options.promote.is_empty() => {
            return unsupported(format!("{} is a manifest and has no index to annotate", root.digest()));
        }
        Root::Image(_) | Root::Other(_) => map_images(root, &selection, &change).await?,
    };
    if mapped.images > 1 && options.config.iter().any(ConfigChange::makes_platforms_equal) {
        let what = format!("{} images would get the same platform; select one of them by its platform", mapped.images);
        return unsupported(what);
    }
    let promoted = promoted.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Root::Index(index) = &mapped.root
        && !options.promote.is_empty()
    {
        let new = promote(index, &promoted, &options.promote)?;
        mapped.replaced.insert(root.digest(), new.digest());
        mapped.root = Root::Index(new);
    }
    Ok(mapped)
}

fn promote(index: &Index, values: &HashMap<String, HashSet<Option<String>>>, keys: &[String]) -> Result<Index> {
    let mut edit = index.edit();
    for key in keys {
        let found: Vec<_> = values.get(key).into_iter().flatten().collect();
        match &found[..] {
            [Some(value)] => edit.annotate(key, value),
            [] | [None] => return Err(Error::not_found(format!("annotation {key} on its manifests"), &index.source)),
            _ => {
                let what = format!("the manifests have different values of the annotation {key}");
                return Err(Error::Unsupported { place: index.source.to_string(), what });
            }
        };
    }
    edit.finish()
}

/// Returns an image with all changes to its manifest and config.
async fn edited(image: Image, options: &EditOptions) -> Result<Image> {
    let mut edit = image.edit();
    let mut known = None;
    if !options.labels_to_annotations.is_empty() {
        let labels = &known.insert(image.config().await?).execution().labels;
        for (key, value) in copied(&options.labels_to_annotations, labels.iter().collect(), "label", &image)? {
            edit.annotate(&key, &value);
        }
    }
    if options.annotations.on.manifests() {
        annotate_image(&mut edit, &options.annotations);
    }
    if options.remove_subject {
        edit.remove_subject();
    }
    let annotations = image.manifest.annotations().iter().collect();
    let copied = copied(&options.annotations_to_labels, annotations, "annotation", &image)?;
    if !options.config.is_empty() || !copied.is_empty() {
        if let Some(config) = known {
            edit.with_config(config);
        }
        edit.config(move |config| {
            for (key, value) in &copied {
                config.label(key, value);
            }
            options.config.iter().for_each(|change| change.apply(config));
            config
        });
    }
    edit.finish().await
}

/// Returns copies of labels or annotations of an image.
fn copied(keys: &[CopyKey], found: Vec<(&str, &str)>, what: &str, image: &Image) -> Result<Vec<(String, String)>> {
    let missing = |key: &str| {
        Error::not_found(format!("{what} {key}"), format_args!("image {} in {}", image.digest(), image.source))
    };
    let mut copied = Vec::new();
    for key in keys {
        match key {
            CopyKey::All => copied.extend(found.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))),
            CopyKey::One { from, to } => {
                let (_, value) = found.iter().find(|(key, _)| key == from).ok_or_else(|| missing(from))?;
                copied.push((to.clone(), (*value).to_owned()));
            }
        }
    }
    Ok(copied)
}
