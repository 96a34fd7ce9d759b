//! Any text as a configuration file.
#![no_main]

use std::path::Path;

use phpmq::config::file::ConfigFile;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = String::from_utf8(data.to_vec()) else { return };
    if let Err(errors) = ConfigFile::parse(Path::new("fuzzed.toml"), text) {
        assert!(errors.iter().count() > 0);
        assert!(!errors.to_string().contains(char::is_control), "{errors:?}");
    }
});
