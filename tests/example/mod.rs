use std::path::PathBuf;

/// Returns the path of a compiled example. `cargo test` builds examples next to the tests.
pub(crate) fn path(example: &str) -> PathBuf {
    let this_test = std::env::current_exe().unwrap();
    let target = this_test.ancestors().nth(2).unwrap();
    let program = target.join("examples").join(format!("{example}{}", std::env::consts::EXE_SUFFIX));
    assert!(program.exists(), "{program:?} is missing; run `cargo build --examples`");
    program
}
