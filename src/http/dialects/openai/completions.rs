//! `POST /v1/completions`: a text that the model continues, without a chat template.

use axum::body::Body;
use axum::response::Response;
use utoipa::ToSchema;

use super::answer::{TextCompletion, TextForm};
use super::chunk::{TextWriter, UsageChunk};
use super::chunk_schema::TextChunk;
use super::logprobs::{self, Echo};
use crate::chat::{PromptSource, WholeReply};
use crate::generation::Completion;
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::{Asked, Asking, ChatDialect, Identity, Options};
use crate::http::dialects::embedding::input::EmbeddingInput;
use crate::http::dialects::embedding::{check_tokens, input};
use crate::http::dialects::format_fields::FormatParameters;
use crate::http::dialects::ignored::Ignored;
use crate::http::dialects::parameters::{SharedParameters, neutral, within_count};
use crate::http::dialects::permission::may_control;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::free_form::{Outline, ValuesLeft};
use crate::http::request::installed::installed;
use crate::http::request::nul::refuse_nul;
use crate::http::request::together::{Together, fields_of};
use crate::http::response::error_body::AnswerRefusals;
use crate::http::response::sse;
use crate::ipc::Prompt;
use crate::models::InstalledModel;
use crate::prompt::Gap;

/// OpenAI's own default for this endpoint.
const DEFAULT_MAX_TOKENS: u32 = 16;

/// What only `/v1/completions` takes.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct TextParameters {
    /// What to continue: a text or the ids of its tokens; or several of either, up to 64 unless
    /// `chat.max-prompts` says otherwise.
    #[schema(schema_with = input::schema, required)]
    prompt: Option<EmbeddingInput>,
    /// Whether texts of control tokens in the prompt become those tokens, and their ids may be among the
    /// prompt's. True needs an administrator's key, where keys are asked for, or `chat.raw-completions`, which is its
    /// default.
    special: Option<bool>,
    /// Whether the prompt stands before the answer in its text, and with `logprobs` its tokens among
    /// those that are told. Default false.
    echo: Option<bool>,
    /// What follows the gap that the answer fills, where the model's vocabulary has tokens for that. The
    /// prompt is a text then, or several, and not echoed.
    suffix: Option<String>,
    /// Only 1.
    #[schema(value_type = Option<i64>)]
    best_of: Option<Outline>,
    /// To tell how likely each token was, and how many of the likeliest tokens in each place beside it.
    /// Refused where the runtime cannot. Null and false: not at all.
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 5)]
    logprobs: Option<Outline>,
}

fields_of!(TextParameters {
    prompt,
    special,
    echo,
    suffix,
    best_of,
    logprobs
});

/// How a text is continued.
pub(crate) struct TextAnswer {
    usage: UsageChunk,
    tells_logprobs: bool,
    echoes: bool,
    /// The prompts, where they stand before their answers.
    echoed: Vec<Echo>,
    /// Answers to each prompt.
    of_prompt: usize,
}

impl TextAnswer {
    fn form(&self, choice: usize) -> TextForm {
        TextForm {
            echo: self.echoed.get(choice / self.of_prompt).cloned(),
            tells_logprobs: self.tells_logprobs,
        }
    }
}

impl ChatDialect for TextAnswer {
    const PROMPT_PARAM: &'static str = "prompt";
    type Writer = TextWriter;

    fn prompt_param(text: usize) -> String {
        let fields = [Self::PROMPT_PARAM, "suffix"];
        fields.get(text).unwrap_or(&Self::PROMPT_PARAM).to_string()
    }

    fn whole(
        &self,
        identity: &Identity,
        reply: WholeReply,
        completion: &Completion,
    ) -> serde_json::Result<Vec<u8>> {
        let replies = vec![(reply, completion.clone())];
        self.whole_of_all(identity, replies, completion)
    }

    fn whole_of_all(
        &self,
        identity: &Identity,
        replies: Vec<(WholeReply, Completion)>,
        all: &Completion,
    ) -> serde_json::Result<Vec<u8>> {
        let form = |choice| self.form(choice);
        serde_json::to_vec(&TextCompletion::of(identity, replies, all, form))
    }

    fn writer(&self, identity: &Identity) -> TextWriter {
        TextWriter::new(identity, self.usage, self.form(identity.choice))
    }

    fn rendered(&mut self, prompt: &Prompt) {
        if self.echoes {
            self.echoed.push(Echo::new(prompt.text.clone()));
        }
    }

    fn stream(body: Body) -> Response {
        sse::response(body)
    }
}

impl TextParameters {
    fn refuse_unsupported(&self) -> Result<(), RequestError> {
        let has_suffix = self
            .suffix
            .as_ref()
            .is_some_and(|suffix| !suffix.is_empty());
        if has_suffix && self.echo == Some(true) {
            return Err(RequestError::unsupported(
                "echo",
                "a prompt with a `suffix` is not echoed",
            ));
        }
        neutral(
            "best_of",
            &self.best_of,
            |n| n.as_f64() == Some(1.0),
            "only 1",
        )
    }
}

