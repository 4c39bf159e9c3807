use std::fmt::Debug;
use std::io::Read;

use async_trait::async_trait;
use ocikit_archive::layer::{Budget, Tree};

use crate::body::Body;
use crate::error::Result;

/// Another way to read the files of a layer than its tar: a table of its files, or a format that is no tar at all.
///
/// [`Image::files`](crate::Image::files), [`Image::read_file`](crate::Image::read_file),
/// [`Image::unpack`](crate::Image::unpack) and [`Image::export`](crate::Image::export) use it for the
/// [layers](crate::Image::with_file_layers) that [have](crate::Layer::with_files) one. The default of each function is that of an
/// ordinary layer.
///
/// The files of [`tree`](LayerFiles::tree) are numbered as the entries of the tar are.
#[async_trait]
pub trait LayerFiles: Debug + Send + Sync {
    /// Opens the tar, compressed or not, and returns the number of bytes that are stored of it; `None` if the blob is the
    /// tar. The length of the body need not be right.
    ///
    /// # Errors
    ///
    /// Those of reading it.
    async fn tar(&self) -> Result<Option<(Body, u64)>> {
        Ok(None)
    }

    /// Returns the decompressed tar without the entries that only the format has.
    fn filter<'a>(&self, tar: Box<dyn Read + Send + 'a>) -> Box<dyn Read + Send + 'a> {
        tar
    }

    /// Returns whether [`filter`](LayerFiles::filter) leaves anything out, so that what is read is not the tar that a config
    /// lists. Known once the [tar](LayerFiles::tar) was opened.
    fn is_filtered(&self) -> bool {
        false
    }

    /// Returns the files and whiteouts; `None` if only the tar has them.
    ///
    /// # Errors
    ///
    /// Those of reading them.
    async fn tree(&self, _budget: &Budget) -> Result<Option<Tree>> {
        Ok(None)
    }

    /// Opens the contents of the file with this number in the tree; `None` if only the tar has them. The body checks each
    /// part before it returns it.
    ///
    /// # Errors
    ///
    /// Those of reading it.
    async fn contents(&self, _entry: u64) -> Result<Option<Body>> {
        Ok(None)
    }
}
