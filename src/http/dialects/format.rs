//! What an answer is kept to, from what a request asks for to what its run is given.

use super::calls::AskedCalls;
use crate::constraint::{Compiled, Constraint, Need, Thought, Wanted};
use crate::conversation::{Message, Role};
use crate::http::HttpState;
use crate::http::request::error::RequestError;
use crate::http::response::notices;
use crate::ipc::Prompt;
use crate::models::InstalledModel;
use crate::reader::{CONSTRAINING, ReaderError};
use crate::reply::OpenedIn;

/// Places of a schema that a header names.
const MOST_NAMED: usize = 32;

/// What the model answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerOf {
    /// A conversation, with markers of its own.
    Chat,
    /// A text, which it continues.
    Text,
}

/// What is wanted, and the field that says it.
#[derive(Debug, PartialEq)]
pub(crate) struct AskedFormat {
    pub wanted: Wanted,
    pub param: &'static str,
}

impl AskedFormat {
    /// The field of the request, where `param` is a place in it.
    pub fn field(&self) -> &'static str {
        self.param.split('.').next().unwrap_or(self.param)
    }

    /// As a header tells that it is not applied: the rest of its field may be.
    pub fn told(&self) -> &'static str {
        const NESTED: &str = ".format";
        let end = self.param.find(NESTED).map(|at| at + NESTED.len());
        end.map_or(self.field(), |end| &self.param[..end])
    }
}

/// Refuses what all of an answer is kept to behind a last message of the assistant's.
pub(crate) fn refuse_begun(messages: &[Message], field: &'static str) -> Result<(), RequestError> {
    let is_begun = |last: &Message| last.role == Role::Assistant;
    match messages.last().is_some_and(is_begun) {
        true => Err(RequestError::unsupported(
            field,
            "an answer that the request has begun cannot be kept to a format",
        )),
        false => Ok(()),
    }
}

/// Refuses a format beside an answer that the request has begun.
pub(crate) fn refuse_beside_begun(
    asked: Option<&AskedFormat>,
    messages: &[Message],
) -> Result<(), RequestError> {
    asked.map_or(Ok(()), |asked| refuse_begun(messages, asked.field()))
}

/// Has a reader make a grammar of what is wanted.
pub(crate) async fn compiled(
    state: &HttpState,
    model: &InstalledModel,
    AskedFormat { wanted, param }: AskedFormat,
    answer: AnswerOf,
) -> Result<Compiled, RequestError> {
    if answer == AnswerOf::Chat {
        refuse_marked(model, param)?;
    }
    let limits = state.constraints.limits();
    let compiled = state.chats.constrain(model, wanted, limits).await;
    compiled.map_err(|error| refused(error, param))
}

/// Refuses a format of an answer that has markers around it.
pub(super) fn refuse_marked(
    model: &InstalledModel,
    param: &'static str,
) -> Result<(), RequestError> {
    let format = model.reply.as_ref().map(|reply| &reply.found.format);
    match format.is_some_and(|format| format.harmony || format.content.is_some()) {
        true => Err(RequestError::unsupported(
            param,
            "the model writes answers between markers of its own, inside which none can be kept to a format",
        )),
        false => Ok(()),
    }
}

/// Why there is no grammar of what a field asks for.
pub(super) fn refused(error: ReaderError, param: &'static str) -> RequestError {
    match error {
        ReaderError::NoTokenizer { model } => RequestError::NoTokenizer { model },
        ReaderError::Unenforceable(error) => RequestError::Unenforceable {
            error,
            param: param.to_owned(),
        },
        ReaderError::Ended { doing, .. } | ReaderError::DeadlineExceeded { doing, .. }
            if doing == CONSTRAINING =>
        {
            RequestError::FormatTooComplex { param }
        }
        error => error.into(),
    }
}

/// What the run is given. `not_kept` names what of the schema it is not kept to.
pub(crate) fn constraint(
    state: &HttpState,
    model: &InstalledModel,
    prompt: &Prompt,
    answer: AnswerOf,
    (compiled, need): (Compiled, Need),
) -> (Constraint, Vec<String>) {
    let Compiled {
        grammar,
        how,
        not_kept,
    } = compiled;
    let constraint = Constraint {
        grammar: grammar.into(),
        limits: state.constraints.limits(),
        how,
        thought: match answer {
            AnswerOf::Chat => thought(model, prompt),
            AnswerOf::Text => None,
        },
        need,
    };
    let more = not_kept.len().saturating_sub(MOST_NAMED);
    let mut named: Vec<String> = not_kept
        .iter()
        .take(MOST_NAMED)
        .map(|pointer| notices::in_a_header(pointer))
        .collect();
    if more > 0 {
        named.push(format!("{more} more"));
    }
    (constraint, named)
}

