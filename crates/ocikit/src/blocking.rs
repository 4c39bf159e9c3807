//! The common operations for programs without async: a session with its own runtime.
//!
//! ```no_run
//! use ocikit::blocking::Session;
//! use ocikit::{Client, ClientOptions, SessionOptions};
//!
//! let session = Session::new(Client::new(ClientOptions::default()), SessionOptions::default())?;
//! let copied = session.copy(&"container-image.tar".parse()?, &"localhost:5000/app:1".parse()?)?;
//! println!("{}", copied.root.digest);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io::Read;
use std::sync::Arc;

use ocikit_image::{AnnotateOptions, Copied, Error, PerTarget, Result};
#[cfg(feature = "registry")]
use ocikit_registry::Client;
#[cfg(feature = "registry")]
use ocikit_spec::Repository;
use ocikit_spec::{Descriptor, Reference, Tag};
use tokio::runtime::{Builder, Runtime};

use crate::{Changed, ImageTree, Inspection, Location, SessionOptions};

/// A [`Session`](crate::Session) whose operations block until they are done. Cheap to clone, and can be used by several
/// threads at the same time; the runtime ends with the last clone.
///
/// # Panics
///
/// If an operation is called, or the last clone is dropped, in an async task. Use [`Session`](crate::Session) there.
#[derive(Debug, Clone)]
pub struct Session {
    session: crate::Session,
    runtime: Arc<Runtime>,
}

impl Session {
    /// Creates a session that uses this registry client, and the threads of its runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the system cannot create threads.
    #[cfg(feature = "registry")]
    pub fn new(client: Client, options: SessionOptions) -> Result<Session> {
        Session::of(crate::Session::new(client, options))
    }

    /// Creates a session for archives and layouts, as [`Session::local`](crate::Session::local).
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the system cannot create threads.
    pub fn local(options: SessionOptions) -> Result<Session> {
        Session::of(crate::Session::local(options))
    }

    fn of(session: crate::Session) -> Result<Session> {
        let runtime = Builder::new_multi_thread().enable_all().thread_name("ocikit").build();
        let runtime = Arc::new(runtime.map_err(|error| Error::failed("start", "the threads of a session", error))?);
        Ok(Session { session, runtime })
    }

    /// Returns the async session, for operations that are not offered here; see [`Session::wait`].
    pub fn session(&self) -> &crate::Session {
        &self.session
    }

    /// Blocks until a future of any of the crates completes.
    ///
    /// ```no_run
    /// # fn example(session: ocikit::blocking::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// let root = session.wait(session.session().open(&"container-image.tar".parse()?))?;
    /// # Ok(()) }
    /// ```
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// As [`Session::copy`](crate::Session::copy).
    ///
    /// # Errors
    ///
    /// Those of either side.
    pub fn copy(&self, from: &Location, to: &Location) -> Result<Copied> {
        self.wait(self.session.copy(from, to))
    }

    /// As [`Session::push`](crate::Session::push).
    ///
    /// # Errors
    ///
    /// Those of opening the image.
    pub fn push(&self, from: &Location, to: &[Reference]) -> Result<PerTarget<Copied>> {
        self.wait(self.session.push(from, to))
    }

    /// As [`Session::receive`](crate::Session::receive).
    ///
    /// # Errors
    ///
    /// Those of the archive and of the target.
    pub fn receive(&self, reader: impl Read + Send + 'static, to: &Location) -> Result<Copied> {
        self.wait(self.session.receive(reader, to))
    }

    /// As [`Session::receive_to_each`](crate::Session::receive_to_each).
    ///
    /// # Errors
    ///
    /// Those of the archive.
    pub fn receive_to_each(&self, reader: impl Read + Send + 'static, to: &[Location]) -> Result<PerTarget<Copied>> {
        self.wait(self.session.receive_to_each(reader, to))
    }

    /// As [`Session::inspect`](crate::Session::inspect).
    ///
    /// # Errors
    ///
    /// Those of the place.
    pub fn inspect(&self, location: &Location) -> Result<Inspection> {
        self.wait(self.session.inspect(location))
    }

    /// Returns the tree of an image: see [`tree`](crate::tree).
    ///
    /// # Errors
    ///
    /// Those of the place.
    pub fn tree(&self, location: &Location) -> Result<ImageTree> {
        self.wait(async { crate::tree(&self.session.open(location).await?).await })
    }

    /// As [`Session::annotate`](crate::Session::annotate).
    ///
    /// # Errors
    ///
    /// Those of the place.
    pub fn annotate(&self, location: &Location, options: &AnnotateOptions) -> Result<Changed> {
        self.wait(self.session.annotate(location, options))
    }

    /// As [`Session::tag`](crate::Session::tag).
    ///
    /// # Errors
    ///
    /// Those of the place.
    pub fn tag(&self, location: &Location, tags: &[Tag]) -> Result<Descriptor> {
        self.wait(self.session.tag(location, tags))
    }

    /// As [`Session::tags`](crate::Session::tags).
    ///
    /// # Errors
    ///
    /// Those of the registry.
    #[cfg(feature = "registry")]
    pub fn tags(&self, repository: &Repository) -> Result<Vec<Tag>> {
        self.wait(self.session.tags(repository))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn works_without_an_async_runtime() {
        let session = Session::local(SessionOptions::default()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let gone: Location = directory.path().join("gone.tar").display().to_string().parse().unwrap();
        let clone = session.clone();
        let error = std::thread::spawn(move || clone.inspect(&gone).unwrap_err()).join().unwrap();
        assert!(matches!(error, Error::Failed { .. }), "{error:?}");
        assert!(session.inspect(&"localhost:1/app".parse().unwrap()).is_err());
    }
}
