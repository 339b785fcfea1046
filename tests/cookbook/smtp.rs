use std::fs;
use std::process::Command;

use tempfile::TempDir;

use crate::peer::{Running, Talk, missing, output, python, script};

struct Site {
    directory: TempDir,
    server: Running,
}

impl Site {
    /// Starts a server with a certificate for `localhost`, stored in `certificate.pem`.
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let [mails, certificate, key] =
            ["mails", "certificate.pem", "key.pem"].map(|name| directory.path().join(name));
        fs::create_dir(&mails).unwrap();
        fs::write(&certificate, cert.pem()).unwrap();
        fs::write(&key, signing_key.serialize_pem()).unwrap();
        let server = Running::example("smtp", &[mails.as_ref(), certificate.as_ref(), key.as_ref()]);
        Self { directory, server }
    }

    /// Returns the stored mails in order, without the two lines about the envelope.
    fn mails(&self) -> Vec<String> {
        let mut files: Vec<_> = fs::read_dir(self.directory.path().join("mails"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        let text = |file| String::from_utf8(fs::read(file).unwrap()).unwrap();
        files.into_iter().map(|file| text(file).splitn(3, "\r\n").nth(2).unwrap().to_owned()).collect()
    }

    /// Connects and reads the greeting.
    fn talk(&self) -> Talk {
        let mut talk = self.server.talk();
        assert_eq!(talk.line(), "220 mail.example ESMTP");
        talk
    }

    /// Connects and sends a sender and a recipient.
    fn envelope(&self) -> Talk {
        let mut talk = self.talk();
        assert_eq!(talk.ask("MAIL FROM:<a@example.org>"), "250 2.1.0 Sender taken");
        assert_eq!(talk.ask("RCPT TO:<b@example.org>"), "250 2.1.5 Recipient taken");
        talk
    }
}

#[test]
fn smtplib_sends_dots_with_and_without_tls() {
    let Some(mut python) = python("smtplib") else { return };
    let site = Site::start();
    let certificate = site.directory.path().join("certificate.pem");
    let printed = output(python.arg(script("smtp.py")).arg(site.server.port()).arg(certificate), b"");
    assert_eq!(printed.as_deref(), Some("sent in clear and in TLS\n"));
    let text = ".\r\n..\r\n.dots\r\n\r\nin the middle.\r\n.\r\nand at the end\r\n.\r\n";
    let long = format!(".{}\r\n", "x".repeat(997));
    let mails = site.mails();
    assert_eq!(mails.len(), 3);
    assert_eq!([&mails[0], &mails[1], &mails[2]], [text, text, &long]);
}

/// Perl's Net::SMTP is one of the few clients that support BDAT.
#[test]
fn perl_sends_chunks_of_any_bytes() {
    let site = Site::start();
    let mut perl = Command::new("perl");
    if !Command::new("perl").args(["-MNet::SMTP", "-e", "1"]).status().is_ok_and(|status| status.success()) {
        return missing("Perl with Net::SMTP").unwrap_or_default();
    }
    let printed = output(perl.arg(script("bdat.pl")).arg(site.server.port()), b"");
    assert_eq!(printed.as_deref(), Some("two mails in chunks\n"));
    let mails = site.mails();
    assert_eq!((&mails[0][..], mails.len()), ("one\n.\r\n.\rtwo\r\n.\r\nQUIT\r\nthe end", 2));
    assert!(mails[1] == "x".repeat(300_000));
}

#[test]
fn commands_continue_after_chunks() {
    let site = Site::start();
    let mut talk = site.envelope();
    // Pipelined: a chunk, an empty last chunk, a command. The first chunk contains what would end a
    // DATA mail, and a command.
    let chunk = "a\r\n.\r\nMAIL FROM:<evil@example.org>\r\n";
    talk.send(format!("BDAT {}\r\n{chunk}BDAT 0 LAST\r\nNOOP\r\n", chunk.len()));
    assert_eq!(
        [talk.line(), talk.line(), talk.line()],
        ["250 2.0.0 Taken", "250 2.0.0 Stored", "250 2.0.0 Done"]
    );
    assert_eq!(site.mails(), [chunk]);

    // The bytes of refused chunks are not run as commands.
    talk.send("BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n");
    assert_eq!([talk.line(), talk.line()], ["503 5.5.1 MAIL and RCPT first", "250 2.0.0 Done"]);
    let mut talk = site.envelope();
    let chunk_of_quits = "QUIT\r\n".repeat((10 << 20) / 6 + 1);
    talk.send(format!("BDAT {}\r\n{chunk_of_quits}", chunk_of_quits.len()));
    assert_eq!([talk.line(), talk.ask("NOOP")], ["552 5.3.4 Too large", "250 2.0.0 Done"]);

    // DATA is refused for a binary mail, and for a mail whose first part was a chunk.
    let mut talk = site.talk();
    assert_eq!(talk.ask("MAIL FROM:<a@example.org> body=binarymime"), "250 2.1.0 Sender taken");
    assert_eq!(talk.ask("RCPT TO:<b@example.org>"), "250 2.1.5 Recipient taken");
    assert_eq!(talk.ask("DATA"), "503 5.5.1 MAIL and RCPT first, or BDAT");
    let mut talk = site.envelope();
    talk.send("BDAT 1\r\nxDATA\r\n");
    assert_eq!([talk.line(), talk.line()], ["250 2.0.0 Taken", "503 5.5.1 MAIL and RCPT first, or BDAT"]);

    // Without a valid length, it is unknown where the next command begins.
    for length in ["x", "-1", "+5", "", "18446744073709551616", "5 FIRST"] {
        let mut talk = site.envelope();
        talk.send(format!("BDAT {length}\r\nNOOP\r\n"));
        assert_eq!(talk.rest(), "501 5.5.4 BDAT takes a length\r\n");
    }
    assert_eq!(site.mails(), [chunk]);
}

/// SMTP smuggling (CVE-2023-51764, -51765, -51766): two servers disagree about where a mail ends.
#[test]
fn only_a_dot_between_two_crlf_ends_a_mail() {
    let site = Site::start();
    for end in [
        "\n.\r\n",
        "\n.\n",
        "\r.\r\n",
        "\r.\r",
        "\r\n.\n",
        "\r\n.\r",
        "\r\n.\0\r\n",
        "\r\n\r.\r\n",
        "\r\n.\r\r\n",
    ] {
        let mut talk = site.envelope();
        assert_eq!(talk.ask("DATA"), "354 Go ahead, end with a dot");
        talk.send(format!(
            "text{end}MAIL FROM:<evil@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nevil\r\n.\r\n"
        ));
        let reply = talk.line();
        match end {
            // A NUL is an ordinary byte: the line is not a single dot, and it has no lone CR or LF.
            "\r\n.\0\r\n" => assert_eq!(reply, "250 2.0.0 Stored"),
            _ => assert_eq!(reply, "554 5.6.0 A lone CR or LF", "{end:?}"),
        }
        // There is one reply per mail, and the commands within the mail were not run.
        assert_eq!(talk.ask("NOOP"), "250 2.0.0 Done", "{end:?}");
    }
    assert_eq!(site.mails().len(), 1);
    // A command must end with CRLF too.
    let mut talk = site.talk();
    talk.send("NOOP\nNOOP\r\nNOOP\r\n");
    assert_eq!(talk.rest(), "554 5.5.2 Lines end with CRLF\r\n");
}

#[test]
fn the_next_mail_is_accepted_after_a_refusal() {
    let site = Site::start();
    let mut talk = site.envelope();
    assert_eq!(talk.ask("DATA"), "354 Go ahead, end with a dot");
    talk.send(format!("{}\r\nshort\r\n.\r\n", "x".repeat(1000)));
    assert_eq!(talk.line(), "554 5.6.0 Line too long");
    assert_eq!(talk.ask(&"x".repeat(1000)), "500 5.5.2 Line too long");
    assert_eq!(talk.ask("DATA"), "503 5.5.1 MAIL and RCPT first, or BDAT");
    assert_eq!(talk.ask("MAIL FROM:<>"), "250 2.1.0 Sender taken");
    assert_eq!(talk.ask("RCPT TO:<b@example.org>"), "250 2.1.5 Recipient taken");
    assert_eq!(talk.ask("DATA"), "354 Go ahead, end with a dot");
    assert_eq!(talk.ask("text\r\n."), "250 2.0.0 Stored");
    assert_eq!(site.mails(), ["text\r\n"]);
}

/// CVE-2011-0411: plaintext commands that an attacker adds after STARTTLS must not run inside TLS.
#[test]
fn plaintext_after_starttls_never_runs_in_tls() {
    let site = Site::start();
    let mut talk = site.talk();
    talk.send("STARTTLS\r\nMAIL FROM:<evil@example.org>\r\n");
    assert_eq!(talk.line(), "501 5.5.4 Nothing may follow STARTTLS");
    // TLS was not started. The command ran without TLS, as it was sent.
    assert_eq!(talk.line(), "250 2.1.0 Sender taken");
    // A partial command is refused too.
    talk.send("STARTTLS\r\nRSE");
    assert_eq!(talk.line(), "501 5.5.4 Nothing may follow STARTTLS");
    assert_eq!(talk.ask("T"), "250 2.0.0 Reset");
    // After the reply, plaintext commands are not a TLS handshake.
    assert_eq!(talk.ask("STARTTLS"), "220 2.0.0 Go ahead");
    talk.send("NOOP\r\nNOOP\r\n");
    let rest = talk.rest();
    assert!(!rest.contains("250"), "{rest:?}");
}
