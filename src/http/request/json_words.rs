//! What a JSON parser says, in words for the author of the text.

/// What the parser says, without the position, and what is said instead.
const SENTENCES: [(&str, &str); 12] = [
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
];

/// The parser's message in a JSON user's words; the position is told apart.
pub(crate) fn reason(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let end = message.rfind(" at line ").unwrap_or(message.len());
    let bare = &message[..end];
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
}
