//! The macros that implement the contract: sqlx has no type for "a statement of any database".
//!
//! A file that uses them needs nothing in scope except the macros themselves: all paths in them
//! begin with `$crate`, or are imported there. `repeat_lost!`, `attempt!` and `run!` are
//! expressions of an async function. `$store` is a store with a field `statements`, and `$pool` one
//! of its fields `reader` and `writer`.

/// A statement's result. A statement that lost a race runs again.
macro_rules! repeat_lost {
    ($statement:expr) => {
        loop {
            match $statement.await {
                Err(error) if $crate::store::sql::statements::lost_a_race(&error) => {}
                result => break result,
            }
        }
    };
}
pub(super) use repeat_lost;

/// The result of a statement on a connection of one of the store's pools.
macro_rules! attempt {
    ($store:ident, $pool:ident.$method:ident($statement:expr)) => {
        $crate::store::sql::implement::repeat_lost!(async {
            let dialect = $store.statements.dialect;
            let mut call =
                $crate::store::sql::connections::Call::begin(&$store.$pool, dialect).await?;
            let statement = $statement;
            $crate::store::sql::connections::Begun::new(dialect, async move {
                let answer = statement.$method(call.connection()?).await;
                call.end(&answer);
                answer
            })
            .await
        })
    };
}
pub(super) use attempt;

/// The same. It returns the store's error from the function, if the statement failed.
macro_rules! run {
    ($store:ident, $what:literal, $pool:ident.$method:ident($statement:expr)) => {
        $crate::store::sql::implement::attempt!($store, $pool.$method($statement))
            .map_err(|error| $store.statements.failed($what, error))?
    };
}
pub(super) use run;

/// One write on a connection: whether it took effect. Takes the statements, the write, and the
/// connection.
macro_rules! write_one {
    ($statements:expr, $write:expr, $connection:expr) => {{
        use $crate::store::sql::calls::Write;
        use $crate::store::sql::statements::{sql, to_integer};

        let (statements, connection) = ($statements, $connection);
        let done = match $write {
            Write::Insert(row) => {
                sqlx::query(sql(&statements.insert))
                    .bind(row.id())
                    .bind(row.version())
                    .bind(row.user())
                    .bind(row.external_id())
                    .bind(row.expires_at())
                    .bind(row.bytes())
                    .execute(connection)
                    .await
            }
            Write::Replace(expected, row) => {
                sqlx::query(sql(&statements.replace))
                    .bind(row.version())
                    .bind(row.user())
                    .bind(row.external_id())
                    .bind(row.kept_above())
                    .bind(row.expires_at())
                    .bind(row.bytes())
                    .bind(row.id())
                    .bind(to_integer(expected.as_u64()))
                    .execute(connection)
                    .await
            }
            Write::Touch(id, record) => {
                sqlx::query(sql(&statements.touch))
                    .bind(to_integer(record.expires_at().as_millis()))
                    .bind(&id.as_bytes()[..])
                    .bind(to_integer(record.version().as_u64()))
                    .execute(connection)
                    .await
            }
            Write::Remove(id) => {
                sqlx::query(sql(&statements.remove))
                    .bind(&id.as_bytes()[..])
                    .execute(connection)
                    .await
            }
        };
        match done {
            Ok(done) => Ok(done.rows_affected() == 1),
            // Only an insert can be such an error: the id is taken.
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(false),
            Err(error) => Err(error),
        }
    }};
}
pub(super) use write_one;

