//! Run with `cargo run --example sessions -- --store URL list`. `--help` shows the other commands.
//!
//! A command for the people who run a site. It shows and ends the sessions of all users in a store,
//! without the application. It prints a table, or JSON for scripts. It never shows what a session
//! holds, and no token.
//!
//! It opens the store as an application does. So it makes the table in a database that has none. It
//! finds only what is under the default prefix, or in the default table.
//!
//! - `options.rs`: the command line
//! - `output.rs`: the table

mod options;
mod output;

use std::env;
use std::error::Error;
use std::io::{self, BufWriter, IsTerminal, Write, stderr, stdin, stdout};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cloakroom::{
    AnyStore, ConfigError, Cursor, EncryptedStore, EncryptionKeys, Plaintext, RecordId,
    SessionCatalog, SessionError, SessionErrorKind, SessionFilter, SessionLayer, SessionStore,
    Sessions, SigningKey, Timestamp, UserHashKey,
};
use serde_json::json;
use tracing_subscriber::EnvFilter;

use options::{Command, Options, USAGE, Which};
use output::Table;

/// Long enough for a store that is busy. No request waits for this command.
const STORE_TIMEOUT: Duration = Duration::from_secs(60);

/// No session of the application lasts so long.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The keys of an application with an `EncryptedStore`.
const ENCRYPTION_KEYS: &str = "CLOAKROOM_ENCRYPTION_KEYS";
const USER_HASH_KEY: &str = "CLOAKROOM_USER_HASH_KEY";

