//! Finds the Rust toolchain, even if the PATH does not contain it. A shell may not know rustup.

use std::env::{self, JoinPathsError};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `cargo` or `rustc`. The first choice is the toolchain of the cargo that runs this program. The
/// second choice is the one that built it. The last choice is the one that a shell finds.
///
/// The programs that the command starts come from the same place.
pub fn command(name: &str) -> Result<Command, JoinPathsError> {
    command_with(name, &env::var_os("PATH").unwrap_or_default())
}

fn command_with(name: &str, path: &OsStr) -> Result<Command, JoinPathsError> {
    let running = env::var_os("CARGO").map(PathBuf::from);
    let own = [running, Some(PathBuf::from(env!("CARGO")))];
    let own = own
        .iter()
        .flatten()
        .filter_map(|cargo| cargo.parent().map(Path::to_path_buf));
    // rustup puts the programs here.
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cargo")))
        .map(|home| home.join("bin"));
    let places: Vec<_> = own.chain(env::split_paths(path)).chain(home).collect();
    let Some(place) = places.iter().find(|place| place.join(name).is_file()) else {
        // The command's error will say that the program does not exist.
        return Ok(Command::new(name));
    };
    let mut command = Command::new(place.join(name));
    let others = env::split_paths(path);
    command.env(
        "PATH",
        env::join_paths([place.clone()].into_iter().chain(others))?,
    );
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ready::Result;

    #[test]
    fn it_is_found_without_a_path() -> Result<()> {
        let version = command_with("rustc", OsStr::new(""))?
            .arg("--version")
            .output()?;
        assert!(version.stdout.starts_with(b"rustc "));
        // Here, cargo starts rustc.
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let status = command_with("cargo", OsStr::new(""))?
            .args([
                "tree",
                "--offline",
                "--depth",
                "0",
                "--manifest-path",
                manifest,
            ])
            .output()?;
        assert!(status.status.success(), "{status:?}");
        Ok(())
    }
}