/// What the stores have in common: their table's name, and the contract.
///
/// Takes the store, sqlx's types for its database and rows, the type of its writes, its dialect,
/// and the type of its feed. The store has the fields `reader`, `writer`, `statements`, `loads`,
/// `writes` and `feed`, and a method `purge`. Its `writes` run a [`Write`](super::calls::Write).
/// Its `feed` has a default, a method `of` that answers the store as one with a feed, and a method
/// `wrote` that is called after each write.
macro_rules! implement_store {
    ($Store:ident, $Database:ty, $Row:ty, $Writes:ident, $dialect:ident, $Feed:ident) => {
        $crate::store::sql::batches::implement_loads!($Database, $Row);

        const _: () = {
            use std::fmt;

            use async_trait::async_trait;
            use sqlx::Row as _;

            use $crate::clock::Timestamp;
            use $crate::error::StoreError;
            use $crate::id::RecordId;
            use $crate::record::user::UserId;
            use $crate::record::{Record, Version};
            use $crate::store::batch::{Batches, READ_LANES};
            use $crate::store::catalog::walk::IdWalk;
            use $crate::store::catalog::{Accept, Cursor, Scan, SessionCatalog};
            use $crate::store::feed::SessionFeed;
            use $crate::store::sql::calls::{Row, StoredRow, Write};
            use $crate::store::sql::connections::Connections;
            use $crate::store::sql::dialect::Table;
            use $crate::store::sql::implement::run;
            use $crate::store::sql::statements::{Statements, sql, to_timestamp};
            use $crate::store::{Replaced, SessionStore, UserIndex};

            impl $Store {
                /// The name of the table, of 1 to 50 bytes. If this is not called, it is
                /// `cloakroom_sessions`.
                ///
                /// # Errors
                ///
                /// The name is empty, too long, or has a NUL in it.
                pub fn with_table(self, name: impl Into<String>) -> Result<Self, StoreError> {
                    let table = self.statements.table.clone().named(name.into())?;
                    Ok(self.on(table))
                }

                fn on(self, table: Table) -> Self {
                    let feed = self.feed;
                    Self {
                        feed,
                        ..Self::of_table(self.reader, self.writer, table)
                    }
                }

                fn over(reader: Connections<$Database>, writer: Connections<$Database>) -> Self {
                    Self::of_table(reader, writer, Table::default())
                }

                fn of_table(
                    reader: Connections<$Database>,
                    writer: Connections<$Database>,
                    table: Table,
                ) -> Self {
                    let statements = Statements::new(&$dialect, table);
                    let loads = Loads {
                        connections: reader.clone(),
                        many: many::LoadMany::new(&statements),
                        statements: statements.clone(),
                    };
                    Self {
                        loads: Batches::new(loads, READ_LANES),
                        writes: $Writes::new(writer.clone(), statements.clone()),
                        reader,
                        writer,
                        statements,
                        feed: $Feed::default(),
                    }
                }

                async fn write(&self, write: Write) -> Result<bool, StoreError> {
                    let is_done = self.writes.run(write).await?;
                    self.feed.wrote();
                    Ok(is_done)
                }
            }

            /// The record of a row. If a column has another type, the record is corrupt.
            fn to_record(id: RecordId, row: StoredRow) -> Option<Record> {
                let record = Record::decode(id, row.record)?;
                Some(record.with_expires_at(to_timestamp(row.expires_at)))
            }

            /// The id of a row of `id, expires_at, record`.
            fn to_id(row: &$Row) -> Option<RecordId> {
                let id: &[u8] = row.try_get(0).ok()?;
                Some(RecordId::from_bytes(id.try_into().ok()?))
            }

            /// The session of such a row. `None` if it is corrupt.
            fn to_session(row: &$Row) -> Option<(RecordId, Record)> {
                let id = to_id(row)?;
                Some((id, to_record(id, stored(row, 1))?))
            }

            #[async_trait]
            impl SessionStore for $Store {
                async fn load(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
                    let row = self.loads.run(id).await?;
                    Ok(row.and_then(|row| to_record(id, row)))
                }

                async fn insert(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
                    self.write(Write::Insert(Row::new(id, record)?)).await
                }

                async fn replace(
                    &self,
                    id: RecordId,
                    expected: Version,
                    record: &Record,
                ) -> Result<Replaced, StoreError> {
                    let write = Write::Replace(expected, Row::new(id, record)?);
                    if self.write(write).await? {
                        return Ok(Replaced::Done);
                    }
                    Ok(match self.loads.run(id).await? {
                        Some(_) => Replaced::Conflict,
                        None => Replaced::Missing,
                    })
                }

                async fn touch(&self, id: RecordId, record: &Record) -> Result<bool, StoreError> {
                    self.write(Write::Touch(id, record.clone())).await
                }

                async fn remove(&self, id: RecordId) -> Result<bool, StoreError> {
                    self.write(Write::Remove(id)).await
                }

                async fn purge_expired(&self, now: Timestamp) -> Result<u64, StoreError> {
                    let purged = self.purge(now).await;
                    self.feed.wrote();
                    purged
                }

                fn session_feed(&self) -> Option<&dyn SessionFeed> {
                    self.feed.of(self)
                }
            }

            #[async_trait]
            impl UserIndex for $Store {
                async fn find_by_user(
                    &self,
                    user: &UserId,
                ) -> Result<Vec<(RecordId, Record)>, StoreError> {
                    let rows = run!(
                        self,
                        "list a user's sessions",
                        reader.fetch_all(
                            sqlx::query(sql(&self.statements.find_by_user)).bind(user.as_str())
                        )
                    );
                    Ok(rows.iter().filter_map(to_session).collect())
                }

                async fn remove_by_user(
                    &self,
                    user: &UserId,
                    except: Option<RecordId>,
                ) -> Result<u64, StoreError> {
                    // No id is empty.
                    let except = except.as_ref().map_or(&[][..], |id| id.as_bytes());
                    let done = run!(
                        self,
                        "remove a user's sessions",
                        writer.execute(
                            sqlx::query(sql(&self.statements.remove_by_user))
                                .bind(user.as_str())
                                .bind(except)
                        )
                    );
                    self.feed.wrote();
                    Ok(done.rows_affected())
                }
            }

            #[async_trait]
            impl SessionCatalog for $Store {
                async fn scan(
                    &self,
                    after: Option<&Cursor>,
                    limit: usize,
                    accept: &Accept<'_>,
                ) -> Result<Option<Scan>, StoreError> {
                    let Some(mut walk) = IdWalk::new(after, limit, accept) else {
                        return Ok(None);
                    };
                    loop {
                        let part = walk.next_part();
                        let after = walk.after();
                        // No id is empty.
                        let after = after.as_ref().map_or(&[][..], |id| id.as_bytes());
                        // One more row tells whether another part follows.
                        let limit = i64::try_from(part).unwrap_or(i64::MAX).saturating_add(1);
                        let rows = run!(
                            self,
                            "list sessions",
                            reader.fetch_all(
                                sqlx::query(sql(&self.statements.scan))
                                    .bind(after)
                                    .bind(limit)
                            )
                        );
                        let mut rest = rows.iter();
                        for row in rest.by_ref().take(part) {
                            let Some(id) = to_id(row) else { continue };
                            walk.look_at(id, to_record(id, stored(row, 1)));
                            if walk.is_full() {
                                break;
                            }
                        }
                        if rest.len() == 0 || walk.is_full() {
                            return Ok(Some(walk.finish(rest.len() == 0)));
                        }
                    }
                }

                async fn find_by_external_id(
                    &self,
                    external_id: &str,
                ) -> Result<Vec<(RecordId, Record)>, StoreError> {
                    let rows = run!(
                        self,
                        "find sessions by their external id",
                        reader.fetch_all(
                            sqlx::query(sql(&self.statements.find_by_external_id))
                                .bind(external_id)
                        )
                    );
                    Ok(rows.iter().filter_map(to_session).collect())
                }
            }

            impl fmt::Debug for $Store {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.debug_struct(stringify!($Store))
                        .field("table", &self.statements.table)
                        .field("connections", &self.writer.count())
                        .finish_non_exhaustive()
                }
            }
        };
    };
}
pub(super) use implement_store;

