//! What the database library leaves out of a damaged log without a word.
//!
//! It uses a log up to the first frame whose checksum is wrong, which is right after a power cut:
//! what was not synced may be there in part. Where the medium has returned wrong data, the frames
//! behind were synced and confirmed. The log does not say which of the two it was.

use std::fs::File;
use std::path::Path;

use rusqlite::Result;
use rusqlite::types::ValueRef;
use rustc_hash::FxHashSet;

use super::free::Free;
use super::log::{LOG_HEADER_BYTES, Log, page_bytes};
use super::pages::{Pages, is_page_size, open, read_at};
use super::sweep::Sweep;
use super::walk::Walk;
use super::{Collect, Found, SoundRow, Table};
use crate::store::StoreError;
use crate::store::check::Setting;
use crate::store::paths::Paths;
use crate::store::rows::unsigned;
use crate::store::schema::{PAGE_BYTES, setting};

/// The frames that the database library ignores, and the rows on them.
#[derive(Debug, Default)]
pub(in crate::store) struct Ignored {
    /// How many frames there are.
    pub frames: u32,
    /// Where the log begins to differ from what is used of it.
    pub from: u64,
    /// Where its last frame ends.
    pub end: u64,
    /// The ids of the messages on them.
    pub messages: FxHashSet<u64>,
    /// Smaller ids may have been assigned.
    pub ids_reserved: u64,
    /// The largest number of a queue.
    pub queue_id_max: u64,
}

/// A damaged log with its file, or a copy of one.
pub(in crate::store) struct DamagedLog {
    pages: Pages,
}

impl Ignored {
    /// Whether anything is ignored. Only the log is opened.
    ///
    /// # Errors
    /// The log is there and may not be read.
    pub fn is_any(paths: &Paths) -> std::result::Result<bool, StoreError> {
        let Some(log) = open(&paths.wal())? else { return Ok(false) };
        Ok(Log::read(&log, log_page_bytes(&log)).ignored > 0)
    }

    /// Looks at the log of a database that nobody is connected to. `None`: nothing is ignored.
    ///
    /// # Errors
    /// A file is there and may not be read.
    pub fn look(paths: &Paths) -> std::result::Result<Option<Ignored>, StoreError> {
        if !Ignored::is_any(paths)? {
            return Ok(None);
        }
        let damaged = DamagedLog { pages: Pages::open(paths)? };
        let log = &damaged.pages.log;
        let from = if log.is_header_damaged { 0 } else { damaged.pages.frame_at(log.chain_end) };
        let end = damaged.pages.frame_at(log.end);
        let mut ignored = Ignored { frames: log.ignored, from, end, ..Ignored::default() };
        damaged
            .behind(&mut ignored)
            .map_err(|source| StoreError::Internal { file: paths.wal(), source })?;
        Ok(Some(ignored))
    }
}

fn log_page_bytes(log: &File) -> usize {
    let mut header = [0; LOG_HEADER_BYTES];
    let read = read_at(Some(log), 0, &mut header);
    let named = page_bytes(&header[..read]).filter(|bytes| is_page_size(*bytes));
    named.unwrap_or(PAGE_BYTES as usize)
}

impl DamagedLog {
    /// Opens a copy of a log that the database had.
    ///
    /// # Errors
    /// A file is there and may not be read.
    pub fn open(paths: &Paths, log: &Path) -> std::result::Result<DamagedLog, StoreError> {
        Ok(DamagedLog { pages: Pages::open_with_log(paths, log)? })
    }

    /// What the database library has used of it.
    pub fn used(&self, collect: &mut dyn Collect) -> Result<()> {
        if self.pages.log.is_header_damaged {
            return Ok(());
        }
        self.sweep(|sweep| sweep.in_force(collect))
    }

    /// What stands behind that, the newest frames first.
    pub fn behind(&self, collect: &mut dyn Collect) -> Result<()> {
        self.sweep(|sweep| {
            sweep.tail(collect)?;
            if self.pages.log.is_header_damaged { sweep.in_force(collect) } else { Ok(()) }
        })
    }

    fn sweep(&self, run: impl FnOnce(&Sweep<'_, '_>) -> Result<()>) -> Result<()> {
        let walk = Walk::new(&self.pages);
        let (free, wanted) = (Free::Unknown, |_| true);
        run(&Sweep {
            pages: &self.pages,
            walk: &walk,
            free: &free,
            last_page: u32::MAX,
            wanted: &wanted,
        })
    }
}

impl Collect for Ignored {
    fn sound(&mut self, row: SoundRow, _: Found) -> Result<()> {
        match row {
            SoundRow::Message(row) => {
                self.messages.insert(row.id.0);
                self.queue_id_max = self.queue_id_max.max(row.queue.0);
            }
            SoundRow::Queue { id, .. } => self.queue_id_max = self.queue_id_max.max(unsigned(id)),
            SoundRow::Setting { name, value: Setting::Number(value) }
                if name == setting::IDS_RESERVED =>
            {
                self.ids_reserved = self.ids_reserved.max(unsigned(value));
            }
            SoundRow::QueueSetting(row) => self.queue_id_max = self.queue_id_max.max(row.queue.0),
            SoundRow::Key(row) => self.queue_id_max = self.queue_id_max.max(row.queue.0),
            SoundRow::Binding(row) => self.queue_id_max = self.queue_id_max.max(row.queue.0),
            SoundRow::State(_) | SoundRow::Setting { .. } => {}
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
