//! The jobs that beanstalkd has left in the directory that the daemon is to keep its own in.

use slog::{Logger, info, warn};

use super::start::MORE_TIME;
use super::{DaemonError, Plan};
use crate::binlog::{self, Binlog, BinlogError, DirectoryLock, Fault};
use crate::daemon::systemd::Notifier;
use crate::store;

/// Lines of the log that tell what could not be read, at most.
const FAULTS_LOGGED_MAX: usize = 10;

/// Imports what beanstalkd has left, if there is no database yet.
pub(super) fn import_binlog(
    plan: &Plan,
    notifier: &Notifier,
    log: &Logger,
) -> Result<(), DaemonError> {
    let (Some(directory), Some(database)) = (&plan.binlog, &plan.config.storage.database) else {
        return Ok(());
    };
    if store::exists(database) {
        return Ok(());
    }
    let tell = |what: &str, jobs| {
        notifier.extend_timeout(MORE_TIME);
        notifier.status(&format!("{what} the binlog of beanstalkd; {jobs} jobs so far"));
    };
    let read = match Binlog::read(directory, &mut |jobs| tell("Reading", jobs)) {
        // A directory that does not exist is the database's trouble.
        Err(BinlogError::NoBinlog { .. }) => return Ok(()),
        Err(BinlogError::Read { .. }) if !directory.is_dir() => return Ok(()),
        read => read?,
    };
    let imported = match binlog::import(&read, database, &mut |jobs| tell("Importing", jobs)) {
        // Another daemon was faster; opening the database will tell.
        Err(BinlogError::DatabaseExists { .. }) => return Ok(()),
        imported => imported?,
    };
    log_faults(read.faults(), log);
    info!(log, "binlog of beanstalkd imported"; "directory" => %directory.display(), "files" => imported.files,
        "jobs" => imported.jobs, "ready" => imported.ready, "delayed" => imported.delayed,
        "buried" => imported.buried, "bytes" => imported.body_bytes,
        "next_id" => imported.next_id);
    let message_size_max = plan.config.limits.max_message_size;
    if imported.body_bytes_max > message_size_max as u64 {
        warn!(log, "some imported jobs are larger than new jobs may be";
            "largest" => imported.body_bytes_max, "max_message_size" => message_size_max);
    }
    Ok(())
}

/// Says so when beanstalkd has left something that is not in the database, and keeps it away from
/// its directory as long as the lock lives.
pub(super) fn guard_binlog(plan: &Plan, log: &Logger) -> Option<DirectoryLock> {
    let (directory, database) = (plan.binlog.as_ref()?, plan.config.storage.database.as_ref()?);
    let place = directory.display();
    match binlog::check_mark(directory, database) {
        None => {}
        Some(Ok(jobs)) => {
            warn!(log, "beanstalkd's binlog is newer than the database and is not \
            imported, since the database exists"; "directory" => %place, "jobs" => jobs)
        }
        Some(Err(error)) => warn!(log, "beanstalkd's binlog is newer than the database and is not \
            imported, since the database exists"; "directory" => %place, "error" => %error),
    }
    // After the look at it: that has opened and closed the lock's file.
    DirectoryLock::keep(directory).unwrap_or_else(|error| {
        warn!(log, "cannot lock the binlog: a beanstalkd started there would deliver the \
            imported jobs again";
            "directory" => %place, "error" => %error);
        None
    })
}

fn log_faults(faults: &[Fault], log: &Logger) {
    for fault in faults.iter().take(FAULTS_LOGGED_MAX) {
        warn!(log, "part of the binlog was not imported"; "what" => %fault);
    }
    if faults.len() > FAULTS_LOGGED_MAX {
        warn!(log, "more parts of the binlog were not imported";
            "parts" => faults.len() - FAULTS_LOGGED_MAX);
    }
}
