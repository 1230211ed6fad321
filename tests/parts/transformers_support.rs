//! What Python's transformers makes of the chat templates that llama.cpp collects, and how ours differs.
//! `scripts/fetch-chat-templates` fetches them; what is meant to differ is in
//! `tests/golden/render_templates.py`, what differs otherwise is listed here.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rkllmd::prompt::{ChatTemplate, SpecialTokens, TemplateError, well_known_control_tokens};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Template, conversation (`*`: every one) and why its prompt is not transformers'.
pub const DIFFERENCES: &[(&str, &str, &str)] = &[
    ("meetkai-functionary-medium-v3.1", "tools", MARKUP),
    (
        "meetkai-functionary-medium-v3.1",
        "tools, no system",
        MARKUP,
    ),
    (
        "meetkai-functionary-medium-v3.1",
        "a tool was called",
        MARKUP,
    ),
    (
        "meetkai-functionary-medium-v3.1",
        "a tool was called and answered",
        MARKUP,
    ),
    (
        "meetkai-functionary-medium-v3.1",
        "arguments as text",
        MARKUP,
    ),
    (
        "meetkai-functionary-medium-v3.1",
        "two calls after a thought",
        MARKUP,
    ),
];

/// The template adds texts to strings that it calls `safe`, and Jinja2 then escapes what is added
/// for HTML: the model would read `&lt;` where its tools say `<`.
const MARKUP: &str = "a prompt is not escaped for HTML";

#[derive(Deserialize)]
pub struct Oracle {
    pub transformers: String,
    pub now: String,
    special: Special,
    pub folder: PathBuf,
    pub cases: Vec<Case>,
    pub dialogues: Vec<Dialogue>,
}

#[derive(Deserialize)]
struct Special {
    bos_token: String,
    eos_token: String,
}

#[derive(Deserialize)]
pub struct Case {
    pub template: String,
    pub conversation: String,
    pub messages: Vec<Map<String, Value>>,
    pub tools: Option<Value>,
    pub variables: Map<String, Value>,
    pub expected: Expected,
}

/// A conversation of OpenAI's API, and its prompt with arguments as objects and as text.
#[derive(Deserialize)]
pub struct Dialogue {
    pub template: String,
    pub conversation: String,
    pub messages: Vec<Value>,
    pub tools: Vec<Value>,
    pub variables: Map<String, Value>,
    pub with_objects: Expected,
    pub with_text: Expected,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    Prompt(String),
    Raised(String),
    NotContinuable(bool),
    /// transformers fails without the template having said why, so there is nothing to compare.
    Failed(String),
}

pub fn oracle() -> Oracle {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/fetch-chat-templates");
    let output = Command::new(script)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success());
    let path = String::from_utf8(output.stdout).unwrap();
    let path = path.lines().last().unwrap();
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

impl Oracle {
    pub fn source(&self, template: &str) -> String {
        let path = self.folder.join(format!("{template}.jinja"));
        std::fs::read_to_string(path).unwrap()
    }

    pub fn compiled(&self, source: &str) -> Result<ChatTemplate, TemplateError> {
        let special = SpecialTokens {
            bos: self.special.bos_token.clone(),
            eos: self.special.eos_token.clone(),
        };
        let tokens = well_known_control_tokens().collect();
        ChatTemplate::compile(source, special, Arc::new(tokens))
    }
}

/// What differs between two texts, with what stands before it.
fn difference(ours: &str, theirs: &str) -> String {
    let same = ours
        .char_indices()
        .zip(theirs.chars())
        .find(|((_, a), b)| a != b)
        .map_or(ours.len().min(theirs.len()), |((at, _), _)| at);
    let shown = |text: &str| -> String {
        let before: String = text[..same].chars().rev().take(60).collect();
        let before: String = before.chars().rev().collect();
        let after: String = text[same..].chars().take(80).collect();
        format!("{before:?} >>> {after:?}")
    };
    format!(
        "rkllmd:       {}\n  transformers: {}",
        shown(ours),
        shown(theirs)
    )
}

/// What is put into markup of a client's.
pub const BREAK: char = '\u{200B}';

/// How a rendering is not as expected; `None` where there is nothing to compare.
pub fn problem(
    expected: &Expected,
    rendered: &Result<String, TemplateError>,
) -> Option<Option<String>> {
    Some(match (expected, rendered) {
        (Expected::Failed(reason), _) => {
            assert!(!reason.is_empty());
            return None;
        }
        (Expected::Prompt(prompt), Ok(rendered)) if prompt == rendered => None,
        (Expected::Prompt(prompt), Ok(rendered)) if prompt.replace(BREAK, "") == *rendered => None,
        (Expected::Prompt(prompt), Ok(rendered)) => Some(difference(rendered, prompt)),
        (Expected::Raised(reason), Err(TemplateError::Raised(ours))) if reason == ours => None,
        (Expected::NotContinuable(true), Err(TemplateError::NotContinuable)) => None,
        (Expected::Prompt(prompt), Err(error)) => Some(format!("{error:?} instead of {prompt:?}")),
        (Expected::Raised(reason), rendered) => Some(format!("{rendered:?} instead of {reason:?}")),
        (Expected::NotContinuable(_), rendered) => Some(format!("{rendered:?}")),
    })
}
