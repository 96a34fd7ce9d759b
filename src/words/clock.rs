//! The one place that reads clocks.
//!
//! Time inside the daemon is one scale: milliseconds since 1970 as the wall clock had it when the
//! database was made, moved on by CLOCK_BOOTTIME alone. So a wall clock that is set while the
//! daemon runs moves no deadline, and while the machine is suspended time goes on.
//!
//! What is stored are moments of the scale, and beside them what the wall clock is from it
//! ([`Now`]). Over a restart the wall clock tells how much time has passed: the scale goes on at
//! wall clock minus stored offset. So no stored moment has to be changed when somebody sets the
//! wall clock, only the offset. A clock that is set while no daemon runs cannot be told from time
//! that passes; but the scale never goes back: at a start with a wall clock that is behind what was
//! stored, it goes on from there.

use std::fmt;
use std::time::{Duration, SystemTime};

use rustix::time::ClockId;

/// A moment on the daemon's own scale, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// Later than every moment.
    pub const NEVER: Time = Time(u64::MAX);

    /// The moment this many milliseconds later, at most [`Time::NEVER`].
    #[must_use]
    pub fn plus(self, millis: u64) -> Time {
        Time(self.0.saturating_add(millis))
    }

    /// As it is stored.
    pub fn stored(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// The moment that was stored so.
    pub fn from_stored(stored: i64) -> Time {
        Time(u64::try_from(stored).unwrap_or(0))
    }

    /// The milliseconds from `earlier` to this moment, 0 when it is not earlier.
    pub fn since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the clocks say in one turn; stored from time to time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The moment on the daemon's scale.
    pub time: Time,
    /// Wall clock minus daemon's scale, in milliseconds: it changes when the wall clock is set.
    pub wall_offset_ms: i64,
}

impl Now {
    /// The wall time, in milliseconds since 1970, of a moment on the daemon's scale.
    pub fn wall_ms(&self, time: Time) -> i64 {
        time.stored().saturating_add(self.wall_offset_ms).max(0)
    }
}

/// Reads the clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What the system's clocks said at the start.
    started: Duration,
    started_awake: Duration,
    start: Now,
    behind_ms: u64,
}

impl Clock {
    /// Starts a scale at what the wall clock says now.
    pub fn start() -> Clock {
        Clock::go_on(None)
    }

    /// Goes on with the scale that was last stored so.
    pub fn go_on(stored: Option<Now>) -> Clock {
        let (start, behind_ms) = start_of(stored, wall_clock_ms());
        Clock {
            started: read(ClockId::Boottime),
            started_awake: read(ClockId::Monotonic),
            start,
            behind_ms,
        }
    }

    /// How far the wall clock was behind what was stored. The offset is another one since then, and
    /// how long no daemon ran is not known.
    pub fn behind_ms(&self) -> u64 {
        self.behind_ms
    }

    /// Where the scale began, or went on.
    pub fn beginning(&self) -> Now {
        self.start
    }

    /// The moment now, on the daemon's scale alone.
    pub fn time(&self) -> Time {
        self.start.time.plus(millis(self.uptime()))
    }

    /// The moment now on a scale that stands still while the machine is suspended: for what is
    /// expected of peers, who were not heard meanwhile.
    pub fn awake(&self) -> Time {
        let elapsed = read(ClockId::Monotonic).saturating_sub(self.started_awake);
        self.start.time.plus(millis(elapsed))
    }

    /// The moment now and how far the wall clock is from it. That is what was known, unless the
    /// wall clock has been set since then.
    pub fn now(&self, known_offset_ms: i64) -> Now {
        observe(known_offset_ms, || self.time(), wall_clock_ms)
    }

    /// How long to wait on a channel until a moment; `None` is for ever. Never for long, since such
    /// a wait does not go on while the machine is suspended, and nobody would look at the clock.
    pub fn until(&self, time: Time) -> Option<Duration> {
        if time == Time::NEVER {
            return None;
        }
        // The scale has whole milliseconds: wait to the end of the one before.
        let from_start = Duration::from_millis(time.since(self.start.time));
        Some(from_start.saturating_sub(self.uptime()).min(WAIT_MAX))
    }

    /// How long the process has run, times of suspension included.
    pub fn uptime(&self) -> Duration {
        read(ClockId::Boottime).saturating_sub(self.started)
    }
}

/// The longest wait for a moment: after the machine was suspended, or the wall clock was set, that
/// is noticed so much later at the latest, or with the first event. A look costs some 20
/// microseconds, and there is none while nothing is awaited.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// A wall clock that is so far from where it was expected, in milliseconds, has been set. It is not
/// let drift from the scale by more: on Linux the two only part when it is set (or shows a leap
/// second), for both are slowed down and sped up alike.
const SET_MS: u64 = 1_000;
/// Two readings with less between them, in milliseconds, are of one moment.
const SAME_MOMENT_MS: u64 = 10;
/// How often a reading of one moment is tried.
const READINGS_MAX: u32 = 5;

/// Both clocks as one moment saw them. A part of [`Clock::now`].
pub(crate) fn observe(
    known_offset_ms: i64,
    time: impl Fn() -> Time,
    wall_ms: impl Fn() -> i64,
) -> Now {
    let is_set = |offset_ms: i64| offset_ms.abs_diff(known_offset_ms) >= SET_MS;
    let mut now = Now { time: time(), wall_offset_ms: known_offset_ms };
    if !is_set(wall_ms().saturating_sub(now.time.stored())) {
        return now;
    }
    // Or the process was stopped between the readings.
    for _ in 0..READINGS_MAX {
        let before = time();
        let offset_ms = wall_ms().saturating_sub(before.stored());
        now.time = time();
        if now.time.since(before) <= SAME_MOMENT_MS {
            now.wall_offset_ms = if is_set(offset_ms) { offset_ms } else { known_offset_ms };
            break;
        }
    }
    now
}

