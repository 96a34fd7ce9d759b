//! The one place that reads clocks.
//!
//! Time inside the daemon is one scale: milliseconds since 1970 as the wall clock had it when the
//! process started, moved on by CLOCK_BOOTTIME alone. So a wall clock that is set while the daemon
//! runs moves no deadline, and while the machine is suspended time goes on. What is written to the database is wall time: [`Now`] carries
//! the difference of the two at the moment of writing.

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

/// What the clocks say in one turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The moment on the daemon's scale.
    pub time: Time,
    /// Wall clock minus daemon's scale, in milliseconds: 0 until somebody sets the wall clock.
    pub wall_offset_ms: i64,
}

impl Now {
    /// The wall time, in milliseconds since 1970, of a moment on the daemon's scale.
    pub fn wall_ms(&self, time: Time) -> i64 {
        let time_ms = i64::try_from(time.0).unwrap_or(i64::MAX);
        time_ms.saturating_add(self.wall_offset_ms).max(0)
    }

    /// The moment on the daemon's scale of a wall time in milliseconds since 1970.
    pub fn from_wall_ms(&self, wall_ms: i64) -> Time {
        Time(u64::try_from(wall_ms.saturating_sub(self.wall_offset_ms)).unwrap_or(0))
    }
}

/// Reads the clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What the system's clocks said at the start of the scale.
    started: Duration,
    started_awake: Duration,
    started_wall_ms: u64,
}

impl Clock {
    /// Starts the daemon's scale at what the wall clock says now.
    pub fn start() -> Clock {
        Clock {
            started: read(ClockId::Boottime),
            started_awake: read(ClockId::Monotonic),
            started_wall_ms: wall_clock_ms(),
        }
    }

    /// The moment now, on the daemon's scale alone.
    pub fn time(&self) -> Time {
        Time(self.started_wall_ms.saturating_add(millis(self.uptime())))
    }

    /// The moment now on a scale that stands still while the machine is suspended: for what is
    /// expected of peers, who were not heard meanwhile.
    pub fn awake(&self) -> Time {
        let elapsed = read(ClockId::Monotonic).saturating_sub(self.started_awake);
        Time(self.started_wall_ms.saturating_add(millis(elapsed)))
    }

    /// The moment now and how far the wall clock is from it.
    pub fn now(&self) -> Now {
        let time = self.time();
        let wall = i64::try_from(wall_clock_ms()).unwrap_or(i64::MAX);
        let own = i64::try_from(time.0).unwrap_or(i64::MAX);
        // A few milliseconds are the two readings, not somebody who set the clock.
        let offset = wall.saturating_sub(own);
        Now { time, wall_offset_ms: if offset.abs() <= 5 { 0 } else { offset } }
    }

    /// How long to wait on a channel until a moment; `None` is for ever. Never for long, since such
    /// a wait does not go on while the machine is suspended, and nobody would look at the clock.
    pub fn until(&self, time: Time) -> Option<Duration> {
        if time == Time::NEVER {
            return None;
        }
        // The scale has whole milliseconds: wait to the end of the one before.
        let from_start = Duration::from_millis(time.0.saturating_sub(self.started_wall_ms));
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

fn read(clock: ClockId) -> Duration {
    let now = rustix::time::clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[expect(clippy::disallowed_methods, reason = "this file is the one that may read clocks")]
fn wall_clock_ms() -> u64 {
    millis(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// The system's monotonic clock in microseconds, as the service manager reads it.
pub fn monotonic_us() -> u64 {
    u64::try_from(read(ClockId::Monotonic).as_micros()).unwrap_or(u64::MAX)
}

/// A duration in whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_and_back_is_the_same_moment() {
        let now = Now { time: Time(1_000_000), wall_offset_ms: -3_000 };
        assert_eq!(now.wall_ms(Time(1_000_500)), 997_500);
        assert_eq!(now.from_wall_ms(997_500), Time(1_000_500));
    }

    #[test]
    fn wall_times_before_1970_and_after_the_end_are_clamped() {
        let now = Now { time: Time(5), wall_offset_ms: -100 };
        assert_eq!(now.wall_ms(Time(5)), 0);
        assert_eq!(now.wall_ms(Time::NEVER), i64::MAX - 100);
        assert_eq!(Now { time: Time(5), wall_offset_ms: 100 }.from_wall_ms(20), Time(0));
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
        let during = Time(clock.started_wall_ms + millis(asleep) / 2);
        assert_eq!(suspended.until(during), Some(Duration::ZERO));
    }
}
