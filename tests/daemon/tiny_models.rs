//! Tiny models with random weights on the CPU runtime: they load at once, and say what they are kept to.

use crate::daemon_support::{Setup, write_tiny_models};
use crate::function_calls::TEMPLATE;

/// Installs models whose vocabularies are bytes and, each, these markers.
pub fn with_tiny_models(setup: Setup, models: &[(&str, Vec<String>)]) -> Setup {
    let mut setup = setup.cpu_runtime();
    let mut wanted = Vec::new();
    for (id, markers) in models {
        setup = setup.model_file(id, "chat_template.jinja", TEMPLATE);
        let file = setup.models().join(id).join("model.gguf");
        wanted.push((file, markers.clone()));
    }
    write_tiny_models(&wanted);
    setup
}
