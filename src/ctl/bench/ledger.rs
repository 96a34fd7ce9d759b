//! Message bodies that say who sent them, and a ledger of what has come: each once, in order.

use super::fault::Fault;

/// What a body begins with, in bytes: run (4), producer (4), number (8), due time (8).
pub const STAMP_BYTES: usize = 24;
/// Faults that are told in words; the others are only counted.
const FAULTS_TOLD_MAX: usize = 5;
/// A number beyond this is damage, not a message that was sent.
const NUMBER_MAX: u64 = 1 << 34;

/// Who sent a message, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The connection that sent it.
    pub producer: u32,
    /// Its number there, from 0.
    pub number: u64,
    /// When it was to be sent, in microseconds of the monotonic clock.
    pub due_us: u64,
}

/// Makes the bodies of a run and knows them again.
#[derive(Clone, Debug)]
pub struct Bodies {
    run: u32,
    filler: Vec<u8>,
}

impl Bodies {
    /// Bodies of `size` bytes, at least [`STAMP_BYTES`].
    pub fn new(run: u32, size: usize) -> Bodies {
        let filler = (0..size.saturating_sub(STAMP_BYTES)).map(|at| b'a' + (at % 26) as u8);
        Bodies { run, filler: filler.collect() }
    }

    /// Appends a body.
    pub fn write(&self, stamp: Stamp, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.run.to_be_bytes());
        out.extend_from_slice(&stamp.producer.to_be_bytes());
        out.extend_from_slice(&stamp.number.to_be_bytes());
        out.extend_from_slice(&stamp.due_us.to_be_bytes());
        out.extend_from_slice(&self.filler);
    }

    /// Reads a body; `None` when it is none of this run or was changed.
    pub fn read(&self, body: &[u8]) -> Option<Stamp> {
        let (run, rest) = body.split_first_chunk::<4>()?;
        let (producer, rest) = rest.split_first_chunk::<4>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (due_us, rest) = rest.split_first_chunk::<8>()?;
        (u32::from_be_bytes(*run) == self.run && rest == self.filler).then(|| Stamp {
            producer: u32::from_be_bytes(*producer),
            number: u64::from_be_bytes(*number),
            due_us: u64::from_be_bytes(*due_us),
        })
    }
}

/// What one thread's connections have received.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By producer, a bit for each number.
    seen: Vec<Vec<u64>>,
    wrong: u64,
    told: Vec<String>,
}

impl Ledger {
    /// Enters a message. `last` is what its receiver keeps of each producer.
    pub fn enter(&mut self, bodies: &Bodies, body: &[u8], last: &mut LastSeen) -> Option<Stamp> {
        let stamp = bodies.read(body);
        let Some(stamp) = stamp.filter(|s| s.number < NUMBER_MAX && s.producer < 1 << 20) else {
            self.complain(format!("a body of {} bytes is not from this run", body.len()));
            return None;
        };
        let Stamp { producer, number, .. } = stamp;
        if self.mark(producer as usize, number) {
            self.complain(format!("message {number} of producer {producer} was delivered twice"));
        }
        if !last.is_next(producer as usize, number) {
            self.complain(format!(
                "message {number} of producer {producer} was delivered out of order"
            ));
        }
        Some(stamp)
    }

    /// Marks it as seen; whether it was already.
    fn mark(&mut self, producer: usize, number: u64) -> bool {
        if self.seen.len() <= producer {
            self.seen.resize_with(producer + 1, Vec::new);
        }
        let (word, bit) = ((number / 64) as usize, 1_u64 << (number % 64));
        let words = &mut self.seen[producer];
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        let before = words[word] & bit != 0;
        words[word] |= bit;
        before
    }

    /// Adds what another thread has received.
    pub fn add(&mut self, other: Ledger) {
        for (producer, words) in other.seen.into_iter().enumerate() {
            if self.seen.len() <= producer {
                self.seen.resize_with(producer + 1, Vec::new);
            }
            let mine = &mut self.seen[producer];
            if mine.len() < words.len() {
                mine.resize(words.len(), 0);
            }
            let mut twice = 0;
            for (mine, theirs) in mine.iter_mut().zip(words) {
                twice += u64::from((*mine & theirs).count_ones());
                *mine |= theirs;
            }
            if twice > 0 {
                self.wrong += twice - 1;
                self.complain(format!(
                    "{twice} messages of producer {producer} was delivered twice"
                ));
            }
        }
        self.wrong += other.wrong;
        self.told.extend(other.told);
    }

