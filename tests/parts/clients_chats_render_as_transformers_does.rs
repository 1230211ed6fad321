//! What clients of OpenAI's API send renders with the chat templates that llama.cpp collects as Python's
//! transformers renders it, byte for byte; where a template does not show all of it, nothing is lost.

use std::collections::{BTreeMap, HashMap};

use rkllmd::conversation::{Message, Role, Tool, ToolCall};
use rkllmd::prompt::{RenderRequest, TemplateError};
use rkllmd::reply::TemplateTraits;
use serde_json::Value;

use super::transformers_support::{BREAK, DIFFERENCES, Expected, oracle, problem};

/// As the daemon makes it of what a client sends.
fn conversation_message(message: &Value) -> Message {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let parts = match &message["content"] {
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| text(&part["text"]))
            .collect(),
        content => text(content).into_iter().collect::<Vec<_>>(),
    };
    let calls = message["tool_calls"].as_array().into_iter().flatten();
    let calls = calls.map(|call| ToolCall {
        id: text(&call["id"]).unwrap(),
        name: text(&call["function"]["name"]).unwrap(),
        arguments: text(&call["function"]["arguments"]).unwrap(),
    });
    Message {
        role: serde_json::from_value(message["role"].clone()).unwrap(),
        parts,
        reasoning: text(&message["reasoning_content"]),
        tool_calls: calls.collect(),
        tool_call_id: text(&message["tool_call_id"]),
        name: text(&message["name"]),
    }
}

fn tool(tool: &Value) -> Tool {
    serde_json::from_value(tool["function"].clone()).unwrap()
}

#[test]
fn what_clients_send_is_rendered_as_transformers_does() {
    let oracle = oracle();
    let now = oracle.now.parse().unwrap();
    let mut templates: BTreeMap<&str, _> = BTreeMap::new();
    let mut wrong = Vec::new();
    let (mut compared, mut told_in_words, mut told_apart) = (0, 0, 0);
    for case in &oracle.dialogues {
        let (template, traits) = templates.entry(&case.template).or_insert_with(|| {
            let source = oracle.source(&case.template);
            let mut template = oracle.compiled(&source).unwrap();
            let found = rkllmd::reader::find_format(
                &source,
                &mut template,
                &HashMap::new(),
                &rkllmd::reader::ToldReplies::default(),
            )
            .unwrap();
            (template, found.template)
        });
        let messages: Vec<_> = case.messages.iter().map(conversation_message).collect();
        let tools: Vec<_> = case.tools.iter().map(tool).collect();
        let request = RenderRequest {
            variables: case.variables.clone(),
            ..RenderRequest::of(messages.clone(), tools.clone(), now)
        };
        // Markup in what clients sent is broken; all else is as it is elsewhere.
        let holds_markup = serde_json::to_string(&request).is_ok_and(|sent| sent.contains('<'));
        let rendered = template.render(&request).map(|rendered| {
            let neutralised = rendered.neutralised > 0;
            assert!(
                !neutralised || holds_markup,
                "{}: {}",
                case.template,
                rendered.prompt
            );
            (rendered.prompt, neutralised)
        });
        let rendered = rendered.map(|(prompt, neutralised)| match neutralised {
            true => prompt.replace(BREAK, ""),
            false => prompt,
        });
        let is_called = messages
            .iter()
            .any(|m| m.role == Role::Tool || !m.tool_calls.is_empty());
        let shows_all = traits.shows_tools && traits.shows_calls && traits.shows_results;
        let expected = match traits.arguments_as_text {
            true => &case.with_text,
            false => &case.with_objects,
        };
        let problem = if (is_called || !tools.is_empty()) && !shows_all {
            if matches!(expected, Expected::Failed(_)) {
                continue;
            }
            told_in_words += 1;
            what_is_lost(&messages, *traits, &rendered)
        } else if is_helped(expected) {
            what_is_left_out(&messages, &rendered)
        } else if traits.hides_calls && messages.iter().any(|m| m.tool_calls.len() > 1) {
            told_apart += 1;
            what_is_not_told_apart(&messages, &rendered)
        } else {
            let Some(problem) = problem(expected, &rendered) else {
                continue;
            };
            problem
        };
        compared += 1;
        let is_escaped = case.template == DIFFERENCES[0].0 && !tools.is_empty();
        if let Some(problem) = problem.filter(|_| !is_escaped) {
            wrong.push(format!(
                "{} / {}\n  {problem}",
                case.template, case.conversation
            ));
        }
    }
    assert!(
        compared >= 1000 && told_in_words > 100 && told_apart > 3,
        "{compared} {told_in_words} {told_apart}"
    );
    assert!(
        wrong.is_empty(),
        "{} of {compared} prompts differ from those of transformers {}:\n{}",
        wrong.len(),
        oracle.transformers,
        wrong.join("\n")
    );
}

