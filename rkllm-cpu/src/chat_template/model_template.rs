//! A turn by the model's own template. One run is one turn, and what came before it is in the cache
//! as it was generated, so a later turn is cut out of the rendering of an empty exchange before it.

use serde_json::Value;

use super::jinja::{Jinja, Message, SpecialTokens, Switches};
use super::{ConversationTurn, TemplateError, TurnInput, plain};

pub(crate) struct ModelTemplate {
    jinja: Jinja,
    system: Option<String>,
    tools: Option<Value>,
    /// What surrounds a tool's result in a template that has no role for it.
    tool_response_tag: String,
}

impl ModelTemplate {
    /// None if the template cannot be run.
    pub(crate) fn compile(source: &str, special: SpecialTokens) -> Option<ModelTemplate> {
        let template = ModelTemplate {
            jinja: Jinja::compile(source, special).ok()?,
            system: None,
            tools: None,
            tool_response_tag: "tool_response".to_owned(),
        };
        let probe = template.turn_alone(&[("user", "x".to_owned())], true);
        // A template that does not show the prompt is none.
        probe.ok()?.contains('x').then_some(template)
    }

    pub(crate) fn set_system(&mut self, system: Option<&str>) {
        self.system = system.filter(|text| !text.is_empty()).map(str::to_owned);
    }

    /// Tools are given to the template with every turn from now on. False: it does not show them.
    pub(crate) fn set_tools(&mut self, tools: Value, response_tag: &str) -> bool {
        let turn = [("user", "x".to_owned())];
        let without = self.turn_alone(&turn, true).ok();
        let given = !tools.as_array().is_some_and(Vec::is_empty);
        self.tools = given.then_some(tools);
        if !response_tag.is_empty() {
            self.tool_response_tag = response_tag.to_owned();
        }
        let with = self.turn_alone(&turn, true).ok();
        !given || (with.is_some() && with != without)
    }

    pub(super) fn render(&self, input: &TurnInput<'_>) -> Result<ConversationTurn, TemplateError> {
        let messages = match input.role {
            "tool" => tool_results(input.prompt)?,
            role => vec![(role, input.prompt.to_owned())],
        };
        match self.render_messages(&messages, input) {
            Ok(turn) => Ok(turn),
            // Not every template knows the role; a model without it reads results as a user's.
            Err(_) if input.role == "tool" => {
                let tag = &self.tool_response_tag;
                let results = messages
                    .iter()
                    .map(|(_, result)| ("user", format!("<{tag}>\n{result}\n</{tag}>")));
                self.render_messages(&results.collect::<Vec<_>>(), input)
            }
            Err(error) => Err(error),
        }
    }

    fn render_messages(
        &self,
        messages: &[(&str, String)],
        input: &TurnInput<'_>,
    ) -> Result<ConversationTurn, TemplateError> {
        if input.continues {
            return self.continuation(messages, input.enable_thinking);
        }
        let text = self.turn_alone(messages, input.enable_thinking)?;
        Ok(plain(text, self.system_text(input.enable_thinking)))
    }

    /// The first turn of a conversation.
    fn turn_alone(
        &self,
        messages: &[(&str, String)],
        enable_thinking: bool,
    ) -> Result<String, TemplateError> {
        let all: Vec<Message<'_>> = self.opening().chain(borrowed(messages)).collect();
        self.run(&all, enable_thinking)
    }

    /// The new turn with whatever the template puts between an answer and it: what is added when an
    /// empty exchange is followed by it.
    fn continuation(
        &self,
        messages: &[(&str, String)],
        enable_thinking: bool,
    ) -> Result<ConversationTurn, TemplateError> {
        let exchange = [("user", String::new()), ("assistant", String::new())];
        let before: Vec<_> = self.opening().chain(borrowed(&exchange[..1])).collect();
        // Thinking is left open there, since the answer's own thought follows.
        let before = self.run(&before, true);
        let after: Vec<_> = self
            .opening()
            .chain(borrowed(&exchange))
            .chain(borrowed(messages))
            .collect();
        let after = self.run(&after, enable_thinking);
        if let (Ok(before), Ok(after)) = (&before, &after)
            && let Some(text) = after.strip_prefix(before.as_str())
        {
            return Ok(ConversationTurn {
                text: text.to_owned(),
                closes_the_last_turn: true,
                system_text: String::new(),
            });
        }
        let alone: Vec<_> = borrowed(messages).collect();
        Ok(plain(self.run(&alone, enable_thinking)?, String::new()))
    }

