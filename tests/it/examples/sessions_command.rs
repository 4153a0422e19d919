//! The example `sessions`: the command for operators.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use axum::http::HeaderMap;
use cloakroom::{
    AnyStore, Client, EncryptedStore, EncryptionKey, SessionStore, SigningKey, TestClock,
    UserHashKey,
};
use serde_json::Value;
use support::program::binary;
use support::servers::Server;
use support::{Browser, app, builder, id_of};
use tempfile::TempDir;

/// The command, and the store that it works on.
struct Operator {
    binary: PathBuf,
    url: String,
    /// The keys of an encrypted store.
    keys: Vec<(&'static str, String)>,
}

#[derive(Debug)]
struct Output {
    code: i32,
    out: String,
    errors: String,
}

impl Output {
    #[track_caller]
    fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.out).unwrap()
    }

    #[track_caller]
    fn assert(&self, code: i32, out: &str) {
        assert_eq!((self.code, &*self.out), (code, out), "{self:?}");
    }

    /// Such an answer comes before the command has done anything.
    #[track_caller]
    fn assert_refused(&self, code: i32, reason: &str) {
        self.assert(code, "");
        assert!(self.errors.starts_with("error: "), "{self:?}");
        assert!(self.errors.contains(reason), "{reason}: {self:?}");
    }
}

impl Operator {
    fn of(url: String) -> Self {
        Self {
            binary: binary("sessions"),
            url,
            keys: Vec::new(),
        }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.answer(arguments, "")
    }

    /// Runs the command. It reads `answer` where it asks a person.
    fn answer(&self, arguments: &[&str], answer: &str) -> Output {
        let mut process = Command::new(&self.binary)
            .args(arguments)
            .env("CLOAKROOM_STORE", &self.url)
            .envs(self.keys.iter().map(|(name, key)| (name, key)))
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that asks nothing may have ended already.
        let _ = process.stdin.take().unwrap().write_all(answer.as_bytes());
        let output = process.wait_with_output().unwrap();
        Output {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            errors: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn count(&self, filter: &[&str]) -> u64 {
        let output = self.run(&[&["count", "--json"], filter].concat());
        output.json()["count"].as_u64().unwrap()
    }
}

/// Three sessions: of ada, of grace and of a visitor, and their ids.
async fn fill<S: SessionStore>(store: S) -> [String; 3] {
    fn client(headers: &HeaderMap) -> Client {
        let agent = headers.get("user-agent").and_then(|it| it.to_str().ok());
        Client::new()
            .with_address("192.0.2.7")
            .with_user_agent(agent.unwrap_or_default())
    }
    let layer = builder(store).client_from(|headers, _| client(headers));
    let app = app(layer.build().unwrap());
    let mut ids = Vec::new();
    for (path, agent) in [
        ("/log_in/ada", "Firefox/1"),
        ("/log_in/grace", "Phone/2"),
        ("/insert/theme/dark", "Bot"),
    ] {
        let mut browser = Browser::new(&app);
        let reply = browser.get_with(path, &[("user-agent", agent)]).await;
        reply.assert(200, "done");
        ids.push(id_of(&browser.token()).to_string());
    }
    ids.try_into().unwrap()
}

async fn sqlite() -> (TempDir, Operator, [String; 3]) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("sessions.db").display());
    let ids = fill(AnyStore::connect(&url).await.unwrap()).await;
    (dir, Operator::of(url), ids)
}