fn thought(model: &InstalledModel, prompt: &Prompt) -> Option<Thought> {
    let format = &model.reply.as_ref()?.found.format;
    let reasoning = format.reasoning.as_ref()?;
    let (before, begun) = prompt.around_begun_answer();
    let opened = format.opened_by(before, begun);
    // The template has closed the only thought that there is to be.
    let is_over = opened == OpenedIn::Content && before.trim_end().ends_with(&reasoning.close.text);
    (!reasoning.close.text.is_empty() && !is_over).then(|| Thought {
        open: reasoning.open.text.clone(),
        open_id: reasoning.open.id,
        close: reasoning.close.text.clone(),
        close_id: reasoning.close.id,
        is_open: opened != OpenedIn::Content,
    })
}

/// Tells the model of the format, where that is JSON: in the system's message or, where there is none, in
/// the last of the user's, since not every template knows a system. Of answers that are calls it is not told.
pub(crate) fn show(wanted: &Wanted, messages: &mut [Message], calls: Option<&AskedCalls>) {
    let answer = match calls {
        None => "Answer",
        Some(calls) if calls.is_forced() => return,
        Some(_) => "Where you call no function, answer",
    };
    let told = match wanted {
        Wanted::JsonObject => format!("{answer} with a JSON object and nothing else."),
        Wanted::JsonSchema { schema, .. } => {
            format!("{answer} with JSON of this schema and nothing else:\n{schema}")
        }
        // Told by the template.
        Wanted::Calls { .. } => return,
        Wanted::Regex(_) | Wanted::Choice(_) | Wanted::Gbnf(_) | Wanted::Lark(_) => return,
    };
    let is_system = |message: &&mut Message| matches!(message.role, Role::System | Role::Developer);
    let place = match messages.iter_mut().find(is_system) {
        Some(system) => Some(system),
        None => (messages.iter_mut()).rfind(|message| message.role == Role::User),
    };
    if let Some(message) = place {
        match message.parts.last_mut() {
            Some(last) => *last = format!("{last}\n\n{told}"),
            None => message.parts.push(told),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constraint::HowMany;

    #[test]
    fn the_format_is_shown_where_every_template_has_a_place() {
        let of = |role| Message::text(role, "x");
        let mut without = [of(Role::User), of(Role::Assistant)];
        show(&Wanted::JsonObject, &mut without, None);
        assert!(without[0].parts[0].starts_with("x\n\nAnswer with"));
        let mut with = [of(Role::System), of(Role::User)];
        show(&Wanted::JsonObject, &mut with, None);
        assert!(with[0].parts[0].starts_with("x\n\nAnswer") && with[1].parts == ["x"]);
    }

    #[test]
    fn what_is_not_applied_is_told_without_the_rest_of_its_field() {
        for (param, told) in [
            ("response_format.json_schema.schema", "response_format"),
            ("text.format.schema", "text.format"),
            ("output_config.format.schema", "output_config.format"),
            ("format", "format"),
        ] {
            let wanted = Wanted::JsonObject;
            assert_eq!(AskedFormat { wanted, param }.told(), told);
        }
    }

    #[test]
    fn beside_functions_it_is_told_of_answers_that_call_none() {
        let calls = |how_many| AskedCalls {
            tools: Vec::new(),
            how_many,
            param: "tool_choice",
            strict_param: "tools[].function.strict",
        };
        let shown = |how_many| {
            let mut messages = [Message::text(Role::User, "x")];
            show(&Wanted::JsonObject, &mut messages, Some(&calls(how_many)));
            messages[0].parts[0].clone()
        };
        let as_liked = shown(HowMany::AsLiked { several: true });
        assert!(as_liked.starts_with("x\n\nWhere you call no function, answer with"));
        assert_eq!(shown(HowMany::Several), "x");
    }
}
