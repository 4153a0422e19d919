//! cloakroom together with other crates: the programs of `docs/integrations.md`, and their tests.

pub mod aide;
pub mod tonic;
pub mod tower_http;
pub mod utoipa;

#[cfg(test)]
mod axum_test;

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Every code block on the page names the file that it comes from.
    #[test]
    fn the_page_shows_the_code_of_these_files() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let page = std::fs::read_to_string(here.join("../docs/integrations.md")).unwrap();
        let mut blocks = 0;
        for block in page.split("```rust,ignore\n").skip(1) {
            let (block, _) = block.split_once("\n```").unwrap();
            let (file, code) = block.split_once('\n').unwrap();
            let file = file.strip_prefix("// integrations/").unwrap();
            let text = std::fs::read_to_string(here.join(file)).unwrap();
            assert!(text.contains(code), "{file} does not contain:\n{code}");
            blocks += 1;
        }
        assert!(blocks >= 6, "{blocks}");
    }
}
