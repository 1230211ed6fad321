//! `POST /api/generate`: a question, or a text that the model continues; without a prompt, the model is
//! loaded or unloaded.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use utoipa::ToSchema;

use super::answer::{Begun, Figures, TextAnswer};
use super::error::AnswerRefusals;
use super::line_writer::{LineWriter, TextLines};
use super::loading::{self, Loading, Wanted};
use super::making::TEMPLATE;
use super::parameters::{Read, Run, reading, refuse_images, show_format, source};
use crate::chat::{PromptSource, WholeReply};
use crate::conversation::{Message, Role};
use crate::generation::Completion;
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::{Asked, ChatDialect, Identity};
use crate::http::dialects::parameters::{is_empty, neutral};
use crate::http::dialects::templates::has_template;
use crate::http::request::body::fields;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::free_form::Outline;
use crate::http::request::nul::refuse_nul;
use crate::http::request::together::{Together, fields_of};
use crate::http::response::ndjson;
use crate::models::{InstalledModel, TemplateState};
use crate::prompt::Gap;

/// What only `/api/generate` takes.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct OllamaTextParameters {
    /// A question to the model, or with `raw` the text that it continues; an empty one loads the model,
    /// or unloads it where `keep_alive` is 0.
    prompt: Option<String>,
    /// What the model is told before.
    system: Option<String>,
    /// The prompt is all that the model gets, with no template around it. Default false; true where the
    /// model has no template.
    raw: Option<bool>,
    /// What follows the gap that the answer fills, for a model that can `insert`; `prompt` is before it. Not with
    /// `raw`, and `system` is not applied.
    suffix: Option<String>,
    /// Not supported; null or empty: Ollama's templates are Go's, which are not run here.
    template: Option<String>,
    /// Not supported; null or empty. A conversation is `/api/chat`'s.
    #[schema(value_type = Option<Vec<i64>>)]
    context: Option<Outline>,
    /// Not supported; null or empty.
    #[schema(value_type = Option<Vec<String>>)]
    images: Option<Outline>,
}

fields_of!(OllamaTextParameters {
    prompt,
    system,
    raw,
    suffix,
    template,
    context,
    images,
});

/// How a text is answered.
pub(super) struct TextForm {
    begun: Begun,
    /// Before the question the model is told something.
    has_system: bool,
}

impl ChatDialect for TextForm {
    const PROMPT_PARAM: &'static str = "prompt";
    type Writer = LineWriter<TextLines>;

    fn prompt_param(text: usize) -> String {
        // Of what is around a gap.
        let fields = [Self::PROMPT_PARAM, "suffix"];
        fields.get(text).unwrap_or(&Self::PROMPT_PARAM).to_string()
    }

    fn whole(
        &self,
        _identity: &Identity,
        reply: WholeReply,
        completion: &Completion,
    ) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&TextAnswer::of(&self.begun, reply, completion))
    }

    fn writer(&self, _identity: &Identity) -> Self::Writer {
        LineWriter::new(self.begun.clone())
    }

    /// The conversation that is rendered is not the client's.
    fn blamed(&self, error: RequestError) -> RequestError {
        match error {
            RequestError::ControlToken { param, token } => RequestError::ControlToken {
                param: match param.starts_with("messages[0]") && self.has_system {
                    true => "system".to_owned(),
                    false => Self::PROMPT_PARAM.to_owned(),
                },
                token,
            },
            other => other,
        }
    }

    fn stream(body: Body) -> Response {
        ndjson::response(body)
    }
}

