//! Uploads a file as a blob, or downloads a blob and discards it: measures the cost of a transfer, and shows how to
//! implement a source.
//!
//! ```text
//! cargo run --release --example transfer -- put [--journal DIRECTORY] FILE… 127.0.0.1:5000/some/repository
//! cargo run --release --example transfer -- get SIZE sha256:… 127.0.0.1:5000/some/repository
//! cargo run --release --example transfer -- probe 127.0.0.1:5000/some/scratch
//! ```

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::error::Error as StdError;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use ocikit_image::{Body, ByteRange, Name, Sink, Source, SourceExt, bridge};
use ocikit_registry::{Client, ClientOptions, Error, FileJournal, Journal, RemoteRepository, Result};
use ocikit_spec::{Algorithm, Descriptor, Digest, Hasher, MediaType};

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match &arguments[..] {
        ["put", "--journal", directory, files @ .., repository] => {
            let journal: Option<Arc<dyn Journal>> = Some(Arc::new(FileJournal::new(*directory)));
            let client = Client::new(ClientOptions::default().journal(journal));
            let repository = client.repository(repository.parse()?)?;
            let puts = files.iter().map(|file| put(file, &repository));
            futures::future::try_join_all(puts).await?;
        }
        ["put", files @ .., repository] => {
            let repository = Client::default().repository(repository.parse()?)?;
            let puts = files.iter().map(|file| put(file, &repository));
            futures::future::try_join_all(puts).await?;
        }
        ["get", size, digest, repository] => {
            let repository = Client::default().repository(repository.parse()?)?;
            let descriptor = Descriptor::new(MediaType::OCTET_STREAM, digest.parse()?, size.parse()?);
            let mut body = repository.open(&descriptor).await?;
            while let Some(chunk) = body.next().await {
                chunk?;
            }
        }
        ["probe", repository] => {
            let found = Client::default().probe(&repository.parse()?).await?;
            println!("{}", serde_json::to_string_pretty(&found)?);
        }
        _ => return Err("put FILE… REPOSITORY, get SIZE DIGEST REPOSITORY, or probe REPOSITORY".into()),
    }
    Ok(())
}

async fn put(file: &str, repository: &RemoteRepository) -> Result<(), Box<dyn StdError>> {
    let source = OneFile(file.into());
    // A digest in a file beside it saves reading the file twice.
    let digest = match std::fs::read_to_string(format!("{file}.digest")) {
        Ok(digest) => digest.trim().parse()?,
        Err(_) => source.digest().await?,
    };
    let descriptor = Descriptor::new(MediaType::OCI_LAYER, digest, std::fs::metadata(file)?.len());
    repository.put(&descriptor, &source).await?;
    Ok(())
}

/// A source with one blob, which it returns for every request.
#[derive(Debug)]
struct OneFile(PathBuf);

impl OneFile {
    fn read(&self, offset: u64, length: u64) -> Result<Body> {
        let file = File::open(&self.0).map_err(|error| Error::failed("open", self, error))?;
        let place = self.to_string();
        Ok(bridge::produce(length, move |feed| {
            let mut done = 0;
            while done < length {
                let goes_on = feed.fill(|buffer| {
                    let most = buffer.len().min((length - done) as usize);
                    let read = file.read_at(&mut buffer[..most], offset + done);
                    let read = read.map_err(|error| Error::failed("read", &place, error))?;
                    done += read as u64;
                    Ok(read)
                })?;
                if !goes_on {
                    break;
                }
            }
            Ok(())
        }))
    }

    async fn digest(&self) -> Result<Digest, Box<dyn StdError>> {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut body = self.read(0, std::fs::metadata(&self.0)?.len())?;
        while let Some(chunk) = body.next().await {
            hasher.update(&chunk?);
        }
        Ok(hasher.finish())
    }
}

impl fmt::Display for OneFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.display(), f)
    }
}

#[async_trait]
impl Source for OneFile {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        Err(Error::not_found(name, self))
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        let (offset, length) = range.within(descriptor.size);
        self.read(offset, length)
    }

    async fn has(&self, _: &Descriptor) -> Result<bool> {
        Ok(true)
    }

    async fn referrers(&self, _: &Digest) -> Result<Vec<Descriptor>> {
        Ok(Vec::new())
    }
}
