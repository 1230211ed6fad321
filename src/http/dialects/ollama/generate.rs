//! `POST /api/generate`: a question, by itself or in a conversation that a client keeps, or a text that the model
//! continues; without a prompt, the model is loaded or unloaded.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use utoipa::ToSchema;

use super::answer::{Begun, Figures, TextAnswer};
use super::context::{CONTEXT, ContextOf, Opened, TokenIds};
use super::error::AnswerRefusals;
use super::line_writer::{LineWriter, TextLines};
use super::loading::{self, Loading, Wanted};
use super::making::go_template;
use super::parameters::{Read, Run, reading, refuse_images, render_request, show_format};
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
use crate::http::request::free_form::Outline;
use crate::http::request::nul::refuse_nul;
use crate::http::request::together::{Together, fields_of};
use crate::http::response::ndjson;
use crate::models::{InstalledModel, TemplateState};
use crate::prompt::{ClientTemplate, Gap, GoField, GoTemplate};
use crate::reader::ReaderError;

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
    /// What follows the gap that the answer fills, for a model that can `insert`, or with a `template` that has a place
    /// for it; `prompt` is before it. Not with `raw` or `context`, and without a `template` `system` is not applied.
    suffix: Option<String>,
    /// How the prompt is written, in the place of the model's template: a template in the words of Ollama's, which are
    /// Go's, with `.Messages`, or `.System`, `.Prompt`, `.Response` and `.Suffix`. What it writes is text, unless
    /// `special` makes control tokens of it; what stands in its place of a prompt always is. Not with `raw`.
    template: Option<String>,
    /// The conversation so far, as the last answer had it in its `context`: the prompt is what comes next. `system` is
    /// not applied then. Ids that no answer here had are taken as ids of the model's tokens, of which control tokens
    /// need `special`. Of a model whose tokenizer is known, and not with `raw`.
    #[schema(value_type = Option<Vec<i32>>)]
    context: Option<TokenIds>,
    /// Whether texts of control tokens in `template`, and in a `prompt` with `raw` or `suffix`, become those tokens, and
    /// their ids may be in a client's own `context`. True needs an administrator's key, where keys are asked for, or
    /// `chat.raw-completions`, which is its default.
    special: Option<bool>,
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
    special,
    images,
});

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
            RequestError::ControlToken { param, token } if param.starts_with("messages") => {
                let param = match param.starts_with("messages[0]") && self.has_system {
                    true => "system".to_owned(),
                    false => Self::PROMPT_PARAM.to_owned(),
                };
                RequestError::ControlToken { param, token }
            }
            // Nothing else of such a request is ids of tokens.
            RequestError::Reader(ReaderError::NoSuchToken { index }) => RequestError::out_of_range(
                format!("{CONTEXT}[{index}]"),
                "is not a token of this model",
            ),
            RequestError::TemplateRefused { reason, .. } => {
                let param = Self::PROMPT_PARAM;
                RequestError::TemplateRefused { reason, param }
            }
            // A prompt with a NUL, which is of the conversation before this question.
            RequestError::OutOfRange { param, requirement } if param == "chat_template_kwargs" => {
                RequestError::out_of_range(Self::PROMPT_PARAM, requirement)
            }
            other => other,
        }
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

impl OllamaTextParameters {
    fn refuse_unsupported(
        &self,
        model: &InstalledModel,
        for_gap: Option<&ClientTemplate>,
    ) -> Result<(), RequestError> {
        let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let has_context = self.context.as_ref().is_some_and(|ids| !ids.is_empty());
        let fields = [
            ("system", given(&self.system)),
            ("suffix", given(&self.suffix)),
            ("template", given(&self.template)),
            (CONTEXT, has_context),
        ];
        let mut fields = fields.into_iter().filter(|(_, is_given)| *is_given);
        if self.raw == Some(true)
            && let Some((param, _)) = fields.next()
        {
            return Err(RequestError::out_of_range(
                param,
                "cannot be given with `raw`, with which the prompt is all that the model gets",
            ));
        }
        if given(&self.suffix) && has_context {
            return Err(RequestError::out_of_range(
                CONTEXT,
                "cannot be given with `suffix`: a gap is in no conversation",
            ));
        }
        let has_own = given(&self.template);
        let can_insert = for_gap.is_some() || (!has_own && model.facts.gap_markers.is_some());
        if given(&self.suffix) && !can_insert {
            return Err(RequestError::unsupported(
                "suffix",
                match has_own {
                    true => "the `template` has no place for it: `{{ .Suffix }}`".to_owned(),
                    false => format!("\"{}\" does not support insert", model.id),
                },
            ));
        }
        refuse_images(self.images.as_ref(), model, || "images".to_owned())
    }

    /// The request's own template.
    fn template(
        &self,
        model: &InstalledModel,
        may_control: bool,
    ) -> Result<Option<ClientTemplate>, RequestError> {
        let template = go_template(self.template.as_deref(), model)?;
        Ok(template.map(|source| ClientTemplate {
            source,
            suffix: None,
            may_control,
        }))
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

/// The steps of a template take so many times the memory of its text, while it is read.
const TEMPLATE_STEPS: usize = 80;

fn wanted(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
) -> Result<Wanted<TextForm>, RequestError> {
    let Together(Together(mut shared, own), unread): Read<OllamaTextParameters> = fields(body)?;
    let (model, begun, keep_alive) = shared.begun(state, context)?;
    let may_control = may_control(state, context, own.special)?;
    let in_template = own.template.as_ref().map_or(0, String::len);
    context.hold(context.held() + in_template * TEMPLATE_STEPS)?;
    let template = own.template(&model, may_control)?;
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
