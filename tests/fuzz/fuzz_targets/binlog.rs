//! Any bytes as the files that beanstalkd leaves.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| phpmq_fuzz::binlog::import(data));
