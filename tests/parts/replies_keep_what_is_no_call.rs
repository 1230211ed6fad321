//! What reads like a call and is none, what has no place in a call, and what stands around calls is content
//! where it was written.

use crate::reply_support::examples::types;
use crate::reply_support::{
    Said, TokensOfMarkers, call, call_with_id, ordinary, parser, read, splits, text, token,
    with_tokens,
};
use rkllmd::reply::{
    Around, CallBody, Calls, FoundFormat, IdPlace, Marker, ModelReply, NameThenJson, OpenedIn,
    ReplyFamily, ReplyFormat, ReplyOptions, ReplyReader,
};

#[test]
fn an_opener_that_no_call_follows_is_what_it_reads_as() {
    use ReplyFamily::{Hermes, Minicpm5, Mistral, Phi4Mini, Qwen3Coder};
    for (family, output) in [
        (Phi4Mini, "Use functools.reduce, or import functools\n"),
        (Phi4Mini, "functools[0] is no list"),
        (Hermes, "Write <tool_call> before the call.\n"),
        (Hermes, "Write\n<tool_call>\n"),
        (Qwen3Coder, "Write <tool_call> before <b>."),
        (Mistral, "Write [TOOL_CALLS] before the name."),
        (
            Mistral,
            "Write [TOOL_CALLS] before the name, and more of it. ",
        ),
        (Minicpm5, "An opener is <function name=\""),
    ] {
        for tokens in splits(output, &[3, 9, 12]) {
            let parser = parser(&family.format(), OpenedIn::Content, types());
            assert_eq!(read(parser, tokens), [text(output)], "{family}");
        }
    }
    let output = "I may write <tool_call> now.</think>Hi.";
    let parser = parser(&Hermes.format(), OpenedIn::Reasoning, types());
    assert_eq!(
        read(parser, [token(output)]),
        [
            crate::reply_support::reasoning("I may write <tool_call> now."),
            text("Hi.")
        ]
    );
}

#[test]
fn a_closer_that_content_mentions_is_content() {
    use ReplyFamily::{Glm4, Hermes, Qwen3Coder};
    for family in [Hermes, Qwen3Coder, Glm4] {
        for output in [
            "The closing tag is </tool_call>. It ends a call.",
            "Neither <tool_call> nor </tool_call> is one.",
            "<tool_call>\"hm\"</tool_call> is none.",
        ] {
            // Between its markers a name alone is a call.
            if family == Glm4 && output.contains("<tool_call>") {
                continue;
            }
            for tokens in splits(output, &[]) {
                let parser = parser(&family.format(), OpenedIn::Content, types());
                assert_eq!(read(parser, tokens), [text(output)], "{family}");
            }
        }
        // Behind a call too.
        let called = family.format().calls.map(|calls| calls.body);
        if let Some(CallBody::Json(_)) = called {
            let output =
                "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>See </tool_call>.";
            for tokens in splits(output, &[]) {
                let said = read(parser(&family.format(), OpenedIn::Content, types()), tokens);
                assert_eq!(said, [call("f", "{}"), text("See </tool_call>.")]);
            }
        }
        // Where its token is known, the same characters are text, and the token says nothing.
        let format = with_tokens(family);
        let output = "It ends </tool_call> here.";
        let said = read(
            parser(&format, OpenedIn::Content, types()),
            ordinary(output),
        );
        assert_eq!(said, [text(output)], "{family}");
        let tokens = TokensOfMarkers::new(false);
        let answer = tokens.cut(&mut format.clone(), output, &[]);
        let said = read(parser(&format, OpenedIn::Content, types()), answer);
        assert_eq!(said, [text("It ends  here.")], "{family}");
    }
}

#[test]
fn what_should_have_been_a_call_is_not_lost() {
    use ReplyFamily::{DeepseekR1, Qwen3Coder};
    let body = "get_weather\n```json\n{\"city\":\"X\"}\n```";
    let tokens = TokensOfMarkers::new(false);
    for (family, output, expected) in [
        (
            DeepseekR1,
            format!(
                "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{body}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
            ),
            body.to_owned(),
        ),
        (
            DeepseekR1,
            format!("<｜tool▁call▁begin｜>{body}"),
            body.to_owned(),
        ),
        (
            Qwen3Coder,
            format!("<tool_call><function=f><parameter={}", "word ".repeat(200)),
            "word ".repeat(200),
        ),
    ] {
        let format = family.format().with_ids(&|text| tokens.id(text));
        let answer = tokens.cut(&mut format.clone(), &output, &[]);
        let said = read(parser(&format, OpenedIn::Content, types()), answer);
        let Some(Said::Text(last)) = said.last() else {
            panic!("{family}: {said:?}");
        };
        assert_eq!(last.trim(), expected.trim(), "{family}");
    }
}

