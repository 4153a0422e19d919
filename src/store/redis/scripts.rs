//! The Lua scripts that run on the server.
//!
//! Each script is a file in `scripts/`. Two things are put in when the store is made:
//!
//! - A line `--include name` is replaced by the file `scripts/parts/name.lua`.
//! - A word in capitals that [`NUMBERS`] lists is replaced by its number, also between quotes.
//!
//! The arguments of `redis.call` are texts wherever they can be: Lua would have to render a number.
//! No script defines a function, since each call would make that function again.

use redis::Cmd;

use crate::id::RecordId;
use crate::record::encoding::{EXPIRY_AT, FORMAT, LENGTH_AT, USER_AT};
use crate::record::user::UserId;

/// What a script that writes answers. A replace that kept a later expiry answers its TTL instead,
/// which is more than `DONE`.
pub(super) const DONE: i64 = 1;
/// The session has another version, or its key is taken.
pub(super) const CONFLICT: i64 = 0;
/// There is no session under the key.
pub(super) const MISSING: i64 = -1;

/// In a cluster, how many seconds after its entry in the index a session may be written at the
/// latest. A younger entry stays, whatever a reader finds under the session's key.
pub(super) const ENTRY_GRACE: u64 = 600;

/// How many milliseconds longer than a session its user's index lasts.
const INDEX_LONGER: u64 = 1000;

/// In a cluster, how many bytes of the names of the last writes are kept.
const WRITES_MAX: usize = 256;

/// With a new entry in an index that has more entries, a script looks at the oldest ones. In a
/// cluster, it does so with each write.
const INDEX_KEPT: usize = 64;

/// How many entries it looks at then: more than the new one, so that the index does not grow.
const INDEX_CHECKED: usize = 16;

/// How many characters of base64url a record id has, with which a session's key ends.
const ID_LEN: usize = (size_of::<RecordId>() * 4).div_ceil(3);

/// What the scripts know by name. Places count from 0, as those of `GETRANGE` and `SETRANGE` do.
/// Lua's own functions count from 1. [`encoding`](crate::record::encoding) has the places in a
/// record.
const NUMBERS: [(&str, i64); 17] = [
    ("DONE", DONE),
    ("CONFLICT", CONFLICT),
    ("MISSING", MISSING),
    ("FORMAT", FORMAT as i64),
    ("VERSION_LAST", EXPIRY_AT as i64 - 1),
    ("EXPIRY_AT", EXPIRY_AT as i64),
    ("LENGTH_AT", LENGTH_AT as i64),
    // The head of a record is what a write needs: format, version, expiry and length.
    ("HEAD_LAST", LENGTH_AT as i64 + 3),
    ("USER_AT", USER_AT as i64),
    // Two bytes are the user's length.
    ("USER_LAST", USER_AT as i64 + 1 + UserId::STORED_LEN as i64),
    ("WRITES_MAX", WRITES_MAX as i64),
    ("ID_LEN", ID_LEN as i64),
    ("ENTRY_GRACE", ENTRY_GRACE as i64),
    ("INDEX_LONGER", INDEX_LONGER as i64),
    ("INDEX_KEPT", INDEX_KEPT as i64),
    ("INDEX_CHECKED", INDEX_CHECKED as i64),
    ("INDEX_CHECKED_LAST", INDEX_CHECKED as i64 - 1),
];

/// Needs an `include_str!` of its own, since that takes a literal.
macro_rules! script {
    ($name:literal) => {
        Script::new(render(include_str!(concat!("scripts/", $name, ".lua"))))
    };
}

/// A script, and the name that the server knows it by.
pub(super) struct Script {
    code: String,
    hash: String,
}

impl Script {
    fn new(code: String) -> Self {
        let hash = redis::Script::new(&code).get_hash().to_owned();
        Self { code, hash }
    }

    pub(super) fn hash(&self) -> &str {
        &self.hash
    }

