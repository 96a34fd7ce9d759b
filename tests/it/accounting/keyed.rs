//! Producers that send with a key and are not sure: what was sent before, confirmed or not and also
//! in the last life of the daemon, they send again.
//!
//! The key is that of one message for longer than any run. So what was confirmed may not be queued
//! once more, and who joins a message that is gone must have had one that is done.

use crate::harness::{Phpmq, Stream, packets};

use super::{Ledger, Name, TUBE, UNDER_WAY_MAX, body_of};

/// For how long a key is taken, in seconds.
const KEY_TIME: &str = "86400";
/// How many of the last life are sent again.
const AGAIN_MAX: usize = 40;

impl Ledger {
    /// The last names that a producer has sent so far.
    fn last_sent(&self, producer: u64) -> Vec<Name> {
        let entries = self.entries.lock().unwrap();
        let sent = entries.range((producer, 0)..(producer + 1, 0)).map(|(name, _)| *name);
        let mut last: Vec<Name> = sent.rev().take(AGAIN_MAX).collect();
        last.reverse();
        last
    }

    /// What was sent with a key is queued with this id, for the first time or not.
    fn confirmed_keyed(&self, name: Name, id: u64, life: u64) {
        let mut is_first = false;
        self.note(name, |entry| {
            is_first = entry.confirmed.is_none() && id != 0;
            if !is_first {
                entry.joined.push(id);
            }
        });
        if is_first {
            self.confirmed(name, id, life);
        }
    }
}

/// Sends until the daemon is gone, each message twice.
pub fn produce(stream: Stream, producer: u64, life: u64, ledger: &Ledger) -> Option<()> {
    let mut peer = Phpmq::new(stream, 2);
    for names in ledger.last_sent(producer).chunks(UNDER_WAY_MAX) {
        send(&mut peer, names, life, ledger)?;
    }
    let mut number = life * 1_000_000;
    loop {
        let names: Vec<Name> =
            (0..UNDER_WAY_MAX as u64 / 2).map(|place| (producer, number + place)).collect();
        number += names.len() as u64;
        names.iter().for_each(|name| ledger.sent(*name));
        send(&mut peer, &[&names[..], &names].concat(), life, ledger)?;
    }
}

fn send(peer: &mut Phpmq, names: &[Name], life: u64, ledger: &Ledger) -> Option<()> {
    let mut sent = Vec::new();
    for name in names {
        let (body, correlation) = (body_of(*name), name.1.to_string());
        let key = format!("{}-{}", name.0, name.1);
        sent.extend(packets(
            1,
            &[
                (7, key.as_bytes()),
                (8, KEY_TIME.as_bytes()),
                (1, TUBE.as_bytes()),
                (2, body.as_bytes()),
                (5, &b"0"[..]),
                (6, correlation.as_bytes()),
            ],
        ));
    }
    peer.stream.try_send(sent).ok()?;
    for name in names {
        let (kind, parts) = peer.try_message()?;
        assert_eq!((kind, &*parts[1].1), (7, &*name.1.to_string()), "{parts:?}");
        let id = u64::from_str_radix(&parts[0].1[..16], 16).unwrap();
        ledger.confirmed_keyed(*name, id, life);
    }
    Some(())
}
