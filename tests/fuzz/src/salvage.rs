//! What a repair has to stand: any bytes as pages, in the file, in its log, or in either alone.
//!
//! It ends, in little memory; what it makes is loaded and holds as many messages as it says.

use std::fs;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use phpmq::store;

use crate::edit::{edited, repair_log_checksums};
use crate::template::Template;

const PAGE_BYTES: usize = 8 * 1024;

/// Repairs what the bytes stand for. The first one says in which way.
///
/// # Panics
/// When the repair does what it must not.
pub fn repair(data: &[u8]) {
    let Some((way, bytes)) = data.split_first() else { return };
    let template = Template::get();
    let mut choices = Unstructured::new(bytes);
    let (file, log) = match way % 4 {
        0 => (Some(bytes.to_vec()), None),
        1 => (None, Some(edited(&template.log, &mut choices))),
        2 => {
            let mut log = edited(&template.log, &mut choices);
            repair_log_checksums(&mut log);
            (Some(moved(&template.file, &mut choices)), Some(log))
        }
        _ => {
            let file = moved(&edited(&template.closed, &mut choices), &mut choices);
            (Some(file), Some(edited(&template.log, &mut choices)))
        }
    };
    let directory = crate::database::folder();
    let path = directory.path().join("queue.db");
    for (name, bytes) in [("queue.db", file), ("queue.db-wal", log)] {
        if let Some(bytes) = bytes {
            fs::write(directory.path().join(name), bytes).expect("a file can be written");
        }
    }
    match store::recover(&path) {
        Ok(recovered) => {
            let opened = store::open(Some(&path), &mut |_| ())
                .unwrap_or_else(|error| panic!("{recovered}; and then: {error}"));
            assert_eq!(opened.facts.messages, recovered.messages, "{recovered}");
        }
        Err(error) => assert!(!error.to_string().contains("--recover"), "{error}"),
    }
}

/// A copy with pages that have changed places or are copies of others.
fn moved(file: &[u8], choices: &mut Unstructured<'_>) -> Vec<u8> {
    let mut bytes = file.to_vec();
    let _ = (0..4).try_for_each(|_| move_page(&mut bytes, choices));
    bytes
}

fn move_page(bytes: &mut [u8], choices: &mut Unstructured<'_>) -> Result<()> {
    let pages = bytes.len() / PAGE_BYTES;
    if pages == 0 || choices.is_empty() {
        return Ok(());
    }
    let mut page = || Ok(choices.int_in_range(0..=pages - 1)? * PAGE_BYTES);
    let (one, two) = (page()?, page()?);
    let first = bytes[one..one + PAGE_BYTES].to_vec();
    bytes.copy_within(two..two + PAGE_BYTES, one);
    if choices.arbitrary()? {
        bytes[two..two + PAGE_BYTES].copy_from_slice(&first);
    }
    Ok(())
}
