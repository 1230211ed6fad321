//! What sessions of clients from PyPI and npm have in common: a daemon whose model does as they ask.

use crate::daemon_support::{Daemon, Setup};
use crate::function_calls::{TEMPLATE, scenario, tokens, two_calls};

/// What a session says at its end.
pub const WHOLE: &str = "whole session ok";

/// Thinks as Qwen does.
pub fn thinking_template() -> String {
    TEMPLATE.replace(
        "{{ message.content }}\n{%- for call",
        "{% if message.reasoning_content %}<think>\n{{ message.reasoning_content }}\n</think>\n\n{% endif %}\
         {{ message.content }}\n{%- for call",
    )
}

/// A daemon with the model `m`, which answers "both" with a thought and calls of `f` and `g`, their results
/// with "All done.", and "slow" with "one two three four five ", a token a word.
pub fn setup() -> Setup {
    setup_with("")
}

/// The same with more in its scenario.
pub fn setup_with(more: &str) -> Setup {
    setup_of("", more)
}

/// The same with settings of its scenario, too.
pub fn setup_of(settings: &str, more: &str) -> Setup {
    let calls = format!("<think>\nso\n</think>\n\n{}", two_calls());
    let answers = [
        ("first of", "All done."),
        ("slow", "one two three four five "),
        ("both", calls.as_str()),
    ];
    let answers = scenario(&answers, 7);
    // One token a word, to be counted.
    let words = r#"["one ", "two ", "three ", "four ", "five "]"#;
    let pieces = tokens("one two three four five ", 7);
    assert!(answers.contains(&pieces), "{answers}");
    Setup::new()
        .model_file(
            "m",
            "model.rkllm",
            &(settings.to_owned() + &answers.replace(&pieces, words) + more),
        )
        .model_file("m", "chat_template.jinja", &thinking_template())
}

pub fn host(daemon: &Daemon) -> String {
    format!("http://{}", daemon.address)
}
