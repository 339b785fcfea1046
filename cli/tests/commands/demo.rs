use crate::support::{Ended, Terminal, lineframe, promptly, run};

#[test]
fn piped_lines_are_answered() {
    assert_eq!(run(["demo"], "hello\n世界\nlast"), Ended::success("HELLO\n世界\nLAST\n"));
}

#[test]
fn a_megabyte_of_lines_is_answered_in_order() {
    let lines: String = (0..40_000).map(|n| format!("line number {n} of many\n")).collect();
    let upper = lines.to_ascii_uppercase();
    let ended = run(["demo"], lines);
    assert!(
        ended == Ended::success(&upper),
        "{:?}, {} of {} bytes, {:?}",
        ended.code,
        ended.out.len(),
        upper.len(),
        ended.err
    );
}

#[test]
fn empty_piped_lines_are_answered() {
    assert_eq!(run(["demo"], "\na\n\n"), Ended::success("\nA\n\n"));
}

#[test]
fn terminal_sessions_prompt_and_skip_empty_lines() {
    let terminal = Terminal::start(lineframe(["demo"]));
    terminal.until("> _");
    terminal.type_keys("hello\n");
    terminal.until("> hello\nHELLO\n> _");
    terminal.type_keys("\n");
    terminal.until("> hello\nHELLO\n>\n> _");
    terminal.type_keys("\n");
    terminal.until("> hello\nHELLO\n>\n>\n> _");
    // Replies are in order, so a reply to an empty line would be printed before this one.
    terminal.type_keys("héllo 世界\n");
    terminal.until("> hello\nHELLO\n>\n>\n> héllo 世界\nHéLLO 世界\n> _");
}

#[test]
fn ctrl_d_ends_demo() {
    let terminal = Terminal::start(lineframe(["demo"]));
    terminal.until("> _");
    terminal.type_keys("a\n");
    terminal.until("> a\nA\n> _");
    let status = promptly(|| {
        terminal.type_keys("\x04");
        terminal.end()
    });
    assert!(status.success(), "{status}");
}

#[test]
fn ctrl_c_ends_demo() {
    let terminal = Terminal::start(lineframe(["demo"]));
    terminal.until("> _");
    promptly(|| {
        terminal.type_keys("half a line\x03");
        terminal.end()
    });
}
