//! Looks at every row of a database before anything is built on it.
//!
//! Run on the copy in memory, where it is several times faster than on the file.
//!
//! # Failure
//!
//! What is damaged is listed, not repaired, and nothing is written.

use std::collections::BTreeMap;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Result, Row, Rows};
use rustc_hash::FxHashSet;

use super::error::{DAMAGE_LISTED_MAX, Damage};
use super::format_1;
use super::rows::{TEXT, binding_row, key_row, numbers, setting_row, state_of};
use super::schema::{
    StateColumns, binding_checksum, bytes_checksum, checksum, key_checksum, key_columns,
    number_checksum, queue_checksum, setting, setting_columns, stored, strange_tables,
};
use crate::words::change::{BindingRow, KeyRow, SettingRow, StateRow};
use crate::words::clock::{Now, Time};
use crate::words::ids::{QueueId, QueueName};

/// What is wrong with a database.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// The first of it.
    pub damage: Vec<Damage>,
    /// How much there is in all.
    pub found: u64,
}

impl Findings {
    fn add(&mut self, damage: Damage) {
        self.found += 1;
        if self.damage.len() < DAMAGE_LISTED_MAX {
            self.damage.push(damage);
        }
    }
}

/// What a sound database says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// How many messages it holds.
    pub messages: u64,
    /// The largest id of a message, 0 when there is none.
    pub message_id_max: u64,
    /// The largest number of a queue, 0 when there is none.
    pub queue_id_max: u64,
    /// Ids below this one may have been handed out.
    pub ids_reserved: u64,
    /// The first id never handed out if the last stop was an orderly one, else 0.
    pub clean_stop: u64,
    /// The random secret of this database, for what peers must not be able to make up.
    pub secret: [u8; 16],
    /// How the clock stood last; `None` in a file of a daemon that did not say so.
    pub clock: Option<Now>,
}

/// Looks at structure and rows of a database of this format. `progress` hears now and then how many
/// messages were looked at.
pub(super) fn check(
    connection: &Connection,
    version: u32,
    progress: &mut dyn FnMut(u64),
) -> (Summary, Findings) {
    let mut summary = Summary::default();
    let mut findings = Findings::default();
    // Rows are only looked at in a sound structure: what a broken one shows would mislead.
    if let Err(error) = check_structure(connection, version, &mut findings) {
        findings.add(Damage::Structure(error.to_string()));
    }
    if findings.found == 0
        && let Err(error) = check_rows(connection, version, progress, &mut summary, &mut findings)
    {
        findings.add(Damage::Structure(error.to_string()));
    }
    (summary, findings)
}

fn check_structure(connection: &Connection, version: u32, findings: &mut Findings) -> Result<()> {
    for table in strange_tables(connection, version)? {
        findings.add(Damage::Structure(format!("the table {table} is not as it was made")));
    }
    if findings.found > 0 {
        return Ok(());
    }
    let sql = format!("PRAGMA quick_check({DAMAGE_LISTED_MAX})");
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let line: String = row.get(0)?;
        if line != "ok" {
            findings.add(Damage::Structure(line));
        }
    }
    Ok(())
}

fn check_rows(
    connection: &Connection,
    version: u32,
    progress: &mut dyn FnMut(u64),
    summary: &mut Summary,
    findings: &mut Findings,
) -> Result<()> {
    check_settings(connection, summary, findings)?;
    let queues = check_queues(connection, summary, findings)?;
    let is_first_format = version == format_1::VERSION;
    let mut messages = connection.prepare(MESSAGES)?;
    let mut states = connection.prepare(if is_first_format { format_1::STATES } else { STATES })?;
    let mut states = States::new(states.query([])?, is_first_format, &queues)?;
    let mut rows = messages.query([])?;
    while let Some(row) = rows.next()? {
        let message = MessageChecked::of(row)?;
        let is_elsewhere = states.up_to(message.id, findings)?;
        if !message.sound {
            findings.add(Damage::Message(message.id));
        } else if !queues.contains(&message.queue) && !is_elsewhere {
            findings.add(Damage::MessageWithoutQueue(message.id));
        }
        summary.messages += 1;
        // A queue that its messages have left for others may be gone; its number is not given again.
        summary.queue_id_max = summary.queue_id_max.max(u64::try_from(message.queue).unwrap_or(0));
        summary.message_id_max = u64::try_from(message.id).unwrap_or(0);
        if summary.messages.is_multiple_of(PROGRESS_MESSAGES) {
            progress(summary.messages);
        }
    }
    states.up_to(i64::MAX, findings)?;
    drop(states);
    if is_first_format {
        return Ok(());
    }
    check_small_tables(connection, summary, findings)
}

