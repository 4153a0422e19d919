//! The command line.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::time::Duration;

use cloakroom::{Cursor, RecordId, SessionFilter, Timestamp, UserId};

pub(crate) const USAGE: &str = "\
Usage: cargo run --example sessions -- COMMAND [OPTIONS]

Commands:
  list           show sessions, 50 at a time
  show ID        show one session
  count          count sessions
  end ID         end one session
  end FILTER     end all sessions that match the filter; `list` with the same filter shows which
  purge          remove expired sessions from a store that does not do so by itself
  new-key        print a new signing key, for SESSION_KEYS or a file of keys; it needs no store

The store and its sessions:
  --store URL           such as sqlite:PATH, postgres://…, mysql://… or redis://…; without it, the
                        variable CLOAKROOM_STORE. Everybody on the machine can read a URL on the
                        command line, with its password: so prefer the variable.
                        If the application has an `EncryptedStore`, its keys are in the variables
                        CLOAKROOM_ENCRYPTION_KEYS and CLOAKROOM_USER_HASH_KEY. Without them, an
                        encrypted session is no session
  --cookie-name NAME    the name of the application's cookie [default: __Host-session]; an
                        application with `secure(false)` has the name session
  --realm NAME          the application's realm, if it sets one [default: the cookie's name]

Filters of `list`, `count` and `end`. Each one leaves fewer sessions:
  --user ID             of this user
  --logged-in           of logged-in users
  --visitors            of visitors
  --client TEXT         whose address or user agent has this text
  --external-id ID      of this external id, such as the sid of an OpenID provider
  --bound, --unbound    that are bound to a device, or not
  --created-since TIME, --created-before TIME
  --seen-since TIME, --seen-before TIME
                        TIME is a time such as 2026-03-01T09:30:00Z, a day such as 2026-03-01
                        (UTC), or an age such as 90s, 30m, 12h, 7d

Options of `list`:
  --limit N             show so many sessions at most [default: 50]
  --after CURSOR        go on where another `list` has ended
  --all                 show all sessions

Options of `end`:
  --yes                 do not ask
  --everything          in place of a filter: all sessions of all users, and of all visitors

  --json                print JSON: one document, or with `list --all` a line for each session
  --help                print this

The exit code is 0, or 1 after a failure, or 2 if the command makes no sense.
RUST_LOG=cloakroom=debug shows which sessions ended.

The command does not know the application's absolute timeouts. If the absolute timeout of a session
has passed, the command still lists the session until the idle timeout has passed too.
";

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) store: Option<String>,
    pub(crate) realm: Option<String>,
    pub(crate) cookie_name: Option<String>,
    pub(crate) is_json: bool,
    pub(crate) command: Command,
}

#[derive(Debug)]
pub(crate) enum Command {
    Help,
    NewKey,
    Purge,
    Show(RecordId),
    Count(SessionFilter),
    List {
        filter: SessionFilter,
        after: Option<Cursor>,
        /// `None` is all of them.
        limit: Option<NonZeroUsize>,
    },
    End {
        which: Which,
        is_confirmed: bool,
    },
}

#[derive(Debug)]
pub(crate) enum Which {
    One(RecordId),
    Filter(SessionFilter),
    Everything,
}

