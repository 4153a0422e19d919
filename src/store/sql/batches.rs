//! The macros that run batches on a database: see [`implement`](super::implement).

#[cfg(any(feature = "postgres", feature = "sqlite"))]
use crate::store::batch::Lanes;

/// The lanes of writes, if the database is a server. Its disk syncs one batch while the next is on
/// the way.
#[cfg(feature = "postgres")]
pub(super) const WRITE_LANES: Lanes = Lanes { usual: 2, most: 6 };

/// The lane of writes, if the database takes one write at a time.
#[cfg(feature = "sqlite")]
pub(super) const ONE_LANE: Lanes = Lanes { usual: 1, most: 1 };

/// `Loads`, which runs batches of reads. Takes sqlx's types for the database and its rows.
///
/// The store's module `many` has the type `LoadMany`, which is made of the [`Statements`], and a
/// method `Loads::read_many`, which reads several records.
///
/// [`Statements`]: super::statements::Statements
macro_rules! implement_loads {
    ($Database:ty, $Row:ty) => {
        /// Reads of records.
        struct Loads {
            connections: $crate::store::sql::connections::Connections<$Database>,
            statements: std::sync::Arc<$crate::store::sql::statements::Statements>,
            many: many::LoadMany,
        }

        /// The expiry and the record of a row, which begin at this column. A column of another type
        /// makes a corrupt record.
        fn stored(row: &$Row, first: usize) -> $crate::store::sql::calls::StoredRow {
            use sqlx::Row as _;

            $crate::store::sql::calls::StoredRow {
                expires_at: row.try_get(first).unwrap_or(0),
                record: bytes::Bytes::copy_from_slice(row.try_get(first + 1).unwrap_or_default()),
            }
        }

        /// The rows of these ids, in their order. The columns are the id, the expiry, the record.
        fn in_order(
            ids: &[$crate::id::RecordId],
            rows: &[$Row],
        ) -> Result<Vec<Option<$crate::store::sql::calls::StoredRow>>, sqlx::Error> {
            use sqlx::Row as _;

            let mut found =
                $crate::id::maps::IdMap::with_capacity_and_hasher(rows.len(), Default::default());
            for row in rows {
                if let Ok(id) = row.try_get::<&[u8], _>(0)?.try_into() {
                    found.insert($crate::id::RecordId::from_bytes(id), row);
                }
            }
            let row = |id: &_| found.get(id).map(|row| stored(row, 1));
            Ok(ids.iter().map(row).collect())
        }

        const _: () = {
            use std::time::Duration;

            use sqlx::Error;

            use $crate::id::RecordId;
            use $crate::store::batch::{BatchError, BatchRunner};
            use $crate::store::sql::calls::StoredRow;
            use $crate::store::sql::connections::Call;
            use $crate::store::sql::implement::repeat_lost;
            use $crate::store::sql::statements::sql;

            impl BatchRunner for Loads {
                type Call = RecordId;
                type Answer = Option<StoredRow>;

                fn abandoned_timeout(&self) -> Option<Duration> {
                    self.statements.dialect.abandoned_timeout()
                }

                fn can_share_batch(&self, _: &RecordId, _: &RecordId) -> bool {
                    true
                }

                async fn run(
                    &self,
                    ids: &[RecordId],
                ) -> Result<Vec<Option<Self::Answer>>, BatchError> {
                    match repeat_lost!(self.attempt(ids)) {
                        Ok(rows) => Ok(rows.into_iter().map(Some).collect()),
                        Err(error) => Err(self.statements.batch_failed("read a session", error)),
                    }
                }
            }

            impl Loads {
                async fn attempt(&self, ids: &[RecordId]) -> Result<Vec<Option<StoredRow>>, Error> {
                    let mut call = Call::begin(&self.connections, self.statements.dialect).await?;
                    let connection = call.connection()?;
                    let rows = match ids {
                        [id] => self.read_one(id, connection).await,
                        _ => self.read_many(ids, connection).await,
                    };
                    call.end(&rows);
                    rows
                }

                async fn read_one(
                    &self,
                    id: &RecordId,
                    connection: &mut <$Database as sqlx::Database>::Connection,
                ) -> Result<Vec<Option<StoredRow>>, Error> {
                    let read = sqlx::query(sql(&self.statements.load)).bind(&id.as_bytes()[..]);
                    let row = read.fetch_optional(connection).await?;
                    Ok(vec![row.map(|row| stored(&row, 0))])
                }
            }
        };
    };
}
pub(super) use implement_loads;

