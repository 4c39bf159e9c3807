//! Sources and sinks that use a client of the crate `oci-client`.

use std::sync::Arc;

use ::oci_client::client::{Client, ClientConfig, ClientProtocol};
use ::oci_client::secrets::RegistryAuth;
use async_trait::async_trait;
use ocikit_image::testing::{Place, conformance};
use ocikit_image::{CopyOptions, Error, Memory, Name, Naming, Result, Root, Sink, Source, copy, testing};
use ocikit_registry::oci_client::ClientRepository;
use ocikit_spec::Platform;

use crate::double::{Behaviour, Double, status};
use crate::support::client;

struct Fresh {
    double: Arc<Double>,
    monolithic: bool,
    referrers: bool,
}

fn place(double: &Double, path: &str, monolithic: bool) -> ClientRepository {
    let config =
        ClientConfig { protocol: ClientProtocol::Http, use_monolithic_push: monolithic, ..ClientConfig::default() };
    // oci-client needs an installed TLS provider. The error of a second installation is ignored.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = Client::try_from(config).unwrap();
    ClientRepository::new(client, RegistryAuth::Anonymous, format!("{}/{path}", double.host()).parse().unwrap())
}

#[async_trait]
impl Place for Fresh {
    async fn sink(&self) -> Arc<dyn Sink> {
        Arc::new(place(&self.double, "a/b", self.monolithic))
    }

    async fn source(&self) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(place(&self.double, "a/b", self.monolithic)))
    }

    fn lists_untagged(&self) -> bool {
        false
    }

    fn finds_referrers(&self) -> bool {
        // The crate does not maintain the list of referrers.
        self.referrers
    }
}

#[tokio::test]
async fn repository_with_oci_client_conforms() {
    for (monolithic, referrers) in [(true, true), (false, true), (true, false)] {
        conformance(async || {
            let double = Arc::new(Double::with(Behaviour { referrers, ..Behaviour::default() }).await);
            Fresh { double, monolithic, referrers }
        })
        .await;
    }
}

#[tokio::test]
async fn copies_between_both_clients() {
    let double = Double::start().await;
    let memory = Arc::new(Memory::new());
    let image = testing::image(&memory, 1, &Platform::new("linux", "amd64"), &[10, 6_000_000]);
    let root = Root::at(memory, image).await.unwrap();
    let options = CopyOptions::default().names(vec![Naming::of_tag("1".parse().unwrap())]);
    let theirs: Arc<dyn Sink> = Arc::new(place(&double, "theirs", true));
    copy(&root, &theirs, &options).await.unwrap();
    let pulled = Root::open(Arc::new(place(&double, "theirs", true)), &Name::Tag("1".parse().unwrap())).await.unwrap();
    let ours: Arc<dyn Sink> =
        Arc::new(client().repository(format!("{}/ours", double.host()).parse().unwrap()).unwrap());
    copy(&pulled, &ours, &options).await.unwrap();
    assert_eq!(double.tag("ours", "1"), Some(root.digest()));
    assert_eq!(double.tag("theirs", "1"), Some(root.digest()));
}

#[tokio::test]
async fn errors_of_oci_client_are_classified() {
    for (code, expected) in [(404, "not found"), (401, "denied"), (503, "unreachable"), (400, "refused")] {
        let double = Double::start().await;
        double.rule(move |seen| if seen.path.ends_with("/v2/") { crate::double::Action::Pass } else { status(code) });
        let error = place(&double, "a", true).resolve(&Name::Tag("1".parse().unwrap())).await.unwrap_err();
        let found = match error {
            Error::NotFound { .. } => "not found",
            Error::Denied { .. } => "denied",
            Error::Unreachable { .. } => "unreachable",
            Error::Refused { .. } => "refused",
            other => panic!("{other:?}"),
        };
        assert_eq!(found, expected, "{code}");
    }
}
