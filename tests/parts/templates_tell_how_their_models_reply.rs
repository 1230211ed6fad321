//! The format of a model's replies is found by what its own template writes: with the templates that
//! models ship, and with templates whose markers no model has.

use std::collections::HashMap;
use std::sync::Arc;

use crate::reply_support::examples::{Example, examples, types};
use crate::reply_support::{Said, TokensOfMarkers, call, parser, read, reasoning, splits, text};
use crate::template_support::templates;
use rkllmd::prompt::{ChatTemplate, SpecialTokens, well_known_control_tokens};
use rkllmd::reader::{ToldReplies, find_format, written};
use rkllmd::reply::analysis::analyse;
use rkllmd::reply::{FormatSource, FoundFormat, OpenedIn, ReplyFamily};

pub(crate) fn compile(source: &str) -> Option<ChatTemplate> {
    let special = SpecialTokens {
        bos: "<s>".to_owned(),
        eos: "</s>".to_owned(),
    };
    let tokens = Arc::new(well_known_control_tokens().collect());
    ChatTemplate::compile(source, special, tokens).ok()
}

pub(crate) fn find(source: &str) -> FoundFormat {
    let template = compile(source).unwrap();
    analyse(source, &|conversation| written(&template, conversation))
}

/// A template, the family whose examples its model writes, and where thoughts and calls come from.
pub(crate) const FAMILIES: &[(&str, ReplyFamily, FormatSource, FormatSource)] = {
    use FormatSource::{Family, Generic, None, Template};
    use ReplyFamily::{
        DeepseekR1, Gemma4, Glm4, GptOss, Granite3, Hermes, Lfm2, Llama3, Minicpm5, Mistral,
        MistralList, Qwen3Coder,
    };
    &[
        ("Qwen-Qwen2.5-7B-Instruct", Hermes, None, Template),
        ("Qwen-Qwen3-0.6B", Hermes, Template, Template),
        (
            "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use",
            Hermes,
            None,
            Template,
        ),
        ("ibm-granite-granite-4.0", Hermes, None, Template),
        (
            "HuggingFaceTB-SmolLM3-3B",
            ReplyFamily::Generic,
            Template,
            Generic,
        ),
        ("Qwen3-Coder", Qwen3Coder, None, Template),
        ("Qwen3.5-4B", Qwen3Coder, Template, Template),
        ("meta-llama-Llama-3.1-8B-Instruct", Llama3, None, Template),
        ("meta-llama-Llama-3.2-3B-Instruct", Llama3, None, Template),
        (
            "mistralai-Mistral-Nemo-Instruct-2407",
            MistralList,
            None,
            Template,
        ),
        (
            "Mistral-Small-3.2-24B-Instruct-2506",
            Mistral,
            None,
            Template,
        ),
        (
            "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
            DeepseekR1,
            Template,
            Template,
        ),
        (
            "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
            DeepseekR1,
            Template,
            Family(DeepseekR1),
        ),
        ("google-gemma-2-2b-it", ReplyFamily::Generic, None, Generic),
        ("google-gemma-4-31B-it", Gemma4, Family(Gemma4), Template),
        (
            "ibm-granite-granite-3.3-2B-Instruct",
            Granite3,
            Template,
            Family(Granite3),
        ),
        ("LFM2-8B-A1B", Lfm2, None, Family(Lfm2)),
        ("LFM2.5-8B-A1B", Lfm2, Template, Template),
        ("openbmb-MiniCPM5-1B", Minicpm5, Template, Template),
        ("GLM-4.6", Glm4, Template, Template),
        (
            "openai-gpt-oss-120b",
            GptOss,
            Family(GptOss),
            Family(GptOss),
        ),
    ]
};

pub(crate) fn is_thought(example: &Example) -> bool {
    let is_told = |said: &Said| matches!(said, Said::Reasoning(_));
    example.opened_in == OpenedIn::Reasoning
        || example.output.contains("think>")
        || example.said.iter().any(is_told)
}

