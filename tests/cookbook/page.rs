use crate::included::filled;

const FILE: &str = "use std::io;\n\n// region: outer\nfn f() {\n    // region: inner\n    if x {\n        y();\n\n    }\n    // endregion\n}\n// endregion\n";

fn file(path: &str) -> Option<String> {
    (path == "a.rs").then(|| FILE.into())
}

fn page(named: &str, code: &str) -> String {
    format!("Text\n\n<!-- code: {named} -->\n\n```rust\n{code}```\n\nMore\n")
}

#[test]
fn blocks_contain_the_region_of_the_file() {
    for (named, code) in [
        ("a.rs#inner", "if x {\n    y();\n\n}\n"),
        ("a.rs#outer", "fn f() {\n    if x {\n        y();\n\n    }\n}\n"),
        ("a.rs", "use std::io;\n\nfn f() {\n    if x {\n        y();\n\n    }\n}\n"),
    ] {
        assert_eq!(filled(&page(named, "old();\n"), file), Ok(page(named, code)));
        assert_eq!(filled(&page(named, code), file), Ok(page(named, code)), "again");
    }
}

#[test]
fn python_files_may_have_regions() {
    let file = |_: &str| {
        Some("import socket\n# region: loop\nwhile True:\n    # a comment\n    pass\n# endregion\n".into())
    };
    let page = |code| format!("<!-- code: a.py#loop -->\n```python\n{code}```\n");
    assert_eq!(filled(&page(""), file), Ok(page("while True:\n    # a comment\n    pass\n")));
}

#[test]
fn other_blocks_are_unchanged() {
    let page = "```sh\ncargo test\n```\n\n````text\n<!-- code: a.rs#inner -->\n```rust\n```\n````\n";
    assert_eq!(filled(page, file), Ok(page.into()));
}

#[test]
fn bad_marks_are_errors() {
    for (page, said) in [
        (page("b.rs#inner", ""), "line 5: no file b.rs"),
        (page("a.rs#middle", ""), "line 5: no region a.rs#middle"),
        ("```rust\nf();\n```\n".into(), "line 1: rust block without a source file"),
        ("<!-- code: a.rs -->\nText\n".into(), "line 2: no block after a.rs"),
        ("<!-- code: a.rs -->\n".into(), "no block after a.rs"),
        ("```sh\ncargo test\n".into(), "line 1: unclosed block"),
    ] {
        assert_eq!(filled(&page, file), Err(said.into()), "{page}");
    }
}

#[test]
fn the_page_contains_the_tested_code() {
    crate::included::check("docs/cookbook.md");
}
