use std::sync::Arc;

use ocikit_image::{Error, Root, Sink};
use ocikit_sign::{
    AttestOptions, PromoteOptions, Result, SignOptions, Signature, Signer, Verified, VerifyOptions, VerifyReport,
    attest, promote, sign, verify,
};

use crate::location::Location;
use crate::session::{Session, as_written};

/// A root that was opened to be signed. Its place is locked, if it is an archive or layout, until this value is dropped
/// or the signatures are stored.
#[derive(Debug)]
pub struct Signing {
    root: Root,
    place: Arc<dyn Sink>,
    session: Session,
}

/// The result of signing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Signed {
    /// What was signed.
    pub root: Root,
    /// The stored signatures.
    pub signatures: Vec<Signature>,
}

/// The result of [`Session::verify`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Verification {
    /// What was verified.
    pub root: Root,
    /// One check for each required signature.
    pub report: VerifyReport,
}

impl Verification {
    /// Returns the root as a verified one, if every required signature was found.
    pub fn accept(&self) -> Option<Verified<Root>> {
        self.report.accept(&self.root)
    }
}

impl Signing {
    /// Returns the root.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Stores signatures of the root with it: as referrers, or under their tags.
    ///
    /// # Errors
    ///
    /// Those of the place.
    pub async fn store(self, signatures: Vec<Signature>) -> Result<Signed> {
        let Signing { root, place, session } = self;
        ocikit_sign::attach(&signatures, &place, &session.copy_options(Vec::new())).await?;
        Ok(Signed { root, signatures })
    }
}

impl Session {
    /// Opens a location to sign its root in any way that the crate `ocikit-sign` offers. An archive or layout is locked
    /// before the root is read, so that no other process changes it in between.
    ///
    /// ```no_run
    /// # async fn example(session: ocikit::Session, plugin: ocikit::sign::NotationPlugin, options: ocikit::sign::SignOptions)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// let signing = session.open_to_sign(&"ghcr.io/acme/app:1".parse()?).await?;
    /// let signatures = ocikit::sign::sign_by_plugin(signing.root(), &plugin, &options).await?;
    /// signing.store(signatures).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Session::edit`] and [`Root::open`].
    pub async fn open_to_sign(&self, location: &Location) -> Result<Signing> {
        let place = self.edit(location).await?;
        let root = as_written(location, Root::open(place.clone(), &location.name()).await)?;
        Ok(Signing { root, place, session: self.clone() })
    }

    /// Signs the root of a location and stores the signatures with it.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use std::time::SystemTime;
    /// use ocikit::sign::{Format, KeyKind, PrivateKey, SignOptions, Trust, VerifyOptions};
    /// use ocikit::{Session, SessionOptions};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let location = ocikit::Location::layout(directory.path());
    /// # let memory = std::sync::Arc::new(ocikit::image::Memory::new());
    /// # let image = ocikit::image::testing::image(&memory, 1, &"linux/amd64".parse()?, &[1000]);
    /// let session = Session::local(SessionOptions::default());
    /// # session.copy_root(&ocikit::Root::at(memory, image).await?, &location).await?;
    /// let key = PrivateKey::generate(KeyKind::P256)?;
    /// let signed = session.sign(&location, &key, &SignOptions::new(vec![Format::Cosign], SystemTime::now())).await?;
    /// assert_eq!(signed.signatures.len(), 1);
    ///
    /// let trusted = Trust::Key { name: "release".to_owned(), key: key.public_key().clone() };
    /// let verified = session.verify(&location, &VerifyOptions::new(vec![trusted])).await?;
    /// assert!(verified.accept().is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Session::open_to_sign`] and [`sign()`].
    pub async fn sign(&self, location: &Location, signer: &dyn Signer, options: &SignOptions) -> Result<Signed> {
        let signing = self.open_to_sign(location).await?;
        let signatures = sign(&signing.root, signer, options).await?;
        signing.store(signatures).await
    }

    /// Attests the root of a location: signs a statement about it, and stores it with the root.
    ///
    /// ```no_run
    /// # async fn example(session: ocikit::Session, key: ocikit::sign::PrivateKey) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::SystemTime;
    /// use ocikit::sign::AttestOptions;
    ///
    /// let predicate = serde_json::json!({"passed": true});
    /// let options = AttestOptions::new("https://example.com/tested/v1", predicate, SystemTime::now());
    /// session.attest(&"ghcr.io/acme/app:1".parse()?, &key, &options).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Session::open_to_sign`] and [`attest`].
    pub async fn attest(&self, location: &Location, signer: &dyn Signer, options: &AttestOptions) -> Result<Signed> {
        let signing = self.open_to_sign(location).await?;
        let signatures = attest(&signing.root, signer, options).await?;
        signing.store(signatures).await
    }

    /// Signs the statements that BuildKit attached to the images of an index, and stores them with these images; see
    /// [`promote`].
    ///
    /// ```no_run
    /// # async fn example(session: ocikit::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::SystemTime;
    /// use ocikit::sign::{PrivateKey, PromoteOptions, Signer};
    ///
    /// # let key = PrivateKey::generate(ocikit::sign::KeyKind::P256)?;
    /// let signed = session.promote(&"ghcr.io/acme/app:1".parse()?, &key, &PromoteOptions::new(SystemTime::now())).await?;
    /// println!("{} statements", signed.signatures.len());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Session::open_to_sign`] and [`promote`].
    pub async fn promote(&self, location: &Location, signer: &dyn Signer, options: &PromoteOptions) -> Result<Signed> {
        let signing = self.open_to_sign(location).await?;
        let signatures = promote(&signing.root, signer, options).await?;
        signing.store(signatures).await
    }

    /// Verifies the signatures or attestations of the root of a location. A missing signature is no error:
    /// [`Verification::accept`] returns the root only if every required one was found. Copy that root, not the
    /// location, whose tag may move.
    ///
    /// ```no_run
    /// # async fn example(session: ocikit::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// use ocikit::sign::{PublicKey, Trust, VerifyOptions};
    ///
    /// let key = PublicKey::from_pem(&std::fs::read("release.pub")?)?;
    /// let options = VerifyOptions::new(vec![Trust::Key { name: "release".to_owned(), key }]);
    /// let verified = session.verify(&"ghcr.io/acme/app:1".parse()?, &options).await?;
    /// let root = verified.accept().ok_or("the image is not signed by release")?.into_inner();
    /// session.copy_root(&root, &"registry.internal/app:1".parse()?).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Session::open`] and [`verify()`]; [`Error::Broken`] for an archive of which docker reads another image
    /// than the one whose signatures are verified: see [`Session::docker_disagreement`].
    pub async fn verify(&self, location: &Location, options: &VerifyOptions) -> Result<Verification> {
        let root = self.open(location).await?;
        if let Some(problem) = self.docker_disagreement(location).await? {
            return Err(Error::broken(location, problem).into());
        }
        let report = verify(&root, options).await?;
        Ok(Verification { root, report })
    }
}
