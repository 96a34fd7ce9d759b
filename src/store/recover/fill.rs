//! Fills a new database with what is found in a damaged one.
//!
//! What the trees have comes first. Of what is found outside of them, a message is added when its
//! id is not there yet, a state when its message has none; states from behind a damaged frame of
//! the log are newer than those of the trees.

use std::collections::BTreeMap;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, Result, Statement, ToSql};
use rustc_hash::FxHashSet;

use super::{Recovered, foreign};
use crate::store::LogState;
use crate::store::check::{self, Setting};
use crate::store::format_1;
use crate::store::quarantine;
use crate::store::rows::unsigned;
use crate::store::salvage::{Collect, Damaged, DamagedLog, Found, SoundRow, Table, Trees};
use crate::store::schema::{checksum, key_columns, message_columns, setting, stored};
use crate::store::tables::Tables;
use crate::words::change::{KeyRow, MessageRow, StateRow};
use crate::words::clock::wall_clock_ms;
use crate::words::ids::{MessageId, QueueId};
use crate::words::limits::ID_BLOCK;

/// A new database on its way to be filled.
pub(super) struct Filling<'c> {
    connection: &'c Connection,
    new: Tables<'c>,
    checksum_of: Statement<'c>,
    has_state: Statement<'c>,
    quarantine: Statement<'c>,
    unquarantine: Statement<'c>,
    /// Damaged rows of the trees: a sound copy of one of them was not deleted.
    damaged: FxHashSet<(Table, i64)>,
    /// States that were found outside of the trees alone.
    states_outside: FxHashSet<i64>,
    states_newer: FxHashSet<i64>,
    /// Messages that have a key.
    key_holders: FxHashSet<MessageId>,
    settings: BTreeMap<String, Setting>,
    settings_outside: BTreeMap<String, Setting>,
    /// The largest id or place that was seen.
    id_max: u64,
    /// How many sound rows there were of any table.
    sound_rows: u64,
    recovered: Recovered,
}

/// What became of it.
pub(super) struct Filled {
    pub recovered: Recovered,
    /// Whether any row of ours was there.
    pub is_ours: bool,
    /// Whether messages are missing for sure.
    pub lacks_messages: bool,
}

/// So far beyond what was seen do ids begin that may have been handed out without leaving a trace:
/// more than any log holds.
const ID_MARGIN: u64 = 1 << 32;
const WITHOUT_MESSAGE: &str = "SELECT * FROM message_state \
     WHERE NOT EXISTS (SELECT 1 FROM message WHERE message.id = message_state.id)";
const QUEUES_MISSING: &str = "SELECT queue FROM (SELECT queue FROM message \
     UNION SELECT queue FROM message_state UNION SELECT origin FROM message_state \
     UNION SELECT queue FROM queue_setting) \
     WHERE queue NOT NULL AND queue NOT IN (SELECT id FROM queue) ORDER BY queue";
const HAS_KEY: &str = "SELECT 1 FROM key WHERE queue = ? AND key = ?";
const HAS_SETTING: &str = "SELECT 1 FROM queue_setting WHERE queue = ?";
const HAS_BINDING: &str = "SELECT 1 FROM binding WHERE id = ?";

impl<'c> Filling<'c> {
    /// Fills a new database, which has its tables. `file_alone` is the file without a log that is
    /// not its own; `log_copies` were made by starts that found a damaged log.
    pub fn fill(
        damaged: &Damaged,
        file_alone: Option<&Damaged>,
        log_copies: &[DamagedLog],
        new: &'c Connection,
        new_key: [u8; 16],
    ) -> Result<Filled> {
        quarantine::make(new)?;
        let mut filling = Filling {
            connection: new,
            new: Tables::new(new)?,
            checksum_of: new.prepare("SELECT crc FROM message WHERE id = ?")?,
            has_state: new.prepare("SELECT 1 FROM message_state WHERE id = ?")?,
            quarantine: quarantine::adder(new)?,
            unquarantine: quarantine::remover(new)?,
            damaged: FxHashSet::default(),
            states_outside: FxHashSet::default(),
            states_newer: FxHashSet::default(),
            key_holders: FxHashSet::default(),
            settings: BTreeMap::new(),
            settings_outside: BTreeMap::new(),
            id_max: 0,
            sound_rows: 0,
            recovered: Recovered { log: damaged.log_state(), ..Recovered::default() },
        };
        let trees = damaged.trees(&mut filling)?;
        // Names of queues are looked for when it is known which are missing.
        trees.strays(&|table| table != Table::Queue, &mut filling)?;
        filling.recovered.set_unreadable(trees.unreadable());
        if let Some(file_alone) = file_alone {
            filling.recovered.log = LogState::Foreign;
            foreign::add(&mut filling, file_alone)?;
        }
        for log in log_copies {
            foreign::add_log(&mut filling, log)?;
        }
        filling.recovered.log_copies = log_copies.len() as u64;
        filling.states_without_message()?;
        filling.queues_without_name(&trees)?;
        filling.write_settings(new_key)?;
        let count = "SELECT count(*) FROM message";
        filling.recovered.messages =
            new.query_row(count, [], |row| row.get::<_, i64>(0)).map(unsigned)?;
        Ok(Filled {
            is_ours: filling.sound_rows > 0,
            lacks_messages: filling.recovered.messages_quarantined > 0
                || !trees.are_whole(Table::Message),
            recovered: filling.recovered,
        })
    }

