//! Whatever a model writes, its reply is told whole and in order, and no text that only reads like a marker
//! becomes one where tokens tell.

use crate::reply_support::examples::{examples, types};
use crate::reply_support::{
    Said, TokensOfMarkers, call, cut_call, events, joined, ordinary, parser, read, splits, text,
    token, with_tokens,
};
use rkllmd::conversation::ReplyPiece;
use rkllmd::reply::{
    OpenedIn, ReplyFamily, ReplyFormat, ReplyOptions, ReplyParser, ReplyReader, ReplyToken,
};

#[test]
fn a_plain_token_is_handed_on_at_once_and_not_copied() {
    for family in ReplyFamily::ALL {
        let mut parser = parser(&family.format(), OpenedIn::Content, types());
        let mut out = Vec::with_capacity(4);
        parser.push(token("Hello"), &mut out);
        out.clear();
        for word in [" there", ", 10 € (net)", ".\""] {
            let token = token(word);
            let place = token.text.as_ptr();
            assert!(parser.push(token, &mut out), "{family}: {word}");
            let Some(ReplyPiece::Text(told)) = out.pop() else {
                panic!("{family}: {out:?}");
            };
            assert_eq!((told.as_str(), told.as_ptr()), (word, place), "{family}");
            assert!(out.is_empty());
        }
    }
}

/// Every marker of the format, in one text.
fn all_markers(format: &ReplyFormat) -> String {
    let mut format = format.clone();
    let harmony = format.harmony_ids.clone();
    let markers = format.markers_mut();
    let texts = markers.iter().map(|marker| marker.text.clone());
    texts
        .chain(harmony.into_iter().map(|(text, _)| text))
        .collect::<Vec<_>>()
        .join(" x ")
}

#[test]
fn characters_of_a_marker_are_content_where_its_token_is_known() {
    for family in ReplyFamily::ALL {
        let mut format = with_tokens(family);
        // What is left without a token is known by its text.
        let is_known = format
            .markers_mut()
            .iter()
            .all(|marker| marker.id.is_some());
        if !is_known && !format.harmony {
            continue;
        }
        let echoed = format!("You wrote: {}", all_markers(&format));
        let parser = parser(&format, OpenedIn::Content, types());
        assert_eq!(read(parser, ordinary(&echoed)), [text(&echoed)], "{family}");
    }
}

#[test]
fn a_marker_that_is_repeated_is_no_marker_in_a_thought_or_in_arguments() {
    let format = with_tokens(ReplyFamily::Hermes);
    let tokens = TokensOfMarkers::new(false);
    let marker = |text: &str| ReplyToken {
        id: tokens.id(text),
        text: String::new(),
    };
    let echoed = "</think> <tool_call>{\"name\": \"bad\", \"arguments\": {}}</tool_call>";
    let mut answer = vec![marker("<think>")];
    answer.extend(ordinary(echoed));
    answer.push(marker("</think>"));
    answer.extend(ordinary(echoed));
    answer.push(marker("<tool_call>"));
    let arguments = format!("{{\"text\": {}}}", serde_json::json!(echoed));
    answer.extend(ordinary(&format!(
        "{{\"name\": \"f\", \"arguments\": {arguments}}}"
    )));
    answer.push(marker("</tool_call>"));
    let parser = parser(&format, OpenedIn::Content, types());
    assert_eq!(
        read(parser, answer),
        [
            crate::reply_support::reasoning(echoed),
            text(echoed),
            call("f", &arguments)
        ]
    );
}