/// Why the command ends without having done what it was asked for.
enum Failure {
    /// The command makes no sense.
    Usage(String),
    Failed(Box<dyn Error>),
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// A filter or a cursor that the library refuses is the fault of the command line.
fn of_session(error: SessionError) -> Failure {
    match error.kind() {
        SessionErrorKind::InvalidFilter | SessionErrorKind::InvalidCursor => {
            Failure::Usage(error.to_string())
        }
        _ => error.into(),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .init();
    let store = env::var("CLOAKROOM_STORE").ok();
    let options = match options::parse(env::args_os().skip(1), store, now()) {
        Ok(options) => options,
        Err(reason) => return refuse(&reason),
    };
    // Whoever reads the output may leave in the middle, as `head` does. That is no failure.
    let is_closed = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    match run(&options).await {
        Ok(code) => code,
        Err(Failure::Usage(reason)) => refuse(&reason),
        Err(Failure::Failed(error)) if error.downcast_ref().is_some_and(is_closed) => {
            ExitCode::SUCCESS
        }
        Err(Failure::Failed(error)) => {
            say(&format!("error: {error}"));
            let mut source = error.source();
            while let Some(cause) = source {
                say(&format!("caused by: {cause}"));
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn refuse(reason: &str) -> ExitCode {
    say(&format!("error: {reason}\n`--help` shows what there is"));
    ExitCode::from(2)
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

async fn run(options: &Options) -> Result<ExitCode, Failure> {
    match &options.command {
        Command::Help => print(USAGE.trim_end())?,
        Command::NewKey => {
            let key = SigningKey::generate()?.to_hex();
            print_either(options, json!({ "key": key }), &key)?;
        }
        Command::Purge => {
            let purged = layer(open(options).await?, options)?
                .sessions()
                .purge_expired()
                .await?;
            let text = format!("{} removed", sessions_in_words(purged, "expired "));
            print_either(options, json!({ "purged": purged }), &text)?;
        }
        Command::Show(id) => return show(options, *id).await,
        Command::Count(filter) => {
            let catalog = catalog(options).await?;
            let count = catalog.count(filter).await.map_err(of_session)?;
            print_either(options, json!({ "count": count }), &count.to_string())?;
            hint(options, count);
        }
        Command::List {
            filter,
            after,
            limit,
        } => {
            let limit = limit.map(Into::into);
            list(options, filter, after.clone(), limit).await?;
        }
        Command::End {
            which,
            is_confirmed,
        } => return end(options, which, *is_confirmed).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(options: &Options, id: RecordId) -> Result<ExitCode, Failure> {
    let sessions = layer(open(options).await?, options)?.sessions();
    let Some(info) = sessions.get(id).await? else {
        say("error: there is no live session with this id");
        hint(options, 0);
        return Ok(ExitCode::FAILURE);
    };
    match options.is_json {
        true => print(&output::json(&info)?)?,
        false => output::show(&mut stdout().lock(), &info, now())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows sessions until there are `limit` of them. `None` is all of them.
async fn list(
    options: &Options,
    filter: &SessionFilter,
    mut after: Option<Cursor>,
    limit: Option<usize>,
) -> Result<(), Failure> {
    let sessions = catalog(options).await?;
    let mut out = BufWriter::new(stdout().lock());
    let mut table = Table::new();
    let mut kept = Vec::new();
    let mut shown = 0;
    loop {
        let most = Sessions::<Arc<dyn SessionCatalog>>::MAX_PAGE;
        let size = limit.map_or(most, |limit| most.min(limit - shown));
        // A page may have fewer sessions, or none, although others follow.
        let page = sessions.page(filter, after.as_ref(), size).await;
        let page = page.map_err(of_session)?;
        shown += page.sessions.len();
        after = page.next;
        match (options.is_json, limit) {
            (false, _) => table.add(&mut out, &page.sessions, now())?,
            (true, Some(_)) => kept.extend(page.sessions),
            (true, None) => {
                for info in &page.sessions {
                    writeln!(out, "{}", output::json(info)?)?;
                }
            }
        }
        if after.is_none() || limit == Some(shown) {
            break;
        }
    }
    if options.is_json && limit.is_some() {
        let document = json!({ "sessions": kept, "next": after });
        writeln!(out, "{}", output::json(&document)?)?;
    }
    out.flush()?;
    if let Some(next) = after.filter(|_| !options.is_json) {
        say(&format!("there may be more: add --after {next}"));
    }
    hint(options, shown as u64);
    Ok(())
}

async fn end(options: &Options, which: &Which, is_confirmed: bool) -> Result<ExitCode, Failure> {
    let ended = match which {
        Which::One(id) => {
            let sessions = layer(open(options).await?, options)?.sessions();
            let Some(info) = sessions.get(*id).await? else {
                say("error: there is no live session with this id; nothing ended");
                hint(options, 0);
                return Ok(ExitCode::FAILURE);
            };
            if !is_confirmed {
                output::show(&mut stderr().lock(), &info, now()).map_err(io::Error::other)?;
            }
            if !is_confirmed && !ask("end this session?")? {
                return Ok(ExitCode::FAILURE);
            }
            u64::from(sessions.by("the command `sessions`").revoke(*id).await?)
        }
        Which::Filter(_) | Which::Everything => {
            let everything = SessionFilter::new();
            let filter = match which {
                Which::Filter(filter) => filter,
                _ => &everything,
            };
            let sessions = catalog(options).await?.by("the command `sessions`");
            let count = match is_confirmed {
                true => None,
                false => Some(sessions.count(filter).await.map_err(of_session)?),
            };
            if let Some(count) = count.filter(|count| *count > 0)
                && !ask(&format!("end {}?", sessions_in_words(count, "")))?
            {
                return Ok(ExitCode::FAILURE);
            }
            match which {
                // Nobody was asked about a session that begins meanwhile.
                _ if count == Some(0) => 0,
                Which::Everything => sessions.end_everything().await?,
                _ => sessions.end(filter).await.map_err(of_session)?,
            }
        }
    };
    let text = format!("{} ended", sessions_in_words(ended, ""));
    print_either(options, json!({ "ended": ended }), &text)?;
    hint(options, ended);
    Ok(ExitCode::SUCCESS)
}

/// Asks a person, or whoever else answers on the standard input. No answer is a no.
fn ask(question: &str) -> io::Result<bool> {
    // A question that nobody can read has no answer. `BrokenPipe` is of the standard output alone.
    let asked = write!(stderr(), "{question} [y/N] ").and_then(|()| stderr().flush());
    asked.map_err(io::Error::other)?;
    let mut answer = String::new();
    stdin().read_line(&mut answer)?;
    let is_yes = matches!(answer.trim(), "y" | "Y" | "yes");
    if !is_yes {
        say("nothing ended");
    }
    Ok(is_yes)
}

async fn open(options: &Options) -> Result<AnyStore, Failure> {
    let Some(url) = &options.store else {
        let reason = "name the store, by the variable CLOAKROOM_STORE or by --store";
        return Err(Failure::Usage(reason.to_owned()));
    };
    if url.starts_with("memory:") || url.starts_with("sqlite::memory:") {
        let reason = "a store in memory belongs to its process, and this command is another one";
        return Err(Failure::Usage(reason.to_owned()));
    }
    // The store would make the file.
    if let Some(path) = url.strip_prefix("sqlite:")
        && let path = path.split_once('?').map_or(path, |(path, _)| path)
        && let path = Path::new(path.strip_prefix("//").unwrap_or(path))
        && !path.as_os_str().is_empty()
        && !path.exists()
    {
        let reason = format!("there is no file {}", path.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, reason).into());
    }
    let store = AnyStore::connect(url).await?;
    if env::var_os(ENCRYPTION_KEYS).is_none() {
        return Ok(store);
    }
    Ok(match store.session_catalog() {
        Some(catalog) => AnyStore::from_catalog(decrypted(catalog)?),
        None => AnyStore::new(decrypted(store)?),
    })
}

/// The store with the keys of the application. Plain records count as well, because a store that
/// comes to encryption has both kinds.
fn decrypted<S: SessionStore>(store: S) -> Result<EncryptedStore<S>, ConfigError> {
    let store = EncryptedStore::new(store, EncryptionKeys::from_env(ENCRYPTION_KEYS)?);
    let store = store
        .plaintext(Plaintext::Accept)
        .also_find_plain_users(true);
    Ok(match env::var_os(USER_HASH_KEY) {
        Some(_) => store.hash_users(UserHashKey::from_env(USER_HASH_KEY)?),
        None => store,
    })
}

/// This layer serves no request. So its key verifies no token, and its timeouts must not end any
/// session: each record says when it expires, and when somebody last used the session.
fn layer<S: SessionStore>(store: S, options: &Options) -> Result<SessionLayer<S>, Failure> {
    let shortest = Duration::from_millis(1);
    let mut builder = SessionLayer::builder(store, SigningKey::generate()?)
        .store_timeout(STORE_TIMEOUT)
        .idle_timeout(shortest)
        .absolute_timeout(FOREVER)
        .remember_idle_timeout(shortest)
        .remember_absolute_timeout(FOREVER)
        .lifetime("visitor", shortest, FOREVER);
    if let Some(name) = &options.cookie_name {
        builder = builder.cookie_name(name);
    }
    if let Some(realm) = &options.realm {
        builder = builder.realm(realm);
    }
    let built = builder.build();
    built.map_err(|error| Failure::Usage(error.to_string()))
}

async fn catalog(options: &Options) -> Result<Sessions<Arc<dyn SessionCatalog>>, Failure> {
    let store = open(options).await?.session_catalog().ok_or_else(|| {
        let reason = "this store cannot list its sessions; with it, there are `show ID`, `end ID` \
                      and `new-key`";
        Failure::Usage(reason.to_owned())
    })?;
    Ok(layer(store, options)?.sessions())
}

/// If the command finds nothing, it may have looked for the users of another layer.
fn hint(options: &Options, found: u64) {
    if found == 0 && !options.is_json && options.realm.is_none() && options.cookie_name.is_none() {
        say(
            "hint: users belong to the cookie's name or the realm of their application; see \
             --cookie-name and --realm",
        );
    }
}

fn sessions_in_words(count: u64, which: &str) -> String {
    format!(
        "{count} {which}session{}",
        if count == 1 { "" } else { "s" }
    )
}

fn print_either(options: &Options, json: serde_json::Value, text: &str) -> io::Result<()> {
    match options.is_json {
        true => print(&json.to_string()),
        false => print(text),
    }
}

/// Tells the person at the terminal. Whether somebody reads it changes nothing.
fn say(text: &str) {
    let _ = writeln!(stderr().lock(), "{text}");
}

fn print(text: &str) -> io::Result<()> {
    writeln!(stdout().lock(), "{text}")
}
