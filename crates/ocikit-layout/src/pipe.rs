use std::collections::HashMap;
use std::fmt;
use std::future::ready;
use std::io::{self, Read};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use ocikit_archive::{Kind, TarStream};
use ocikit_image::bridge::{Buffers, Feed, channel};
use ocikit_image::{Body, ByteRange, Error, Name, Put, ReadOnce, Result, Sink, Source};
use ocikit_spec::{Descriptor, Digest, Index, MAX_DOCUMENT_BYTES, MediaType};
use tokio::sync::mpsc;

use crate::docker::MANIFEST_JSON;
use crate::names::Names;
use crate::roots::{self, INDEX_JSON, Subjects};
use crate::unlisted;

/// The maximum total size in bytes of the blobs that are held in memory because they may be documents.
const MAX_HELD_BYTES: u64 = 16 << 20;

/// The maximum number of blobs that are put at the same time. Only one of them is still arriving.
const MAX_PARALLEL_BLOBS: usize = 4;

/// The number of chunks of a blob that are read ahead of the sink.
const QUEUED_CHUNKS: usize = 4;

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
        let (sender, mut receiver) = mpsc::channel(1);
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
        let mut pipe = Pipe {
            name,
            held: HashMap::new(),
            roots: Index::of(&[]),
            subjects: Subjects::default(),
            has_docker_list: false,
        };
        let mut found = false;
        // The end of one blob at its target, such as the round trips of a registry, overlaps with the next blob. New ones are
        // polled before the next message, so an archive gets them in the order of arrival.
        let mut puts = FuturesUnordered::new();
        loop {
            let message = tokio::select! {
                biased;
                Some(put) = puts.next(), if !puts.is_empty() => {
                    let _: Put = put?;
                    continue;
                }
                message = receiver.recv(), if puts.len() < MAX_PARALLEL_BLOBS => message,
            };
            match message {
                Some(Message::Held { name: entry, bytes }) => found |= pipe.hold(entry, bytes)?,
                Some(Message::Blob { blob, body }) => {
                    let once = ReadOnce::new(&pipe.name, blob.digest, body);
                    puts.push(async move {
                        let put = to.put(&blob, &once).await?;
                        once.skip().await.map(|()| put)
                    });
                }
                Some(Message::Failed(error)) => return Err(error),
                Some(Message::EndOfArchive) => break,
                None => return Err(pipe.without_roots()),
            }
        }
        while let Some(put) = puts.next().await {
            put?;
        }
        if found { Ok(pipe) } else { Err(pipe.without_roots()) }
    }

    /// Keeps a file of the archive. Returns whether it is the list of roots.
    fn hold(&mut self, entry: String, bytes: Bytes) -> Result<bool> {
        match entry.as_str() {
            INDEX_JSON => {
                self.roots = Index::parse(bytes).map_err(|source| Error::broken(&self.name, source))?;
                return Ok(true);
            }
            MANIFEST_JSON => self.has_docker_list = true,
            _ => {
                if let Some(digest) = Digest::from_blob_path(&entry) {
                    let actual = Digest::of(digest.algorithm(), &bytes);
                    if actual != digest {
                        let mismatch = ocikit_image::Mismatch::Digest(actual);
                        return Err(Error::mismatch(&digest, &self.name, mismatch));
                    }
                    self.held.insert(digest, bytes);
                }
            }
        }
        Ok(false)
    }

    /// Returns the error for an archive without a list of roots.
    fn without_roots(&self) -> Error {
        if self.has_docker_list {
            let what = "it is a docker archive that began like an OCI archive, and a pipe cannot be read again: write it into \
                        a file first";
            return Error::Unsupported { place: self.name.clone(), what: what.to_owned() };
        }
        Error::broken(&self.name, "it has no `index.json`, so it is not an OCI archive")
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
        blob: Box<Descriptor>,
        body: Body,
    },
    EndOfArchive,
    Failed(Error),
}

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
    let buffers = Buffers::default();
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
        let first = buffers.fill(|buffer| read_full(&mut tar, buffer)).map_err(broken)?;
        // Documents start with a brace. Layers do not: gzip, zstd and tar all start with other bytes.
        let small = size <= MAX_DOCUMENT_BYTES && held + size <= MAX_HELD_BYTES;
        let is_document = small && first.first() == Some(&b'{');
        let message = match digest.filter(|_| !is_document) {
            None if !small => return Err(Error::broken(place, format!("its `{name}` has {size} bytes"))),
            None => {
                let mut bytes = BytesMut::from(&first[..]);
                let start = bytes.len();
                bytes.resize(size as usize, 0);
                read_full(&mut tar, &mut bytes[start..]).map_err(broken)?;
                held += size;
                Message::Held { name, bytes: bytes.freeze() }
            }
            Some(digest) => {
                let (mut feed, body) = channel(size, QUEUED_CHUNKS, &buffers);
                let blob = Descriptor::new(MediaType::OCTET_STREAM, digest, size);
                if !send(Message::Blob { blob: Box::new(blob), body }) {
                    return Ok(());
                }
                if let Err(error) = read_blob(&mut tar, first, &mut feed, &buffers, broken) {
                    // Sending fails only if the sink has failed.
                    feed.fail(error);
                    return Ok(());
                }
                continue;
            }
        };
        if !send(message) {
            return Ok(());
        }
    }
    send(Message::EndOfArchive);
    Ok(())
}

/// Sends a blob to its body, the first chunk of which was read.
fn read_blob(
    tar: &mut TarStream<impl Read>,
    first: Bytes,
    feed: &mut Feed,
    buffers: &Buffers,
    broken: impl Fn(ocikit_archive::Error) -> Error,
) -> Result<()> {
    let mut chunk = first;
    // Sending fails if the sink has failed.
    while !chunk.is_empty() && feed.send(chunk) {
        chunk = buffers.fill(|buffer| read_full(tar, buffer)).map_err(&broken)?;
    }
    Ok(())
}

/// Fills a buffer with the current entry. Returns fewer bytes only at the end of it.
fn read_full(tar: &mut TarStream<impl Read>, buffer: &mut [u8]) -> ocikit_archive::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match tar.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
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
