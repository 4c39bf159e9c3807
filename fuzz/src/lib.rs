//! The functions that the fuzz targets call with generated input. `tests/it/fuzz.rs` calls them with the corpus on a stable
//! compiler.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a fuzz target reports a finding by panicking"
)]

use std::io::Write;

use ocikit_archive::{END, Entry, Header, Kind, TarIndex, TarStream, padding};
use ocikit_spec::{Config, Digest, Document, Index, Manifest, MediaType, Platform, Reference, Tag};

/// Random access and streaming find the same entries of a tar, and every entry is inside the archive.
pub fn tar_index(bytes: &[u8]) {
    let Ok(index) = TarIndex::read(bytes) else {
        let mut stream = TarStream::new(bytes);
        while let Ok(Some(_)) = stream.next_entry() {}
        return;
    };
    let end = index.end();
    assert!(end.start <= end.zeros && end.zeros <= end.file && end.file == bytes.len() as u64);
    let mut stream = TarStream::new(bytes);
    for entry in index.entries() {
        assert_eq!(stream.next_entry().unwrap().as_ref(), Some(entry));
        check_entry(entry, bytes.len() as u64);
        if let Some(span) = entry.name.as_deref().and_then(|name| index.file(name)) {
            assert!(span.offset + span.size <= bytes.len() as u64);
        }
    }
    assert!(stream.next_entry().unwrap().is_none());
}

fn check_entry(entry: &Entry, length: u64) {
    assert!(entry.start < entry.data.offset && entry.data.offset + entry.data.size <= length);
    if let Some(name) = &entry.name {
        assert!(!name.starts_with('/') && name.split('/').all(|part| part != ".."), "{name}");
    }
    if let Kind::Link(Some(target)) = &entry.kind {
        assert!(!target.starts_with('/') && target.split('/').all(|part| part != ".."), "{target}");
    }
}

/// A parsed document keeps its bytes, and an edit changes only what it should.
pub fn documents(bytes: &[u8]) {
    let _ = Config::parse(bytes.to_vec()).map(|config| config.rootfs().diff_ids.len());
    for media_type in [MediaType::OCI_MANIFEST, MediaType::OCI_INDEX, MediaType::OCI_ARTIFACT_MANIFEST] {
        let _ = Document::parse(&media_type, bytes.to_vec());
    }
    let Ok((_, document)) = Document::sniff(bytes.to_vec()) else { return };
    assert_eq!(&document.bytes()[..], bytes);
    let count = document.children().count();
    match document {
        Document::Manifest(manifest) => {
            assert_eq!(manifest.edit().finish().unwrap().text(), manifest.text());
            if let Ok(edited) = manifest.edit().annotate("k\"", "v\n").finish() {
                assert_eq!(edited.annotations().get("k\""), Some("v\n"));
                assert_eq!(edited.layers(), manifest.layers());
                assert_eq!(Manifest::parse(edited.bytes().clone()).unwrap().text(), edited.text());
            }
        }
        Document::Index(index) => {
            assert_eq!(index.edit().finish().unwrap().text(), index.text());
            let digest = Digest::sha256_of(b"");
            let mut edit = index.edit();
            edit.repoint(0, &digest, 7).annotate_entry(0, "k", "v");
            if let Ok(edited) = edit.finish() {
                assert_eq!(edited.manifests().len(), count);
                assert!(edited.manifests().first().is_none_or(|entry| entry.digest == digest && entry.size == 7));
                assert_eq!(Index::parse(edited.bytes().clone()).unwrap().text(), edited.text());
            }
        }
    }
}

/// The pieces of a Dockerfile are the whole file, references stand inside of it, and metadata of a project are read or
/// refused.
pub fn dockerfile(bytes: &[u8]) {
    use ocikit_publish::project::{Arguments, Dockerfile, Metadata, MetadataFormat};
    for format in MetadataFormat::ALL {
        if let Ok(metadata) = Metadata::parse(format, bytes) {
            assert!(metadata.version.span.end <= bytes.len());
        }
    }
    let Ok(file) = Dockerfile::parse(bytes) else { return };
    let pieces: Vec<_> = file.pieces().iter().flat_map(|piece| &bytes[piece.span.range()]).copied().collect();
    assert_eq!(pieces, bytes);
    let arguments = Arguments::default().with("REGISTRY", "r.example").on(Platform::new("linux", "amd64"));
    let Ok(found) = file.references(&arguments) else { return };
    for reference in found.references {
        assert!(reference.span.start <= reference.span.end && reference.span.end <= bytes.len());
        if let Some(span) = reference.text.span(0..reference.text.len()) {
            assert_eq!(&bytes[span.range()], reference.text.bytes());
        }
    }
}

