//! Runs the conformance suite on every format of a layout.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says where it fails by panicking")]

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use ocikit_image::testing::{Place, conformance};
use ocikit_image::{Result, Sink, Source};
use ocikit_layout::{Dir, Scratch, Tar, TarEdit, TarOptions, TarWriter};
use tempfile::TempDir;

async fn open(path: impl Into<PathBuf>) -> Result<Arc<dyn Source>> {
    ocikit_layout::open(path, &Scratch::default()).await
}

struct InDirectory(TempDir);

#[async_trait]
impl Place for InDirectory {
    async fn sink(&self) -> Arc<dyn Sink> {
        Arc::new(Dir::create(self.0.path().join("layout")).await.unwrap())
    }

    async fn source(&self) -> Result<Arc<dyn Source>> {
        open(self.0.path().join("layout")).await
    }
}

#[tokio::test]
async fn a_directory_conforms() {
    conformance(async || InDirectory(tempfile::tempdir().unwrap())).await;
}

struct InArchive(TempDir);

impl InArchive {
    fn path(&self) -> PathBuf {
        self.0.path().join("image.tar")
    }
}

#[async_trait]
impl Place for InArchive {
    async fn sink(&self) -> Arc<dyn Sink> {
        Arc::new(TarWriter::create(self.path(), TarOptions::default()).await.unwrap())
    }

    async fn source(&self) -> Result<Arc<dyn Source>> {
        open(self.path()).await
    }

    fn keeps(&self) -> bool {
        false
    }

    fn finds_referrers(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_new_archive_conforms() {
    conformance(async || InArchive(tempfile::tempdir().unwrap())).await;
}

struct InEditedArchive(InArchive);

#[async_trait]
impl Place for InEditedArchive {
    async fn sink(&self) -> Arc<dyn Sink> {
        Arc::new(TarEdit::open(self.0.path()).await.unwrap())
    }

    async fn source(&self) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(Tar::open(self.0.path()).await?))
    }
}

#[tokio::test]
async fn an_edited_archive_conforms() {
    conformance(async || {
        let archive = InArchive(tempfile::tempdir().unwrap());
        archive.sink().await.finish().await.unwrap();
        InEditedArchive(archive)
    })
    .await;
}
