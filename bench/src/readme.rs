//! The report as the README and the page that compares session layers show it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::ready::Result;
use crate::report::Report;
use crate::scenario::Scenario;

/// The part of each that is written here lies between these lines.
const BEGIN: &str =
    "<!-- measured: written by `cargo run --release -p cloakroom-bench -- all` -->\n";
const END: &str = "<!-- measured: end -->\n";

/// Of 64 requests, which a page with many parts may send.
const WRITERS: u32 = 64;

/// The contenders, and what they are called.
const IN_PROCESS: [(&str, &str); 5] = [
    ("cloakroom", "cloakroom"),
    ("cloakroom-lazy", "cloakroom, `lazy`"),
    ("tower-sessions", "tower-sessions"),
    ("ruts", "ruts"),
    ("axum_session", "axum_session"),
];

pub fn write(report: &Report) -> Result<()> {
    put("README.md", &text(report)?)?;
    put("docs/comparison.md", &comparison(report)?)
}

/// Puts a text between the marks of a file.
fn put(file: &str, text: &str) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    let page = fs::read_to_string(&path)?;
    let (before, rest) = page
        .split_once(BEGIN)
        .ok_or_else(|| format!("{file} has no place for it"))?;
    let (_, after) = rest
        .split_once(END)
        .ok_or_else(|| format!("{file} has no end of it"))?;
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
    for (contender, name) in IN_PROCESS {
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
    let version = |of| version(report, of);
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

fn version<'a>(report: &'a Report, of: &str) -> &'a str {
    report.versions.get(of).map_or("", String::as_str)
}

fn comparison(report: &Report) -> Result<String> {
    let mut text = String::from(
        "\nNanoseconds of a request in one process, beyond bare axum, all with signed cookies and a store in memory:\n\n\
         | | no cookie | reads one key | increments | new session | cookie, untouched |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for (contender, name) in IN_PROCESS {
        write!(text, "| {name} |")?;
        for scenario in Scenario::ALL {
            let nanos = report.in_process[&scenario.to_string()][contender].over_bare;
            write!(text, " {nanos:.0} |")?;
        }
        text.push('\n');
    }
    text.push_str(
        "\nBytes of memory for a session with five keys and 290 bytes of JSON, of a million in the store in memory:\n\n\
         | | bytes |\n| --- | --- |\n",
    );
    for one in &report.size {
        writeln!(text, "| {} | {:.0} |", one.contender, one.bytes_a_session)?;
    }
    text.push_str(
        "\nRequests a second with 64 in flight, and how long one takes alone, the servers on the same processors:\n\n\
         | store | request | | a second | alone, in microseconds |\n| --- | --- | --- | --- | --- |\n",
    );
    for one in &report.networked {
        let request = match &*one.what {
            "B" => "reads one key",
            "C" => "increments",
            _ => continue,
        };
        if IN_PROCESS.iter().any(|(name, _)| *name == one.contender) {
            let (store, who, many) = (&one.store, &one.contender, one.requests_a_second);
            let alone = one.microseconds;
            writeln!(
                text,
                "| {store} | {request} | {who} | {many:.0} | {alone:.0} |"
            )?;
        }
    }
    write!(
        text,
        "\nThat is tower-sessions {} over SQLite and PostgreSQL, for which its stores are made. The machine and all versions are in\n\
         [results.json](https://github.com/cloakroom-rs/cloakroom/blob/main/bench/results.json). `{}` measures it all again.\n\n",
        version(report, "tower-sessions (SQL peers)"),
        report.command
    )?;
    Ok(text)
}
