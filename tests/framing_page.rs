//! Checks the diagrams in `docs/framing.md` and its description of `conformance.json`.
//! `tutorial.rs` checks the program on that page.

use bytes::BytesMut;
use lineframe::{Delimiter, LineCodec, LineError, Unterminated};
use serde_json::Value;
use tokio_util::codec::Decoder;

const PAGE: &str = include_str!("../docs/framing.md");

#[test]
fn diagrams_match_the_items_of_the_codec() {
    let mut diagrams = 0;
    let lines: Vec<_> = PAGE.lines().collect();
    for (place, line) in lines.iter().enumerate() {
        let Some(shown) = line.strip_prefix("  items ") else { continue };
        let [configuration, stream, _] = lines[place - 3..place] else { unreachable!() };
        let stream = stream.strip_prefix("  stream ").unwrap();
        let shown: String = shown.split_whitespace().collect();
        assert_eq!(items(configuration, stream), shown, "{configuration}: {stream}");
        diagrams += 1;
    }
    assert_eq!(diagrams, 8);
}

/// Returns the codec's items without spaces between them.
fn items(configuration: &str, stream: &str) -> String {
    let mut words = configuration.split(", ");
    let delimiter = match words.next().unwrap() {
        "Newline" => Delimiter::Newline,
        "Lf" => Delimiter::Lf,
        "CrLf" => Delimiter::CrLf,
        "Byte(0)" => Delimiter::Byte(0),
        r#"any_of(b"\r\n")"# => Delimiter::any_of(b"\r\n").unwrap(),
        r#"sequence(b"--")"# => Delimiter::sequence(b"--").unwrap(),
        other => panic!("{other}"),
    };
    let mut codec = LineCodec::builder().delimiter(delimiter);
    let mut expected = None;
    for word in words {
        match word {
            "max_length 5" => codec = codec.max_length(5),
            "Deliver" => codec = codec.unterminated(Unterminated::Deliver),
            "expect_bytes(4) behind the first item" | "expect_bytes(4) after the first item" => {
                expected = Some(4)
            }
            other => panic!("{other}"),
        }
    }
    let mut codec = codec.build();
    let stream: String = stream.split_whitespace().filter(|word| *word != "EOF").collect();
    let stream = stream.replace(r"\r", "\r").replace(r"\n", "\n").replace(r"\0", "\0");
    let mut buffer = BytesMut::from(stream.as_bytes());

    let mut items = String::new();
    while let Some(item) = codec.decode_eof(&mut buffer).unwrap() {
        let (kind, bytes) = match &item {
            Ok(line) => ("Ok", line),
            Err(bad @ LineError::TooLong { .. }) => ("TooLong", bad.bytes()),
            Err(bad @ LineError::Unterminated { .. }) => ("Unterminated", bad.bytes()),
            Err(bad @ LineError::BareTerminator { .. }) => ("BareTerminator", bad.bytes()),
            Err(other) => panic!("{other}"),
        };
        items += &format!("{kind}\"{}\"", bytes.escape_ascii());
        if let Some(count) = expected.take() {
            codec.expect_bytes(count).unwrap();
        }
    }
    items
}

#[test]
fn page_describes_every_key_of_the_cases() {
    let file: Value = serde_json::from_str(include_str!("conformance.json")).unwrap();
    let Value::Object(mut format) = file["format"].clone() else { panic!("no format") };
    // These keys describe the file and the hazards. Cases do not have them.
    for words in ["about", "bytes", "hazard_ids"] {
        format.remove(words).unwrap();
    }
    let inner = format.values().filter_map(Value::as_object).flatten();
    let keys = format.keys().chain(inner.map(|(key, _)| key)).filter(|key| *key != "the first that applies");
    let missing: Vec<_> = keys
        .filter(|key| !PAGE.contains(&format!("`{key}`")) && !PAGE.contains(&format!("`{{\"{key}\": ")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");

    let cases = file["cases"].as_array().unwrap();
    assert!(PAGE.contains(&format!("has {} cases", cases.len())), "{} cases", cases.len());
    let (_, example) = PAGE.split_once("```json\n").unwrap();
    let example: Value = serde_json::from_str(example.split_once("```").unwrap().0).unwrap();
    assert!(cases.contains(&example), "{example}");
}
