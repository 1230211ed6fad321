//! Answers made at random of words, markers and what stands in calls: all of it is read, to its end and
//! however it is cut, and every word is told.

use std::sync::Arc;

use crate::reply_support::examples::types;
use crate::reply_support::rounds::{Round, rounds};
use crate::reply_support::{
    Said, TokensOfMarkers, events, is_markup, joined, ordinary, parser, read, splits, text, token,
    told, with_tokens,
};
use rkllmd::reply::{
    OpenedIn, ReplyFamily, ReplyFormat, ReplyOptions, ReplyReader, ReplyToken, ToolTypes,
};

/// What stands between the words of an answer.
fn between_words(family: ReplyFamily) -> Vec<String> {
    let mut format = with_tokens(family);
    let of_messages = format.harmony_ids.clone();
    let mut pieces: Vec<String> = [
        " ",
        "\n",
        "{",
        "}",
        "}}",
        "[",
        "]",
        ",",
        ":",
        "(",
        ")",
        "=",
        "\"",
        "'",
        "f(",
        "a=",
        "call:",
        "{\"name\": \"f\"",
        "\"name\": \"",
        "\"",
        ", \"arguments\": {",
        "\"arguments\": ",
        "\"parameters\": {\"",
        "\"type\": ",
        "\"function\": {",
        "\": \"",
        "{}",
        "f",
        " to=functions.",
    ]
    .map(str::to_owned)
    .to_vec();
    let markers: Vec<String> = format
        .markers_mut()
        .iter()
        .map(|marker| marker.text.clone())
        .chain(of_messages.into_iter().map(|(text, _)| text))
        .filter(|text| !text.trim().is_empty())
        .collect();
    // As often as everything else.
    for _ in 0..pieces.len() / (markers.len() + 1) + 1 {
        pieces.extend(markers.clone());
    }
    pieces
}

