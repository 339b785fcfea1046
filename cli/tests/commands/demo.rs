use crate::support::{Ended, Terminal, at_once, lineframe, run};

#[test]
fn it_answers_the_lines_of_a_pipe() {
    assert_eq!(run(["demo"], "hello\n世界\nlast"), Ended::well("HELLO\n世界\nLAST\n"));
}

#[test]
fn it_answers_a_megabyte_of_lines_in_order() {
    let lines: String = (0..40_000).map(|n| format!("line number {n} of many\n")).collect();
    let upper = lines.to_ascii_uppercase();
    let ended = run(["demo"], lines);
    assert!(
        ended == Ended::well(&upper),
        "{:?}, {} of {} bytes, {:?}",
        ended.code,
        ended.out.len(),
        upper.len(),
        ended.err
    );
}

#[test]
fn empty_lines_of_a_pipe_are_lines() {
    assert_eq!(run(["demo"], "\na\n\n"), Ended::well("\nA\n\n"));
}

#[test]
fn on_a_terminal_it_prompts_and_skips_empty_lines() {
    let terminal = Terminal::start(lineframe(["demo"]));
    terminal.until("> _");
    terminal.type_keys("hello\n");
    terminal.until("> hello\nHELLO\n> _");
    terminal.type_keys("\n");
    terminal.until("> hello\nHELLO\n>\n> _");
    terminal.type_keys("\n");
    terminal.until("> hello\nHELLO\n>\n>\n> _");
    // Replies come in order: one to an empty line would stand before this one.
    terminal.type_keys("héllo 世界\n");
    terminal.until("> hello\nHELLO\n>\n>\n> héllo 世界\nHéLLO 世界\n> _");
}

#[test]
fn ctrl_d_ends_it_at_once() {
    let terminal = Terminal::start(lineframe(["demo"]));
    terminal.until("> _");
    terminal.type_keys("a\n");
    terminal.until("> a\nA\n> _");
    let status = at_once(|| {
        terminal.type_keys("\x04");
        terminal.end()
    });
    assert!(status.success(), "{status}");
}

#[test]
fn ctrl_c_ends_it_at_once() {
    let terminal = Terminal::start(lineframe(["demo"]));
    terminal.until("> _");
    at_once(|| {
        terminal.type_keys("half a line\x03");
        terminal.end()
    });
}
