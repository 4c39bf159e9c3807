use bytes::Bytes;
use ocikit_image::{Error, Result};
use ocikit_spec::{Descriptor, Digest, Index, MediaType, Repository};
use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};

use crate::auth::Access;
use crate::client::{Client, Inner};
use crate::http::problem;
use crate::http::redirect;
use crate::http::send::{Reply, Request};
use crate::manifests::{self, Key};
use crate::target::Target;

/// What a registry can do. `None` is what could not be found out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Capabilities {
    /// It lists referrers.
    pub referrers_api: Option<bool>,
    /// It says so when it takes a manifest with a subject.
    pub subject_header: Option<bool>,
    /// It takes a blob over from another repository that is named.
    pub mount: Option<bool>,
    /// It takes a blob over from whichever repository has it.
    pub anonymous_mount: Option<bool>,
    /// Asked to take a blob over from the repository that it is for, it says that it is there if it is.
    pub mount_from_itself: Option<bool>,
    /// The least size that it wants chunks of an upload to have.
    pub chunk_minimum: Option<u64>,
    /// The status that it answers a chunk of an upload with. The specification has 202; some say 201.
    pub patch_status: Option<u16>,
    /// It says how much of an upload has arrived.
    pub upload_progress: Option<bool>,
    /// It says where a blob is when it is complete.
    pub put_location: Option<bool>,
    /// It sends ranges of blobs.
    pub ranges: Option<bool>,
    /// It takes an index of manifests that it does not have.
    pub sparse_index: Option<bool>,
    /// It removes tags and leaves what they led to.
    pub delete_tag: Option<bool>,
    /// It removes manifests.
    pub delete_manifest: Option<bool>,
    /// It removes blobs.
    pub delete_blob: Option<bool>,
}

pub(crate) async fn run(client: &Client, scratch: &Repository) -> Result<Capabilities> {
    let inner = &*client.0;
    let second = Repository::new(scratch.registry().clone(), &format!("{}-from", scratch.path()));
    let second = second.map_err(|error| Error::broken(scratch, error))?;
    let probe = Probe { inner, here: inner.target(scratch)?, there: inner.target(&second)? };
    // Bytes that nobody has, so that what is found is what was put.
    let blob = |name: &str| Bytes::from(format!("{name} {:016x}", inner.options.clock.random()));
    let (one, two, three) = (blob("one"), blob("two"), blob("three"));
    let mut found = Capabilities::default();
    probe.upload(&one, &mut found).await?;
    probe.read(&one, &mut found).await?;
    probe.mount(&one, &two, &three, &mut found).await;
    probe.manifests(&one, &mut found).await?;
    found.delete_blob = probe.is_fine(Method::DELETE, probe.here.blob(&Digest::sha256_of(&one))).await;
    for (target, blob) in [(&probe.here, &two), (&probe.here, &three), (&probe.there, &two), (&probe.there, &three)] {
        let url = target.blob(&Digest::sha256_of(blob));
        // Some keep a blob once for all repositories, and some take it for their fault if it is not there.
        if probe.is_fine(Method::HEAD, url.clone()).await == Some(true) {
            probe.is_fine(Method::DELETE, url).await;
        }
    }
    Ok(found)
}

struct Probe<'a> {
    inner: &'a Inner,
    /// What is tried, is tried here.
    here: Target,
    /// What is mounted comes from there.
    there: Target,
}

