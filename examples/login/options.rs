//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::tls::CertificateFiles;

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
  --tls               serve over HTTPS, with the `__Host-session` cookie. Browsers that can (Chrome, Edge) bind the session to
                      their device. The first start makes a certificate that only you trust, and keeps it beside the
                      database, in the same path with the extension .tls.pem
  --cert FILE         with --tls and --key: the certificate, and those that lead to it, in the format PEM
  --key FILE          with --tls and --cert: the private key of the certificate, in the format PEM
  --bound-for SECONDS for tests: how long the cookie that proves the device lasts [default: 600]
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
    pub(crate) tls: bool,
    /// A certificate of the user's own.
    pub(crate) certificate: Option<CertificateFiles>,
    pub(crate) bound_for: Duration,
}

impl Options {
    pub(crate) fn key_file(&self) -> PathBuf {
        self.database.with_extension("key")
    }

    /// The file with the certificate that the demo makes, and its key.
    pub(crate) fn own_certificate(&self) -> PathBuf {
        self.database.with_extension("tls.pem")
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
        tls: false,
        certificate: None,
        bound_for: Duration::from_secs(10 * 60),
    };
    let (mut certificate, mut key) = (None, None);
    while let Some(arg) = args.next() {
        let arg = arg.to_string_lossy();
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match &*arg {
            "--listen" => options.listen = value()?.to_string_lossy().into_owned(),
            "--database" => options.database = value()?.into(),
            "--store" => options.store = Some(value()?.to_string_lossy().into_owned()),
            "--fresh-for" => options.fresh_for = seconds(&arg, value()?)?,
            "--bound-for" => options.bound_for = seconds(&arg, value()?)?,
            "--behind-tls" => options.behind_tls = true,
            "--tls" => options.tls = true,
            "--cert" => certificate = Some(value()?.into()),
            "--key" => key = Some(value()?.into()),
            "--help" | "-h" => return Ok(Command::Help),
            _ => return Err(format!("unknown argument: {arg}")),
        }
    }
    if options.key_file() == options.database {
        return Err("the database cannot have the extension .key, which is the key's".to_owned());
    }
    options.certificate = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(CertificateFiles { certificate, key }),
        (None, None) => None,
        _ => return Err("--cert and --key go together".to_owned()),
    };
    if options.certificate.is_some() && !options.tls {
        return Err("--cert and --key need --tls".to_owned());
    }
    if options.tls && options.behind_tls {
        return Err("--tls and --behind-tls exclude each other".to_owned());
    }
    Ok(Command::Serve(options))
}

fn seconds(name: &str, value: OsString) -> Result<Duration, String> {
    let seconds = value.to_string_lossy().parse();
    Ok(Duration::from_secs(seconds.map_err(|_| {
        format!("{name} needs a number of seconds")
    })?))
}
