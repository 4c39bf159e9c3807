//! Writes the hostile archives and their README.md to a directory: the small ones, which are kept in the repository, or with
//! `--large` the others.

use std::path::PathBuf;

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let directory = PathBuf::from(arguments.next().expect("a directory"));
    let large = arguments.next().is_some_and(|flag| flag == "--large");
    if !large {
        std::fs::write(directory.join("README.md"), ocikit_tests::hostile::readme()).expect("a file");
    }
    for case in ocikit_tests::hostile::CASES.iter().filter(|case| case.large == large) {
        std::fs::write(directory.join(case.name).with_extension("tar"), case.bytes()).expect("a file");
    }
}
