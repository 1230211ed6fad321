//! `POST /infill`: a gap in a text that the model fills, in the shape of llama.cpp's server.

use axum::body::Body;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;

use super::completion::{CompletionAnswer, CompletionWriter, ContinuedText, Read, policy, run_of};
use crate::chat::{PromptSource, WholeReply};
use crate::generation::Completion;
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::{Asked, Asking, ChatDialect, Identity};
use crate::http::request::body::Object;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::nul::refuse_nul;
use crate::http::request::together::{Together, fields_of};
use crate::http::response::error_body::AnswerRefusals;
use crate::prompt::Gap;
use crate::reader::ReaderError;

/// What `/infill` takes alone.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct InfillParameters {
    /// The text before the gap.
    #[schema(required, nullable = false)]
    input_prefix: Option<String>,
    /// The text behind the gap.
    #[schema(required, nullable = false)]
    input_suffix: Option<String>,
    /// Other files, or parts of them, the least helpful first. Where not all of them fit the context beside an answer,
    /// the first ones are left out, and `x-rkllmd-not-applied` says `input_extra`.
    #[schema(value_type = Option<Vec<ExtraFile>>)]
    input_extra: Option<Vec<Object<ExtraFile>>>,
    /// How what is missing begins.
    prompt: Option<String>,
}

fields_of!(InfillParameters {
    input_prefix,
    input_suffix,
    input_extra,
    prompt,
});

/// A file, or a part of one.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ExtraFile {
    /// Its name.
    filename: Option<String>,
    /// What is in it.
    #[schema(required, nullable = false)]
    text: Option<String>,
}

/// How a gap is filled: as a text is continued.
pub(super) struct InfillAnswer(CompletionAnswer);

impl ChatDialect for InfillAnswer {
    const PROMPT_PARAM: &'static str = "input_prefix";
    const FILES_PARAM: &'static str = "input_extra";
    type Writer = CompletionWriter;

    fn prompt_param(text: usize) -> String {
        let own = [Self::PROMPT_PARAM, "input_suffix", "prompt"];
        match text.checked_sub(own.len()) {
            None => own[text].to_owned(),
            Some(other) => {
                let field = ["filename", "text"][other % 2];
                format!("{}[{}].{field}", Self::FILES_PARAM, other / 2)
            }
        }
    }

    fn whole(
        &self,
        identity: &Identity,
        reply: WholeReply,
        completion: &Completion,
    ) -> serde_json::Result<Vec<u8>> {
        self.0.whole(identity, reply, completion)
    }

    fn writer(&self, identity: &Identity) -> CompletionWriter {
        self.0.writer(identity)
    }

    fn blamed(&self, error: RequestError) -> RequestError {
        match error {
            RequestError::Reader(error @ ReaderError::NoFillIn { .. }) => {
                RequestError::unsupported("model", error.to_string())
            }
            other => other,
        }
    }

    fn stream(body: Body) -> Response {
        CompletionAnswer::stream(body)
    }
}

/// Fill a gap in a text
///
/// For models whose vocabulary has tokens that mark one. It answers as `/completion` does, and takes what that takes
/// beside its prompt.
#[utoipa::path(post, path = "/infill", tag = "llama-server",
    request_body(content = super::bodies::InfillRequest),
    responses(
        (status = 200, description = "What is missing", content(
            (ContinuedText = "application/json"),
            (ContinuedText = "text/event-stream"))),
        AnswerRefusals))]
pub(crate) async fn infill(asking: Asking) -> Result<Response, RequestError> {
    asking.answer(asked).await
}

fn asked(
    state: &HttpState,
    context: &RequestContext,
    Together(own, run): Read<InfillParameters>,
) -> Result<Asked<InfillAnswer>, RequestError> {
    let (model, options) = run_of(state, context, run)?;
    let given = |text: Option<String>, param: &str| {
        text.ok_or_else(|| RequestError::missing(param.to_owned()))
    };
    let mut texts = vec![
        given(own.input_prefix, "input_prefix")?,
        given(own.input_suffix, "input_suffix")?,
        own.prompt.unwrap_or_default(),
    ];
    let others = own.input_extra.unwrap_or_default().into_iter();
    for (index, Object(ExtraFile { filename, text })) in others.enumerate() {
        let text = given(text, &format!("input_extra[{index}].text"))?;
        texts.extend([filename.unwrap_or_default(), text]);
    }
    for (index, text) in texts.iter().enumerate() {
        refuse_nul(text, || InfillAnswer::prompt_param(index))?;
    }
    Ok(Asked {
        source: PromptSource::FillIn {
            gap: Box::new(Gap::of_texts(texts)),
            policy: policy(state),
        },
        reading: None,
        dialect: InfillAnswer(CompletionAnswer::of(&options)),
        options,
        model,
    })
}
