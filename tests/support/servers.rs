//! Starts real servers, each with a directory and a port of its own, and stands between them and their clients.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test file uses a part of it"
)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
#![allow(
    clippy::incompatible_msrv,
    reason = "the tests need not run with the oldest Rust: this locks files"
)]

use std::collections::HashMap;
use std::env;
use std::fs::{self, File, Permissions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// To be raised when the templates of data directories are made in another way.
const TEMPLATE_FORMAT: u32 = 1;
/// Below the ports that Linux gives to outgoing connections: nothing else takes the port of a killed server.
const PORTS: std::ops::Range<u16> = 20_000..22_000;
/// How far above its port a Redis Cluster node listens for the others.
const CLUSTER_BUS: u16 = 10_000;
const NOBODY: u32 = 65_534;
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts the server only when the test says so: its watcher knows it by then.
const STARTER: &str = r#"read -r _ && exec "$@" </dev/null"#;

/// Signals a server ($1) and all its processes ($2), and waits until they are in a state ($3, as a pattern for ps).
/// PostgreSQL's processes leave its process group, so its children are signalled, too; it cannot fork while it is stopped.
const SIGNAL: &str = r#"
    signal_server() {
        kill -STOP "$1"
        children=$(pgrep -P "$1")
        kill -s "$2" -- "-$1" $children
        while ps -o stat= "$1" $children | grep -qv "$3"; do sleep 0.01; done
    }
"#;

/// Reads the running server's process ID, or an empty line while none is running. When the test drops the other end,
/// or is killed, it kills the server and removes its directory ($1), and the memory that PostgreSQL left behind.
const WATCHER: &str = r#"
    server=
    while read -r line; do server=$line; done
    [ -n "$server" ] && signal_server "$server" KILL ^Z
    [ -f "$1/data/postmaster.pid" ] && ipcrm -m "$(sed -n '7s/.* //p' "$1/data/postmaster.pid")"
    rm -rf -- "$1"
"#;

/// A program that serves.
struct Program {
    name: &'static str,
    /// The Debian package that brings it.
    package: &'static str,
    refuses_root: bool,
    /// Whether a new connection finds it ready.
    is_ready: fn(&mut TcpStream) -> io::Result<bool>,
}

const REDIS: Program = Program {
    name: "redis-server",
    package: "redis-server",
    refuses_root: false,
    is_ready: redis_is_ready,
};

const MEMCACHED: Program = Program {
    name: "memcached",
    package: "memcached",
    refuses_root: false,
    is_ready: memcached_is_ready,
};

const POSTGRES: Program = Program {
    name: "postgres",
    package: "postgresql",
    refuses_root: true,
    is_ready: postgres_is_ready,
};

const MARIADB: Program = Program {
    name: "mariadbd",
    package: "mariadb-server",
    refuses_root: false,
    is_ready: mariadb_is_ready,
};

/// A server with its files. It is killed and they are removed when this is dropped, and also when the test is killed.
pub struct Server {
    program: Program,
    path: PathBuf,
    args: Vec<String>,
    place: Place,
    process: Option<Child>,
}

/// What a server shows to its clients, and its key, both as PEM.
pub struct Certificate {
    pub pem: String,
    pub key: String,
}

impl Certificate {
    /// The files of the certificate and of its key, which belong to the program: PostgreSQL asks for that.
    fn write(&self, place: &Place, program: &Program) -> (String, String) {
        let [file, key] =
            [("server.pem", &self.pem), ("server.key", &self.key)].map(|(name, pem)| {
                let path = place.dir.join(name);
                fs::write(&path, pem).unwrap();
                fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
                if program.refuses_root && is_root() {
                    chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
                }
                text(&path)
            });
        (file, key)
    }
}

/// Where a server is, whether it runs or not.
struct Place {
    port: u16,
    /// Locked: other tests keep off the port.
    _claim: File,
    dir: PathBuf,
    watcher: Child,
}

/// Why a server did not start.
enum StartError {
    Ended(String),
    DoesNotAnswer(String),
}

impl Server {
    /// Keeps nothing on disk, unless the arguments say so.
    pub fn redis(args: &[&str]) -> Self {
        Self::launch(REDIS, |place| redis_args(place, args))
    }

    pub fn memcached(args: &[&str]) -> Self {
        Self::launch(MEMCACHED, |place| {
            let mut all = strings(&["-l", "127.0.0.1", "-p", &place.port.to_string(), "-U", "0"]);
            if is_root() {
                all.extend(strings(&["-u", "root"]));
            }
            all.extend(strings(args));
            all
        })
    }

    /// As [`redis`](Self::redis), and it speaks TLS at [`tls_port`](Self::tls_port).
    pub fn redis_with(certificate: &Certificate, args: &[&str]) -> Self {
        Self::launch(REDIS, |place| {
            let (file, key) = certificate.write(place, &REDIS);
            let port = (place.port + CLUSTER_BUS).to_string();
            let mut all = redis_args(place, args);
            all.extend(strings(&["--tls-port", &port, "--tls-auth-clients", "no"]));
            all.extend(strings(&["--tls-cert-file", &file, "--tls-key-file", &key]));
            all
        })
    }

    pub fn tls_port(&self) -> u16 {
        self.place.port + CLUSTER_BUS
    }

    /// The user is `cloakroom`, the password `secret` (SCRAM), and the database `cloakroom`.
    pub fn postgres() -> Self {
        Self::launch_postgres(|_| Vec::new())
    }

    /// As [`postgres`](Self::postgres), and it speaks TLS with those who ask for it.
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
                // In the data directory, and so removed with it.
                "dynamic_shared_memory_type=mmap",
            ] {
                args.extend(strings(&["-c", setting]));
            }
            args.extend(more(place));
            args
        })
    }

    /// The user is `cloakroom`, the password `secret`, and the database `cloakroom`.
    pub fn mariadb() -> Self {
        Self::launch_mariadb(|_| Vec::new())
    }

    /// As [`mariadb`](Self::mariadb), and it speaks TLS with those who ask for it.
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

    /// Starts a server where there is room for it; `args` may prepare files at its place.
    fn launch(program: Program, args: impl Fn(&Place) -> Vec<String>) -> Self {
        let path = find_program(program.name, program.package);
        let place = Place::find(&program);
        let mut server = Self {
            args: args(&place),
            program,
            path,
            place,
            process: None,
        };
        for _ in 1..5 {
            match server.try_start() {
                Ok(()) => return server,
                // Something that is no test has taken the port, perhaps.
                Err(StartError::Ended(_)) => {
                    server.place = Place::find(&server.program);
                    server.args = args(&server.place);
                }
                Err(StartError::DoesNotAnswer(report)) => panic!("{report}"),
            }
        }
        server.start();
        server
    }

    pub fn port(&self) -> u16 {
        self.place.port
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.place.port)
    }

    pub fn dir(&self) -> &Path {
        &self.place.dir
    }

    #[track_caller]
    pub fn pid(&self) -> u32 {
        match &self.process {
            Some(process) => process.id(),
            None => panic!("{} is not running", self.program.name),
        }
    }

    /// What the server has written to its standard output and error, over all its starts.
    pub fn log(&self) -> String {
        let log = fs::read(self.place.log()).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Starts it again, on the same port and files, and waits until it answers.
    #[track_caller]
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "{} is running", self.program.name);
        if let Err(StartError::Ended(report) | StartError::DoesNotAnswer(report)) = self.try_start()
        {
            panic!("{report}");
        }
    }

    /// Kills all its processes, as a crash would, and waits for their end.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            signal(process.id(), "KILL", "^Z");
            process.wait().unwrap();
            self.place.watch("");
        }
    }

    /// Stops all its processes: connections stay open, and nothing answers.
    pub fn pause(&self) {
        signal(self.pid(), "STOP", "^[TZ]");
    }

    pub fn resume(&self) {
        signal(self.pid(), "CONT", "");
    }

    fn try_start(&mut self) -> Result<(), StartError> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.place.log())
            .unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", STARTER, "sh"])
            .arg(&self.path)
            .args(&self.args)
            .current_dir(&self.place.dir)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if self.program.refuses_root {
            leave_root(&mut command);
        }
        let process = self.process.insert(command.spawn().unwrap());
        self.place.watch(&process.id().to_string());
        writeln!(process.stdin.take().unwrap(), "start").unwrap();

        let deadline = Instant::now() + PATIENCE;
        loop {
            let is_ready = self.is_ready();
            // Looked at last: whatever answers is this process, then.
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            if let Some(status) = ended {
                self.process = None;
                self.place.watch("");
                return Err(StartError::Ended(self.report(&format!("ended: {status}"))));
            }
            if is_ready {
                return Ok(());
            }
            if Instant::now() > deadline {
                let report = self.report("does not answer");
                self.kill();
                return Err(StartError::DoesNotAnswer(report));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn is_ready(&self) -> bool {
        let connected = connect(&self.address(), Duration::from_secs(1));
        connected
            .and_then(|mut stream| (self.program.is_ready)(&mut stream))
            .unwrap_or(false)
    }

    fn report(&self, problem: &str) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        format!(
            "{} {}: {problem}; its log ends with:\n{}",
            self.path.display(),
            self.args.join(" "),
            lines[lines.len().saturating_sub(20)..].join("\n")
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.place.clear();
        if let Some(process) = &mut self.process {
            let _ = process.wait();
        }
    }
}

impl Place {
    fn find(program: &Program) -> Self {
        let (port, claim) = claim_port();
        let dir = temporary_dir(program).keep();
        let watcher = Command::new("sh")
            .args(["-c", &format!("{SIGNAL}{WATCHER}"), "sh"])
            .arg(&dir)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            port,
            _claim: claim,
            dir,
            watcher,
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Tells the watcher which process to kill at the end.
    fn watch(&mut self, pid: &str) {
        writeln!(self.watcher.stdin.as_mut().unwrap(), "{pid}").unwrap();
    }

    /// Has the watcher do its duty.
    fn clear(&mut self) {
        drop(self.watcher.stdin.take());
        let _ = self.watcher.wait();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clear();
    }
}

fn signal(pid: u32, signal: &str, state: &str) {
    Command::new("sh")
        .args(["-c", &format!("{SIGNAL} signal_server \"$@\""), "sh"])
        .args([&pid.to_string(), signal, state])
        .stderr(Stdio::null())
        .status()
        .unwrap();
}

/// A port that is free, together with the one of the cluster bus, and kept from other tests for as long as the file is open.
fn claim_port() -> (u16, File) {
    let claims = home().join("ports");
    fs::create_dir_all(&claims).unwrap();
    let start = RandomState::new().hash_one(0) % u64::from(PORTS.end - PORTS.start);
    let ports = PORTS.cycle().skip(start as usize);
    for port in ports.take(PORTS.len()) {
        let claim = File::create(claims.join(port.to_string())).unwrap();
        let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if claim.try_lock().is_ok() && is_free(port) && is_free(port + CLUSTER_BUS) {
            return (port, claim);
        }
    }
    panic!("no port is free");
}

/// A directory that the program may use.
fn temporary_dir(program: &Program) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    if program.refuses_root && is_root() {
        chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    dir
}

fn leave_root(command: &mut Command) {
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Where the tests keep what they share: beneath cargo's target directory.
fn home() -> PathBuf {
    // This is target/<profile>/deps/<test>, and that of the benchmarks target/<profile>/<program>.
    let program = env::current_exe().unwrap();
    let directory = program.parent().unwrap();
    let profile = match directory.ends_with("deps") {
        true => directory.parent().unwrap(),
        false => directory,
    };
    profile.parent().unwrap().join("test-servers")
}

/// A program on the PATH, or where Debian hides servers.
pub fn find_program(name: &str, package: &str) -> PathBuf {
    let mut dirs: Vec<_> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    dirs.extend(["/usr/sbin".into(), "/usr/libexec".into()]);
    let mut versions: Vec<_> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .collect();
    versions.sort_by_key(|path| text(path.file_name().unwrap().as_ref()).parse::<u32>().ok());
    dirs.extend(versions.iter().rev().map(|version| version.join("bin")));
    dirs.iter()
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed: apt-get install {package}"))
}

/// The data directory that a program starts from: made once, for all tests, by a function that gets its path.
fn template(program: &Program, make: impl FnOnce(&Path)) -> PathBuf {
    let version = run(Command::new(find_program(program.name, program.package)).arg("--version"));
    let version = version
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        .unwrap();
    let name = format!("{}-{version}-{TEMPLATE_FORMAT}", program.name);
    let template = home().join(&name);
    if template.exists() {
        return template;
    }
    fs::create_dir_all(home()).unwrap();
    let lock = File::create(home().join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    if !template.exists() {
        let dir = temporary_dir(program);
        make(&dir.path().join("data"));
        let draft = home().join(format!("{name}.draft"));
        // One that was killed may have left this.
        let _ = fs::remove_dir_all(&draft);
        copy(&dir.path().join("data"), &draft);
        fs::rename(draft, &template).unwrap();
    }
    template
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

        // Each database is some 300 files to copy: two are enough.
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

fn mariadb_template() -> PathBuf {
    template(&MARIADB, |data| {
        let args = mariadb_args(data);
        run(
            Command::new(find_program("mariadb-install-db", MARIADB.package))
                .args(&args)
                .args(["--auth-root-authentication-method=normal", "--skip-test-db"]),
        );
        // Users can be made only once the privileges are loaded.
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

/// What mariadbd is told at every start, and when its data directory is made.
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

fn redis_args(place: &Place, args: &[&str]) -> Vec<String> {
    let mut all = strings(&["--port", &place.port.to_string(), "--bind", "127.0.0.1"]);
    all.extend(strings(&["--dir", &text(&place.dir), "--save", ""]));
    all.extend(strings(args));
    all
}

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp")
        .args(["-a", "--reflink=auto"])
        .args([from, to]));
}

/// What a program prints, which must succeed.
#[track_caller]
fn run(command: &mut Command) -> String {
    run_with_input(command, "")
}

#[track_caller]
fn run_with_input(command: &mut Command, input: &str) -> String {
    let mut process = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    // One that reads nothing may have ended already.
    let _ = process.stdin.take().unwrap().write_all(input.as_bytes());
    let output = process.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{printed}{errors}",
        output.status
    );
    printed.into_owned()
}

fn strings(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A connection on which nothing takes longer than the limit.
fn connect(address: &str, limit: Duration) -> io::Result<TcpStream> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}

/// Any answer will do, such as one that asks for a password.
fn redis_is_ready(stream: &mut TcpStream) -> io::Result<bool> {
    let answer = exchange(stream, &["PING"])?;
    Ok(!answer.starts_with("LOADING"))
}

fn memcached_is_ready(stream: &mut TcpStream) -> io::Result<bool> {
    stream.write_all(b"version\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    Ok(answer == *b"VERSION")
}

/// It asks for the password: while it starts up it refuses with an error instead.
fn postgres_is_ready(stream: &mut TcpStream) -> io::Result<bool> {
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

/// It greets, with version 10 of the protocol, after the four bytes of a packet's header.
fn mariadb_is_ready(stream: &mut TcpStream) -> io::Result<bool> {
    let mut greeting = [0; 5];
    stream.read_exact(&mut greeting)?;
    Ok(greeting[4] == 10)
}

/// Redis's answer to one command, over a connection of its own. Nil is an empty text, and an array has a line for each element.
#[track_caller]
pub fn run_redis(address: &str, command: &[&str]) -> String {
    try_run_redis(address, command)
        .unwrap_or_else(|error| panic!("{command:?} at {address}: {error}"))
}

fn try_run_redis(address: &str, command: &[&str]) -> io::Result<String> {
    exchange(&mut connect(address, Duration::from_secs(5))?, command)
}

fn exchange(stream: &mut TcpStream, command: &[&str]) -> io::Result<String> {
    let mut request = format!("*{}\r\n", command.len());
    for word in command {
        request += &format!("${}\r\n{word}\r\n", word.len());
    }
    stream.write_all(request.as_bytes())?;
    read_answer(&mut BufReader::new(stream))
}

fn read_answer(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let Some((kind, rest)) = line.trim_end().split_at_checked(1) else {
        return Err(ErrorKind::UnexpectedEof.into());
    };
    let length = || rest.parse::<i64>().map_err(io::Error::other);
    match kind {
        "$" => match usize::try_from(length()?) {
            Ok(length) => {
                let mut bytes = vec![0; length + 2];
                reader.read_exact(&mut bytes)?;
                bytes.truncate(length);
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            Err(_) => Ok(String::new()),
        },
        "*" => {
            let elements = (0..length()?).map(|_| read_answer(reader));
            Ok(elements.collect::<io::Result<Vec<_>>>()?.join("\n"))
        }
        "+" | "-" | ":" => Ok(rest.to_owned()),
        other => Err(io::Error::other(format!("an answer of the type {other}"))),
    }
}

/// Asks Redis until the answer is as it should be.
#[track_caller]
fn wait_for(server: &Server, command: &[&str], is_good: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = try_run_redis(&server.address(), command);
        if answer.as_ref().is_ok_and(|answer| is_good(answer)) {
            return;
        }
        if Instant::now() > deadline {
            panic!("{}", server.report(&format!("{command:?}: {answer:?}")));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[track_caller]
fn assert_ok(server: &Server, command: &[&str]) {
    assert_eq!(run_redis(&server.address(), command), "OK", "{command:?}");
}

/// Three masters with a third of the slots each, and a replica of the first.
pub struct RedisCluster {
    masters: [Server; 3],
    replica: Server,
    /// One in front of each node, whose address the node tells for its own.
    proxies: Vec<Proxy>,
}

impl RedisCluster {
    /// Waits until every node can be used, and knows the replica.
    pub fn start() -> Self {
        let node = || {
            Server::redis(&[
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                "1000",
                // The replica may take over whenever its master is gone.
                "--cluster-replica-validity-factor",
                "0",
                "--repl-diskless-sync-delay",
                "0",
            ])
        };
        let mut cluster = Self {
            masters: [node(), node(), node()],
            replica: node(),
            proxies: Vec::new(),
        };
        for node in cluster.nodes().map(Server::address) {
            let proxy = Proxy::to(&node);
            let port = proxy.address.port().to_string();
            run_redis(&node, &["CONFIG", "SET", "cluster-announce-port", &port]);
            cluster.proxies.push(proxy);
        }
        let slots = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
        for (master, (first, last)) in cluster.masters.iter().zip(slots) {
            assert_ok(master, &["CLUSTER", "ADDSLOTSRANGE", first, last]);
        }
        let first = &cluster.masters[0];
        for (epoch, node) in cluster.nodes().into_iter().enumerate() {
            let epoch = (epoch + 1).to_string();
            assert_ok(node, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch]);
            let port = node.port().to_string();
            assert_ok(first, &["CLUSTER", "MEET", "127.0.0.1", &port]);
        }
        let id = run_redis(&first.address(), &["CLUSTER", "MYID"]);
        // Not before the two have met.
        wait_for(&cluster.replica, &["CLUSTER", "REPLICATE", &id], |answer| {
            answer == "OK"
        });
        wait_for(&cluster.replica, &["INFO", "replication"], |info| {
            info.contains("master_link_status:up")
        });
        for node in cluster.nodes() {
            wait_for(node, &["CLUSTER", "INFO"], |info| {
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:4")
            });
            wait_for(node, &["CLUSTER", "NODES"], |nodes| {
                nodes.contains(&format!("slave {id}")) && !nodes.contains("handshake")
            });
        }
        cluster
    }

    /// The masters, and the replica at last.
    pub fn nodes(&self) -> [&Server; 4] {
        let [first, second, third] = &self.masters;
        [first, second, third, &self.replica]
    }

    /// What the nodes are known by; the last is the replica's.
    pub fn addresses(&self) -> Vec<String> {
        self.proxies.iter().map(Proxy::address).collect()
    }

    pub fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    pub fn masters_without_replica(&mut self) -> &mut [Server] {
        &mut self.masters[1..]
    }

    pub fn master_with_replica(&mut self) -> &mut Server {
        &mut self.masters[0]
    }

    pub fn replica(&mut self) -> &mut Server {
        &mut self.replica
    }
}

/// A master, a replica, and three sentinels, two of which decide. The master's name is `cloakroom`.
pub struct RedisSentinel {
    master: Server,
    replica: Server,
    sentinels: [Server; 3],
}

impl RedisSentinel {
    /// Waits until every sentinel knows the others and the replica.
    pub fn start() -> Self {
        let master = Server::redis(&["--repl-diskless-sync-delay", "0"]);
        let port = master.port().to_string();
        let replica = Server::redis(&[
            "--repl-diskless-sync-delay",
            "0",
            "--replicaof",
            "127.0.0.1",
            &port,
        ]);
        wait_for(&replica, &["INFO", "replication"], |info| {
            info.contains("master_link_status:up")
        });
        let sentinel = || {
            Server::launch(REDIS, |place| {
                let config = place.dir.join("sentinel.conf");
                let lines = [
                    format!("port {}", place.port),
                    "bind 127.0.0.1".to_owned(),
                    format!("dir {}", text(&place.dir)),
                    format!("sentinel monitor cloakroom 127.0.0.1 {port} 2"),
                    "sentinel down-after-milliseconds cloakroom 1000".to_owned(),
                    "sentinel failover-timeout cloakroom 3000\n".to_owned(),
                ];
                fs::write(&config, lines.join("\n")).unwrap();
                vec![text(&config), "--sentinel".to_owned()]
            })
        };
        let sentinels = [sentinel(), sentinel(), sentinel()];
        for sentinel in &sentinels {
            // They find each other sooner so; an older one knows no such command, and takes some seconds.
            run_redis(
                &sentinel.address(),
                &["SENTINEL", "DEBUG", "PUBLISH-PERIOD", "100"],
            );
        }
        for sentinel in &sentinels {
            wait_for(sentinel, &["INFO", "sentinel"], |info| {
                info.contains("status=ok") && info.contains("slaves=1,sentinels=3")
            });
        }
        // The link counts as up before the master sends what is written: it waits for the replica's first word.
        wait_for(&replica, &["INFO", "replication"], |info| {
            !info.contains("slave_repl_offset:0\r")
        });
        Self {
            master,
            replica,
            sentinels,
        }
    }

    /// The master and the replica.
    pub fn nodes(&self) -> [&Server; 2] {
        [&self.master, &self.replica]
    }

    /// The addresses of the sentinels.
    pub fn sentinels(&self) -> Vec<String> {
        self.sentinels.iter().map(Server::address).collect()
    }

    pub fn master(&mut self) -> &mut Server {
        &mut self.master
    }

    pub fn replica(&mut self) -> &mut Server {
        &mut self.replica
    }
}

/// Stands between clients and a server: it counts, and breaks connections.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    connections: Mutex<HashMap<u64, Connection>>,
    refuses: AtomicBool,
    is_over: AtomicBool,
    round_trips: AtomicU64,
    /// Where new connections go, if not to the first server.
    moved_to: Mutex<Option<SocketAddr>>,
    accepted: AtomicU64,
}

/// The two halves of a connection.
struct Connection {
    client: TcpStream,
    server: TcpStream,
    is_mute: Arc<AtomicBool>,
}

impl Proxy {
    /// In front of the server at this address.
    pub fn to(address: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server: SocketAddr = address.parse().unwrap();
        let shared = Arc::new(Shared::default());
        Self {
            address: listener.local_addr().unwrap(),
            shared: Arc::clone(&shared),
            acceptor: Some(thread::spawn(move || shared.accept(&listener, server))),
        }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Closes all connections. New ones still work.
    pub fn cut(&self) {
        for (_, connection) in self.shared.connections.lock().unwrap().drain() {
            connection.close();
        }
    }

    /// Swallows what the server sends over the connections that there are, as a network does that is about to break.
    pub fn mute(&self) {
        for connection in self.shared.connections.lock().unwrap().values() {
            connection.is_mute.store(true, Ordering::SeqCst);
        }
    }

    /// Whether new connections are closed at once.
    pub fn refuse(&self, refuses: bool) {
        self.shared.refuses.store(refuses, Ordering::SeqCst);
    }

    /// How often, over all connections, a client began to send: at first, or after the server had sent something.
    pub fn round_trips(&self) -> u64 {
        self.shared.round_trips.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.address);
        let _ = self.acceptor.take().unwrap().join();
        self.cut();
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener, server: SocketAddr) {
        for id in 0.. {
            let accepted = listener.accept();
            if self.is_over.load(Ordering::SeqCst) {
                return;
            }
            if self.refuses.load(Ordering::SeqCst) {
                continue;
            }
            self.accepted.fetch_add(1, Ordering::SeqCst);
            let server = self.moved_to.lock().unwrap().unwrap_or(server);
            // If the server cannot be reached, then the client is hung up on.
            if let Ok((client, _)) = accepted
                && let Ok(server) = TcpStream::connect_timeout(&server, PATIENCE)
            {
                let is_mute = Arc::default();
                let connection = Connection {
                    client,
                    server,
                    is_mute,
                };
                self.connect(id, connection);
            }
        }
    }

    /// Passes on what both sides send, in two threads, until both have ended.
    fn connect(self: &Arc<Self>, id: u64, connection: Connection) {
        let (to_server, to_client) = (connection.clone(), connection.clone());
        self.connections.lock().unwrap().insert(id, connection);
        let shared = Arc::clone(self);
        thread::spawn(move || {
            let client_sends = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    to_server.pass_on(&to_server.client, &to_server.server, || {
                        if !client_sends.swap(true, Ordering::SeqCst) {
                            shared.round_trips.fetch_add(1, Ordering::SeqCst);
                        }
                        true
                    });
                });
                to_client.pass_on(&to_client.server, &to_client.client, || {
                    client_sends.store(false, Ordering::SeqCst);
                    !to_client.is_mute.load(Ordering::SeqCst)
                });
            });
            shared.connections.lock().unwrap().remove(&id);
        });
    }
}

impl Connection {
    /// Passes on what one side sends, if a function that is called each time before says so.
    fn pass_on(&self, mut from: &TcpStream, mut to: &TcpStream, passes: impl Fn() -> bool) {
        let _ = to.set_nodelay(true);
        let mut buffer = [0; 16 * 1024];
        loop {
            match from.read(&mut buffer) {
                // This side has ended; the other may go on.
                Ok(0) => {
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                Ok(length) => {
                    if passes() && to.write_all(&buffer[..length]).is_err() {
                        return self.close();
                    }
                }
                Err(_) => return self.close(),
            }
        }
    }

    fn close(&self) {
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }

    fn clone(&self) -> Self {
        Self {
            client: self.client.try_clone().unwrap(),
            server: self.server.try_clone().unwrap(),
            is_mute: Arc::clone(&self.is_mute),
        }
    }
}

impl Proxy {
    /// Leads new connections to another server, as the address of a managed primary does after a failover.
    pub fn lead_to(&self, address: &str) {
        *self.shared.moved_to.lock().unwrap() = Some(address.parse().unwrap());
    }

    /// How many connections were ever made.
    pub fn connections(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}