/// Formatting a parsed reference, digest, tag or platform and parsing it again gives the same value.
pub fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse(), Ok(reference));
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
        assert_eq!(Digest::from_blob_path(&digest.blob_path()), Some(digest));
    }
    if let Ok(tag) = text.parse::<Tag>() {
        assert_eq!(tag.as_str(), text);
    }
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.to_string().parse(), Ok(platform.clone()));
        assert_eq!(platform.normalized().normalized(), platform.normalized());
    }
}

/// A docker archive with this `manifest.json` is refused, or every listed image can be opened.
pub fn docker_archive(bytes: &[u8]) {
    use ocikit_image::{Name, Root};
    let mut tar = Vec::new();
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}"#;
    for (name, content) in [("c", &config[..]), ("l", b""), ("manifest.json", bytes)] {
        tar.extend(Header::file(name, content.len() as u64).to_bytes());
        tar.extend(content);
        tar.extend(&END[..padding(content.len() as u64) as usize]);
    }
    tar.extend(END);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&tar).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let scratch = ocikit_layout::Scratch::default();
        let Ok((source, inventory)) = ocikit_layout::open_all(file.path(), &scratch).await else { return };
        for root in inventory.roots.manifests().iter().take(20) {
            let opened = Root::open(source.clone(), &Name::Digest(root.digest)).await.unwrap();
            let Root::Image(image) = opened else { panic!("a docker archive holds images only") };
            assert_eq!(image.config().await.unwrap().rootfs().diff_ids.len(), image.layers().count());
        }
    });
}

/// Conflicting names: files and directories with the same path, whiteouts, and paths that leave the root.
const NAMES: [&str; 16] = [
    "a",
    "b",
    "a/b",
    "a/b/c",
    "b/a",
    "b/a/c",
    ".wh.a",
    ".wh.b",
    "a/.wh.b",
    "b/.wh.a",
    "a/.wh..wh..opq",
    ".wh..wh..opq",
    "../a",
    "/b/../a/b",
    "a/b/.wh.c",
    "c",
];

/// A lookup from the highest layer down agrees with the merged file tree, and no path leaves the root. Three bytes of input make
/// an entry; if the first is divisible by six, they start a new layer.
pub fn layers(bytes: &[u8]) {
    use ocikit_archive::layer::{FileTree, Last, Located, Lookup, Path, Reader, Step, Tree};
    use ocikit_image::testing::Tar;

    let _ = Tree::read(&mut Reader::new(bytes));
    let mut tars = vec![Tar::new()];
    for instruction in bytes.chunks_exact(3).take(64) {
        let (name, target) = (NAMES[instruction[1] as usize % 16], NAMES[instruction[2] as usize % 16]);
        let tar = tars.pop().unwrap();
        match instruction[0] % 6 {
            0 => tars.extend([tar, Tar::new()]),
            1 | 2 => tars.push(tar.file(name, target.as_bytes())),
            3 => tars.push(tar.directory(name)),
            4 => tars.push(tar.symlink(name, target)),
            _ => tars.push(tar.link(name, target)),
        }
    }
    let read = |tar: Tar| Tree::read(&mut Reader::new(&tar.finish()[..]));
    let Ok(trees) = tars.into_iter().map(read).collect::<Result<Vec<_>, _>>() else { return };
    // For a directory, the lookup may return any layer that has it, because it does not read the lower ones.
    let file = |located: Located| (!located.file.is_directory()).then_some(located);
    let mut files = FileTree::new();
    if trees.iter().any(|tree| files.apply(tree).is_err()) {
        return;
    }
    for (path, _) in files.iter() {
        assert!(path.parts().all(|part| ![&b""[..], b".", b".."].contains(&part)), "{path}");
        if let Some(parent) = path.parent() {
            assert!(files.get(&parent).is_some_and(|found| found.file.is_directory()), "{path} has no directory");
        }
    }
    for name in NAMES {
        let mut lookup = Lookup::new(trees.len(), name.as_bytes());
        let found = loop {
            match lookup.step() {
                Ok(Step::Need(layer)) => lookup.give(trees[layer].clone()),
                Ok(Step::Found(path, located)) => break Ok(Some((path, file(located)))),
                Ok(Step::Missing) => break Ok(None),
                Err(error) => break Err(error.to_string()),
            }
        };
        let merged = files.resolve(name.as_bytes(), Last::Follow).map_err(|error| error.to_string());
        let merged = merged.map(|path| path.map(|path: Path| (path.clone(), file(files.get(&path).unwrap().clone()))));
        assert_eq!(found, merged, "{name}");
    }
}