#[test]
fn every_word_between_markers_is_told() {
    let between = ReplyFamily::ALL.map(|family| (family, between_words(family)));
    let tokens = TokensOfMarkers::new(false);
    for Round { seed, mut random } in rounds() {
        for (family, between) in &between {
            let pieces: Vec<String> = (0..random.usize(1..24))
                .map(|index| match random.bool() {
                    true => between[random.usize(..between.len())].clone(),
                    false => format!("w{index}q"),
                })
                .collect();
            let output = pieces.concat();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let by_id = with_tokens(*family);
            let answers = [
                (family.format(), vec![token(&output)]),
                (by_id.clone(), tokens.cut(&mut by_id.clone(), &output, &[])),
            ];
            for (format, answer) in answers {
                let said = read(parser(&format, OpenedIn::Content, types()), answer);
                let told = told(&said);
                for (at, word) in pieces.iter().enumerate() {
                    let is_word = word.starts_with('w') && !is_markup(*family, &pieces, at);
                    assert!(
                        !is_word || told.contains(word),
                        "{family}, seed {seed}: {word} of {output:?} is not in {said:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn converted_arguments_of_a_whole_call_are_json() {
    let quotes = ["\"", "'", "<|\"|>"];
    let pieces = [
        "(", ")", "[", "]", "{", "}", ",", ":", "=", "a", "b=", "1", "-2.5", "True", "None", "\\",
        "\\x4", "\\u00e9", "\\ud83d", "\\ude00", " ", "\n", "r", "é", "New York", "\"\"\"", ".",
        "..",
    ];
    let mut whole = 0;
    for Round { seed, mut random } in rounds() {
        let mut body = String::new();
        for _ in 0..random.usize(0..24) {
            body.push_str(match random.usize(..4) {
                0 => quotes[random.usize(..quotes.len())],
                _ => pieces[random.usize(..pieces.len())],
            });
        }
        for (family, output) in [
            (
                ReplyFamily::Lfm2,
                format!("<|tool_call_start|>[f(a={body})]<|tool_call_end|>"),
            ),
            (
                ReplyFamily::Gemma4,
                format!("<|tool_call>call:f{{a:{body}}}<tool_call|>"),
            ),
        ] {
            for (index, tokens) in splits(&output, &[]).into_iter().enumerate() {
                let said = read(parser(&family.format(), OpenedIn::Content, types()), tokens);
                for said in said {
                    let Said::Call {
                        arguments,
                        is_whole: true,
                        ..
                    } = said
                    else {
                        continue;
                    };
                    whole += 1;
                    let read = serde_json::from_str::<serde_json::Value>(&arguments);
                    assert!(
                        read.is_ok(),
                        "{family}, split {index}, seed {seed}: {output}: {arguments}"
                    );
                }
            }
        }
    }
    assert!(whole > 100, "{whole} calls were whole");
}

/// Pieces that meet each other badly.
fn vocabulary() -> Vec<String> {
    let mut pieces: Vec<String> = [
        " ",
        "\n",
        "\n\n",
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "\"",
        "\\",
        "'",
        ",",
        ":",
        ";",
        "=",
        "<",
        ">",
        "|",
        "/",
        "`",
        "\\u00",
        "😀",
        "é",
        "null",
        "true",
        "-1.5",
        "name",
        "arguments",
        "parameters",
        "id",
        "function",
        "call:",
        "{\"name\": \"",
        "\"f\"",
        "\", \"arguments\": {",
        "}}",
        "{}",
        "f(",
        "a=",
        "get_weather",
        "to=functions.",
        "thought",
        "analysis",
        "final",
        "word",
        "answer",
        "<|",
        "</",
    ]
    .map(str::to_owned)
    .to_vec();
    for family in ReplyFamily::ALL {
        for marker in family.format().markers_mut() {
            pieces.push(marker.text.clone());
            let half = marker
                .text
                .char_indices()
                .nth(marker.text.chars().count() / 2);
            pieces.push(marker.text[..half.map_or(0, |(at, _)| at)].to_owned());
        }
    }
    pieces.extend(
        [
            "<|start|>",
            "<|channel|>",
            "<|message|>",
            "<|end|>",
            "<|call|>",
        ]
        .map(str::to_owned),
    );
    pieces.retain(|piece| !piece.is_empty());
    pieces.sort();
    pieces.dedup();
    pieces
}

#[test]
fn random_answers_are_read_to_their_end() {
    let pieces = vocabulary();
    let readers: Vec<(ReplyFamily, ReplyFormat, ReplyFormat)> = ReplyFamily::ALL
        .into_iter()
        .map(|family| (family, family.format(), with_tokens(family)))
        .collect();
    let types = Arc::new(types());
    let options = |opened_in, tools: bool, keeps_thoughts| ReplyOptions {
        keeps_thoughts,
        tools: tools.then(|| Arc::<ToolTypes>::clone(&types)),
        opened_in,
        ..ReplyOptions::default()
    };
    let machines: Vec<_> = readers
        .iter()
        .map(|(family, texts, ids)| {
            (
                *family,
                ReplyReader::new(texts),
                ReplyReader::new(ids),
                ids.clone(),
            )
        })
        .collect();
    let markers = TokensOfMarkers::new(false);
    let mut answers = 0u64;
    for Round { seed, mut random } in rounds() {
        let output: Vec<&str> = (0..random.usize(1..40))
            .map(|_| pieces[random.usize(..pieces.len())].as_str())
            .collect();
        let whole = output.concat();
        for (family, by_text, by_id, format) in &machines {
            let opened_in = match random.bool() {
                true => OpenedIn::Content,
                false => OpenedIn::Reasoning,
            };
            let is_complete = random.bool();
            let said = |reader: &ReplyReader, options: &ReplyOptions, tokens: Vec<ReplyToken>| {
                joined(events(&mut reader.parser(options), tokens, is_complete))
            };
            let context =
                || format!("{family}, seed {seed}, {opened_in:?}, {is_complete}: {whole:?}");
            let full = options(opened_in, true, false);
            let in_one = said(by_text, &full, vec![token(&whole)]);
            let in_pieces = said(
                by_text,
                &full,
                output.iter().map(|piece| token(piece)).collect(),
            );
            assert_eq!(in_one, in_pieces, "{}", context());
            let chars = whole
                .chars()
                .map(|c| token(c.encode_utf8(&mut [0; 4])))
                .collect();
            assert_eq!(in_one, said(by_text, &full, chars), "{}", context());
            said(by_id, &full, markers.cut(&mut format.clone(), &whole, &[]));
            if !format.harmony {
                // Without markup, all is content.
                let plain = options(OpenedIn::Content, false, true);
                let all = said(by_text, &plain, vec![token(&whole)]);
                if format.content.is_none() {
                    assert_eq!(all, [text(&whole)], "{}", context());
                }
                // Ordinary tokens are content to the last character.
                let is_by_tokens = format
                    .clone()
                    .markers_mut()
                    .iter()
                    .all(|marker| marker.id.is_some());
                let is_bare = format.calls.as_ref().is_some_and(|calls| calls.bare_json);
                if is_by_tokens && !is_bare {
                    let tokens = ordinary(&whole);
                    let all = said(by_id, &options(OpenedIn::Content, true, false), tokens);
                    assert_eq!(all, [text(&whole)], "{}", context());
                }
            }
        }
        answers += 1;
    }
    assert!(answers > 10, "{answers} answers were read");
}
