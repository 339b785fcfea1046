use std::process::Stdio;

use crate::support::{Client, Process, Server, Terminal, lineframe, run};

const COMMANDS: [&str; 8] = ["demo", "serve", "connect", "send", "inspect", "bench", "completions", "man"];

#[test]
fn help_and_version_are_on_stdout() {
    for (arguments, said) in [(["--help"], "Usage: lineframe"), (["--version"], "lineframe ")] {
        let ended = run(arguments, "");
        let out = String::from_utf8_lossy(&ended.out);
        assert!(ended.code == Some(0) && ended.err.is_empty() && out.contains(said), "{ended:?}");
    }
}

#[test]
fn every_help_fits_a_terminal_of_80_columns() {
    for (command, flag) in
        COMMANDS.iter().chain(&[""]).flat_map(|command| [(command, "-h"), (command, "--help")])
    {
        let arguments = [*command, flag].into_iter().filter(|argument| !argument.is_empty());
        let terminal = Terminal::start(lineframe(arguments));
        let shown = terminal.shown.to_end();
        let shown = String::from_utf8_lossy(&shown)
            .replace("\x1b[0m", "")
            .replace("\x1b[1m", "")
            .replace("\x1b[4m", "");
        let rows: Vec<_> = shown.lines().collect();
        assert!(shown.contains("Usage: lineframe"), "{shown}");
        assert!(rows.iter().all(|row| row.trim_end().chars().count() <= 80), "{shown}");
    }
}

#[test]
fn every_help_has_an_example() {
    for command in COMMANDS {
        let help = run([command, "--help"], "").out;
        let help = String::from_utf8_lossy(&help);
        assert!(
            help.contains(&format!("\n  lineframe {command}"))
                || help.contains(&format!("| lineframe {command}")),
            "{help}"
        );
    }
}

#[test]
fn completions_and_manual_pages_know_every_option() {
    let help = run(["serve", "--help"], "").out;
    let help = String::from_utf8_lossy(&help);
    let words = help.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2);
    let options: Vec<_> = words.map(|word| word.trim_matches(|c: char| !c.is_ascii_alphanumeric())).collect();
    assert!(options.contains(&"exec") && options.contains(&"max-length"), "{options:?}");
    for arguments in [
        ["completions", "bash"],
        ["completions", "elvish"],
        ["completions", "fish"],
        ["completions", "powershell"],
        ["completions", "zsh"],
        ["man", "serve"],
    ] {
        let ended = run(arguments, "");
        assert!(ended.code == Some(0) && ended.err.is_empty(), "{ended:?}");
        let made = String::from_utf8_lossy(&ended.out).replace('\\', "");
        for option in &options {
            assert!(made.contains(option), "{arguments:?} lacks {option}");
        }
    }
}

