use std::sync::Arc;

use bytes::Bytes;
use ocikit_http::{Method, Origin, Reply, Request, Url};
use ocikit_image::{Error, Result};
use ocikit_spec::{Descriptor, Digest, Index, MediaType, Repository};
use serde::Serialize;

use crate::capabilities::Capabilities;
use crate::inner::Inner;
use crate::manifests;
use crate::target::{ManifestKey, Target};

/// Finds out what a registry supports.
pub(crate) async fn run(inner: &Arc<Inner>, scratch: &Repository) -> Result<Capabilities> {
    let second = Repository::new(scratch.registry().clone(), &format!("{}-from", scratch.path()));
    let second = second.map_err(|error| Error::broken(scratch, error))?;
    let probe = Probe { here: Target::of_repository(inner, scratch)?, there: Target::of_repository(inner, &second)? };
    // Random contents, so that nothing found here existed before.
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
        // Blobs may be stored once for all repositories, so an earlier deletion may have removed this one. The
        // registry may answer the deletion of a missing blob with a server error.
        if probe.is_fine(Method::HEAD, url.clone()).await == Some(true) {
            probe.is_fine(Method::DELETE, url).await;
        }
    }
    Ok(found)
}

struct Probe {
    /// The repository in which everything is tried.
    here: Target,
    /// The repository to mount from.
    there: Target,
}

impl Probe {
    /// Sends a request with the permission to read, write and delete in both repositories.
    async fn ask(&self, request: Request) -> Result<Reply> {
        let access = self.here.access_to_delete().with(&self.there.access_to_delete());
        self.here.call(&access, request).await
    }

    async fn is_fine(&self, method: Method, url: Url) -> Option<bool> {
        let reply = self.ask(self.here.request(method, url)).await.ok()?;
        Some((200..300).contains(&reply.answer.status))
    }

    /// Uploads a blob as one chunk.
    async fn upload(&self, blob: &Bytes, found: &mut Capabilities) -> Result<()> {
        let begun = self.expect(self.here.request(Method::POST, self.here.uploads()), "upload").await?;
        found.chunk_minimum = begun.answer.header("oci-chunk-min-length").and_then(|text| text.trim().parse().ok());
        let session = self.location(&begun, &self.here)?;
        let chunk = self
            .here
            .request(Method::PATCH, session.clone())
            .header("content-range", &format!("0-{}", blob.len() - 1))
            .body("application/octet-stream", blob.clone());
        let sent = self.ask(chunk).await?;
        found.patch_status = Some(sent.answer.status);
        if !(200..300).contains(&sent.answer.status) {
            // Then in one piece, which every registry supports.
            return self.put_blob(&self.here, blob, found).await;
        }
        let session = self.location(&sent, &self.here).unwrap_or(session);
        let told = self.ask(self.here.request(Method::GET, session.clone())).await?;
        found.upload_progress = Some(told.answer.status < 300 && told.answer.header("range").is_some());
        let session = self.location(&told, &self.here).unwrap_or(session);
        let closed = self
            .expect(self.here.request(Method::PUT, Target::commit(&session, &Digest::sha256_of(blob))), "upload")
            .await?;
        found.put_location = Some(closed.answer.header("location").is_some());
        Ok(())
    }

    async fn put_blob(&self, target: &Target, blob: &Bytes, found: &mut Capabilities) -> Result<()> {
        let begun = self.expect(self.here.request(Method::POST, target.uploads()), "upload").await?;
        let session = Target::commit(&self.location(&begun, target)?, &Digest::sha256_of(blob));
        let request = self.here.request(Method::PUT, session).body("application/octet-stream", blob.clone());
        let put = self.expect(request, "upload").await?;
        found.put_location = Some(put.answer.header("location").is_some());
        Ok(())
    }

    async fn read(&self, blob: &Bytes, found: &mut Capabilities) -> Result<()> {
        let url = self.here.blob(&Digest::sha256_of(blob));
        let reply = self.ask(self.here.request(Method::GET, url).header("range", "bytes=1-2")).await?;
        found.ranges = Some(reply.answer.status == 206);
        Ok(())
    }

    /// `one` exists in the first repository; the others are put into the second.
    async fn mount(&self, one: &Bytes, two: &Bytes, three: &Bytes, found: &mut Capabilities) {
        found.mount_from_itself = self.mounts(one, Some(&self.here.path)).await;
        // The user may have no permission to write to the second repository.
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
        url.append_query("mount", &Digest::sha256_of(blob).to_string());
        if let Some(from) = from {
            url.append_query("from", from);
        }
        let reply = self.ask(self.here.request(Method::POST, url)).await.ok()?;
        let mounted = reply.answer.status == 201;
        if let (false, Ok(session)) = (mounted, self.location(&reply, &self.here)) {
            self.is_fine(Method::DELETE, session).await;
        }
        Some(mounted)
    }

