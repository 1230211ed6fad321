//! What an answer is kept to, from what a request asks for to what its run is given.

use crate::constraint::{Compiled, Constraint, Thought, Wanted};
use crate::conversation::{Message, Role, Tool};
use crate::http::HttpState;
use crate::http::request::error::RequestError;
use crate::ipc::Prompt;
use crate::models::InstalledModel;
use crate::reader::{CONSTRAINING, ReaderError};
use crate::reply::OpenedIn;

/// Places of a schema that a header names.
const MOST_NAMED: usize = 32;
/// The most bytes of one of them.
const LONGEST_NAMED: usize = 100;

/// What is wanted, and the field that says it.
#[derive(Debug, PartialEq)]
pub(crate) struct AskedFormat {
    pub wanted: Wanted,
    pub param: &'static str,
}

/// Refuses a format beside what none can be kept to: an answer that the request has begun, and calls.
pub(crate) fn refuse_beside(
    asked: Option<&AskedFormat>,
    messages: &[Message],
    tools: &[Tool],
) -> Result<(), RequestError> {
    let Some(AskedFormat { param, .. }) = asked else {
        return Ok(());
    };
    // Of a place in it the field is meant.
    let field = param.split('.').next().unwrap_or(param);
    let is_begun = |last: &Message| last.role == Role::Assistant;
    if messages.last().is_some_and(is_begun) {
        return Err(RequestError::unsupported(
            field,
            "an answer that the request has begun cannot be kept to a format",
        ));
    }
    if !tools.is_empty() {
        return Err(RequestError::unsupported(
            field,
            "an answer that is kept to a format cannot call functions: leave out the one or the other",
        ));
    }
    Ok(())
}

/// Has a reader make a grammar of what is wanted.
pub(crate) async fn compiled(
    state: &HttpState,
    model: &InstalledModel,
    AskedFormat { wanted, param }: AskedFormat,
) -> Result<Compiled, RequestError> {
    let format = model.reply.as_ref().map(|reply| &reply.found.format);
    if format.is_some_and(|format| format.harmony || format.content.is_some()) {
        return Err(RequestError::unsupported(
            param,
            "the model writes answers between markers of its own, inside which none can be kept to a format",
        ));
    }
    let limits = state.constraints.limits();
    let compiled = state.chats.constrain(model, wanted, limits).await;
    compiled.map_err(|error| match error {
        ReaderError::NoTokenizer { model } => RequestError::NoTokenizer { model },
        ReaderError::Unenforceable(error) => RequestError::Unenforceable { error, param },
        ReaderError::Ended { doing, .. } | ReaderError::DeadlineExceeded { doing, .. }
            if doing == CONSTRAINING =>
        {
            RequestError::FormatTooComplex { param }
        }
        error => error.into(),
    })
}

/// What the run is given. `not_kept` names what of the schema it is not kept to.
pub(crate) fn constraint(
    state: &HttpState,
    model: &InstalledModel,
    prompt: &Prompt,
    Compiled { grammar, not_kept }: Compiled,
) -> (Constraint, Vec<String>) {
    let constraint = Constraint {
        grammar: grammar.into(),
        limits: state.constraints.limits(),
        thought: thought(model, prompt),
    };
    let more = not_kept.len().saturating_sub(MOST_NAMED);
    let mut named: Vec<String> = not_kept
        .iter()
        .take(MOST_NAMED)
        .map(|pointer| in_a_header(pointer))
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
    (!reasoning.close.text.is_empty()).then(|| Thought {
        open: reasoning.open.text.clone(),
        open_id: reasoning.open.id,
        close: reasoning.close.text.clone(),
        close_id: reasoning.close.id,
        is_open: format.opened_by(before, begun) != OpenedIn::Content,
    })
}

/// A JSON pointer, of which a header can hold every character and a comma ends none.
fn in_a_header(pointer: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b',' | b'%');
    pointer
        .bytes()
        .take(LONGEST_NAMED)
        .map(|byte| match is_plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

/// Tells the model of the format: in the system's message or, where there is none, in the last of the
/// user's, since not every template knows a system.
pub(crate) fn show(wanted: &Wanted, messages: &mut [Message]) {
    let told = match wanted {
        Wanted::JsonObject => "Answer with a JSON object and nothing else.".to_owned(),
        Wanted::JsonSchema { schema, .. } => {
            format!("Answer with JSON of this schema and nothing else:\n{schema}")
        }
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

    #[test]
    fn a_pointer_is_one_entry_of_a_header() {
        assert_eq!(in_a_header("/a,b/ü%"), "/a%2Cb/%C3%BC%25");
    }

    #[test]
    fn the_format_is_shown_where_every_template_has_a_place() {
        let of = |role| Message::text(role, "x");
        let mut without = [of(Role::User), of(Role::Assistant)];
        show(&Wanted::JsonObject, &mut without);
        assert!(without[0].parts[0].starts_with("x\n\nAnswer with"));
        let mut with = [of(Role::System), of(Role::User)];
        show(&Wanted::JsonObject, &mut with);
        assert!(with[0].parts[0].starts_with("x\n\nAnswer") && with[1].parts == ["x"]);
    }
}
