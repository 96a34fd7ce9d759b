//! Any bytes as a database, or as changes to a sound one.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| phpmq_fuzz::database::load(data));