/// `with_schema`, for the databases that have schemas. Takes what the method's documentation says
/// of the schema, and the store.
#[cfg(any(feature = "mysql", feature = "postgres"))]
macro_rules! implement_with_schema {
    ($(#[$doc:meta])* $Store:ident) => {
        impl $Store {
            $(#[$doc])*
            ///
            /// # Errors
            ///
            /// The name is empty, too long, or has a NUL in it.
            pub fn with_schema(
                self,
                schema: impl Into<String>,
            ) -> Result<Self, $crate::error::StoreError> {
                let table = self.statements.table.clone().in_schema(schema.into())?;
                Ok(self.on(table))
            }
        }
    };
}
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub(super) use implement_with_schema;

/// `make_table`, for the databases that make no transaction of it. Takes the store.
#[cfg(any(feature = "mysql", feature = "sqlite"))]
macro_rules! implement_make_table {
    ($Store:ident) => {
        impl $Store {
            async fn make_table(&self) -> Result<(), $crate::error::StoreError> {
                for statement in self.migration() {
                    $crate::store::sql::implement::run!(
                        self,
                        "make the session table",
                        writer.execute(sqlx::query(sqlx::AssertSqlSafe(statement.clone())))
                    );
                }
                Ok(())
            }
        }
    };
}
#[cfg(any(feature = "mysql", feature = "sqlite"))]
pub(super) use implement_make_table;