/// Looks at the tables of few rows, which all name a queue. It may be gone since, but its number is
/// not given again; the start drops what names it.
fn check_small_tables(
    connection: &Connection,
    summary: &mut Summary,
    findings: &mut Findings,
) -> Result<()> {
    check_keys(connection, summary, findings)?;
    let mut check = |sql: &str, table: &'static str, queue_of: fn(&Row<'_>) -> Option<QueueId>| {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            match queue_of(row) {
                Some(queue) => summary.queue_id_max = summary.queue_id_max.max(queue.0),
                None => findings.add(Damage::Row { table, number: row.get(0).unwrap_or(0) }),
            }
        }
        Ok(())
    };
    check(SETTINGS, "queue_setting", |row| sound_setting(row).map(|row| row.queue))?;
    check(BINDINGS, "binding", |row| sound_binding(row).map(|row| row.queue))
}

/// Looks at the keys, of which a message has one at most: the engine frees that with the message, and
/// another one would be taken for ever.
///
/// A key may name a message that is gone: the full disk that took the removal may have had no room for
/// the key's row. The start has such a key outlive its message, or frees it. That of a dead letter is
/// of another queue than the message is in.
fn check_keys(
    connection: &Connection,
    summary: &mut Summary,
    findings: &mut Findings,
) -> Result<()> {
    let mut find = connection.prepare("SELECT 1 FROM message WHERE id = ?")?;
    let mut holders = FxHashSet::default();
    let mut statement = connection.prepare(KEYS)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let Some(key) = sound_key(row) else {
            findings.add(Damage::Row { table: "key", number: row.get(0).unwrap_or(0) });
            continue;
        };
        summary.queue_id_max = summary.queue_id_max.max(key.queue.0);
        let Some(message) = key.message else { continue };
        if !holders.insert(message) && find.exists([stored(message.0)])? {
            findings.add(Damage::SecondKey { queue: key.queue, message });
        }
    }
    Ok(())
}

/// The keys by queue and key.
pub(super) const KEYS: &str = "SELECT queue, key, message, ends, until, crc FROM key \
                               ORDER BY queue, key";
/// What operators have set, by queue.
pub(super) const SETTINGS: &str = "SELECT queue, paused, high, normal, low, crc \
                                   FROM queue_setting ORDER BY queue";
/// The bindings by number.
pub(super) const BINDINGS: &str = "SELECT id, pattern, queue, crc, filter FROM binding ORDER BY id";

/// The key of a row of [`KEYS`], if it is what was written.
pub(super) fn sound_key(row: &Row<'_>) -> Option<KeyRow> {
    let key = key_row(row)?;
    let columns = key_columns(key.queue, key.message, key.until);
    has_checksum(row, 5, key_checksum(&columns, &key.key)).then_some(key)
}

/// The settings of a row of [`SETTINGS`], if they are what was written.
pub(super) fn sound_setting(row: &Row<'_>) -> Option<SettingRow> {
    let setting = setting_row(row)?;
    has_checksum(row, 5, checksum(&setting_columns(&setting), &[])).then_some(setting)
}

/// The binding of a row of [`BINDINGS`], if it is what was written.
pub(super) fn sound_binding(row: &Row<'_>) -> Option<BindingRow> {
    let binding = binding_row(row)?;
    has_checksum(row, 3, binding_checksum(&binding)).then_some(binding)
}

fn has_checksum(row: &Row<'_>, place: usize, checksum: i64) -> bool {
    row.get_ref(place) == Ok(ValueRef::Integer(checksum))
}

/// How many messages are looked at between two calls of `progress`.
pub(super) const PROGRESS_MESSAGES: u64 = 65_536;
/// The fixed columns first, so that they can be read by their place.
pub(super) const MESSAGES: &str = "SELECT id, queue, priority, sequence, created, expires, due, \
                                   ttr, crc, attributes, body FROM message ORDER BY id";
