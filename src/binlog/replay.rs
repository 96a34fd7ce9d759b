//! What the records come to: the jobs that are left, each in its last state.

use std::ops::Range;

use rustc_hash::FxHashMap;

use super::record::{Job, JobState};
use crate::words::change::{MessageRow, MessageState, StateRow};
use crate::words::ids::{MessageId, QueueId, QueueName, Sequence};

/// The jobs so far.
#[derive(Debug, Default)]
pub struct Replay {
    jobs: FxHashMap<u64, Known>,
    tubes: Vec<QueueName>,
    tube_numbers: FxHashMap<QueueName, usize>,
    records: u64,
    id_max: u64,
}

/// A job that is left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub job: Job,
    pub tube: usize,
    pub body: BodyPlace,
    /// Buried: the number of the record that said so, which is its place among the buried.
    burial: u64,
}

/// Where a body stands, without its line end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BodyPlace {
    pub file: usize,
    pub at: u64,
    pub bytes: u64,
}

impl Replay {
    /// A whole record, which stands for all that was said of a job of this id before.
    pub(super) fn told(&mut self, name: &[u8], job: &Job, body: BodyPlace) {
        self.count(job);
        // Any name of a tube is one of a queue.
        let Ok(name) = QueueName::new(name) else { return };
        if job.state == JobState::Deleted {
            self.jobs.remove(&job.id);
            return;
        }
        let tube = *self.tube_numbers.entry(name).or_insert_with_key(|name| {
            self.tubes.push(name.clone());
            self.tubes.len() - 1
        });
        // A job that is written again to free an old file keeps its place among the buried.
        let before = self.jobs.get(&job.id);
        let same = before.filter(|known| known.is_buried() && known.same_burial(job));
        let burial = same.map_or(self.records, |known| known.burial);
        self.jobs.insert(job.id, Known { job: *job, tube, body, burial });
    }

    /// A record of what became of a job. Of one that was never told, it was in a file that is gone
    /// because all of its jobs were done or written again.
    pub(super) fn changed(&mut self, job: &Job) {
        self.count(job);
        if job.state == JobState::Deleted {
            self.jobs.remove(&job.id);
        } else if let Some(known) = self.jobs.get_mut(&job.id) {
            if !(known.is_buried() && known.same_burial(job)) {
                known.burial = self.records;
            }
            known.job = Job { created_ms: known.job.created_ms, ..*job };
        }
    }

    fn count(&mut self, job: &Job) {
        self.records += 1;
        self.id_max = self.id_max.max(job.id);
    }

    /// Bytes of the body of a job, without its line end.
    pub(super) fn body_bytes(&self, id: u64) -> Option<i64> {
        self.jobs.get(&id).and_then(|known| i64::try_from(known.body.bytes).ok())
    }

    /// Jobs that are left.
    pub fn jobs(&self) -> u64 {
        self.jobs.len() as u64
    }

    /// Records that were sound.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The first id that no job ever had, done ones included.
    pub(super) fn next_id(&self) -> u64 {
        self.id_max + 1
    }

    /// Every tube with a number that a queue may have, whether a job is left in it or not.
    pub(super) fn queues(&self) -> impl Iterator<Item = (QueueId, QueueName)> {
        let numbered = self.tubes.iter().enumerate();
        numbered.map(|(number, name)| (queue_id(number), name.clone()))
    }

    /// All jobs in the order in which their bodies stand in the files.
    pub(super) fn by_place(&self) -> Vec<Known> {
        let mut jobs: Vec<Known> = self.jobs.values().copied().collect();
        jobs.sort_unstable_by_key(|known| known.body);
        jobs
    }
}

fn queue_id(tube: usize) -> QueueId {
    QueueId(tube as u64 + 1)
}

/// A time to run below this is taken as this, by beanstalkd and by us, in milliseconds.
const TIME_TO_RUN_MS_MIN: u64 = 1_000;

impl Known {
    fn is_buried(&self) -> bool {
        self.job.state == JobState::Buried
    }

    fn same_burial(&self, job: &Job) -> bool {
        job.state == JobState::Buried && job.counters.buries == self.job.counters.buries
    }

    /// What is kept of it. A reserved job is ready again, at its old place.
    pub(super) fn state(&self) -> MessageState {
        match self.job.state {
            JobState::Delayed => MessageState::Delayed,
            JobState::Buried => MessageState::Buried,
            _ => MessageState::Ready,
        }
    }

    /// The rows for it.
    pub(super) fn rows(&self, body: Vec<u8>) -> (MessageRow, Option<StateRow>) {
        let job = &self.job;
        let milliseconds = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let id = MessageId(job.id);
        let state = self.state();
        let due = match state {
            MessageState::Delayed => Some(milliseconds(job.deadline_ms)),
            MessageState::Buried => Some(milliseconds(self.burial)),
            _ => None,
        };
        let message = MessageRow {
            id,
            queue: queue_id(self.tube),
            priority: job.priority,
            sequence: Sequence(job.id),
            created_ms: milliseconds(job.created_ms),
            due_ms: due.filter(|_| state == MessageState::Delayed),
            time_to_run_ms: job.time_to_run_ms.max(TIME_TO_RUN_MS_MIN),
            body: body.into(),
            ..MessageRow::default()
        };
        let row = StateRow {
            id,
            state,
            priority: job.priority,
            sequence: Sequence(job.id),
            due,
            expires_ms: None,
            delay_ms: job.delay_ms,
            counters: job.counters,
            queue: None,
            failure: None,
        };
        let is_as_put = state == MessageState::Ready
            && row.delay_ms == 0
            && row.counters == crate::words::change::Counters::default();
        (message, (!is_as_put).then_some(row))
    }
}

/// The jobs in parts of so many, with bodies of so many bytes at most unless it is one.
pub(super) fn parts(jobs: &[Known], jobs_max: usize, bytes_max: u64) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let mut first = 0;
    let mut bytes = 0;
    for (index, known) in jobs.iter().enumerate() {
        if index > first && (index - first >= jobs_max || bytes + known.body.bytes > bytes_max) {
            parts.push(first..index);
            (first, bytes) = (index, 0);
        }
        bytes += known.body.bytes;
    }
    if first < jobs.len() {
        parts.push(first..jobs.len());
    }
    parts
}
