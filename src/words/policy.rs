//! Policies: what becomes of messages whose processing fails, queue by queue.
//!
//! A policy is the operator's and works for unmodified clients of every protocol: it delays each
//! further attempt, and sets a message aside whose attempts are used up.

use crate::words::ids::{MessageId, QueueName};
use crate::words::pattern::Pattern;

/// What becomes of messages that return to the queues whose names match.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The queues that it is for.
    pub queues: Pattern,
    /// How many failed attempts set a message aside; 0 is no limit.
    pub max_attempts: u32,
    /// The delay after the first failed attempt, the second and so on, in milliseconds; the last
    /// one is for all later attempts too.
    pub backoff_ms: Vec<u64>,
    /// The share, from 0 to 1, by which a delay is lengthened or shortened at random.
    pub jitter: f64,
    /// Where messages go that are set aside; `None` buries them in their queue.
    pub dead_letter: Option<QueueName>,
}

impl Policy {
    /// Whether a message has used up its attempts.
    pub fn is_exhausted(&self, attempts: u32) -> bool {
        self.max_attempts > 0 && attempts >= self.max_attempts
    }

    /// How long a message waits after so many failed attempts, in milliseconds. The jitter is drawn
    /// from the message's id and its attempts, so that messages that failed together spread, and
    /// the engine stays without random numbers.
    pub fn delay_ms(&self, id: MessageId, attempts: u32) -> u64 {
        let Some(last) = self.backoff_ms.len().checked_sub(1) else { return 0 };
        let Some(index) = attempts.checked_sub(1) else { return 0 };
        let base = self.backoff_ms[last.min(usize::try_from(index).unwrap_or(last))];
        // Lossless where it matters: a delay of 2^53 ms is 285,000 years.
        let varied = base as f64 * (1.0 + self.jitter * spread(id, attempts));
        // A cast from a float saturates.
        varied.round() as u64
    }
}

/// A number from -1 to 1, the same for the same message and attempts, and evenly spread over them.
fn spread(id: MessageId, attempts: u32) -> f64 {
    // The finalizer of SplitMix64, whose output bits each depend on every input bit.
    let mut bits = id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(u64::from(attempts));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    // 53 bits fit a float exactly.
    (bits >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}

/// All policies in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policies(Vec<Policy>);

impl Policies {
    /// These policies, the first of which that matches a queue's name is the queue's.
    pub fn new(policies: Vec<Policy>) -> Policies {
        Policies(policies)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The place of the first policy that is for this queue.
    pub fn find(&self, queue: &QueueName) -> Option<usize> {
        self.0.iter().position(|policy| policy.queues.matches(queue.as_str()))
    }

    /// The patterns of the policies whose queues are all those of an earlier one, and its pattern.
    pub fn shadowed(&self) -> impl Iterator<Item = (&Pattern, &Pattern)> {
        let with_earlier = self.0.iter().enumerate().map(|(at, policy)| (policy, &self.0[..at]));
        with_earlier.filter_map(|(policy, earlier)| {
            // A star of the one pattern is no other character than a star of the other can take.
            let by = earlier.iter().find(|one| one.queues.matches(policy.queues.as_str()))?;
            Some((&policy.queues, &by.queues))
        })
    }

    /// The policy at this place.
    pub fn get(&self, place: usize) -> Option<&Policy> {
        self.0.get(place)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Policy> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(backoff_ms: &[u64], jitter: f64) -> Policy {
        Policy {
            queues: Pattern::new("*"),
            max_attempts: 3,
            backoff_ms: backoff_ms.to_vec(),
            jitter,
            dead_letter: None,
        }
    }

    #[test]
    fn the_last_back_off_repeats_and_none_is_no_delay() {
        let steps = policy(&[1_000, 10_000], 0.0);
        let delays: Vec<u64> = (0..5).map(|n| steps.delay_ms(MessageId(7), n)).collect();
        assert_eq!(delays, [0, 1_000, 10_000, 10_000, 10_000]);
        assert_eq!(policy(&[], 0.5).delay_ms(MessageId(7), 3), 0);
        assert_eq!(policy(&[u64::MAX], 1.0).delay_ms(MessageId(7), u32::MAX).min(1), 1);
    }

    #[test]
    fn jitter_spreads_messages_evenly_within_its_share_and_draws_the_same_again() {
        let jittered = policy(&[10_000], 0.1);
        let delays: Vec<u64> = (1..=10_000).map(|n| jittered.delay_ms(MessageId(n), 1)).collect();
        assert!(delays.iter().all(|delay| (9_000..=11_000).contains(delay)));
        for tenth in 0..10 {
            let from = 9_000 + tenth * 200;
            let count = delays.iter().filter(|delay| (from..from + 200).contains(*delay)).count();
            assert!((800..1_200).contains(&count), "{count} from {from} ms on");
        }
        assert_eq!(delays[41], jittered.delay_ms(MessageId(42), 1));
        assert_ne!(jittered.delay_ms(MessageId(42), 1), jittered.delay_ms(MessageId(42), 2));
    }

    #[test]
    fn attempts_are_used_up_at_the_limit_and_never_without_one() {
        let limited = policy(&[], 0.0);
        assert!(!limited.is_exhausted(2) && limited.is_exhausted(3));
        assert!(!Policy { max_attempts: 0, ..limited }.is_exhausted(u32::MAX));
    }

    #[test]
    fn the_first_policy_that_matches_is_the_queues() {
        let named = |name: &str| Policy { queues: Pattern::new(name), ..policy(&[], 0.0) };
        let policies = Policies::new(vec![named("mail.*"), named("mail.slow"), named("x")]);
        let find = |name: &str| policies.find(&QueueName::new(name.as_bytes()).unwrap());
        assert_eq!((find("mail.slow"), find("x"), find("y")), (Some(0), Some(2), None));
    }
}
