//! PgBouncer, a pooler in front of PostgreSQL.

use std::fs;
use std::process::Command;
use std::sync::LazyLock;

use super::postgres::asks_for_password;
use super::process::{Place, Server};
use super::programs::{ServerProgram, find_program, run, strings, text};

const PGBOUNCER: ServerProgram = ServerProgram {
    name: "pgbouncer",
    package: "pgbouncer",
    refuses_root: true,
    is_ready: asks_for_password,
};

/// The first version that follows prepared statements.
const FOLLOWS_STATEMENTS: (u32, u32) = (1, 21);

impl Server {
    /// PgBouncer in front of a PostgreSQL server. User, password and database are those of the
    /// server. PgBouncer follows no prepared statements, unless one of the settings says so. A
    /// setting is a line of its file, such as `pool_mode = transaction`.
    pub fn pgbouncer(postgres: &Self, settings: &[&str]) -> Self {
        Self::launch(PGBOUNCER, |place| {
            let file = place.dir.join("pgbouncer.ini");
            fs::write(&file, config(place, postgres) + &settings.join("\n")).unwrap();
            fs::write(place.dir.join("users"), r#""cloakroom" "secret""#).unwrap();
            strings(&[&text(&file)])
        })
    }
}

fn config(place: &Place, postgres: &Server) -> String {
    let server = postgres.port();
    let port = place.port;
    // An older version refuses the setting, and a newer one may have another default.
    let follows = match *VERSION < FOLLOWS_STATEMENTS {
        true => "",
        false => "max_prepared_statements = 0",
    };
    format!(
        "[databases]\n\
         cloakroom = host=127.0.0.1 port={server} dbname=cloakroom user=cloakroom password=secret\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\n\
         listen_port = {port}\n\
         unix_socket_dir =\n\
         auth_type = scram-sha-256\n\
         auth_file = users\n\
         ignore_startup_parameters = extra_float_digits\n\
         {follows}\n"
    )
}

static VERSION: LazyLock<(u32, u32)> = LazyLock::new(|| {
    let program = find_program(PGBOUNCER.name, PGBOUNCER.package);
    let version = run(Command::new(program).arg("--version"));
    let number = version.split_whitespace().nth(1).unwrap();
    let mut parts = number.split('.').map(|part| part.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap())
});
