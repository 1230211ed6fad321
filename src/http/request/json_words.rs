//! What a JSON parser says, in words for the author of the text.

/// What the parser says, without the position, and what is said instead.
const SENTENCES: [(&str, &str); 14] = [
    ("expected value", "there is no JSON value where one must be"),
    (
        "expected ident",
        "a bare word is none of true, false and null",
    ),
    (
        "EOF while parsing a value",
        "the text ends where a value must be",
    ),
    (
        "EOF while parsing an object",
        "the text ends inside an object",
    ),
    ("EOF while parsing a list", "the text ends inside an array"),
    (
        "EOF while parsing a string",
        "the text ends inside a string",
    ),
    (
        "trailing characters",
        "there is more text after the end of the value",
    ),
    ("trailing comma", "a comma has nothing after it"),
    (
        "key must be a string",
        "the name of a member must be in double quotes",
    ),
    ("expected `:`", "there is no `:` after the name of a member"),
    (
        "expected `,` or `}`",
        "there is neither `,` nor `}` after a member of an object",
    ),
    (
        "expected `,` or `]`",
        "there is neither `,` nor `]` after an element of an array",
    ),
    ("lone leading surrogate in hex escape", HALF_A_PAIR),
    ("unexpected end of hex escape", HALF_A_PAIR),
];

/// Said of a `\ud800` that no second half follows.
pub(crate) const HALF_A_PAIR: &str =
    "an escape is one half of a surrogate pair, which is no character";

/// What a number has to be that its field's type cannot hold; `None`: the error is another.
pub(crate) fn requirement(error: &serde_json::Error) -> Option<String> {
    requirement_in(without_place(&error.to_string()))
}

fn requirement_in(bare: &str) -> Option<String> {
    if bare.ends_with("is more than a 32-bit number can be") {
        return Some("must be a number that 32 bits can hold".to_owned());
    }
    let kinds = [
        "invalid value: integer `",
        "invalid value: floating point `",
    ];
    let told = kinds.iter().find_map(|kind| bare.strip_prefix(kind))?;
    let (number, expected) = told.split_once("`, expected ")?;
    // A field takes less than so many bits hold, and says itself how much.
    if is_wide(expected) && number.parse::<i64>().is_err() {
        return Some("must be a number that 64 bits can hold".to_owned());
    }
    Some(match range(expected) {
        Some((low, high)) => format!("must be from {low} to {high}, not {number}"),
        None => format!("must be {expected}, not {number}"),
    })
}

/// Whether it is a type of 64 bits, or one of 128, which is read from 64.
fn is_wide(expected: &str) -> bool {
    let name = expected.strip_prefix("a nonzero ").unwrap_or(expected);
    ["i64", "u64", "i128", "u128", "isize", "usize"].contains(&name)
}

/// What an integer of this type may be.
fn range(expected: &str) -> Option<(i128, i128)> {
    let (name, is_nonzero) = match expected.strip_prefix("a nonzero ") {
        Some(name) => (name, true),
        None => (expected, false),
    };
    let least = i128::from(is_nonzero);
    Some(match name {
        "u8" => (least, u8::MAX.into()),
        "u16" => (least, u16::MAX.into()),
        "u32" => (least, u32::MAX.into()),
        "u64" | "u128" | "usize" => (least, u64::MAX.into()),
        "i8" if !is_nonzero => (i8::MIN.into(), i8::MAX.into()),
        "i16" if !is_nonzero => (i16::MIN.into(), i16::MAX.into()),
        "i32" if !is_nonzero => (i32::MIN.into(), i32::MAX.into()),
        _ => return None,
    })
}

fn without_place(message: &str) -> &str {
    let end = message.rfind(" at line ").unwrap_or(message.len());
    &message[..end]
}

/// The parser's message in a JSON user's words; the position is told apart.
pub(crate) fn reason(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let bare = without_place(&message);
    if let Some(requirement) = requirement_in(bare) {
        return format!("it {requirement}");
    }
    if let Some((_, sentence)) = SENTENCES.iter().find(|(said, _)| *said == bare) {
        return (*sentence).to_owned();
    }
    let words = bare
        .replace("expected f64", "expected a number")
        .replace("expected f32", "expected a number");
    let integers = [
        "i8", "u8", "i16", "u16", "i32", "i64", "i128", "u32", "u64", "usize",
    ];
    integers.iter().fold(words, |words, name| {
        words.replace(&format!("expected {name}"), "expected an integer")
    })
}

/// The same with its position.
pub(crate) fn sentence(error: &serde_json::Error) -> String {
    let reason = reason(error);
    match error.line() {
        0 => reason,
        line => format!("{reason} (line {line}, column {})", error.column()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_be_no_json_is_told_in_a_sentence() {
        for text in [
            "",
            " ",
            "nope",
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":}",
            "{\"a\":1",
            "{\"a\":1,",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "{\"a\":1 \"b\":2}",
            "{a:1}",
            "{'a':1}",
            "[",
            "[1",
            "[1,",
            "[1,]",
            "[1 2]",
            "\"",
            "{} x",
            "[]]",
            "tru",
            "trux",
            "undefined",
            r#""\ud800""#,
            r#""\udc00 ""#,
            r#""\ud800\n""#,
        ] {
            let error = serde_json::from_str::<serde_json::Value>(text).unwrap_err();
            let words = sentence(&error);
            assert!(words.contains("(line 1, column "), "{text:?}: {words}");
            for bare in [
                "expected value",
                "expected ident",
                "EOF",
                "trailing",
                "expected `",
                "hex escape",
            ] {
                assert!(!words.contains(bare), "{text:?}: {words}");
            }
        }
    }

    #[test]
    fn types_are_those_of_json() {
        let error = serde_json::from_str::<Vec<u32>>("[\"a\"]").unwrap_err();
        let words = "invalid type: string \"a\", expected an integer";
        assert_eq!(reason(&error), words);
    }

    #[test]
    fn a_number_out_of_range_is_told_its_range() {
        let said = |error: serde_json::Error| requirement(&error);
        for (text, expected) in [
            ("-5", Some("must be from 0 to 255, not -5")),
            ("256", Some("must be from 0 to 255, not 256")),
            ("\"a\"", None),
            ("1.5", None),
        ] {
            let error = serde_json::from_str::<u8>(text).unwrap_err();
            assert_eq!(said(error).as_deref(), expected, "{text}");
        }
        let wide = Some("must be a number that 64 bits can hold");
        for (text, expected) in [
            ("1e300", None),
            ("-5", Some("must be from 0 to 18446744073709551615, not -5")),
        ] {
            let error = serde_json::from_str::<u64>(text).unwrap_err();
            assert_eq!(said(error).as_deref(), expected, "{text}");
        }
        for bare in [
            "invalid value: floating point `1e300`, expected i128",
            "invalid value: floating point `1e300`, expected i64",
            "invalid value: integer `18446744073709551615`, expected i64",
            "invalid value: floating point `1e300`, expected a nonzero u64",
        ] {
            assert_eq!(requirement_in(bare).as_deref(), wide, "{bare}");
        }
        let error = serde_json::from_str::<std::num::NonZeroU8>("0").unwrap_err();
        assert_eq!(said(error).as_deref(), Some("must be from 1 to 255, not 0"));
    }
}
