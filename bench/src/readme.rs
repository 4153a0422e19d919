//! The report in the form for pages: the README, `bench/README.md`, and the page that compares
//! session layers.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::ready::Result;
use crate::report::Report;
use crate::scenario::Scenario;

/// This program writes the part of a page between these two lines.
const BEGIN: &str =
    "<!-- measured: written by `cargo run --release -p cloakroom-bench -- all` -->\n";
const END: &str = "<!-- measured: end -->\n";

/// A page with many parts may send this many requests at once.
const WRITERS: u32 = 64;

/// The contenders, and their names on the pages.
const IN_PROCESS: [(&str, &str); 5] = [
    ("cloakroom", "cloakroom"),
    ("cloakroom-lazy", "cloakroom, `lazy`"),
    ("tower-sessions", "tower-sessions"),
    ("ruts", "ruts"),
    ("axum_session", "axum_session"),
];

pub fn write(report: &Report) -> Result<()> {
    put("README.md", &readme(report)?)?;
    put("bench/README.md", &bench(report)?)?;
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

/// One small table: the time of a request, and the memory of a session.
fn readme(report: &Report) -> Result<String> {
    let mut text = String::from(
        "\n| | reads one key | increments | new session | memory of a session |\n\
         | --- | --- | --- | --- | --- |\n",
    );
    for one in &report.size {
        write!(text, "| {} |", one.contender)?;
        for scenario in [Scenario::B, Scenario::C, Scenario::D] {
            let nanos = report.in_process[&scenario.to_string()][&one.contender].over_bare;
            write!(text, " {:.1} µs |", nanos / 1_000.0)?;
        }
        writeln!(text, " {:.0} bytes |", one.bytes_a_session)?;
    }
    write!(
        text,
        "\nThe time is what a session layer adds to one request of bare axum: with signed cookies, in one\n\
         process, with its store in memory. The memory is that of a session with five keys and 290 bytes of\n\
         JSON.\n\n\
         {}\n\
         [bench/README.md](bench/README.md) has everything else that we measure, also over servers.\n\n",
        machine(report)
    )?;
    Ok(text)
}

/// All other results, for readers who want to know more.
fn bench(report: &Report) -> Result<String> {
    let mut text = String::from(
        "\nInstructions and allocations of one request, with axum's own:\n\n\
         | | A: no cookie | B: reads one key | C: increments | D: new session | E: cookie, untouched |\n\
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
        "\nThe time that a session layer adds to a request of bare axum:\n\n\
         ![Nanoseconds over bare axum, for five kinds of requests](plots/time.svg)\n\n\
         The memory of a session with five keys and 290 bytes of JSON:\n\n\
         ![Bytes of memory a session](plots/memory.svg)\n\n\
         Requests a second, 64 at a time. The servers run on the same processors:\n\n\
         ![Requests a second over Redis, SQLite, PostgreSQL and MySQL](plots/throughput.svg)\n\n\
         The same with 1, 8, 64 and 512 at a time. Calls that wait together share a statement:\n\n\
         ![Requests a second with more and more in flight](plots/at_once.svg)\n\n",
    );
    write!(
        text,
        "{WRITERS} requests at once increment one counter. Each handler takes 5 ms, and no increment is lost:\n\n\
         | store | all are answered after | second tries of each request |\n| --- | --- | --- |\n"
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
    write!(
        text,
        "\n{}\n\n\
         [results.json](results.json) has every figure. This command measures them again:\n\
         `{}`.\n\n",
        machine(report),
        report.command,
    )?;
    Ok(text)
}

/// The machine of the measurements.
fn machine(report: &Report) -> String {
    let version = |of| version(report, of);
    let rustc = version("rustc");
    format!(
        "Measured on {} virtual processors ({}) with {}, axum {}, tower-sessions {}\n\
         ({} for its SQL stores), ruts {} and axum_session {}.",
        report.machine.processors,
        report.machine.processor,
        rustc.split(" (").next().unwrap_or(rustc),
        version("axum"),
        version("tower-sessions"),
        version("tower-sessions (SQL peers)"),
        version("ruts"),
        version("axum_session"),
    )
}

fn version<'a>(report: &'a Report, of: &str) -> &'a str {
    report.versions.get(of).map_or("", String::as_str)
}

fn comparison(report: &Report) -> Result<String> {
    let mut text = String::from(
        "\nNanoseconds that each layer adds to a request of bare axum, in one process, with signed\n\
         cookies and a store in memory:\n\n\
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
        "\nBytes of memory of a session with five keys and 290 bytes of JSON. A million of them are in the\n\
         store in memory:\n\n\
         | | bytes |\n| --- | --- |\n",
    );
    for one in &report.size {
        writeln!(text, "| {} | {:.0} |", one.contender, one.bytes_a_session)?;
    }
    text.push_str(
        "\nRequests a second, 64 at a time, and how long one alone takes. The servers run on the same\n\
         processors:\n\n\
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
        "\nOver SQLite and PostgreSQL it is tower-sessions {}, since its SQL stores are made for that\n\
         version. [results.json](https://github.com/cloakroom-rs/cloakroom/blob/main/bench/results.json)\n\
         has the machine and all versions. This command measures it all again:\n\
         `{}`.\n\n",
        version(report, "tower-sessions (SQL peers)"),
        report.command
    )?;
    Ok(text)
}
