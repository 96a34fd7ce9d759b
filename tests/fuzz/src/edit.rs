//! Changes to the bytes of a file, as the fuzzer chooses them.

use libfuzzer_sys::arbitrary::{Result, Unstructured};

/// More would only make it slow.
const EDITS_MAX: usize = 16;
const RUN_BYTES_MAX: usize = 300;

/// A copy with some changes.
pub fn edited(sound: &[u8], choices: &mut Unstructured<'_>) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    for _ in 0..EDITS_MAX {
        if choices.is_empty() || bytes.is_empty() || edit(&mut bytes, choices).is_err() {
            break;
        }
    }
    bytes
}

fn edit(bytes: &mut Vec<u8>, choices: &mut Unstructured<'_>) -> Result<()> {
    let place = choices.int_in_range(0..=bytes.len() - 1)?;
    let run = |choices: &mut Unstructured<'_>| choices.int_in_range(1..=RUN_BYTES_MAX);
    match choices.int_in_range(0..=6)? {
        0 => bytes[place] ^= 1 << choices.int_in_range(0..=7)?,
        1 => bytes[place] = choices.arbitrary()?,
        2 => overwrite(bytes, place, &choices.arbitrary::<u16>()?.to_be_bytes()),
        3 => overwrite(bytes, place, &choices.arbitrary::<u32>()?.to_be_bytes()),
        4 => {
            let value = choices.arbitrary()?;
            let length = run(choices)?;
            overwrite(bytes, place, &vec![value; length]);
        }
        5 => {
            // What stands elsewhere, a pointer to a page among it, is as likely as nothing else.
            let from = choices.int_in_range(0..=bytes.len() - 1)?;
            let until = bytes.len().min(from + run(choices)?);
            let copied = bytes[from..until].to_vec();
            overwrite(bytes, place, &copied);
        }
        _ => bytes.truncate(place),
    }
    Ok(())
}

fn overwrite(bytes: &mut [u8], place: usize, with: &[u8]) {
    for (byte, new) in bytes[place..].iter_mut().zip(with) {
        *byte = *new;
    }
}

const LOG_HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;

/// Makes the checksums of a write-ahead log right, as its format asks for, so that a changed frame
/// is not simply the end of the log.
pub fn repair_log_checksums(log: &mut [u8]) {
    let big_endian = log.get(3).is_some_and(|byte| byte & 1 == 1);
    let Some(page_bytes) = log.get(8..12).map(|four| number(four, true) as usize) else { return };
    let Some((header, mut rest)) = log.split_at_mut_checked(LOG_HEADER_BYTES) else { return };
    let mut sums = add((0, 0), &header[..24], big_endian);
    put_sums(&mut header[24..32], sums);
    let salts: Vec<u8> = header[16..24].to_vec();
    let Some(frame_bytes) = page_bytes.checked_add(FRAME_HEADER_BYTES) else { return };
    if !page_bytes.is_power_of_two() {
        return;
    }
    while let Some((frame, others)) = rest.split_at_mut_checked(frame_bytes) {
        frame[8..16].copy_from_slice(&salts);
        sums = add(sums, &frame[..8], big_endian);
        sums = add(sums, &frame[FRAME_HEADER_BYTES..], big_endian);
        put_sums(&mut frame[16..24], sums);
        rest = others;
    }
}

fn number(four: &[u8], big_endian: bool) -> u32 {
    let four = four.first_chunk().copied().unwrap_or_default();
    if big_endian { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) }
}

fn add((mut first, mut second): (u32, u32), bytes: &[u8], big_endian: bool) -> (u32, u32) {
    for pair in bytes.chunks_exact(8) {
        first = first.wrapping_add(number(&pair[..4], big_endian)).wrapping_add(second);
        second = second.wrapping_add(number(&pair[4..], big_endian)).wrapping_add(first);
    }
    (first, second)
}

fn put_sums(place: &mut [u8], (first, second): (u32, u32)) {
    place[..4].copy_from_slice(&first.to_be_bytes());
    place[4..8].copy_from_slice(&second.to_be_bytes());
}
