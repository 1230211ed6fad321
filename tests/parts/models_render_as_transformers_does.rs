//! Prompts are, byte for byte, what Python's jinja2 makes with transformers' options. The expected
//! ones were written by tests/golden/make_goldens.py, which tells how to write them again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rkllmd::prompt::{
    ChatMessage, ChatRole, ChatTemplate, ControlTokens, RenderRequest, SpecialTokens, TemplateError,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    jinja2: String,
    now: String,
    templates: Vec<Template>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Template {
    name: String,
    file: String,
    bos_token: String,
    eos_token: String,
}

#[derive(Deserialize)]
struct Case {
    template: String,
    conversation: String,
    variables: String,
    messages: Vec<Message>,
    kwargs: serde_json::Map<String, serde_json::Value>,
    prompt: Option<String>,
    raised: Option<String>,
    #[serde(default)]
    not_continuable: bool,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: String,
    name: Option<String>,
}

impl Message {
    fn to_chat(&self) -> ChatMessage {
        let role = match self.role.as_str() {
            "system" => ChatRole::System,
            "user" => ChatRole::User,
            "assistant" => ChatRole::Assistant,
            other => panic!("role {other}"),
        };
        ChatMessage {
            name: self.name.clone(),
            ..ChatMessage::new(role, self.content.as_str())
        }
    }
}

impl Case {
    fn expected(&self) -> Result<String, TemplateError> {
        match (&self.prompt, &self.raised, self.not_continuable) {
            (Some(prompt), None, false) => Ok(prompt.clone()),
            (None, Some(text), false) => Err(TemplateError::Raised(text.clone())),
            (None, None, true) => Err(TemplateError::NotContinuable),
            _ => panic!("{}: one outcome a case", self.conversation),
        }
    }
}

#[test]
fn prompts_are_those_of_jinja2_byte_for_byte() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden = std::fs::read_to_string(root.join("tests/golden/prompts.json")).unwrap();
    let golden: Golden = serde_json::from_str(&golden).unwrap();
    let now: jiff::civil::DateTime = golden.now.parse().unwrap();
    let templates: BTreeMap<&str, ChatTemplate> = golden
        .templates
        .iter()
        .map(|template| {
            let source = std::fs::read_to_string(root.join(&template.file)).unwrap();
            let special = SpecialTokens {
                bos: template.bos_token.clone(),
                eos: template.eos_token.clone(),
            };
            let tokens = [template.bos_token.clone(), template.eos_token.clone()];
            let tokens = Arc::new(ControlTokens::new(tokens));
            let compiled = ChatTemplate::compile(&source, special, tokens)
                .unwrap_or_else(|e| panic!("{}: {e}", template.file));
            (template.name.as_str(), compiled)
        })
        .collect();

    let mut wrong = Vec::new();
    for case in &golden.cases {
        let messages: Vec<_> = case.messages.iter().map(Message::to_chat).collect();
        let request = RenderRequest {
            variables: case.kwargs.clone(),
            ..RenderRequest::new(messages, now)
        };
        let rendered = templates[case.template.as_str()]
            .render(&request)
            .map(|rendered| rendered.prompt);
        let expected = case.expected();
        if rendered != expected {
            wrong.push(format!(
                "{} / {} / {}:\n  jinja2 {}: {expected:?}\n  rkllmd: {rendered:?}",
                case.template, case.conversation, case.variables, golden.jinja2
            ));
        }
    }
    assert!(golden.cases.len() >= 300, "{} cases", golden.cases.len());
    assert!(
        wrong.is_empty(),
        "{} of {} prompts differ:\n{}",
        wrong.len(),
        golden.cases.len(),
        wrong.join("\n")
    );
}
