//! The cost of a million sessions in memory: the bytes of each one, and the time of a read.

use std::env;
use std::fs;
use std::process::Command;
use std::time::Instant;

use axum::http::header::HeaderValue;
use serde::{Deserialize, Serialize};

use crate::contenders::Contender;
use crate::one_thread;
use crate::ready::{Ready, Result, session_cookie};
use crate::scenario::Scenario;
use crate::time::median;

const FEW: usize = 1_000;
const MANY: usize = 1_000_000;

/// The number of sessions that are read, one after the other.
const READ: usize = 1_000;
const ROUNDS: usize = 50;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Size {
    pub contender: String,
    pub read_of_few: f64,
    pub read_of_many: f64,
    /// Bytes of the process's memory. They include what the allocator keeps for itself.
    pub bytes_a_session: f64,
}

/// The result of one process. Each contender has its own process, so none finds another's memory.
#[derive(Serialize, Deserialize)]
struct Filled {
    nanos_a_read: f64,
    bytes_a_session: f64,
}

pub fn measure() -> Result<Vec<Size>> {
    Contender::ALL
        .iter()
        .filter(|contender| contender.has_sessions() && **contender != Contender::CloakroomLazy)
        .map(|&contender| {
            let few = in_process(contender, FEW)?;
            let many = in_process(contender, MANY)?;
            Ok(Size {
                contender: contender.to_string(),
                read_of_few: few.nanos_a_read,
                read_of_many: many.nanos_a_read,
                bytes_a_session: many.bytes_a_session,
            })
        })
        .collect()
}

fn in_process(contender: Contender, sessions: usize) -> Result<Filled> {
    let output = Command::new(env::current_exe()?)
        .args(["fill", contender.name(), &sessions.to_string()])
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Fills a store, reads from it, and prints the cost.
pub fn fill(contender: Contender, sessions: usize) -> Result<()> {
    one_thread()?.block_on(async {
        let mut ready = contender.ready().await?;
        let before = resident()?;
        let mut cookies: Vec<HeaderValue> = Vec::with_capacity(READ);
        for number in 0..sessions {
            let cookie = session_cookie(&ready.router).await?;
            if number % (sessions / READ) == 0 {
                cookies.push(cookie);
            }
        }
        let bytes = resident()?.saturating_sub(before);
        // The order of reading differs from the order of making.
        cookies.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        let mut reads = Vec::new();
        for _ in 0..ROUNDS {
            reads.push(read(&mut ready, &cookies).await);
        }
        let filled = Filled {
            nanos_a_read: median(reads),
            bytes_a_session: bytes as f64 / sessions as f64,
        };
        println!("{}", serde_json::to_string(&filled)?);
        std::mem::forget(ready);
        Ok(())
    })
}

/// The nanoseconds of one read.
async fn read(ready: &mut Ready, cookies: &[HeaderValue]) -> f64 {
    let start = Instant::now();
    for cookie in cookies {
        ready.cookie = cookie.clone();
        ready.send(Scenario::B).await;
    }
    start.elapsed().as_nanos() as f64 / cookies.len() as f64
}

/// The bytes of memory that the process has.
pub fn resident() -> Result<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))
        .ok_or("no VmRSS in /proc/self/status")?;
    Ok(kib.trim().parse::<usize>()? * 1024)
}