/// Unpacking layers writes nothing outside of the directory, and either fails or writes the files of the merged tree. The input is
/// a layer, and three bytes of it make an entry of generated layers; if the first is divisible by eight, they start a new layer.
#[cfg(unix)]
pub fn unpack(bytes: &[u8]) {
    use ocikit_archive::layer::{FileKind, FileTree, Reader, Tree};
    use ocikit_archive::unpack::{Owners, UnpackOptions};
    use ocikit_image::testing::Tar;

    let mut tars = vec![Tar::new()];
    for instruction in bytes.chunks_exact(3).take(64) {
        let (name, target) = (NAMES[instruction[1] as usize % 16], NAMES[instruction[2] as usize % 16]);
        // A target outside, by an absolute path or by one that leaves the root.
        let target = [target, "/outside", "../outside", "../../outside"][instruction[2] as usize / 64];
        let tar = tars.pop().unwrap();
        match instruction[0] % 8 {
            0 => tars.extend([tar, Tar::new()]),
            1 | 2 => tars.push(tar.file(name, target.as_bytes())),
            3 => tars.push(tar.directory(name)),
            4 => tars.push(tar.symlink(name, target)),
            5 | 6 => tars.push(tar.link(name, target)),
            _ => tars.push(tar.entry(b"346"[instruction[2] as usize % 3], name, "", b"")),
        }
    }
    let options = UnpackOptions::default().owners(Owners::Rootless);
    unpack_into_place(&[bytes.to_vec()], options.clone());
    let layers: Vec<_> = tars.into_iter().map(Tar::finish).collect();
    let Some((place, target)) = unpack_into_place(&layers, options) else { return };
    let mut files = FileTree::new();
    for layer in &layers {
        files.apply(&Tree::read(&mut Reader::new(&layer[..])).unwrap()).unwrap();
    }
    for (path, located) in files.iter() {
        let found = std::fs::symlink_metadata(target.join(path.to_string().trim_start_matches('/'))).unwrap();
        match &located.file.kind {
            FileKind::Directory => assert!(found.is_dir(), "{path}"),
            FileKind::Symlink { .. } => assert!(found.is_symlink(), "{path}"),
            FileKind::Regular { size } => assert_eq!(found.len(), *size, "{path}"),
            _ => assert!(!found.is_dir() && !found.is_symlink(), "{path}"),
        }
    }
    drop(place);
}

/// Unpacks layers below a temporary directory and checks that everything beside is unchanged. Returns both if it succeeds.
#[cfg(unix)]
fn unpack_into_place(
    layers: &[Vec<u8>],
    options: ocikit_archive::unpack::UnpackOptions,
) -> Option<(tempfile::TempDir, std::path::PathBuf)> {
    use ocikit_archive::layer::Budget;
    use ocikit_archive::unpack::Unpacker;

    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("outside"), "untouched").unwrap();
    let target = place.path().join("target");
    std::fs::create_dir(&target).unwrap();
    let unpacked = (|| {
        let mut unpacker = Unpacker::new(&target, options, &Budget::new())?;
        for layer in layers.iter().rev() {
            unpacker.layer(&mut &layer[..])?;
        }
        for number in unpacker.incomplete()? {
            unpacker.layer_again(number, &mut &layers[layers.len() - 1 - number][..])?;
        }
        unpacker.finish()
    })();
    assert_eq!(std::fs::read_to_string(place.path().join("outside")).unwrap(), "untouched");
    let outside = std::fs::metadata(place.path().join("outside")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::nlink(&outside), 1, "no hard link leads outside");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 2);
    unpacked.is_ok().then_some((place, target))
}

