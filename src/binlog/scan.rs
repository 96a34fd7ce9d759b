//! Goes through the records of one file.

use std::io::{self, BufReader, Read};

use super::record::{Format, Job, JobState, is_tube};
use super::replay::{BodyPlace, Replay};
use super::{Fault, FoundFile, What};

/// The longest name of a tube, in bytes.
const TUBE_BYTES_MAX: u64 = 200;
/// Bytes of the line end behind a body.
const LINE_END: &[u8; 2] = b"\r\n";
/// How far zeros behind the end of the log are looked through, in bytes: a file is made in its whole
/// length, by default 10 MiB, before anything is in it.
const BEHIND_THE_END_BYTES: u64 = 64 << 20;

/// Reads all records of a file, the `number`th of its binlog.
///
/// # Errors
/// What the system said. What is wrong with the contents goes to `faults`.
pub fn scan(
    input: impl Read,
    file: &FoundFile,
    number: usize,
    replay: &mut Replay,
    faults: &mut Vec<Fault>,
) -> io::Result<()> {
    let mut records = Records { input: BufReader::new(input), at: 0, end: file.bytes };
    let fault = |at, unread_bytes, what| Fault { file: file.path.clone(), at, unread_bytes, what };
    let Some(format) = records.format()? else {
        return Ok(());
    };
    let format = match format {
        Ok(format) => format,
        Err(version) => {
            faults.push(fault(0, file.bytes, What::Version(version)));
            return Ok(());
        }
    };
    loop {
        let begin = records.at;
        match records.next(format, number, replay)? {
            Step::Taken => {}
            Step::LeftOut(id) => faults.push(fault(begin, 0, What::Values(id))),
            Step::End => return Ok(()),
            Step::Stop(what) => {
                faults.push(fault(begin, file.bytes.saturating_sub(begin), what));
                return Ok(());
            }
        }
    }
}

/// What came of one record.
enum Step {
    Taken,
    /// Its length is sure, so that the next one can be read.
    LeftOut(u64),
    End,
    Stop(What),
}

struct Records<R> {
    input: R,
    /// Bytes read so far.
    at: u64,
    /// Bytes of the file.
    end: u64,
}

impl<R: Read> Records<R> {
    /// The format, or the version that is none; `None` for a file in which nothing was written.
    fn format(&mut self) -> io::Result<Option<Result<Format, i32>>> {
        let mut version = [0; 4];
        if !self.fill(&mut version)? {
            return Ok(None);
        }
        let version = i32::from_le_bytes(version);
        if version == 0 && self.only_zeros()? {
            return Ok(None);
        }
        Ok(Some(Format::of_version(version).ok_or(version)))
    }

    fn next(&mut self, format: Format, file: usize, replay: &mut Replay) -> io::Result<Step> {
        let mut prefix = [0; 8];
        let prefix = &mut prefix[..format.prefix_bytes()];
        if !self.fill(prefix)? {
            return self.cut_off(prefix.iter().all(|byte| *byte == 0));
        }
        let name_bytes = prefix.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        if name_bytes > TUBE_BYTES_MAX {
            return self.broken();
        }
        let mut name = [0; TUBE_BYTES_MAX as usize];
        let name = &mut name[..usize::try_from(name_bytes).unwrap_or(0)];
        let mut job = [0; 80];
        let job = &mut job[..format.job_bytes()];
        if !self.fill(name)? || !self.fill(job)? {
            return self.cut_off(name_bytes == 0 && job.iter().all(|byte| *byte == 0));
        }
        if job.iter().all(|byte| *byte == 0) {
            return match name.is_empty() {
                true if self.only_zeros()? => Ok(Step::End),
                true => Ok(Step::Stop(What::BehindTheEnd)),
                false => Ok(Step::Stop(What::Unfinished)),
            };
        }
        let Some(job) = Job::decode(job, format) else { return self.broken() };
        if name.is_empty() {
            self.short(&job, replay)
        } else {
            self.whole(name, &job, file, replay)
        }
    }

    /// A record of what became of a job.
    fn short(&mut self, job: &Job, replay: &mut Replay) -> io::Result<Step> {
        // A body never changes, so its length is as good as a checksum of where this record stands.
        let body_bytes = replay.body_bytes(job.id);
        if body_bytes.is_some_and(|bytes| bytes + 2 != i64::from(job.body_bytes)) {
            return self.broken();
        }
        if job.is_plausible() {
            replay.changed(job);
            return Ok(Step::Taken);
        }
        // All else than the state is as it should be: then so is where the record ends.
        if body_bytes.is_some() && (Job { state: JobState::Ready, ..*job }).is_plausible() {
            return Ok(Step::LeftOut(job.id));
        }
        self.broken()
    }

    /// A record of a job with its tube and its body.
    fn whole(
        &mut self,
        name: &[u8],
        job: &Job,
        file: usize,
        replay: &mut Replay,
    ) -> io::Result<Step> {
        let body_at = self.at;
        let Some(body_bytes) = u64::try_from(job.body_bytes).ok().and_then(|b| b.checked_sub(2))
        else {
            return self.broken();
        };
        if !is_tube(name) {
            return self.broken();
        }
        let mut line_end = [0; 2];
        if !self.skip(body_bytes)? || !self.fill(&mut line_end)? {
            return Ok(Step::Stop(What::Truncated));
        }
        if line_end != *LINE_END {
            // Zeros where its end would be are those of a file that is longer than its log.
            return if line_end[1] == 0 { self.broken() } else { Ok(Step::Stop(What::Lengths)) };
        }
        if !job.is_plausible() {
            return Ok(Step::LeftOut(job.id));
        }
        replay.told(name, job, BodyPlace { file, at: body_at, bytes: body_bytes });
        Ok(Step::Taken)
    }

    /// The file ends inside a record.
    fn cut_off(&self, is_empty: bool) -> io::Result<Step> {
        Ok(if is_empty { Step::End } else { Step::Stop(What::Truncated) })
    }

    /// A record is not what it can be. A file is made in its whole length before anything is in it,
    /// so that a record that was not finished has zeros in its place and behind it.
    fn broken(&mut self) -> io::Result<Step> {
        Ok(Step::Stop(if self.only_zeros()? { What::Unfinished } else { What::Lengths }))
    }

    /// Reads so many bytes; says whether there are that many. What is there of them is in `bytes`.
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<bool> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.input.read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.at += filled as u64;
        Ok(filled == bytes.len())
    }

    fn skip(&mut self, bytes: u64) -> io::Result<bool> {
        if self.at.saturating_add(bytes) > self.end {
            return Ok(false);
        }
        let skipped = io::copy(&mut self.input.by_ref().take(bytes), &mut io::sink())?;
        self.at += skipped;
        Ok(skipped == bytes)
    }

    /// Whether nothing follows that was written.
    fn only_zeros(&mut self) -> io::Result<bool> {
        let mut left = BEHIND_THE_END_BYTES;
        let mut chunk = [0; 4096];
        while left > 0 {
            let read = self.input.read(&mut chunk)?;
            if read == 0 {
                return Ok(true);
            }
            if chunk[..read].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            left = left.saturating_sub(read as u64);
        }
        Ok(true)
    }
}
