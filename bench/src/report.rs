//! All measurements, with what they were made on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::contenders::Contender;
use crate::contention::{self, Contention};
use crate::count::{self, Cost};
use crate::networked::{self, Networked};
use crate::ready::Result;
use crate::scenario::Scenario;
use crate::size::{self, Size};
use crate::threads::{self, Scaling};
use crate::time::{self, Nanos};
use crate::{one_thread, two_threads};

#[derive(Serialize, Deserialize)]
pub struct Report {
    pub command: String,
    pub machine: Machine,
    /// Of Rust, of the crates that are compared, and of the servers.
    pub versions: BTreeMap<String, String>,
    /// By scenario and contender.
    pub in_process: BTreeMap<String, BTreeMap<String, InProcess>>,
    pub threads: Vec<Scaling>,
    pub size: Vec<Size>,
    pub networked: Vec<Networked>,
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
    /// The 10th percentile less that of bare axum.
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
/// The same, of the program in `bench/sqlx-peers`.
const CRATES_OF_SQLX_PEERS: [&str; 3] = ["sqlx", "tower-sessions", "tower-sessions-sqlx-store"];

/// Programs that say their version.
const PROGRAMS: [(&str, &str); 5] = [
    ("rustc", "--version"),
    ("redis-server", "--version"),
    ("memcached", "--version"),
    ("mariadbd", "--version"),
    ("postgres", "--version"),
];

/// Measures everything, and writes it down.
pub fn make() -> Result<Report> {
    let report = Report {
        command: COMMAND.into(),
        machine: machine()?,
        versions: versions()?,
        in_process: in_process()?,
        threads: threads::measure()?,
        size: size::measure()?,
        networked: two_threads()?.block_on(networked::measure())?,
        contention: two_threads()?.block_on(contention::measure())?,
    };
    fs::write(path(), serde_json::to_string_pretty(&report)? + "\n")?;
    Ok(report)
}

/// A report that was written before.
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
    for (program, argument) in PROGRAMS {
        let output = Command::new(program)
            .arg(argument)
            .output()
            .map_err(|error| format!("{program} cannot say its version: {error}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        versions.insert(program.into(), said.trim().into());
    }
    Ok(versions)
}

/// The newest version of each crate in a `Cargo.lock`, where they stand in order.
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