/// A flag, whether it takes a value, and the commands that know it.
struct Flag(&'static str, bool, &'static [&'static str]);

const WITH_STORE: &[&str] = &["list", "show", "count", "end", "purge"];
const WITH_FILTER: &[&str] = &["list", "count", "end"];
const ALL: &[&str] = &["list", "show", "count", "end", "purge", "new-key"];

const FLAGS: [Flag; 19] = [
    Flag("--store", true, WITH_STORE),
    Flag("--realm", true, WITH_STORE),
    Flag("--cookie-name", true, WITH_STORE),
    Flag("--user", true, WITH_FILTER),
    Flag("--logged-in", false, WITH_FILTER),
    Flag("--visitors", false, WITH_FILTER),
    Flag("--client", true, WITH_FILTER),
    Flag("--external-id", true, WITH_FILTER),
    Flag("--bound", false, WITH_FILTER),
    Flag("--unbound", false, WITH_FILTER),
    Flag("--created-since", true, WITH_FILTER),
    Flag("--created-before", true, WITH_FILTER),
    Flag("--seen-since", true, WITH_FILTER),
    Flag("--seen-before", true, WITH_FILTER),
    Flag("--limit", true, &["list"]),
    Flag("--after", true, &["list"]),
    Flag("--all", false, &["list"]),
    Flag("--yes", false, &["end"]),
    Flag("--everything", false, &["end"]),
];

/// What stands on the command line. A flag without a value has an empty one.
#[derive(Default)]
struct Given {
    words: Vec<String>,
    flags: BTreeMap<&'static str, String>,
    is_json: bool,
}

/// A condition of a filter about a time.
type SetTime = fn(SessionFilter, Timestamp) -> SessionFilter;

impl Given {
    fn take(&mut self, flag: &str) -> Option<String> {
        self.flags.remove(flag)
    }

    fn has(&mut self, flag: &str) -> bool {
        self.take(flag).is_some()
    }

    /// Which of two flags is there.
    fn either(&mut self, yes: &str, no: &str) -> Result<Option<bool>, String> {
        match (self.has(yes), self.has(no)) {
            (false, false) => Ok(None),
            (true, true) => Err(format!("{yes} and {no} exclude each other")),
            (is_yes, _) => Ok(Some(is_yes)),
        }
    }

    fn filter(&mut self, now: Timestamp) -> Result<SessionFilter, String> {
        let mut filter = SessionFilter::new();
        if let Some(user) = self.take("--user") {
            filter = filter.user(UserId::new(user).map_err(|error| format!("--user: {error}"))?);
        }
        if let Some(is_logged_in) = self.either("--logged-in", "--visitors")? {
            filter = filter.logged_in(is_logged_in);
        }
        if let Some(text) = self.take("--client") {
            filter = filter.client(&text);
        }
        if let Some(id) = self.take("--external-id") {
            filter = filter.external_id(id);
        }
        if let Some(is_bound) = self.either("--bound", "--unbound")? {
            filter = filter.device_bound(is_bound);
        }
        let times: [(&str, SetTime); 4] = [
            ("--created-since", SessionFilter::created_since),
            ("--created-before", SessionFilter::created_before),
            ("--seen-since", SessionFilter::last_seen_since),
            ("--seen-before", SessionFilter::last_seen_before),
        ];
        for (flag, condition) in times {
            if let Some(text) = self.take(flag) {
                let time = time(&text, now).ok_or_else(|| {
                    format!(
                        "{flag} needs a time such as 2026-03-01T09:30:00Z, a day such as \
                         2026-03-01, or an age such as 90s, 30m, 12h or 7d"
                    )
                })?;
                filter = condition(filter, time);
            }
        }
        Ok(filter)
    }
}

/// Returns what the arguments ask for, or what is wrong with them.
pub(crate) fn parse(
    args: impl Iterator<Item = OsString>,
    store: Option<String>,
    now: Timestamp,
) -> Result<Options, String> {
    let mut given = match read(args)? {
        Some(given) => given,
        None => return Ok(Options::new(Command::Help)),
    };
    let mut words = std::mem::take(&mut given.words).into_iter();
    let name = words.next().ok_or("a command is missing")?;
    let Some(name) = ALL.iter().find(|known| **known == name) else {
        return Err(format!(
            "unknown command{}; there are {}",
            shown(&name),
            ALL.join(", ")
        ));
    };
    for Flag(flag, _, commands) in &FLAGS {
        if given.flags.contains_key(flag) && !commands.contains(name) {
            return Err(format!("`{name}` has no option {flag}"));
        }
    }
    let mut options = Options::new(Command::Help);
    options.is_json = given.is_json;
    options.store = given.take("--store").or(store);
    options.realm = given.take("--realm");
    options.cookie_name = given.take("--cookie-name");
    options.command = match *name {
        "new-key" => Command::NewKey,
        "purge" => Command::Purge,
        "show" => Command::Show(id(words.next())?),
        "count" => Command::Count(given.filter(now)?),
        "list" => {
            let limit = match (given.take("--limit"), given.has("--all")) {
                (Some(_), true) => return Err("--limit and --all exclude each other".to_owned()),
                (None, true) => None,
                (None, false) => NonZeroUsize::new(50),
                (Some(limit), false) => match limit.parse() {
                    Ok(limit) => Some(limit),
                    Err(_) => return Err("--limit needs a number, 1 or more".to_owned()),
                },
            };
            let after = given.take("--after").map(|after| after.parse());
            Command::List {
                filter: given.filter(now)?,
                after: after
                    .transpose()
                    .map_err(|error| format!("--after: {error}"))?,
                limit,
            }
        }
        // All other names have had their turn.
        _ => Command::End {
            is_confirmed: given.has("--yes"),
            which: which(&mut given, words.next(), now)?,
        },
    };
    match words.next() {
        Some(word) => Err(format!("one argument is too many{}", shown(&word))),
        None => Ok(options),
    }
}

impl Options {
    fn new(command: Command) -> Self {
        Self {
            store: None,
            realm: None,
            cookie_name: None,
            is_json: false,
            command,
        }
    }
}

/// Divides the arguments into words and flags. `None` if somebody asks for help.
fn read(args: impl Iterator<Item = OsString>) -> Result<Option<Given>, String> {
    let mut given = Given::default();
    let mut args = args.map(|arg| {
        let text = arg.into_string();
        text.map_err(|_| "an argument is not UTF-8".to_owned())
    });
    while let Some(arg) = args.next().transpose()? {
        if !arg.starts_with('-') || is_id(&arg) {
            given.words.push(arg);
            continue;
        }
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (&*arg, None),
        };
        if matches!(name, "--help" | "-h") {
            return Ok(None);
        }
        if name == "--json" && value.is_none() {
            given.is_json = true;
            continue;
        }
        let Some(Flag(flag, takes_value, _)) = FLAGS.iter().find(|Flag(flag, ..)| *flag == name)
        else {
            return Err(format!("unknown option{}", shown(name)));
        };
        let value = match (takes_value, value) {
            (false, Some(_)) => return Err(format!("{flag} takes no value")),
            (false, None) => String::new(),
            (true, Some(value)) => value,
            (true, None) => args
                .next()
                .transpose()?
                // A forgotten value must not make a value of the next option.
                .filter(|value| !value.starts_with("--") || is_id(value))
                .ok_or_else(|| format!("{flag} needs a value"))?,
        };
        if *takes_value && value.is_empty() {
            return Err(format!("the value of {flag} is empty"));
        }
        if given.flags.insert(*flag, value).is_some() {
            return Err(format!("{flag} is there twice"));
        }
    }
    Ok(Some(given))
}

/// An id of a session, and so a cursor, may start with `-`, as an option does.
fn is_id(text: &str) -> bool {
    text.parse::<RecordId>().is_ok()
}

/// What `end` ends. Nobody ends all sessions by leaving something out.
fn which(given: &mut Given, word: Option<String>, now: Timestamp) -> Result<Which, String> {
    let filter = given.filter(now)?;
    match (word, filter.is_empty(), given.has("--everything")) {
        (Some(word), true, false) => Ok(Which::One(id(Some(word))?)),
        (None, false, false) => Ok(Which::Filter(filter)),
        (None, true, true) => Ok(Which::Everything),
        (None, true, false) => Err(
            "`end` needs an id or a filter; for all sessions, write `end --everything`".to_owned(),
        ),
        _ => {
            Err("`end` takes an id, or a filter, or --everything, and only one of them".to_owned())
        }
    }
}

fn id(word: Option<String>) -> Result<RecordId, String> {
    let word = word.ok_or("the id of a session is missing; `list` shows them")?;
    word.parse()
        .map_err(|error| format!("this is no id of a session{}: {error}", shown(&word)))
}

/// An argument for a message. A URL may have a password, so it is not shown.
fn shown(argument: &str) -> String {
    match argument.contains(':') || argument.contains('@') {
        true => {
            " (it may hold a password, so it is not shown; a URL needs --store before it)".into()
        }
        false => format!(": {argument:?}"),
    }
}

fn time(text: &str, now: Timestamp) -> Option<Timestamp> {
    let rfc3339 = |text: String| serde_json::from_value(text.into()).ok();
    if let Some((number, unit)) = text.split_at_checked(text.len() - 1)
        && let Ok(number) = number.parse::<u64>()
        && let Some(seconds) = match unit {
            "s" => Some(1),
            "m" => Some(60),
            "h" => Some(60 * 60),
            "d" => Some(24 * 60 * 60),
            _ => None,
        }
    {
        let age = Duration::from_secs(number.checked_mul(seconds)?);
        let millis = u64::try_from(age.as_millis()).ok()?;
        return Some(Timestamp::from_millis(
            now.as_millis().saturating_sub(millis),
        ));
    }
    match text.len() {
        10 => rfc3339(format!("{text}T00:00:00Z")),
        _ => rfc3339(text.to_owned()),
    }
}
