use std::path::PathBuf;

/// The program of an example. Cargo builds the examples along with the tests, into a directory beside theirs.
pub(crate) fn path(example: &str) -> PathBuf {
    let this_test = std::env::current_exe().unwrap();
    let target = this_test.ancestors().nth(2).unwrap();
    let program = target.join("examples").join(format!("{example}{}", std::env::consts::EXE_SUFFIX));
    assert!(program.exists(), "{program:?} is missing: `cargo test` builds it, and `cargo build --examples`");
    program
}