#[test]
fn completions_and_man_print_the_same_when_piped() {
    for arguments in [["completions", "bash"], ["man", "serve"]] {
        let piped = run(arguments, "").out;
        let shown = Terminal::start(lineframe(arguments)).shown.to_end();
        assert!(String::from_utf8_lossy(&shown).replace("\r\n", "\n").as_bytes() == piped);
        let mut command = lineframe(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let ended = Process::spawn(&mut command, 10).end();
        assert!(ended.code == Some(0) && ended.err.is_empty(), "{ended:?}");
    }
    run(["man", "nothing"], "").assert_failed(2, "", "nothing");
    let page = run(["man"], "").out;
    assert!(String::from_utf8_lossy(&page).contains("LINEFRAME_MAX_LENGTH"));
}

#[test]
fn wrong_usage_is_exit_2() {
    for arguments in [
        &[][..],
        &["sned"],
        &["send"],
        &["send", "nowhere"],
        &["send", "localhost:65536"],
        &["send", "::1:80"],
        &["connect", ":80"],
        &["serve", "localhost"],
        &["serve", "tls://localhost:8083"],
        &["serve", "--max-length", "1x"],
        &["serve", "--delimiter", "byte:0"],
        &["serve", "--exec"],
        &["serve", "--handler", "echo", "--exec", "--", "cat"],
        &["completions", "tcsh"],
        &["demo", "127.0.0.1:0"],
        &["serve", "--mode", "+60"],
        &["serve", "--mode", "+600"],
        &["serve", "--mode", "6"],
        &["serve", "--mode", "6000"],
    ] {
        let ended = run(arguments, "");
        assert!(
            ended.code == Some(2) && ended.out.is_empty() && !ended.err.is_empty(),
            "{arguments:?}: {ended:?}"
        );
    }
}

#[test]
fn messages_escape_control_characters() {
    const CONTROL: &str = "\x1b]0;x\x07\u{9b}31m\u{202e}";
    const SHOWN: &str = r"\x1b]0;x\x07\u{9b}31m\u{202e}";

    // Checks the output on a terminal, where clap may add colours.
    for arguments in [&[CONTROL][..], &["send", CONTROL]] {
        let shown = Terminal::start(lineframe(arguments)).shown.to_end();
        let shown = std::str::from_utf8(&shown).unwrap();
        assert!(
            shown.contains(SHOWN)
                && !shown.contains("\x1b]")
                && !shown.contains(['\x07', '\u{9b}', '\u{202e}']),
            "{shown:?}"
        );
    }

    let path = format!("./{CONTROL}/none");
    for (arguments, code) in [
        (vec![CONTROL], 2),
        (vec!["send", CONTROL], 2),
        (vec!["serve", CONTROL], 2),
        (vec!["serve", &path], 1),
        (vec!["send", &path], 3),
        (vec!["connect", &path], 3),
    ] {
        let ended = run(&arguments, "");
        let err = std::str::from_utf8(&ended.err).unwrap();
        assert_eq!(ended.code, Some(code), "{arguments:?}: {err:?}");
        // The library formats the address in connect errors with `{:?}`.
        let shown = if code == 3 { CONTROL.escape_default().to_string() } else { SHOWN.to_owned() };
        assert!(err.contains(&shown), "{arguments:?}: {err:?}");
        assert!(
            !err.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'),
            "{arguments:?}: {err:?}"
        );
    }
}

#[test]
fn flags_override_environment_variables() {
    for (arguments, reply) in [(&[][..], "error: "), (&["--max-length", "4"], "ABCD\n")] {
        let server = Server::with(|serve| _ = serve.env("LINEFRAME_MAX_LENGTH", "3").args(arguments));
        let mut client = Client::tcp(&server.tcp);
        client.write("abcd\n");
        let said = client.line();
        assert!(said.starts_with(reply.as_bytes()), "{said:?}");
    }
}

#[test]
fn bad_environment_values_name_their_variable() {
    let ended = Process::start(lineframe(["serve"]).env("LINEFRAME_MAX_LENGTH", "3x")).end();
    let err = String::from_utf8_lossy(&ended.err);
    assert!(ended.code == Some(2) && ended.out.is_empty(), "{ended:?}");
    assert!(err.contains("--max-length") && err.contains("LINEFRAME_MAX_LENGTH"), "{err}");
}

#[test]
fn usage_errors_say_what_to_write() {
    for (arguments, said) in [
        (&["serve", "8083"][..], "127.0.0.1:8083"),
        (&["serve", ":8083"], "127.0.0.1:8083"),
        (&["send", "--timeout", "5", "127.0.0.1:1"], "5s"),
        (&["inspect", "127.0.0.1:9000"], "inspect LISTEN SERVER"),
    ] {
        let ended = run(arguments, "");
        let err = String::from_utf8_lossy(&ended.err);
        assert!(ended.code == Some(2) && err.contains(said), "{arguments:?}: {ended:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn help_that_cannot_be_written_is_exit_1() {
    for flag in ["--help", "--version"] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = lineframe([flag]);
        let process = Process::spawn(command.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped()), 0);
        process.end().assert_failed(1, "", "cannot write to stdout");
    }
}

#[test]
fn manual_pages_cite_only_those_that_exist() {
    let page = run(["man"], "").out;
    let page = String::from_utf8_lossy(&page).replace('\\', "");
    let cited = page.split("lineframe-").skip(1).filter_map(|rest| rest.split_once("(1)"));
    let cited: Vec<_> = cited.map(|(name, _)| name).collect();
    assert!(cited.contains(&"serve") && !cited.contains(&"help"), "{page}");
    for name in cited {
        assert_eq!(run(["man", name], "").code, Some(0), "{name}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn interfaces_of_link_local_addresses_are_looked_up() {
    let index = std::fs::read_to_string("/sys/class/net/lo/ifindex").unwrap();
    let numbered = format!("[fe80::1%{}]:9", index.trim());
    // Connecting fails because no server listens, or because IPv6 is disabled.
    for address in ["[fe80::1%lo]:9", &numbered] {
        let ended = run(["send", address], "a\n");
        ended.assert_failed(3, "", &format!("cannot connect to \"{numbered}\": "));
        assert!(!String::from_utf8_lossy(&ended.err).contains("lookup"), "{ended:?}");
    }
    let ended = run(["send", "[fe80::1%no-such]:9"], "a\n");
    ended.assert_failed(3, "", "cannot connect to [fe80::1%no-such]:9: no interface \"no-such\"");
    let ended = run(["serve", "[fe80::1%no-such]:9"], "");
    ended.assert_failed(1, "", "cannot listen on [fe80::1%no-such]:9: no interface \"no-such\"");
    assert_eq!(run(["send", "[localhost]:9"], "").code, Some(2));
}
