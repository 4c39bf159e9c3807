use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::image::tree;

/// A temporary directory in which programs run. It is also their home directory.
#[derive(Debug)]
pub struct Place {
    directory: TempDir,
}

impl Place {
    /// Creates an empty directory.
    ///
    /// # Panics
    ///
    /// If the disk is full.
    #[allow(clippy::new_without_default, reason = "a default should not write to the disk")]
    pub fn new() -> Place {
        Place { directory: tempfile::Builder::new().prefix("ocikit-bench-").tempdir().expect("a temporary directory") }
    }

    /// Returns the path of a file.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the directory whose files are a layer: `/usr`, what `OCIKIT_BENCH_TREE` names, or a small one if `OCIKIT_BENCH_SMOKE` is set.
    ///
    /// # Panics
    ///
    /// If its path is not UTF-8.
    pub fn tree(&self) -> String {
        tree(self.directory.path()).into_os_string().into_string().expect("a path of text")
    }

    /// Returns a command that runs in the directory.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(&self.directory).env("HOME", self.directory.path());
        command
    }

    /// Runs a program that must succeed.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn run(&self, words: &[&str]) {
        let status = self.command(words).stdout(Stdio::null()).status().expect("a program");
        assert!(status.success(), "{words:?}");
    }

    /// Returns the file of the first layer of the image with the tag `1` in a layout.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn first_layer(&self, ocikit: &str, layout: &str) -> String {
        let manifest = self.command(&[ocikit, "manifest", "get", &format!("oci:{layout}:1")]).output();
        let manifest: Value = serde_json::from_slice(&manifest.expect("a manifest").stdout).expect("a manifest");
        let digest = manifest["layers"][0]["digest"].as_str().expect("a digest");
        format!("{layout}/blobs/{}", digest.replace(':', "/"))
    }
}