/// Policies and configurations are refused or consistent; a BuildKit statement is refused, or signed for the image that it
/// belongs to.
pub fn policies(bytes: &[u8]) {
    use std::sync::{Arc, LazyLock};

    use ocikit_image::{Memory, Root};
    use ocikit_publish::signify::{self, Job};
    use ocikit_sign::{
        ExternalSignature, KeyKind, Policy, PolicyOptions, PolicySigner, PrivateKey, PromoteOptions, SignerFiles,
    };
    use ocikit_spec::Descriptor;
    use serde_json::json;

    static KEY: LazyLock<PrivateKey> = LazyLock::new(|| PrivateKey::generate(KeyKind::P256).unwrap());

    let now = "2026-12-01T00:00:00Z".parse().unwrap();
    let memory = Arc::new(Memory::new());
    memory.insert(&b"{}"[..]);
    memory.insert(bytes.to_vec());
    let empty = json!(Descriptor::of(MediaType::OCI_CONFIG, b"{}"));
    let put = |kind: MediaType, document: serde_json::Value| {
        let text = document.to_string();
        let descriptor = Descriptor::of(kind, text.as_bytes());
        memory.insert(text);
        descriptor
    };
    let manifest = |layers: serde_json::Value| {
        put(
            MediaType::OCI_MANIFEST,
            json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": empty, "layers": layers}),
        )
    };
    let image = manifest(json!([]));
    let mut attestation = manifest(json!([Descriptor::of(MediaType::IN_TOTO, bytes)]));
    attestation.annotations.insert("vnd.docker.reference.type", "attestation-manifest");
    attestation.annotations.insert("vnd.docker.reference.digest", image.digest.to_string());
    let index = put(
        MediaType::OCI_INDEX,
        json!({"schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [image, attestation]}),
    );
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let root = Root::at(memory.clone(), index).await.unwrap();
        let options = PromoteOptions::new(now);
        for made in ocikit_sign::promote(&root, &*KEY, &options).await.unwrap_or_default() {
            assert_eq!(made.subject.digest, image.digest);
        }
        let _ = ocikit_sign::import_signature(&root, ExternalSignature::Bundle(bytes.to_vec()), None, now).await;
        let _ = ocikit_sign::import_signature(&root, ExternalSignature::Envelope(bytes.to_vec()), None, now).await;
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let read = |_: &SignerFiles| Ok::<_, ocikit_sign::Error>(PolicySigner::Key(KEY.public_key().clone()));
        if let Ok(policy) = Policy::parse(text, read) {
            let verdict = policy.check(&root, &PolicyOptions::new(None, now)).await;
            assert!(verdict.is_err() || !verdict.unwrap().is_met(), "the image has no signature");
        }
        if let Ok(config) = signify::Config::parse(text) {
            let _ = config.select("acme/app", &Job::Unknown).map(|found| assert!(!found.services.is_empty()));
        }
    });
    let _ = signify::identity(bytes);
}

/// Keys, certificates, CRLs, policies and sigstore files are parsed or refused, and no input verifies as a signature.
pub fn signatures(bytes: &[u8]) {
    use std::sync::Arc;

    use ocikit_image::{Memory, Name, Naming, Root, Sink};
    use ocikit_sign::{
        Certificate, CertificateTrust, Chain, NotationTrust, Pattern, PrivateKey, PublicKey, RevocationList,
        SigningConfig, Trust, TrustPolicy, TrustStore, TrustedRoot, VerifyOptions,
    };
    use ocikit_spec::Descriptor;
    use serde_json::json;

    let _ = PrivateKey::from_pem(bytes, None);
    if let Ok(key) = PublicKey::from_pem(bytes) {
        assert_eq!(PublicKey::from_pem(key.to_pem().as_bytes()).unwrap(), key);
    }
    let _ = Certificate::read_all(bytes).and_then(Chain::new);
    let _ = TrustPolicy::parse(bytes);
    let _ = TrustedRoot::parse(bytes);
    if let Ok(lists) = RevocationList::read_all(bytes) {
        assert!(!lists.is_empty());
    }
    let authorities = Certificate::read_all(AUTHORITY).unwrap();
    assert!(ocikit_sign::verify_timestamp(bytes, b"another message", &authorities).is_err());
    // The corpus holds the valid timestamp. Unsigned parts of the token may differ, but not the time.
    if let Ok(time) = ocikit_sign::verify_timestamp(bytes, b"a message", &authorities) {
        assert_eq!(time, ocikit_sign::verify_timestamp(TIMESTAMP, b"a message", &authorities).unwrap());
    }

    let key = PublicKey::from_pem(KEY.as_bytes()).unwrap();
    let policy = TrustPolicy::parse(POLICY.as_bytes()).unwrap();
    let mut store = TrustStore::new();
    store.add("ca", "none", Vec::new());
    let now = "2026-12-01T00:00:00Z".parse().unwrap();
    let _ = SigningConfig::parse(bytes).and_then(|config| config.services(now));
    // With any identity, a valid bundle for another image fails only at the comparison of the subject.
    let any_identity = |root: &str| {
        Trust::Certificate(Box::new(CertificateTrust::new(
            Pattern::Any,
            TrustedRoot::parse(root.as_bytes()).unwrap(),
            now,
        )))
    };
    let trusted = vec![
        any_identity(include_str!("../../testdata/sigstore/rekor1-root.json")),
        any_identity(include_str!("../../testdata/sigstore/rekor2-root.json")),
        Trust::Key { name: "key".to_owned(), key },
        Trust::Notation(NotationTrust::new(&policy, &store, "", now).unwrap()),
    ];
    let memory = Arc::new(Memory::new());
    let empty = json!(Descriptor::of(MediaType::OCI_CONFIG, b"{}"));
    memory.insert(&b"{}"[..]);
    memory.insert(bytes.to_vec());
    let put = |document: serde_json::Value| {
        let text = document.to_string();
        let descriptor = Descriptor::of(MediaType::OCI_MANIFEST, text.as_bytes());
        memory.insert(text);
        descriptor
    };
    let image = put(json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": empty, "layers": []}));
    for (kind, layer) in [
        ("application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.dev.sigstore.bundle.v0.3+json"),
        ("application/vnd.cncf.notary.signature", "application/jose+json"),
        ("application/vnd.cncf.notary.signature", "application/cose"),
    ] {
        put(json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "artifactType": kind, "config": empty,
            "layers": [Descriptor::of(MediaType::new(layer), bytes)], "subject": image}));
    }
    let mut layer = Descriptor::of(MediaType::new("application/vnd.dev.cosign.simplesigning.v1+json"), bytes);
    layer.annotations.insert("dev.cosignproject.cosign/signature", "MAYCAQECAQE=");
    let legacy =
        put(json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": empty, "layers": [layer]}));
    let tag = Some(format!("sha256-{}.sig", image.digest.hex()).parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        memory.publish(&legacy, &Naming::default().tag(tag)).await.unwrap();
        let root = Root::open(memory, &Name::Digest(image.digest)).await.unwrap();
        let report = ocikit_sign::verify(&root, &VerifyOptions::new(trusted)).await.unwrap();
        assert!(
            report
                .checks
                .iter()
                .all(|check| matches!(&check.outcome, ocikit_sign::Outcome::Missing(all) if all.len() == 2))
        );
    });
}

