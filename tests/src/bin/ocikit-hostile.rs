//! Writes the small ones of the hostile archives into the directory that it is given.

use std::path::PathBuf;

fn main() {
    let directory = PathBuf::from(std::env::args_os().nth(1).expect("a directory"));
    std::fs::write(directory.join("README.md"), ocikit_tests::hostile::readme()).expect("a file");
    for case in ocikit_tests::hostile::CASES.iter().filter(|case| !case.large) {
        std::fs::write(directory.join(case.name).with_extension("tar"), case.bytes()).expect("a file");
    }
}
