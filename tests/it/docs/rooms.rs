//! The modules of `src/` are like rooms. Imports between them go one way only, and no file is long.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A longer file should be divided by its ideas. Tests at its end do not count.
const LONGEST_FILE: usize = 500;

type Rooms = BTreeMap<String, BTreeSet<String>>;

/// The module files of `src/`, and their code without comments and unit tests.
fn sources() -> Vec<(PathBuf, String)> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        (
            path.strip_prefix(&root).unwrap().to_owned(),
            code.to_owned(),
        )
    };
    files.into_iter().map(read).collect()
}

/// For each room, the other rooms that it uses. The room `session` is `session.rs` and all files in
/// `session/`.
fn rooms() -> Rooms {
    let mut rooms = Rooms::new();
    let sources = sources();
    let room_of = |path: &Path| {
        let first = path.components().next().unwrap().as_os_str().to_owned();
        first
            .into_string()
            .unwrap()
            .trim_end_matches(".rs")
            .to_owned()
    };
    for (path, _) in &sources {
        rooms.entry(room_of(path)).or_default();
    }
    // `lib.rs` exports the public items, and `docs.rs` includes the pages.
    rooms.remove("lib");
    rooms.remove("docs");
    let names: BTreeSet<_> = rooms.keys().cloned().collect();
    for (path, code) in &sources {
        let Some(uses) = rooms.get_mut(&room_of(path)) else {
            continue;
        };
        let code_lines = code.lines().filter(|line| !line.trim().starts_with("//"));
        for line in code_lines {
            for used in line.split("crate::").skip(1) {
                let end = used.find(|c: char| !c.is_alphanumeric() && c != '_');
                let used = &used[..end.unwrap_or(used.len())];
                if names.contains(used) && used != room_of(path) {
                    uses.insert(used.to_owned());
                }
            }
        }
    }
    rooms
}

/// A way from `room` back to itself.
fn circle(rooms: &Rooms, way: &mut Vec<String>) -> bool {
    let last = way.last().unwrap().clone();
    for next in &rooms[&last] {
        if *next == way[0] {
            return true;
        }
        if !way.contains(next) {
            way.push(next.clone());
            if circle(rooms, way) {
                return true;
            }
            way.pop();
        }
    }
    false
}

#[test]
fn no_room_of_the_source_uses_itself_by_way_of_another() {
    let rooms = rooms();
    assert!(rooms["session"].contains("commit"), "{rooms:?}");
    assert!(rooms["commit"].contains("store"), "{rooms:?}");
    for room in rooms.keys() {
        let mut way = vec![room.clone()];
        assert!(!circle(&rooms, &mut way), "{way:?} is a circle");
    }
}

#[test]
fn no_file_of_the_source_is_longer_than_a_reader_can_keep_in_mind() {
    for (path, code) in sources() {
        let lines = code.lines().count();
        assert!(
            lines <= LONGEST_FILE,
            "{} has {lines} lines",
            path.display()
        );
    }
}
