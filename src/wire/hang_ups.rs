//! Which peers have hung up, for all connections with one system call.
//!
//! The dispatcher owns this. A peer's end reaches the socket before anything that the same program
//! does afterwards reaches another one, but the thread that reads the first may report it later
//! than another thread reports the second. Asking this set in between puts them into order.
//!
//! Connections stand in one epoll set, for their end only: what peers send costs no event, and asking
//! the set costs a tenth of a microsecond however many they are. But taking a connection into the
//! set and out of it costs more than all else that is done for a peer which connects, says one thing
//! and closes. So the youngest connections are asked one by one, and taken into the set only when
//! they stay.
//!
//! Failure: a socket that the system does not take into the set (no memory, or
//! `/proc/sys/fs/epoll/max_user_watches` is reached) is served like any other; only its end may be
//! seen later than what another peer does next.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};

use crate::channels::transport::Transport;
use crate::words::ids::ConnectionId;

/// Ends that one system call reports at most.
const REPORTS_MAX: usize = 64;
/// Connections that are asked one by one at most.
const YOUNG_MAX: usize = 16;
/// How often a young connection is asked before it is taken into the set.
const YOUNG_ASKS: u32 = 8;

/// The connections whose peers have not been reported to have hung up.
#[derive(Debug)]
pub struct HangUps {
    set: OwnedFd,
    /// The oldest first.
    young: VecDeque<Young>,
}

#[derive(Debug)]
struct Young {
    connection: ConnectionId,
    transport: Arc<Transport>,
    asks_left: u32,
}

impl HangUps {
    /// Nobody.
    ///
    /// # Errors
    /// No descriptor or memory is left.
    pub fn new() -> io::Result<HangUps> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(HangUps { set, young: VecDeque::with_capacity(YOUNG_MAX) })
    }

    /// Takes a connection in; its end is reported once, also when it has come already.
    pub fn watch(&mut self, connection: ConnectionId, transport: Arc<Transport>) {
        if self.young.len() == YOUNG_MAX
            && let Some(oldest) = self.young.pop_front()
        {
            self.take_into_set(&oldest);
        }
        self.young.push_back(Young { connection, transport, asks_left: YOUNG_ASKS });
    }

    /// Lets a connection go whose end is known. From the set it goes when its socket is closed.
    pub fn forget(&mut self, connection: ConnectionId) {
        self.young.retain(|young| young.connection != connection);
    }

    /// Adds the connections whose peers have closed their sending side, or are gone, since the last
    /// call. What such a peer sent before may still be unread.
    pub fn take(&mut self, found: &mut Vec<ConnectionId>) {
        let mut room = [MaybeUninit::uninit(); REPORTS_MAX];
        loop {
            // An interrupted call has lost nothing: the next turn asks again.
            let Ok((reports, _)) = epoll::wait(&self.set, &mut room[..], Some(&AT_ONCE)) else {
                return;
            };
            found.extend(reports.iter().map(|report| ConnectionId(report.data.u64())));
            if reports.len() < REPORTS_MAX {
                break;
            }
        }
        if !self.young.is_empty() {
            self.ask_young(found);
        }
    }

    fn ask_young(&mut self, found: &mut Vec<ConnectionId>) {
        let transports = self.young.iter().map(|young| &young.transport);
        let mut asked: Vec<PollFd<'_>> =
            transports.map(|transport| PollFd::new(transport, PollFlags::RDHUP)).collect();
        if poll(&mut asked, Some(&AT_ONCE)).is_err() {
            return;
        }
        let have_ended: Vec<bool> = asked.iter().map(|young| !young.revents().is_empty()).collect();
        for has_ended in have_ended {
            let Some(mut young) = self.young.pop_front() else { return };
            young.asks_left -= 1;
            if has_ended {
                found.push(young.connection);
            } else if young.asks_left == 0 {
                self.take_into_set(&young);
            } else {
                self.young.push_back(young);
            }
        }
    }

    fn take_into_set(&self, young: &Young) {
        // HUP and ERR are reported whether they are asked for or not.
        let interest = epoll::EventFlags::RDHUP | epoll::EventFlags::ONESHOT;
        let data = epoll::EventData::new_u64(young.connection.0);
        // What the system does not take is served all the same, see above.
        let _ = epoll::add(&self.set, &*young.transport, data, interest);
    }
}

