//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) const USAGE: &str = "\
Usage: cargo run --example login -- [OPTIONS]

Options:
  --listen ADDR       where to serve [default: 127.0.0.1:3000, or 127.0.0.1 and the port in the variable PORT]
  --database PATH     the SQLite file of users and sessions [default: cloakroom-demo.sqlite3];
                      the key that signs sessions is kept beside it, in the same path with the extension .key
  --store URL         keep sessions elsewhere: memory:, sqlite:PATH, postgres://…, mysql://…, redis://…, redis+cluster://…,
                      redis+sentinel://… or memcache://… [default: the database]
  --fresh-for SECONDS how long after a login the password may be changed, or the account deleted, without
                      giving the password once more [default: 300]
  --behind-tls        a proxy serves this over HTTPS: use the `__Host-session` cookie, which plain HTTP cannot have
  --help              print this
";

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) listen: String,
    pub(crate) database: PathBuf,
    pub(crate) store: Option<String>,
    pub(crate) fresh_for: Duration,
    pub(crate) behind_tls: bool,
}

impl Options {
    pub(crate) fn key_file(&self) -> PathBuf {
        self.database.with_extension("key")
    }
}

pub(crate) enum Command {
    Serve(Options),
    Help,
}

/// Returns what the arguments ask for, or what is wrong with them.
pub(crate) fn parse(
    mut args: impl Iterator<Item = OsString>,
    port: Option<&str>,
) -> Result<Command, String> {
    let mut options = Options {
        listen: format!("127.0.0.1:{}", port.unwrap_or("3000")),
        database: PathBuf::from("cloakroom-demo.sqlite3"),
        store: None,
        fresh_for: Duration::from_secs(5 * 60),
        behind_tls: false,
    };
    while let Some(arg) = args.next() {
        let arg = arg.to_string_lossy();
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match &*arg {
            "--listen" => options.listen = value()?.to_string_lossy().into_owned(),
            "--database" => options.database = value()?.into(),
            "--store" => options.store = Some(value()?.to_string_lossy().into_owned()),
            "--fresh-for" => {
                let seconds = value()?
                    .to_string_lossy()
                    .parse()
                    .map_err(|_| "--fresh-for needs a number of seconds")?;
                options.fresh_for = Duration::from_secs(seconds);
            }
            "--behind-tls" => options.behind_tls = true,
            "--help" | "-h" => return Ok(Command::Help),
            _ => return Err(format!("unknown argument: {arg}")),
        }
    }
    if options.key_file() == options.database {
        return Err("the database cannot have the extension .key, which is the key's".to_owned());
    }
    Ok(Command::Serve(options))
}
