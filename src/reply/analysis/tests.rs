use std::cell::RefCell;

use super::*;

/// Writes as Hermes models call and think.
fn rendered(conversation: &Conversation) -> Option<String> {
    let mut out = String::new();
    if let Some(tools) = &conversation.tools {
        out.push_str(&format!("<|im_start|>system\n{tools}<|im_end|>\n"));
    }
    for message in &conversation.messages {
        let text = |name: &str| message.get(name).and_then(serde_json::Value::as_str);
        out.push_str(&format!("<|im_start|>{}\n", text("role")?));
        if let Some(thought) = text("reasoning_content") {
            out.push_str(&format!("<think>\n{thought}\n</think>\n\n"));
        }
        out.push_str(text("content")?);
        let calls = message.get("tool_calls").and_then(|calls| calls.as_array());
        for call in calls.into_iter().flatten() {
            let function = &call["function"];
            let (name, arguments) = (&function["name"], &function["arguments"]);
            out.push_str(&format!(
                "\n<tool_call>\n{{\"name\": {name}, \"arguments\": {arguments}}}\n</tool_call>"
            ));
        }
        out.push_str("<|im_end|>\n");
    }
    if conversation.asks_for_answer {
        out.push_str("<|im_start|>assistant\n");
    }
    Some(out)
}

#[test]
fn a_template_writes_each_conversation_once() {
    let asked = RefCell::new(Vec::new());
    let render = |conversation: &Conversation| {
        asked.borrow_mut().push(conversation.clone());
        rendered(conversation)
    };
    let known = Renderings::default();
    let remembered = |conversation: &Conversation| known.of(conversation, &render);
    let found = analyse("<think></think><tool_call></tool_call>", &remembered);
    let plain = analyse("<think></think><tool_call></tool_call>", &rendered);
    assert_eq!(found, plain);
    let reasoning = found.format.reasoning.expect("it thinks");
    assert!(found.format.calls.is_some());
    // As where the format of a model is told by its owner.
    let again = reasoning.clone().with_openings(&remembered);
    assert_eq!(again, reasoning);
    let asked = asked.into_inner();
    assert!(asked.len() > 10, "{}", asked.len());
    for (index, one) in asked.iter().enumerate() {
        assert!(!asked[..index].contains(one), "{one:?}");
    }
}

#[test]
fn what_a_template_writes_is_told_apart_by_all_that_it_sees() {
    let of_fields = |fields: &str| {
        let message = serde_json::from_str(fields).expect("fields");
        Conversation {
            messages: vec![message],
            ..Conversation::default()
        }
    };
    let ordered = of_fields(r#"{"a": 1, "b": 2}"#);
    let other = of_fields(r#"{"b": 2, "a": 1}"#);
    let mut asking = ordered.clone();
    asking.asks_for_answer = true;
    let known = Renderings::default();
    let as_json = |it: &Conversation| serde_json::to_string(&it.messages).ok();
    assert_eq!(known.of(&ordered, &as_json), as_json(&ordered));
    assert_eq!(known.of(&other, &as_json), as_json(&other));
    assert_ne!(as_json(&ordered), as_json(&other));
    assert_eq!(known.of(&asking, &|_| None), None);
    assert_eq!(known.of(&asking, &as_json), None, "a refusal is one");
}

#[test]
fn what_is_long_is_not_kept() {
    let conversation = Conversation::default();
    let known = Renderings::default();
    let most = "x".repeat(Renderings::MOST_KEPT_BYTES);
    let longer = format!("{most}x");
    assert_eq!(
        known.of(&conversation, &|_| Some(longer.clone())),
        Some(longer)
    );
    assert_eq!(
        known.of(&conversation, &|_| Some(most.clone())),
        Some(most.clone())
    );
    assert_eq!(known.of(&conversation, &|_| None), Some(most));
}