    /// At the end: whether all that was sent, by producer, has come.
    pub fn settle(&mut self, sent: &[u64]) {
        for (producer, sent) in sent.iter().enumerate() {
            let words = self.seen.get(producer).map_or(&[][..], Vec::as_slice);
            let came: u64 = words.iter().map(|word| u64::from(word.count_ones())).sum();
            if came < *sent {
                self.wrong += *sent - came - 1;
                self.complain(format!("{} messages of producer {producer} are lost", sent - came));
            }
        }
    }

    /// Counts a fault and keeps its words.
    pub fn complain(&mut self, what: String) {
        self.wrong += 1;
        self.told.push(what);
        self.told.truncate(FAULTS_TOLD_MAX);
    }

    /// How many faults, and the first of them in words.
    pub fn wrong(&self) -> (u64, &[String]) {
        (self.wrong, &self.told)
    }
}

/// The last number that one receiver has seen of each producer.
#[derive(Debug, Default)]
pub struct LastSeen(Vec<u64>);

impl LastSeen {
    /// Takes the next number; whether it is higher than the last one.
    fn is_next(&mut self, producer: usize, number: u64) -> bool {
        if self.0.len() <= producer {
            self.0.resize(producer + 1, 0);
        }
        // One more than the number, so that 0 is none.
        let before = std::mem::replace(&mut self.0[producer], number + 1);
        number + 1 > before
    }
}

/// Decimal digits without the formatting machinery.
pub fn push_number(number: u64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut left = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// A decimal number of at most 19 digits.
///
/// # Errors
/// It is none.
pub fn number_of(digits: &[u8]) -> Result<u64, Fault> {
    if digits.is_empty() || digits.len() > 19 {
        return Err(Fault::Frame("a number has no digits or too many"));
    }
    digits.iter().try_fold(0_u64, |number, digit| match digit {
        b'0'..=b'9' => Ok(number * 10 + u64::from(digit - b'0')),
        _ => Err(Fault::Frame("a number has other characters than digits")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(bodies: &Bodies, producer: u32, number: u64) -> Vec<u8> {
        let mut out = Vec::new();
        bodies.write(Stamp { producer, number, due_us: 7 }, &mut out);
        out
    }

    #[test]
    fn a_body_comes_back_as_its_stamp_unless_it_was_changed() {
        let bodies = Bodies::new(9, 100);
        let mut made = body(&bodies, 3, 12);
        assert_eq!(made.len(), 100);
        assert_eq!(bodies.read(&made), Some(Stamp { producer: 3, number: 12, due_us: 7 }));
        made[99] ^= 1;
        assert_eq!(bodies.read(&made), None);
        assert_eq!(Bodies::new(8, 100).read(&body(&bodies, 3, 12)), None);
    }

    #[test]
    fn lost_doubled_and_disordered_messages_are_found() {
        let bodies = Bodies::new(1, 24);
        let (mut ledger, mut last) = (Ledger::default(), LastSeen::default());
        for number in [0, 1, 3, 2, 2] {
            ledger.enter(&bodies, &body(&bodies, 0, number), &mut last);
        }
        let (wrong, told) = ledger.wrong();
        // 2 is out of order, then doubled and, behind itself, out of order again.
        assert_eq!(wrong, 3, "{told:?}");
        ledger.settle(&[6]);
        assert_eq!(ledger.wrong().0, 5);
    }

    #[test]
    fn a_message_that_two_threads_received_is_found() {
        let bodies = Bodies::new(1, 24);
        let (mut one, mut other) = (Ledger::default(), Ledger::default());
        for (ledger, numbers) in [(&mut one, [0, 70]), (&mut other, [1, 70])] {
            let mut last = LastSeen::default();
            for number in numbers {
                ledger.enter(&bodies, &body(&bodies, 0, number), &mut last);
            }
        }
        one.add(other);
        assert_eq!(one.wrong().0, 1);
    }

    #[test]
    fn numbers_are_written_and_read() {
        for number in [0, 7, 10, 12_345_678_901] {
            let mut out = Vec::new();
            push_number(number, &mut out);
            assert_eq!(number_of(&out).unwrap(), number);
        }
        assert!(number_of(b"1x").is_err());
        assert!(number_of(b"").is_err());
    }
}
