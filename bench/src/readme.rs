//! The report as the README shows it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::ready::Result;
use crate::report::Report;
use crate::scenario::Scenario;

/// The README's part that is written here lies between these lines.
const BEGIN: &str =
    "<!-- measured: written by `cargo run --release -p cloakroom-bench -- all` -->\n";
const END: &str = "<!-- measured: end -->\n";

/// Of 64 requests, which a page with many parts may send.
const WRITERS: u32 = 64;

pub fn write(report: &Report) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(&path)?;
    let (before, rest) = readme
        .split_once(BEGIN)
        .ok_or("the README has no place for it")?;
    let (_, after) = rest.split_once(END).ok_or("the README has no end of it")?;
    let text = text(report)?;
    fs::write(&path, format!("{before}{BEGIN}{text}{END}{after}"))?;
    Ok(())
}

fn text(report: &Report) -> Result<String> {
    let mut text = String::from(
        "\nOne request in one process, beside other session layers, all with signed cookies: the time beyond bare axum, and \
         instructions and\nallocations, axum's included.\n\n\
         ![Nanoseconds over bare axum, for five kinds of requests](bench/plots/time.svg)\n\n\
         | instructions / allocations | A: no cookie | B: reads one key | C: increments | D: new session | E: cookie, untouched |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for (contender, name) in [
        ("cloakroom", "cloakroom"),
        ("cloakroom-lazy", "cloakroom, `lazy`"),
        ("tower-sessions", "tower-sessions"),
        ("ruts", "ruts"),
        ("axum_session", "axum_session"),
    ] {
        write!(text, "| {name} |")?;
        for scenario in Scenario::ALL {
            let cost = report.in_process[&scenario.to_string()][contender].cost;
            let thousands = cost.instructions / 1_000.0;
            write!(text, " {thousands:.1}k / {:.0} |", cost.allocations)?;
        }
        text.push('\n');
    }
    text.push_str(
        "\nMemory of a session with five keys and 290 bytes of JSON, and requests a second with 64 in flight, where the \
         servers run on the same\nprocessors:\n\n\
         ![Bytes of memory a session](bench/plots/memory.svg)\n\n\
         ![Requests a second over Redis, SQLite and PostgreSQL](bench/plots/throughput.svg)\n\n",
    );
    write!(
        text,
        "{WRITERS} requests at once that increment one counter, in handlers of 5 ms. All of them count.\n\n\
         | store | all are answered after | second tries for each request |\n| --- | --- | --- |\n"
    )?;
    for one in report
        .contention
        .iter()
        .filter(|one| one.writers == WRITERS)
    {
        writeln!(
            text,
            "| {} | {:.0} ms | {} |",
            one.store, one.milliseconds, one.retries
        )?;
    }
    let version = |of: &str| report.versions.get(of).cloned().unwrap_or_default();
    write!(
        text,
        "\nMeasured on {} virtual processors ({}) with {}, axum {}, tower-sessions {} ({} for its SQL stores), ruts {} and\n\
         axum_session {}. Everything that was measured is in [results.json](bench/results.json), and `{}` does so again.\n\n",
        report.machine.processors,
        report.machine.processor,
        version("rustc"),
        version("axum"),
        version("tower-sessions"),
        version("tower-sessions (SQL peers)"),
        version("ruts"),
        version("axum_session"),
        report.command,
    )?;
    Ok(text)
}
