//! Pages whose code is that of files which are compiled and run.
//!
//! A comment before a fenced block says where its lines come from:
//!
//! ````text
//! <!-- code: examples/cookbook/chat.rs#session -->
//! ```rust
//! ...
//! ```
//! ````
//!
//! In the file they stand between the lines `// region: session` and `// endregion` (`#` in place of `//` in Python and shell);
//! regions may lie in each other. Without `#session` it is the whole file. On the page they have the indentation of the
//! least indented line taken off. `UPDATE_PAGES=1` in the environment writes pages anew.

use std::fs;
use std::path::Path;

/// Blocks in these languages are code that a reader takes for working: each has to come from a file.
const CODE: [&str; 4] = ["rust", "python", "toml", "go"];

/// Panics where a block of the page is not what its file has, or has no file. `page` and the files' paths are relative to
/// the package.
pub(crate) fn check(page: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join(page);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{page}: {error}"));
    let right = filled(&text, |file| fs::read_to_string(root.join(file)).ok())
        .unwrap_or_else(|wrong| panic!("{page}: {wrong}"));
    if std::env::var_os("UPDATE_PAGES").is_some_and(|set| set == "1") {
        if text != right {
            fs::write(&path, right).unwrap_or_else(|error| panic!("{page}: {error}"));
        }
        return;
    }
    let differs = text.lines().zip(right.lines()).position(|(on_page, in_file)| on_page != in_file);
    if let Some(line) = differs.or((text != right).then(|| text.lines().count().min(right.lines().count()))) {
        let [on_page, in_file] = [&text, &right].map(|text| text.lines().nth(line).unwrap_or("(its end)"));
        panic!(
            "{page}:{}: the page has\n{on_page}\nand the file of this block\n{in_file}\nUPDATE_PAGES=1 writes the page anew",
            line + 1
        );
    }
}

/// The page with every marked block as its file has it.
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
                    return Err(format!("line {number}: no block behind {named}"));
                }
                _ => continue,
            }
        };
        let source = source.take();
        if source.is_none() && CODE.contains(&language) {
            return Err(format!("line {number}: a block of {language} that no file is named for"));
        }
        if let Some(named) = source {
            let (path, region) =
                named.split_once('#').map_or((named, None), |(path, name)| (path, Some(name)));
            let text = file(path).ok_or_else(|| format!("line {number}: no file {path}"))?;
            let code = code(&text, region).ok_or_else(|| format!("line {number}: no region of {named}"))?;
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
        filled += end.ok_or_else(|| format!("line {number}: a block without an end"))?;
        filled.push('\n');
    }
    match source {
        Some(named) => Err(format!("no block behind {named}")),
        None => Ok(filled),
    }
}

/// What ends a block that begins with this line, and its language.
fn fence(line: &str) -> Option<(&str, &str)> {
    let ticks = line.len() - line.trim_start_matches('`').len();
    (ticks >= 3).then(|| line.split_at(ticks))
}

/// The lines of a region, or of the whole file, without the marks of regions.
fn code(text: &str, region: Option<&str>) -> Option<String> {
    let mut depth = 0;
    let mut found = None;
    let mut lines = Vec::new();
    for line in text.lines() {
        let mark = line.trim_start().trim_start_matches(['/', '#']).trim_start_matches(' ');
        if let Some(name) = mark.strip_prefix("region: ").filter(|_| mark != line) {
            depth += 1;
            if Some(name) == region {
                found = Some(depth);
            }
        } else if mark == "endregion" && mark != line {
            if found == Some(depth) {
                return Some(outdented(&lines));
            }
            depth -= 1;
        } else if found.is_some() || region.is_none() {
            lines.push(line);
        }
    }
    region.is_none().then(|| outdented(&lines))
}

fn outdented(lines: &[&str]) -> String {
    let indented = |line: &&&str| line.len() - line.trim_start().len();
    let by =
        lines.iter().filter(|line| !line.trim().is_empty()).map(|line| indented(&line)).min().unwrap_or(0);
    lines.iter().map(|line| format!("{}\n", line.get(by..).unwrap_or(""))).collect()
}