/// Walks through all commands.
fn walk(operator: &Operator, [ada, grace, visitor]: &[String; 3]) {
    let table = operator.run(&["list"]);
    assert_eq!(table.code, 0, "{table:?}");
    let lines: Vec<_> = table.out.lines().collect();
    assert_eq!(lines.len(), 4, "{table:?}");
    let user = lines[0].find("USER").unwrap();
    for line in &lines[1..] {
        let (id, rest) = line.split_at(user);
        let user = match id.trim() {
            id if id == ada => "ada ",
            id if id == grace => "grace ",
            id => {
                assert_eq!(id, visitor);
                "(visitor) "
            }
        };
        assert!(rest.starts_with(user), "{line}");
        assert!(rest.contains(" ago ") && rest.contains(" in "), "{line}");
    }
    let of_grace = operator.run(&["list", "--user", "grace"]);
    assert!(of_grace.out.contains("192.0.2.7 Phone/2"), "{of_grace:?}");

    let list = operator.run(&["list", "--json", "--logged-in"]).json();
    assert_eq!(list["sessions"].as_array().unwrap().len(), 2);
    assert_eq!(list["next"], Value::Null);
    let lines = operator.run(&["list", "--json", "--all"]);
    assert_eq!(lines.out.lines().count(), 3);
    for line in lines.out.lines() {
        let session: Value = serde_json::from_str(line).unwrap();
        assert!(session["id"].is_string() && session["expires_at"].is_string());
    }

    // One page after the other.
    let (mut seen, mut after) = (Vec::new(), None::<String>);
    loop {
        let mut arguments = vec!["list", "--json", "--limit", "1"];
        if let Some(after) = &after {
            arguments.extend(["--after", after]);
        }
        let page = operator.run(&arguments).json();
        for session in page["sessions"].as_array().unwrap() {
            seen.push(session["id"].as_str().unwrap().to_owned());
        }
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    seen.sort();
    let mut all = vec![ada.clone(), grace.clone(), visitor.clone()];
    all.sort();
    assert_eq!(seen, all);

    for (filter, count) in [
        (&[][..], 3),
        (&["--logged-in"], 2),
        (&["--visitors"], 1),
        (&["--user", "ada"], 1),
        (&["--user=ada"], 1),
        (&["--client", "phone"], 1),
        (&["--external-id", "sid"], 0),
        (&["--bound"], 0),
        (&["--unbound"], 3),
        (&["--created-since", "1h"], 3),
        (&["--created-before", "2020-01-01"], 0),
        (&["--seen-since", "2020-01-01T10:00:00+02:00"], 3),
        (&["--seen-before", "7d"], 0),
        (&["--realm", "others"], 1),
        (&["--cookie-name", "session"], 1),
    ] {
        assert_eq!(operator.count(filter), count, "{filter:?}");
    }
    operator.run(&["count"]).assert(0, "3\n");

    let show = operator.run(&["show", ada]);
    for part in ["ada", "Firefox/1", "192.0.2.7", "not bound", "last seen"] {
        assert!(show.out.contains(part), "{part}: {show:?}");
    }
    assert_eq!(operator.run(&["show", ada, "--json"]).json()["user"], "ada");

    // A person who does not say yes ends nothing.
    for answer in ["", "\n", "n\n", "perhaps\n"] {
        for arguments in [
            &["end", "--logged-in"][..],
            &["end", ada],
            &["end", "--everything"],
        ] {
            let output = operator.answer(arguments, answer);
            output.assert(1, "");
            assert!(output.errors.contains("[y/N] nothing ended"), "{output:?}");
        }
    }
    let asked = operator.answer(&["end", "--logged-in"], "n\n");
    assert!(
        asked.errors.starts_with("end 2 sessions? [y/N]"),
        "{asked:?}"
    );
    assert_eq!(operator.count(&[]), 3);

    let ended = operator.answer(&["end", "--user", "ada"], "y\n");
    ended.assert(0, "1 session ended\n");
    operator
        .run(&["show", ada])
        .assert_refused(1, "no live session");
    operator
        .run(&["end", ada, "--yes"])
        .assert_refused(1, "nothing ended");
    operator
        .run(&["end", grace, "--yes"])
        .assert(0, "1 session ended\n");
    operator
        .run(&["end", "--logged-in", "--yes"])
        .assert(0, "0 sessions ended\n");
    let all = operator.run(&["end", "--everything", "--yes", "--json"]);
    assert_eq!(all.json()["ended"], 1);
    assert_eq!(operator.count(&[]), 0);
    let purged = operator.run(&["purge"]);
    purged.assert(0, "0 expired sessions removed\n");
    assert_eq!(operator.run(&["purge", "--json"]).json()["purged"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_lists_counts_shows_and_ends_the_sessions_of_a_file() {
    let (_dir, operator, ids) = sqlite().await;
    walk(&operator, &ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_lists_counts_shows_and_ends_the_sessions_of_redis() {
    let redis = Server::redis(&[]);
    let url = format!("redis://{}/", redis.address());
    let ids = fill(AnyStore::connect(&url).await.unwrap()).await;
    walk(&Operator::of(url), &ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sessions_of_an_encrypted_store_need_its_keys() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("sessions.db").display());
    let key = EncryptionKey::from_bytes(&[7; 32]).unwrap();
    let hash = UserHashKey::from_bytes(&[8; 32]).unwrap();
    let inner = AnyStore::connect(&url).await.unwrap().session_catalog();
    let store = EncryptedStore::new(inner.unwrap(), key.clone()).hash_users(hash.clone());
    let ids = fill(store).await;

    let mut operator = Operator::of(url);
    assert_eq!(operator.count(&[]), 0);
    operator
        .run(&["show", &ids[0]])
        .assert_refused(1, "no live session");
    for filter in [
        &["--unbound"][..],
        &["--seen-since", "1h"],
        &["--everything"],
    ] {
        let end = [&["end", "--yes"], filter].concat();
        operator.run(&end).assert(0, "0 sessions ended\n");
    }

    operator.keys = vec![
        ("CLOAKROOM_ENCRYPTION_KEYS", key.to_hex()),
        ("CLOAKROOM_USER_HASH_KEY", hash.to_hex()),
    ];
    walk(&operator, &ids);
    operator.keys[0].1.truncate(20);
    let refused = operator.run(&["count"]);
    refused.assert_refused(1, "bad key");
    assert!(!refused.errors.contains("07070707"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_url_of_an_application_with_a_near_cache_is_good_here_too() {
    let (_dir, mut operator, _) = sqlite().await;
    operator.url += "?near=1MiB";
    assert_eq!(operator.count(&[]), 3);
}

/// As `head` does with both outputs.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_leaves_stops_no_command_half_way() {
    let (_dir, operator, ids) = sqlite().await;
    let script = |command: &str| {
        let binary = operator.binary.display();
        let status = Command::new("bash")
            .args([
                "-c",
                &format!("{binary} {command}; exit ${{PIPESTATUS[0]}}"),
            ])
            .env("CLOAKROOM_STORE", &operator.url)
            .status();
        status.unwrap().code()
    };
    assert_eq!(script("list --limit 1 2> >(true) | cat"), Some(0));
    assert_eq!(script("list --limit 1 2>&1 | true"), Some(0));
    // Nobody can read the question, so nothing ends.
    let unasked = format!("end {} 2> >(exec <&-; sleep 0.2) </dev/null | cat", ids[0]);
    assert_eq!(script(&unasked), Some(1));
    assert_eq!(operator.count(&[]), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_starts_as_an_option_does_is_an_id() {
    let (_dir, operator, _) = sqlite().await;
    for id in ["-AAAAAAAAAAAAAAAAAAAAA", "--AAAAAAAAAAAAAAAAAAAA"] {
        let shown = operator.run(&["show", id]);
        shown.assert_refused(1, "no live session");
        let ended = operator.run(&["end", id, "--yes"]);
        ended.assert_refused(1, "nothing ended");
        assert_eq!(operator.run(&["list", "--after", id]).code, 0);
    }
    assert_eq!(operator.count(&[]), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_makes_no_sense_says_why_and_ends_nothing() {
    let (_dir, operator, [ada, ..]) = sqlite().await;
    let ada = &*ada;
    for (arguments, reason) in [
        (&[][..], "a command is missing"),
        (&["remove"], "unknown command: \"remove\""),
        (&["end"], "`end --everything`"),
        (&["end", "--yes"], "`end --everything`"),
        (&["end", "--yes", "--user"], "--user needs a value"),
        (
            &["end", "--yes", "--user", "--logged-in"],
            "--user needs a value",
        ),
        (&["end", "--yes", "--user="], "the value of --user is empty"),
        (
            &["end", "--yes", "--usr", "ada"],
            "unknown option: \"--usr\"",
        ),
        (&["end", "--yes", ada, "--user", "ada"], "only one of them"),
        (
            &["end", "--yes", "--everything", "--user", "ada"],
            "only one of them",
        ),
        (&["end", "--yes", "--everything", ada], "only one of them"),
        (&["end", "--yes", ada, ada], "one argument is too many"),
        (&["end", "--yes", "ada"], "no id of a session: \"ada\""),
        (
            &["end", "--yes", "--user", "ada", "--user", "grace"],
            "--user is there twice",
        ),
        (
            &["end", "--yes", "--limit", "1", "--user", "ada"],
            "`end` has no option --limit",
        ),
        (
            &["end", "--yes", "--logged-in", "--visitors"],
            "exclude each other",
        ),
        (
            &["end", "--yes", "--bound", "--unbound"],
            "exclude each other",
        ),
        (
            &["end", "--yes", "--visitors", "--user", "ada"],
            "no visitor has a user",
        ),
        (
            &["end", "--yes", "--seen-before", "soon"],
            "--seen-before needs a time",
        ),
        (
            &["end", "--yes", "--seen-before", "7"],
            "--seen-before needs a time",
        ),
        (
            &["end", "--yes", "--created-since", "2026-02-30"],
            "--created-since needs a time",
        ),
        (
            &["end", "--yes", "--seen-before", "99999999999999999999d"],
            "--seen-before needs a time",
        ),
        (
            &[
                "end",
                "--yes",
                "--created-since",
                "1h",
                "--created-before",
                "2h",
            ],
            "not before",
        ),
        (
            &["end", "--yes", "--json=yes", "--everything"],
            "unknown option",
        ),
        (&["end", "--yes=no", "--everything"], "--yes takes no value"),
        (&["end", "--yes", "--everything", "--realm", "a:b"], "realm"),
        (&["list", "--limit", "0"], "--limit needs a number"),
        (&["list", "--limit", "-1"], "--limit needs a number"),
        (&["list", "--limit", "5", "--all"], "exclude each other"),
        (&["list", "--after", "!"], "--after"),
        (&["list", "--after", "abc"], "cursor"),
        (&["list", "--yes"], "`list` has no option --yes"),
        (&["count", ada], "one argument is too many"),
        (&["purge", "--user", "ada"], "`purge` has no option --user"),
        (&["show"], "the id of a session is missing"),
        (&["show", "abc"], "no id of a session"),
        (
            &["new-key", "--store", "redis://x"],
            "`new-key` has no option --store",
        ),
    ] {
        operator.answer(arguments, "y\n").assert_refused(2, reason);
    }
    assert_eq!(operator.count(&[]), 3);
    let help = operator.run(&["end", "--everything", "--yes", "--help"]);
    assert!(
        help.code == 0 && help.out.starts_with("Usage: "),
        "{help:?}"
    );
    assert_eq!(operator.count(&[]), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_there_is_no_new_store_and_its_password_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("missing.db");
    let missing = Operator::of(format!("sqlite:{}", file.display()));
    missing
        .run(&["count"])
        .assert_refused(1, "there is no file");
    assert!(!file.exists());
    for memory in ["memory:", "sqlite::memory:"] {
        let output = Operator::of(memory.to_owned()).run(&["count"]);
        output.assert_refused(2, "belongs to its process");
    }
    let postgres = Server::postgres();
    let at = postgres.address();
    for (url, code) in [
        (format!("postgres://cloakroom:hunter2@{at}/cloakroom"), 1),
        (
            "postgres://cloakroom:hunter2@127.0.0.1:1/cloakroom".to_owned(),
            1,
        ),
        ("redis://:hunter2@127.0.0.1:1/".to_owned(), 1),
        ("redis://:hunter2@no host/".to_owned(), 1),
        ("hunter2".to_owned(), 1),
        ("hunter2:hunter2@x".to_owned(), 1),
    ] {
        let operator = Operator::of(url.clone());
        let output = operator.run(&["count"]);
        output.assert_refused(code, "");
        assert!(!output.errors.contains("hunter2:") && !output.errors.contains(":hunter2"));
        // The same on the command line, and where `--store` was forgotten.
        for arguments in [
            &["count", "--store", &*url][..],
            &["count", &*url],
            &[&*url],
        ] {
            let output = operator.run(arguments);
            assert_ne!(output.code, 0);
            let is_shown = url.contains("://") && output.errors.contains("hunter2");
            assert!(!is_shown, "{output:?}");
        }
    }
    // With the right password, the command is let in.
    let url = format!("postgres://cloakroom:secret@{at}/cloakroom");
    let ids = fill(AnyStore::connect(&url).await.unwrap()).await;
    let operator = Operator::of(url);
    assert_eq!(operator.count(&["--user", "ada"]), 1);
    operator
        .run(&["end", &ids[0], "--yes"])
        .assert(0, "1 session ended\n");
    assert_eq!(operator.count(&[]), 2);

    let output = Command::new(&operator.binary)
        .arg("count")
        .env_remove("CLOAKROOM_STORE")
        .output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("CLOAKROOM_STORE")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn with_memcached_one_session_is_shown_and_ended_by_its_id() {
    let memcached = Server::memcached(&[]);
    let url = format!("memcache://{}", memcached.address());
    let [ada, ..] = fill(AnyStore::connect(&url).await.unwrap()).await;
    let operator = Operator::of(url);
    for arguments in [
        &["list"][..],
        &["count"],
        &["end", "--user", "ada", "--yes"],
    ] {
        operator
            .run(arguments)
            .assert_refused(2, "cannot list its sessions");
    }
    assert_eq!(
        operator.run(&["show", &ada, "--json"]).json()["user"],
        "ada"
    );
    operator
        .run(&["end", &ada, "--yes"])
        .assert(0, "1 session ended\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_obeys_no_user_agent() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("sessions.db").display());
    let store = AnyStore::connect(&url).await.unwrap();
    let evil = "\u{1b}[2J\u{202e}x\nfake line";
    let layer = builder(store)
        .client_from(move |_, _| Client::new().with_user_agent(evil))
        .build();
    let mut browser = Browser::new(&app(layer.unwrap()));
    browser.get("/log_in/ada").await.assert(200, "done");
    let operator = Operator::of(url);
    let id = id_of(&browser.token()).to_string();
    let list = operator.run(&["list"]);
    assert_eq!(list.out.lines().count(), 2, "{list:?}");
    for arguments in [
        &["list", "--json"][..],
        &["list", "--json", "--all"],
        &["show", "--json", &id],
    ] {
        let output = operator.run(arguments);
        let mut text = output.json();
        if let Some(first) = text.get("sessions") {
            text = first[0].clone();
        }
        assert_eq!(text["client"]["user_agent"], evil);
        assert!(
            output
                .out
                .chars()
                .all(|c| c == '\n' || matches!(c, ' '..='~'))
        );
    }
    for output in [list, operator.run(&["show", &id])] {
        assert!(!output.out.contains(['\u{1b}', '\u{202e}']), "{output:?}");
        assert!(
            output.out.contains(r"\u{1b}[2J\u{202e}x\u{a}fake"),
            "{output:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_needs_no_timeouts_of_the_application() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("sessions.db").display());
    let store = AnyStore::connect(&url).await.unwrap();
    let day = Duration::from_secs(24 * 60 * 60);
    let clock = TestClock::new();
    let layer = builder(store)
        .clock(clock.clone())
        .idle_timeout(30 * day)
        .absolute_timeout(300 * day)
        .build()
        .unwrap();
    let mut browser = Browser::new(&app(layer));
    browser.get("/log_in/ada").await.assert(200, "done");
    let operator = Operator::of(url);
    let id = id_of(&browser.token()).to_string();
    let shown = operator.run(&["show", &id, "--json"]).json();
    assert_eq!(shown["created_at"], shown["last_seen_at"]);
    assert_eq!(operator.count(&["--seen-since", "1h"]), 1);
    assert_eq!(operator.count(&["--seen-before", "1h"]), 0);
}

#[test]
fn a_new_key_is_one_that_the_library_takes_and_each_one_is_another() {
    let operator = Operator::of(String::new());
    let keys = [(); 2].map(|()| operator.run(&["new-key"]).out);
    assert_ne!(keys[0], keys[1]);
    for key in &keys {
        assert_eq!(key.trim().len(), 2 * SigningKey::MIN_LEN);
        assert!(SigningKey::from_hex(key.trim()).is_ok());
    }
    let key = operator.run(&["new-key", "--json"]).json();
    assert!(SigningKey::from_hex(key["key"].as_str().unwrap()).is_ok());
}