/// The states by id.
pub(super) const STATES: &str = "SELECT id, queue, state, priority, sequence, due, expires, delay, \
                                 reserves, timeouts, releases, buries, kicks, attempts, origin, \
                                 origin_sequence, origin_place, \
                                 origin_expires, cause, returned, crc, text \
                                 FROM message_state ORDER BY id";

/// A row of `message`, looked at.
pub(super) struct MessageChecked {
    pub id: i64,
    pub queue: i64,
    pub sound: bool,
}

impl MessageChecked {
    /// Looks at a row of [`MESSAGES`].
    pub fn of(row: &Row<'_>) -> Result<MessageChecked> {
        let id: i64 = row.get(0)?;
        let columns = numbers::<8>(row);
        let blob = |index| match row.get_ref(index) {
            Ok(ValueRef::Null) => Ok(None),
            Ok(ValueRef::Blob(bytes)) => Ok(Some(bytes)),
            _ => Err(()),
        };
        let sound = match (columns, blob(9), blob(10)) {
            (Some(columns), Ok(attributes), Ok(Some(body))) => {
                row.get_ref(8)
                    == Ok(ValueRef::Integer(checksum(&columns, &[attributes, Some(body)])))
                    && id > 0
                    && columns[1].is_some_and(|queue| queue > 0)
            }
            _ => false,
        };
        Ok(MessageChecked { id, queue: columns.and_then(|all| all[1]).unwrap_or(0), sound })
    }
}

/// The state of a row of [`STATES`], if it is what was written.
pub(super) fn sound_state(row: &Row<'_>) -> Option<StateRow> {
    let columns: StateColumns = numbers(row)?;
    let text = row.get_ref(TEXT).ok()?.as_str_or_null().ok()?;
    let crc = checksum(&columns, &[text.map(str::as_bytes)]);
    if has_checksum(row, columns.len(), crc) { state_of(&columns, text) } else { None }
}

/// Walks the states along with the messages.
struct States<'stmt> {
    rows: Rows<'stmt>,
    sound: fn(&Row<'_>) -> Option<StateRow>,
    queues: &'stmt FxHashSet<i64>,
    /// The id of the row that the walk stands at, and whether its message is in another queue than it
    /// was put into; `None` for a row that is not sound.
    next: Option<(i64, Option<bool>)>,
}

impl<'stmt> States<'stmt> {
    fn new(
        rows: Rows<'stmt>,
        is_first_format: bool,
        queues: &'stmt FxHashSet<i64>,
    ) -> Result<States<'stmt>> {
        let sound = if is_first_format { format_1::sound_state } else { sound_state };
        let mut states = States { rows, sound, queues, next: None };
        states.step()?;
        Ok(states)
    }

    fn step(&mut self) -> Result<()> {
        self.next = match self.rows.next()? {
            Some(row) => {
                let state = (self.sound)(row).filter(|state| has_queues(state, self.queues));
                Some((row.get(0)?, state.map(|state| state.queue.is_some())))
            }
            None => None,
        };
        Ok(())
    }

    /// Looks at the states up to this message's, and says whether that is in another queue than it
    /// was put into.
    fn up_to(&mut self, message: i64, findings: &mut Findings) -> Result<bool> {
        while let Some((id, state)) = self.next
            && id <= message
        {
            self.step()?;
            match state {
                None => findings.add(Damage::State(id)),
                Some(_) if id < message => findings.add(Damage::StateWithoutMessage(id)),
                Some(is_elsewhere) => return Ok(is_elsewhere),
            }
        }
        Ok(false)
    }
}

/// Whether the queues that a state names are there.
fn has_queues(state: &StateRow, queues: &FxHashSet<i64>) -> bool {
    let origin = state.failure.as_ref().and_then(|failure| failure.origin);
    let mut named = state.queue.into_iter().chain(origin.map(|origin| origin.queue));
    named.all(|queue| queues.contains(&stored(queue.0)))
}

fn check_queues(
    connection: &Connection,
    summary: &mut Summary,
    findings: &mut Findings,
) -> Result<FxHashSet<i64>> {
    let mut queues = FxHashSet::default();
    let mut statement = connection.prepare(QUEUES)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        if !queue_is_sound(row) {
            findings.add(Damage::Queue(id));
        }
        queues.insert(id);
        summary.queue_id_max = u64::try_from(id).unwrap_or(0);
    }
    Ok(queues)
}

