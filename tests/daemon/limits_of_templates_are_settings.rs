//! What a template may take for one prompt is the owner's to set: at the least value a request that takes more
//! is refused with the setting's name, at a larger one the same request is answered.

use crate::daemon_support::{Daemon, Setup, chat};
use serde_json::json;

use super::models_folder_support::CHAT;

/// Takes, when it is asked to, much of one thing.
const GREEDY: [(&str, &str); 3] = [
    (
        "steps",
        "{% for i in range(4000) %}{% set x = i + i %}{% endfor %}",
    ),
    ("output", "{% for i in range(800) %}0123456789{% endfor %}"),
    (
        "memory",
        "{% set n = namespace(s='01234567') %}{% for i in range(24) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    ),
];

fn start(settings: &str) -> Daemon {
    GREEDY
        .into_iter()
        .fold(Setup::new().settings(settings), |setup, (name, source)| {
            let template = format!(
                "{{% if messages[0].content == 'much' %}}{source}{{% endif %}}{{{{ messages[0].content }}}}"
            );
            setup
                .model_file(name, "model.rkllm", "tokens = [\"fine\"]\n")
                .model_file(name, "model.toml", "")
                .model_file(name, "chat_template.jinja", &template)
        })
        .start()
}

#[test]
fn a_template_takes_as_much_as_its_owner_lets_it() {
    for (name, least, more) in [
        (
            "steps",
            "reader.template-steps = 4096",
            "reader.template-steps = 100000",
        ),
        (
            "output",
            "reader.template-output-bytes = 4096",
            "reader.template-output-bytes = 16384",
        ),
        (
            "memory",
            "reader.memory-limit-bytes = 268435456",
            "reader.memory-limit-bytes = 1610612736",
        ),
    ] {
        let asked = |daemon: &Daemon, model: &str, text: &str| {
            let answer = daemon.post(CHAT, &chat(model, text, json!({})));
            (answer.status, answer.body)
        };
        let daemon = start(least);
        let (status, body) = asked(&daemon, name, "much");
        let (expected, code, said) = match name {
            "memory" => (500, "chat_template_failed", "template"),
            _ => (400, "chat_template_refused", "template-"),
        };
        assert_eq!(status, expected, "{least}: {body}");
        assert!(
            body.contains(code) && body.contains(said),
            "{least}: {body}"
        );
        // The others' limits are their own, and so is a request that takes little.
        for (other, _) in GREEDY {
            let text = if other == name { "little" } else { "much" };
            let (status, body) = asked(&daemon, other, text);
            assert_eq!(status, 200, "{least}: {other}: {body}");
        }
        drop(daemon);
        let daemon = start(more);
        let (status, body) = asked(&daemon, name, "much");
        assert_eq!(status, 200, "{more}: {body}");
    }
}
