//! The table of what a repair has found damaged, for people to look at. The daemon never reads what
//! is in it, but keeps it through every rewrite of the file.
//!
//! Only a repaired database has this table.

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, Result, Row, Statement, params, params_from_iter};

/// A row of the table, whatever is in it: number, source, id, columns, attributes, body.
#[derive(Clone, Debug, PartialEq)]
pub struct Quarantined([Value; 6]);

/// No column has a type that could refuse what was found.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS quarantine(
        number INTEGER PRIMARY KEY, source TEXT, id, columns TEXT, attributes, body
    )";
const ADD: &str =
    "INSERT INTO quarantine(source, id, columns, attributes, body) VALUES (?,?,?,?,?)";
const READ: &str = "SELECT number, source, id, columns, attributes, body FROM quarantine \
                    WHERE number > ?1 ORDER BY number";
const KEEP: &str = "INSERT OR REPLACE INTO quarantine VALUES (?,?,?,?,?,?)";

impl Quarantined {
    /// A row of the statement of [`reader`].
    pub(super) fn of(row: &Row<'_>) -> Result<Quarantined> {
        let mut values = [const { Value::Null }; 6];
        for (index, value) in values.iter_mut().enumerate() {
            *value = row.get(index)?;
        }
        Ok(Quarantined(values))
    }

    /// Its place in the table.
    pub(super) fn number(&self) -> i64 {
        match self.0[0] {
            Value::Integer(number) => number,
            _ => i64::MAX,
        }
    }

    /// Bytes of it.
    pub(super) fn bytes(&self) -> usize {
        let bytes = |value: &Value| match value {
            Value::Blob(bytes) => bytes.len(),
            Value::Text(text) => text.len(),
            _ => 0,
        };
        self.0.iter().map(bytes).sum()
    }
}

/// Makes the table. Without one nothing was ever damaged.
pub(super) fn make(connection: &Connection) -> Result<()> {
    connection.execute_batch(TABLE)
}

/// What reads the rows after a number; `None` where there is no such table.
pub(super) fn reader(connection: &Connection) -> Option<Statement<'_>> {
    connection.prepare(READ).ok()
}

/// Puts rows in as they are.
pub(super) fn keep(connection: &Connection, rows: &[Quarantined]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    make(connection)?;
    let mut statement = connection.prepare(KEEP)?;
    for Quarantined(values) in rows {
        statement.execute(params_from_iter(values))?;
    }
    Ok(())
}

/// What adds a damaged row.
pub(super) fn adder(connection: &Connection) -> Result<Statement<'_>> {
    connection.prepare(ADD)
}

/// What takes the row of a source and an id out again.
pub(super) fn remover(connection: &Connection) -> Result<Statement<'_>> {
    connection.prepare(
        "DELETE FROM quarantine WHERE number = \
         (SELECT max(number) FROM quarantine WHERE source = ? AND id = ?)",
    )
}

/// Puts a row back that was read from a damaged table.
pub(super) fn keep_found(
    connection: &Connection,
    number: i64,
    values: &[ValueRef<'_>],
) -> Result<()> {
    let mut row = [const { Value::Null }; 6];
    for (value, found) in row.iter_mut().zip(values) {
        *value = match found {
            // Whatever it is, it is kept as text only when it is one.
            ValueRef::Text(bytes) => match str::from_utf8(bytes) {
                Ok(text) => Value::Text(text.to_owned()),
                Err(_) => Value::Blob(bytes.to_vec()),
            },
            other => Value::try_from(*other)?,
        };
    }
    row[0] = Value::Integer(number);
    keep(connection, &[Quarantined(row)])
}

/// Adds a damaged row, its numbers as a text that people can read.
pub(super) fn add(adder: &mut Statement<'_>, source: &str, row: &Row<'_>) -> Result<()> {
    let names: Vec<&str> = row.as_ref().column_names().collect();
    let values = (0..names.len()).map(|index| row.get_ref(index)).collect::<Result<Vec<_>>>()?;
    add_found(adder, source, row.get(0)?, &names, &values)
}

/// Adds a damaged row of these columns, of which the first is its id.
pub(super) fn add_found(
    adder: &mut Statement<'_>,
    source: &str,
    id: i64,
    names: &[&str],
    values: &[ValueRef<'_>],
) -> Result<()> {
    let mut columns = format!("id={id} ");
    let mut blobs = [ValueRef::Null; 2];
    for (name, value) in names.iter().zip(values).skip(1) {
        match *name {
            "attributes" => blobs[0] = *value,
            "body" => blobs[1] = *value,
            _ => columns.push_str(&match value {
                ValueRef::Integer(number) => format!("{name}={number} "),
                ValueRef::Null => format!("{name}=NULL "),
                other => format!("{name}={other:?} "),
            }),
        }
    }
    let [attributes, body] = blobs.map(ToSqlOutput::Borrowed);
    adder.execute(params![source, id, columns.trim(), attributes, body])?;
    Ok(())
}

/// Adds a row with a text in the place of its columns.
pub(super) fn add_values(
    adder: &mut Statement<'_>,
    source: &str,
    id: i64,
    columns: &str,
    [attributes, body]: [Option<&[u8]>; 2],
) -> Result<()> {
    adder.execute(params![source, id, columns, attributes, body])?;
    Ok(())
}
