//! The instructions and allocations of a request. Callgrind counts a longer run and a shorter run.
//! The difference is the result.

use std::env;
use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::contenders::Contender;
use crate::ready::Result;
use crate::scenario::Scenario;

/// The number of requests in the shorter run. The longer run has twice as many.
const REQUESTS: usize = 1000;

/// Both runs make this many requests before they send some of them. So the making of requests does
/// not count. In a real program, a server makes them from its input, and a session layer does not.
pub const PREPARED: usize = 2 * REQUESTS;

/// The cost of one request.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    pub instructions: f64,
    pub allocations: f64,
}

impl Cost {
    /// The cost with the digits that are written down.
    pub fn rounded(self) -> Self {
        Self {
            instructions: self.instructions.round(),
            allocations: (self.allocations * 10.0).round() / 10.0,
        }
    }
}

/// The functions of libc that allocate memory.
const ALLOCATORS: [&str; 5] = [
    "malloc",
    "calloc",
    "realloc",
    "posix_memalign",
    "aligned_alloc",
];

pub fn measure(contender: Contender, scenario: Scenario) -> Result<Cost> {
    measure_command(&["run", contender.name(), &scenario.to_string()])
}

/// The cost of a request that this command of the program sends. The command's last argument, which
/// comes from here, is the number of requests.
pub fn measure_command(command: &[&str]) -> Result<Cost> {
    let short = run(command, REQUESTS)?;
    let long = run(command, PREPARED)?;
    let a_request = |short: u64, long: u64| (long - short) as f64 / REQUESTS as f64;
    Ok(Cost {
        instructions: a_request(short.0, long.0),
        allocations: a_request(short.1, long.1),
    })
}

/// The instructions and allocations of one run, in its own process.
fn run(command: &[&str], requests: usize) -> Result<(u64, u64)> {
    let out = env::temp_dir().join(format!(
        "callgrind.{}.{}.{requests}",
        std::process::id(),
        command.join(".").replace('/', "")
    ));
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(env::current_exe()?)
        .args(command)
        .arg(requests.to_string())
        .output()
        .map_err(|error| format!("cannot start valgrind, of the package valgrind: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let profile = fs::read_to_string(&out)?;
    fs::remove_file(&out)?;
    counts(&profile).ok_or_else(|| "callgrind wrote no totals".into())
}

/// The totals of a profile in callgrind's format.
fn counts(profile: &str) -> Option<(u64, u64)> {
    let mut instructions = None;
    let mut allocations = 0;
    // The profile gives a name only the first time, and then only its number: `cfn=(12) malloc`,
    // then `cfn=(12)`.
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
