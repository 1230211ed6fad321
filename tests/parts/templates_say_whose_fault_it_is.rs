//! An error of rendering tells what the client can change from what is wrong with the model.

use std::sync::Arc;

use jiff::civil::DateTime;
use rkllmd::prompt::{ChatMessage, ChatRole, ChatTemplate, RenderRequest, TemplateError};
use serde_json::{Value, json};

const SHOW: &str = "{% for m in messages %}{{ m.content }}{% endfor %}";

fn rendered(source: &str, request: &RenderRequest) -> Result<String, TemplateError> {
    ChatTemplate::compile(source, Default::default(), Arc::default())?
        .render(request)
        .map(|rendered| rendered.prompt)
}

fn request(messages: usize, variables: Value) -> RenderRequest {
    let messages = vec![ChatMessage::new(ChatRole::User, "hi"); messages];
    let Value::Object(variables) = variables else {
        panic!("variables are an object")
    };
    RenderRequest {
        variables,
        ..RenderRequest::new(messages, DateTime::ZERO)
    }
}

#[test]
fn a_variable_that_the_template_cannot_use_is_named() {
    let source = format!("{{{{ 'Date: ' + (date|default('today')) }}}} {SHOW}");
    assert_eq!(
        rendered(&source, &request(1, json!({"date": "x", "other": 1}))).unwrap(),
        "Date: x hi"
    );
    for value in [json!(5), json!(null), json!({"a": 1}), json!([1])] {
        let error = rendered(&source, &request(1, json!({"fine": 1, "date": value})));
        assert!(
            matches!(&error, Err(TemplateError::Variable { name, .. }) if name == "date"),
            "{error:?}"
        );
    }
}

#[test]
fn what_the_conversation_makes_the_template_do_is_the_conversations_fault() {
    let source = format!("{{{{ '' + messages[0].name|default('') }}}}{SHOW}");
    let mut named = request(1, json!({}));
    named.messages[0].more.insert("list".into(), json!([1]));
    assert_eq!(rendered(&source, &named).unwrap(), "hi");
    let source = format!("{{{{ 'x' + messages[0].list if messages[0].list }}}}{SHOW}");
    let error = rendered(&source, &named);
    assert!(matches!(error, Err(TemplateError::Unfit(_))), "{error:?}");
}

#[test]
fn too_many_messages_are_too_much() {
    let source = "{% for a in messages %}{% for b in messages %}x{% endfor %}{% endfor %}";
    assert_eq!(
        rendered(source, &request(5_000, json!({}))),
        Err(TemplateError::TooMuch)
    );
    let source = "{% for m in messages %}{{ 'x' * 100000 }}{% endfor %}";
    assert_eq!(
        rendered(source, &request(1_000, json!({}))),
        Err(TemplateError::TooMuch)
    );
}

#[test]
fn a_template_that_fails_on_a_plain_question_is_broken() {
    let error = rendered("{{ 'x' + 1 }}", &request(1, json!({"a": 1})));
    assert!(matches!(error, Err(TemplateError::Broken(_))), "{error:?}");
    let error = rendered("{% if %}", &request(1, json!({})));
    assert!(matches!(error, Err(TemplateError::Broken(_))), "{error:?}");
    assert_eq!(
        rendered("{{ raise_exception('no') }}", &request(1, json!({}))),
        Err(TemplateError::Raised("no".into()))
    );
}
