//! Any bytes as the pages and the log of a damaged database.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| phpmq_fuzz::salvage::repair(data));
