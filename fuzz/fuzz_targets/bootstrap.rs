#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ocikit_fuzz::bootstrap(bytes));