    fn run(
        &self,
        messages: &[Message<'_>],
        enable_thinking: bool,
    ) -> Result<String, TemplateError> {
        let switches = Switches {
            tools: self.tools.as_ref(),
            enable_thinking,
            opens_answer: true,
        };
        self.jinja
            .render(messages, switches)
            .map_err(|error| TemplateError::Failed(format!("{error:#}")))
    }

    /// The beginning that does not depend on the prompt, where there is a system prompt.
    fn system_text(&self, enable_thinking: bool) -> String {
        if self.system.is_none() && self.tools.is_none() {
            return String::new();
        }
        let with = |text: &str| {
            self.turn_alone(&[("user", text.to_owned())], enable_thinking)
                .unwrap_or_default()
        };
        let (one, other) = (with("a"), with("b"));
        let common = one
            .char_indices()
            .zip(other.chars())
            .find(|((_, left), right)| left != right)
            .map_or(0, |((at, _), _)| at);
        one[..common].to_owned()
    }

    fn opening(&self) -> impl Iterator<Item = Message<'_>> {
        self.system.iter().map(|content| Message {
            role: "system",
            content,
        })
    }
}

fn borrowed<'a>(messages: &'a [(&str, String)]) -> impl Iterator<Item = Message<'a>> {
    messages
        .iter()
        .map(|(role, content)| Message { role, content })
}

/// The prompt of a `tool` turn is JSON: an array of results, or one. A string is its text, anything
/// else is shown as JSON.
fn tool_results(prompt: &str) -> Result<Vec<(&'static str, String)>, TemplateError> {
    let parsed = serde_json::from_str(prompt).map_err(TemplateError::ToolResults)?;
    let results = match parsed {
        Value::Array(results) => results,
        single => vec![single],
    };
    let text = |result: Value| match result {
        Value::String(text) => text,
        other => other.to_string(),
    };
    Ok(results
        .into_iter()
        .map(|result| ("tool", text(result)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CHATML: &str = "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% if enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}";

    fn template(source: &str) -> ModelTemplate {
        match ModelTemplate::compile(source, SpecialTokens::default()) {
            Some(template) => template,
            None => panic!("the template compiles"),
        }
    }

    fn turn<'a>(role: &'a str, prompt: &'a str, continues: bool) -> TurnInput<'a> {
        TurnInput {
            role,
            prompt,
            enable_thinking: true,
            continues,
        }
    }

    fn text(template: &ModelTemplate, input: &TurnInput<'_>) -> String {
        template
            .render(input)
            .map_or_else(|e| e.to_string(), |turn| turn.text)
    }

    #[test]
    fn the_first_turn_opens_the_answer() {
        let mut template = template(CHATML);
        template.set_system(Some("S"));
        assert_eq!(
            text(&template, &turn("user", "hi", false)),
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
        );
        let turn = template.render(&turn("user", "hi", false));
        assert_eq!(
            turn.map(|turn| turn.system_text).ok().as_deref(),
            Some("<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n")
        );
    }

    #[test]
    fn a_later_turn_closes_the_answer_before_it() {
        let template = template(CHATML);
        let Ok(turn) = template.render(&turn("user", "hi", true)) else {
            panic!("it renders");
        };
        assert!(turn.closes_the_last_turn);
        assert_eq!(
            turn.text,
            "<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn thinking_is_the_templates_business() {
        let template = template(CHATML);
        let mut quick = turn("user", "hi", false);
        quick.enable_thinking = false;
        let ending = "<|im_start|>assistant\n<think>\n\n</think>\n\n";
        assert!(text(&template, &quick).ends_with(ending));
        quick.continues = true;
        let later = text(&template, &quick);
        assert!(later.starts_with("<|im_end|>\n") && later.ends_with(ending));
    }

    #[test]
    fn tools_are_shown_or_refused() {
        let mut knows = template(CHATML);
        assert!(knows.set_tools(json!([{"name": "f"}]), ""));
        let shown = "<|im_start|>tools\n[{\"name\": \"f\"}]<|im_end|>\n<|im_start|>user\n";
        assert!(text(&knows, &turn("user", "x", false)).starts_with(shown));
        let mut blind = template("{% for m in messages %}{{ m.content }}{% endfor %}");
        assert!(!blind.set_tools(json!([{"name": "f"}]), ""));
    }

    #[test]
    fn results_of_tools_are_json() {
        let template = template(CHATML);
        assert_eq!(
            text(
                &template,
                &turn("tool", r#"["20 C", {"rain": false}]"#, true)
            ),
            "<|im_end|>\n<|im_start|>tool\n20 C<|im_end|>\n<|im_start|>tool\n{\"rain\":false}<|im_end|>\n<|im_start|>assistant\n"
        );
        assert!(matches!(
            template.render(&turn("tool", "20 C", true)),
            Err(TemplateError::ToolResults(_))
        ));
    }

    #[test]
    fn a_template_without_the_role_gets_a_marked_user_turn() {
        let source = "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}{{ raise_exception('role') }}{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}";
        let mut template = template(source);
        template.set_tools(json!([]), "result");
        assert_eq!(
            text(&template, &turn("tool", r#"["20 C"]"#, false)),
            "[user]<result>\n20 C\n</result>"
        );
    }

    #[test]
    fn a_template_that_cannot_be_run_is_none() {
        let none = |source| ModelTemplate::compile(source, SpecialTokens::default()).is_none();
        assert!(none("{% for %}") && none("nothing") && none("{{ raise_exception('no') }}"));
    }
}