/// What a prompt does not show of several calls of an answer, of which its template shows one.
fn what_is_not_told_apart(
    messages: &[Message],
    rendered: &Result<String, TemplateError>,
) -> Option<String> {
    let prompt = match rendered {
        Ok(prompt) => prompt,
        Err(error) => return Some(error.to_string()),
    };
    let mut rest = prompt.as_str();
    for call in messages.iter().flat_map(|message| &message.tool_calls) {
        match rest.split_once(call.name.as_str()) {
            Some((_, after)) => rest = after,
            None => return Some(format!("{:?} is not in {prompt:?}", call.name)),
        }
    }
    let results = messages.iter().filter(|message| message.role == Role::Tool);
    let texts: Vec<String> = results.map(|result| result.parts.join("\n")).collect();
    let missing = texts.iter().find(|text| !prompt.contains(text.as_str()));
    missing.map(|text| format!("{text:?} is not in {prompt:?}"))
}

/// Whether gpt-oss refuses an answer that has a thought, a text and calls, which is given it in another
/// form.
fn is_helped(expected: &Expected) -> bool {
    const REASON: &str = "Cannot pass both content and thinking";
    matches!(expected, Expected::Raised(reason) if reason.starts_with(REASON))
}

/// What of such an answer a prompt does not show, although no answer without calls follows.
fn what_is_left_out(
    messages: &[Message],
    rendered: &Result<String, TemplateError>,
) -> Option<String> {
    let prompt = match rendered {
        Ok(prompt) => prompt,
        Err(error) => return Some(error.to_string()),
    };
    let is_answer = |message: &&Message| message.role == Role::Assistant;
    let is_last = |message: &&Message| message.tool_calls.is_empty();
    let answers: Vec<&Message> = messages.iter().filter(is_answer).collect();
    let behind = answers.iter().rposition(is_last).map_or(0, |at| at + 1);
    let mut texts = Vec::new();
    for (at, answer) in answers.iter().enumerate() {
        texts.extend(
            answer
                .tool_calls
                .iter()
                .map(|call| format!("functions.{}", call.name)),
        );
        if at >= behind {
            texts.extend(answer.reasoning.clone());
            texts.extend(answer.parts.clone());
        }
    }
    let missing = texts.iter().find(|text| !prompt.contains(text.as_str()));
    missing.map(|text| format!("{text:?} is not in {prompt:?}"))
}

/// What does not stand in a prompt that tells of functions, calls or results in words.
fn what_is_lost(
    messages: &[Message],
    traits: TemplateTraits,
    rendered: &Result<String, TemplateError>,
) -> Option<String> {
    let prompt = match rendered {
        Ok(prompt) => prompt,
        Err(error) => return Some(error.to_string()),
    };
    let mut rest = prompt.as_str();
    let calls = messages.iter().flat_map(|message| &message.tool_calls);
    for call in calls.filter(|_| !(traits.shows_tools && traits.shows_calls)) {
        let told = format!(
            "<tool_call>\n{{\"name\": \"{}\", \"arguments\": {}}}\n</tool_call>",
            call.name, call.arguments
        );
        match rest.split_once(&told) {
            Some((_, after)) => rest = after,
            None => return Some(format!("{told:?} is not in {prompt:?}")),
        }
    }
    let results = messages.iter().filter(|message| message.role == Role::Tool);
    let missing = results
        .filter(|_| !(traits.shows_tools && traits.shows_results))
        .map(|result| {
            format!(
                "<tool_response>\n{}\n</tool_response>",
                result.parts.join("\n")
            )
        })
        .find(|told| !prompt.contains(told.as_str()));
    missing.map(|told| format!("{told:?} is not in {prompt:?}"))
}
