use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::image::{layout, tree};
use crate::measure::run_if_asked;

/// A temporary directory in which programs run. It is also their home directory.
#[derive(Debug)]
pub struct Place {
    directory: TempDir,
    ocikit: &'static str,
}

impl Place {
    /// Creates an empty directory in which this `ocikit` runs. Call it first in `main`: it also measures one program and
    /// exits, if [`measure`](crate::measure) started this process.
    ///
    /// # Panics
    ///
    /// If the disk is full.
    pub fn start(ocikit: &'static str) -> Place {
        run_if_asked();
        let directory = tempfile::Builder::new().prefix("ocikit-bench-").tempdir().expect("a temporary directory");
        Place { directory, ocikit }
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

    /// Returns the directories of `OCIKIT_BENCH_LAYERS`, which are separated by colons; without it, three of `/usr` that have
    /// about 1 GiB together, or one small one twice if `OCIKIT_BENCH_SMOKE` is set.
    ///
    /// # Panics
    ///
    /// If a path is not UTF-8.
    pub fn trees(&self, small: &str) -> Vec<String> {
        let listed = match std::env::var("OCIKIT_BENCH_LAYERS") {
            Ok(listed) => listed,
            Err(_) if std::env::var_os("OCIKIT_BENCH_SMOKE").is_some() => format!("{small}:{small}"),
            Err(_) => "/usr/bin:/usr/include:/usr/share".to_owned(),
        };
        listed.split(':').map(str::to_owned).collect()
    }

    /// Writes a layout with an image, tagged `1`, that has one gzip layer for each directory.
    ///
    /// # Panics
    ///
    /// If the disk is full.
    pub fn image_of(&self, name: &str, trees: &[String], destination: &str) {
        let _ = fs::remove_dir_all(self.path("base"));
        layout(&self.path("base"), 1, 0);
        let target = format!("oci:{name}:1");
        for (number, tree) in trees.iter().enumerate() {
            let append = ["append", tree, "--destination", destination, "-o", &target];
            // The layer of the base is no tar, which most programs refuse.
            let source = if number == 0 { &["oci:base:1", "--remove-layer", "1"][..] } else { &[&*target][..] };
            self.run_ocikit(&[&append[..1], &source[..1], &append[1..], &source[1..]].concat());
        }
    }

    /// Returns a command that runs ocikit in the directory.
    pub fn ocikit(&self, words: &[&str]) -> Command {
        self.command(&[&[self.ocikit][..], words].concat())
    }

    /// Returns a command that runs in the directory.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(&self.directory).env("HOME", self.directory.path());
        command
    }

    /// Runs ocikit, which must succeed.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn run_ocikit(&self, words: &[&str]) {
        self.run(&[&[self.ocikit][..], words].concat());
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

    /// Returns the files of the layers of the image with the tag `1` in a layout.
    ///
    /// # Panics
    ///
    /// If there is no such image.
    pub fn layers(&self, layout: &str) -> Vec<String> {
        let manifest = self.ocikit(&["manifest", "get", &format!("oci:{layout}:1")]).output();
        let manifest: Value = serde_json::from_slice(&manifest.expect("a manifest").stdout).expect("a manifest");
        let layers = manifest["layers"].as_array().expect("layers").iter();
        let digests = layers.map(|layer| layer["digest"].as_str().expect("a digest"));
        digests.map(|digest| format!("{layout}/blobs/{}", digest.replace(':', "/"))).collect()
    }

    /// Returns the number of bytes of files below the directory.
    ///
    /// # Panics
    ///
    /// If one is missing.
    pub fn bytes<S: AsRef<Path>>(&self, files: impl IntoIterator<Item = S>) -> u64 {
        files.into_iter().map(|file| fs::metadata(self.path(file)).expect("a file").len()).sum()
    }
}