    /// The command that gives the script to the server.
    pub(super) fn load(&self) -> Cmd {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(&self.code);
        command
    }
}

/// The scripts. The head of each file says what it takes and answers.
///
/// An entry of an index has a score: when the entry was added, or when a script last found its
/// session there, in seconds of the server's own clock. The clocks of the nodes may be wrong by
/// hours. The score only says which entries to look at. Whether the session is there says what
/// becomes of an entry.
///
/// On one server, scripts look at keys that no call names. A cluster does not allow this: there, an
/// index and its sessions are on different nodes.
pub(super) struct Scripts {
    pub(super) insert: Script,
    pub(super) replace: Script,
    pub(super) touch: Script,
    pub(super) remove: Script,
    pub(super) list: Script,
    pub(super) remove_all: Script,
    pub(super) index: Script,
    pub(super) unindex: Script,
    pub(super) reindex: Script,
    pub(super) remove_owned: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            insert: script!("insert"),
            replace: script!("replace"),
            touch: script!("touch"),
            remove: script!("remove"),
            list: script!("list"),
            remove_all: script!("remove_all"),
            index: script!("index"),
            unindex: script!("unindex"),
            reindex: script!("reindex"),
            remove_owned: script!("remove_owned"),
        }
    }
}

/// A file as the script that the server gets.
fn render(source: &str) -> String {
    let mut script = String::new();
    for line in source.lines() {
        let line = line.trim_start();
        match line.strip_prefix("--include ").and_then(part) {
            Some(part) => script += &render(part),
            // Comments are for readers of the file.
            None if line.starts_with("-- ") || line == "--" => {}
            None => {
                put_numbers(line, &mut script);
                script.push('\n');
            }
        }
    }
    script
}

/// What several scripts have in common.
fn part(name: &str) -> Option<&'static str> {
    Some(match name {
        "add_entry" => include_str!("scripts/parts/add_entry.lua"),
        "last_writes" => include_str!("scripts/parts/last_writes.lua"),
        "index_session" => include_str!("scripts/parts/index_session.lua"),
        "or_fail" => include_str!("scripts/parts/or_fail.lua"),
        "user_of" => include_str!("scripts/parts/user_of.lua"),
        _ => return None,
    })
}

/// Adds a line, in which each name of a number is replaced by the number.
fn put_numbers(line: &str, script: &mut String) {
    let is_of_name = |c: char| c.is_ascii_uppercase() || c == '_';
    let mut rest = line;
    while let Some(start) = rest.find(is_of_name) {
        let (before, from) = rest.split_at(start);
        let end = from.find(|c| !is_of_name(c)).unwrap_or(from.len());
        let (word, after) = from.split_at(end);
        script.push_str(before);
        match NUMBERS.iter().find(|(name, _)| *name == word) {
            Some((_, number)) => script.push_str(&number.to_string()),
            None => script.push_str(word),
        }
        rest = after;
    }
    script.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_every_part_is_put_in() {
        let sources = [
            include_str!("scripts/insert.lua"),
            include_str!("scripts/replace.lua"),
            include_str!("scripts/touch.lua"),
            include_str!("scripts/remove.lua"),
            include_str!("scripts/list.lua"),
            include_str!("scripts/remove_all.lua"),
            include_str!("scripts/index.lua"),
            include_str!("scripts/unindex.lua"),
            include_str!("scripts/reindex.lua"),
            include_str!("scripts/remove_owned.lua"),
        ];
        for source in sources {
            let script = render(source);
            assert!(!script.contains("--"), "{script}");
            // No command of Redis has such a name.
            let is_of_name = |c: char| c.is_ascii_uppercase() || c == '_';
            for word in script.split(|c| !is_of_name(c)) {
                let is_name = word.contains('_') && word.contains(char::is_alphabetic);
                assert!(!is_name, "{word} in {script}");
            }
        }
    }
}
