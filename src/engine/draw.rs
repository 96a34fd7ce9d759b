//! Random numbers, and the commands that are made of them.

use crate::words::cause::Reason;
use crate::words::change::MessageState;
use crate::words::command::{
    Amount, Command, Demand, Extras, MessageRef, Options, Put, PutWith, Settlement, Sources,
    SubscriptionKey, Tag, Target, Terms, TogetherStep,
};
use crate::words::ids::QueueName;
use crate::words::key::{Key, KeyTerm, KeyedBy};
use crate::words::pattern::Pattern;
use crate::words::policy::{Policies, Policy};
use crate::words::settings::{QueueLimits, QueueSetting};
use crate::words::short_bytes::ShortBytes;
use crate::words::statistics::{QueueOrder, QueueSelection};

use super::tests::queue;

const NAMES: [&str; 5] = ["q", "r", "s", "t", "u"];

/// splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn one_in(&mut self, odds: u64) -> bool {
        self.below(odds) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }

    pub fn name(&mut self) -> QueueName {
        queue(self.pick(&NAMES))
    }

    pub fn priority(&mut self) -> Option<u32> {
        (!self.one_in(3)).then(|| self.pick(&[0, 1, 1_023, 1_024, u32::MAX]))
    }

    pub fn policies(&mut self) -> Policies {
        let patterns = ["q", "r*", "[st]", "*", "*"];
        // Sometimes none, so that both ways stay in use.
        let count = self.pick(&[0, 1, 2, 3, 3]);
        let policies = (0..count).map(|_| Policy {
            queues: Pattern::new(self.pick(&patterns)),
            max_attempts: self.pick(&[0, 1, 2, 3]),
            backoff_ms: self.pick(&[&[][..], &[300], &[1, 2_000], &[0, 500, 4_000]]).to_vec(),
            jitter: self.pick(&[0.0, 0.1, 1.0]),
            dead_letter: (!self.one_in(3)).then(|| self.name()),
        });
        Policies::new(policies.collect())
    }

    pub fn setting(&mut self) -> Command {
        let setting = match self.below(4) {
            0 => QueueSetting::Paused(true),
            1 => QueueSetting::Paused(false),
            2 => QueueSetting::Limits(QueueLimits::NONE),
            _ => QueueSetting::Limits(QueueLimits { high: 6, normal: 4, low: 2 }),
        };
        Command::Configure { queue: self.name(), setting }
    }

    /// A key of few, so that they are met again. Of those that are numbers, 0 is the first one of
    /// a connection.
    pub fn key(&mut self) -> SubscriptionKey {
        match self.below(6) {
            0..4 => SubscriptionKey::Number(self.below(3)),
            4 => SubscriptionKey::Bytes(ShortBytes::from(self.pick(&[&b""[..], b"one", &[7; 40]]))),
            _ => SubscriptionKey::Queue,
        }
    }

    /// A subscription of any kind comes, changes or goes.
    pub fn subscription(&mut self) -> Command {
        let (key, queue) = (self.key(), self.name());
        if self.one_in(3) {
            return Command::Unsubscribe { key, queue, keep_last: self.one_in(2) };
        }
        use Demand::{OnRequest, WakeUp, Window};
        let options = Options {
            demand: self.pick(&[OnRequest, WakeUp, Window(1), Window(3), Window(30)]),
            settlement: self.settlement(),
            terms: self.terms(),
            tag: self.pick(&[None, Some(1), Some(2)]).map_or(Tag::None, Tag::Code),
        };
        Command::Subscribe { key, queue, options }
    }

    fn settlement(&mut self) -> Settlement {
        self.pick(&[Settlement::ByConsumer, Settlement::ByConsumer, Settlement::WhenSent])
    }

    fn terms(&mut self) -> Terms {
        use Terms::{AckTimeout, Given, MessageTimeToRun, Unlimited};
        self.pick(&[MessageTimeToRun, Given(250), AckTimeout, Unlimited])
    }

    /// How much a reserve takes, in total at most so many.
    pub fn amount(&mut self, most: u32) -> Amount {
        match self.below(4) {
            0 => Amount::Each(self.pick(&[1, 1, 2])),
            1 => Amount::Total(self.pick(&[2, most])),
            _ => Amount::Total(1),
        }
    }

    /// A reserve that names its queues itself, some of them more than once.
    pub fn reserve_once(&mut self) -> Command {
        let names = (0..1 + self.below(4)).map(|_| self.name()).collect();
        let (settlement, terms) = (self.settlement(), self.terms());
        self.reserve(Sources::Queues { names, settlement, terms })
    }

    /// A reserve from any subscription.
    pub fn reserve_from(&mut self) -> Command {
        let from = Sources::Subscription(self.key());
        self.reserve(from)
    }

    fn reserve(&mut self, from: Sources) -> Command {
        Command::Reserve {
            from,
            refuse_if_holding: self.one_in(2),
            timeout_ms: self.pick(&[None, Some(0), Some(200), Some(3_000)]),
            amount: self.amount(5),
        }
    }

    /// A put as it is, or a volatile one, or one with a key.
    pub fn with_extras(&mut self, put: Put) -> Command {
        if self.one_in(2) {
            return Command::Put(put);
        }
        let is_volatile = self.one_in(2);
        let keyed = if self.one_in(3) { None } else { Some(self.keyed()) };
        Command::PutWith(Box::new(PutWith { put, extras: Extras { keyed, is_volatile } }))
    }

    fn keyed(&mut self) -> KeyedBy {
        let term = match self.below(3) {
            0 => KeyTerm::UntilTaken,
            1 => KeyTerm::UntilDone,
            _ => KeyTerm::For(self.millis(9_000)),
        };
        KeyedBy { key: self.dedup_key(), term }
    }

    /// One to four steps as a whole.
    pub fn together(&mut self, mut message: impl FnMut(&mut Random) -> MessageRef) -> Command {
        let steps = (0..1 + self.below(4)).map(|_| match self.below(8) {
            0..4 => {
                let queue = self.name();
                let put = Put {
                    priority: self.priority(),
                    time_to_run_ms: Some(self.millis(5_000)),
                    time_to_live_ms: self.one_in(3).then(|| self.millis(8_000)),
                    ..Put::new(Target::Named(queue), vec![b'x'; 3])
                };
                match self.with_extras(put) {
                    Command::PutWith(with) => TogetherStep::Put(*with),
                    Command::Put(put) => {
                        TogetherStep::Put(PutWith { put, extras: Extras::default() })
                    }
                    other => panic!("{other:?} is no put"),
                }
            }
            4 | 5 => TogetherStep::Acknowledge(message(self)),
            6 if self.one_in(2) => {
                TogetherStep::Fail { message: message(self), reason: self.reason() }
            }
            6 => TogetherStep::Bury { message: message(self), priority: self.priority() },
            _ => TogetherStep::Release {
                message: message(self),
                priority: self.priority(),
                delay_ms: self.pick(&[0, 0, 700]),
            },
        });
        Command::Together(steps.collect())
    }

    pub fn selection(&mut self) -> QueueSelection {
        use QueueOrder::{Buried, Bytes, Messages, Name, Oldest, Ready};
        QueueSelection {
            pattern: self.pick(&[None, Some("*"), Some("q*")]).map(Box::from),
            has: self.pick(&[&[][..], &[MessageState::Ready, MessageState::Buried]]).to_vec(),
            order: self.pick(&[Name, Ready, Buried, Messages, Bytes, Oldest]),
            after: None,
            count: self.pick(&[1, 3, 1_000]),
        }
    }

    pub fn find_key(&mut self) -> Command {
        let queue = self.one_in(2).then(|| self.name());
        Command::FindKey { queue, key: self.dedup_key() }
    }

    fn dedup_key(&mut self) -> Key {
        Key::new(self.pick(&[&b"a"[..], b"b", b"\0", &[7; 64]])).unwrap()
    }

    pub fn reason(&mut self) -> Option<Reason> {
        (!self.one_in(3)).then(|| Reason::new(self.pick(&[&b"no such host"[..], b"\n"])))
    }

    pub fn millis(&mut self, most: u64) -> u64 {
        1 + self.below(most)
    }
}
