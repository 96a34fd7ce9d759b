//! Figures and names as people read them.

use crate::words::clock::date;
use crate::words::printable::safe;

/// A size in bytes with a unit, `1.5 KiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // In tenths of a unit: rounded like people do, without floating point.
    let (mut tenths, mut unit) = ((u128::from(bytes) * 10 + 512) / 1024, 0);
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths = (tenths + 512) / 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

/// A span of time, `3d 04:05:06`.
pub(super) fn uptime(millis: u64) -> String {
    let seconds = millis / 1_000;
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let clock = format!("{hours:02}:{:02}:{:02}", seconds / 60 % 60, seconds % 60);
    if days == 0 { clock } else { format!("{days}d {clock}") }
}

/// A moment in UTC, `2026-11-20 13:50:00`, from wall milliseconds since 1970.
pub(super) fn moment(wall_ms: i64) -> String {
    let seconds = wall_ms.max(0) / 1_000;
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// A safe text cut or filled up to exactly so many characters.
pub(super) fn cell(text: &str, width: usize) -> String {
    let safe = safe(text);
    if safe.chars().count() <= width {
        return format!("{safe:width$}");
    }
    let cut: String = safe.chars().take(width.saturating_sub(1)).collect();
    format!("{cut}\u{2026}")
}

/// A bar for `part` of `whole`: at least one mark when there is anything.
pub(super) fn bar(part: u64, whole: u64, width: usize) -> String {
    let marks = (u128::from(part) * width as u128).div_ceil(u128::from(whole.max(1)));
    "#".repeat(usize::try_from(marks).unwrap_or(width).min(width))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_unit_that_keeps_them_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            (1_048_576, "1.0 MiB"),
            (16 * 1_048_576 + 524_288, "16.5 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn uptimes_count_days_apart() {
        assert_eq!(uptime(0), "00:00:00");
        assert_eq!(uptime(86_399_999), "23:59:59");
        assert_eq!(uptime(86_400_000 + 3_723_000), "1d 01:02:03");
    }

    #[test]
    fn moments_are_dates_of_the_calendar() {
        for (wall_s, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (951_868_800, "2000-03-01 00:00:00"),
            (1_735_689_599, "2024-12-31 23:59:59"),
            (1_795_182_600, "2026-11-20 13:50:00"),
            (4_107_542_400, "2100-03-01 00:00:00"),
            (-5, "1970-01-01 00:00:00"),
        ] {
            assert_eq!(moment(wall_s * 1_000), text);
        }
    }

    #[test]
    fn cells_have_exactly_their_width() {
        assert_eq!(cell("ab", 4), "ab  ");
        assert_eq!(cell("abcd", 4), "abcd");
        assert_eq!(cell("äbcde", 4), "äbc…");
    }

    #[test]
    fn a_bar_is_full_for_the_fullest_and_never_empty_for_something() {
        assert_eq!(bar(10, 10, 5), "#####");
        assert_eq!(bar(1, 1_000_000, 5), "#");
        assert_eq!(bar(0, 10, 5), "");
        assert_eq!(bar(0, 0, 5), "");
        assert_eq!(bar(5, 10, 4), "##");
    }
}