impl OllamaTextParameters {
    fn refuse_unsupported(&self, model: &InstalledModel) -> Result<(), RequestError> {
        let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        if self.raw == Some(true) && given(&self.system) {
            return Err(RequestError::out_of_range(
                "system",
                "cannot be given with `raw`, which leaves nothing to the template",
            ));
        }
        if given(&self.suffix) && model.facts.gap_markers.is_none() {
            return Err(RequestError::unsupported(
                "suffix",
                format!("\"{}\" does not support insert", model.id),
            ));
        }
        if given(&self.suffix) && self.raw == Some(true) {
            return Err(RequestError::out_of_range(
                "suffix",
                "cannot be given with `raw`, which leaves nothing to be put around the prompt",
            ));
        }
        if given(&self.template) {
            return Err(RequestError::unsupported("template", TEMPLATE));
        }
        let (param, advice) = ("context", "a conversation is had by /api/chat; only []");
        neutral(param, &self.context, is_empty, advice)?;
        refuse_images(self.images.as_ref(), model, || "images".to_owned())
    }
}

/// Answer a question, or continue a text
///
/// Unless `stream` is false the answer is a stream of lines, each a TextAnswer, whose
/// `response` is what is new; an error after the stream has begun is a line with an error object and
/// ends it.
#[utoipa::path(post, path = "/api/generate", tag = "ollama",
    request_body(content = super::bodies::OllamaTextRequest),
    responses(
        (status = 200, description = "The answer", content(
            (TextAnswer = "application/json"),
            (TextAnswer = "application/x-ndjson"))),
        AnswerRefusals))]
pub(crate) async fn generate(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, RequestError> {
    loading::answer(state, request, wanted, |begun, reason, load| {
        TextAnswer::ended(begun, reason, Figures::of_loading(begun, load))
    })
    .await
}

fn wanted(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
) -> Result<Wanted<TextForm>, RequestError> {
    let Together(Together(mut shared, own), unread): Read<OllamaTextParameters> = fields(body)?;
    let (model, begun, keep_alive) = shared.begun(state, context)?;
    own.refuse_unsupported(&model)?;
    let Run { mut options, wish } = shared.run(state, &model, keep_alive, unread)?;
    let prompt = own.prompt.unwrap_or_default();
    if prompt.is_empty() {
        return Ok(Wanted::Loading(Loading {
            model,
            begun,
            keep_alive,
            not_applied: options.ignored,
            unread: options.unread,
        }));
    }
    refuse_nul(&prompt, || "prompt".to_owned())?;
    let system = own.system.filter(|system| !system.is_empty());
    refuse_nul(system.as_deref().unwrap_or_default(), || {
        "system".to_owned()
    })?;
    let policy = (!state.chat.raw_completions).then_some(state.chat.control_tokens);
    if let Some(suffix) = own.suffix.filter(|suffix| !suffix.is_empty()) {
        refuse_nul(&suffix, || "suffix".to_owned())?;
        options.ignored.extend(system.is_some().then_some("system"));
        let gap = Gap {
            before: prompt,
            behind: suffix,
            ..Gap::default()
        };
        return Ok(Wanted::Answer(Box::new(Asked {
            source: PromptSource::FillIn {
                gap: Box::new(gap),
                policy,
            },
            options,
            reading: None,
            dialect: TextForm {
                begun,
                has_system: false,
            },
            model,
        })));
    }
    let has_none = matches!(model.template, TemplateState::None) && system.is_none();
    if own.raw == Some(true) || has_none {
        return Ok(Wanted::Answer(Box::new(Asked {
            source: PromptSource::Text {
                text: prompt,
                policy,
            },
            options,
            reading: None,
            dialect: TextForm {
                begun,
                has_system: false,
            },
            model,
        })));
    }
    has_template(&model)?;
    let has_system = system.is_some();
    let system = system.map(|system| Message::text(Role::System, system));
    let question = Message::text(Role::User, prompt);
    let mut messages: Vec<Message> = system.into_iter().chain([question]).collect();
    show_format(state, &options, &mut messages);
    Ok(Wanted::Answer(Box::new(Asked {
        source: source(state, &wish, (messages, Vec::new())),
        options,
        reading: Some(reading(&model)),
        dialect: TextForm { begun, has_system },
        model,
    })))
}