const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Shutdown;

    use rustix::net::{RecvFlags, recv};
    use socket2::{Domain, Socket, Type};

    /// So many connections, numbered from 1: ours and theirs.
    fn watched(hang_ups: &mut HangUps, count: u64) -> Vec<(Arc<Transport>, Option<Socket>)> {
        let mut pairs = Vec::new();
        for number in 1..=count {
            let (ours, theirs) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
            let ours = Arc::new(Transport::plain(ours));
            hang_ups.watch(ConnectionId(number), ours.clone());
            pairs.push((ours, Some(theirs)));
        }
        pairs
    }

    /// Ends their side at once. Dropping the socket alone may end it later: another test that starts
    /// a process at this moment lends that process a copy of every descriptor until it runs.
    fn hang_up(theirs: &mut Option<Socket>) {
        theirs.take().unwrap().shutdown(Shutdown::Both).unwrap();
    }

    fn take(hang_ups: &mut HangUps) -> Vec<u64> {
        let mut found = Vec::new();
        hang_ups.take(&mut found);
        found.sort_unstable();
        found.iter().map(|connection| connection.0).collect()
    }

    /// Young ones, some that were pushed out of their place, and ones that have been asked often.
    const AGES: [(u64, u32); 4] = [(3, 0), (3, 3), (3, YOUNG_ASKS), (2 * YOUNG_MAX as u64, 0)];

    #[test]
    fn an_end_is_reported_once_and_what_is_sent_is_not() {
        for (count, asks) in AGES {
            let mut hang_ups = HangUps::new().unwrap();
            let mut pairs = watched(&mut hang_ups, count);
            for _ in 0..asks {
                assert!(take(&mut hang_ups).is_empty());
            }
            for (_, theirs) in &pairs {
                theirs.as_ref().unwrap().send(b"x").unwrap();
            }
            assert!(take(&mut hang_ups).is_empty());
            pairs[1].1.as_ref().unwrap().shutdown(Shutdown::Write).unwrap();
            hang_up(&mut pairs[2].1);
            assert_eq!(take(&mut hang_ups), [2, 3]);
            hang_up(&mut pairs[1].1);
            assert!(take(&mut hang_ups).is_empty());
            // What was sent before the end is still there to be read.
            assert_eq!(recv(&pairs[1].0, &mut [0_u8; 8][..], RecvFlags::empty()), Ok((1, 1)));
            pairs
                .iter_mut()
                .filter(|(_, theirs)| theirs.is_some())
                .for_each(|pair| hang_up(&mut pair.1));
            assert_eq!(take(&mut hang_ups).len() as u64, count - 2);
        }
    }

    #[test]
    fn an_end_from_before_the_watch_and_a_reset_are_reported() {
        for asks in [0, YOUNG_ASKS] {
            let mut hang_ups = HangUps::new().unwrap();
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let theirs = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (ours, _) = listener.accept().unwrap();
            let ours = Arc::new(Transport::plain(ours.into()));
            hang_ups.watch(ConnectionId(1), ours.clone());
            for _ in 0..asks {
                assert!(take(&mut hang_ups).is_empty());
            }
            rustix::net::connect_unspec(&theirs).unwrap();
            assert_eq!(take(&mut hang_ups), [1]);

            let (ours, theirs) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
            hang_up(&mut Some(theirs));
            hang_ups.watch(ConnectionId(2), Arc::new(Transport::plain(ours)));
            assert_eq!(take(&mut hang_ups), [2]);
        }
    }

    #[test]
    fn more_ends_than_one_call_reports_are_all_found() {
        let mut hang_ups = HangUps::new().unwrap();
        let count = 2 * REPORTS_MAX as u64 + YOUNG_MAX as u64;
        let mut pairs = watched(&mut hang_ups, count);
        pairs.iter_mut().for_each(|(_, theirs)| hang_up(theirs));
        assert_eq!(take(&mut hang_ups), (1..=count).collect::<Vec<_>>());
        assert!(take(&mut hang_ups).is_empty());
    }

    #[test]
    fn who_is_forgotten_is_neither_reported_nor_kept_open() {
        let mut hang_ups = HangUps::new().unwrap();
        let mut pairs = watched(&mut hang_ups, 2);
        hang_ups.forget(ConnectionId(1));
        assert_eq!(Arc::strong_count(&pairs[0].0), 1);
        pairs.iter_mut().for_each(|(_, theirs)| hang_up(theirs));
        assert_eq!(take(&mut hang_ups), [2]);
        assert_eq!(Arc::strong_count(&pairs[1].0), 1);
    }
}
