//! All measurements, and a description of the machine and the versions.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::contenders::Contender;
use crate::contention::{self, Contention};
use crate::count::{self, Cost};
use crate::networked::{self, AtOnce, Networked};
use crate::ready::Result;
use crate::results::Results;
use crate::scenario::Scenario;
use crate::size::{self, Size};
use crate::threads::{self, Scaling};
use crate::time::{self, Nanos};
use crate::{one_thread, toolchain, two_threads};
use support::servers::find_program;

#[derive(Serialize, Deserialize)]
pub struct Report {
    pub command: String,
    pub machine: Machine,
    /// The versions of Rust, of the compared crates, and of the servers.
    pub versions: BTreeMap<String, String>,
    /// The results by scenario and contender.
    pub in_process: BTreeMap<String, BTreeMap<String, InProcess>>,
    pub threads: Vec<Scaling>,
    pub size: Vec<Size>,
    pub networked: Vec<Networked>,
    pub at_once: Vec<AtOnce>,
    pub contention: Vec<Contention>,
}

#[derive(Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub processors: usize,
    pub kernel: String,
}

/// One request in this process.
#[derive(Serialize, Deserialize)]
pub struct InProcess {
    pub nanos: Nanos,
    /// The 10th percentile, minus the 10th percentile of bare axum.
    pub over_bare: f64,
    #[serde(flatten)]
    pub cost: Cost,
}

const COMMAND: &str = "cargo run --release -p cloakroom-bench -- all";

/// Crates whose versions matter.
const CRATES: [&str; 12] = [
    "axum",
    "axum_session",
    "axum_session_redispool",
    "cloakroom",
    "fred",
    "redis",
    "redis_pool",
    "ruts",
    "sqlx",
    "tokio",
    "tower-sessions",
    "tower-sessions-redis-store",
];
/// The crates in `bench/sqlx-peers` whose versions matter.
const CRATES_OF_SQLX_PEERS: [&str; 3] = ["sqlx", "tower-sessions", "tower-sessions-sqlx-store"];

/// The servers that print their version, and their Debian packages.
const SERVERS: [(&str, &str); 4] = [
    ("redis-server", "redis-server"),
    ("memcached", "memcached"),
    ("mariadbd", "mariadb-server"),
    ("postgres", "postgresql"),
];

/// The parts of the report.
pub const PARTS: [&str; 8] = [
    "machine",
    "versions",
    "in_process",
    "threads",
    "size",
    "networked",
    "at_once",
    "contention",
];

/// Measures these parts. Writes each part as soon as it is ready.
pub fn make(parts: &[&str]) -> Result<Report> {
    let mut results = Results::open(path())?;
    for part in parts {
        match *part {
            "machine" => results.part("machine", machine)?,
            "versions" => results.part("versions", versions)?,
            "in_process" => results.part("in_process", in_process)?,
            "threads" => results.part("threads", threads::measure)?,
            "size" => results.part("size", size::measure)?,
            "networked" => results.part("networked", || {
                two_threads()?.block_on(networked::measure(&networked::STORES))
            })?,
            "at_once" => {
                results.part("at_once", || two_threads()?.block_on(networked::at_once()))?
            }
            "contention" => results.part("contention", || {
                two_threads()?.block_on(contention::measure())
            })?,
            other => return Err(format!("there is no part {other:?} of {PARTS:?}").into()),
        }
    }
    let mut report = read()?;
    report.command = COMMAND.into();
    results.write(&report)?;
    Ok(report)
}

/// Reads an older report.
pub fn read() -> Result<Report> {
    Ok(serde_json::from_str(&fs::read_to_string(path())?)?)
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("results.json")
}

fn in_process() -> Result<BTreeMap<String, BTreeMap<String, InProcess>>> {
    let times = one_thread()?.block_on(time::measure())?;
    let mut all = BTreeMap::new();
    for scenario in Scenario::ALL {
        let nanos = &times[&scenario.to_string()];
        let bare = nanos[Contender::Bare.name()].p10;
        let mut of_scenario = BTreeMap::new();
        for &contender in Contender::ALL {
            let nanos = nanos[contender.name()];
            let one = InProcess {
                nanos,
                over_bare: nanos.p10 - bare,
                cost: count::measure(contender, scenario)?.rounded(),
            };
            of_scenario.insert(contender.to_string(), one);
        }
        all.insert(scenario.to_string(), of_scenario);
    }
    Ok(all)
}

fn machine() -> Result<Machine> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let processor = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, name)| name);
    Ok(Machine {
        processor: processor.into(),
        processors: std::thread::available_parallelism()?.get(),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
            .trim()
            .into(),
    })
}

fn versions() -> Result<BTreeMap<String, String>> {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ours = locked(&bench.join("../Cargo.lock"))?;
    let of_sqlx_peers = locked(&bench.join("sqlx-peers/Cargo.lock"))?;
    let mut versions = BTreeMap::new();
    for name in CRATES {
        versions.insert(name.into(), ours.get(name).cloned().unwrap_or_default());
    }
    for name in CRATES_OF_SQLX_PEERS {
        let version = of_sqlx_peers.get(name).cloned().unwrap_or_default();
        versions.insert(format!("{name} (SQL peers)"), version);
    }
    versions.insert(
        "rustc".into(),
        version("rustc", toolchain::command("rustc")?)?,
    );
    for (server, package) in SERVERS {
        // This is the measured program. It may be outside the PATH.
        let found = find_program(server, package);
        let said = version(server, Command::new(&found))?;
        // One server also prints its path.
        versions.insert(
            server.into(),
            said.replace(&*found.to_string_lossy(), server),
        );
    }
    Ok(versions)
}

fn version(program: &str, mut command: Command) -> Result<String> {
    let output = command
        .arg("--version")
        .output()
        .map_err(|error| format!("{program} cannot say its version: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().into())
}

/// The newest version of each crate in a `Cargo.lock`. The file lists the versions of a crate in
/// order.
fn locked(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(path)?;
    let quoted = |line: &str, field: &str| {
        let value = line.strip_prefix(field)?.strip_prefix(" = \"")?;
        Some(value.strip_suffix('"')?.to_owned())
    };
    let mut versions = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some(found) = quoted(line, "name") {
            name = found;
        } else if let Some(version) = quoted(line, "version") {
            versions.insert(name.clone(), version);
        }
    }
    Ok(versions)
}
