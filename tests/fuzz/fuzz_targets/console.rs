//! Any bytes into the console decoder.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| phpmq_fuzz::decode("console", data));
