//! `phpmqctl import-binlog`: makes a database of the jobs that a stopped beanstalkd has left.
//!
//! Works on files alone: jobs keep their ids, states and counters, which no protocol can hand over.

use std::path::PathBuf;

use clap::Args;

use crate::binlog::{self, Binlog, BinlogError, Fault, Imported};
use crate::config::DATABASE_NAME;

/// The exit code when something that is in the binlog could not be read.
const EXIT_NOT_ALL: u8 = 1;
/// Lines that tell what could not be read, at most.
const FAULTS_TOLD_MAX: usize = 100;

/// What is to be imported, and where to.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The directory that beanstalkd was given with -b
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// The new database; by default the one in DIR that phpmqd makes when called as beanstalkd
    #[arg(long, value_name = "PATH")]
    database: Option<PathBuf>,

    /// Only tell what would be imported
    #[arg(long)]
    dry_run: bool,
}

/// Does it, and says what came of it: the exit code.
pub(super) fn run(options: &Options) -> u8 {
    match import(options) {
        Ok(is_all) => {
            if is_all {
                0
            } else {
                EXIT_NOT_ALL
            }
        }
        Err(error) => {
            eprintln!("phpmqctl: {error}");
            error.exit_code()
        }
    }
}

/// Whether all of it could be read.
fn import(options: &Options) -> Result<bool, BinlogError> {
    let binlog = Binlog::read(&options.directory, &mut |_| ())?;
    for fault in binlog.faults().iter().take(FAULTS_TOLD_MAX) {
        eprintln!("phpmqctl: {fault}");
    }
    if binlog.faults().len() > FAULTS_TOLD_MAX {
        eprintln!("phpmqctl: and {} more", binlog.faults().len() - FAULTS_TOLD_MAX);
    }
    let default = options.directory.join(DATABASE_NAME);
    let database = options.database.as_ref().unwrap_or(&default);
    if options.dry_run {
        println!("{}; nothing was written", told(&binlog.summary()));
    } else {
        let imported = binlog::import(&binlog, database, &mut |_| ())?;
        println!("{}; imported into {}", told(&imported), database.display());
    }
    Ok(!binlog.faults().iter().any(Fault::is_loss))
}

fn told(imported: &Imported) -> String {
    let Imported { files, jobs, ready, delayed, buried, body_bytes, next_id, .. } = imported;
    format!(
        "{files} files, {jobs} jobs ({ready} ready, {delayed} delayed, {buried} buried), \
         {body_bytes} bytes, next id {next_id}"
    )
}
