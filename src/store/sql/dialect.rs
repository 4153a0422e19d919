//! [`Dialect`]: where the databases differ. [`Table`]: the name of the table.

use std::sync::Arc;

use sqlx::error::DatabaseError;

use crate::error::StoreError;

/// How many bytes the name of a table may have. PostgreSQL cuts a name after 63 bytes without an
/// error, and the name of an index is made of the names of the table and of a column.
const LONGEST_TABLE: usize = 50;

/// How many bytes the name of a schema may have.
#[cfg(any(feature = "mysql", feature = "postgres"))]
const LONGEST_SCHEMA: usize = 63;

/// Removes a user's records, in a database that needs no order of locks for it.
#[cfg(any(feature = "mysql", feature = "sqlite"))]
pub(super) const REMOVE_BY_USER: &str = "DELETE FROM {table} WHERE user_id = ? AND id <> ?";

/// For a database whose errors need no advice.
#[cfg(any(feature = "mysql", feature = "sqlite"))]
pub(super) fn no_advice(_: &dyn DatabaseError) -> Option<&'static str> {
    None
}

/// Where the databases differ.
#[derive(Debug)]
pub(super) struct Dialect {
    /// The database's name, for errors.
    pub(super) context: &'static str,
    /// The store's name, for errors.
    pub(super) store: &'static str,
    /// The character that quotes an identifier. Inside the identifier, it is doubled.
    pub(super) quote: char,
    /// Whether parameters are numbered (`$1`). Otherwise each is a `?`.
    pub(super) numbered: bool,
    /// What an error of a missing table has: this code, or this text in its message.
    pub(super) no_table: &'static str,
    /// Whether the database is a server, and not in this process.
    pub(super) is_remote: bool,
    /// The option of a URL that names the file of the authority for TLS.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(super) authority: &'static str,
    /// Whether an error belongs to the statement alone. Then the connection and the server are as
    /// good as before.
    pub(super) is_of_statement: fn(&dyn DatabaseError) -> bool,
    /// Whether one of the records may be the reason of an error. Then the statement had no effect,
    /// and another record may pass.
    pub(super) is_of_record: fn(&dyn DatabaseError) -> bool,
    /// What to do about an error, if the store knows more than the database says.
    pub(super) advice: fn(&dyn DatabaseError) -> Option<&'static str>,
    /// Removes some expired records. The last parameters are the time and the most records.
    pub(super) purge: &'static str,
    /// Removes a user's records, except the one of an id.
    pub(super) remove_by_user: &'static str,
}

impl Dialect {
    pub(super) fn quote(&self, identifier: &str) -> String {
        let quote = self.quote;
        let inner = identifier.replace(quote, &format!("{quote}{quote}"));
        format!("{quote}{inner}{quote}")
    }

    /// The end of an error's text: a colon and what to do, or nothing.
    pub(super) fn advice(&self, error: &sqlx::Error) -> String {
        let advice = error.as_database_error().and_then(self.advice);
        advice.map_or(String::new(), |advice| format!(": {advice}"))
    }

    /// Renders a text in which each `?` is a parameter and `{table}` is the table.
    pub(super) fn statement(&self, table: &Table, text: &str) -> Arc<str> {
        let mut statement = String::new();
        let mut parameters = 0;
        for part in text.split_inclusive('?') {
            match part.strip_suffix('?') {
                Some(before) if self.numbered => {
                    parameters += 1;
                    statement += &format!("{before}${parameters}");
                }
                _ => statement += part,
            }
        }
        statement.replace("{table}", &table.quoted(self)).into()
    }
}

/// The table's name, and its schema. Without a schema, the connection's own counts.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) schema: Option<String>,
    pub(super) name: String,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            schema: None,
            name: "cloakroom_sessions".into(),
        }
    }
}

impl Table {
    pub(super) fn named(self, name: String) -> Result<Self, StoreError> {
        check_name("table", &name, LONGEST_TABLE)?;
        Ok(Self { name, ..self })
    }

    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(super) fn in_schema(self, schema: String) -> Result<Self, StoreError> {
        check_name("schema", &schema, LONGEST_SCHEMA)?;
        let schema = Some(schema);
        Ok(Self { schema, ..self })
    }

    pub(super) fn quoted(&self, dialect: &Dialect) -> String {
        let name = dialect.quote(&self.name);
        match &self.schema {
            Some(schema) => format!("{}.{name}", dialect.quote(schema)),
            None => name,
        }
    }

    /// The quoted name of something that belongs to the table, such as an index. It is in the
    /// table's schema.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(super) fn index(&self, dialect: &Dialect, of: &str) -> String {
        dialect.quote(&format!("{}_{of}", self.name))
    }
}

/// Refuses a name that is too long or has a NUL. A database may cut such a name without an error,
/// and then two tables would be one.
fn check_name(what: &str, name: &str, longest: usize) -> Result<(), StoreError> {
    if name.is_empty() || name.len() > longest || name.contains('\0') {
        return Err(StoreError::new(format!(
            "the name of the session {what} must have 1 to {longest} bytes, none of them NUL; \
             this one has {} bytes",
            name.len()
        )));
    }
    Ok(())
}