pub(super) const QUEUES: &str = "SELECT id, name, crc FROM queue ORDER BY id";

/// Whether a row of [`QUEUES`] is what was written.
pub(super) fn queue_is_sound(row: &Row<'_>) -> bool {
    let (Ok(id), Ok(name)) = (row.get::<_, i64>(0), row.get::<_, String>(1)) else {
        return false;
    };
    let is_sound_name = QueueName::new(name.as_bytes()).is_ok();
    id > 0 && is_sound_name && row.get_ref(2) == Ok(ValueRef::Integer(queue_checksum(id, &name)))
}

/// The settings by name.
pub(super) fn settings(connection: &Connection) -> Result<BTreeMap<String, Setting>> {
    let mut settings = BTreeMap::new();
    let mut statement = connection.prepare("SELECT name, value, crc FROM meta")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let (crc, value) = match row.get_ref(1)? {
            ValueRef::Integer(value) => (number_checksum(&name, value), Setting::Number(value)),
            ValueRef::Blob(value) => (bytes_checksum(&name, value), Setting::Bytes(value.to_vec())),
            _ => (0, Setting::Damaged),
        };
        let is_sound = row.get_ref(2)? == ValueRef::Integer(crc);
        settings.insert(name, if is_sound { value } else { Setting::Damaged });
    }
    Ok(settings)
}

/// The value of a row of `meta`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    Number(i64),
    Bytes(Vec<u8>),
    /// Not what was written.
    Damaged,
}

/// How the clock stood last, if the settings say so.
pub(super) fn clock(settings: &BTreeMap<String, Setting>) -> Option<Now> {
    match (settings.get(setting::CLOCK_TIME)?, settings.get(setting::CLOCK_OFFSET)?) {
        (Setting::Number(time), Setting::Number(wall_offset_ms)) => {
            Some(Now { time: Time::from_stored(*time), wall_offset_ms: *wall_offset_ms })
        }
        _ => None,
    }
}