    pub(super) fn connection(&self) -> &'c Connection {
        self.connection
    }

    pub(super) fn name_queue(&mut self, id: QueueId, name: &str) -> Result<()> {
        self.new.queue_named(id, name)
    }

    /// Takes a message, and says whether there was none of its id yet.
    pub(super) fn message(&mut self, row: &MessageRow, found: Found) -> Result<bool> {
        let id = stored(row.id.0);
        self.id_max = self.id_max.max(row.id.0).max(row.sequence.0);
        let there = self.checksum_of.query_row([id], |row| row.get::<_, i64>(0)).optional()?;
        if let Some(there) = there {
            let blobs = [row.attributes.stored(), Some(&*row.body)];
            if there != checksum(&message_columns(row), &blobs) {
                // Two daemons had the file, and both have handed out this id.
                let columns = format!("id={id} queue={} (its id is taken)", row.queue.0);
                self.recovered.messages_quarantined += 1;
                quarantine::add_values(&mut self.quarantine, "message", id, &columns, blobs)?;
            }
            return Ok(false);
        }
        self.new.put(row)?;
        if self.damaged.remove(&(Table::Message, id)) {
            self.unquarantine.execute(("message", id))?;
            self.recovered.messages_quarantined -= 1;
        } else if found != Found::InTree {
            self.recovered.messages_outside += 1;
        }
        Ok(true)
    }

    pub(super) fn state(&mut self, row: &StateRow, found: Found) -> Result<()> {
        let id = stored(row.id.0);
        self.id_max = self.id_max.max(row.sequence.0);
        let is_wanted = match found {
            Found::InTree => true,
            Found::Newer => self.states_newer.insert(id),
            Found::Outside => !self.has_state.exists([id])?,
        };
        if !is_wanted {
            return Ok(());
        }
        if found != Found::InTree && !self.has_state.exists([id])? {
            self.states_outside.insert(id);
        }
        if self.damaged.remove(&(Table::State, id)) {
            self.unquarantine.execute(("message_state", id))?;
            self.recovered.states_quarantined -= 1;
        }
        self.new.moved(row)
    }

    pub(super) fn setting(&mut self, name: String, value: Setting, found: Found) {
        let settings = match found {
            Found::InTree => &mut self.settings,
            Found::Newer | Found::Outside => &mut self.settings_outside,
        };
        let is_larger = match (settings.get(&name), &value) {
            // Ids only ever grow; of all others the first counts, which is the newest.
            (Some(Setting::Number(there)), Setting::Number(value)) => {
                name == setting::IDS_RESERVED && value > there
            }
            (there, _) => matches!(there, None | Some(Setting::Damaged)),
        };
        if is_larger {
            settings.insert(name, value);
        }
    }

    /// Takes a row of a table of few rows, unless a newer one of it is there.
    fn small_row(&mut self, row: &SoundRow, found: Found) -> Result<()> {
        let has = |sql, values: &[&dyn ToSql]| {
            let is_there = || self.connection.prepare(sql)?.exists(values);
            Ok::<bool, rusqlite::Error>(found != Found::InTree && is_there()?)
        };
        match row {
            SoundRow::Key(row) if !has(HAS_KEY, &[&stored(row.queue.0), &&*row.key])? => {
                self.key(row)
            }
            SoundRow::QueueSetting(row) if !has(HAS_SETTING, &[&stored(row.queue.0)])? => {
                self.new.queue_set(row)
            }
            SoundRow::Binding(row) if !has(HAS_BINDING, &[&stored(row.id)])? => self.new.bound(row),
            _ => Ok(()),
        }
    }

    /// Takes a key, unless its message has one already.
    fn key(&mut self, row: &KeyRow) -> Result<()> {
        if row.message.is_none_or(|message| self.key_holders.insert(message)) {
            return self.new.key_taken(row.queue, &row.key, row.message, row.until);
        }
        let [queue, message, ends, until] = key_columns(row.queue, row.message, row.until);
        let number = |value: Option<i64>| value.map_or(ValueRef::Null, ValueRef::Integer);
        let columns = &KEY_COLUMNS[..KEY_COLUMNS.len() - 1];
        let values =
            [number(queue), ValueRef::Blob(&row.key), number(message), number(ends), number(until)];
        self.recovered.others_quarantined += 1;
        let id = stored(row.queue.0);
        quarantine::add_found(&mut self.quarantine, "key", id, columns, &values)
    }

    /// A state tells something of a message that is lost, unless the message may have been acknowledged.
    fn states_without_message(&mut self) -> Result<()> {
        let mut statement = self.connection.prepare(WITHOUT_MESSAGE)?;
        let mut rows = statement.query([])?;
        let mut ids = Vec::new();
        while let Some(row) = rows.next()? {
            let id = row.get(0)?;
            ids.push(id);
            if !self.states_outside.contains(&id) {
                self.recovered.states_quarantined += 1;
                quarantine::add(&mut self.quarantine, "message_state", row)?;
            }
        }
        drop(rows);
        let mut forget = self.connection.prepare("DELETE FROM message_state WHERE id = ?")?;
        for id in ids {
            forget.execute([id])?;
        }
        Ok(())
    }

    fn queues_without_name(&mut self, trees: &Trees<'_>) -> Result<()> {
        let mut statement = self.connection.prepare(QUEUES_MISSING)?;
        let missing = statement.query_map([], |row| row.get::<_, i64>(0))?;
        let mut names = Names(missing.map(|id| id.map(|id| (id, None))).collect::<Result<_>>()?);
        if names.0.is_empty() {
            return Ok(());
        }
        trees.strays(&|table| table == Table::Queue, &mut names)?;
        for (id, name) in names.0 {
            let name = name.unwrap_or_else(|| {
                self.recovered.queues_renamed += 1;
                format!("recovered-{id}")
            });
            self.new.queue_named(QueueId(unsigned(id)), &name)?;
        }
        Ok(())
    }

    fn write_settings(&mut self, new_key: [u8; 16]) -> Result<()> {
        let find = |name: &str| {
            let in_tree = self.settings.get(name).filter(|value| **value != Setting::Damaged);
            in_tree.or_else(|| self.settings_outside.get(name)).cloned()
        };
        let number = |settings: &BTreeMap<String, Setting>, name: &str| match settings.get(name) {
            Some(Setting::Number(value)) => Some(unsigned(*value)),
            _ => None,
        };
        let mut renewed = 0;
        let key = match find(setting::SECRET) {
            Some(Setting::Bytes(key)) if key.len() == 16 => key,
            _ => {
                renewed += 1;
                new_key.to_vec()
            }
        };
        let was_stopped = number(&self.settings, setting::CLEAN_STOP);
        if self.recovered.log == LogState::None && was_stopped == Some(0) {
            self.recovered.log = LogState::Missing;
        }
        let in_tree = number(&self.settings, setting::IDS_RESERVED);
        let outside = number(&self.settings_outside, setting::IDS_RESERVED);
        let seen = self.id_max.saturating_add(1).max(outside.unwrap_or(0));
        let is_log_whole = matches!(self.recovered.log, LogState::None | LogState::Sound);
        let ids_reserved = match in_tree {
            Some(reserved) if self.recovered.unreadable == 0 && is_log_whole => reserved.max(seen),
            _ => {
                renewed += u64::from(in_tree.is_none());
                ids_beyond(in_tree.unwrap_or(0).max(seen))
            }
        };
        let clock = check::clock(&self.settings).or_else(|| check::clock(&self.settings_outside));
        if let Some(clock) = clock {
            self.new.set_clock(clock)?;
        } else {
            let names = [setting::CLOCK_TIME, setting::CLOCK_OFFSET];
            renewed += u64::from(names.iter().any(|name| self.settings.contains_key(*name)));
        }
        self.recovered.settings_renewed = renewed;
        self.new.set_bytes(setting::SECRET, &key)?;
        self.new.set_number(setting::IDS_RESERVED, ids_reserved)?;
        self.new.set_number(setting::CLEAN_STOP, 0)
    }
}

