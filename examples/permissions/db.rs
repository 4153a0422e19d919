//! The users, their groups and their permissions, in SQLite.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordVerifier};
use cloakroom::login::{BoxError, Users};
use cloakroom::{IntoUserId, Stamp, UserId};
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{FromRow, Row};
use tokio::task::spawn_blocking;

/// A hash that no password has. The check of an unknown name takes as long as that of a wrong
/// password, so that nobody can find out which names exist.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[derive(Clone)]
pub(crate) struct User {
    id: i64,
    pub(crate) name: String,
    password_hash: String,
}

impl FromRow<'_, SqliteRow> for User {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            password_hash: row.try_get("password_hash")?,
        })
    }
}

#[derive(Clone)]
pub(crate) struct Db(SqlitePool);

impl Users for Db {
    type User = User;

    async fn find(&self, id: &UserId) -> Result<Option<User>, BoxError> {
        let id: i64 = id.parse()?;
        let query = "SELECT id, name, password_hash FROM users WHERE id = ?";
        let user = sqlx::query_as(query).bind(id).fetch_optional(&self.0);
        Ok(user.await?)
    }

    fn id(user: &User) -> impl IntoUserId {
        user.id
    }

    fn credentials(user: &User) -> Stamp {
        Stamp::of(&user.password_hash)
    }

    async fn has_permission(&self, user: &User, permission: &str) -> Result<bool, BoxError> {
        let query = "SELECT EXISTS (
            SELECT 1 FROM users_groups JOIN groups_permissions USING (group_id)
            WHERE user_id = ? AND permission = ?
        )";
        let answer = sqlx::query_scalar(query).bind(user.id).bind(permission);
        Ok(answer.fetch_one(&self.0).await?)
    }
}

impl Db {
    /// A database in memory. Each connection would have one of its own, so there is only one.
    pub(crate) async fn open() -> Result<Self, sqlx::Error> {
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect("sqlite::memory:")
            .await?;
        sqlx::raw_sql(include_str!("schema.sql"))
            .execute(&pool)
            .await?;
        Ok(Self(pool))
    }

    pub(crate) async fn check(
        &self,
        name: &str,
        password: String,
    ) -> Result<Option<User>, BoxError> {
        let query = "SELECT id, name, password_hash FROM users WHERE name = ?";
        let user = sqlx::query_as(query).bind(name).fetch_optional(&self.0);
        let user: Option<User> = user.await?;
        let hash = user.as_ref().map_or(NOBODY, |user| &user.password_hash);
        let hash = hash.to_owned();
        // It takes a good part of a second, in which an async thread could serve many requests.
        let check = spawn_blocking(move || -> Result<bool, BoxError> {
            let hash = PasswordHash::new(&hash)?;
            let check = Argon2::default().verify_password(password.as_bytes(), &hash);
            Ok(check.is_ok())
        });
        let is_right = check.await??;
        Ok(user.filter(|_| is_right))
    }
}
