use std::fs;
use std::process::Command;

use tempfile::TempDir;

use crate::peer::{Running, Talk, missing, output, python, script};

struct Site {
    directory: TempDir,
    server: Running,
}

impl Site {
    /// A server with a certificate for `localhost` in `certificate.pem`.
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

    /// What was stored, in order, without the two lines about its envelope.
    fn mails(&self) -> Vec<String> {
        let mut files: Vec<_> = fs::read_dir(self.directory.path().join("mails"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        let text = |file| String::from_utf8(fs::read(file).unwrap()).unwrap();
        files.into_iter().map(|file| text(file).splitn(3, "\r\n").nth(2).unwrap().to_owned()).collect()
    }

    /// A client that has been greeted.
    fn talk(&self) -> Talk {
        let mut talk = self.server.talk();
        assert_eq!(talk.line(), "220 mail.example ESMTP");
        talk
    }

    /// A client that has said from whom and to whom.
    fn envelope(&self) -> Talk {
        let mut talk = self.talk();
        assert_eq!(talk.ask("MAIL FROM:<a@example.org>"), "250 2.1.0 Sender taken");
        assert_eq!(talk.ask("RCPT TO:<b@example.org>"), "250 2.1.5 Recipient taken");
        talk
    }
}

#[test]
fn smtplib_sends_dots_in_clear_and_in_tls() {
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

/// Perl's own module for SMTP is one of the few clients that can BDAT.
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
fn chunks_are_bytes_and_what_is_behind_them_is_commands() {
    let site = Site::start();
    let mut talk = site.envelope();
    // Pipelined: chunk, empty last chunk, next mail. In the first chunk stands what would end a mail, and another mail.
    let chunk = "a\r\n.\r\nMAIL FROM:<evil@example.org>\r\n";
    talk.send(format!("BDAT {}\r\n{chunk}BDAT 0 LAST\r\nNOOP\r\n", chunk.len()));
    assert_eq!(
        [talk.line(), talk.line(), talk.line()],
        ["250 2.0.0 Taken", "250 2.0.0 Stored", "250 2.0.0 Done"]
    );
    assert_eq!(site.mails(), [chunk]);

    // Refused chunks are not commands either.
    talk.send("BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n");
    assert_eq!([talk.line(), talk.line()], ["503 5.5.1 MAIL and RCPT first", "250 2.0.0 Done"]);
    let mut talk = site.envelope();
    let chunk_of_quits = "QUIT\r\n".repeat((10 << 20) / 6 + 1);
    talk.send(format!("BDAT {}\r\n{chunk_of_quits}", chunk_of_quits.len()));
    assert_eq!([talk.line(), talk.ask("NOOP")], ["552 5.3.4 Too large", "250 2.0.0 Done"]);

    // A mail that is not lines, and one that began in chunks, go on in chunks.
    let mut talk = site.talk();
    assert_eq!(talk.ask("MAIL FROM:<a@example.org> body=binarymime"), "250 2.1.0 Sender taken");
    assert_eq!(talk.ask("RCPT TO:<b@example.org>"), "250 2.1.5 Recipient taken");
    assert_eq!(talk.ask("DATA"), "503 5.5.1 MAIL and RCPT first, or BDAT");
    let mut talk = site.envelope();
    talk.send("BDAT 1\r\nxDATA\r\n");
    assert_eq!([talk.line(), talk.line()], ["250 2.0.0 Taken", "503 5.5.1 MAIL and RCPT first, or BDAT"]);

    // Without a length nobody knows where commands go on.
    for length in ["x", "-1", "+5", "", "18446744073709551616", "5 FIRST"] {
        let mut talk = site.envelope();
        talk.send(format!("BDAT {length}\r\nNOOP\r\n"));
        assert_eq!(talk.rest(), "501 5.5.4 BDAT takes a length\r\n");
    }
    assert_eq!(site.mails(), [chunk]);
}

/// What was behind CVE-2023-51764, -51765 and -51766: for one server the mail ends, for the other it goes on.
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
            // A NUL is a byte like any other: the line is no dot, and the mail has no lone CR or LF in it.
            "\r\n.\0\r\n" => assert_eq!(reply, "250 2.0.0 Stored"),
            _ => assert_eq!(reply, "554 5.6.0 A lone CR or LF", "{end:?}"),
        }
        // One mail, one reply; and what stood in it was not run.
        assert_eq!(talk.ask("NOOP"), "250 2.0.0 Done", "{end:?}");
    }
    assert_eq!(site.mails().len(), 1);
    // Nor is a command that ends otherwise.
    let mut talk = site.talk();
    talk.send("NOOP\nNOOP\r\nNOOP\r\n");
    assert_eq!(talk.rest(), "554 5.5.2 Lines end with CRLF\r\n");
}

#[test]
fn too_much_is_refused_and_the_next_mail_is_taken() {
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

/// CVE-2011-0411: commands that somebody puts behind STARTTLS in clear are not those of the client in TLS.
#[test]
fn nothing_sent_in_clear_behind_starttls_is_run_in_tls() {
    let site = Site::start();
    let mut talk = site.talk();
    talk.send("STARTTLS\r\nMAIL FROM:<evil@example.org>\r\n");
    assert_eq!(talk.line(), "501 5.5.4 Nothing may follow STARTTLS");
    // There is no TLS. It was run in clear, where it came.
    assert_eq!(talk.line(), "250 2.1.0 Sender taken");
    // Half a command is one too.
    talk.send("STARTTLS\r\nRSE");
    assert_eq!(talk.line(), "501 5.5.4 Nothing may follow STARTTLS");
    assert_eq!(talk.ask("T"), "250 2.0.0 Forgotten");
    // And behind the reply it is no handshake.
    assert_eq!(talk.ask("STARTTLS"), "220 2.0.0 Go ahead");
    talk.send("NOOP\r\nNOOP\r\n");
    let rest = talk.rest();
    assert!(!rest.contains("250"), "{rest:?}");
}