#[test]
fn what_the_budget_cuts_is_told_as_far_as_it_came() {
    for example in examples() {
        let output = example.output.replace('¦', "");
        let format = example.family.format();
        let read = |text: &str, is_complete| {
            let mut parser = parser(&format, example.opened_in, types());
            joined(events(&mut parser, [token(text)], is_complete))
        };
        let whole = read(&output, true);
        // Arguments that come before the name wait for it.
        let name = output.find("\"name\"").unwrap_or_default();
        let names_first = output.find("\"arguments\"").is_none_or(|at| name < at);
        let bounds: Vec<usize> = output.char_indices().map(|(at, _)| at).collect();
        let mut told = 0;
        for cut in bounds {
            let said = read(&output[..cut], false);
            let calls = |said: &[Said]| -> Vec<(String, String)> {
                let calls = said.iter().filter_map(|said| match said {
                    Said::Call {
                        name, arguments, ..
                    } => Some((name.clone(), arguments.clone())),
                    _ => None,
                });
                calls.collect()
            };
            let (calls, all) = (calls(&said), calls(&whole));
            for ((name, arguments), (all, all_arguments)) in calls.iter().zip(&all) {
                assert_eq!(name, all);
                assert!(
                    all_arguments.starts_with(arguments.as_str()),
                    "{arguments} of {all_arguments}"
                );
            }
            // A call that was told stays told, however far its arguments are.
            assert!(calls.len() >= told, "{}: {said:?}", &output[..cut]);
            told = calls.len();
            // From the first value on that is told in the end, the call is known.
            for (at, (_, arguments)) in all.iter().enumerate() {
                let Some(value) = arguments.find([':']).map(|at| &arguments[..=at]) else {
                    continue;
                };
                if names_first
                    && output[..cut].ends_with(value)
                    && output.matches(value).count() == 1
                {
                    let (_, so_far) = calls.get(at).unwrap_or_else(|| {
                        panic!("{}: {:?}: {said:?}", example.family, &output[..cut])
                    });
                    assert_eq!(so_far, value, "{}", example.family);
                }
            }
        }
    }
}

#[test]
fn a_cut_call_is_told_from_its_name_on() {
    use ReplyFamily::{Hermes, Mistral, Qwen3Coder};
    for (family, output, said) in [
        (
            Mistral,
            "[TOOL_CALLS]f{\"a\": 1",
            vec![cut_call("f", "{\"a\": 1")],
        ),
        (
            Hermes,
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"b",
            vec![cut_call("f", "{\"a\": \"b")],
        ),
        (
            Hermes,
            "Hi.<tool_call>\n{\"name\": \"get_wea",
            vec![text("Hi.")],
        ),
        (
            Qwen3Coder,
            "Hi.<tool_call>\n<function=get_wea",
            vec![text("Hi.")],
        ),
    ] {
        let format = with_tokens(family);
        let tokens = TokensOfMarkers::new(false).cut(&mut format.clone(), output, &[]);
        let mut parser = parser(&format, OpenedIn::Content, types());
        assert_eq!(joined(events(&mut parser, tokens, false)), said, "{family}");
    }
    // Where the opener is text, nothing shows yet that it is one.
    for output in [
        "<tool_call>\n{\"name\": \"get_wea",
        "<tool_call>\n<function=get_wea",
    ] {
        for family in [Hermes, Qwen3Coder] {
            let mut parser = parser(&family.format(), OpenedIn::Content, types());
            let said = joined(events(&mut parser, [token(output)], false));
            assert_eq!(said, [text(output)], "{family}");
        }
    }
}

