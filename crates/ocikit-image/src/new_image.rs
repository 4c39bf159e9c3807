use std::sync::Arc;

use ocikit_spec::{Descriptor, MediaType, NewDocument, Platform};

use crate::error::{Error, Result};
use crate::memory::Memory;
use crate::root::Image;

impl Image {
    /// Returns an image for a platform that has no layers, as `FROM scratch` has none. Layers and settings are added by an
    /// [edit](Image::edit).
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use ocikit_image::{Compression, Image, NewLayer, Root, files::Owner};
    /// use ocikit_spec::Platform;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let directory = directory.path();
    /// let layer = NewLayer::of_tree(directory, Owner::ROOT, Compression::None).await?;
    /// let empty = Image::empty(&Platform::new("linux", "arm64"))?;
    /// let image = empty.edit().append_layer(layer).config(|config| config.entrypoint(["/app"])).finish().await?;
    /// let root = Root::from(image); // to copy to any place
    /// assert_eq!(root.layers().count(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Document`] if the platform is too long for a config.
    pub fn empty(platform: &Platform) -> Result<Image> {
        let broken = |source: serde_json::Error| Error::broken("the config of a new image", source);
        let mut config = serde_json::to_value(platform).map_err(broken)?;
        config["config"] = serde_json::json!({});
        config["rootfs"] = serde_json::json!({"type": "layers", "diff_ids": []});
        let config = serde_json::to_vec(&config).map_err(broken)?;
        let described = Descriptor::of(MediaType::OCI_CONFIG, &config);
        let manifest = NewDocument::default()
            .manifest(&described, &[])
            .map_err(|source| Error::document(&described.digest, "a new image", source))?;
        let descriptor = Descriptor::of(MediaType::OCI_MANIFEST, manifest.bytes());
        let source = Arc::new(Memory::new().with_bytes(config).with_bytes(manifest.bytes().clone()));
        Ok(Image::of(descriptor, manifest, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_empty_image_has_its_platform_and_no_layers() {
        let windows = Platform { os_version: Some("10.0".to_owned()), ..Platform::new("windows", "amd64") };
        for platform in [Platform::new("linux", "arm64"), windows] {
            let image = Image::empty(&platform).unwrap();
            let config = image.config().await.unwrap();
            assert_eq!((config.platform(), image.layers().count()), (Some(&platform), 0));
            assert_eq!(image.digest(), Image::empty(&platform).unwrap().digest(), "nothing depends on the time");
        }
    }
}
