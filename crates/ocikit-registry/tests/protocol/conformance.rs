use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use ocikit_image::testing::{Place, conformance};
use ocikit_image::{Result, Sink, Source};
use ocikit_registry::Client;
use ocikit_spec::Repository;

use crate::double::{Behaviour, Double};

/// A new repository in a registry, opened by a new client each time.
struct Fresh {
    repository: Repository,
    _double: Option<Arc<Double>>,
}

#[async_trait]
impl Place for Fresh {
    async fn sink(&self) -> Arc<dyn Sink> {
        Arc::new(Client::default().repository(self.repository.clone()).unwrap())
    }

    async fn source(&self) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(Client::default().repository(self.repository.clone())?))
    }

    fn lists_untagged(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_registry_conforms() {
    for referrers in [true, false] {
        conformance(async || {
            let double = Double::with(Behaviour { referrers, ..Behaviour::default() }).await;
            let repository = format!("{}/a/b", double.host()).parse().unwrap();
            Fresh { repository, _double: Some(Arc::new(double)) }
        })
        .await;
    }
}

/// Runs against a real registry: `OCIKIT_TEST_REGISTRY=127.0.0.1:5000 cargo test -p ocikit-registry -- --ignored real`
#[tokio::test]
#[ignore = "needs a registry"]
async fn a_real_registry_conforms() {
    let host = std::env::var("OCIKIT_TEST_REGISTRY").expect("OCIKIT_TEST_REGISTRY names a registry");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let count = AtomicUsize::new(0);
    conformance(async || {
        let number = count.fetch_add(1, Ordering::Relaxed);
        Fresh { repository: format!("{host}/conformance/{now}-{number}").parse().unwrap(), _double: None }
    })
    .await;
}