#[test]
fn no_arguments_are_invented_for_a_call_that_ends_before_them() {
    use ReplyFamily::{Hermes, Mistral, Qwen3Coder};
    let begun = "<tool_call>\n{\"name\": \"f\"";
    // A call whose arguments have begun has no end, whatever says that it has ended; a key without a value has no
    // place in it, and is content.
    let other = "<tool_call>{\"name\": \"g\", \"arguments\": {\"a\": 1}}</tool_call>";
    let another = call("g", "{\"a\": 1}");
    for (output, behind) in [
        (format!("{begun}, \"arguments\": "), vec![]),
        (format!("{begun}, \"arguments\": </tool_call>"), vec![]),
        (
            format!("{begun}, \"arguments\"</tool_call>"),
            vec![text("\"arguments\"")],
        ),
        (
            format!("{begun}, \"arguments\": </tool_call>{other}"),
            vec![another.clone()],
        ),
        (
            format!("{begun}, \"arguments\": {other}"),
            vec![another.clone()],
        ),
        (
            format!("{begun}, \"arguments\": </tool_call>{begun}, \"arguments\": </tool_call>"),
            vec![cut_call("f", "")],
        ),
    ] {
        let mut expected = vec![cut_call("f", "")];
        expected.extend(behind);
        for tokens in splits(&output, &[]) {
            let said = read(parser(&Hermes.format(), OpenedIn::Content, types()), tokens);
            assert_eq!(said, expected, "{output}");
        }
        let mut parser = parser(&Hermes.format(), OpenedIn::Content, types());
        let said = joined(events(&mut parser, [token(&output)], false));
        assert_eq!(said[0], expected[0], "{output}");
    }
    // A call whose form is whole takes nothing, and so does one of which only the end is missing.
    for (family, output) in [
        (Hermes, begun.to_owned()),
        (Hermes, format!("{begun}, ")),
        (Hermes, format!("{begun}}}")),
        (Hermes, format!("{begun}</tool_call>")),
        (Mistral, "[TOOL_CALLS]f[ARGS]".to_owned()),
        (Qwen3Coder, "<tool_call><function=f></function>".to_owned()),
    ] {
        for tokens in splits(&output, &[]) {
            let said = read(parser(&family.format(), OpenedIn::Content, types()), tokens);
            assert_eq!(said, [call("f", "{}")], "{output}");
        }
    }
    // What the budget cuts gets none either way.
    for (family, output) in [
        (Mistral, "[TOOL_CALLS]f[ARGS]"),
        (Qwen3Coder, "<tool_call><function=f>"),
    ] {
        let mut parser = parser(&family.format(), OpenedIn::Content, types());
        let said = joined(events(&mut parser, [token(output)], false));
        assert_eq!(said, [cut_call("f", "")], "{output}");
    }
}

#[test]
fn an_answer_goes_on_from_a_snapshot_as_if_nothing_had_been() {
    for example in examples() {
        let tokens = TokensOfMarkers::new(false);
        let format = example.family.format().with_ids(&|text| tokens.id(text));
        let answer = tokens.cut(&mut format.clone(), example.output, &[]);
        for cut in 0..answer.len() {
            let mut parser = parser(&format, example.opened_in, types());
            let mut out = Vec::new();
            for token in &answer[..cut] {
                parser.push(token.clone(), &mut out);
            }
            let snapshot: ReplyParser = parser.clone();
            // A worker that dies later has told nothing that counts.
            parser.push(answer[cut].clone(), &mut Vec::new());
            let mut parser = snapshot;
            out.extend(events(&mut parser, answer[cut..].iter().cloned(), true));
            assert_eq!(joined(out), example.said, "{} at {cut}", example.family);
        }
    }
}

#[test]
fn thoughts_that_are_kept_are_content_with_their_markers() {
    let output = "<think>\nSo.\n</think>\n\nHello.";
    let tokens = TokensOfMarkers::new(false);
    let format = with_tokens(ReplyFamily::Hermes);
    let kept = |format: &ReplyFormat| {
        ReplyReader::new(format).parser(&ReplyOptions {
            keeps_thoughts: true,
            ..ReplyOptions::default()
        })
    };
    let answer = tokens.cut(&mut format.clone(), output, &[]);
    assert_eq!(read(kept(&format), answer), [text(output)]);
    assert_eq!(
        read(kept(&ReplyFamily::Hermes.format()), [token(output)]),
        [text(output)]
    );
}

#[test]
fn calls_without_functions_are_content() {
    let output = "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
    let parser = ReplyReader::new(&ReplyFamily::Hermes.format()).parser(&ReplyOptions::default());
    assert_eq!(read(parser, [token(output)]), [text(output)]);
}

#[test]
fn a_character_of_several_bytes_anywhere_in_a_call_is_read() {
    for family in ReplyFamily::ALL {
        for output in [
            "[{\"name\": \"f\", \"parameters\": {\"a\": 1}, \"type\": 1}]",
            "{\"function\": {\"name\": \"f\", \"arguments\": {\"a\": 1}}}",
        ] {
            for (at, _) in output.char_indices() {
                for strange in ["é", "\u{FF1A}", "😀"] {
                    let text = format!("{}{strange}{}", &output[..at], &output[at..]);
                    for tokens in splits(&text, &[]) {
                        let parser = parser(&family.format(), OpenedIn::Content, types());
                        assert!(!read(parser, tokens).is_empty(), "{family}: {text}");
                    }
                }
            }
        }
    }
}
