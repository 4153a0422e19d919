//! Sessions as a person reads them.

use std::io::{self, Write};
use std::time::Duration;

use cloakroom::{Client, SessionInfo, Timestamp};
use serde::Serialize;

/// The longest user agent that a line shows. `show` has all of it.
const LONGEST_CLIENT: usize = 60;

const HEAD: [&str; 6] = ["ID", "USER", "CREATED", "SEEN", "ENDS", "CLIENT"];

/// A table that grows. Its columns are aligned, and become wider with what comes.
pub(crate) struct Table {
    widths: [usize; 6],
    is_begun: bool,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self {
            widths: HEAD.map(str::len),
            is_begun: false,
        }
    }

    pub(crate) fn add(
        &mut self,
        out: &mut impl Write,
        sessions: &[SessionInfo],
        now: Timestamp,
    ) -> io::Result<()> {
        let rows: Vec<_> = sessions.iter().map(|info| row(info, now)).collect();
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        if !self.is_begun && !rows.is_empty() {
            self.is_begun = true;
            self.line(out, &HEAD.map(str::to_owned))?;
        }
        rows.iter().try_for_each(|row| self.line(out, row))
    }

    fn line(&self, out: &mut impl Write, row: &[String; 6]) -> io::Result<()> {
        let mut line = String::new();
        for (width, cell) in self.widths.iter().zip(row) {
            let missing = width.saturating_sub(cell.chars().count());
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', missing + 2));
        }
        writeln!(out, "{}", line.trim_end())
    }
}

fn row(info: &SessionInfo, now: Timestamp) -> [String; 6] {
    let mut client = client(info);
    if let Some((end, _)) = client.char_indices().nth(LONGEST_CLIENT) {
        client.truncate(end);
        client.push('…');
    }
    [
        info.id().to_string(),
        user(info),
        ago(now.since(info.created_at())),
        ago(now.since(info.last_seen_at())),
        format!("in {}", long(info.expires_at().since(now))),
        client,
    ]
}

/// One session, with all that is known of it.
pub(crate) fn show(out: &mut impl Write, info: &SessionInfo, now: Timestamp) -> io::Result<()> {
    let past = |time: Timestamp| format!("{time} ({})", ago(now.since(time)));
    let unknown = |text: Option<&str>| text.map_or_else(|| "unknown".to_owned(), clean);
    let client = info.client();
    let ends = info.expires_at();
    let mut line = |name: &str, value: String| writeln!(out, "{name:<12}{value}");
    line("id", info.id().to_string())?;
    line("user", user(info))?;
    line("address", unknown(client.and_then(Client::address)))?;
    line("user agent", unknown(client.and_then(Client::user_agent)))?;
    if let Some(id) = info.external_id() {
        line("external id", clean(id))?;
    }
    line("created", past(info.created_at()))?;
    line("last seen", past(info.last_seen_at()))?;
    line("ends", format!("{ends} (in {})", long(ends.since(now))))?;
    match info.device_bound_at() {
        Some(at) => line("device", format!("bound {}", past(at))),
        None => line("device", "not bound".to_owned()),
    }
}

fn user(info: &SessionInfo) -> String {
    match (info.user(), info.actor()) {
        (None, _) => "(visitor)".to_owned(),
        (Some(user), None) => clean(user.as_str()),
        (Some(user), Some(actor)) => {
            format!("{} ({} acts)", clean(user.as_str()), clean(actor.as_str()))
        }
    }
}

fn client(info: &SessionInfo) -> String {
    let client = info.client();
    let address = client.and_then(Client::address);
    let agent = client.and_then(Client::user_agent);
    let known: Vec<_> = [address, agent].into_iter().flatten().map(clean).collect();
    match known.is_empty() {
        true => "unknown".to_owned(),
        false => known.join(" "),
    }
}

/// JSON for scripts, and for a terminal that obeys none of its signs.
pub(crate) fn json(value: &impl Serialize) -> serde_json::Result<String> {
    let text = serde_json::to_string(value)?;
    let mut json = String::with_capacity(text.len());
    for sign in text.chars() {
        match is_obeyed(sign) {
            // All such signs have four digits.
            true => json += &format!("\\u{:04x}", u32::from(sign)),
            false => json.push(sign),
        }
    }
    Ok(json)
}

/// Whether a terminal may obey a sign, or show a text backwards because of it.
fn is_obeyed(sign: char) -> bool {
    let is_of_direction = matches!(
        sign,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    sign.is_control() || is_of_direction
}

/// A text without signs that a terminal obeys. Clients choose what a user agent says.
fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for sign in text.chars() {
        match is_obeyed(sign) {
            true => clean.extend(sign.escape_unicode()),
            false => clean.push(sign),
        }
    }
    clean
}

fn ago(time: Duration) -> String {
    format!("{} ago", long(time))
}

/// Such as `3h`: a span of time in its largest unit.
fn long(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