#[test]
fn calls_of_messages_with_headers_are_content_where_no_calls_were_asked_for() {
    let output = "<|channel|>commentary to=functions.f<|message|>{\"a\": 1}<|call|>";
    let reader = ReplyReader::new(&ReplyFamily::GptOss.format());
    let parser = reader.parser(&ReplyOptions::default());
    assert_eq!(read(parser, [token(output)]), [text("{\"a\": 1}")]);
}

#[test]
fn messages_with_headers_are_told_apart_without_functions() {
    let output = "<|channel|>analysis<|message|>So <b>.<|end|><|start|>assistant<|channel|>final<|message|>Hello.\n<|return|>";
    let format = with_tokens(ReplyFamily::GptOss);
    let tokens = TokensOfMarkers::new(false);
    let answer = || tokens.cut(&mut format.clone(), output, &[]);
    let reader = ReplyReader::new(&format);
    let said = read(reader.parser(&ReplyOptions::default()), answer());
    let thought = crate::reply_support::reasoning("So <b>.");
    assert_eq!(said, [thought, text("Hello.\n")]);
    let kept = ReplyOptions {
        keeps_thoughts: true,
        ..ReplyOptions::default()
    };
    assert_eq!(
        read(reader.parser(&kept), answer()),
        [text("<|channel|>analysis<|message|>So <b>.<|end|>Hello.\n")]
    );
}

#[test]
fn a_closer_that_a_model_without_thoughts_writes_is_content() {
    let output = "Close it with </think>.\n</think>\n<think> opens it.";
    for family in ReplyFamily::ALL {
        for mut format in [family.format(), with_tokens(family)] {
            format.reasoning = None;
            let answers = [vec![token(output)], ordinary(output)];
            for answer in answers {
                let parser = parser(&format, OpenedIn::Content, types());
                assert_eq!(read(parser, answer), [text(output)], "{family}");
            }
        }
    }
}

#[test]
fn a_closer_without_an_opener_is_content_where_no_prompt_opens_a_thought() {
    for output in [
        "Close it with </think>, then go on.",
        "</think>\n\nHi.",
        " </think> ends it.",
    ] {
        for family in ReplyFamily::ALL {
            let mut plain = family.format();
            let Some(reasoning) = &mut plain.reasoning else {
                continue;
            };
            reasoning.opened_by_prompts = false;
            let (open, close) = (reasoning.open.text.clone(), reasoning.close.text.clone());
            let output = output.replace("</think>", &close);
            let tokens = TokensOfMarkers::new(true);
            let by_ids = plain.clone().with_ids(&|text| tokens.id(text));
            let answers = splits(&output, &[3, 9]).into_iter();
            let answers = answers.map(|answer| (&plain, answer));
            let cut = tokens.cut(&mut by_ids.clone(), &output, &[]);
            for (format, answer) in answers.chain([(&by_ids, cut)]) {
                let parser = parser(format, OpenedIn::Content, types());
                assert_eq!(read(parser, answer), [text(&output)], "{family}");
            }
            // Behind a thought it says nothing, and neither does one that the runtime does not print.
            let label = &plain.reasoning.as_ref().expect("a thought").label;
            let thought = format!("{open}{label}\nSo.{close}\n{close}\nHi.");
            let parser = parser(&plain, OpenedIn::Content, types());
            let said = read(parser, [token(&thought)]);
            let expected = [crate::reply_support::reasoning("So."), text("Hi.")];
            assert_eq!(said, expected, "{family}");
        }
    }
}

#[test]
fn text_around_calls_stays_where_it_was() {
    use ReplyFamily::{DeepseekR1, Gemma4, Hermes, Lfm2, Qwen3Coder};
    let section = |calls: &str| format!("<｜tool▁calls▁begin｜>{calls}<｜tool▁calls▁end｜>");
    let in_fence = |name: &str| {
        format!(
            "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{{}}\n```<｜tool▁call▁end｜>"
        )
    };
    for (family, [f, g]) in [
        (
            Hermes,
            ["f", "g"].map(|name| {
                format!("<tool_call>{{\"name\": \"{name}\", \"arguments\": {{}}}}</tool_call>")
            }),
        ),
        (
            Qwen3Coder,
            ["f", "g"].map(|name| format!("<tool_call><function={name}></function></tool_call>")),
        ),
        (DeepseekR1, ["f", "g"].map(|name| section(&in_fence(name)))),
        (
            Gemma4,
            ["f", "g"].map(|name| format!("<|tool_call>call:{name}{{}}<tool_call|>")),
        ),
        (
            Lfm2,
            ["f", "g"].map(|name| format!("<|tool_call_start|>[{name}()]<|tool_call_end|>")),
        ),
    ] {
        let output = format!("Before.\n{f}\nBetween.\n{g}\nBehind.");
        for tokens in splits(&output, &[]) {
            let said = read(parser(&family.format(), OpenedIn::Content, types()), tokens);
            let [
                Said::Text(before),
                first,
                Said::Text(between),
                second,
                Said::Text(behind),
            ] = said.as_slice()
            else {
                panic!("{family}: {said:?}");
            };
            let texts = [before, between, behind].map(|text| text.trim());
            assert_eq!(texts, ["Before.", "Between.", "Behind."], "{family}");
            assert_eq!([first, second], [&call("f", "{}"), &call("g", "{}")]);
        }
    }
}