/// `Writes`, which runs writes in batches. Takes sqlx's type for the database, the texts of the
/// statements, the lanes, whether a batch can have writes of several kinds, in one transaction, and
/// whether the statements leave out rows that another transaction has locked.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
macro_rules! implement_batched_writes {
    (
        $Database:ty, $texts:ident, lanes: $lanes:expr, mixes_kinds: $mixes_kinds:literal,
        skips_locked: $skips_locked:literal
    ) => {
        /// Writes of records, which wait for each other.
        #[derive(Clone)]
        struct Writes($crate::store::batch::Batches<WriteRunner>);

        struct WriteRunner {
            connections: $crate::store::sql::connections::Connections<$Database>,
            statements: std::sync::Arc<$crate::store::sql::statements::Statements>,
            many: $crate::store::sql::statements::WriteMany,
        }

        const _: () = {
            use std::sync::Arc;
            use std::time::Duration;

            use sqlx::{Connection, Error, Row as _};

            use $crate::error::StoreError;
            use $crate::id::RecordId;
            use $crate::id::maps::IdSet;
            use $crate::store::batch::{BatchCall as _, BatchError, BatchRunner, Batches};
            use $crate::store::sql::calls::{Row, Write, WriteKind};
            use $crate::store::sql::connections::{Call, Connections};
            use $crate::store::sql::implement::{repeat_lost, write_one};
            use $crate::store::sql::statements::{Statements, WriteMany};

            type Conn = <$Database as sqlx::Database>::Connection;

            impl Writes {
                fn new(connections: Connections<$Database>, statements: Arc<Statements>) -> Self {
                    let runner = WriteRunner {
                        connections,
                        many: WriteMany::new(&statements, &$texts),
                        statements,
                    };
                    Self(Batches::new(runner, $lanes))
                }

                async fn run(&self, write: Write) -> Result<bool, StoreError> {
                    self.0.run(write).await
                }
            }

            impl BatchRunner for WriteRunner {
                type Call = Write;
                type Answer = bool;

                fn abandoned_timeout(&self) -> Option<Duration> {
                    self.statements.dialect.abandoned_timeout()
                }

                fn can_share_batch(&self, one: &Write, other: &Write) -> bool {
                    $mixes_kinds || one.kind() == other.kind()
                }

                async fn run(&self, writes: &[Write]) -> Result<Vec<Option<bool>>, BatchError> {
                    let what = Write::what_all(writes);
                    self.many.count(writes);
                    let result = repeat_lost!(self.attempt(writes));
                    result.map_err(|error| self.statements.batch_failed(what, error))
                }
            }

            impl WriteRunner {
                async fn attempt(&self, writes: &[Write]) -> Result<Vec<Option<bool>>, Error> {
                    let mut call = Call::begin(&self.connections, self.statements.dialect).await?;
                    let connection = call.connection()?;
                    let done = match writes {
                        [write] => self.write_one(write, connection).await,
                        _ => self.write_many(writes, connection).await,
                    };
                    call.end(&done);
                    done
                }

                async fn write_one(
                    &self,
                    write: &Write,
                    connection: &mut Conn,
                ) -> Result<Vec<Option<bool>>, Error> {
                    let done: Result<bool, Error> = write_one!(&self.statements, write, connection);
                    done.map(|done| vec![Some(done)])
                }

                async fn write_many(
                    &self,
                    writes: &[Write],
                    connection: &mut Conn,
                ) -> Result<Vec<Option<bool>>, Error> {
                    let of_kind = |kind| {
                        let writes = writes.iter().filter(move |write| write.kind() == kind);
                        writes.collect::<Vec<_>>()
                    };
                    let kinds = WriteKind::ALL.map(|kind| (kind, of_kind(kind)));
                    let kinds: Vec<_> = kinds
                        .iter()
                        .filter(|(_, writes)| !writes.is_empty())
                        .collect();
                    let mut done =
                        IdSet::with_capacity_and_hasher(writes.len(), Default::default());
                    if let [(kind, writes)] = kinds[..] {
                        self.write_kind(*kind, writes, connection, &mut done)
                            .await?;
                    } else if let Err(error) = self.write_kinds(&kinds, connection, &mut done).await
                    {
                        // sqlx rolls back when it is at leisure. This waits for it, so that
                        // `Call::end` sees whether the transaction is over.
                        let _ = connection.ping().await;
                        return Err(error);
                    }
                    let answer = |write: &Write| {
                        let is_done = done.contains(&write.id());
                        // Nobody waits for a lock on a row that is not there yet.
                        let is_known =
                            is_done || !$skips_locked || write.kind() == WriteKind::Insert;
                        is_known.then_some(is_done)
                    };
                    Ok(writes.iter().map(answer).collect())
                }

                /// Runs writes of several kinds in one transaction.
                async fn write_kinds(
                    &self,
                    kinds: &[&(WriteKind, Vec<&Write>)],
                    connection: &mut Conn,
                    done: &mut IdSet,
                ) -> Result<(), Error> {
                    let mut transaction = connection.begin().await?;
                    for (kind, writes) in kinds {
                        self.write_kind(*kind, writes, &mut transaction, done)
                            .await?;
                    }
                    transaction.commit().await
                }

                /// Runs writes of one kind, and adds the ids of those that took effect to `done`.
                async fn write_kind(
                    &self,
                    kind: WriteKind,
                    writes: &[&Write],
                    connection: &mut Conn,
                    done: &mut IdSet,
                ) -> Result<(), Error> {
                    let statement = self.many.of_kind(kind).for_records(writes.len());
                    let mut query = sqlx::query(self.many.text(statement));
                    for index in 0..statement.size {
                        let write = writes.get(index).copied();
                        let row = write.and_then(Write::row);
                        query = query.bind(write.map(|write| write.id().as_bytes().to_vec()));
                        if matches!(kind, WriteKind::Insert | WriteKind::Replace) {
                            query = query.bind(row.map(Row::version));
                            query = query.bind(row.and_then(Row::user));
                            query = query.bind(row.and_then(Row::external_id));
                        }
                        if kind == WriteKind::Replace {
                            query = query.bind(row.map(Row::kept_above));
                        }
                        if kind != WriteKind::Remove {
                            query = query.bind(write.and_then(Write::expires_at));
                        }
                        if matches!(kind, WriteKind::Insert | WriteKind::Replace) {
                            query = query.bind(row.map(Row::bytes));
                        }
                        if matches!(kind, WriteKind::Replace | WriteKind::Touch) {
                            query = query.bind(write.and_then(Write::expected));
                        }
                    }
                    for row in query.fetch_all(connection).await? {
                        let id: &[u8] = row.try_get(0)?;
                        if let Ok(id) = id.try_into() {
                            done.insert(RecordId::from_bytes(id));
                        }
                    }
                    Ok(())
                }
            }
        };
    };
}
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) use implement_batched_writes;

