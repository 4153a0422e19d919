//! A database server, and the test's own connections to it.

use super::{CONNECTIONS, PATIENCE};
use cloakroom::{MySqlStore, PostgresStore, UserId, UserIndex};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, PgConnection};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;
use support::servers::Server;
use tokio::task::JoinSet;

pub(crate) type Store = Arc<dyn UserIndex>;

#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Postgres,
    MySql,
}

/// A connection that belongs to the test.
pub(crate) enum Client {
    Postgres(PgConnection),
    MySql(MySqlConnection),
}

impl Client {
    pub(crate) async fn open(kind: Kind, url: &str) -> Self {
        match kind {
            Kind::Postgres => Self::Postgres(PgConnection::connect(url).await.unwrap()),
            Kind::MySql => Self::MySql(MySqlConnection::connect(url).await.unwrap()),
        }
    }

    pub(crate) async fn run(&mut self, statements: &str) {
        let statements = sqlx::raw_sql(AssertSqlSafe(statements.to_owned()));
        match self {
            Self::Postgres(client) => drop(statements.execute(client).await.unwrap()),
            Self::MySql(client) => drop(statements.execute(client).await.unwrap()),
        }
    }

    pub(crate) async fn numbers(&mut self, query: &str) -> Vec<i64> {
        let query = AssertSqlSafe(query.to_owned());
        match self {
            Self::Postgres(client) => sqlx::query_scalar(query).fetch_all(client).await.unwrap(),
            Self::MySql(client) => sqlx::query_scalar(query).fetch_all(client).await.unwrap(),
        }
    }
}

/// A server with two connections. One looks at the server, and the other one holds locks.
pub(crate) struct Database {
    pub(crate) kind: Kind,
    pub(crate) server: Server,
    pub(crate) watcher: Client,
    pub(crate) blocker: Client,
    pub(crate) own: BTreeSet<i64>,
}

impl Database {
    pub(crate) async fn start(kind: Kind) -> Self {
        let server = match kind {
            Kind::Postgres => Server::postgres(),
            Kind::MySql => Server::mariadb(),
        };
        let url = url_of(kind, &server);
        let mut database = Self {
            kind,
            server,
            watcher: Client::open(kind, &url).await,
            blocker: Client::open(kind, &url).await,
            own: BTreeSet::new(),
        };
        let id = match kind {
            Kind::Postgres => "SELECT pg_backend_pid()::bigint",
            Kind::MySql => "SELECT CAST(connection_id() AS SIGNED)",
        };
        database.own.extend(database.watcher.numbers(id).await);
        database.own.extend(database.blocker.numbers(id).await);
        database
    }

    pub(crate) fn url(&self) -> String {
        url_of(self.kind, &self.server)
    }

    /// A store with its own connections. Its table exists.
    pub(crate) async fn store(&self) -> Store {
        match self.kind {
            Kind::Postgres => {
                let store = PostgresStore::connect(&self.url()).await.unwrap();
                store.migrate().await.unwrap();
                Arc::new(store)
            }
            Kind::MySql => {
                let store = MySqlStore::connect(&self.url()).await.unwrap();
                store.migrate().await.unwrap();
                Arc::new(store)
            }
        }
    }

    /// The server's ids of the connections that do not belong to the test.
    pub(crate) async fn connections(&mut self) -> BTreeSet<i64> {
        let query = match self.kind {
            Kind::Postgres => {
                "SELECT pid::bigint FROM pg_stat_activity \
                 WHERE usename = 'cloakroom' AND backend_type = 'client backend'"
            }
            Kind::MySql => {
                "SELECT CAST(id AS SIGNED) FROM information_schema.processlist \
                 WHERE user = 'cloakroom'"
            }
        };
        let all = BTreeSet::from_iter(self.watcher.numbers(query).await);
        &all - &self.own
    }

    /// Takes a lock, so that every statement on the table waits.
    pub(crate) async fn lock(&mut self) {
        let lock = match self.kind {
            Kind::Postgres => "BEGIN; LOCK TABLE cloakroom_sessions IN ACCESS EXCLUSIVE MODE",
            Kind::MySql => "LOCK TABLES cloakroom_sessions WRITE",
        };
        self.blocker.run(lock).await;
    }

    pub(crate) async fn unlock(&mut self) {
        let unlock = match self.kind {
            Kind::Postgres => "COMMIT",
            Kind::MySql => "UNLOCK TABLES",
        };
        self.blocker.run(unlock).await;
    }

    /// The number of statements that wait for a lock.
    pub(crate) async fn waiting(&mut self) -> usize {
        let query = match self.kind {
            Kind::Postgres => {
                "SELECT pid::bigint FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            }
            Kind::MySql => {
                "SELECT CAST(id AS SIGNED) FROM information_schema.processlist \
                 WHERE state LIKE 'Waiting for table %lock'"
            }
        };
        self.watcher.numbers(query).await.len()
    }

    /// Makes the store open as many connections as it may have. Each of these calls needs a
    /// connection of its own.
    pub(crate) async fn fill(&mut self, store: &Store) {
        self.lock().await;
        let mut calls = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let store = store.clone();
            let user = UserId::new("nobody").unwrap();
            calls.spawn(async move { store.find_by_user(&user).await.unwrap() });
        }
        let begin = Instant::now();
        while self.waiting().await < CONNECTIONS {
            assert!(begin.elapsed() < PATIENCE, "{} wait", self.waiting().await);
        }
        self.unlock().await;
        calls.join_all().await;
        assert_eq!(self.connections().await.len(), CONNECTIONS);
    }
}

pub(crate) fn url_of(kind: Kind, server: &Server) -> String {
    let scheme = match kind {
        Kind::Postgres => "postgres",
        Kind::MySql => "mysql",
    };
    format!("{scheme}://cloakroom:secret@{}/cloakroom", server.address())
}
