//! Instructions and allocations of a request: what callgrind counts of a run, less what it counts of a shorter one.

use std::env;
use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::contenders::Contender;
use crate::ready::Result;
use crate::scenario::Scenario;

/// Requests of the shorter run. The longer has twice as many.
const REQUESTS: usize = 1000;

/// How many requests either run makes before it sends some of them, so that making them does not count: it is a server that
/// makes them of what comes in, and not a session layer.
pub const PREPARED: usize = 2 * REQUESTS;

/// What one request costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    pub instructions: f64,
    pub allocations: f64,
}

impl Cost {
    /// As it is written down.
    pub fn rounded(self) -> Self {
        Self {
            instructions: self.instructions.round(),
            allocations: (self.allocations * 10.0).round() / 10.0,
        }
    }
}

/// The functions of libc that hand out memory.
const ALLOCATORS: [&str; 5] = [
    "malloc",
    "calloc",
    "realloc",
    "posix_memalign",
    "aligned_alloc",
];

pub fn measure(contender: Contender, scenario: Scenario) -> Result<Cost> {
    let short = run(contender, scenario, REQUESTS)?;
    let long = run(contender, scenario, PREPARED)?;
    let a_request = |short: u64, long: u64| (long - short) as f64 / REQUESTS as f64;
    Ok(Cost {
        instructions: a_request(short.0, long.0),
        allocations: a_request(short.1, long.1),
    })
}

/// Instructions and allocations of a run of its own.
fn run(contender: Contender, scenario: Scenario, requests: usize) -> Result<(u64, u64)> {
    let out = env::temp_dir().join(format!(
        "callgrind.{}.{contender}.{scenario}.{requests}",
        std::process::id()
    ));
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(env::current_exe()?)
        .args([
            "run",
            contender.name(),
            &scenario.to_string(),
            &requests.to_string(),
        ])
        .output()
        .map_err(|error| format!("cannot start valgrind, of the package valgrind: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let profile = fs::read_to_string(&out)?;
    fs::remove_file(&out)?;
    counts(&profile).ok_or_else(|| "callgrind wrote no totals".into())
}

/// The sums of a profile in callgrind's format.
fn counts(profile: &str) -> Option<(u64, u64)> {
    let mut instructions = None;
    let mut allocations = 0;
    // A name is written out the first time, and is a number afterwards: `cfn=(12) malloc`, then `cfn=(12)`.
    let mut allocators = Vec::new();
    let mut callee = "";
    for line in profile.lines() {
        if let Some(totals) = line.strip_prefix("totals:") {
            instructions = totals.trim().parse().ok();
        }
        if let Some(name) = line.strip_prefix("fn=").or(line.strip_prefix("cfn=")) {
            let (number, name) = name.split_once(' ').unwrap_or((name, ""));
            if ALLOCATORS.contains(&name) {
                allocators.push(number);
            }
            if line.starts_with('c') {
                callee = number;
            }
        }
        if let Some(calls) = line.strip_prefix("calls=")
            && allocators.contains(&callee)
        {
            allocations += calls.split(' ').next()?.parse::<u64>().ok()?;
        }
    }
    Some((instructions?, allocations))
}
