//! `POST /api/generate`: a question, by itself or in a conversation that a client keeps, or a text that the model
//! continues; without a prompt, the model is loaded or unloaded.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;

use super::answer::{Begun, Figures, TextAnswer};
use super::context::{ContextOf, Opened};
use super::error::AnswerRefusals;
use super::line_writer::{LineWriter, TextLines};
use super::loading::{self, Loading, Wanted};
use super::parameters::{Read, Run, reading, render_request, show_format};
use super::text_parameters::{OllamaTextParameters, PROMPT, blamed};
use crate::auth::SealingKey;
use crate::chat::{ChatService, Closing, ConversationTurn, PromptSource, WholeReply};
use crate::conversation::{Message, Role, Thinking};
use crate::generation::{ClientKey, Completion};
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::{Asked, ChatDialect, Identity};
use crate::http::dialects::permission::may_control;
use crate::http::dialects::templates::has_template;
use crate::http::request::body::fields;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::nul::refuse_nul;
use crate::http::request::together::Together;
use crate::http::response::ndjson;
use crate::models::{InstalledModel, TemplateState};
use crate::prompt::{ClientTemplate, Gap, GoField, GoTemplate};

/// How a text is answered.
pub(super) struct TextForm {
    begun: Begun,
    /// Before the question the model is told something.
    has_system: bool,
    /// What goes on with the answer, of a conversation.
    goes_on: Option<GoesOn>,
}

/// What makes a context of the answer.
struct GoesOn {
    client: ClientKey,
    turn: ConversationTurn,
    key: SealingKey,
}

impl TextForm {
    /// Of a text that is no conversation.
    fn of_text(begun: Begun) -> Self {
        Self {
            begun,
            has_system: false,
            goes_on: None,
        }
    }
}

impl ChatDialect for TextForm {
    const PROMPT_PARAM: &'static str = PROMPT;
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

    fn blamed(&self, error: RequestError) -> RequestError {
        blamed(error, self.has_system)
    }

    fn closing(
        &mut self,
        chats: &ChatService,
        model: &Arc<InstalledModel>,
    ) -> Option<Box<dyn Closing>> {
        let GoesOn {
            client,
            mut turn,
            key,
        } = self.goes_on.take()?;
        if let Some(variant) = &model.variant {
            match turn.before.is_empty() {
                true => variant.begin(&mut turn.request),
                false => variant.lend_template(&mut turn.request),
            }
        }
        Some(Box::new(ContextOf {
            chats: chats.clone(),
            client,
            model: Arc::clone(model),
            turn,
            key,
            answer: String::new(),
            next: self.begun.context.clone(),
        }))
    }

    fn stream(body: Body) -> Response {
        ndjson::response(body)
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
    let may_control = may_control(state, context, own.special)?;
    let template = own.template(context, &model, may_control)?;
    let for_gap = gap_template(&model, template.as_ref());
    own.refuse_unsupported(&model, for_gap.as_ref())?;
    let before = own.context.filter(|ids| !ids.is_empty());
    let before = before.map(|ids| ids.open(&model, &state.sealing));
    let before = before.transpose()?;
    let kept_tokens = shared.kept_tokens().filter(|_| before.is_some());
    let Run { mut options, wish } = shared.run(state, &model, keep_alive, unread)?;
    if kept_tokens.is_some() {
        options.ignored.retain(|name| *name != "num_keep");
    }
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
    let suffix = own.suffix.filter(|suffix| !suffix.is_empty());
    refuse_nul(suffix.as_deref().unwrap_or_default(), || {
        "suffix".to_owned()
    })?;
    let policy = (!may_control).then_some(state.chat.control_tokens);
    if let (Some(suffix), None) = (&suffix, &for_gap) {
        options.ignored.extend(system.is_some().then_some("system"));
        let gap = Gap {
            before: prompt,
            behind: suffix.clone(),
            ..Gap::default()
        };
        return Ok(Wanted::Answer(Box::new(Asked {
            source: PromptSource::FillIn {
                gap: Box::new(gap),
                policy,
            },
            options,
            reading: None,
            dialect: TextForm::of_text(begun),
            model,
        })));
    }
    let is_plain = system.is_none() && template.is_none() && before.is_none();
    let has_none = matches!(model.template, TemplateState::None) && is_plain;
    if own.raw == Some(true) || has_none {
        return Ok(Wanted::Answer(Box::new(Asked {
            source: PromptSource::Text {
                text: prompt,
                policy,
            },
            options,
            reading: None,
            dialect: TextForm::of_text(begun),
            model,
        })));
    }
    if template.is_none() {
        has_template(&model)?;
    }
    let is_written = template.is_some() || suffix.is_some();
    let is_asked = template.as_ref().is_some_and(asks_whether_to_think);
    let is_told = is_written && !is_asked && wish.thinking != Thinking::Default;
    options.ignored.extend(is_told.then_some("think"));
    let has_system = system.is_some();
    let is_said = has_system && before.is_some();
    options.ignored.extend(is_said.then_some("system"));
    let system = system.map(|system| Message::text(Role::System, system));
    let question = Message::text(Role::User, prompt);
    let mut messages: Vec<Message> = system.into_iter().chain([question]).collect();
    show_format(state, &options, &mut messages);
    let mut request = render_request(state, &wish, (messages, Vec::new()));
    request.template = match suffix {
        Some(_) => for_gap.map(|template| ClientTemplate { suffix, ..template }),
        None => template,
    };
    let is_gap = request
        .template
        .as_ref()
        .is_some_and(|it| it.suffix.is_some());
    let Opened { ids, is_own } = before.unwrap_or_default();
    let turn = ConversationTurn {
        before: ids,
        may_control: is_own || may_control,
        kept_tokens,
        request,
    };
    let goes_on = (model.tokenizer_json.is_some() && !is_gap).then(|| GoesOn {
        client: context.client.clone(),
        turn: turn.clone(),
        key: state.sealing.clone(),
    });
    Ok(Wanted::Answer(Box::new(Asked {
        source: match turn.before.is_empty() {
            true => PromptSource::Conversation(Box::new(turn.request)),
            false => PromptSource::GoesOn(Box::new(turn)),
        },
        options,
        reading: Some(reading(&model)),
        dialect: TextForm {
            begun,
            has_system,
            goes_on,
        },
        model,
    })))
}

fn asks_whether_to_think(template: &ClientTemplate) -> bool {
    let parsed = GoTemplate::parse(&template.source);
    parsed.is_ok_and(|template| template.mentions(GoField::Think))
}

/// The template that writes what is around a gap: the request's own, or the model's where a request has made it, if
/// that has a place for it.
pub(super) fn gap_template(
    model: &InstalledModel,
    template: Option<&ClientTemplate>,
) -> Option<ClientTemplate> {
    let variant = model.variant.as_ref();
    let template = template.cloned();
    let template = template.or_else(|| variant.and_then(|variant| variant.client_template()))?;
    let parsed = GoTemplate::parse(&template.source).ok()?;
    parsed.writes(GoField::Suffix).then_some(template)
}
