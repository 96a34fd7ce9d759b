//! Any bytes into the beanstalk decoder.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| phpmq_fuzz::decode("beanstalk", data));