/// Where a scale goes on that was last stored so, and how far the wall clock is behind that.
pub(crate) fn start_of(stored: Option<Now>, wall_ms: i64) -> (Now, u64) {
    let stored = stored.unwrap_or_default();
    let by_wall_ms = wall_ms.saturating_sub(stored.wall_offset_ms);
    let time = Time::from_stored(by_wall_ms).max(stored.time);
    let start = Now { time, wall_offset_ms: wall_ms.saturating_sub(time.stored()) };
    (start, time.stored().abs_diff(by_wall_ms))
}

fn read(clock: ClockId) -> Duration {
    let now = rustix::time::clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The wall clock, in milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "this file is the one that may read clocks")]
pub fn wall_clock_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(millis(since_1970.unwrap_or_default())).unwrap_or(i64::MAX)
}

/// The system's monotonic clock in microseconds, as the service manager reads it.
pub fn monotonic_us() -> u64 {
    u64::try_from(read(ClockId::Monotonic).as_micros()).unwrap_or(u64::MAX)
}

/// A duration in whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Year, month and day of the date that many days after 1970-01-01.
pub fn date(days: i64) -> (i64, i64, i64) {
    // Years here begin in March, so that the leap day is a year's last; 400 of them are an era of
    // 146,097 days. Day 0 of the first era is 719,468 days before 1970.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March have 153 days in each five.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn wall_times_before_1970_and_after_the_end_are_clamped() {
        let now = Now { time: Time(5), wall_offset_ms: -100 };
        assert_eq!(now.wall_ms(Time(5)), 0);
        assert_eq!(now.wall_ms(Time::NEVER), i64::MAX - 100);
        assert_eq!(Time::from_stored(-1), Time(0));
        assert_eq!(Time::from_stored(Time(7).stored()), Time(7));
    }

    #[test]
    fn a_new_scale_begins_at_the_wall_clock() {
        assert_eq!(start_of(None, 7_000), (Now { time: Time(7_000), wall_offset_ms: 0 }, 0));
    }

    #[test]
    fn a_scale_goes_on_by_what_the_wall_clock_says_has_passed() {
        for offset in [0, HOUR_MS, -HOUR_MS] {
            let stored = Now { time: Time(1_800_000_000_000), wall_offset_ms: offset };
            let later = Now { time: stored.time.plus(5_000), ..stored };
            assert_eq!(start_of(Some(stored), 1_800_000_005_000 + offset), (later, 0));
        }
    }

    #[test]
    fn a_scale_never_goes_back() {
        let stored = Now { time: Time(1_800_000_000_000), wall_offset_ms: 50 };
        for wall in [0, 10_000, 1_799_999_999_000] {
            let (start, behind_ms) = start_of(Some(stored), wall);
            assert_eq!(start.time, stored.time);
            assert_eq!(behind_ms, 1_800_000_000_050_u64.abs_diff(wall.unsigned_abs()));
            assert_eq!(start.wall_ms(start.time), wall);
        }
    }

    #[test]
    fn a_wall_clock_that_is_set_is_noticed_and_moves_no_time() {
        for by in [-HOUR_MS, -1_000, 1_000, HOUR_MS, 56 * 365 * 24 * HOUR_MS] {
            let now = observe(70, || Time(9_000_000), || 9_000_070 + by);
            assert_eq!(now, Now { time: Time(9_000_000), wall_offset_ms: 70 + by });
        }
    }

    #[test]
    fn what_is_no_step_is_not_taken_for_one() {
        for by in [-999, -1, 0, 1, 999] {
            let now = observe(70, || Time(9_000_000), || 9_000_070 + by);
            assert_eq!(now.wall_offset_ms, 70);
        }
    }

    #[test]
    fn a_pause_between_two_readings_is_no_step() {
        // Stopped for a minute between the first two readings, and again in the second attempt.
        let times = [0, 60_000, 120_000, 120_000, 120_000];
        let walls = [60_000, 120_000, 120_000];
        let (time_at, wall_at) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
        let time = || Time(times[time_at.replace(time_at.get() + 1)]);
        let wall = || walls[wall_at.replace(wall_at.get() + 1)];
        assert_eq!(observe(0, time, wall), Now { time: Time(120_000), wall_offset_ms: 0 });
        // And for ever: then nothing is known.
        let ever = std::cell::Cell::new(0);
        let time = || Time(ever.replace(ever.get() + 60_000));
        assert_eq!(observe(0, time, || 0).wall_offset_ms, 0);
    }

    #[test]
    fn never_is_waited_for_without_an_end_and_the_past_not_at_all() {
        let clock = Clock::start();
        assert_eq!(clock.until(Time::NEVER), None);
        assert_eq!(clock.until(clock.time()), Some(Duration::ZERO));
        assert!(clock.until(clock.time().plus(900)) <= Some(Duration::from_millis(900)));
    }

    #[test]
    fn a_far_moment_is_waited_for_in_parts() {
        let clock = Clock::start();
        assert_eq!(clock.until(clock.time().plus(3_600_000)), Some(WAIT_MAX));
    }

    #[test]
    fn only_one_of_the_scales_goes_on_while_the_machine_is_suspended() {
        let clock = Clock::start();
        let asleep = clock.started.min(Duration::from_secs(600));
        let suspended = Clock { started: clock.started - asleep, ..clock };
        let awake = suspended.awake();
        assert!(suspended.time().since(awake) + 1 >= millis(asleep));
        let during = clock.start.time.plus(millis(asleep) / 2);
        assert_eq!(suspended.until(during), Some(Duration::ZERO));
    }
}
