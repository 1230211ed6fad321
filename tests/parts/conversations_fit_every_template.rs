//! What a model wrote, and what clients leave out, keeps no conversation from its template: an answer that
//! comes back is rendered, whatever its arguments are, and functions need no description.

use std::collections::{BTreeMap, HashMap};

use crate::template_support::templates;
use crate::templates_tell_how_their_models_reply::compile;
use rkllmd::conversation::{Message, Role, Tool, ToolCall};
use rkllmd::prompt::{ChatTemplate, RenderRequest, TemplateError};
use rkllmd::reader::{ToldReplies, find_format};
use serde_json::json;

/// The templates as a reader sets them up.
fn ready() -> BTreeMap<String, ChatTemplate> {
    let templates = templates().into_iter();
    templates
        .filter_map(|(name, source)| Some((name, ready_of(&source)?)))
        .collect()
}

fn ready_of(source: &str) -> Option<ChatTemplate> {
    let mut template = compile(source)?;
    let (ids, told) = (HashMap::new(), ToldReplies::default());
    find_format(source, &mut template, &ids, &told).unwrap();
    Some(template)
}

fn tool(description: Option<&str>) -> Tool {
    let parameters = json!({"type": "object", "properties": {"text": {"type": "string"}}});
    Tool {
        name: "echo".to_owned(),
        description: description.map(str::to_owned),
        parameters: parameters.as_object().cloned(),
    }
}

fn prompt(
    template: &ChatTemplate,
    messages: Vec<Message>,
    tool: Tool,
) -> Result<String, TemplateError> {
    let now = jiff::civil::date(2026, 1, 1).at(0, 0, 0, 0);
    let request = RenderRequest::of(messages, vec![tool], now);
    template.render(&request).map(|rendered| rendered.prompt)
}

/// A question, the call that answered it, and the call's result.
fn called(content: &str, reasoning: Option<&str>, arguments: &str) -> Vec<Message> {
    let answer = Message {
        reasoning: reasoning.map(str::to_owned),
        tool_calls: vec![ToolCall {
            id: "abcdefghi".to_owned(),
            name: "echo".to_owned(),
            arguments: arguments.to_owned(),
        }],
        ..Message::text(Role::Assistant, content)
    };
    let result = Message {
        tool_call_id: Some("abcdefghi".to_owned()),
        ..Message::text(Role::Tool, "A result.")
    };
    vec![Message::text(Role::User, "What now?"), answer, result]
}

#[test]
fn an_answer_with_a_thought_a_text_and_a_call_is_rendered_in_the_next_turn() {
    let mut wrong = Vec::new();
    let templates = ready();
    for (name, template) in &templates {
        let described = || tool(Some("Says it again."));
        if prompt(template, called("", None, "{}"), described()).is_err() {
            continue;
        }
        let answered = called("I call it.", Some("A thought."), "{\"text\": \"a\"}");
        // Some templates leave out what stands beside a call, and may.
        match prompt(template, answered, described()) {
            Ok(prompt) if prompt.contains("echo") => {}
            other => wrong.push(format!("{name}: {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let answered = called("I call it.", Some("A thought."), "{\"text\": \"a\"}");
    let gpt_oss = &templates["openai-gpt-oss-120b"];
    let shown = prompt(gpt_oss, answered, tool(Some("Says it again."))).unwrap();
    let call = "<|start|>assistant to=functions.echo<|channel|>commentary json<|message|>{\"text\": \"a\"}<|call|>";
    let expected = format!(
        "<|start|>assistant<|channel|>analysis<|message|>A thought.\n\nI call it.<|end|>{call}"
    );
    assert!(shown.contains(&expected), "{shown}");
}

/// A question, an answer of two calls, and their results.
fn called_twice() -> Vec<Message> {
    let mut messages = called("", None, "{\"text\": \"first word\"}");
    let second = ToolCall {
        id: "abcdefghj".to_owned(),
        name: "echo".to_owned(),
        arguments: "{\"text\": \"second word\"}".to_owned(),
    };
    messages[1].tool_calls.push(second);
    messages.push(Message {
        tool_call_id: Some("abcdefghj".to_owned()),
        ..Message::text(Role::Tool, "Another result.")
    });
    messages
}

const SHOWN_OF_BOTH: [&str; 4] = ["first word", "A result.", "second word", "Another result."];

#[test]
fn no_call_of_several_is_lost() {
    let mut wrong = Vec::new();
    let templates = ready();
    for (name, template) in &templates {
        let described = || tool(Some("Says it again."));
        if prompt(template, called("", None, "{}"), described()).is_err() {
            continue;
        }
        match prompt(template, called_twice(), described()) {
            Ok(prompt) if SHOWN_OF_BOTH.iter().all(|text| prompt.contains(text)) => {}
            other => wrong.push(format!("{name}: {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let gpt_oss = &templates["openai-gpt-oss-120b"];
    let shown = prompt(gpt_oss, called_twice(), tool(Some("Says it again."))).unwrap();
    let places = SHOWN_OF_BOTH.map(|text| shown.find(text).unwrap());
    assert!(places.is_sorted(), "each result behind its call: {shown}");
}

#[test]
fn an_answer_of_several_calls_is_refused_where_a_template_shows_one_alone() {
    // It shows the calls of the last answer that made any, and the first of them alone.
    let source = "{{ tools | tojson }}{% set ns = namespace(call=none) %}\
        {% for m in messages %}{% if m.tool_calls %}{% set ns.call = m.tool_calls[0] %}{% endif %}\
        {% endfor %}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
        {% if ns.call %}<call>{\"name\": \"{{ ns.call.function.name }}\", \"arguments\": \
        {{ ns.call.function.arguments | tojson }}}</call>{% endif %}";
    let template = ready_of(source).expect("it compiles");
    let described = || tool(Some("Says it again."));
    let one = prompt(
        &template,
        called("", None, "{\"text\": \"word\"}"),
        described(),
    );
    assert!(
        one.as_ref().is_ok_and(|one| one.contains("word")),
        "{one:?}"
    );
    let refused = prompt(&template, called_twice(), described()).unwrap_err();
    assert!(
        refused.to_string().contains("an answer in it has several"),
        "{refused}"
    );
}

/// What models wrote as arguments, and what of it a prompt must show.
const ARGUMENTS: [(&str, &str); 7] = [
    ("{\"text\": \"abcdefghijklmn", "abcdefghijklmn"),
    ("null", ""),
    ("", ""),
    ("[1234]", "1234"),
    ("\"{\\\"text\\\": \\\"a word\\\"}\"", "a word"),
    ("1234", "1234"),
    ("a word", "a word"),
];

#[test]
fn arguments_that_are_no_object_are_rendered() {
    let mut wrong = Vec::new();
    for (name, template) in ready() {
        let described = || tool(Some("Says it again."));
        let whole = called("", None, "{\"text\": \"a\"}");
        if prompt(&template, whole, described()).is_err() {
            continue;
        }
        for (arguments, shown) in ARGUMENTS {
            match prompt(&template, called("", None, arguments), described()) {
                Ok(prompt) if prompt.contains(shown) && prompt.contains("A result.") => {}
                other => wrong.push(format!("{name}: {arguments}: {other:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_function_needs_no_description() {
    let mut wrong = Vec::new();
    for (name, template) in ready() {
        let question = || vec![Message::text(Role::User, "What now?")];
        if prompt(&template, question(), tool(Some("Says it again."))).is_err() {
            continue;
        }
        match prompt(&template, question(), tool(None)) {
            Ok(prompt) if prompt.contains("echo") => {}
            other => wrong.push(format!("{name}: {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
