//! Damaged bootstraps.

use ocikit_image::testing::Compression;
use ocikit_lazy::rafs::{NydusBootstrap, RafsVersion, to_nydus};

use super::convert::{bootstrap_layer, image_of, options};
use super::hard;

async fn bootstrap(version: RafsVersion) -> Vec<u8> {
    let image = image_of(Compression::None, &hard::layers()).await;
    let mut options = options();
    options.version = version;
    let converted = to_nydus(&image, &options).await.unwrap().image;
    bootstrap_layer(&converted).await.remove("image/image.boot").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_bootstraps_are_refused_or_read() {
    for version in [RafsVersion::V5, RafsVersion::V6] {
        let good = bootstrap(version).await;
        assert!(NydusBootstrap::read(&good).is_ok());
        // Zeros may follow the last table.
        for length in (0..good.len() - 4096).step_by(good.len() / 50) {
            assert!(NydusBootstrap::read(&good[..length].to_vec()).is_err(), "{version} cut to {length}");
        }
        // Every byte of the tables, and some others.
        let positions = (0..10_000).chain((10_000..good.len()).step_by(97)).step_by(3);
        let mut refused = 0;
        for position in positions {
            let mut bytes = good.clone();
            bytes[position] ^= 0xff;
            if let Ok(read) = NydusBootstrap::read(&bytes) {
                assert!(read.entries().len() < 10_000);
            } else {
                refused += 1;
            }
        }
        assert!(refused > 100, "{version}: {refused}");
    }
}
