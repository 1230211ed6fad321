//! What only `/api/generate` is asked with: which of it is refused, what its own template costs, and which field is
//! blamed for what a reader finds in it.

use utoipa::ToSchema;

use super::context::{CONTEXT, TokenIds};
use super::making::go_template;
use super::parameters::refuse_images;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::free_form::Outline;
use crate::http::request::together::fields_of;
use crate::models::InstalledModel;
use crate::prompt::ClientTemplate;
use crate::reader::ReaderError;

/// The field with what is asked.
pub(super) const PROMPT: &str = "prompt";

/// The steps of a template take so many times the memory of its text, while it is read.
const TEMPLATE_STEPS: usize = 80;

/// What only `/api/generate` takes.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct OllamaTextParameters {
    /// A question to the model, or with `raw` the text that it continues; an empty one loads the model,
    /// or unloads it where `keep_alive` is 0.
    pub(super) prompt: Option<String>,
    /// What the model is told before.
    pub(super) system: Option<String>,
    /// The prompt is all that the model gets, with no template around it. Default false; true where the
    /// model has no template.
    pub(super) raw: Option<bool>,
    /// What follows the gap that the answer fills, for a model that can `insert`, or with a `template` that has a place
    /// for it; `prompt` is before it. Not with `raw` or `context`, and without a `template` `system` is not applied.
    pub(super) suffix: Option<String>,
    /// How the prompt is written, in the place of the model's template: a template in the words of Ollama's, which are
    /// Go's, with `.Messages`, or `.System`, `.Prompt`, `.Response` and `.Suffix`. What it writes is text, unless
    /// `special` makes control tokens of it; what stands in its place of a prompt always is. Not with `raw`.
    pub(super) template: Option<String>,
    /// The conversation so far, as the last answer had it in its `context`: the prompt is what comes next. `system` is
    /// not applied then. Ids that no answer here had are taken as ids of the model's tokens, of which control tokens
    /// need `special`. Of a model whose tokenizer is known, and not with `raw`.
    #[schema(value_type = Option<Vec<i32>>)]
    pub(super) context: Option<TokenIds>,
    /// Whether texts of control tokens in `template`, and in a `prompt` with `raw` or `suffix`, become those tokens, and
    /// their ids may be in a client's own `context`. True needs an administrator's key, where keys are asked for, or
    /// `chat.raw-completions`, which is its default.
    pub(super) special: Option<bool>,
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

impl OllamaTextParameters {
    pub(super) fn refuse_unsupported(
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

    /// The request's own template, once what reading it takes is charged to the request.
    pub(super) fn template(
        &self,
        context: &RequestContext,
        model: &InstalledModel,
        may_control: bool,
    ) -> Result<Option<ClientTemplate>, RequestError> {
        let in_template = self.template.as_ref().map_or(0, String::len);
        context.hold(context.held() + in_template * TEMPLATE_STEPS)?;
        let template = go_template(self.template.as_deref(), model)?;
        Ok(template.map(|source| ClientTemplate {
            source,
            suffix: None,
            may_control,
        }))
    }
}

/// Says an error of the conversation that is rendered, which is not the client's, of the field that the client wrote.
pub(super) fn blamed(error: RequestError, has_system: bool) -> RequestError {
    match error {
        RequestError::ControlToken { param, token } if param.starts_with("messages") => {
            let param = match param.starts_with("messages[0]") && has_system {
                true => "system".to_owned(),
                false => PROMPT.to_owned(),
            };
            RequestError::ControlToken { param, token }
        }
        // Nothing else of such a request is ids of tokens.
        RequestError::Reader(ReaderError::NoSuchToken { index }) => RequestError::out_of_range(
            format!("{CONTEXT}[{index}]"),
            "is not a token of this model",
        ),
        RequestError::TemplateRefused { reason, .. } => {
            let param = PROMPT;
            RequestError::TemplateRefused { reason, param }
        }
        // A prompt with a NUL, which is of the conversation before this question.
        RequestError::OutOfRange { param, requirement } if param == "chat_template_kwargs" => {
            RequestError::out_of_range(PROMPT, requirement)
        }
        other => other,
    }
}
