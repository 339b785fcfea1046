//! Checks that code blocks on pages equal source files, which other tests compile and run.
//!
//! A comment before a fenced block names the source file and, optionally, a region of it:
//!
//! ````text
//! <!-- code: examples/cookbook/chat.rs#session -->
//! ```rust
//! ...
//! ```
//! ````
//!
//! In the source file, `// region: session` and `// endregion` enclose the region (`#` instead of
//! `//` in Python and shell). Regions may nest. Without `#session` the block is the whole file. The
//! page shows the region without its common indentation. `UPDATE_PAGES=1` rewrites the pages.

use std::fs;
use std::path::Path;

/// Languages whose blocks must name a source file.
const CODE: [&str; 4] = ["rust", "python", "toml", "go"];

/// Panics if a code block of the page differs from its source file or names none. `page` and the
/// paths of source files are relative to the package.
pub(crate) fn check(page: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join(page);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{page}: {error}"));
    let right = filled(&text, |file| fs::read_to_string(root.join(file)).ok())
        .unwrap_or_else(|error| panic!("{page}: {error}"));
    if std::env::var_os("UPDATE_PAGES").is_some_and(|set| set == "1") {
        if text != right {
            fs::write(&path, right).unwrap_or_else(|error| panic!("{page}: {error}"));
        }
        return;
    }
    let differs = text.lines().zip(right.lines()).position(|(on_page, in_file)| on_page != in_file);
    if let Some(line) = differs.or((text != right).then(|| text.lines().count().min(right.lines().count()))) {
        let [on_page, in_file] =
            [&text, &right].map(|text| text.lines().nth(line).unwrap_or("(end of file)"));
        panic!(
            "{page}:{}: the page shows\n{on_page}\nbut the source file has\n{in_file}\nSet UPDATE_PAGES=1 to rewrite the page",
            line + 1
        );
    }
}

/// Returns the page with every marked block replaced by its source. `file` returns the text of a
/// path.
///
/// # Errors
///
/// Describes the first block without a source file, a missing file or region, or an unclosed block.
pub(crate) fn filled(page: &str, file: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut filled = String::new();
    let mut lines = (1..).zip(page.lines());
    let mut source = None;
    while let Some((number, line)) = lines.next() {
        filled += line;
        filled.push('\n');
        if let Some(named) = line.strip_prefix("<!-- code: ").and_then(|rest| rest.strip_suffix(" -->")) {
            source = Some(named);
            continue;
        }
        let Some((fence, language)) = fence(line) else {
            match source {
                Some(named) if !line.is_empty() => {
                    return Err(format!("line {number}: no block after {named}"));
                }
                _ => continue,
            }
        };
        let source = source.take();
        if source.is_none() && CODE.contains(&language.split(',').next().unwrap_or_default()) {
            return Err(format!("line {number}: {language} block without a source file"));
        }
        if let Some(named) = source {
            let (path, region) =
                named.split_once('#').map_or((named, None), |(path, name)| (path, Some(name)));
            let text = file(path).ok_or_else(|| format!("line {number}: no file {path}"))?;
            let code = code(&text, region).ok_or_else(|| format!("line {number}: no region {named}"))?;
            filled += &code;
        }
        let mut end = None;
        for (_, line) in lines.by_ref() {
            if line == fence {
                end = Some(line);
                break;
            }
            if source.is_none() {
                filled += line;
                filled.push('\n');
            }
        }
        filled += end.ok_or_else(|| format!("line {number}: unclosed block"))?;
        filled.push('\n');
    }
    match source {
        Some(named) => Err(format!("no block after {named}")),
        None => Ok(filled),
    }
}

/// Splits the opening line of a block into the fence and the language.
fn fence(line: &str) -> Option<(&str, &str)> {
    let ticks = line.len() - line.trim_start_matches('`').len();
    (ticks >= 3).then(|| line.split_at(ticks))
}

/// Returns the lines of a region, or of the whole file, without `region` and `endregion` lines.
fn code(text: &str, region: Option<&str>) -> Option<String> {
    let mut depth = 0;
    let mut region_depth = None;
    let mut lines = Vec::new();
    for line in text.lines() {
        let mark = line.trim_start().trim_start_matches(['/', '#']).trim_start_matches(' ');
        if let Some(name) = mark.strip_prefix("region: ").filter(|_| mark != line) {
            depth += 1;
            if Some(name) == region {
                region_depth = Some(depth);
            }
        } else if mark == "endregion" && mark != line {
            if region_depth == Some(depth) {
                return Some(unindented(&lines));
            }
            depth -= 1;
        } else if region_depth.is_some() || region.is_none() {
            lines.push(line);
        }
    }
    region.is_none().then(|| unindented(&lines))
}

fn unindented(lines: &[&str]) -> String {
    let indentation = |line: &&&str| line.len() - line.trim_start().len();
    let by =
        lines.iter().filter(|line| !line.trim().is_empty()).map(|line| indentation(&line)).min().unwrap_or(0);
    lines.iter().map(|line| format!("{}\n", line.get(by..).unwrap_or(""))).collect()
}
