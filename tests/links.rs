//! Every link of the project's texts to one of its files leads to one.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// The Markdown files of the project's folders that have some.
fn texts() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts: Vec<_> = [".", ".github", "docs"]
        .iter()
        .flat_map(|folder| fs::read_dir(root.join(folder)).unwrap())
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    texts.sort();
    texts
}

/// What the links of a text lead to, without anchors.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', '#', ' ']).next())
        .filter(|target| !target.is_empty())
}

#[test]
fn every_relative_link_leads_to_a_file() {
    let texts = texts();
    let mut broken = Vec::new();
    let mut checked = 0;
    for path in &texts {
        let text = fs::read_to_string(path).unwrap();
        // Rustdoc checks those to items.
        let is_relative = |target: &&str| !target.contains("://") && !target.starts_with("crate::");
        for target in targets(&text).filter(is_relative) {
            checked += 1;
            if !path.parent().unwrap().join(target).exists() {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(
        texts.len() > 8 && checked > 20,
        "{} texts, {checked} links",
        texts.len()
    );
}
