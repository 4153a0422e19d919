//! MariaDB.

use std::io::{self, Read};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::{Certificate, Place, Server};
use super::programs::{ServerProgram, find_program, is_root, run, run_with_input, strings, text};
use super::templates::{copy, template};

const MARIADB: ServerProgram = ServerProgram {
    name: "mariadbd",
    package: "mariadb-server",
    refuses_root: false,
    is_ready: mariadb_is_ready,
};

impl Server {
    /// The user is `cloakroom`, the password `secret`, and the database `cloakroom`.
    pub fn mariadb() -> Self {
        Self::launch_mariadb(|_| Vec::new())
    }

    /// Like [`mariadb`](Self::mariadb), but it also speaks TLS with clients that ask for it.
    pub fn mariadb_with(certificate: &Certificate) -> Self {
        Self::launch_mariadb(|place| {
            let (file, key) = certificate.write(place, &MARIADB);
            vec![format!("--ssl-cert={file}"), format!("--ssl-key={key}")]
        })
    }

    fn launch_mariadb(more: impl Fn(&Place) -> Vec<String>) -> Self {
        Self::launch(MARIADB, |place| {
            copy(&mariadb_template(), &place.data());
            let mut args = mariadb_args(&place.data());
            args.extend([
                "--bind-address=127.0.0.1".to_owned(),
                format!("--port={}", place.port),
                format!("--socket={}", text(&place.dir.join("socket"))),
                format!("--pid-file={}", text(&place.dir.join("pid"))),
                format!("--tmpdir={}", text(&place.dir)),
                "--max-connections=200".to_owned(),
            ]);
            args.extend(more(place));
            args
        })
    }
}

fn mariadb_template() -> PathBuf {
    template(&MARIADB, |data| {
        let args = mariadb_args(data);
        run(
            Command::new(find_program("mariadb-install-db", MARIADB.package))
                .args(&args)
                .args(["--auth-root-authentication-method=normal", "--skip-test-db"]),
        );
        // MariaDB can make users only after it has loaded the privileges.
        let mut sql = "FLUSH PRIVILEGES;\n\
            CREATE DATABASE cloakroom CHARACTER SET utf8mb4;\n"
            .to_owned();
        for host in ["127.0.0.1", "%"] {
            sql += &format!(
                "GRANT ALL ON *.* TO cloakroom@'{host}' IDENTIFIED BY 'secret' WITH GRANT OPTION;\n"
            );
        }
        run_with_input(
            Command::new(find_program(MARIADB.name, MARIADB.package))
                .args(&args)
                .arg("--bootstrap"),
            &sql,
        );
    })
}

/// The arguments of mariadbd, at every start and when it makes the data directory.
fn mariadb_args(data: &Path) -> Vec<String> {
    let mut args = strings(&[
        "--no-defaults",
        &format!("--datadir={}", text(data)),
        "--skip-name-resolve",
        "--performance-schema=OFF",
        "--innodb-buffer-pool-size=16M",
        "--innodb-log-buffer-size=2M",
        "--innodb-log-file-size=8M",
        "--key-buffer-size=1M",
        "--aria-pagecache-buffer-size=1M",
    ]);
    if is_root() {
        args.push("--user=root".to_owned());
    }
    args
}

/// A server that is ready sends a greeting. After the four bytes of the packet's header, the
/// greeting has the protocol version 10.
fn mariadb_is_ready(stream: &mut TcpStream) -> io::Result<bool> {
    let mut greeting = [0; 5];
    stream.read_exact(&mut greeting)?;
    Ok(greeting[4] == 10)
}
