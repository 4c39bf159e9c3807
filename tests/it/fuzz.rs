//! Runs the corpus of every fuzz target through the function that the target calls.

use std::fs;
use std::path::Path;

#[allow(unreachable_pub, reason = "in fuzz/ the file is a library")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

type Target = fn(&[u8]);

#[test]
fn fuzz_corpus_passes_every_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let targets: [(&str, Target); 11] = [
        ("tar_index", targets::tar_index),
        ("documents", targets::documents),
        ("reference", targets::reference),
        ("docker_archive", targets::docker_archive),
        ("layers", targets::layers),
        ("unpack", targets::unpack),
        ("signatures", targets::signatures),
        ("policies", targets::policies),
        ("dockerfile", targets::dockerfile),
        ("tables", targets::tables),
        ("bootstrap", targets::bootstrap),
    ];
    for (name, target) in targets {
        let found = fs::read_dir(corpus.join(name)).unwrap();
        let files: Vec<_> = found.map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() > 5, "{name}");
        for file in files {
            target(&fs::read(file).unwrap());
        }
    }
    assert_eq!(fs::read_dir(&corpus).unwrap().count(), targets.len(), "every target needs a corpus directory");
}

/// Random layers are unpacked like the merged tree, and nothing outside changes. `OCIKIT_FUZZ_INPUTS` sets their number.
#[test]
fn fuzz_random_layers_are_unpacked() {
    let inputs = std::env::var("OCIKIT_FUZZ_INPUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    for seed in 0..inputs {
        let length = 3 + (seed % 60) as usize * 3;
        targets::unpack(&ocikit_image::testing::random(seed, length));
    }
}
