//! Checks that the pages name only tests, files, links and breaks that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns all files below `folder` whose names end in `ending`, except build output and hidden
/// files.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                found.extend(files(&path, ending));
            }
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Returns all pages, except those in `src`. Rustdoc includes those and checks their links.
fn pages() -> Vec<PathBuf> {
    let mut pages = files(root(), ".md");
    pages.retain(|page| !page.starts_with(root().join("src")));
    assert!(pages.len() > 8, "{pages:?}");
    pages
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn events(markdown: &str) -> Parser<'_> {
    Parser::new_ext(markdown, Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES)
}

/// Fails with a list of all errors, so that one run shows everything.
#[track_caller]
fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// Returns the source of a file, or of all files in a folder.
fn sources(named: &str) -> Option<String> {
    let path = root().join(named);
    if path.is_file() {
        return Some(read(&path));
    }
    path.is_dir().then(|| files(&path, ".rs").iter().map(|file| read(file)).collect())
}

/// Returns `true` if the sources have a test of that name, either as a function or as a name passed
/// to a macro.
fn has_test(sources: &str, name: &str) -> bool {
    sources.match_indices(name).any(|(at, _)| {
        let (before, after) = (&sources[..at], &sources[at + name.len()..]);
        (before.ends_with("fn ") && after.starts_with(['(', '<']))
            || (before.trim_end_matches(' ').ends_with('\n') && after.starts_with(": "))
    })
}

/// Returns `true` if the code names a path in this repository.
fn is_path(code: &str) -> bool {
    const FOLDERS: [&str; 7] = ["tests/", "src/", "cli/", "fuzz/", "benches/", "examples/", "docs/"];
    FOLDERS.iter().any(|folder| code.starts_with(folder))
        && !code.contains(['*', '<', '{'])
        && !code.contains("NAME")
}

fn is_name(code: &str) -> bool {
    code.starts_with(|c: char| c.is_ascii_lowercase())
        && code.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Paths in backquotes must exist. Tests in backquotes after a path must exist there; only commas
/// and `and` may stand between the names.
#[test]
fn pages_name_only_existing_files_and_tests() {
    let (mut wrong, mut tests) = (Vec::new(), 0);
    for page in pages() {
        let markdown = read(&page);
        let mut named: Option<String> = None;
        for event in events(&markdown) {
            match event {
                Event::Code(code) if is_path(&code) => {
                    let path = code.split(' ').next().unwrap_or_default().to_owned();
                    named = root().join(&path).exists().then(|| path.clone());
                    if named.is_none() && !path.starts_with("src/") {
                        wrong.push(format!("{}: no {path}", shown(&page)));
                    }
                }
                Event::Code(name) if is_name(&name) => {
                    let Some(sources) = named.as_deref().and_then(sources) else { continue };
                    tests += 1;
                    if !has_test(&sources, &name) {
                        wrong.push(format!(
                            "{}: no test {name} in {}",
                            shown(&page),
                            named.as_deref().unwrap_or("")
                        ));
                    }
                }
                Event::Text(text) if matches!(text.trim(), "" | "," | "and" | ", and") => {}
                Event::SoftBreak | Event::Start(Tag::Link { .. }) | Event::End(TagEnd::Link) => {}
                _ => named = None,
            }
        }
    }
    assert!(tests > 50, "the pages name only {tests} tests");
    assert_none(&wrong);
}

/// Returns the anchors of the headings, as GitHub generates them: lower case, without punctuation,
/// with a number for repeated headings.
fn anchors(markdown: &str) -> BTreeSet<String> {
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    let mut heading: Option<String> = None;
    for event in events(markdown) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            Event::End(TagEnd::Heading(_)) => {
                let slug: String = heading
                    .take()
                    .unwrap_or_default()
                    .to_lowercase()
                    .chars()
                    .filter(|&c| c.is_alphanumeric() || matches!(c, '-' | '_' | ' '))
                    .map(|c| if c == ' ' { '-' } else { c })
                    .collect();
                let times = times.entry(slug.clone()).or_default();
                anchors.insert(if *times == 0 { slug } else { format!("{slug}-{times}") });
                *times += 1;
            }
            Event::Html(html) | Event::InlineHtml(html) => anchors.extend(attributes(&html, &["id", "name"])),
            _ => {}
        }
    }
    anchors
}

/// Returns the values of HTML attributes.
fn attributes(html: &str, names: &[&str]) -> Vec<String> {
    let mut values = Vec::new();
    for name in names {
        for (at, opening) in html.match_indices(&format!(" {name}=\"")) {
            values.extend(html[at + opening.len()..].split('"').next().map(str::to_owned));
        }
    }
    values
}

