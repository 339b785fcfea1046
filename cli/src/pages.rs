//! Checks that the program accepts every `lineframe ..` command line in a code block of README.md
//! and the pages in `docs`.

use std::fs;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;

#[test]
fn commands_on_pages_are_accepted() {
    let mut commands = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let mut is_in_block = false;
        for line in text.lines() {
            if line.starts_with("```") {
                is_in_block = !is_in_block;
                continue;
            }
            let line = line.replace("cargo run -q -- ", "lineframe ");
            let typed =
                line.split(" | ").find_map(|part| part.trim_start_matches("$ ").strip_prefix("lineframe "));
            let Some(typed) = typed.filter(|_| is_in_block) else { continue };
            let taken = super::parse(std::iter::once("lineframe".to_string()).chain(words(typed)));
            let refused = taken.err().filter(|error| error.kind() != ErrorKind::DisplayHelp);
            assert!(refused.is_none(), "{}: {line}\n{}", page.display(), refused.unwrap());
            commands += 1;
        }
    }
    assert!(commands >= 20, "{commands} commands");
}

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<_> = docs.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    pages.push(root.join("README.md"));
    pages
}

/// Splits like a shell, up to a comment, a redirection or the next command.
fn words(typed: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (place, part) in typed.split('\'').enumerate() {
        if place % 2 == 1 {
            words.push(part.to_string());
            continue;
        }
        for word in part.split_whitespace() {
            if word.starts_with(['#', '>', '<', '&']) {
                return words;
            }
            words.push(word.trim_end_matches(';').to_string());
            if word.ends_with(';') {
                return words;
            }
        }
    }
    words
}