/// The CA certificate of a timestamp authority, and its timestamp for `a message`.
const AUTHORITY: &[u8] = include_bytes!("../../testdata/timestamps/openssl.pem");
const TIMESTAMP: &[u8] = include_bytes!("../../testdata/timestamps/openssl.tsr");
/// A public key whose private key was discarded.
const KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEbK22sOfhhpAsOFPSJjZ3wtn0mjlJ\n\
9adt17lCpFGBgRJpn/Stkp0lkuWZdZH6yxRkiW2KYjw2alW9OZaVbSz/0A==\n\
-----END PUBLIC KEY-----
";
const POLICY: &str = r#"{"version":"1.0","trustPolicies":[{"name":"all","registryScopes":["*"],
    "signatureVerification":{"level":"audit"},"trustStores":["ca:none"],"trustedIdentities":["*"]}]}"#;

/// Tables of contents, footers and ztocs are refused or parsed. A tar that was converted agrees with its table of contents.
pub fn tables(bytes: &[u8]) {
    use ocikit_lazy::{Position, Table, soci::Ztoc};

    if let Ok(ztoc) = Ztoc::parse(bytes) {
        assert!(ztoc.files.len() <= bytes.len() && ztoc.checkpoints.len() <= bytes.len());
    }
    let _ = Table::parse(bytes);
    let _ = Table::of_estargz(bytes);
    let size = bytes.len() as u64;
    let tail = |length: usize| &bytes[bytes.len().saturating_sub(length)..];
    for position in [
        Position::of_estargz(tail(51), size).ok(),
        Position::of_zstd_chunked(&String::from_utf8_lossy(bytes), size).ok(),
        Position::of_zstd_chunked_footer(tail(64), size).ok().map(|(toc, _)| toc),
    ] {
        let Some(position) = position else { continue };
        let part = &bytes[position.offset as usize..(position.offset + position.length) as usize];
        let _ = Table::of_zstd_chunked(part, &position);
        let _ = Table::of_estargz(part);
    }
    claimed_layers(bytes);
    conversions(bytes);
}