/// Where ids go on when nothing says for sure which were handed out.
fn ids_beyond(seen: u64) -> u64 {
    const LAST: u64 = i64::MAX as u64 - ID_BLOCK;
    // Ids count messages since the first day: today in milliseconds is beyond them all, if the
    // clock is right.
    let beyond = seen.saturating_add(ID_MARGIN).max(unsigned(wall_clock_ms()));
    // There is no room for a margin where ids end.
    if beyond < LAST { beyond } else { seen }
}

impl Collect for Filling<'_> {
    fn sound(&mut self, row: SoundRow, found: Found) -> Result<()> {
        self.sound_rows += 1;
        match row {
            SoundRow::Message(row) => self.message(&row, found).map(drop),
            SoundRow::State(row) => self.state(&row, found),
            SoundRow::Queue { id, name } => self.new.queue_named(QueueId(unsigned(id)), &name),
            SoundRow::Setting { name, value } => {
                self.setting(name, value, found);
                Ok(())
            }
            SoundRow::Key(_) | SoundRow::QueueSetting(_) | SoundRow::Binding(_) => {
                self.small_row(&row, found)
            }
        }
    }

    fn damaged(&mut self, table: Table, id: i64, values: &[ValueRef<'_>]) -> Result<()> {
        if let (Table::Meta, [ValueRef::Text(name), ..]) = (table, values) {
            let name = String::from_utf8_lossy(name).into_owned();
            self.settings.entry(name).or_insert(Setting::Damaged);
            return Ok(());
        }
        let id = match (table, values.first()) {
            // Its rows have no numbers.
            (Table::Key, Some(ValueRef::Integer(queue))) => *queue,
            _ => id,
        };
        // One that was put there twice is counted once. Keys have no number to tell.
        if !self.damaged.insert((table, id)) && table != Table::Key {
            return Ok(());
        }
        let (source, names) = match table {
            Table::State => {
                self.recovered.states_quarantined += 1;
                let is_first_format = values.len() == format_1::STATE_COLUMNS;
                ("message_state", if is_first_format { STATE_COLUMNS_1 } else { STATE_COLUMNS })
            }
            Table::Key | Table::QueueSetting | Table::Binding => {
                self.recovered.others_quarantined += 1;
                match table {
                    Table::Key => ("key", KEY_COLUMNS),
                    Table::Binding => ("binding", BINDING_COLUMNS),
                    _ => ("queue_setting", SETTING_COLUMNS),
                }
            }
            _ => {
                self.recovered.messages_quarantined += 1;
                ("message", MESSAGE_COLUMNS)
            }
        };
        quarantine::add_found(&mut self.quarantine, source, id, names, values)
    }

    fn quarantined(&mut self, number: i64, values: &[ValueRef<'_>]) -> Result<()> {
        quarantine::keep_found(self.connection, number, values)
    }
}

const MESSAGE_COLUMNS: &[&str] = &[
    "id",
    "queue",
    "priority",
    "sequence",
    "created",
    "expires",
    "due",
    "ttr",
    "crc",
    "attributes",
    "body",
];
const STATE_COLUMNS: &[&str] = &[
    "id",
    "queue",
    "state",
    "priority",
    "sequence",
    "due",
    "expires",
    "delay",
    "reserves",
    "timeouts",
    "releases",
    "buries",
    "kicks",
    "attempts",
    "origin",
    "origin_sequence",
    "origin_place",
    "origin_expires",
    "cause",
    "returned",
    "crc",
    "text",
];
const STATE_COLUMNS_1: &[&str] = &[
    "id", "state", "priority", "sequence", "due", "expires", "delay", "reserves", "timeouts",
    "releases", "buries", "kicks", "crc",
];
const KEY_COLUMNS: &[&str] = &["queue", "key", "message", "ends", "until", "crc"];
const SETTING_COLUMNS: &[&str] = &["queue", "paused", "high", "normal", "low", "crc"];
const BINDING_COLUMNS: &[&str] = &["id", "pattern", "queue", "crc", "filter"];

/// Queues that messages are in, with the names that are found for them.
struct Names(BTreeMap<i64, Option<String>>);

impl Collect for Names {
    fn sound(&mut self, row: SoundRow, _: Found) -> Result<()> {
        if let SoundRow::Queue { id, name } = row
            && let Some(missing @ None) = self.0.get_mut(&id)
        {
            *missing = Some(name);
        }
        Ok(())
    }

    fn damaged(&mut self, _: Table, _: i64, _: &[ValueRef<'_>]) -> Result<()> {
        Ok(())
    }

    fn quarantined(&mut self, _: i64, _: &[ValueRef<'_>]) -> Result<()> {
        Ok(())
    }
}
