use super::base::{Edit, Item, item, no_item, raw, repoint, set};
use crate::document::Manifest;
use crate::error::Result;
use crate::json::Object;
use crate::{Descriptor, Digest, MediaType};

/// Changes to a manifest, which produce a new one. Layers are addressed by their position, from the lowest.
///
/// ```
/// # use ocikit_spec::{Descriptor, Manifest, MediaType};
/// # let text = r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,
/// #   "digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"layers":[],"x-y":1.50}"#;
/// let manifest = Manifest::parse(text)?;
/// let layer = Descriptor::of(MediaType::OCI_LAYER, b"a tar");
/// let edited = manifest.edit().push_layer(&layer).annotate("team", "web").finish()?;
/// assert_eq!(edited.layers(), [layer]);
/// assert!(edited.text().contains(r#""x-y":1.50"#), "unknown fields are kept");
/// # Ok::<(), ocikit_spec::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ManifestEdit {
    edit: Edit,
    original: Manifest,
}

impl Manifest {
    /// Starts an edit.
    pub fn edit(&self) -> ManifestEdit {
        ManifestEdit { edit: Edit::begin("manifest", &self.text), original: self.clone() }
    }
}

impl ManifestEdit {
    /// Sets an annotation of the manifest.
    pub fn annotate(&mut self, key: &str, value: &str) -> &mut ManifestEdit {
        self.edit.annotate(key, value);
        self
    }

    /// Removes an annotation of the manifest, if it exists.
    pub fn remove_annotation(&mut self, key: &str) -> &mut ManifestEdit {
        self.edit.remove_annotation(key);
        self
    }

    /// Replaces the subject, or adds one.
    pub fn set_subject(&mut self, subject: &Descriptor) -> &mut ManifestEdit {
        self.edit.set_subject(subject);
        self
    }

    /// Removes the subject, if there is one.
    pub fn remove_subject(&mut self) -> &mut ManifestEdit {
        self.edit.set_text("subject", None);
        self
    }

    /// Changes digest and size of the subject; its other fields are kept. Has no effect on a manifest without a
    /// subject.
    pub fn repoint_subject(&mut self, digest: &Digest, size: u64) -> &mut ManifestEdit {
        self.edit.repoint_subject(digest, size);
        self
    }

    /// Sets the media type that the manifest states.
    pub fn set_media_type(&mut self, media_type: &MediaType) -> &mut ManifestEdit {
        self.edit.set_text("mediaType", Some(media_type.as_str()));
        self
    }

    /// Sets the artifact type, or removes it.
    pub fn set_artifact_type(&mut self, artifact_type: Option<&MediaType>) -> &mut ManifestEdit {
        self.edit.set_text("artifactType", artifact_type.map(MediaType::as_str));
        self
    }

    /// Adds a layer after the others.
    pub fn push_layer(&mut self, layer: &Descriptor) -> &mut ManifestEdit {
        self.change_layers(|layers| {
            layers.push(raw(layer));
            Ok(())
        })
    }

    /// Inserts a layer, so that it has this position. [`finish`](ManifestEdit::finish) fails if there are fewer layers.
    pub fn insert_layer(&mut self, position: usize, layer: &Descriptor) -> &mut ManifestEdit {
        self.change_layers(|layers| match position <= layers.len() {
            true => {
                layers.insert(position, raw(layer));
                Ok(())
            }
            false => Err(no_item("layer", position)),
        })
    }

    /// Replaces a layer by another. Annotations and unknown fields of the old descriptor are not kept.
    /// [`finish`](ManifestEdit::finish) fails if there is no such layer.
    pub fn replace_layer(&mut self, position: usize, layer: &Descriptor) -> &mut ManifestEdit {
        self.change_layers(|layers| {
            let old = item(layers, "layer", position)?;
            // Replacing a layer by itself is no change, however it was written.
            if super::base::parsed::<Descriptor>(old)? != *layer {
                *old = raw(layer);
            }
            Ok(())
        })
    }

    /// Removes a layer; the positions of those above it decrease by one. [`finish`](ManifestEdit::finish) fails if there
    /// is no such layer.
    pub fn remove_layer(&mut self, position: usize) -> &mut ManifestEdit {
        self.change_layers(|layers| {
            item(layers, "layer", position)?;
            layers.remove(position);
            Ok(())
        })
    }

    /// Changes the media type of a layer; its other fields are kept. [`finish`](ManifestEdit::finish) fails if there is
    /// no such layer.
    pub fn set_layer_media_type(&mut self, position: usize, media_type: &MediaType) -> &mut ManifestEdit {
        self.change_layers(|layers| {
            let layer = item(layers, "layer", position)?;
            let mut object = Object::parse(layer.get())?;
            if set(&mut object, "mediaType", media_type)? {
                *layer = object.to_raw()?;
            }
            Ok(())
        })
    }

    /// Replaces the config.
    pub fn set_config(&mut self, config: &Descriptor) -> &mut ManifestEdit {
        self.edit.change(|object| set(object, "config", config));
        self
    }

    /// Changes digest and size of the config; its other fields, such as annotations, are kept.
    pub fn repoint_config(&mut self, digest: &Digest, size: u64) -> &mut ManifestEdit {
        self.change_config(|config| Ok(repoint(config, digest, size)))
    }

    /// Changes the media type of the config; its other fields are kept.
    pub fn set_config_media_type(&mut self, media_type: &MediaType) -> &mut ManifestEdit {
        self.change_config(|config| set(config, "mediaType", media_type))
    }

    /// Returns the manifest with the changes; the same bytes if nothing changed.
    ///
    /// # Errors
    ///
    /// [`Error::Document`](crate::Error::Document) if the annotations of the original are not an object of strings, if
    /// a position does not exist, and if the result is not a manifest.
    pub fn finish(&self) -> Result<Manifest> {
        match self.edit.finish()? {
            Some(text) => Manifest::parse(text),
            None => Ok(self.original.clone()),
        }
    }

    fn change_layers(&mut self, change: impl FnOnce(&mut Vec<Item>) -> serde_json::Result<()>) -> &mut ManifestEdit {
        self.edit.change_list("layers", change);
        self
    }

    fn change_config(&mut self, change: impl FnOnce(&mut Object) -> serde_json::Result<bool>) -> &mut ManifestEdit {
        self.edit.change(|object| {
            let Some(mut config) = object.get::<Option<Object>>("config")? else { return Ok(false) };
            Ok(change(&mut config)? && object.set("config", config.to_raw()?))
        });
        self
    }
}
