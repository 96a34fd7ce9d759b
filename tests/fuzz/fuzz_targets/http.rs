//! Any bytes into the http decoder.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| phpmq_fuzz::decode("http", data));