/// A layer that claims to be eStargz or zstd:chunked, with the positions and digests that fit its footer, is compared with
/// its table.
fn claimed_layers(bytes: &[u8]) {
    use ocikit_image::files::Budget;
    use ocikit_image::{Memory, Root};
    use ocikit_lazy::{Position, Table, check_layer, chunked, estargz};
    use ocikit_spec::Descriptor;
    use serde_json::json;

    let size = bytes.len() as u64;
    let tail = |length: usize| &bytes[bytes.len().saturating_sub(length)..];
    let part = |position: &Position| &bytes[position.offset as usize..(position.offset + position.length) as usize];
    let mut annotations = Vec::new();
    if let Ok((_, digest)) =
        Position::of_estargz(tail(51), size).and_then(|position| Table::of_estargz(part(&position)))
    {
        annotations.push(json!({estargz::TOC_DIGEST: digest}));
    }
    if let Ok((toc, split)) = Position::of_zstd_chunked_footer(tail(64), size) {
        let numbers = |at: &Position| format!("{}:{}:{}", at.offset, at.length, at.uncompressed.unwrap_or(0));
        annotations.push(json!({
            chunked::MANIFEST_CHECKSUM: Digest::sha256_of(part(&toc)),
            chunked::MANIFEST_POSITION: format!("{}:1", numbers(&toc)),
            chunked::TAR_SPLIT_POSITION: numbers(&split),
        }));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        for annotations in annotations {
            let memory = std::sync::Arc::new(Memory::new());
            memory.insert(&b"{}"[..]);
            memory.insert(bytes.to_vec());
            let mut layer = json!(Descriptor::of(MediaType::OCI_LAYER_GZIP, bytes));
            layer["annotations"] = annotations;
            let manifest = json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "layers": [layer],
                "config": Descriptor::of(MediaType::OCI_CONFIG, b"{}")})
            .to_string();
            let image = Descriptor::of(MediaType::OCI_MANIFEST, manifest.as_bytes());
            memory.insert(manifest);
            let root = Root::at(memory, image).await.unwrap();
            for layer in root.layers() {
                let _ = check_layer(&layer, &Budget::new(), &std::env::temp_dir()).await;
            }
            if let Root::Image(image) = root {
                read_files(&image).await;
            }
        }
    });
}

/// Lists the files of an image by its tables and by its contents, and reads some of them.
async fn read_files(image: &ocikit_image::Image) {
    use ocikit_lazy::{FileAccess, with_files};

    for access in [FileAccess::Tables, FileAccess::Contents] {
        let Ok(image) = with_files(image.clone(), access, &std::env::temp_dir()).await else { continue };
        let Ok(files) = image.files().await else { continue };
        for (path, _) in files.iter().take(8) {
            let _ = image.read_file(path.as_bytes(), std::io::sink()).await;
        }
    }
}

fn conversions(tar: &[u8]) {
    use ocikit_image::testing::{Compression, image_of};
    use ocikit_image::{Memory, Root, files::Budget};
    use ocikit_lazy::{EstargzOptions, Format, LazyOptions, SociOptions, ZstdChunkedOptions, check_layer, convert};

    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut options = LazyOptions::default();
    options.threads = std::num::NonZeroUsize::new(1);
    options.directory = Some(std::env::temp_dir());
    let mut soci = SociOptions::default();
    (soci.min_layer_size, soci.span_size) = (0, 1000);
    let formats = [
        Format::ZstdChunked(ZstdChunkedOptions::default()),
        Format::Estargz(EstargzOptions::default()),
        Format::Soci(soci),
    ];
    runtime.block_on(async {
        let memory = std::sync::Arc::new(Memory::new());
        let platform = "linux/amd64".parse().unwrap();
        let image = image_of(&memory, &platform, Compression::Gzip, &[tar.to_vec()]);
        let root = Root::at(memory, image).await.unwrap();
        for format in formats {
            let Ok(converted) = convert(&root, &format, &options).await else { continue };
            for layer in converted.mapped.root.layers() {
                let problems = check_layer(&layer, &Budget::new(), &std::env::temp_dir()).await.unwrap();
                assert!(problems.is_empty(), "{problems:?}");
            }
        }
    });
}

/// A changed bootstrap of a Nydus image is refused, or its files are consistent, and it gives a plain layer with these
/// files or none. The first byte selects the bootstrap that is changed, or the rest of the input is the bootstrap; each
/// further 6 bytes change a number in it.
pub fn bootstrap(bytes: &[u8]) {
    use ocikit_lazy::rafs::NydusBootstrap;

    let samples = nydus::samples();
    let Some((first, rest)) = bytes.split_first() else { return };
    let sample = &samples.of[usize::from(*first) % samples.of.len()];
    let is_raw = *first >= 128;
    let bootstrap = if is_raw { rest.to_vec() } else { nydus::changed(&sample.bootstrap, rest) };
    let Ok(read) = NydusBootstrap::read(&bootstrap) else {
        assert!(!rest.is_empty() || is_raw, "an unchanged bootstrap is read");
        return;
    };
    let names = nydus::check(&read);
    nydus::convert_back(samples, bootstrap, &names);
}