#[test]
fn official_templates_tell_how_their_models_reply() {
    let templates = templates();
    let mut wrong = Vec::new();
    for (name, family, reasoning_from, calls_from) in FAMILIES {
        let found = find(&templates[*name]);
        let sources = (found.reasoning_from, found.calls_from);
        if sources != (*reasoning_from, *calls_from) {
            wrong.push(format!("{name}: from {sources:?}"));
        }
        let thinks = found.format.reasoning.is_some() || found.format.harmony;
        for example in examples() {
            if example.family != *family || (is_thought(&example) && !thinks) {
                continue;
            }
            let plain = example.output.replace('¦', "");
            let tokens = TokensOfMarkers::new(false);
            let by_id = found.format.clone().with_ids(&|text| tokens.id(text));
            let answers = [
                (&found.format, splits(&plain, &[]).swap_remove(1)),
                (&by_id, tokens.cut(&mut by_id.clone(), example.output, &[])),
            ];
            for (format, answer) in answers {
                let said = read(parser(format, example.opened_in, types()), answer);
                if said != example.said {
                    wrong.push(format!(
                        "{name}: {}\n  {said:?}\n  {:?}",
                        example.output, format.calls
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_model_that_is_told_of_functions_in_words_may_call_them_in_its_own_form() {
    let native = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{\"place\": \"a\"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
    let worded = "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"place\": \"a\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";
    let templates = templates();
    let tokens = TokensOfMarkers::new(false);
    for name in [
        "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
        "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
    ] {
        let source = &templates[name];
        let mut template = compile(source).unwrap();
        let found = find_format(
            source,
            &mut template,
            &Default::default(),
            &Default::default(),
        )
        .unwrap();
        assert_eq!(found.calls_from, FormatSource::Generic, "{name}");
        let sent = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<FoundFormat>(&sent).unwrap(), found);
        let by_id = found.format.clone().with_ids(&|text| tokens.id(text));
        for form in [native, worded] {
            let output = format!("Hm.\n</think>\n\nI look.\n{form}");
            let mut answers = splits(&output, &[])
                .into_iter()
                .map(|cut| (&found.format, cut))
                .collect::<Vec<_>>();
            answers.push((&by_id, tokens.cut(&mut by_id.clone(), &output, &[])));
            for (format, answer) in answers {
                let mut said = read(parser(format, OpenedIn::Reasoning, types()), answer);
                if let Some(Said::Text(text)) = said.get_mut(1) {
                    text.truncate(text.trim_end().len());
                }
                assert_eq!(
                    said,
                    [
                        reasoning("Hm."),
                        text("I look."),
                        call("get_weather", "{\"place\": \"a\"}"),
                        call("now", "{}"),
                    ],
                    "{name}: {output:?}"
                );
            }
        }
    }
}

/// Calls and thoughts are read by what begins them, so that is no client's to write, but for marks and words that
/// every text may hold.
#[test]
fn what_begins_a_thought_or_a_call_is_kept_out_of_clients_texts() {
    let mut any_clients = Vec::new();
    let mut openers = 0;
    for (name, source) in templates() {
        let Some(mut template) = compile(&source) else {
            continue;
        };
        let (ids, told) = (HashMap::new(), ToldReplies::default());
        let format = find_format(&source, &mut template, &ids, &told).unwrap();
        let format = format.format;
        let calls = format.calls.iter().chain(&format.also_calls);
        let around = calls.flat_map(|calls| calls.section.iter().chain(&calls.call));
        let thought = format.reasoning.iter().map(|thought| &thought.open);
        for opener in around.map(|around| &around.open).chain(thought) {
            openers += 1;
            if template.control_tokens().find(&opener.text).is_none() {
                any_clients.push((name.clone(), opener.text.clone()));
            }
        }
    }
    assert!(openers > 100, "{openers}");
    assert_eq!(any_clients, []);
}

#[test]
fn every_template_is_analysed() {
    let mut without_thoughts = Vec::new();
    for (name, source) in templates() {
        let Some(template) = compile(&source) else {
            continue;
        };
        let found = analyse(&source, &|conversation| written(&template, conversation));
        // A marker is never a part of a tag.
        for marker in found.format.clone().markers_mut() {
            let text = &marker.text;
            assert!(
                text.trim() == text || text.trim().is_empty(),
                "{name}: {text:?}"
            );
            assert!(
                !text.ends_with('|') && !text.starts_with(['|', '/']),
                "{name}: {text}"
            );
        }
        assert_ne!(found.calls_from, FormatSource::None, "{name}");
        if found.format.reasoning.is_none() && !found.format.harmony {
            let answer = "Close it with </think>.\n</think>\n<think> opens it.";
            for tokens in splits(answer, &[]) {
                let parser = parser(&found.format, OpenedIn::Content, types());
                assert_eq!(read(parser, tokens), [text(answer)], "{name}");
            }
            without_thoughts.push(name);
        }
    }
    let qwen = without_thoughts
        .iter()
        .find(|name| name.starts_with("Qwen-Qwen2.5"));
    assert!(qwen.is_some(), "{without_thoughts:?}");
}

/// A word that no model knows.
fn word(random: &mut fastrand::Rng) -> String {
    let len = random.usize(3..9);
    (0..len).map(|_| random.lowercase()).collect()
}

/// A pair of markers that no model has.
fn pair(random: &mut fastrand::Rng) -> (String, String) {
    let word = word(random);
    match random.usize(..5) {
        0 => (format!("<{word}>"), format!("</{word}>")),
        1 => (format!("<|{word}|>"), format!("<|/{word}|>")),
        2 => (
            format!("[{}]", word.to_uppercase()),
            format!("[/{}]", word.to_uppercase()),
        ),
        3 => (format!("<{word}_begin>"), format!("<{word}_end>")),
        _ => (format!("<|{word}>"), format!("<{word}|>")),
    }
}

/// A template with markers made at random, and what its model writes of a thought and two calls.
fn made_up(random: &mut fastrand::Rng) -> (String, String) {
    let (think, unthink) = pair(random);
    let (call, uncall) = pair(random);
    let (function, unfunction) = pair(random);
    let name_key = word(random);
    let arguments_key = format!("{}_in", word(random));
    let key_tag = word(random);
    let call_of =
        |name: &str, arguments: &str, by_key: &str, pairs: &str| match random.clone().usize(..4) {
            0 => format!(
                "{call}\n{{\"{name_key}\": \"{name}\", \"{arguments_key}\": {arguments}}}\n{uncall}"
            ),
            1 => format!("{call}{name}{function}{arguments}{uncall}"),
            2 => format!("{call}\n<{key_tag}={name}>\n{by_key}</{key_tag}>\n{uncall}"),
            _ => format!("{call}{name}\n{pairs}{uncall}"),
        };
    let arguments = "{{ call.function.arguments | tojson }}";
    let each = |item: &str| {
        format!("{{% for key, value in call.function.arguments | items %}}{item}{{% endfor %}}")
    };
    let written = call_of(
        "{{ call.function.name }}",
        arguments,
        &each(&format!(
            "<{key_tag}_of={{{{ key }}}}>\n{{{{ value }}}}\n</{key_tag}_of>\n"
        )),
        &each(&format!(
            "{function}{{{{ key }}}}{unfunction}{{{{ value }}}}<end_{key_tag}>\n"
        )),
    );
    let template = format!(
        "{{% if tools %}}<tools>{{{{ tools | tojson }}}}</tools>\n{{% endif %}}\
         {{% for message in messages %}}<start>{{{{ message.role }}}}\n\
         {{% if message.role == 'assistant' and message.reasoning_content %}}{think}\n{{{{ message.reasoning_content }}}}\n{unthink}\n\n{{% endif %}}\
         {{{{ message.content }}}}\
         {{% for call in message.tool_calls or [] %}}{{{{ '\n' }}}}{written}{{% endfor %}}<end>\n\
         {{% endfor %}}\
         {{% if add_generation_prompt %}}<start>assistant\n{{% endif %}}"
    );
    let both = |key: &str, value: &str| {
        (
            format!("<{key_tag}_of={key}>\n{value}\n</{key_tag}_of>\n"),
            format!("{function}{key}{unfunction}{value}<end_{key_tag}>\n"),
        )
    };
    let (by_key, pairs) = both("place", "A \"b\"");
    let first = call_of(
        "get_weather",
        "{\"place\": \"A \\\"b\\\"\"}",
        &by_key,
        &pairs,
    );
    let second = call_of("now", "{}", "", "");
    let answer = format!("{think}\nHm.\n{unthink}\n\nSo.\n{first}\n{second}");
    (template, answer)
}

#[test]
fn markers_of_no_known_model_are_found_and_read() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..40 {
        let (source, answer) = made_up(&mut random);
        let found = find(&source);
        let context = || {
            format!(
                "seed {seed}, round {round}: {answer:?}\n{source}\n{:?}",
                found.format
            )
        };
        assert_eq!(
            found.reasoning_from,
            FormatSource::Template,
            "{}",
            context()
        );
        assert_eq!(found.calls_from, FormatSource::Template, "{}", context());
        let expected = [
            reasoning("Hm."),
            text("So."),
            call("get_weather", "{\"place\": \"A \\\"b\\\"\"}"),
            call("now", "{}"),
        ];
        for tokens in splits(&answer, &[]) {
            let parser = parser(&found.format, OpenedIn::Content, types());
            assert_eq!(read(parser, tokens), expected, "{}", context());
        }
        for is_printed in [false, true] {
            let tokens = TokensOfMarkers::new(is_printed);
            let format = found.format.clone().with_ids(&|text| tokens.id(text));
            let output = tokens.cut(&mut format.clone(), &answer, &[]);
            let parser = parser(&format, OpenedIn::Content, types());
            assert_eq!(read(parser, output), expected, "{}", context());
        }
        // Nothing of it is known by name.
        let known = ReplyFamily::of_template(&source).map(ReplyFamily::format);
        assert_ne!(known, Some(found.format.clone()), "{}", context());
    }
}
