//! `[[policy]]`: what becomes of messages whose processing fails.

use toml::Spanned;

use super::error::ConfigFault;
use super::file;
use super::meaning::{Checker, within};
use super::values::{Count, Durations, Millis, Share};
use crate::words::ids::QueueName;
use crate::words::limits::POLICIES_MAX;
use crate::words::pattern::Pattern;
use crate::words::policy::{Policies, Policy};

/// The longest back-off: nobody waits longer for a message.
const BACKOFF_MOST: Millis = Millis(365 * 86_400_000);
/// Steps of a back-off at most.
const BACKOFF_STEPS_MAX: usize = 100;
/// The share by which back-offs vary when none is given.
const JITTER: f64 = 0.1;

impl Checker<'_> {
    /// The policies of the file in their order.
    pub(super) fn policies(&self, typed: &[Spanned<file::Policy>]) -> Policies {
        if let Some(one_too_many) = typed.get(POLICIES_MAX) {
            let fault = ConfigFault::TooManySections("policy", POLICIES_MAX);
            self.fail("policy", one_too_many, fault);
        }
        Policies::new(typed.iter().filter_map(|typed| self.policy(typed)).collect())
    }

    fn policy(&self, spanned: &Spanned<file::Policy>) -> Option<Policy> {
        let typed = spanned.get_ref();
        if typed.queues.is_none() {
            self.fail("policy", spanned, ConfigFault::Missing("policy", "queues"));
        }
        let mut max_attempts = 0;
        self.set(
            "policy.max_attempts",
            &typed.max_attempts,
            within(Count(0), Count(u64::from(u32::MAX))),
            &mut max_attempts,
        );
        let backoff_ms = typed.backoff.as_ref().map(|steps| self.backoff(steps));
        let jitter = typed.jitter.as_ref().map(|typed| self.jitter(typed));
        let dead_letter = typed.dead_letter.as_ref().and_then(|name| self.dead_letter(name));
        // What can be told of the other keys has been told without it.
        let queues = typed.queues.as_ref().and_then(|text| self.queues(text))?;
        Some(Policy {
            queues,
            max_attempts,
            backoff_ms: backoff_ms.unwrap_or_default(),
            jitter: jitter.unwrap_or(JITTER),
            dead_letter,
        })
    }

    fn queues(&self, typed: &Spanned<String>) -> Option<Pattern> {
        // A pattern that is too long or has control characters matches no queue.
        match QueueName::new(typed.get_ref().as_bytes()) {
            Ok(_) => Some(Pattern::new(typed.get_ref())),
            Err(error) => {
                self.fail("policy.queues", typed, ConfigFault::BadQueueName(error));
                None
            }
        }
    }

    fn backoff(&self, typed: &Spanned<Durations>) -> Vec<u64> {
        let Durations(steps) = typed.get_ref();
        if steps.len() > BACKOFF_STEPS_MAX {
            let fault = ConfigFault::TooLong(BACKOFF_STEPS_MAX);
            self.fail("policy.backoff", typed, fault);
        } else if steps.iter().any(|step| *step > BACKOFF_MOST) {
            let fault = ConfigFault::TooLarge(BACKOFF_MOST.to_string());
            self.fail("policy.backoff", typed, fault);
        }
        steps.iter().map(|Millis(step)| *step).collect()
    }

    fn jitter(&self, typed: &Spanned<Share>) -> f64 {
        let Share(share) = *typed.get_ref();
        if share > 1.0 {
            self.fail("policy.jitter", typed, ConfigFault::TooLarge("1.0".to_owned()));
        }
        share
    }

    fn dead_letter(&self, typed: &Spanned<String>) -> Option<QueueName> {
        let name = typed.get_ref();
        if name.is_empty() {
            return None;
        }
        match QueueName::new(name.as_bytes()) {
            // Asked for a queue, somebody has typed a pattern: no queue of that name is meant.
            Ok(_) if name.contains('*') => {
                self.fail("policy.dead_letter", typed, ConfigFault::PatternForQueue);
                None
            }
            Ok(name) => Some(name),
            Err(error) => {
                self.fail("policy.dead_letter", typed, ConfigFault::BadQueueName(error));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{load, load_text};
    use super::super::{Args, Questionable};
    use super::*;

    #[test]
    fn a_policy_without_keys_changes_nothing_and_values_are_taken_as_typed() {
        let config = load("[[policy]]\nqueues = \"a*\"\n").unwrap();
        let first = Policy {
            queues: Pattern::new("a*"),
            max_attempts: 0,
            backoff_ms: vec![],
            jitter: 0.1,
            dead_letter: None,
        };
        assert_eq!(config.policies, Policies::new(vec![first.clone()]));
        let text = "[[policy]]\nqueues = \"a*\"\n[[policy]]\nqueues = \"mail.*\"\n\
                    max_attempts = 5\nbackoff = [\"1s\", \"1m\"]\njitter = 0\n\
                    dead_letter = \"failed\"\n";
        let second = Policy {
            queues: Pattern::new("mail.*"),
            max_attempts: 5,
            backoff_ms: vec![1_000, 60_000],
            jitter: 0.0,
            dead_letter: Some(QueueName::new(b"failed").unwrap()),
        };
        assert_eq!(load(text).unwrap().policies, Policies::new(vec![first, second]));
    }

    #[test]
    fn each_mistake_of_a_policy_is_told_with_all_others() {
        let text = "[[policy]]\nmax_attempts = 4294967296\nbackoff = [\"366d\"]\njitter = 1.5\n\
                    dead_letter = \"a*\"\n[[policy]]\nqueues = \"\"\ndead_letter = \"a\\u0007\"\n\
                    backoff = \"1s\"\n[[policy]]\nqueues = \"*\"\njitter = -1\n\
                    backoff = [\"1s\", 5]\nattempts = 3\n";
        let told = load_text(text, &Args::default()).unwrap_err();
        let told: Vec<String> = told.iter().map(ToString::to_string).collect();
        let lines: Vec<&str> = told.iter().map(|one| one.split_once(".toml:").unwrap().1).collect();
        let wanted = [
            "1: policy: the policy has no queues",
            "2: policy.max_attempts: too large, the maximum is 4294967295",
            "3: policy.backoff: too large, the maximum is 365d",
            "4: policy.jitter: too large, the maximum is 1.0",
            "5: policy.dead_letter: must name one queue: * is no pattern here",
            "7: policy.queues: ",
            "8: policy.dead_letter: ",
            "9: policy.backoff: ",
            "12: policy.jitter: ",
            "13: policy.backoff: ",
            "14: policy.attempts: unknown key, did you mean max_attempts?",
        ];
        assert_eq!(lines.len(), wanted.len(), "{lines:#?}");
        for (line, wanted) in lines.iter().zip(wanted) {
            assert!(line.starts_with(wanted), "{line:?} does not begin with {wanted:?}");
        }
        assert!(lines[7].contains("a list of durations like [\"1s\", \"10s\", \"1m\"]"));
        assert!(lines[8].contains("a number from 0 to 1"), "{}", lines[8]);
    }

    #[test]
    fn headers_of_policies_in_single_brackets_are_told() {
        let text = "[policy]\nqueues = \"a\"\n[[policy]]\nqueus = \"b\"\n[[listener]]\n\
                    protocol = \"phpmq\"\naddress = \"127.0.0.1:1\"\n";
        let told = load(text).unwrap_err();
        assert!(told.starts_with("1: policy: write [[policy]], in double brackets"), "{told}");
        assert!(told.contains("4: policy.queus: unknown key, did you mean queues?"), "{told}");
        assert!(load("policy = []\n").is_ok());
        assert!(load("policy = 1\n").unwrap_err().contains("write [[policy]] in a line"));
    }

    #[test]
    fn more_policies_than_are_looked_through_for_each_queue_are_refused() {
        let most = "[[policy]]\nqueues = \"a\"\n".repeat(POLICIES_MAX);
        assert!(load(&most).is_ok());
        let told = load(&format!("{most}[[policy]]\nqueues = \"a\"\n")).unwrap_err();
        assert!(told.contains("policy: too many, the maximum is"), "{told}");
    }

    #[test]
    fn a_policy_behind_one_for_all_queues_is_questionable() {
        let text = "[[policy]]\nqueues = \"*\"\nmax_attempts = 3\n\
                    [[policy]]\nqueues = \"mail\"\nmax_attempts = 9\n";
        let config = load(text).unwrap();
        let shadowed = Questionable::PolicyWithoutQueues {
            queues: "mail".to_owned(),
            shadowed_by: "*".to_owned(),
        };
        assert_eq!(config.questionable(), [shadowed]);
        let text = "[[policy]]\nqueues = \"mail\"\n[[policy]]\nqueues = \"*\"\n";
        assert_eq!(load(text).unwrap().questionable(), []);
    }
}