/// Nydus images whose bootstraps are changed.
mod nydus {
    use std::collections::BTreeMap;
    use std::sync::{Arc, LazyLock};

    use ocikit_image::files::{FileKind, Kind, Path, Reader, Tree};
    use ocikit_image::testing::{Compression, Tar, image_of, random};
    use ocikit_image::{DiffId, EncoderOptions, Image, LayerOptions, Memory, Root};
    use ocikit_lazy::rafs::{
        ChunkSize, Compressor, Dictionary, NydusBootstrap, NydusOptions, NydusReader, RafsVersion, to_nydus,
    };
    use ocikit_spec::{Descriptor, MediaType};
    use serde_json::json;

    /// Bootstraps of one image with different options, and the blobs of all of them.
    pub(super) struct Samples {
        pub(super) of: Vec<Sample>,
        blobs: Vec<Vec<u8>>,
    }

    pub(super) struct Sample {
        pub(super) bootstrap: Vec<u8>,
    }

    pub(super) fn samples() -> &'static Samples {
        static SAMPLES: LazyLock<Samples> = LazyLock::new(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(make())
        });
        &SAMPLES
    }

    async fn make() -> Samples {
        let lower = Tar::new()
            .directory("d")
            .file("d/large", &random(1, 10_000))
            .file("d/text", &b"text ".repeat(2000))
            .file("empty", b"")
            .records(&[("SCHILY.xattr.user.a", b"one"), ("SCHILY.xattr.security.b", b"two")])
            .file("attributes", b"x")
            .link("link", "d/large")
            .symlink("symlink", "d/text")
            .device(b'3', "null", 1, 3)
            .entry(b'6', "fifo", "", b"");
        let upper = Tar::new().file("d/.wh.text", b"").file("upper", &random(2, 5000));
        let memory = Arc::new(Memory::new());
        let platform = "linux/amd64".parse().unwrap();
        let image = image_of(&memory, &platform, Compression::None, &[lower.finish(), upper.finish()]);
        let Root::Image(image) = Root::at(memory, image).await.unwrap() else { panic!("an image") };
        let mut samples = Samples { of: Vec::new(), blobs: Vec::new() };
        for version in [RafsVersion::V5, RafsVersion::V6] {
            for compressor in [Compressor::None, Compressor::Lz4, Compressor::Zstd] {
                let mut options = NydusOptions::default();
                (options.version, options.compressor) = (version, compressor);
                options.chunk_size = ChunkSize::new(4096).unwrap();
                options.directory = Some(std::env::temp_dir());
                let converted = to_nydus(&image, &options).await.unwrap().image;
                let layers: Vec<_> = converted.layers().collect();
                let (last, blobs) = layers.split_last().unwrap();
                for blob in blobs {
                    samples.blobs.push(blob.open().await.unwrap().bytes().await.unwrap().to_vec());
                }
                let bootstrap = last.decode(DiffId::Skip, |tar| {
                    let mut reader = Reader::new(tar);
                    while let Some(entry) = reader.next_entry()? {
                        let mut bytes = Vec::new();
                        std::io::Read::read_to_end(&mut reader, &mut bytes)?;
                        if entry.path.as_bytes() == b"image/image.boot" {
                            return Ok(bytes);
                        }
                    }
                    panic!("a bootstrap");
                });
                samples.of.push(Sample { bootstrap: bootstrap.await.unwrap().0 });
            }
        }
        samples
    }

    /// Changes numbers: each 6 bytes are an offset, a width with a choice of values, and a value.
    pub(super) fn changed(bootstrap: &[u8], changes: &[u8]) -> Vec<u8> {
        let mut bytes = bootstrap.to_vec();
        for change in changes.chunks_exact(6) {
            let offset = u32::from_le_bytes([change[0], change[1], change[2], 0]) as usize % bytes.len();
            let width = [1, 2, 4, 8][usize::from(change[3]) % 4].min(bytes.len() - offset);
            let field = &mut bytes[offset..offset + width];
            let old = field.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
            let given = u64::from(u16::from_le_bytes([change[4], change[5]]));
            let new = match change[3] / 4 % 12 {
                0 => given,
                1 => 0,
                2 => u64::MAX,
                3 => old.wrapping_add(1),
                4 => old.wrapping_sub(1),
                // The number refers to itself, in all units of the formats.
                5 => offset as u64,
                6 => offset as u64 / 8,
                7 => (offset as u64).wrapping_sub(4096) / 32,
                8 => offset as u64 / 4096,
                9 => bootstrap.len() as u64,
                10 => old.wrapping_add(given),
                _ => old.wrapping_sub(given),
            };
            field.copy_from_slice(&new.to_le_bytes()[..width]);
        }
        bytes
    }

    /// Checks that directories come before their contents, no path is listed twice, and hard links refer to files before
    /// them. Returns all paths, and whether each is a directory.
    pub(super) fn check(bootstrap: &NydusBootstrap) -> BTreeMap<Path, bool> {
        // A root without metadata is not listed.
        let mut known: BTreeMap<Path, bool> = BTreeMap::from([(Path::root(), true)]);
        for entry in bootstrap.entries().iter().filter(|entry| !entry.path.is_root()) {
            let is_directory = matches!(entry.kind, Kind::File(FileKind::Directory));
            let parent = entry.path.parent();
            let is_below = parent.is_some_and(|parent| known.get(&parent) == Some(&true));
            assert!(is_below, "the directory of {}", entry.path);
            if let Kind::HardLink { target } = &entry.kind {
                assert_eq!(known.get(target), Some(&false), "the target of {}", entry.path);
            }
            assert_eq!(known.insert(entry.path.clone(), is_directory), None, "{} is listed twice", entry.path);
        }
        assert!(bootstrap.blob_ids().all(|id| id.len() == 64 && !id.contains(['/', '.'])));
        known
    }

    /// Reads the bootstrap as part of an image with the blobs of all samples.
    pub(super) fn convert_back(samples: &Samples, bootstrap: Vec<u8>, names: &BTreeMap<Path, bool>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let image = image(samples, bootstrap).await;
            super::read_files(&image).await;
            let _ = Dictionary::open(&image, std::env::temp_dir()).await;
            let Ok(reader) = NydusReader::open(&image, std::env::temp_dir()).await else { return };
            let mut options = LayerOptions::from(EncoderOptions::from(Compression::None));
            options.directory = Some(std::env::temp_dir());
            let Ok(layer) = reader.layer(&options).await else { return };
            let mut edit = image.edit();
            for position in (0..image.manifest().layers().len()).rev() {
                edit.remove_layer(position);
            }
            edit.append_layer(layer);
            let plain = edit.finish().await.unwrap();
            let read = |tar: &mut ocikit_image::LayerTar<'_>| Tree::read(&mut Reader::new(tar));
            let tree = plain.layers().next().unwrap().decode(DiffId::Skip, read).await.unwrap().0;
            let mut files = ocikit_image::files::FileTree::new();
            files.apply(&tree).unwrap();
            let mut found: BTreeMap<Path, bool> =
                files.iter().map(|(path, located)| (path.clone(), located.file.is_directory())).collect();
            found.insert(Path::root(), true);
            assert_eq!(&found, names);
        });
    }

    async fn image(samples: &Samples, bootstrap: Vec<u8>) -> Image {
        let memory = Arc::new(Memory::new());
        let blob = MediaType::new("application/vnd.oci.image.layer.nydus.blob.v1");
        let mut layers: Vec<_> = samples.blobs.iter().map(|bytes| json!(Descriptor::of(blob.clone(), bytes))).collect();
        for bytes in &samples.blobs {
            memory.insert(bytes.clone());
        }
        let tar = Tar::new().file("image/image.boot", &bootstrap).finish();
        let mut last = json!(Descriptor::of(MediaType::OCI_LAYER, &tar));
        last["annotations"] = json!({"containerd.io/snapshot/nydus-bootstrap": "true"});
        memory.insert(tar);
        layers.push(last);
        let config = json!({"architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|layer| &layer["digest"]).collect::<Vec<_>>()}})
        .to_string();
        let manifest = json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "layers": layers,
            "config": Descriptor::of(MediaType::OCI_CONFIG, config.as_bytes())})
        .to_string();
        memory.insert(config);
        let descriptor = Descriptor::of(MediaType::OCI_MANIFEST, manifest.as_bytes());
        memory.insert(manifest);
        match Root::at(memory, descriptor).await.unwrap() {
            Root::Image(image) => image,
            other => panic!("{other:?}"),
        }
    }
}