    /// Puts an image, a referrer of it, and an index whose manifest is missing, and deletes them.
    async fn manifests(&self, config: &Bytes, found: &mut Capabilities) -> Result<()> {
        let config = Descriptor::of(MediaType::OCTET_STREAM, config);
        let image = manifest(&config, None);
        let subject = Descriptor::of(MediaType::OCI_MANIFEST, &image);
        let tag = ManifestKey::Tag("probe".parse().map_err(|error| Error::broken(&self.here.place, error))?);
        self.expect(self.put_request(&tag, &MediaType::OCI_MANIFEST, &image), "manifest").await?;

        let referrer = manifest(&config, Some(&subject));
        let referrer_key = ManifestKey::Digest(Digest::sha256_of(&referrer));
        let put = self.ask(self.put_request(&referrer_key, &MediaType::OCI_MANIFEST, &referrer)).await?;
        if put.answer.status < 300 {
            found.subject_header = Some(put.answer.header("oci-subject").is_some());
            found.referrers_api = Some(self.lists_referrer(&subject.digest, &referrer).await?);
            self.is_fine(Method::DELETE, self.here.manifest(&referrer_key)).await;
        }

        let absent = Descriptor::of(MediaType::OCI_MANIFEST, &manifest(&config, Some(&config)));
        let index = Index::of(&[absent]).bytes().clone();
        let index_key = ManifestKey::Digest(Digest::sha256_of(&index));
        let put = self.ask(self.put_request(&index_key, &MediaType::OCI_INDEX, &index)).await?;
        found.sparse_index = Some(put.answer.status < 300);
        self.is_fine(Method::DELETE, self.here.manifest(&index_key)).await;

        let removed = self.is_fine(Method::DELETE, self.here.manifest(&tag)).await;
        let image_key = ManifestKey::Digest(subject.digest);
        let head = manifests::accepting(self.here.request(Method::HEAD, self.here.manifest(&image_key)));
        let stays = self.ask(head).await.ok().map(|reply| reply.answer.status == 200);
        found.delete_tag = removed.zip(stays).map(|(removed, stays)| removed && stays);
        found.delete_manifest = self.is_fine(Method::DELETE, self.here.manifest(&image_key)).await;
        Ok(())
    }

    async fn lists_referrer(&self, subject: &Digest, referrer: &Bytes) -> Result<bool> {
        let reply = self.ask(self.here.request(Method::GET, self.here.referrers(subject))).await?;
        if reply.answer.status != 200 {
            return Ok(false);
        }
        let body = reply.answer.read(1 << 20).await.unwrap_or_default();
        let digest = Digest::sha256_of(referrer);
        Ok(Index::parse(body).is_ok_and(|index| index.manifests().iter().any(|listed| listed.digest == digest)))
    }

    fn put_request(&self, key: &ManifestKey, media_type: &MediaType, bytes: &Bytes) -> Request {
        self.here.request(Method::PUT, self.here.manifest(key)).body(media_type.as_str(), bytes.clone())
    }

    /// Sends a request whose failure ends the probe.
    async fn expect(&self, request: Request, what: &str) -> Result<Reply> {
        let reply = self.ask(request).await?;
        match reply.answer.status {
            200..300 => Ok(reply),
            _ => Err(self.here.error(reply, what).await),
        }
    }

    /// Returns the session that an answer names, if it is on the registry itself.
    fn location(&self, reply: &Reply, target: &Target) -> Result<Url> {
        let broken = |problem: String| Error::broken(&target.place, problem);
        let location = reply.answer.header("location");
        let location = location.ok_or_else(|| broken("it started an upload without a location".to_owned()))?;
        let url = ocikit_http::resolve(&reply.url, location).map_err(|error| broken(error.to_string()))?;
        match target.inner.http.origin_of(&url, target.endpoint.home(), reply) {
            Origin::User(_) => Ok(url),
            Origin::Server(_) => Err(broken("it accepts uploads on another host, which are not probed".to_owned())),
        }
    }
}

/// Returns an artifact manifest with this blob as its config and its only layer.
fn manifest(config: &Descriptor, subject: Option<&Descriptor>) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct ArtifactManifest<'a> {
        schema_version: u32,
        media_type: MediaType,
        config: &'a Descriptor,
        layers: [&'a Descriptor; 1],
        #[serde(skip_serializing_if = "Option::is_none")]
        subject: Option<&'a Descriptor>,
    }
    let document =
        ArtifactManifest { schema_version: 2, media_type: MediaType::OCI_MANIFEST, config, layers: [config], subject };
    serde_json::to_vec(&document).expect("descriptors have string keys and cannot fail to serialize").into()
}
