//! Server programs, and the programs that prepare their files.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

pub(crate) const NOBODY: u32 = 65_534;

/// A server program.
pub(crate) struct ServerProgram {
    pub(crate) name: &'static str,
    /// The Debian package that contains it, or `npm` and a package of npm.
    pub(crate) package: &'static str,
    pub(crate) refuses_root: bool,
    /// Whether the server is ready, seen over a new connection.
    pub(crate) is_ready: fn(&mut TcpStream) -> io::Result<bool>,
}

pub(crate) fn leave_root(command: &mut Command) {
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Finds a program on the PATH, or in the folders where Debian puts servers.
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
        .unwrap_or_else(|| match package.strip_prefix("npm ") {
            Some(package) => panic!("{name} is not installed: npm install --global {package}"),
            None => panic!("{name} is not installed: apt-get install {package}"),
        })
}

/// Runs a program, which must succeed, and returns what it prints.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    run_with_input(command, "")
}

#[track_caller]
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> String {
    let mut process = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    // A program that reads nothing may have ended already.
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

pub(crate) fn strings(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A connection on which each operation has this time limit.
pub(crate) fn connect(address: &str, limit: Duration) -> io::Result<TcpStream> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}