/// What prompts are made of, in order.
fn sources(
    state: &HttpState,
    model: &InstalledModel,
    prompt: Option<EmbeddingInput>,
    suffix: Option<&str>,
    may_control: bool,
) -> Result<Vec<PromptSource>, RequestError> {
    let of_text = |text: String, param: String| {
        refuse_nul(&text, || param.clone())?;
        let policy = (!may_control).then_some(state.chat.control_tokens);
        match suffix {
            Some(suffix) => {
                let gap = Box::new(Gap {
                    before: text,
                    behind: suffix.to_owned(),
                    ..Gap::default()
                });
                Ok(PromptSource::FillIn { gap, policy })
            }
            None if text.is_empty() => Err(empty(param)),
            None => Ok(PromptSource::Text { text, policy }),
        }
    };
    let of_tokens = |tokens: Vec<i32>, param: String| {
        if suffix.is_some() {
            return Err(RequestError::unsupported(
                "suffix",
                "it needs a prompt that is a text",
            ));
        }
        check_tokens(model, &tokens, &param)?;
        match tokens.is_empty() {
            true => Err(empty(param)),
            false => Ok(PromptSource::Tokens {
                tokens,
                may_control,
            }),
        }
    };
    let param = |index: usize| format!("prompt[{index}]");
    match prompt.ok_or_else(|| RequestError::missing("prompt"))? {
        EmbeddingInput::Text(text) => Ok(vec![of_text(text, "prompt".to_owned())?]),
        EmbeddingInput::Tokens(tokens) => Ok(vec![of_tokens(tokens, "prompt".to_owned())?]),
        EmbeddingInput::Texts(texts) => {
            within_count(&state.chat, texts.len())?;
            let texts = texts.into_iter().enumerate();
            texts
                .map(|(index, text)| of_text(text, param(index)))
                .collect()
        }
        EmbeddingInput::TokenLists(lists) => {
            within_count(&state.chat, lists.len())?;
            let lists = lists.into_iter().enumerate();
            lists
                .map(|(index, tokens)| of_tokens(tokens, param(index)))
                .collect()
        }
        EmbeddingInput::Nothing | EmbeddingInput::NoTexts => Err(RequestError::out_of_range(
            "prompt",
            "must hold something to continue",
        )),
    }
}

/// A model continues what it is given, and runtimes refuse to run on nothing.
fn empty(param: String) -> RequestError {
    RequestError::out_of_range(param, "must not be empty")
}

/// Continue a text
///
/// With `stream: true` the answer is a stream of `data:` lines, each a TextChunk, the last one
/// `[DONE]`; an error after the stream has begun is a `data:` line with an error object and ends it.
#[utoipa::path(post, path = "/v1/completions", tag = "openai",
    request_body(content = super::bodies::CompletionRequest),
    responses(
        (status = 200, description = "The continuation", content(
            (TextCompletion = "application/json"),
            (TextChunk = "text/event-stream"))),
        AnswerRefusals))]
pub(crate) async fn completions(asking: Asking) -> Result<Response, RequestError> {
    asking.answer(asked).await
}

/// What it takes, alone and as others do.
type Read =
    Together<SharedParameters, Together<TextParameters, Together<FormatParameters, Ignored>>>;

fn asked(
    state: &HttpState,
    context: &RequestContext,
    Together(shared, Together(own, Together(format, ignored))): Read,
) -> Result<Asked<TextAnswer>, RequestError> {
    let model = installed(state, context, shared.model.as_deref())?;
    own.refuse_unsupported()?;
    let echoes = own.echo == Some(true);
    let logprobs = logprobs::of_text(own.logprobs.as_ref(), echoes)?;
    let may_control = may_control(state, context, own.special)?;
    let suffix = own.suffix.as_deref().filter(|suffix| !suffix.is_empty());
    refuse_nul(suffix.unwrap_or_default(), || "suffix".to_owned())?;
    let sources = sources(state, &model, own.prompt, suffix, may_control)?;
    let mut sources = sources.into_iter();
    let source = sources.next();
    let max_new_tokens = shared.max_tokens()?.unwrap_or(DEFAULT_MAX_TOKENS);
    let mut options = Options {
        format: format.read(&mut ValuesLeft::of(&state.chat))?,
        ..shared.options(state, &model, Some(max_new_tokens), ignored)?
    };
    options.draws.logprobs = logprobs;
    options.more_prompts = sources.collect();
    let of_prompt = options.choices;
    Ok(Asked {
        model,
        source: source.ok_or_else(|| RequestError::missing("prompt"))?,
        options,
        reading: None,
        dialect: TextAnswer {
            usage: UsageChunk::of(&shared),
            tells_logprobs: logprobs.is_some(),
            echoes,
            echoed: Vec::new(),
            of_prompt,
        },
    })
}
