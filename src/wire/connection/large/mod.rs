//! Large frames: each is admitted before it is read, and gives its place up when it stalls.
//!
//! ```text
//!   first bytes ──► in line ──room──► admitted ──whole──► done
//!                      │                 │  ▲ more came
//!                      │ no room in time │  └─────────┐
//!                      ▼                 ▼ stalls     │ who cannot be told
//!                   refused, the rest is skipped   stalled
//! ```

use std::sync::Arc;

use super::{End, RequestReader, Watch};
use crate::channels::Event;
use crate::wire::admission::{Frame, Outlook};
use crate::words::clock::Time;
use crate::words::limits::{
    BODY_REST_BYTES_MIN, FRAME_PACE_MS, FRAME_UNADMITTED_BYTES, MESSAGE_OVERHEAD_BYTES,
    NO_ROOM_WAIT_MS, ROOM_PAUSE_MS,
};
use crate::words::refusal::Refusal;

/// How fast an admitted frame comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    since: Time,
    missing: u64,
}

impl RequestReader {
    /// Whether so much is missing of an admitted body that it is read straight to its place.
    pub(super) fn is_in_large_body(&mut self) -> bool {
        self.ticket.is_some()
            && self
                .connection
                .decoder
                .rest()
                .is_some_and(|rest| rest.missing >= BODY_REST_BYTES_MIN)
    }

    /// Whether a large body must not be read faster than a little at a time.
    pub(super) fn is_unadmitted(&mut self) -> bool {
        self.pending_bytes > 0
            && self.ticket.is_none()
            && self
                .connection
                .decoder
                .rest()
                .is_some_and(|rest| rest.missing >= BODY_REST_BYTES_MIN)
    }

    /// Waits for a place where a large frame has begun, and looks after it where it has one.
    pub(super) fn admit_frame(&mut self) -> Result<(), End> {
        // The start of a frame is little, and whether more follows shows who means it.
        if self.pending_bytes < FRAME_UNADMITTED_BYTES || self.stalled {
            return Ok(());
        }
        let Some(frame) = self.frame() else { return Ok(()) };
        if self.ticket.is_none() {
            let now = self.now();
            let (admission, gate) = (&self.connection.shared.admission, &self.connection.gate);
            self.ticket = Some(admission.enter(frame, gate, now));
        }
        if !self.is_admitted() {
            self.held_up(|reader| reader.await_admission(frame))?;
        } else if !self.keeps_pace(frame) {
            return self.lose_place(frame);
        }
        if self.lacks_room(frame) {
            self.held_up(|reader| reader.wait_for_memory(frame))
        } else {
            Ok(())
        }
    }

    /// Waits for room. Meanwhile no round waits for the end of this connection: nothing is read.
    fn held_up(
        &mut self,
        wait: impl FnOnce(&mut RequestReader) -> Result<(), End>,
    ) -> Result<(), End> {
        let gate = Arc::clone(&self.connection.gate);
        gate.note_waits_for_room(true);
        // A turn of the dispatcher notes which of the waiting peers hold messages, and which peers
        // that have hung up it waits for: have it turn once now.
        let _ = self.connection.shared.events.try_send(Event::Ping);
        let result = wait(self);
        gate.note_waits_for_room(false);
        result
    }

    /// The frame that is not whole, if what is missing of it is worth a place.
    fn frame(&mut self) -> Option<Frame> {
        let connection = self.connection.id;
        let (decoder, pending) = (&mut self.connection.decoder, self.pending_bytes);
        let can_be_refused = decoder.can_be_refused();
        let has_more = decoder.has_more();
        let (there, missing) = match decoder.rest().filter(|rest| rest.missing > 0) {
            Some(rest) => (rest.bytes.len(), rest.missing),
            // Between two pieces: another byte is to come at least.
            None if has_more => (pending, 1),
            None => return None,
        };
        let whole = (there + missing) as u64 + MESSAGE_OVERHEAD_BYTES;
        Some(Frame { connection, whole, missing: missing as u64, can_be_refused })
    }

    fn is_admitted(&self) -> bool {
        self.ticket.as_ref().is_some_and(|ticket| ticket.is_admitted())
    }

    /// Waits for a place. A frame whose sender can be told is refused when that takes too long.
    fn await_admission(&mut self, frame: Frame) -> Result<(), End> {
        let began = self.now();
        let limit = self.connection.shared.limits.frame_timeout_ms();
        let mut without_room = None;
        loop {
            let now = self.now();
            let Some(ticket) = &mut self.ticket else { return Ok(()) };
            let outlook = ticket.look(now);
            let waited = now.since(began);
            let room_waited = match outlook {
                Outlook::Admitted => break,
                Outlook::Waits => 0,
                _ => now.since(*without_room.get_or_insert(now)),
            };
            let admission = &self.connection.shared.admission;
            let is_full = outlook != Outlook::Waits && admission.is_full(true);
            let is_late = waited >= limit || room_waited >= NO_ROOM_WAIT_MS.min(limit / 2);
            let refusal = if frame.whole > self.largest_whole() {
                Some(Refusal::TooLarge)
            } else if frame.can_be_refused && (outlook == Outlook::Full || is_full || is_late) {
                admission.note_refused(frame);
                Some(Refusal::OutOfMemory)
            } else {
                None
            };
            if let Some(refusal) = refusal {
                self.extend_deadlines(began);
                return self.refuse_frame(refusal);
            }
            if (outlook == Outlook::HoldsUpItself && waited >= limit) || self.is_frame_late(now) {
                return Err(NO_ROOM);
            }
            self.pause_for_room()?;
        }
        if !self.was_stalled {
            self.extend_deadlines(began);
        }
        self.pace = None;
        Ok(())
    }

