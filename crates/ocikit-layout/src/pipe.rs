use std::collections::HashMap;
use std::fmt;
use std::future::ready;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream;
use ocikit_archive::{Kind, TarStream};
use ocikit_image::bridge::CHUNK;
use ocikit_image::{Body, ByteRange, Error, Name, Result, Sink, Source};
use ocikit_spec::{Descriptor, Digest, Index, MAX_DOCUMENT_BYTES, MediaType};
use tokio::sync::{OwnedMutexGuard, mpsc};

use crate::docker::MANIFEST_JSON;
use crate::names::Names;
use crate::roots::{self, INDEX_JSON, Subjects};
use crate::unlisted;

/// The maximum total size in bytes of the blobs that are held in memory because they may be documents.
const MAX_HELD_BYTES: u64 = 16 << 20;

/// An OCI archive that was read from a pipe.
///
/// Its layers went to a sink while they arrived; manifests, configs and the list of roots are held in memory. It is the
/// source of a copy to that sink, which has the layers already.
#[derive(Debug)]
pub struct Pipe {
    name: String,
    held: HashMap<Digest, Bytes>,
    roots: Index,
    subjects: Subjects,
    has_docker_list: bool,
}

impl Pipe {
    /// Returns whether the archive has a `manifest.json` for `docker load`.
    pub fn has_docker_list(&self) -> bool {
        self.has_docker_list
    }

    /// Reads an archive to its end and puts every blob that is not a document into a sink while it arrives.
    ///
    /// # Errors
    ///
    /// [`Error::Broken`] if the input is not an OCI archive or is truncated, [`Error::Mismatch`] for damaged blobs, and
    /// those of the sink.
    pub async fn drain(
        name: impl Into<String>,
        reader: impl Read + Send + 'static,
        to: &Arc<dyn Sink>,
    ) -> Result<Pipe> {
        let name = name.into();
        let (sender, receiver) = mpsc::channel(4);
        let reading = {
            let name = name.clone();
            move || {
                if let Err(error) = read_entries(reader, &sender, &name) {
                    // Sending fails only if the receiver was dropped.
                    let _ = sender.blocking_send(Message::Failed(error));
                }
            }
        };
        // Not awaited: if the sink fails, the writer of the pipe may never finish.
        drop(tokio::task::spawn_blocking(reading));
        let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
        let mut pipe = Pipe {
            name,
            held: HashMap::new(),
            roots: Index::of(&[]),
            subjects: Subjects::default(),
            has_docker_list: false,
        };
        let mut found = false;
        loop {
            let message = receiver.lock().await.recv().await;
            match message {
                Some(Message::Held { name: entry, bytes }) if entry == INDEX_JSON => {
                    pipe.roots = Index::parse(bytes).map_err(|source| Error::broken(&pipe.name, source))?;
                    found = true;
                }
                Some(Message::Held { name: entry, .. }) if entry == MANIFEST_JSON => pipe.has_docker_list = true,
                Some(Message::Held { name: entry, bytes }) => {
                    if let Some(digest) = Digest::from_blob_path(&entry) {
                        let actual = Digest::of(digest.algorithm(), &bytes);
                        if actual != digest {
                            let mismatch = ocikit_image::Mismatch::Digest(actual);
                            return Err(Error::mismatch(&digest, &pipe.name, mismatch));
                        }
                        pipe.held.insert(digest, bytes);
                    }
                }
                Some(Message::Blob { digest, size }) => {
                    let blob = Descriptor::new(MediaType::OCTET_STREAM, digest, size);
                    let once = Once {
                        name: pipe.name.clone(),
                        blob: blob.clone(),
                        chunks: Mutex::new(Some(receiver.clone())),
                    };
                    to.put(&blob, &once).await?;
                    once.skip_rest().await?;
                }
                Some(Message::Failed(error)) => return Err(error),
                Some(Message::Chunk(_) | Message::EndOfBlob) => {}
                Some(Message::EndOfArchive) if found => return Ok(pipe),
                Some(Message::EndOfArchive) if pipe.has_docker_list => {
                    let what = "it is a docker archive that began like an OCI archive, and a pipe cannot be read \
                                again: write it into a file first";
                    return Err(Error::Unsupported { place: pipe.name, what: what.to_owned() });
                }
                Some(Message::EndOfArchive) | None => {
                    return Err(Error::broken(&pipe.name, "it has no `index.json`, so it is not an OCI archive"));
                }
            }
        }
    }
}

/// A message of the thread that reads the pipe.
#[derive(Debug)]
enum Message {
    /// A whole entry: a document, or a file of the layout.
    Held {
        name: String,
        bytes: Bytes,
    },
    /// The start of a blob; its chunks follow.
    Blob {
        digest: Digest,
        size: u64,
    },
    Chunk(Bytes),
    EndOfBlob,
    EndOfArchive,
    Failed(Error),
}

type Messages = Arc<tokio::sync::Mutex<mpsc::Receiver<Message>>>;

