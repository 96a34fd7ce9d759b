//! Makes a database one of the first format, as an earlier daemon has left it.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

const STATES: &str = "SELECT id, state, priority, sequence, due, expires, delay, reserves, \
                      timeouts, releases, buries, kicks FROM message_state";
const OTHER_TABLES: &str = "
    DROP TABLE message_state; DROP TABLE key; DROP TABLE binding; DROP TABLE queue_setting;
    CREATE TABLE message_state(
        id INTEGER PRIMARY KEY, state INTEGER NOT NULL, priority INTEGER NOT NULL,
        sequence INTEGER NOT NULL, due INTEGER, expires INTEGER, delay INTEGER NOT NULL,
        reserves INTEGER NOT NULL, timeouts INTEGER NOT NULL, releases INTEGER NOT NULL,
        buries INTEGER NOT NULL, kicks INTEGER NOT NULL, crc INTEGER NOT NULL
    ) STRICT;
    PRAGMA user_version = 1;";

/// Gives a closed database the tables of the first format.
pub fn downgrade(path: &Path) {
    let mut file = Connection::open(path).unwrap();
    let cookie: i64 = file.query_row("PRAGMA schema_version", [], |row| row.get(0)).unwrap();
    let transaction = file.transaction().unwrap();
    let mut states: Vec<[Option<i64>; 12]> = Vec::new();
    {
        let mut statement = transaction.prepare(STATES).unwrap();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let mut columns = [None; 12];
            for (index, column) in columns.iter_mut().enumerate() {
                *column = row.get(index).unwrap();
            }
            states.push(columns);
        }
    }
    transaction.execute_batch(OTHER_TABLES).unwrap();
    for columns in states {
        let bytes = columns.map(|column| column.unwrap_or(i64::MIN).to_be_bytes());
        let crc = i64::from(crc32c::crc32c(bytes.as_flattened()));
        let insert = "INSERT INTO message_state VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)";
        let values = columns.into_iter().chain([Some(crc)]);
        transaction.execute(insert, rusqlite::params_from_iter(values)).unwrap();
    }
    transaction.execute_batch(&format!("PRAGMA schema_version = {cookie}")).unwrap();
    transaction.commit().unwrap();
    file.close().unwrap();
}

/// Removes a message in the log alone, as a daemon does that is killed then.
pub fn remove_in_log(path: &Path, id: u64) {
    let file = Connection::open(path).unwrap();
    file.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    let id = i64::try_from(id).unwrap();
    file.execute("DELETE FROM message_state WHERE id = ?", [id]).unwrap();
    file.execute("DELETE FROM message WHERE id = ?", [id]).unwrap();
}
