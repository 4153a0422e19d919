//! The accounts, in the same SQLite file as the sessions.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use cloakroom::login::{BoxError, Users};
use cloakroom::{IntoUserId, Stamp, UserId};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqliteRow};
use tokio::sync::Semaphore;

use crate::error::Error;

pub(crate) const DEMO_NAME: &str = "ada";
pub(crate) const DEMO_PASSWORD: &str = "lovelace";

const MIN_NAME: usize = 2;
const MAX_NAME: usize = 32;
const MIN_PASSWORD: usize = 8;
/// Longer passwords would only make more work for the server.
const MAX_PASSWORD: usize = 128;

/// The number of passwords to hash at the same time. Each one takes 19 MiB and a core, so a flood
/// of logins must not start all of them at once.
const HASHED_AT_ONCE: usize = 2;

/// An account. It has no `Debug`, since it holds the hash of the password.
#[derive(Clone)]
pub(crate) struct User {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) is_staff: bool,
    password_hash: String,
}

/// All accounts. Clones share one pool and one limit on hashing.
#[derive(Clone, Debug)]
pub(crate) struct Db {
    pool: SqlitePool,
    hashing: Arc<Semaphore>,
    /// The hash of a password that nobody has. A login with an unknown name is compared with this
    /// hash.
    nobody: Arc<str>,
}

/// What the session layer asks for the user of a session.
impl Users for Db {
    type User = User;

    async fn find(&self, id: &UserId) -> Result<Option<User>, BoxError> {
        Ok(self.by_id(id.parse()?).await?)
    }

    fn id(user: &User) -> impl IntoUserId {
        user.id
    }

    /// A login keeps this stamp of the hash that its password was checked against. After a new
    /// password, the stamp is another one, and nobody is logged in with the old one.
    fn credentials(user: &User) -> Stamp {
        Stamp::of(&user.password_hash)
    }
}

