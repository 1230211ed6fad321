//! Calls that keep to the schemas of their functions, from what a request says of functions to the grammar
//! of its run.

use super::format::{self, AnswerOf, AskedFormat};
use crate::constraint::{CallableTool, CallsWanted, Compiled, HowMany, Need, Wanted};
use crate::http::HttpState;
use crate::http::request::error::RequestError;
use crate::models::InstalledModel;
use crate::reader::ReaderError;

/// The functions that a request lets a model call, and how.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AskedCalls {
    pub tools: Vec<CallableTool>,
    pub how_many: HowMany,
    /// The field that chooses among them.
    pub param: &'static str,
    /// How it is told that a strict one is not kept to its schema.
    pub strict_param: &'static str,
}

impl AskedCalls {
    /// It is not left to the model whether it calls.
    pub fn is_forced(&self) -> bool {
        !matches!(self.how_many, HowMany::AsLiked { .. })
    }

    /// What is told where strict ones are not kept to their schemas.
    pub fn told_if_not_kept(&self) -> Option<&'static str> {
        let is_strict = self.tools.iter().any(|tool| tool.strict);
        is_strict.then_some(self.strict_param)
    }

    fn need(&self) -> Need {
        match self.is_forced() {
            true => Need::Needed,
            false => Need::Wish(self.told_if_not_kept()),
        }
    }
}

/// Has a reader make a grammar of the calls, or of them and, as an answer without calls, of what
/// `otherwise` wants. `None`: the model calls as it likes, and is not kept to anything.
pub(crate) async fn compiled(
    state: &HttpState,
    model: &InstalledModel,
    calls: AskedCalls,
    otherwise: Option<AskedFormat>,
) -> Result<Option<(Compiled, Need)>, RequestError> {
    if let Some(asked) = &otherwise {
        format::refuse_marked(model, asked.param)?;
    }
    let need = match otherwise {
        Some(_) => Need::Needed,
        None => calls.need(),
    };
    let is_needed = need == Need::Needed;
    let reply = model.reply.as_ref().map(|reply| &reply.found.format);
    let format = reply.filter(|format| format.calls.is_some() || format.harmony);
    let Some(format) = format else {
        return match (otherwise, is_needed) {
            (Some(asked), _) => {
                let compiled = format::compiled(state, model, asked, AnswerOf::Chat).await?;
                Ok(Some((compiled, need)))
            }
            (None, true) => Err(RequestError::unsupported(
                calls.param,
                "it is not known how the model writes a call",
            )),
            (None, false) => Ok(None),
        };
    };
    let may_be_kept = state.constraints.keep_calls && state.chats.may_constrain(model);
    if !is_needed && !may_be_kept {
        return Ok(None);
    }
    let places: Vec<String> = calls.tools.iter().map(|tool| tool.place.clone()).collect();
    let param = otherwise.as_ref().map_or(calls.param, |asked| asked.param);
    let wanted = CallsWanted {
        format: format.clone(),
        tools: calls.tools,
        // All of the answer is kept.
        how_many: match (calls.how_many, &otherwise) {
            (HowMany::AsLiked { several: true }, Some(_)) => HowMany::Several,
            (HowMany::AsLiked { several: false }, Some(_)) => HowMany::One,
            (how_many, _) => how_many,
        },
        otherwise: otherwise.map(|asked| asked.wanted),
    };
    let limits = state.constraints.limits();
    let wanted = Wanted::Calls {
        json: serde_json::to_string(&wanted).unwrap_or_default(),
    };
    match state.chats.constrain(model, wanted, limits).await {
        Ok(compiled) => Ok(Some((compiled, need))),
        Err(ReaderError::Unenforceable(error)) if error.tool.is_some() => {
            let place = error.tool.and_then(|tool| places.get(tool));
            let param = place.map_or(param.to_owned(), |place| as_param(place));
            Err(RequestError::Unenforceable { error, param })
        }
        Err(_) if !is_needed => Ok(None),
        Err(error) => Err(format::refused(error, param)),
    }
}

/// A JSON pointer as the path of a field.
fn as_param(pointer: &str) -> String {
    let mut param = String::new();
    for part in pointer.split('/').filter(|part| !part.is_empty()) {
        match part.bytes().all(|byte| byte.is_ascii_digit()) {
            true => param.push_str(&format!("[{part}]")),
            false if param.is_empty() => param.push_str(part),
            false => param.push_str(&format!(".{part}")),
        }
    }
    param
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_named_as_a_field() {
        assert_eq!(
            as_param("/tools/12/function/parameters"),
            "tools[12].function.parameters"
        );
    }
}
