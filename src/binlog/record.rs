//! A record: what it is made of in each version of the format.
//!
//! ```text
//!   version 7 (1.5 to 1.13), 64 bits     version 5 (1.4.x)
//!     4  bytes of the name, 0 = short      8  the same
//!        the tube's name                      the same
//!    80  job: id 8, priority 4, - 4,      77  the same in microseconds, without the last 3 bytes
//!        delay 8, time to run 8,
//!        bytes of the body 4, - 4,
//!        created 8, deadline 8,
//!        reserves 4, timeouts 4,
//!        releases 4, buries 4, kicks 4,
//!        state 1, - 3; times in nanoseconds
//!        the body with its line end           the same
//! ```
//!
//! Name and body stand in a whole record alone. `-` is padding.

use crate::words::change::Counters;

/// A version of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// That of 1.4.x.
    Five,
    /// That of 1.5 to 1.13.
    Seven,
}

impl Format {
    /// The format that a file of this version has.
    pub fn of_version(version: i32) -> Option<Format> {
        match version {
            5 => Some(Format::Five),
            7 => Some(Format::Seven),
            _ => None,
        }
    }

    /// Bytes before the name.
    pub fn prefix_bytes(self) -> usize {
        match self {
            Format::Five => 8,
            Format::Seven => 4,
        }
    }

    /// Bytes of the job itself.
    pub fn job_bytes(self) -> usize {
        match self {
            Format::Five => 77,
            Format::Seven => 80,
        }
    }

    fn units_per_ms(self) -> u64 {
        match self {
            Format::Five => 1_000,
            Format::Seven => 1_000_000,
        }
    }
}

/// What a record says of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its id; 0 is no job.
    pub id: u64,
    /// Its priority.
    pub priority: u32,
    /// The delay that it was last given.
    pub delay_ms: u64,
    /// How long a reservation lasts.
    pub time_to_run_ms: u64,
    /// Bytes of its body with the line end.
    pub body_bytes: i32,
    /// When it was put, since 1970.
    pub created_ms: u64,
    /// When it is ready if it is delayed, since 1970.
    pub deadline_ms: u64,
    /// What happened to it.
    pub counters: Counters,
    /// Its state.
    pub state: JobState,
}

/// The states that a record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// 0
    Deleted,
    /// 1
    Ready,
    /// 2
    Reserved,
    /// 3
    Buried,
    /// 4
    Delayed,
    /// Any other number.
    Unknown,
}

/// The longest delay and time to run of the protocol, in milliseconds.
const DURATION_MS_MAX: u64 = u32::MAX as u64 * 1_000;
/// The last moment that the format can hold, in milliseconds: its nanoseconds have a sign.
const MOMENT_MS_MAX: u64 = i64::MAX as u64 / 1_000_000;
/// Far beyond what a beanstalkd can have handed out, and far below what the database can hold.
const ID_MAX: u64 = 1 << 56;

impl Job {
    /// Reads a job; the bytes are as many as the format has.
    pub fn decode(bytes: &[u8], format: Format) -> Option<Job> {
        let mut rest = Fields(bytes);
        let id = rest.u64()?;
        let priority = rest.u32()?;
        rest.skip(4)?;
        let milliseconds = |units: u64| units / format.units_per_ms();
        let delay_ms = milliseconds(rest.u64()?);
        let time_to_run_ms = milliseconds(rest.u64()?);
        let body_bytes = i32::from_le_bytes(rest.take()?);
        rest.skip(4)?;
        let created_ms = milliseconds(rest.u64()?);
        let deadline_ms = milliseconds(rest.u64()?);
        let counters = Counters {
            reserves: rest.u32()?,
            timeouts: rest.u32()?,
            releases: rest.u32()?,
            buries: rest.u32()?,
            kicks: rest.u32()?,
        };
        let state = match rest.take::<1>()?[0] {
            0 => JobState::Deleted,
            1 => JobState::Ready,
            2 => JobState::Reserved,
            3 => JobState::Buried,
            4 => JobState::Delayed,
            _ => JobState::Unknown,
        };
        Some(Job {
            id,
            priority,
            delay_ms,
            time_to_run_ms,
            body_bytes,
            created_ms,
            deadline_ms,
            counters,
            state,
        })
    }

    /// Whether a beanstalkd can have written it.
    pub fn is_plausible(&self) -> bool {
        (1..=ID_MAX).contains(&self.id)
            && self.state != JobState::Unknown
            && self.delay_ms <= DURATION_MS_MAX
            && self.time_to_run_ms <= DURATION_MS_MAX
            && self.created_ms <= MOMENT_MS_MAX
            && self.deadline_ms <= MOMENT_MS_MAX
    }
}

/// Whether beanstalkd takes this as the name of a tube.
pub fn is_tube(name: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-+/;.$_()".contains(byte);
    !name.is_empty() && name[0] != b'-' && name.iter().all(allowed)
}

/// Numbers as they stand one behind the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.get(bytes..)?;
        Some(())
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}
