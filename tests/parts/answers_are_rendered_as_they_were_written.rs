//! An answer that comes back in the next request is rendered as the model wrote it, so that its prompt
//! begins with what the runtime has evaluated already, text by text and token by token, wherever the model's
//! own template allows it.

use crate::reply_support::examples::types;
use crate::reply_support::{Said, TokensOfMarkers, demo_vocabulary, parser, read, splits};
use crate::template_support::templates;
use crate::templates_tell_how_their_models_reply::{compile, find};
use rkllmd::conversation::{Message, Role, Tool, ToolCall};
use rkllmd::prompt::{ChatTemplate, Functions, RenderRequest, SeveralCalls};
use rkllmd::reply::{ReplyFormat, TemplateTraits};
use serde_json::json;
use tokenizers::{AddedToken, Tokenizer};

/// A template, what its model writes, and why that does not come back as it was, where it does not.
const ANSWERS: &[(&str, &str, Option<&str>)] = &[
    (
        "Qwen-Qwen2.5-7B-Instruct",
        "I look.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"place\": \"Zürich\", \"days\": 3}}\n</tool_call>\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>",
        None,
    ),
    ("Qwen-Qwen2.5-7B-Instruct", "Hello.", None),
    (
        "Qwen-Qwen3-0.6B",
        "<think>\nHm.\n</think>\n\nI look.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"place\": \"Zürich\", \"days\": 3}}\n</tool_call>\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>",
        None,
    ),
    (
        "Qwen-Qwen3-0.6B",
        "<think>\nHm.\n</think>\n\nHello.",
        Some("thoughts of earlier turns are left out"),
    ),
    (
        "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use",
        "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"place\": \"Zürich\", \"days\": 3}}\n</tool_call>",
        None,
    ),
    (
        "ibm-granite-granite-4.0",
        "I look.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"place\": \"Zürich\", \"days\": 3}}\n</tool_call>",
        None,
    ),
    (
        "Qwen3-Coder",
        "I look.\n\n<tool_call>\n<function=get_weather>\n<parameter=place>\nZürich\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>",
        None,
    ),
    (
        "Qwen3.5-4B",
        "Hm.\n</think>\n\nI look.\n\n<tool_call>\n<function=get_weather>\n<parameter=place>\nZürich\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>",
        None,
    ),
    (
        "meta-llama-Llama-3.1-8B-Instruct",
        "{\"name\": \"get_weather\", \"parameters\": {\"place\": \"Zürich\", \"days\": 3}}",
        None,
    ),
    (
        "meta-llama-Llama-3.2-3B-Instruct",
        "{\"name\": \"get_weather\", \"parameters\": {\"place\": \"Zürich\", \"days\": 3}}",
        None,
    ),
    (
        "mistralai-Mistral-Nemo-Instruct-2407",
        "[TOOL_CALLS][{\"name\": \"get_weather\", \"arguments\": {\"place\": \"Zürich\", \"days\": 3}, \"id\": \"abcdefghi\"}]",
        Some("the id stands behind the arguments, where it comes too late to be told"),
    ),
    (
        "Mistral-Small-3.2-24B-Instruct-2506",
        "[TOOL_CALLS]get_weather[CALL_ID]abcdefghi[ARGS]{\"place\": \"Zürich\", \"days\": 3}",
        None,
    ),
    (
        "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        Some("the end of a prompt is not written behind an answer"),
    ),
    (
        "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
        "Hm.\n</think>\n\nHello.",
        Some("thoughts of earlier turns are left out"),
    ),
    (
        "google-gemma-4-31B-it",
        "<|tool_call>call:now{}<tool_call|>",
        Some("the empty thought of a prompt is not written behind an answer"),
    ),
    (
        "LFM2.5-8B-A1B",
        "<think>Hm.</think>I look.<|tool_call_start|>[get_weather(place='Zürich', days=3)]<|tool_call_end|>",
        None,
    ),
    (
        "openbmb-MiniCPM5-1B",
        "<think>\nHm.\n</think>\n\nI look.\n<function name=\"get_weather\"><param name=\"place\">Zürich</param><param name=\"days\">3</param></function>",
        None,
    ),
    (
        "GLM-4.6",
        "\n<think>Hm.</think>\nI look.\n<tool_call>get_weather\n<arg_key>place</arg_key>\n<arg_value>Zürich</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
        None,
    ),
    (
        "openai-gpt-oss-120b",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant to=functions.get_weather<|channel|>commentary json<|message|>{\"place\": \"Zürich\", \"days\": 3}<|call|>",
        None,
    ),
    (
        "ibm-granite-granite-3.3-2B-Instruct",
        "<|tool_call|>[{\"name\": \"now\", \"arguments\": {}}]",
        Some("calls are not written"),
    ),
    (
        "LFM2-8B-A1B",
        "<|tool_call_start|>[now()]<|tool_call_end|>",
        Some("calls are not written"),
    ),
];

/// Templates under which the text comes back and the tokens do not, with the demo model's vocabulary.
const OTHER_TOKENS: &[(&str, &str)] = {
    let two_lines = "the two lines that a prompt ends with are one token, and two where text follows; the \
        model's own vocabulary always makes one of them";
    &[
        ("meta-llama-Llama-3.1-8B-Instruct", two_lines),
        ("meta-llama-Llama-3.2-3B-Instruct", two_lines),
    ]
};

fn tools() -> Vec<Tool> {
    let parameters = json!({"type": "object", "properties": {
        "place": {"type": "string", "description": "Where."},
        "days": {"type": "integer", "description": "How many."},
    }});
    let tool = |name: &str, parameters: serde_json::Value| Tool {
        name: name.to_owned(),
        description: Some("Tells something.".to_owned()),
        parameters: parameters.as_object().cloned(),
    };
    let none = json!({"type": "object", "properties": {}});
    vec![tool("get_weather", parameters), tool("now", none)]
}

fn prompt(template: &ChatTemplate, messages: &[Message]) -> String {
    let now = jiff::civil::date(2026, 1, 1).at(0, 0, 0, 0);
    let request = RenderRequest::of(messages.to_vec(), tools(), now);
    template.render(&request).unwrap().prompt
}

fn functions(traits: &TemplateTraits) -> Functions {
    Functions {
        are_shown: traits.shows_tools,
        calls_are_shown: traits.shows_tools && traits.shows_calls,
        results_are_shown: traits.shows_tools && traits.shows_results,
        arguments_as_text: traits.arguments_as_text,
        nine_letter_ids: traits.nine_letter_ids,
        several_calls: SeveralCalls::Shown,
    }
}

/// What was read of an answer as clients send it back, and the results of its calls.
fn sent_back(said: Vec<Said>) -> Vec<Message> {
    let mut answer = Message {
        parts: Vec::new(),
        ..Message::text(Role::Assistant, "")
    };
    for said in said {
        match said {
            Said::Reasoning(thought) => answer.reasoning = Some(thought),
            Said::Text(text) => answer.parts = Message::text(Role::Assistant, text).parts,
            Said::Call {
                id,
                name,
                arguments,
                is_whole,
            } => {
                assert!(is_whole, "{name}");
                let minted = format!("call_{}", answer.tool_calls.len());
                answer.tool_calls.push(ToolCall {
                    id: id.unwrap_or(minted),
                    name,
                    arguments,
                });
            }
        }
    }
    let mut next: Vec<Message> = answer
        .tool_calls
        .iter()
        .map(|call| Message {
            tool_call_id: Some(call.id.clone()),
            ..Message::text(Role::Tool, "A result.")
        })
        .collect();
    if next.is_empty() {
        next.push(Message::text(Role::User, "And then?"));
    }
    next.insert(0, answer);
    next
}

/// Whether the tokens of a prompt and of the answer to it are those that the next prompt begins with.
fn has_the_same_tokens(
    tokenizer: &Tokenizer,
    format: &ReplyFormat,
    [first, written, next]: [&str; 3],
) -> bool {
    let mut tokenizer = tokenizer.clone();
    let tokens = tokens_of(format, next).into_iter();
    let tokens: Vec<AddedToken> = tokens.map(|text| AddedToken::from(text, true)).collect();
    tokenizer.add_special_tokens(&tokens);
    let ids = |text: &str| tokenizer.encode(text, false).unwrap().get_ids().to_vec();
    let held = [ids(first), ids(written)].concat();
    ids(next).starts_with(&held)
}

/// What of a prompt is a token by itself in the model of its template: the markers of calls and thoughts,
/// and what stands around messages.
fn tokens_of(format: &ReplyFormat, prompt: &str) -> Vec<String> {
    let mut format = format.clone();
    let of_replies = TokensOfMarkers::new(false);
    let mut found: Vec<String> = format
        .markers_mut()
        .into_iter()
        .map(|marker| marker.text.clone())
        .filter(|text| of_replies.id(text).is_some())
        .collect();
    let around_messages = [
        ("<|", "|>"),
        ("<\u{ff5c}", "\u{ff5c}>"),
        ("[", "]"),
        ("<s", ">"),
        ("</s", ">"),
    ];
    for (open, close) in around_messages {
        for (at, _) in prompt.match_indices(open) {
            let inner = &prompt[at + open.len()..];
            let is_name = |c: char| c.is_ascii_alphanumeric() || "_/\u{2581}".contains(c);
            if let Some(end) = inner.find(close)
                && inner[..end].chars().all(is_name)
            {
                found.push(prompt[at..at + open.len() + end + close.len()].to_owned());
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

#[test]
fn the_next_prompt_begins_with_the_last_one_and_its_answer() {
    let templates = templates();
    let tokenizer = demo_vocabulary::tokenizer();
    let mut wrong = Vec::new();
    for (name, written, reason) in ANSWERS {
        let found = find(&templates[*name]);
        let mut template = compile(&templates[*name]).unwrap();
        template.set_functions(functions(&found.template));
        let mut messages = vec![Message::text(Role::User, "What now?")];
        let first = prompt(&template, &messages);
        for tokens in splits(written, &[]) {
            let opened_in = found.format.opened_by(&first, "");
            let said = read(parser(&found.format, opened_in, types()), tokens);
            messages.truncate(1);
            messages.extend(sent_back(said.clone()));
            let next = prompt(&template, &messages);
            let is_same = next.starts_with(&format!("{first}{written}"));
            let texts = [&first, *written, &next];
            let has_its_tokens = has_the_same_tokens(&tokenizer, &found.format, texts);
            let is_expected = is_same && !OTHER_TOKENS.iter().any(|(of, _)| of == name);
            if is_same != reason.is_none() || has_its_tokens != is_expected {
                wrong.push(format!(
                    "{name}: {first:?}\n{written:?}\n{said:?}\n{next:?}"
                ));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
