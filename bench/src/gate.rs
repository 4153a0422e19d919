//! Keeps the progress. Instructions and allocations may not grow far beyond the committed figures.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::contenders::Contender;
use crate::count::{self, Cost};
use crate::ready::Result;
use crate::scenario::Scenario;

/// A figure fails if it is greater than the committed figure times this number.
const TOLERANCE: f64 = 1.03;

/// How many times the instructions of a read one may cost whose token rotates, or whose session is
/// bound to a device.
const PROTECTION: f64 = 1.15;

/// The cost of a request in each scenario.
type Figures = BTreeMap<String, Cost>;

#[cfg(not(feature = "dbsc"))]
const SCENARIOS: &[(&str, Contender, Scenario)] = &[
    ("A", Contender::Cloakroom, Scenario::A),
    ("B", Contender::Cloakroom, Scenario::B),
    ("C", Contender::Cloakroom, Scenario::C),
    ("D", Contender::Cloakroom, Scenario::D),
    ("E", Contender::Cloakroom, Scenario::E),
    ("E lazy", Contender::CloakroomLazy, Scenario::E),
    ("B rotating", Contender::CloakroomRotating, Scenario::B),
];

/// The figures of the crate without the feature are another build.
#[cfg(feature = "dbsc")]
const SCENARIOS: &[(&str, Contender, Scenario)] =
    &[("B bound", Contender::CloakroomBound, Scenario::B)];

/// Compares with the committed figures. If `write` is set, writes new ones.
pub fn run(write: bool) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("figures.json");
    let mut measured = Figures::new();
    for &(name, contender, scenario) in SCENARIOS {
        measured.insert(name.into(), count::measure(contender, scenario)?.rounded());
    }
    let mut committed: Figures = serde_json::from_str(&fs::read_to_string(&path)?)?;
    if write {
        committed.extend(measured.clone());
        fs::write(&path, serde_json::to_string_pretty(&committed)? + "\n")?;
    }
    println!("          instructions (committed)   allocations (committed)");
    let mut grown = Vec::new();
    for (name, cost) in &measured {
        let limit = committed.get(name).ok_or(format!("no figure of {name}"))?;
        println!(
            "{name:<10} {:>11.0} ({:>9.0})   {:>11.2} ({:>9.2})",
            cost.instructions, limit.instructions, cost.allocations, limit.allocations
        );
        if cost.instructions > TOLERANCE * limit.instructions
            || cost.allocations > TOLERANCE * limit.allocations
        {
            grown.push(name.as_str());
        }
    }
    // The compiler lays out each build in another way. So this is the read of the same build.
    let read = count::measure(Contender::Cloakroom, Scenario::B)?.instructions;
    for (name, cost) in measured.iter().filter(|(name, _)| name.starts_with("B ")) {
        let ratio = cost.instructions / read;
        println!("{name} costs {ratio:.3} times what B costs in this build");
        if ratio > PROTECTION {
            return Err(format!("{name} costs more than {PROTECTION} times what B costs").into());
        }
    }
    if grown.is_empty() {
        return Ok(());
    }
    Err(format!(
        "a request costs more than 3 % above bench/figures.json: {}. Where that is meant, see CONTRIBUTING.md",
        grown.join(", ")
    )
    .into())
}