impl Probe<'_> {
    /// A request by whoever may do everything.
    async fn ask(&self, request: Request) -> Result<Reply> {
        let path = &self.here.path;
        let scopes = self.here.access_to_delete().scopes.with(&self.there.access_to_delete().scopes);
        self.inner.call(&self.here.endpoint, &Access { path: path.clone(), scopes }, request, &self.here.place).await
    }

    async fn is_fine(&self, method: Method, url: Url) -> Option<bool> {
        let reply = self.ask(Request::new(method, url)).await.ok()?;
        Some((200..300).contains(&reply.answer.status))
    }

    /// Sends a blob as one chunk.
    async fn upload(&self, blob: &Bytes, found: &mut Capabilities) -> Result<()> {
        let begun = self.expect(Request::new(Method::POST, self.here.uploads()), "upload").await?;
        found.chunk_minimum = begun.answer.header("oci-chunk-min-length").and_then(|text| text.trim().parse().ok());
        let session = self.location(&begun, &self.here)?;
        let chunk = Request::new(Method::PATCH, session.clone())
            .header("content-range", &format!("0-{}", blob.len() - 1))
            .body("application/octet-stream", blob.clone());
        let sent = self.ask(chunk).await?;
        found.patch_status = Some(sent.answer.status);
        if !(200..300).contains(&sent.answer.status) {
            // Then by what everybody can.
            return self.put_blob(&self.here, blob, found).await;
        }
        let session = self.location(&sent, &self.here).unwrap_or(session);
        let told = self.ask(Request::new(Method::GET, session.clone())).await?;
        found.upload_progress = Some(told.answer.status < 300 && told.answer.header("range").is_some());
        let session = self.location(&told, &self.here).unwrap_or(session);
        let closed = self.expect(Request::new(Method::PUT, closing(session, blob)), "upload").await?;
        found.put_location = Some(closed.answer.header("location").is_some());
        Ok(())
    }

    async fn put_blob(&self, target: &Target, blob: &Bytes, found: &mut Capabilities) -> Result<()> {
        let begun = self.expect(Request::new(Method::POST, target.uploads()), "upload").await?;
        let session = closing(self.location(&begun, target)?, blob);
        let request = Request::new(Method::PUT, session).body("application/octet-stream", blob.clone());
        let put = self.expect(request, "upload").await?;
        found.put_location = Some(put.answer.header("location").is_some());
        Ok(())
    }

    async fn read(&self, blob: &Bytes, found: &mut Capabilities) -> Result<()> {
        let url = self.here.blob(&Digest::sha256_of(blob));
        let reply = self.ask(Request::new(Method::GET, url).header("range", "bytes=1-2")).await?;
        found.ranges = Some(reply.answer.status == 206);
        Ok(())
    }

    /// `one` is here; the others are put there.
    async fn mount(&self, one: &Bytes, two: &Bytes, three: &Bytes, found: &mut Capabilities) {
        found.mount_from_itself = self.mounts(one, Some(&self.here.path)).await;
        // Who may write here need not be allowed to write there.
        let mut ignored = Capabilities::default();
        if self.put_blob(&self.there, two, &mut ignored).await.is_ok() {
            found.mount = self.mounts(two, Some(&self.there.path)).await;
        }
        if self.put_blob(&self.there, three, &mut ignored).await.is_ok() {
            found.anonymous_mount = self.mounts(three, None).await;
        }
    }

    async fn mounts(&self, blob: &Bytes, from: Option<&str>) -> Option<bool> {
        let mut url = self.here.uploads();
        url.query_pairs_mut().append_pair("mount", &Digest::sha256_of(blob).to_string());
        if let Some(from) = from {
            url.query_pairs_mut().append_pair("from", from);
        }
        let reply = self.ask(Request::new(Method::POST, url)).await.ok()?;
        let mounted = reply.answer.status == 201;
        if let (false, Ok(session)) = (mounted, self.location(&reply, &self.here)) {
            self.is_fine(Method::DELETE, session).await;
        }
        Some(mounted)
    }

    /// Puts an image, what is about it, and an index of images that are not here; and removes them.
    async fn manifests(&self, config: &Bytes, found: &mut Capabilities) -> Result<()> {
        let config = Descriptor::of(MediaType::OCTET_STREAM, config);
        let image = manifest(&config, None);
        let subject = Descriptor::of(MediaType::OCI_MANIFEST, &image);
        let tag = Key::Tag("probe".parse().map_err(|error| Error::broken(&self.here.place, error))?);
        self.expect(self.putting(&tag, &MediaType::OCI_MANIFEST, &image), "manifest").await?;

        let about = manifest(&config, Some(&subject));
        let about_key = Key::Digest(Digest::sha256_of(&about));
        let put = self.ask(self.putting(&about_key, &MediaType::OCI_MANIFEST, &about)).await?;
        if put.answer.status < 300 {
            found.subject_header = Some(put.answer.header("oci-subject").is_some());
            found.referrers_api = Some(self.lists_referrer(&subject.digest, &about).await?);
            self.is_fine(Method::DELETE, self.here.manifest(&about_key)).await;
        }

        let absent = Descriptor::of(MediaType::OCI_MANIFEST, &manifest(&config, Some(&config)));
        let index = Index::of(&[absent]).bytes().clone();
        let index_key = Key::Digest(Digest::sha256_of(&index));
        let put = self.ask(self.putting(&index_key, &MediaType::OCI_INDEX, &index)).await?;
        found.sparse_index = Some(put.answer.status < 300);
        self.is_fine(Method::DELETE, self.here.manifest(&index_key)).await;

        let removed = self.is_fine(Method::DELETE, self.here.manifest(&tag)).await;
        let image_key = Key::Digest(subject.digest);
        let head = manifests::accepting(Request::new(Method::HEAD, self.here.manifest(&image_key)));
        let stays = self.ask(head).await.ok().map(|reply| reply.answer.status == 200);
        found.delete_tag = removed.zip(stays).map(|(removed, stays)| removed && stays);
        found.delete_manifest = self.is_fine(Method::DELETE, self.here.manifest(&image_key)).await;
        Ok(())
    }

    async fn lists_referrer(&self, subject: &Digest, about: &Bytes) -> Result<bool> {
        let reply = self.ask(Request::new(Method::GET, self.here.referrers(subject))).await?;
        if reply.answer.status != 200 {
            return Ok(false);
        }
        let body = reply.answer.read(1 << 20).await.ok().flatten().unwrap_or_default();
        let digest = Digest::sha256_of(about);
        Ok(Index::parse(body).is_ok_and(|index| index.manifests().iter().any(|listed| listed.digest == digest)))
    }

    fn putting(&self, key: &Key, media_type: &MediaType, bytes: &Bytes) -> Request {
        Request::new(Method::PUT, self.here.manifest(key)).body(media_type.as_str(), bytes.clone())
    }

    /// A request without which there is no point in going on.
    async fn expect(&self, request: Request, what: &str) -> Result<Reply> {
        let reply = self.ask(request).await?;
        match reply.answer.status {
            200..300 => Ok(reply),
            _ => Err(problem::error(reply, what, &self.here.place).await),
        }
    }

    /// The session that an answer names, on the registry itself.
    fn location(&self, reply: &Reply, target: &Target) -> Result<Url> {
        let broken = |problem: String| Error::broken(&target.place, problem);
        let location = reply.answer.header("location");
        let location = location.ok_or_else(|| broken("it begins an upload and does not say where".to_owned()))?;
        let url = redirect::resolve(&reply.url, location).map_err(broken)?;
        if redirect::same_server(&target.endpoint.base, &url) {
            Ok(url)
        } else {
            Err(broken("it takes uploads on another host, which are not probed".to_owned()))
        }
    }
}

fn closing(mut session: Url, blob: &Bytes) -> Url {
    session.query_pairs_mut().append_pair("digest", &Digest::sha256_of(blob).to_string());
    session
}

/// An artifact with this blob as its config and its only layer.
fn manifest(config: &Descriptor, subject: Option<&Descriptor>) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Form<'a> {
        schema_version: u32,
        media_type: MediaType,
        config: &'a Descriptor,
        layers: [&'a Descriptor; 1],
        #[serde(skip_serializing_if = "Option::is_none")]
        subject: Option<&'a Descriptor>,
    }
    let form = Form { schema_version: 2, media_type: MediaType::OCI_MANIFEST, config, layers: [config], subject };
    serde_json::to_vec(&form).expect("descriptors have string keys and cannot fail to serialize").into()
}