fn check_settings(
    connection: &Connection,
    summary: &mut Summary,
    findings: &mut Findings,
) -> Result<()> {
    let settings = settings(connection)?;
    let mut number = |name: &'static str| match settings.get(name) {
        Some(Setting::Number(value)) => u64::try_from(*value).unwrap_or(0),
        _ => {
            findings.add(Damage::Setting(name));
            0
        }
    };
    summary.ids_reserved = number(setting::IDS_RESERVED);
    summary.clean_stop = number(setting::CLEAN_STOP);
    summary.clock = clock(&settings);
    for name in [setting::CLOCK_TIME, setting::CLOCK_OFFSET] {
        // Without them all delays would be wrong by as much as the wall clock was set.
        if settings.contains_key(name) && summary.clock.is_none() {
            findings.add(Damage::Setting(name));
        }
    }
    match settings.get(setting::SECRET) {
        Some(Setting::Bytes(key)) if key.len() == summary.secret.len() => {
            summary.secret.copy_from_slice(key);
        }
        _ => findings.add(Damage::Setting(setting::SECRET)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::tables::Tables;
    use super::super::testing::{commit, folder, put, queue, reopen, state, story, try_open};
    use super::super::{StoreError, recover};
    use super::*;
    use crate::words::change::{Change, KeyUntil};
    use crate::words::ids::MessageId;

    /// A database into which somebody has written rows with right checksums.
    fn forged(
        forge: impl FnOnce(&mut Tables<'_>) -> Result<()>,
    ) -> (tempfile::TempDir, impl AsRef<Path>) {
        let (directory, path) = folder();
        commit(&path, story());
        reopen(&path).file.unwrap().close().unwrap();
        let connection = Connection::open(&path).unwrap();
        forge(&mut Tables::new(&connection).unwrap()).unwrap();
        (directory, path)
    }

    /// What is found wrong with it.
    fn refused(path: impl AsRef<Path>) -> (Vec<Damage>, String) {
        let error = try_open(path.as_ref()).err().expect("a bad file was taken");
        assert_eq!(error.exit_code(), 65);
        let text = error.to_string();
        assert!(text.contains("queue.db"), "{text}");
        let StoreError::Corrupt { damage, .. } = error else { panic!("{text}") };
        (damage, text)
    }

    fn take(tables: &mut Tables<'_>, queue: u64, key: &str, message: u64) -> Result<()> {
        let until = KeyUntil::Moment(1_900_000_000_000);
        tables.key_taken(QueueId(queue), key.as_bytes(), Some(MessageId(message)), until)
    }

    fn keys(path: impl AsRef<Path>) -> Vec<(u64, Vec<u8>)> {
        let opened = reopen(path.as_ref());
        let mut statement = opened.memory.prepare(KEYS).unwrap();
        let keys = statement.query_map([], |row| Ok(sound_key(row).unwrap())).unwrap();
        keys.map(|key| key.unwrap()).map(|key| (key.queue.0, key.key.into_vec())).collect()
    }

    #[test]
    fn two_keys_of_one_message_are_damage_of_which_a_repair_keeps_one() {
        let (_directory, path) = forged(|tables| {
            take(tables, 1, "one", 2)?;
            take(tables, 1, "two", 2)?;
            take(tables, 2, "three", 2)?;
            take(tables, 2, "other", 3)
        });
        let (damage, text) = refused(&path);
        let second = |queue| Damage::SecondKey { queue: QueueId(queue), message: MessageId(2) };
        assert_eq!(damage, [second(1), second(2)]);
        assert!(text.contains("a row of key for queue 1 names message 2"), "{text}");
        let recovered = recover(path.as_ref()).unwrap();
        assert_eq!((recovered.messages, recovered.others_quarantined), (22, 2));
        assert_eq!(keys(&path), [(1, b"one".to_vec()), (2, b"other".to_vec())]);
        let memory = reopen(path.as_ref()).memory;
        let set_aside = "SELECT group_concat(columns, '; ') FROM quarantine WHERE source = 'key'";
        let set_aside: String = memory.query_row(set_aside, [], |row| row.get(0)).unwrap();
        assert!(set_aside.contains("message=2 ends=2 until=1900000000000"), "{set_aside}");
    }

    /// That is what a full disk leaves behind that took a removal and nothing else.
    #[test]
    fn keys_that_name_messages_which_are_gone_are_sound() {
        let (_directory, path) = forged(|tables| {
            take(tables, 1, "one", 99)?;
            take(tables, 1, "two", 99)?;
            take(tables, 3, "of a queue that is gone", 98)
        });
        assert_eq!(keys(&path).len(), 3);
        assert_eq!(reopen(path.as_ref()).facts.next_queue_id, 4, "no queue gets this number");
    }

    #[test]
    fn a_message_moved_to_a_queue_that_is_not_there_is_damage_and_a_repair_names_the_queue() {
        let (_directory, path) =
            forged(|tables| tables.moved(&StateRow { queue: Some(QueueId(77)), ..state(5) }));
        let (damage, text) = refused(&path);
        assert_eq!(damage, [Damage::State(5)]);
        assert!(
            text.contains("the state of message 5 fails its checksum or has no queue"),
            "{text}"
        );
        let recovered = recover(path.as_ref()).unwrap();
        assert_eq!((recovered.messages, recovered.queues_renamed), (22, 1));
        assert_eq!(reopen(path.as_ref()).facts.messages, 22);
    }

    #[test]
    fn a_state_of_no_message_is_damage_and_a_repair_sets_it_aside() {
        let (_directory, path) = forged(|tables| tables.moved(&state(99)));
        assert_eq!(refused(&path).0, [Damage::StateWithoutMessage(99)]);
        let recovered = recover(path.as_ref()).unwrap();
        assert_eq!((recovered.messages, recovered.states_quarantined), (22, 1));
        assert_eq!(reopen(path.as_ref()).facts.messages, 22);
    }

    /// Of two queues of one name, as a repair finds them, both have messages.
    #[test]
    fn two_queues_of_one_name_are_sound() {
        let (_directory, path) = folder();
        let mut changes = story();
        changes.extend([queue(3, "mail"), put(23, 3, b"x")]);
        commit(&path, changes);
        assert_eq!(reopen(&path).facts.messages, 23);
    }

    #[test]
    fn settings_of_a_queue_that_is_gone_are_sound() {
        let (_directory, path) = folder();
        let mut changes = story();
        let row = SettingRow { queue: QueueId(9), paused: true, ..SettingRow::default() };
        changes.push(Change::QueueSet(row));
        commit(&path, changes);
        assert_eq!(reopen(&path).facts.next_queue_id, 10);
    }
}
