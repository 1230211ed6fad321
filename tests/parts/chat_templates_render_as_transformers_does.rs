//! The chat templates that llama.cpp collects render as Python's transformers renders them, byte for
//! byte, tools and reasoning included.

use std::collections::BTreeMap;

use rkllmd::prompt::{ChatMessage, ChatRole, ChatTemplate, RenderRequest, TemplateError};
use serde_json::{Map, Value};

use super::transformers_support::{DIFFERENCES, oracle, problem};

fn message(fields: &Map<String, Value>) -> ChatMessage {
    let mut more = fields.clone();
    let mut take = |name: &str| {
        more.shift_remove(name)
            .map(|value| value.as_str().unwrap().to_owned())
    };
    let role = match take("role").unwrap().as_str() {
        "system" => ChatRole::System,
        "user" => ChatRole::User,
        "assistant" => ChatRole::Assistant,
        "tool" => ChatRole::Tool,
        other => panic!("role {other}"),
    };
    let content = take("content").unwrap();
    let name = take("name");
    ChatMessage {
        name,
        more,
        ..ChatMessage::new(role, content)
    }
}

#[test]
fn every_template_renders_every_conversation() {
    let oracle = oracle();
    let now = oracle.now.parse().unwrap();
    let mut templates: BTreeMap<&str, Result<ChatTemplate, TemplateError>> = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut listed_that_agree: Vec<_> = DIFFERENCES.iter().collect();
    let mut compared = 0;
    for case in &oracle.cases {
        let template = templates
            .entry(&case.template)
            .or_insert_with(|| oracle.compiled(&oracle.source(&case.template)));
        let messages = case.messages.iter().map(message).collect();
        let request = RenderRequest {
            variables: case.variables.clone(),
            tools: case.tools.clone(),
            ..RenderRequest::new(messages, now)
        };
        let rendered = match template {
            Ok(template) => template.render(&request).map(|rendered| rendered.prompt),
            Err(error) => Err(error.clone()),
        };
        let Some(problem) = problem(&case.expected, &rendered) else {
            continue;
        };
        compared += 1;
        let is_listed = |(template, conversation, _): &(&str, &str, &str)| {
            *template == case.template && [case.conversation.as_str(), "*"].contains(conversation)
        };
        match problem {
            Some(_) if DIFFERENCES.iter().any(is_listed) => {
                listed_that_agree.retain(|listed| !is_listed(listed));
            }
            Some(problem) => wrong.push(format!(
                "{} / {}\n  {problem}",
                case.template, case.conversation
            )),
            None => {}
        }
    }
    assert!(
        templates.len() >= 70 && compared >= 1000,
        "{compared} cases"
    );
    assert!(
        wrong.is_empty(),
        "{} of {compared} prompts differ from those of transformers {}:\n{}",
        wrong.len(),
        oracle.transformers,
        wrong.join("\n")
    );
    assert!(
        listed_that_agree.is_empty(),
        "no longer differ: {listed_that_agree:?}"
    );
}
