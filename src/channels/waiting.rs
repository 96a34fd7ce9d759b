//! Waiting for what comes next: first awake, while that pays, then asleep on the channel.
//!
//! Waking a thread costs as much as serving a command, and several times that when its processor
//! has nothing else to do and has to be woken as well. At one command at a time the next one is
//! there within microseconds, so who waits for it offers the processor to others meanwhile and
//! goes to sleep only then. For how long is learned: what comes soon after the thread has gone to
//! sleep makes the time longer, what takes long makes it shorter, down to a few turns for our own
//! threads that are ready to run. So messages that are few and far between cost no waiting, and an
//! idle daemon sleeps. (The kernel's halt polling for virtual machines learns in the same way.)
//!
//! But the system takes the rest of its time slice from who yields. A program that computes beside
//! us would have the processor for milliseconds each time. So a yield that took long is followed
//! by a time without any, in which the thread only sleeps: who has slept runs as soon as it is
//! woken. For the same reason the channels of a message's path neither spin nor yield (`channels`).

use crate::words::clock::monotonic_us;

/// How often the processor is offered at least, as long as nothing has come.
const YIELDS_MIN: u32 = 4;
/// What comes later than this is not waited for awake: the processor's time it takes is then more
/// than what waking the thread costs.
const AWAKE_MAX_US: u64 = 100;
/// What a time awake that is too short grows to at least.
const AWAKE_GROWN_US: u64 = 10;
/// Longer than our own threads take that are ready, shorter than another program's slice.
const QUICK_US: u64 = 1_000;
/// How many times longer than the slow yield the time without is: that part of it is lost.
const REST_FACTOR: u64 = 64;

/// How one thread waits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waiting {
    /// How long it stays awake.
    awake_us: u64,
    /// The end of the time without yielding.
    rests_until_us: u64,
}

impl Waiting {
    /// What `next` finds, as soon as it finds something; or what `sleep` returns, which waits for
    /// it without taking the processor's time.
    pub fn wait<T>(
        &mut self,
        next: impl FnMut() -> Option<T>,
        sleep: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        self.wait_by(monotonic_us, next, sleep)
    }

    fn wait_by<T>(
        &mut self,
        now_us: impl Fn() -> u64,
        next: impl FnMut() -> Option<T>,
        sleep: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        let begun_us = now_us();
        if let Some(come) = self.stay_awake(begun_us, &now_us, next) {
            return Some(come);
        }
        let come = sleep();
        self.learn(now_us().saturating_sub(begun_us));
        come
    }

    /// Lets other threads run until something has come, for a time.
    fn stay_awake<T>(
        &mut self,
        begun_us: u64,
        now_us: impl Fn() -> u64,
        mut next: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let mut before_us = begun_us;
        let mut yields = 0;
        let until_us = begun_us + self.awake_us;
        while (yields < YIELDS_MIN || before_us < until_us) && !self.rests_at(before_us) {
            std::thread::yield_now();
            let come = next();
            let after_us = now_us();
            self.note(before_us, after_us);
            if come.is_some() {
                return come;
            }
            before_us = after_us;
            yields += 1;
        }
        None
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

    /// Learns from a wait of so long, which it did not see to its end awake.
    fn learn(&mut self, waited_us: u64) {
        self.awake_us = if waited_us <= AWAKE_MAX_US {
            (2 * waited_us).clamp(AWAKE_GROWN_US, AWAKE_MAX_US)
        } else {
            self.awake_us / 2
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const NONE: Option<&str> = None;

    /// A clock that every look at moves on.
    fn clock(step_us: u64) -> impl Fn() -> u64 {
        let now_us = Cell::new(0);
        move || now_us.replace(now_us.get() + step_us)
    }

    /// Waits for what comes when it has gone to sleep; says how often it has looked before.
    fn looks_before_sleep(waiting: &mut Waiting, step_us: u64) -> u32 {
        let mut looked = 0;
        let look = || {
            looked += 1;
            NONE
        };
        assert_eq!(waiting.wait_by(clock(step_us), look, || Some("come")), Some("come"));
        looked
    }

    #[test]
    fn what_comes_while_it_is_awake_needs_no_sleep() {
        let mut left = [NONE; 8].into_iter().chain([Some("come")]);
        let mut waiting = Waiting { awake_us: 20, rests_until_us: 0 };
        let come = waiting.wait_by(clock(2), || left.next().unwrap(), || panic!("it slept"));
        assert_eq!(come, Some("come"));
        assert_eq!(waiting.awake_us, 20);
    }

    #[test]
    fn it_sleeps_when_the_time_is_over_and_learns_how_long_it_should_have_been() {
        let mut waiting = Waiting { awake_us: 20, rests_until_us: 0 };
        assert_eq!(looks_before_sleep(&mut waiting, 2), 10);
        assert_eq!(waiting.awake_us, 2 * 22);
    }

    #[test]
    fn it_yields_a_few_times_even_when_staying_awake_did_not_pay() {
        assert_eq!(looks_before_sleep(&mut Waiting::default(), 9), YIELDS_MIN);
    }

    #[test]
    fn while_it_rests_it_sleeps_at_once() {
        let mut waiting = Waiting { awake_us: 20, rests_until_us: u64::MAX };
        let come = waiting.wait(|| panic!("it looked"), || Some("come"));
        assert_eq!(come, Some("come"));
    }

    #[test]
    fn it_sleeps_as_soon_as_another_program_has_used_a_yield() {
        let mut waiting = Waiting { awake_us: 20_000, rests_until_us: 0 };
        assert_eq!(looks_before_sleep(&mut waiting, 4_000), 1);
        assert!(waiting.rests_at(8_000));
    }

    #[test]
    fn what_comes_soon_after_it_went_to_sleep_keeps_it_awake_for_longer() {
        let mut waiting = Waiting::default();
        waiting.learn(1);
        assert_eq!(waiting.awake_us, AWAKE_GROWN_US);
        waiting.learn(30);
        assert_eq!(waiting.awake_us, 60);
        waiting.learn(AWAKE_MAX_US);
        assert_eq!(waiting.awake_us, AWAKE_MAX_US);
    }

    #[test]
    fn what_is_long_in_coming_is_soon_not_waited_for_awake_at_all() {
        let mut waiting = Waiting { awake_us: AWAKE_MAX_US, rests_until_us: 0 };
        waiting.learn(AWAKE_MAX_US + 1);
        assert_eq!(waiting.awake_us, AWAKE_MAX_US / 2);
        for _ in 0..10 {
            waiting.learn(1_000_000);
        }
        assert_eq!(waiting.awake_us, 0);
    }

    #[test]
    fn yields_that_come_back_soon_go_on() {
        let mut waiting = Waiting::default();
        waiting.note(10_000, 10_000 + QUICK_US);
        assert!(!waiting.rests_at(10_000 + QUICK_US));
    }

    #[test]
    fn a_yield_that_another_program_used_is_not_repeated_for_long() {
        let mut waiting = Waiting::default();
        waiting.note(10_000, 14_000);
        assert!(waiting.rests_at(14_000));
        assert!(waiting.rests_at(14_000 + 4_000 * 64 - 1));
        assert!(!waiting.rests_at(14_000 + 4_000 * 64));
    }
}