/// Returns the error of a compressed stream that cannot be read: it is truncated or damaged, or the pipe failed.
pub(crate) fn unreadable(place: &str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            Error::broken(place, format!("it cannot be decompressed: {error}"))
        }
        _ => Error::failed("read", place, error),
    }
}

fn read_entries(reader: impl Read, sender: &mpsc::Sender<Message>, place: &str) -> Result<()> {
    let broken = |error| match error {
        ocikit_archive::Error::Io(error) => unreadable(place, error),
        error => Error::broken(place, error),
    };
    let mut tar = TarStream::new(reader);
    let mut held = 0;
    let send = |message| sender.blocking_send(message).is_ok();
    let mut names = Names::default();
    while let Some(entry) = tar.next_entry().map_err(broken)? {
        names.add(&entry).map_err(|problem| Error::broken(place, problem))?;
        let (Kind::File, Some(name)) = (entry.kind, entry.name) else { continue };
        let digest = Digest::from_blob_path(&name);
        if digest.is_none() && ![INDEX_JSON, MANIFEST_JSON].contains(&name.as_str()) {
            continue;
        }
        let size = entry.data.size;
        let mut first = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK))];
        let mut filled = 0;
        while filled < first.len() {
            filled += tar.read(&mut first[filled..]).map_err(broken)?;
        }
        // Documents start with a brace. Layers do not: gzip, zstd and tar all start with other bytes.
        let small = size <= MAX_DOCUMENT_BYTES && held + size <= MAX_HELD_BYTES;
        if digest.is_none() || (small && first.first() == Some(&b'{')) {
            if !small {
                return Err(Error::broken(place, format!("its `{name}` has {size} bytes")));
            }
            let mut bytes = BytesMut::from(&first[..]);
            bytes.resize(size as usize, 0);
            while filled < bytes.len() {
                filled += tar.read(&mut bytes[filled..]).map_err(broken)?;
            }
            held += size;
            if !send(Message::Held { name, bytes: bytes.freeze() }) {
                return Ok(());
            }
            continue;
        }
        let Some(digest) = digest else { continue };
        if !send(Message::Blob { digest, size }) || (!first.is_empty() && !send(Message::Chunk(first.into()))) {
            return Ok(());
        }
        loop {
            let mut chunk = vec![0; CHUNK];
            let read = tar.read(&mut chunk).map_err(broken)?;
            if read == 0 {
                break;
            }
            chunk.truncate(read);
            if !send(Message::Chunk(chunk.into())) {
                return Ok(());
            }
        }
        if !send(Message::EndOfBlob) {
            return Ok(());
        }
    }
    send(Message::EndOfArchive);
    Ok(())
}

/// The current blob of the pipe. It can be read once, from its start.
#[derive(Debug)]
struct Once {
    name: String,
    blob: Descriptor,
    /// `None` after it was opened.
    chunks: Mutex<Option<Messages>>,
}

impl Once {
    fn take(&self) -> Option<Messages> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Skips the blob if the sink did not read it.
    async fn skip_rest(&self) -> Result<()> {
        let Some(messages) = self.take() else { return Ok(()) };
        let mut messages = messages.lock().await;
        loop {
            match messages.recv().await {
                Some(Message::Chunk(_)) => {}
                Some(Message::Failed(error)) => return Err(error),
                _ => return Ok(()),
            }
        }
    }
}

impl fmt::Display for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[async_trait]
impl Source for Once {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        Err(Error::not_found(name, self))
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        if descriptor.digest != self.blob.digest {
            return Err(Error::not_found(descriptor.digest, self));
        }
        let messages = self.take().filter(|_| range == ByteRange::ALL);
        let Some(messages) = messages else {
            let what = format!("{} was read from a pipe, which can be read only once", descriptor.digest);
            return Err(Error::Unsupported { place: self.name.clone(), what });
        };
        let next = async |mut messages: OwnedMutexGuard<mpsc::Receiver<Message>>| match messages.recv().await {
            Some(Message::Chunk(chunk)) => Some((Ok(chunk), messages)),
            Some(Message::Failed(error)) => Some((Err(error), messages)),
            _ => None,
        };
        Ok(Body::new(self.blob.size, stream::unfold(messages.lock_owned().await, next)))
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        Ok(descriptor.digest == self.blob.digest)
    }

    async fn referrers(&self, _: &Digest) -> Result<Vec<Descriptor>> {
        Ok(Vec::new())
    }
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[async_trait]
impl Source for Pipe {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        roots::resolve(&self.roots, self, name).await
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        let bytes = self.held.get(&descriptor.digest).ok_or_else(|| Error::not_found(descriptor.digest, self))?;
        Ok(range.of(bytes).into())
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        Ok(self.held.contains_key(&descriptor.digest))
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let held = self.held.iter().map(|(digest, bytes)| unlisted::referrer(digest, bytes.clone()));
        let mut found: Vec<_> = held.flatten().collect();
        found.sort_unstable_by_key(|found| found.descriptor.digest);
        self.subjects.about(subject, &self.roots, self, ready(Ok(found))).await
    }
}
