//! A file of results. Each part is written right after it is measured, because a later part may
//! fail.

use std::fs;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::ready::Result;

/// The parts of a file. A part stays as it was, until it is measured again.
pub struct Results {
    path: PathBuf,
    parts: Map<String, Value>,
    measured: Vec<&'static str>,
}

impl Results {
    /// Opens a file of results. The file may be missing.
    pub fn open(path: PathBuf) -> Result<Self> {
        let parts = match path.exists() {
            true => serde_json::from_str(&fs::read_to_string(&path)?)?,
            false => Map::new(),
        };
        Ok(Self {
            path,
            parts,
            measured: Vec::new(),
        })
    }

    /// Measures a part, and writes it to the file.
    pub fn part<T: Serialize>(
        &mut self,
        name: &'static str,
        measure: impl FnOnce() -> Result<T>,
    ) -> Result<()> {
        let part = measure().map_err(|error| {
            format!(
                "{name}: {error}\n{} has new results of {:?}, and all others are those of before",
                self.path.display(),
                self.measured
            )
        })?;
        self.parts.insert(name.into(), serde_json::to_value(&part)?);
        self.measured.push(name);
        self.write(&self.parts)
    }

    /// Writes all parts, in the order of the type's fields.
    pub fn write(&self, all: &impl Serialize) -> Result<()> {
        // If the run is killed here, the file stays as it was.
        let draft = self.path.with_extension("draft");
        fs::write(&draft, serde_json::to_string_pretty(all)? + "\n")?;
        Ok(fs::rename(draft, &self.path)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("cloakroom-bench-{}-{name}", std::process::id()))
    }

    #[test]
    fn a_part_that_fails_leaves_what_was_measured_before_it() -> Result<()> {
        let path = path("fails");
        fs::write(&path, r#"{"time": 1, "networked": 2, "size": 3}"#)?;
        let mut results = Results::open(path.clone())?;
        results.part("time", || Ok(10))?;
        let failed = results.part("networked", || Err::<u32, _>("no server".into()));
        let said = failed.map_err(|error| error.to_string());
        assert!(said.is_err_and(|said| said.contains("no server") && said.contains(r#"["time"]"#)));
        let kept: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        fs::remove_file(path)?;
        assert_eq!(
            kept,
            serde_json::json!({"time": 10, "networked": 2, "size": 3})
        );
        Ok(())
    }

    #[test]
    fn the_first_results_make_the_file() -> Result<()> {
        let path = path("first");
        Results::open(path.clone())?.part("time", || Ok(10))?;
        let kept: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        fs::remove_file(path)?;
        assert_eq!(kept, serde_json::json!({"time": 10}));
        Ok(())
    }
}
