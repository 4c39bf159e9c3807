//! The future of every public async function is `Send`.
//!
//! The compiler checks this: `tokio::spawn`, `JoinSet`, axum handlers and `#[async_trait]` require futures that are `Send`, and a
//! single local variable in any callee can make a future not `Send`.

use std::collections::BTreeMap;
use std::fs;
use std::future::{Future, Ready};
use std::io::Empty;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use ocikit::{Location, Naming, Reference, Root, Sink, Source, Tag, image, layout, registry};

/// Returns a value of any type, for code that is compiled and never run.
fn any<T>() -> T {
    unreachable!("these futures are compiled, not run")
}

struct UnusedPlace;

#[async_trait]
impl image::testing::Place for UnusedPlace {
    async fn sink(&self) -> Arc<dyn Sink> {
        any()
    }

    async fn source(&self) -> ocikit::Result<Arc<dyn Source>> {
        any()
    }
}

fn spawnable(_: impl Future + Send + 'static) {}

/// Checks that each future is `Send`, and defines `CHECKED` with the names of the functions.
macro_rules! checked {
    ($($package:literal { $($name:ident = $future:expr;)* })*) => {
        const CHECKED: &[(&str, &str)] = &[$($(($package, stringify!($name)),)*)*];

        const _: fn() = || {
            $($(spawnable(async { let _ = $future.await; });)*)*
        };
    };
}

checked! {
    "ocikit-image" {
        stage_to_each = image::stage_to_each(&any(), &any::<[image::Target; 1]>(), &any());
        publish = any::<image::Staged>().publish();
        once = any::<image::LayerPool<u8, u8>>().once(any(), any::<Ready<ocikit::Result<u8>>>());
        publish_in_order = any::<image::Staged>().publish_in_order();
        publish_all = any::<image::Staged>().publish_all();
        manifest = any::<Root>().manifest(&any());
        layer_digests = image::layer_digests(&any());
        refresh_bundle = image::UnpackedDirectory::refresh_bundle(&any::<PathBuf>(), &any());
        bytes = any::<image::Body>().bytes();
        next_chunk = any::<image::Body>().next_chunk();
        save = any::<image::Body>().save(any::<PathBuf>());
        open = image::BlobFile::open(any::<PathBuf>());
        of = image::BlobFile::of("-", any());
        of_reader = image::BlobFile::of_reader("-", any::<Empty>(), any::<PathBuf>());
        has_nydus_layers = any::<image::Image>().has_nydus_layers();
        has_nydus_layers = image::has_nydus_layers(&any(), &any::<image::Memory>());
        files = any::<image::Image>().files();
        export = any::<image::Image>().export(any::<Vec<u8>>());
        unpack = any::<image::Image>().unpack(any(), &any());
        unpack_bundle = any::<image::Image>().unpack_bundle(any(), &any());
        open_bundle = image::UnpackedDirectory::open_bundle(any());
        of_image = image::UnpackedDirectory::of_image(any(), &any(), any());
        changes = any::<image::UnpackedDirectory>().changes(any::<image::LayerOptions>());
        read_file = any::<image::Image>().read_file(&any::<[u8; 1]>(), any::<Vec<u8>>());
        read_file = any::<image::Layer>().read_file(&any::<[u8; 1]>(), any::<Vec<u8>>());
        annotate = image::annotate(&any(), &any());
        edit_images = image::edit_images(&any(), &any());
        rebase = image::rebase(&any(), &any(), &any(), &any());
        base_of = image::base_of(&any(), &any::<[ocikit::Platform; 1]>());
        annotate_images = image::annotate_images(&any(), &any());
        map_images = image::map_images(&any(), &any(), any::<fn(image::Image) -> Ready<ocikit::Result<image::Image>>>());
        finish = any::<image::ImageEdit<'static>>().finish();
        create_index = image::create_index(&any::<[image::Member; 1]>(), &any());
        add_to_index = image::add_to_index(&any(), &any::<[image::Member; 1]>(), &any());
        pull_files = image::pull_files(&any(), any::<PathBuf>().as_path(), &any());
        layer = any::<image::ArtifactFile>().layer(any());
        files = any::<image::ArtifactBuilder>().files(&any::<[image::ArtifactFile; 1]>(), any());
        config_file = any::<image::ArtifactBuilder>().config_file(&any());
        open = Root::open(any(), &any());
        at = Root::at(any(), any());
        for_platform = any::<Root>().for_platform(&any());
        config = any::<image::Image>().config();
        open = any::<image::Index>().open(&any());
        image_for = any::<image::Index>().image_for(&any());
        platforms = any::<image::Index>().platforms();
        of_entries = image::platform::of_entries(&*any::<Arc<dyn Source>>(), &any::<[ocikit::spec::Descriptor; 1]>());
        open = any::<image::Layer>().open();
        decode = any::<image::Layer>().decode(any(), |_| Ok(()));
        entries = any::<image::Layer>().entries();
        decode_within = any::<image::Layer>().decode_within(&any(), any(), |_| Ok(()));
        length_within = any::<image::Layer>().length_within(&any());
        tree = any::<image::Layer>().tree();
        tree_within = any::<image::Layer>().tree_within(&any());
        compression = any::<image::Layer>().compression();
        recompress = any::<image::Layer>().recompress(&any(), any::<image::LayerOptions>());
        rewrite = any::<image::Layer>().rewrite(&any(), any::<image::LayerOptions>(), |_, _| Ok(()));
        nearby = any::<image::Image>().nearby(&any());
        merged_layer = any::<image::Image>().merged_layer(any::<image::LayerOptions>());
        write_merged = any::<image::Image>().write_merged(&any(), any::<image::files::Writer<fs::File>>());
        recompress = image::recompress(&any(), &any());
        flatten = image::flatten(&any(), &any());
        normalize = image::normalize(&any(), &any());
        convert = image::convert(&any(), &any());
        append_layers = image::append_layers(&any(), &any(), &any::<[image::NewLayer; 1]>());
        missing_paths = image::missing_paths(&any(), &any(), &any::<[image::files::Path; 1]>());
        change_layers = image::change_layers(&any(), &any(), &any::<[usize; 1]>(), &any::<[image::NewLayer; 1]>());
        of_tree = image::NewLayer::of_tree(any::<PathBuf>(), any::<image::files::Owner>(), any::<image::LayerOptions>());
        of_file = image::NewLayer::of_file(any::<PathBuf>(), any::<image::files::Owner>(), any::<image::LayerOptions>());
        of_archive = image::NewLayer::of_archive("-", any::<Empty>(), any::<image::LayerOptions>());
        of_tar = image::NewLayer::of_tar(any::<Empty>(), any::<image::LayerOptions>());
        write = image::NewLayer::write(any::<image::LayerOptions>(), |_| Ok(()));
        skip = any::<image::ReadOnce>().skip();
        select_platforms = image::select_platforms(&any(), &any::<[ocikit::Platform; 1]>());
        copy_to_each = image::copy_to_each(&any(), &any::<[image::Target; 1]>(), &any());
        blocking = image::bridge::blocking(|| Ok(()));
        consume = image::bridge::consume(any(), |_| Ok(()));
        orphans = image::orphans(&any(), &any());
        tagged_referrers = image::tagged_referrers(&any(), &any(), any(), &any());
        validate = image::validate(&any(), &any(), &any());
        next = any::<image::walk::Walk<'static>>().next();
        conformance = image::testing::conformance(any::<fn() -> Ready<UnusedPlace>>());
        copy = image::copy(&any(), &any(), &any());
        copy_all = image::copy_all(&any::<[(Root, Vec<Naming>); 1]>(), &any(), &any());
        copy_all_to_each =
            image::copy_all_to_each(&any::<[(Root, Vec<Naming>); 1]>(), &any::<[Arc<dyn Sink>; 1]>(), &any());
        plan = image::plan(&any(), &any(), &any());
        plan_to_each = image::plan_to_each(&any(), &any::<[Arc<dyn Sink>; 1]>(), &any());
    }
    "ocikit-lazy" {
        check_layer = ocikit_lazy::check_layer(&any(), &any(), &any::<PathBuf>());
        convert = ocikit_lazy::convert(&any(), &any(), &any());
        with_files = ocikit_lazy::with_files(any(), any(), &any::<PathBuf>());
        detect = ocikit_lazy::rafs::NydusReader::detect(&any(), any::<PathBuf>());
        to_nydus = ocikit_lazy::rafs::to_nydus(&any(), &any());
        from_nydus = ocikit_lazy::rafs::from_nydus(&any(), &any());
        open = ocikit_lazy::rafs::NydusReader::open(&any(), any::<PathBuf>());
        read_file = any::<ocikit_lazy::rafs::NydusReader>().read_file(&any(), &mut any::<Vec<u8>>());
        layer = any::<ocikit_lazy::rafs::NydusReader>().layer(&any());
        open = ocikit_lazy::rafs::Dictionary::open(&any(), any::<PathBuf>());
    }
    "ocikit-layout" {
        scan = layout::Siblings::scan(any::<PathBuf>());
        open = layout::open(any::<PathBuf>(), &any());
        open_archive = layout::open_archive(any::<PathBuf>(), &any());
        open_docker_archive = layout::open_docker_archive(any::<PathBuf>(), &any());
        open_pipe = layout::open_pipe("name", any::<Empty>(), &any());
        open_docker_pipe = layout::open_docker_pipe("name", any::<Empty>(), &any());
        has_docker_list = layout::has_docker_list(any::<PathBuf>(), &any());
        receive = layout::receive("-", any::<Empty>(), &any(), &any());
        inventory = any::<layout::Dir>().inventory();
        inventory = any::<layout::Tar>().inventory();
        docker_disagreement = layout::docker_disagreement(any::<PathBuf>(), &any());
        open_all = layout::open_all(any::<PathBuf>(), &any());
        open = layout::TarEdit::open(any::<PathBuf>());
        remove = any::<layout::TarEdit>().remove(&any());
        drain = layout::Pipe::drain("-", any::<Empty>(), &any());
        open = layout::Dir::open(any::<PathBuf>());
        create = layout::Dir::create(any::<PathBuf>());
        exclusive = any::<layout::Dir>().exclusive();
        roots = any::<layout::Dir>().roots();
        remove = any::<layout::Dir>().remove(&any());
        open = layout::Tar::open(any::<PathBuf>());
        create = layout::TarWriter::create(any::<PathBuf>(), any());
        gc = layout::gc(any::<PathBuf>(), &any());
    }
    "ocikit-http" {
        send = any::<ocikit_http::HttpClient>().send(&any());
        stream = any::<ocikit_http::HttpClient>().stream(&any(), &*any::<Box<dyn ocikit_http::BodySource + Send>>());
        fetch = any::<ocikit_http::HttpClient>().fetch(&any(), 1);
        fetch_until = any::<ocikit_http::HttpClient>().fetch_until(&any(), 1, |_, _| None);
        back_off = any::<ocikit_http::HttpClient>().back_off(&any(), &any(), 1, None);
        drain = any::<ocikit_http::Answer>().drain();
        read = any::<ocikit_http::Answer>().read(1);
    }
    "ocikit-registry" {
        login = any::<registry::DockerConfig>().login(&any(), &any());
        copy_with = any::<registry::DockerConfig>().copy_with(&any::<PathBuf>(), &any(), &any());
        mentions = any::<registry::DockerConfig>().mentions(&any());
        logout = any::<registry::DockerConfig>().logout(&any());
        head = any::<registry::RemoteRepository>().head(&any());
        tags = any::<registry::RemoteRepository>().tags();
        tags_part = any::<registry::RemoteRepository>().tags_part(&any());
        blob = any::<registry::RemoteRepository>().blob(&any());
        delete_tag = any::<registry::RemoteRepository>().delete_tag(&any());
        delete_tag_by_replacing = any::<registry::RemoteRepository>().delete_tag_by_replacing(&any());
        delete_manifest = any::<registry::RemoteRepository>().delete_manifest(&any());
        referrers_of_type = any::<registry::RemoteRepository>().referrers_of_type(&any(), &any());
        delete_blob = any::<registry::RemoteRepository>().delete_blob(&any());
        probe = any::<registry::Client>().probe(&any());
        settle = any::<registry::Client>().settle();
        check = any::<registry::Client>().check(&any());
        catalog = any::<registry::Client>().catalog(&any());
        catalog_part = any::<registry::Client>().catalog_part(&any(), &any());
    }
    "ocikit-server" {
        start = any::<ocikit_server::Server>().start();
        shutdown = any::<ocikit_server::Running>().shutdown();
    }
    "ocikit-sign" {
        check = any::<ocikit_sign::Policy>().check(&any(), &any());
        check_referrers = any::<ocikit_sign::Policy>().check_referrers(&any(), &any());
        promote = ocikit_sign::promote(&any(), &*any::<Box<dyn ocikit_sign::Signer>>(), &any());
        verify = ocikit_sign::verify(&any(), &any());
        missing_formats = ocikit_sign::missing_formats(&any(), &any(), &any::<[ocikit_sign::Format; 1]>(), any());
        earlier_signatures = ocikit_sign::earlier_signatures(&any(), &any(), &any::<[ocikit_sign::Format; 1]>(), any());
        open = ocikit_sign::NotationPlugin::open(&any::<PathBuf>(), "key", any());
        open = ocikit_sign::VerificationPlugin::open(&any::<PathBuf>(), any());
        certify = ocikit_sign::certify(&any(), "url", "token", &*any::<Box<dyn ocikit_sign::Signer>>());
        github_token = ocikit_sign::github_token(&any(), "url", "secret");
        github_token_for = ocikit_sign::github_token_for(&any(), "url", "secret", "audience");
        import_signature = ocikit_sign::import_signature(&any(), any(), any::<Option<&ocikit_sign::Trust>>(), any());
        sign = ocikit_sign::sign(&any(), &*any::<Box<dyn ocikit_sign::Signer>>(), &any());
        sign_by_plugin = ocikit_sign::sign_by_plugin(&any(), &any(), &any());
        sign = any::<ocikit_sign::SigningMethod>().sign(&any(), &any());
        attest = ocikit_sign::attest(&any(), &*any::<Box<dyn ocikit_sign::Signer>>(), &any());
        attach = ocikit_sign::attach(&any::<[ocikit_sign::Signature; 1]>(), &any(), &any());
        get = any::<ocikit_sign::Http>().get("url", &[("name", "value")], 1);
        post = any::<ocikit_sign::Http>().post("url", "type", &[("name", "value")], any(), 1);
        post_until = any::<ocikit_sign::Http>().post_until("url", "type", any(), 1, |_, _| any());
        open = ocikit_sign::KmsSigner::open("reference");
    }
    "ocikit-publish" {
        base_digests = ocikit_publish::project::base_digests(&any(), &any(), |_| true, any());
        survey = ocikit_publish::project::survey(&any(), &any(), "", |_| true, any());
        transfer = ocikit_publish::project::transfer(&any(), &any(), &any(), &any(), 1);
        build_project = ocikit_publish::project::build_project(
            &any(), &any(), &any(), &[], &any::<[ocikit_build::Node; 1]>(), &any(),
            any::<&dyn ocikit_publish::project::BuildObserver>());
        renew = ocikit_publish::signify::renew(&any::<[u8; 1]>(), &any(), &any(), any());
        publish = ocikit_publish::publish(&any(), &any(), &any(), any::<Option<&ocikit_publish::ImageSigner>>());
        dry_run = ocikit_publish::dry_run(&any(), &any(), &any());
        publish_lazy = ocikit_publish::publish_lazy(
            &any(), &any(), &any(), &any(), &any(), any::<Option<&ocikit_publish::ImageSigner>>());
        convert = any::<ocikit_publish::LazyRequest>().convert(&any(), &any());
        build = ocikit_publish::build(&any(), &any(), &any(), any());
        change = ocikit_publish::change(&any(), &any());
        platforms = ocikit_publish::platforms(&any());
        with_formats = ocikit_publish::with_formats(&any(), &any::<[ocikit_publish::LayerFormat; 1]>(), any());
        record = any::<ocikit_publish::Recorder>().record(&any());
        verify_token = ocikit_publish::oidc::verify_token("token", &any::<[ocikit_publish::oidc::TrustedIssuer; 1]>(), &|path| fs::read(path), &any(), any());
        credential = any::<ocikit_publish::login::Exchange>().credential(&any(), any());
        send = ocikit_publish::signify::send(&any(), &any::<[ocikit_publish::signify::Target; 1]>(), &any());
    }
    "ocikit-build" {
        start = ocikit_build::Daemon::start(&any());
        stop = any::<ocikit_build::Daemon>().stop();
        build = ocikit_build::build(&any(), &any::<[ocikit_build::Node; 1]>(), any(), &any());
        changed_files = ocikit_build::changed_files(&any::<PathBuf>(), "main");
        ask = ocikit_build::ask(&any(), &any(), "lint");
        find = ocikit_build::Builder::find(&any());
        stop = any::<ocikit_build::Builder>().stop();
        candidates = ocikit_build::Builder::candidates(&any());
        statements = ocikit_build::statements(&any());
        follow = ocikit_build::follow(&any(), &any());
        install = any::<ocikit_build::Installations>().install(&any(), &any());
        remove = any::<ocikit_build::Installations>().remove(&any());
        without_attestations = ocikit_build::without_attestations(&any());
        serve = ocikit_build::agent::serve(any(), &any());
        run = any::<ocikit_build::agent::Host>().run(&*any::<Box<dyn ocikit_build::agent::HostHandler>>());
        status = any::<ocikit_build::agent::Host>().status();
        result = any::<ocikit_build::agent::Host>().result();
        cancel = any::<ocikit_build::agent::Host>().cancel();
    }
    "ocikit" {
        attach = any::<ocikit::Session>().attach(&any(), any(), &any());
        store_referrers = any::<ocikit::Session>().store_referrers(&any(), &any::<[Root; 1]>());
        pull_files = any::<ocikit::Session>().pull_files(&any(), any(), any::<PathBuf>().as_path(), &any());
        compose_index = any::<ocikit::Session>().compose_index(&any::<[ocikit::IndexSource; 1]>(), &any());
        extend_index = any::<ocikit::Session>().extend_index(&any(), &any::<[ocikit::IndexSource; 1]>(), &any());
        store_index = any::<ocikit::Session>().store_index(&any(), &any());
        add_to_index = any::<ocikit::Session>().add_to_index(&any(), &any::<[ocikit::IndexSource; 1]>(), &any());
        remove_from_index = any::<ocikit::Session>().remove_from_index(&any(), &any::<[ocikit::Digest; 1]>(), &any::<[ocikit::Platform; 1]>());
        planned = ocikit::IndexChange::planned(&any(), any());
        edit = any::<ocikit::Session>().edit(&any());
        tag = any::<ocikit::Session>().tag(&any(), &any::<[Tag; 1]>());
        put_manifest = any::<ocikit::Session>().put_manifest(any::<Vec<u8>>(), any(), &any());
        put_blob = any::<ocikit::Session>().put_blob(&any(), &any());
        find_blob = any::<ocikit::Session>().find_blob(&any(), &any());
        open_blob = any::<ocikit::Session>().open_blob(&any(), &any());
        inspect = ocikit::inspect(&any());
        measure = any::<ocikit::Inspection>().measure(&any());
        add_formats = any::<ocikit::Inspection>().add_formats(&any(), &any::<ocikit_lazy::LazyFormats>());
        validate = any::<ocikit::Session>().validate(&any(), &any());
        docker_disagreement = any::<ocikit::Session>().docker_disagreement(&any());
        gc = any::<ocikit::Session>().gc(&any(), &any());
        targets = any::<ocikit::Session>().targets(&any::<[Location; 1]>(), any());
        publish = any::<ocikit::Targets<'static>>().publish(&any(), &any::<[Naming; 1]>());
        sync = ocikit::sync::sync::<ocikit::Error>(&any(), &any(), any(), any(), &mut |_, _| ());
        copy_root_to_each = any::<ocikit::Session>().copy_root_to_each(&any(), any(), &any::<[Location; 1]>());
        plan_root_to_each = any::<ocikit::Session>().plan_root_to_each(&any(), any(), &any::<[Location; 1]>());
        receive_present_to_each =
            any::<ocikit::Session>().receive_present_to_each(any::<Empty>(), &any::<[Location; 1]>());
        receive_to_each = any::<ocikit::Session>().receive_to_each(any::<Empty>(), &any::<[Location; 1]>());
        source = any::<ocikit::Session>().source(&any());
        open = any::<ocikit::Session>().open(&any());
        sink = any::<ocikit::Session>().sink(&any());
        copy = any::<ocikit::Session>().copy(&any(), &any());
        fit = any::<ocikit::Session>().fit(&any(), &any());
        open_to_sign = any::<ocikit::Session>().open_to_sign(&any());
        store = any::<ocikit::Signing>().store(any());
        sign = any::<ocikit::Session>().sign(&any(), &*any::<Box<dyn ocikit_sign::Signer>>(), &any());
        attest = any::<ocikit::Session>().attest(&any(), &*any::<Box<dyn ocikit_sign::Signer>>(), &any());
        promote = any::<ocikit::Session>().promote(&any(), &*any::<Box<dyn ocikit_sign::Signer>>(), &any());
        verify = any::<ocikit::Session>().verify(&any(), &any());
        copy_root = any::<ocikit::Session>().copy_root(&any(), &any());
        copy_root_from = any::<ocikit::Session>().copy_root_from(&any(), &any(), &any());
        push = any::<ocikit::Session>().push(&any(), &any::<[Reference; 1]>());
        open_each = any::<ocikit::Session>().open_each(&any());
        held_platforms = ocikit::held_platforms(&any());
        open_present = any::<ocikit::Session>().open_present(&any());
        open_pipe = any::<ocikit::Session>().open_pipe(&any(), any::<Empty>());
        names = any::<ocikit::Session>().names(&any());
        inspect = any::<ocikit::Session>().inspect(&any());
        tags = any::<ocikit::Session>().tags(&any());
        plan = any::<ocikit::Session>().plan(&any(), &any());
        copy_to = any::<ocikit::Session>().copy_to(&any(), &any(), any());
        receive = any::<ocikit::Session>().receive(any::<Empty>(), &any());
        annotate = any::<ocikit::Session>().annotate(&any(), &any());
        change = any::<ocikit::Session>().change(&any(), any::<fn(Root) -> Ready<ocikit::Result<Root>>>());
        update_referrers = any::<ocikit::Session>().update_referrers(&any(), &any());
        planned = ocikit::Changed::planned(&any(), any::<Root>());
        drop_referrers = any::<ocikit::Session>().drop_referrers(&any(), &any::<[image::Orphan; 1]>());
        remove = any::<ocikit::Session>().remove(&any());
        diff = ocikit::diff(&any(), &any());
        diff_with = ocikit::diff_with(&any(), &any(), None);
        tree = ocikit::tree(&any());
    }
}

/// A new public async function must be added to the list above.
#[test]
fn every_public_async_function_is_listed() {
    let mut found = BTreeMap::<_, usize>::new();
    for package in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../crates")).unwrap() {
        let package = package.unwrap();
        for name in public_async_functions(&package.path().join("src")) {
            *found.entry((package.file_name().into_string().unwrap(), name)).or_default() += 1;
        }
    }
    let mut checked = BTreeMap::<_, usize>::new();
    for (package, name) in CHECKED {
        *checked.entry(((*package).to_owned(), (*name).to_owned())).or_default() += 1;
    }
    assert_eq!(found, checked);
}

fn public_async_functions(directory: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.extend(public_async_functions(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let after = text.lines().filter_map(|line| line.trim_start().strip_prefix("pub async fn "));
            names.extend(after.map(|after| after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()));
        }
    }
    names
}
