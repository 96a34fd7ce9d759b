//! Any bytes into the phpmq decoder.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| phpmq_fuzz::decode("phpmq", data));