#[test]
fn an_id_is_told_once() {
    let output = "[TOOL_CALLS][{\"id\": \"abcdefghi\", \"name\": \"f\", \"arguments\": {}}, {\"id\": \"abcdefghi\", \"name\": \"g\", \"arguments\": {}}]";
    let parser = parser(
        &ReplyFamily::MistralList.format(),
        OpenedIn::Content,
        types(),
    );
    assert_eq!(
        read(parser, [token(output)]),
        [
            crate::reply_support::call_with_id("abcdefghi", "f", "{}"),
            call("g", "{}")
        ]
    );
}

#[test]
fn what_has_no_place_in_a_call_is_content_behind_it() {
    for (family, output, expected) in [
        (
            ReplyFamily::Hermes,
            "<tool_call>{\"name\": \"f\", \"type\": \"function\", \"id\": \"a1\", \"input\": {\"a\": 1}}</tool_call>",
            "\"input\": {\"a\": 1}",
        ),
        (
            ReplyFamily::Hermes,
            "<tool_call>{\"name\": \"f\", arguments: {\"a\": 1}}</tool_call>",
            "arguments: {\"a\": 1}}",
        ),
        (
            ReplyFamily::Glm4,
            "<tool_call>f\n<arg_key>a</arg_key><arg_key>b</arg_key></tool_call>",
            "a\nb",
        ),
    ] {
        for tokens in splits(output, &[]) {
            let said = read(parser(&family.format(), OpenedIn::Content, types()), tokens);
            assert_eq!(said, [call("f", "{}"), text(expected)], "{family}");
        }
    }
}

#[test]
fn a_call_without_a_name_is_what_it_reads_as() {
    let output = "<function name=\"\"><param name=\"a\">word</param></function> end";
    for tokens in splits(output, &[]) {
        let parser = parser(&ReplyFamily::Minicpm5.format(), OpenedIn::Content, types());
        let said = read(parser, tokens);
        let [Said::Text(said)] = said.as_slice() else {
            panic!("{said:?}");
        };
        assert!(said.contains("word") && said.ends_with("end"), "{said}");
    }
}

#[test]
fn a_bracket_behind_a_call_is_content_however_it_is_cut() {
    let output = "{\"name\": \"f\", \"parameters\": {}}\n[1] and more";
    for tokens in splits(output, &[34, 36]) {
        let parser = parser(&ReplyFamily::Llama3.format(), OpenedIn::Content, types());
        assert_eq!(
            read(parser, tokens),
            [call("f", "{}"), text("[1] and more")]
        );
    }
}

#[test]
fn a_name_is_an_id_only_where_the_format_has_it_so() {
    let format = |id| ReplyFormat {
        calls: Some(Calls::new(
            vec![Around::new("<c>", "</c>")],
            CallBody::NameThenJson(NameThenJson {
                id,
                before_arguments: Marker::text("<a>"),
                ..NameThenJson::default()
            }),
        )),
        ..ReplyFormat::default()
    };
    for (id, written, said) in [
        (
            Some(IdPlace::AroundName),
            "functions.now:0",
            call_with_id("functions.now:0", "now", "{}"),
        ),
        (Some(IdPlace::AroundName), "now", call("now", "{}")),
        (None, "functions.now:0", call("functions.now:0", "{}")),
    ] {
        for tokens in splits(&format!("<c>{written}<a>{{}}</c>"), &[]) {
            let parser = parser(&format(id.clone()), OpenedIn::Content, types());
            assert_eq!(
                read(parser, tokens),
                std::slice::from_ref(&said),
                "{written}"
            );
        }
    }
}

#[test]
fn a_message_for_a_function_need_not_be_json() {
    let output = "<|channel|>commentary to=python code<|message|>print([1, 2], \"}\")<|call|>";
    for tokens in splits(output, &[]) {
        let parser = parser(&ReplyFamily::GptOss.format(), OpenedIn::Content, types());
        assert_eq!(
            read(parser, tokens),
            [call("python", "print([1, 2], \"}\")")]
        );
    }
}

#[test]
fn a_format_without_bounds_is_not_used() {
    let long = |text: usize, lead: usize| {
        let mut found = FoundFormat {
            format: ReplyFamily::Hermes.format(),
            ..FoundFormat::default()
        };
        let reasoning = found.format.reasoning.as_mut().unwrap();
        reasoning.close.text.push_str(&"x".repeat(text));
        reasoning.close.lead = " ".repeat(lead);
        found
    };
    for (found, is_used) in [
        (long(0, 1), true),
        (long(400_000, 1), false),
        (long(0, 400_000), false),
    ] {
        let used = ModelReply::new(found.clone()).found.format == found.format;
        assert_eq!(used, is_used);
        let short = found.format.with_short_leads();
        assert!(short.reasoning.unwrap().close.lead.len() <= 16);
    }
}
