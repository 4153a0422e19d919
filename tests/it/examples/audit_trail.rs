//! The example `audit_trail`: no event is lost, whatever the disk does.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, SqliteConnection};
use support::program::{Program, binary, cookie};
use tempfile::TempDir;

struct Site {
    program: Program,
    directory: TempDir,
}

impl Site {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("audit.db");
        let environment = [("AUDIT_DB", file.to_str().unwrap()), ("WAIT_MS", "400")];
        let program = Program::start(binary("audit_trail"), &environment);
        Self { program, directory }
    }

    async fn database(&self) -> SqliteConnection {
        let file = self.directory.path().join("audit.db");
        let options = SqliteConnectOptions::new().filename(file);
        SqliteConnection::connect_with(&options).await.unwrap()
    }

    fn post(&self, path: &str, headers: &str) -> (u16, String, String) {
        self.program.send("POST", path, headers)
    }

    fn lines(&self) -> Vec<serde_json::Value> {
        let (status, _, lines) = self.program.send("GET", "/audit", "");
        assert_eq!(status, 200);
        let read = |line| serde_json::from_str(line).unwrap();
        lines.lines().map(read).collect()
    }
}

/// Such as `ended ada revoked admin`.
fn summary(line: &serde_json::Value) -> String {
    let words = ["event", "user", "cause", "asked_by"].map(|field| line[field].as_str());
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[test]
fn each_login_and_each_end_is_a_line() {
    let site = Site::start();
    let ada = "User-Agent: a phone\r\n";
    assert_eq!(site.post("/login/ada", ada).0, 200);
    let (_, head, _) = site.post("/login/admin", "");
    let admin = cookie(&head);
    let (_, _, body) = site.post("/revoke/ada", &admin);
    assert_eq!(body, "1 sessions ended.\n");
    assert_eq!(site.post("/logout", &admin).0, 200);
    // Nobody fills the trail with bad tokens.
    assert_eq!(site.post("/logout", &admin).0, 200);
    let lines = site.lines();
    let summaries: Vec<_> = lines.iter().map(summary).collect();
    assert_eq!(
        summaries,
        [
            "created ada",
            "logged_in ada",
            "created admin",
            "logged_in admin",
            "ended ada revoked admin",
            "ended admin logged_out",
        ]
    );
    assert_eq!(lines[4]["client"]["user_agent"], "a phone");
}

#[tokio::test]
async fn a_login_whose_event_cannot_be_written_gets_no_token_and_its_event_comes_later() {
    let site = Site::start();
    let mut database = site.database().await;
    let lock = sqlx::query("BEGIN EXCLUSIVE");
    lock.execute(&mut database).await.unwrap();
    let (status, head, _) = site.post("/login/ada", "");
    assert_eq!(status, 503);
    assert!(!head.contains("set-cookie"), "{head}");
    let unlock = sqlx::query("ROLLBACK");
    unlock.execute(&mut database).await.unwrap();
    let start = Instant::now();
    while site.lines().len() < 2 {
        assert!(start.elapsed() < Duration::from_secs(20), "it never comes");
        sleep(Duration::from_millis(50));
    }
    assert_eq!(site.post("/login/ada", "").0, 200);
    assert_eq!(site.lines().len(), 4);
}

#[tokio::test]
async fn a_shutdown_waits_for_the_last_event() {
    let mut site = Site::start();
    let mut database = site.database().await;
    let lock = sqlx::query("BEGIN EXCLUSIVE");
    lock.execute(&mut database).await.unwrap();
    assert_eq!(site.post("/login/ada", "").0, 503);
    let pid = Pid::from_child(&site.program.process);
    kill_process(pid, Signal::TERM).unwrap();
    sleep(Duration::from_millis(500));
    assert!(site.program.process.try_wait().unwrap().is_none());
    let unlock = sqlx::query("ROLLBACK");
    unlock.execute(&mut database).await.unwrap();
    assert!(site.program.process.wait().unwrap().success());
    let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM audit");
    assert_eq!(count.fetch_one(&mut database).await.unwrap(), 2);
}