impl Db {
    pub(crate) async fn open(database: &Path) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new()
            .filename(database)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(Duration::from_secs(4));
        let pool = SqlitePool::connect_with(options).await?;
        // AUTOINCREMENT makes sure that the table never gives an id twice. A store files the
        // sessions of a user under the id.
        sqlx::query(
            "CREATE TABLE IF NOT EXISTS users (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                name TEXT NOT NULL UNIQUE COLLATE NOCASE,
                password_hash TEXT NOT NULL,
                is_staff INTEGER NOT NULL DEFAULT 0
            ) STRICT",
        )
        .execute(&pool)
        .await?;
        // An earlier version of the demo made the table without this column.
        let column = "SELECT 1 FROM pragma_table_info('users') WHERE name = 'is_staff'";
        if sqlx::query(column).fetch_optional(&pool).await?.is_none() {
            sqlx::raw_sql(
                "ALTER TABLE users ADD COLUMN is_staff INTEGER NOT NULL DEFAULT 0;
                UPDATE users SET is_staff = 1 WHERE id = (SELECT min(id) FROM users)",
            )
            .execute(&pool)
            .await?;
        }
        let hashing = Arc::new(Semaphore::new(HASHED_AT_ONCE));
        let nobody = hash(&hashing, "the password of nobody").await?.into();
        Ok(Self {
            pool,
            hashing,
            nobody,
        })
    }

    /// Adds the demo user to an empty table. Returns `false` if there are users already.
    pub(crate) async fn add_demo_user(&self) -> Result<bool, Error> {
        let is_empty = sqlx::query("SELECT 1 FROM users LIMIT 1")
            .fetch_optional(&self.pool)
            .await?
            .is_none();
        Ok(is_empty && self.register(DEMO_NAME, DEMO_PASSWORD).await?.is_some())
    }

    /// Makes an account. Returns `None` if the name is taken. The first account is of the staff.
    pub(crate) async fn register(&self, name: &str, password: &str) -> Result<Option<User>, Error> {
        let hash = hash(&self.hashing, password).await?;
        let row = sqlx::query(
            "INSERT INTO users (name, password_hash, is_staff)
                VALUES (?, ?, NOT EXISTS (SELECT 1 FROM users))
                ON CONFLICT (name) DO NOTHING RETURNING id, name, password_hash, is_staff",
        )
        .bind(name)
        .bind(hash)
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.as_ref().map(to_user).transpose()?)
    }

    /// Returns the user who has this name and password.
    ///
    /// An unknown name takes as long as a wrong password. Otherwise the time of the answer would
    /// show which names exist.
    pub(crate) async fn authenticate(
        &self,
        name: &str,
        password: &str,
    ) -> Result<Option<User>, Error> {
        let row = sqlx::query("SELECT id, name, password_hash, is_staff FROM users WHERE name = ?")
            .bind(name)
            .fetch_optional(&self.pool)
            .await?;
        let user = row.as_ref().map(to_user).transpose()?;
        let expected = user
            .as_ref()
            .map_or(&*self.nobody, |user| &user.password_hash);
        let is_right = self.matches(password, expected.to_owned()).await?;
        Ok(user.filter(|_| is_right))
    }

    /// Returns an account, or `None` if it is gone.
    pub(crate) async fn by_id(&self, id: i64) -> Result<Option<User>, sqlx::Error> {
        let row = sqlx::query("SELECT id, name, password_hash, is_staff FROM users WHERE id = ?")
            .bind(id)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(to_user).transpose()
    }

    /// Returns all accounts that are not of the staff.
    pub(crate) async fn customers(&self) -> Result<Vec<User>, sqlx::Error> {
        let rows = sqlx::query(
            "SELECT id, name, password_hash, is_staff FROM users WHERE NOT is_staff ORDER BY name",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(to_user).collect()
    }

    pub(crate) async fn delete(&self, user: &User) -> Result<(), sqlx::Error> {
        sqlx::query("DELETE FROM users WHERE id = ?")
            .bind(user.id)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Gives a user a new password, and returns the account with the new hash.
    ///
    /// Returns `None` if the password has changed since `checked` was read. If two clients change
    /// the password at once, the second one has to know the new password.
    pub(crate) async fn set_password(
        &self,
        checked: &User,
        password: &str,
    ) -> Result<Option<User>, Error> {
        let hash = hash(&self.hashing, password).await?;
        let row = sqlx::query(
            "UPDATE users SET password_hash = ? WHERE id = ? AND password_hash = ?
                RETURNING id, name, password_hash, is_staff",
        )
        .bind(hash)
        .bind(checked.id)
        .bind(&checked.password_hash)
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.as_ref().map(to_user).transpose()?)
    }

    async fn matches(&self, password: &str, expected: String) -> Result<bool, Error> {
        // `check_password` refuses such a password, so nobody has it.
        if password.len() > MAX_PASSWORD {
            return Ok(false);
        }
        let password = password.to_owned();
        off_the_async_threads(&self.hashing, move || {
            let expected = PasswordHash::new(&expected)?;
            match Argon2::default().verify_password(password.as_bytes(), &expected) {
                Ok(()) => Ok(true),
                Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }
}

async fn hash(hashing: &Arc<Semaphore>, password: &str) -> Result<String, Error> {
    let password = password.to_owned();
    off_the_async_threads(hashing, move || {
        Ok(Argon2::default()
            .hash_password(password.as_bytes())?
            .to_string())
    })
    .await
}

/// Runs `work` on a thread where it may block.
///
/// Hashing takes a good part of a second by design. In that time, an async thread could serve many
/// requests.
async fn off_the_async_threads<T: Send + 'static>(
    hashing: &Arc<Semaphore>,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let permit = hashing.clone().acquire_owned().await?;
    tokio::task::spawn_blocking(move || {
        // The work holds the permit, and the request does not. So a client that goes away does not
        // make room for one more.
        let _permit = permit;
        work()
    })
    .await?
}

/// Reads a row. Each statement names its columns, so that a connection that has not yet seen a new
/// column of the table cannot prepare the statement without the column.
fn to_user(row: &SqliteRow) -> Result<User, sqlx::Error> {
    Ok(User {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        is_staff: row.try_get("is_staff")?,
        password_hash: row.try_get("password_hash")?,
    })
}

/// Returns what is wrong with a new user's name, if anything is.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !(MIN_NAME..=MAX_NAME).contains(&name.len()) || !name.chars().all(is_good) {
        return Err(format!(
            "A user name has {MIN_NAME} to {MAX_NAME} letters, digits, dots, dashes or underscores."
        ));
    }
    Ok(())
}

/// Returns what is wrong with a new password, if anything is.
pub(crate) fn check_password(password: &str) -> Result<(), String> {
    if password.chars().count() < MIN_PASSWORD {
        return Err(format!(
            "A password needs {MIN_PASSWORD} characters or more."
        ));
    }
    if password.len() > MAX_PASSWORD {
        return Err(format!(
            "A password cannot have more than {MAX_PASSWORD} bytes."
        ));
    }
    Ok(())
}
