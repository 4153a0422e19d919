//! Checks the links in the project's texts. A link may lead to a file of the project, or to a page
//! that is made from a file. Then the file must exist.

use std::fs;
use std::path::{Path, PathBuf};

/// The address of the published pages of `docs/`.
const PAGES: &str = "https://docs.rs/cloakroom/latest/cloakroom/docs/";

/// The Markdown files in all folders of the project that have some.
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

/// The targets of the links in a text, without anchors.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    let inline = text.split("](").skip(1);
    let defined = text
        .lines()
        .filter_map(|line| Some(line.strip_prefix('[')?.split_once("]: ")?.1));
    inline
        .chain(defined)
        .filter_map(|rest| rest.split([')', '#', ' ', '\n']).next())
        .filter(|target| !target.is_empty())
}

/// The file that a link leads to, if the file belongs to the project. Rustdoc checks the links to
/// items.
fn file(text: &Path, target: &str) -> Option<PathBuf> {
    if let Some(page) = target.strip_prefix(PAGES) {
        let name = page.split('/').next()?;
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
        return Some(docs.join(name).with_extension("md"));
    }
    let is_elsewhere = target.contains("://") || target.starts_with("crate::");
    (!is_elsewhere).then(|| text.with_file_name(target))
}

#[test]
fn every_link_to_a_file_or_a_page_leads_to_one() {
    let texts = texts();
    let mut broken = Vec::new();
    let mut checked = 0;
    for path in &texts {
        let text = fs::read_to_string(path).unwrap();
        for target in targets(&text) {
            let Some(file) = file(path, target) else {
                continue;
            };
            checked += 1;
            if !file.exists() {
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
