use std::sync::Arc;

use super::*;
use crate::conversation::ReplyPiece;
use crate::reply::{OpenedIn, ReplyFamily, ReplyOptions, ReplyReader, ReplyToken, ToolTypes};

const CALL: &str = r#"<tool_call>{"name": "f", "arguments": {}}</tool_call>"#;

fn options(keeps_thoughts: bool, calls_at: CallsAt) -> ReplyOptions {
    ReplyOptions {
        keeps_thoughts,
        tools: Some(Arc::new(ToolTypes::new([("f", None)]))),
        calls_at,
        ..ReplyOptions::default()
    }
}

fn format() -> ReplyFormat {
    let mut format = ReplyFamily::Hermes.format();
    format.reasoning = Some(Reasoning {
        opened_by_prompts: true,
        ..Reasoning::new("<think>", Marker::text("</think>"))
    });
    format
}

/// How many calls are read of these tokens, and what content.
fn read(options: &ReplyOptions, tokens: &[&str]) -> (usize, String) {
    let tokens: Vec<(Option<i32>, &str)> = tokens.iter().map(|text| (None, *text)).collect();
    read_ids(&format(), options, &tokens)
}

fn read_ids(
    format: &ReplyFormat,
    options: &ReplyOptions,
    tokens: &[(Option<i32>, &str)],
) -> (usize, String) {
    let mut parser = ReplyReader::new(format).parser(options);
    let mut pieces = Vec::new();
    for &(id, text) in tokens {
        let text = text.to_owned();
        parser.push(ReplyToken { id, text }, &mut pieces);
    }
    parser.finish(true, &mut pieces);
    let mut calls = 0;
    let mut content = String::new();
    for piece in pieces {
        match piece {
            ReplyPiece::ToolCall { .. } => calls += 1,
            ReplyPiece::Text(text) => content.push_str(&text),
            _ => {}
        }
    }
    (calls, content)
}

#[test]
fn calls_at_a_beginning_stand_behind_thoughts_wherever_these_go() {
    for keeps_thoughts in [false, true] {
        let at_beginning = options(keeps_thoughts, CallsAt::Beginning);
        let thought = "<think>So.</think>";
        let shown = if keeps_thoughts { thought } else { "" };
        for before in ["", "\n"] {
            let called = read(&at_beginning, &[thought, before, CALL]);
            assert_eq!(called, (1, shown.to_owned()));
            let in_one = [thought, before, CALL].concat();
            assert_eq!(read(&at_beginning, &[&in_one]), called);
        }
        let several = format!(" {CALL}\n{CALL}");
        assert_eq!(read(&at_beginning, &[&several]).0, 2);
    }
    let text = format!(r#"{{"s": "{CALL}"}}"#);
    let told = |at| read(&options(false, at), &[&text]).0;
    assert_eq!(told(CallsAt::Beginning), 0);
    assert_eq!(told(CallsAt::Anywhere), 1);
}

#[test]
fn markers_inside_a_text_of_a_format_are_text_wherever_thoughts_go() {
    let json = format!(r#"{{"s": "</think> <think>{CALL}", "t": "{CALL}"}}"#);
    let thought = format!("<think>\n{CALL} so.\n</think>\n\n");
    for calls_at in [CallsAt::Beginning, CallsAt::FirstCharacter] {
        for tools in [None, options(false, calls_at).tools] {
            for keeps_thoughts in [false, true] {
                let kept = ReplyOptions {
                    tools: tools.clone(),
                    ..options(keeps_thoughts, calls_at)
                };
                assert_eq!(read(&kept, &[&json]), (0, json.clone()), "{kept:?}");
                let shown = if keeps_thoughts { &*thought } else { "" };
                let all = format!("{shown}{json}");
                assert_eq!(read(&kept, &[&thought, &json]), (0, all), "{kept:?}");
                // The prompt has opened it.
                let opened = ReplyOptions {
                    opened_in: OpenedIn::Reasoning,
                    ..kept
                };
                let shown = shown.trim_start_matches("<think>");
                let rest = thought.trim_start_matches("<think>");
                let all = format!("{shown}{json}");
                assert_eq!(read(&opened, &[rest, &json]), (0, all), "{opened:?}");
            }
        }
    }
}

#[test]
fn white_space_before_a_call_makes_a_text_of_it_where_texts_may_begin_so() {
    let call = [" ", CALL];
    let text = call.concat();
    let at = |calls_at| options(false, calls_at);
    assert_eq!(read(&at(CallsAt::Beginning), &call).0, 1);
    assert_eq!(read(&at(CallsAt::FirstCharacter), &call), (0, text.clone()));
    assert_eq!(read(&at(CallsAt::FirstCharacter), &[CALL]).0, 1);
    for keeps_thoughts in [false, true] {
        let first = options(keeps_thoughts, CallsAt::FirstCharacter);
        let shown = if keeps_thoughts {
            "<think>So.</think>\n"
        } else {
            ""
        };
        // What stands in the token that closes a thought is not the answer's.
        let thought = ["<think>So.</thi", "nk>\n"];
        let read_behind = |answer: &[&str]| read(&first, &[&thought[..], answer].concat());
        assert_eq!(read_behind(&call), (0, format!("{shown}{text}")));
        assert_eq!(read_behind(&[CALL]), (1, shown.to_owned()));
        assert_eq!(read_behind(&["  yes"]), (0, format!("{shown}  yes")));
        assert_eq!(read_behind(&[" ", " ", "y"]), (0, format!("{shown}  y")));
        assert_eq!(read_behind(&[" "]), (0, format!("{shown} ")));
    }
}

#[test]
fn a_thought_between_tokens_is_found_whether_the_runtime_prints_them_or_not() {
    let format = format().with_ids(&|text| match text {
        "<think>" => Some(7),
        "</think>" => Some(8),
        _ => None,
    });
    for [open, close] in [["", ""], ["<think>", "</think>"]] {
        let said = [
            (Some(7), open),
            (Some(1), "So."),
            (Some(8), close),
            (Some(2), "\n"),
            (Some(3), CALL),
        ];
        for keeps_thoughts in [false, true] {
            let read_at = |calls_at| read_ids(&format, &options(keeps_thoughts, calls_at), &said);
            let shown = if keeps_thoughts {
                "<think>So.</think>"
            } else {
                ""
            };
            // The line's end is of what begins with it.
            assert_eq!(read_at(CallsAt::Beginning), (1, shown.to_owned()));
            let text = format!("{shown}\n{CALL}");
            assert_eq!(read_at(CallsAt::FirstCharacter), (0, text));
        }
    }
}