/// `Writes`, which runs each write by itself. Takes sqlx's type for the database.
#[cfg(feature = "mysql")]
macro_rules! implement_single_writes {
    ($Database:ty) => {
        /// Writes of records, each by itself.
        #[derive(Clone)]
        struct Writes {
            connections: $crate::store::sql::connections::Connections<$Database>,
            statements: std::sync::Arc<$crate::store::sql::statements::Statements>,
        }

        const _: () = {
            use std::sync::Arc;

            use sqlx::Error;

            use $crate::error::StoreError;
            use $crate::store::sql::calls::Write;
            use $crate::store::sql::connections::{Begun, Call, Connections};
            use $crate::store::sql::implement::{repeat_lost, write_one};
            use $crate::store::sql::statements::Statements;

            impl Writes {
                fn new(connections: Connections<$Database>, statements: Arc<Statements>) -> Self {
                    Self {
                        connections,
                        statements,
                    }
                }

                async fn run(&self, write: Write) -> Result<bool, StoreError> {
                    let write = Arc::new(write);
                    let done = repeat_lost!(self.attempt(&write));
                    done.map_err(|error| self.statements.failed(write.what(), error))
                }

                async fn attempt(&self, write: &Arc<Write>) -> Result<bool, Error> {
                    let dialect = self.statements.dialect;
                    let mut call = Call::begin(&self.connections, dialect).await?;
                    let (statements, write) = (self.statements.clone(), write.clone());
                    Begun::new(dialect, async move {
                        let done = write_one!(&statements, &*write, call.connection()?);
                        call.end(&done);
                        done
                    })
                    .await
                }
            }
        };
    };
}
#[cfg(feature = "mysql")]
pub(super) use implement_single_writes;
