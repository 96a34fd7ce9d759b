//! Letting other threads of ours run before a thread goes to sleep on its channel.
//!
//! At one command at a time the threads that are ready to run on the same processor are those that
//! are about to send something. Who lets them run first finds more to do at once, and need not be
//! woken: waking a thread costs as much as serving a command.
//!
//! But the system takes the rest of its time slice from who yields. A program that computes beside
//! us would have the processor for milliseconds each time. So a yield that took long is followed
//! by a time without any, in which the thread only sleeps: who has slept runs as soon as it is
//! woken. For the same reason the channels of a message's path neither spin nor yield (`channels`).

use crate::clock::monotonic_us;

/// How often the processor is offered at most, as long as nothing has come.
const YIELDS_MAX: u32 = 4;
/// Longer than our own threads take that are ready, shorter than another program's slice.
const QUICK_US: u64 = 1_000;
/// How many times longer than the slow yield the time without is: that part of it is lost.
const REST_FACTOR: u64 = 64;

/// When one thread yields; it begins with doing so.
#[derive(Clone, Copy, Debug, Default)]
pub struct Yielding {
    /// The end of the time without.
    rests_until_us: u64,
}

impl Yielding {
    /// Lets other threads run until something has come, a few times at most.
    pub fn gather<T>(&mut self, mut next: impl FnMut() -> Option<T>) -> Option<T> {
        let before_us = monotonic_us();
        if self.rests_at(before_us) {
            return next();
        }
        let mut come = None;
        for _ in 0..YIELDS_MAX {
            std::thread::yield_now();
            come = next();
            if come.is_some() {
                break;
            }
        }
        self.note(before_us, monotonic_us());
        come
    }

    fn rests_at(&self, now_us: u64) -> bool {
        now_us < self.rests_until_us
    }

    /// Notes how long others had the processor.
    fn note(&mut self, before_us: u64, after_us: u64) {
        let taken_us = after_us.saturating_sub(before_us);
        if taken_us > QUICK_US {
            self.rests_until_us = after_us.saturating_add(taken_us.saturating_mul(REST_FACTOR));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stops_yielding_when_something_has_come() {
        let mut left = [None, Some("come")].into_iter();
        assert_eq!(Yielding::default().gather(|| left.next().unwrap()), Some("come"));
    }

    #[test]
    fn it_yields_a_few_times_when_nothing_comes_and_then_gives_up() {
        let mut looked = 0;
        let come: Option<()> = Yielding::default().gather(|| {
            looked += 1;
            None
        });
        assert_eq!((come, looked), (None, YIELDS_MAX));
    }

    #[test]
    fn while_it_rests_it_only_looks() {
        let mut yielding = Yielding { rests_until_us: u64::MAX };
        let mut looked = 0;
        let come: Option<()> = yielding.gather(|| {
            looked += 1;
            None
        });
        assert_eq!((come, looked), (None, 1));
    }

    #[test]
    fn yields_that_come_back_soon_go_on() {
        let mut yielding = Yielding::default();
        yielding.note(10_000, 10_000 + QUICK_US);
        assert!(!yielding.rests_at(10_000 + QUICK_US));
    }

    #[test]
    fn a_yield_that_another_program_used_is_not_repeated_for_long() {
        let mut yielding = Yielding::default();
        yielding.note(10_000, 14_000);
        assert!(yielding.rests_at(14_000));
        assert!(yielding.rests_at(14_000 + 4_000 * 64 - 1));
        assert!(!yielding.rests_at(14_000 + 4_000 * 64));
    }
}