    /// What a frame may need at most, in bytes: limits may have changed since it began.
    fn largest_whole(&self) -> u64 {
        // Some protocols end a body with a line end of two bytes.
        self.connection.shared.limits.body_bytes_max() as u64 + MESSAGE_OVERHEAD_BYTES + 2
    }

    /// Whether a frame that lost its place once is over its time: waiting is no excuse any more.
    fn is_frame_late(&mut self, now: Time) -> bool {
        self.was_stalled && self.is_over(self.frame_deadline(), now)
    }

    /// Whether an admitted frame comes fast enough to be whole in time. It matters only while
    /// others wait.
    fn keeps_pace(&mut self, frame: Frame) -> bool {
        let now = self.now();
        let limit = self.connection.shared.limits.frame_timeout_ms();
        let pace = *self.pace.get_or_insert(Pace { since: now, missing: frame.missing });
        let passed = now.since(pace.since);
        if passed < FRAME_PACE_MS.min(limit / 4) {
            return true;
        }
        self.pace = Some(Pace { since: now, missing: frame.missing });
        let came = pace.missing.saturating_sub(frame.missing);
        let due = u128::from(frame.whole) * u128::from(passed) / u128::from(limit.max(1));
        u128::from(came) >= due || !self.connection.shared.admission.is_waited_for()
    }

    /// How long an admitted frame may be without anything until it is looked at again.
    pub(super) fn pace_deadline(&self) -> Option<Time> {
        let limit = self.connection.shared.limits.frame_timeout_ms();
        let window = FRAME_PACE_MS.min(limit / 4);
        self.pace.filter(|_| self.ticket.is_some()).map(|pace| pace.since.plus(window))
    }

    /// Gives the place of a stalled frame to others.
    fn lose_place(&mut self, frame: Frame) -> Result<(), End> {
        if frame.can_be_refused {
            return self.refuse_frame(Refusal::OutOfMemory);
        }
        // It stands in line anew when more of it has come.
        self.leave_line();
        (self.stalled, self.was_stalled) = (true, true);
        Ok(())
    }

    /// Whether what has arrived fills the memory, so that an admitted frame cannot go on.
    fn lacks_room(&self, frame: Frame) -> bool {
        let admission = &self.connection.shared.admission;
        self.ticket.is_some() && admission.is_full(frame.can_be_refused)
    }

    /// Waits until there is room again, or refuses the frame.
    fn wait_for_memory(&mut self, frame: Frame) -> Result<(), End> {
        let began = self.now();
        let limit = self.connection.shared.limits.frame_timeout_ms();
        while self.lacks_room(frame) {
            if frame.can_be_refused {
                return self.refuse_frame(Refusal::OutOfMemory);
            }
            if self.now().since(began) >= limit {
                return Err(NO_ROOM);
            }
            self.pause_for_room()?;
        }
        Ok(())
    }

    /// Waits a moment, or until the gate is rung.
    pub(super) fn pause_for_room(&mut self) -> Result<(), End> {
        if self.stopping() {
            return Err(End::Stopped);
        }
        if self.connection.transport.has_ended() {
            // The rest of the frame will never come.
            return Err(End::EndOfFile);
        }
        let wake = self.connection.gate.wake().map_err(End::Reset)?;
        let mut watch = Watch::new(true);
        watch.wait(&self.connection.transport, &wake, Some(ROOM_PAUSE_MS)).map_err(End::Reset)?;
        self.connection.gate.quiet();
        Ok(())
    }

    /// The system has no memory for what has arrived: the frame is refused, or tries again.
    pub(super) fn do_without_room(&mut self) -> Result<(), End> {
        if self.connection.decoder.can_be_refused() {
            return self.refuse_frame(Refusal::OutOfMemory);
        }
        self.check_deadlines(self.now())?;
        self.pause_for_room()
    }

    /// Has the frame refused: what came of it is dropped and what comes is skipped.
    pub(super) fn refuse_frame(&mut self, refusal: Refusal) -> Result<(), End> {
        self.connection.decoder.refuse(refusal, &mut self.requests);
        let now = self.now();
        self.note_pending(now, false);
        self.leave_line();
        self.send()
    }

    /// The frame is whole, or is given up.
    pub(super) fn leave_line(&mut self) {
        self.ticket = None;
        self.pace = None;
        (self.stalled, self.was_stalled) = (false, false);
    }
}

const NO_ROOM: End = End::TimedOut("no room in limits.max_memory for the rest of a frame");

#[cfg(test)]
mod tests;
