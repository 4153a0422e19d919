//! PostgreSQL.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use super::process::{Certificate, Place, Server};
use super::programs::{
    ServerProgram, find_program, leave_root, run, run_with_input, strings, text,
};
use super::templates::{copy, template};

const POSTGRES: ServerProgram = ServerProgram {
    name: "postgres",
    package: "postgresql",
    refuses_root: true,
    is_ready: asks_for_password,
};

impl Server {
    /// The user is `cloakroom`, the password `secret` (SCRAM), and the database `cloakroom`.
    pub fn postgres() -> Self {
        Self::launch_postgres(|_| Vec::new())
    }

    /// Like [`postgres`](Self::postgres), but it also speaks TLS with clients that ask for it.
    pub fn postgres_with(certificate: &Certificate) -> Self {
        Self::launch_postgres(|place| {
            let (file, key) = certificate.write(place, &POSTGRES);
            let (file, key) = (
                format!("ssl_cert_file={file}"),
                format!("ssl_key_file={key}"),
            );
            strings(&["-c", "ssl=on", "-c", &file, "-c", &key])
        })
    }

    fn launch_postgres(more: impl Fn(&Place) -> Vec<String>) -> Self {
        Self::launch(POSTGRES, |place| {
            copy(&postgres_template(), &place.data());
            let mut args = strings(&["-D", &text(&place.data()), "-p", &place.port.to_string()]);
            for setting in [
                "listen_addresses=127.0.0.1",
                "unix_socket_directories=",
                "shared_buffers=16MB",
                // The memory is a file in the data directory, so it is removed with the directory.
                "dynamic_shared_memory_type=mmap",
            ] {
                args.extend(strings(&["-c", setting]));
            }
            args.extend(more(place));
            args
        })
    }
}

fn postgres_template() -> PathBuf {
    template(&POSTGRES, |data| {
        let password = data.with_file_name("password");
        fs::write(&password, "secret").unwrap();
        let mut initdb = Command::new(find_program("initdb", POSTGRES.package));
        initdb
            .arg("-D")
            .arg(data)
            .args(["-U", "cloakroom", "-A", "scram-sha-256", "--pwfile"])
            .arg(&password)
            .args([
                "--no-sync",
                "--wal-segsize=1",
                "--locale=C.UTF-8",
                "-E",
                "UTF8",
            ])
            .current_dir(data.parent().unwrap());
        leave_root(&mut initdb);
        run(&mut initdb);

        // Each database has about 300 files to copy. Two databases are enough.
        let mut single = Command::new(find_program(POSTGRES.name, POSTGRES.package));
        single
            .args(["--single", "-D"])
            .arg(data)
            .arg("template1")
            .current_dir(data.parent().unwrap());
        leave_root(&mut single);
        run_with_input(
            &mut single,
            "ALTER DATABASE postgres RENAME TO cloakroom\n\
            UPDATE pg_database SET datistemplate = false WHERE datname = 'template0'\n\
            DROP DATABASE template0\n",
        );
    })
}

/// A server that is ready asks for the password. While it starts, it answers with an error.
pub(crate) fn asks_for_password(stream: &mut TcpStream) -> io::Result<bool> {
    let parameters = b"user\0cloakroom\0database\0cloakroom\0\0";
    let length = u32::try_from(parameters.len() + 8).unwrap();
    let protocol: u32 = 3 << 16;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(&protocol.to_be_bytes())?;
    stream.write_all(parameters)?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    Ok(answer == *b"R")
}
