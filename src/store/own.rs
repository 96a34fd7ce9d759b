//! How the file comes to own room, and what is set aside in quiet times.
//!
//! # Failure
//!
//! Where there is no room to set aside, less can be done on a full disk; that is no error.

use std::fs::OpenOptions;
use std::io;

use rusqlite::Connection;

use super::StoreError;
use super::commit::File;
use super::error::ErrorSource;
use super::file::disk_free_bytes;
use super::origin;
use super::parts::is_full;
use super::paths::allocated_bytes;
use super::room::{AGAIN_PAGES, Allocated, LOG_BYTES, Room, allocate};
use super::schema::PAGE_BYTES;
use super::spare_rows::{self, ROW_PAGES, SpareRows};

impl File<'_> {
    /// At the beginning: the file has as many pages as it has, and blocks for each of them.
    pub(super) fn own_all(&mut self) -> Result<(), StoreError> {
        let pages = self.count_pages()?.0;
        let bytes = u64::from(pages) * u64::from(PAGE_BYTES);
        let allocated = self.file.place.with_file(|file| allocate(file, 0, bytes));
        self.room = match allocated.unwrap_or(Allocated::Unknown) {
            Allocated::Unknown => Room::unknown(),
            // One that an older version left on a full disk lacks what its log has to be moved to.
            Allocated::Yes | Allocated::No => Room { pages_max: pages, ..Room::default() },
        };
        // What is wrong with a directory that is gone shows when the file is looked at.
        self.room.disk_free_bytes = disk_free_bytes(&self.file.place.paths).unwrap_or(0);
        self.measure_room()?;
        self.own(u64::from(pages)).map(drop)
    }

    /// Whether so many pages more can be used; has the file own them if the disk gives them.
    pub(super) fn has_room(&mut self, pages: u64) -> Result<bool, StoreError> {
        if self.room.has(pages) && !self.room.runs_low(pages) {
            return Ok(true);
        }
        self.measure_room()?;
        if self.room.has(pages) && !self.room.runs_low(pages) {
            return Ok(true);
        }
        self.own(self.room.used + pages)
    }

    /// Has the file own its first so many pages. Says whether it does.
    fn own(&mut self, pages: u64) -> Result<bool, StoreError> {
        let room = &mut self.room;
        let owns = self.file.place.with_file(|file| room.own(file, pages)).unwrap_or(false);
        self.limit_pages()?;
        Ok(owns)
    }

    /// What is said when there is none.
    pub(super) fn no_room(&self) -> StoreError {
        let source = ErrorSource::System(io::ErrorKind::StorageFull.into());
        StoreError::Full { file: self.file.path().to_path_buf(), source }
    }

    /// Counts the pages that are in use.
    pub(super) fn measure_room(&mut self) -> Result<(), StoreError> {
        let (pages, free) = self.count_pages()?;
        self.room.used = u64::from(pages.saturating_sub(free));
        Ok(())
    }

    /// The file was cut to its pages.
    pub(super) fn disown_rest(&mut self) -> Result<(), StoreError> {
        if self.room.is_unknown() {
            return Ok(());
        }
        let (pages, free) = self.count_pages()?;
        self.room.pages_max = pages;
        self.room.used = u64::from(pages.saturating_sub(free));
        if !self.room.is_all_there_is() && !self.room.has(self.room.ahead()) {
            return self.own(u64::from(pages)).map(drop);
        }
        self.limit_pages()
    }

    /// Gives the disk what the ballast takes, and the file what it needs of that. Says whether
    /// there was any.
    pub(super) fn throw_ballast_off(&mut self) -> bool {
        if !self.ballast.throw_off(&self.file.place.paths) {
            return false;
        }
        self.room.disk_free_bytes = self.room.disk_free_bytes.max(LOG_BYTES);
        // Whether it got anything shows with the next try.
        let _ = self.has_room(ROW_PAGES);
        true
    }

    /// Sets aside what is needed on a full disk, as far as there is plenty.
    pub(super) fn set_aside(&mut self) -> Result<(), StoreError> {
        let paths = &self.file.place.paths;
        let free = self.room.disk_free_bytes;
        self.ballast.take_in(paths, free);
        if self.room.log_bytes < LOG_BYTES {
            self.room.log_bytes = self.room.log_bytes.max(allocated_bytes(&paths.wal()));
        }
        if let Some(bytes) = self.room.log_bytes_wanted() {
            let log = OpenOptions::new().write(true).open(paths.wal());
            if log.is_ok_and(|log| allocate(&log, 0, bytes) != Allocated::No) {
                self.room.log_bytes = bytes;
            }
        }
        if self.room.is_all_there_is() {
            self.look_for_room()?;
        }
        if self.room.short {
            return Ok(());
        }
        let messages = self.file.place.messages();
        let (add, release) = (self.reserve.to_add(messages, free), self.reserve.too_many(messages));
        if add > 0 && self.has_room(add * (ROW_PAGES + 1))? {
            self.change_reserve(add, spare_rows::add)?;
        } else if release > 0 {
            self.change_reserve(release, spare_rows::release)?;
        }
        Ok(())
    }

    /// Whether messages that found no room would find some now.
    fn look_for_room(&mut self) -> Result<(), StoreError> {
        let refused = self.room.refused_bytes;
        let pages = AGAIN_PAGES + 2 * refused / u64::from(PAGE_BYTES);
        let log_has_room = refused <= LOG_BYTES / 2 || self.room.disk_free_bytes >= 2 * refused;
        self.measure_room()?;
        self.own(self.room.used + pages)?;
        if log_has_room && self.room.has(pages) {
            self.room.refused_bytes = 0;
        }
        Ok(())
    }

    fn change_reserve(
        &mut self,
        rows: u64,
        change: fn(&Connection) -> rusqlite::Result<()>,
    ) -> Result<(), StoreError> {
        self.let_go();
        let connection = &self.file.connection;
        let cookie = self.file.place.origin.get().cookie();
        let result = self.transaction(false, |_| {
            (0..rows).try_for_each(|_| change(connection))?;
            // A table that is made counts it on.
            origin::set_cookie(connection, cookie)
        });
        if is_full(&result) {
            return Ok(());
        }
        result?;
        self.reserve = SpareRows::find(connection)
            .map_err(|error| StoreError::database(self.file.path(), error))?;
        self.wrote_frames(rows * (ROW_PAGES + 2));
        self.measure_room()
    }

    /// Pages of the file, and those of them that are free.
    fn count_pages(&mut self) -> Result<(u32, u32), StoreError> {
        let mut count = || {
            let pages = self.pages.query_row([], |row| row.get(0))?;
            let free = self.free_pages.query_row([], |row| row.get(0))?;
            Ok((pages, free))
        };
        let counted = count();
        counted.map_err(|error| self.error(error))
    }

    /// Tells the database library how many pages there may be.
    fn limit_pages(&self) -> Result<(), StoreError> {
        let sql = format!("PRAGMA max_page_count = {}", self.room.pages_max);
        let told = self.file.connection.query_row(&sql, [], |_| Ok(()));
        told.map_err(|error| self.error(error))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{batch, folder, put, queue, reopen};
    use super::*;

    /// Answers once waited for a commit although nine tenths of what the last one was thought to have
    /// used were still there.
    #[test]
    fn what_a_large_commit_has_used_is_counted() {
        let (_directory, path) = folder();
        let store_file = reopen(&path).file.unwrap();
        let mut file = File::new(&store_file).unwrap();
        let puts = (1..=10_000).map(|id| put(id, 1, b"small"));
        file.commit(&batch(std::iter::once(queue(1, "q")).chain(puts)), false).unwrap();
        let used = file.room.used;
        file.measure_room().unwrap();
        assert_eq!(used, file.room.used);
    }
}