#[test]
fn links_within_the_repository_exist() {
    let (mut wrong, mut links) = (Vec::new(), 0);
    for page in pages() {
        let markdown = read(&page);
        let mut targets = Vec::new();
        for event in events(&markdown) {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    targets.push(dest_url.into_string());
                }
                Event::Html(html) | Event::InlineHtml(html) => {
                    targets.extend(attributes(&html, &["href", "src", "srcset"]));
                }
                _ => {}
            }
        }
        for target in targets {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            links += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let destination =
                if path.is_empty() { page.clone() } else { page.parent().unwrap_or(root()).join(path) };
            if !destination.exists() {
                wrong.push(format!("{}: {target} does not exist", shown(&page)));
            } else if !anchor.is_empty()
                && destination.extension().is_some_and(|md| md == "md")
                && !anchors(&read(&destination)).contains(anchor)
            {
                wrong.push(format!("{}: {target}: no such heading", shown(&page)));
            }
        }
    }
    assert!(links > 20, "only {links} links");
    assert_none(&wrong);
}

/// A section with printed figures must also name the command that prints them: in backquotes, in a
/// link, or in a line that starts with `$`.
#[test]
fn figures_name_the_command_that_printed_them() {
    let mut wrong = Vec::new();
    for page in ["docs/testing.md", "docs/performance.md", "docs/pressure.md"] {
        let mut section = String::new();
        let mut is_fenced = false;
        for line in read(&root().join(page)).lines() {
            if line.starts_with("```") {
                is_fenced = !is_fenced;
                let commands = ["cargo ", "/run", ".ci/run", "lineframe ", ".sh", "\n$ "];
                if is_fenced && line == "```text" && !commands.iter().any(|command| section.contains(command))
                {
                    wrong.push(format!(
                        "{page}: figures without a command after {:?}",
                        section.lines().next()
                    ));
                }
            } else if line.starts_with('#') && !is_fenced {
                section.clear();
            }
            section.push_str(line);
            section.push('\n');
        }
        assert!(!is_fenced, "{page}");
    }
    assert_none(&wrong);
}

struct Break {
    name: String,
    target: String,
    test: String,
    file: String,
    /// The text of each hunk without its added lines, which must occur in the file.
    found: Vec<String>,
}

fn breaks() -> Vec<Break> {
    let patches = files(&root().join("tests/breaks"), ".patch");
    assert!(patches.len() > 50);
    patches.iter().map(|patch| Break::of(patch)).collect()
}

impl Break {
    fn of(patch: &Path) -> Self {
        let name = patch.file_stem().unwrap().to_string_lossy().into_owned();
        let text = read(patch);
        let held = text.lines().find_map(|line| line.strip_prefix("Test: ")).expect(&name);
        let (target, test) = held.split_once(' ').expect(&name);
        let file = text.lines().find_map(|line| line.strip_prefix("+++ b/")).expect(&name);
        let mut found: Vec<String> = Vec::new();
        for line in text.lines().skip_while(|line| !line.starts_with("@@")) {
            match line.split_at(line.len().min(1)) {
                ("@", _) => found.push(String::new()),
                (" " | "-", old) => found.last_mut().unwrap().push_str(&format!("{old}\n")),
                _ => {}
            }
        }
        Self { name, target: target.into(), test: test.into(), file: file.into(), found }
    }
}

/// Each hunk must occur exactly once, so that a patch changes only the intended place.
#[test]
fn breaks_apply_to_the_code() {
    let mut wrong = Vec::new();
    for Break { name, file, found, .. } in breaks() {
        let source = read(&root().join(&file));
        for place in found {
            let times = source.match_indices(&place).filter(|(at, _)| source[..*at].ends_with('\n')).count();
            if times != 1 {
                wrong.push(format!("{name}: found {times} times in {file}, expected once:\n{place}"));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn tests_named_by_breaks_exist() {
    let mut wrong = Vec::new();
    for Break { name, target, test, .. } in breaks() {
        let path = match &*target {
            "lib" => format!("src/{}.rs", test.rsplit_once("::").unwrap().0.replace("::", "/")),
            target if root().join(format!("tests/{target}.rs")).exists() => format!("tests/{target}.rs"),
            target => format!("tests/{target}"),
        };
        let function = test.rsplit("::").next().unwrap();
        let is_error = function.starts_with('E');
        if !sources(&path).is_some_and(|sources| is_error || has_test(&sources, function)) {
            wrong.push(format!("{name}: no {test} in {path}"));
        }
    }
    assert_none(&wrong);
}

/// `docs/testing.md` must name every break, and no break that does not exist.
#[test]
fn every_break_is_in_testing_md() {
    let known: BTreeSet<String> = breaks().into_iter().map(|each| each.name).collect();
    let map = read(&root().join("docs/testing.md"));
    let is_break = |code: &str| code.starts_with("rule-") || code.starts_with("serving-");
    let named: BTreeSet<String> = events(&map)
        .filter_map(|event| match event {
            Event::Code(code) if is_break(&code) => Some(code.into_string()),
            _ => None,
        })
        .collect();
    let mut wrong: Vec<_> =
        known.difference(&named).map(|name| format!("{name} is not in docs/testing.md")).collect();
    wrong.extend(named.difference(&known).map(|name| format!("{name} in docs/testing.md does not exist")));
    assert_none(&wrong);
}
