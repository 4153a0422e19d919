//! Run with `cargo run --example show_record -- URL ID`.
//!
//! Shows what a store keeps of a session, to a person who looks for a fault. The URL is that of
//! `AnyStore`, such as `sqlite:sessions.db`. The id is that of the record, as log lines and
//! `SessionInfo::id` give it. The session's values are shown too, so mind who reads along.
//!
//! It opens the store as an application does. So it makes the table in a database that has none. It
//! finds only what is under the default prefix, or in the default table.

use std::env::args;
use std::error::Error;
use std::io::stderr;
use std::path::Path;
use std::process::ExitCode;

use cloakroom::{AnyStore, RecordId, SessionStore};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // If the bytes of a record are damaged, a line of the log says in which way.
    tracing_subscriber::fmt().with_writer(stderr).init();
    match show().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn show() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = args().skip(1).collect();
    let [url, id] = &*arguments else {
        return Err("give the URL of a store, and the id of a record".into());
    };
    let id: RecordId = id.parse()?;
    if let Some(path) = url.strip_prefix("sqlite:")
        && !Path::new(path.trim_start_matches("//")).exists()
    {
        return Err(format!("there is no file {path}").into());
    }
    let store = AnyStore::connect(url).await?;
    let Some(record) = store.load(id).await? else {
        return Err(format!("the store has no record {id} that can be read").into());
    };
    println!("{}", record.to_json());
    println!("{} bytes as a record", record.encode()?.len());
    Ok(())
}
