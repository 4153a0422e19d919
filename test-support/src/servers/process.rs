//! The process of a server: how it starts, stops and dies, and how its files are removed.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::ports::claim_port;
use super::programs::{NOBODY, ServerProgram, connect, find_program, is_root, leave_root, text};
use super::templates::temporary_dir;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Starts the server only when the test says so. By then the watcher knows the server.
const STARTER: &str = r#"read -r _ && exec "$@" </dev/null"#;

/// Sends a signal ($2) to a server ($1) and all its processes. Waits until they are in a state ($3,
/// as a pattern for ps). PostgreSQL's processes leave its process group, so this also sends the
/// signal to the server's children. The server is stopped first, so that it cannot start more
/// children.
const SIGNAL: &str = r#"
    signal_server() {
        kill -STOP "$1"
        children=$(pgrep -P "$1")
        kill -s "$2" -- "-$1" $children
        while ps -o stat= "$1" $children | grep -qv "$3"; do sleep 0.01; done
    }
"#;

/// Reads the process ID of the running server, or an empty line if no server runs. At the end of
/// its input, the watcher kills the server. It also removes the directory ($1) and the memory that
/// PostgreSQL left. The input ends when the test drops it or is killed.
const WATCHER: &str = r#"
    server=
    while read -r line; do server=$line; done
    [ -n "$server" ] && signal_server "$server" KILL ^Z
    [ -f "$1/data/postmaster.pid" ] && ipcrm -m "$(sed -n '7s/.* //p' "$1/data/postmaster.pid")"
    rm -rf -- "$1"
"#;

/// A server with its files. When this value is dropped, the server is killed and the files are
/// removed. The same happens when the test is killed.
pub struct Server {
    program: ServerProgram,
    path: PathBuf,
    args: Vec<String>,
    pub(crate) place: Place,
    process: Option<Child>,
}

/// The certificate that a server shows to its clients, and its key. Both are PEM.
pub struct Certificate {
    pub pem: String,
    pub key: String,
}

impl Certificate {
    /// Writes the certificate and its key to files. The files belong to the program's user, because
    /// PostgreSQL demands that.
    pub(crate) fn write(&self, place: &Place, program: &ServerProgram) -> (String, String) {
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

/// The place of a server: its directory and port. It exists also while the server does not run.
pub(crate) struct Place {
    pub(crate) port: u16,
    /// This file is locked, so other tests do not use the port.
    _claim: File,
    pub(crate) dir: PathBuf,
    watcher: Child,
}

/// The reason why a server did not start.
enum StartError {
    Ended(String),
    DoesNotAnswer(String),
}

impl Server {
    /// Starts a server at a free place. `args` may prepare files there.
    pub(crate) fn launch(program: ServerProgram, args: impl Fn(&Place) -> Vec<String>) -> Self {
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
                // Perhaps a program that is not a test has taken the port.
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

    /// Everything that the server has written to standard output and standard error, since its
    /// first start.
    pub fn log(&self) -> String {
        let log = fs::read(self.place.log()).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Starts the server again, with the same port and files. Waits until it answers.
    #[track_caller]
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "{} is running", self.program.name);
        if let Err(StartError::Ended(report) | StartError::DoesNotAnswer(report)) = self.try_start()
        {
            panic!("{report}");
        }
    }

    /// Kills all processes of the server, like a crash. Waits until they have ended.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            signal(process.id(), "KILL", "^Z");
            process.wait().unwrap();
            self.place.watch("");
        }
    }

    /// Stops all processes of the server. Connections stay open, but nothing answers.
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
            // This check comes last. So the server that answered is this process.
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

    pub(crate) fn report(&self, problem: &str) -> String {
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
    fn find(program: &ServerProgram) -> Self {
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

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Gives the watcher the ID of the process that it must kill at the end.
    fn watch(&mut self, pid: &str) {
        writeln!(self.watcher.stdin.as_mut().unwrap(), "{pid}").unwrap();
    }

    /// Lets the watcher kill the server and remove its files.
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
