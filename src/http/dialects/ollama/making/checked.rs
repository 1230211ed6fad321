//! What a request to make, copy or remove a model comes to, checked: nothing is made here.

use std::sync::Arc;
use std::time::SystemTime;

use super::{CopyRequest, CreateRequest, FILES, Made};
use crate::conversation::{Message, Role};
use crate::generation::ModelId;
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::Without;
use crate::http::dialects::ollama::messages::conversation;
use crate::http::dialects::ollama::refused::NamedModel;
use crate::http::dialects::parameters::is_empty;
use crate::http::request::body::{Object, TextOrList, fields};
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::free_form::Outline;
use crate::http::request::installed::installed;
use crate::http::request::nul::refuse_nul;
use crate::models::{InstalledModel, LATEST, Variant, VariantValues};
use crate::prompt::{ChatMessage, ChatRole, GoTemplate};
use crate::reader::check_name;

pub(super) fn creating(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
) -> Result<Made, RequestError> {
    let asked: CreateRequest = fields(body)?;
    asked.refuse_unsupported()?;
    let named = NamedModel::new(asked.model, asked.name);
    let name = free_name(state, context, named.into_name(), "model")?;
    let from = asked.from.filter(|name| !name.is_empty());
    let from = from.ok_or_else(|| RequestError::missing("from"))?;
    let of = installed(state, context, Some(&from))?;
    let mut variant = copied(&of, name);
    if let Some(system) = asked.system.filter(|text| !text.is_empty()) {
        refuse_nul(&system, || "system".to_owned())?;
        variant.system = Some(system);
    }
    if let Some(messages) = asked.messages.filter(|messages| !messages.is_empty()) {
        let messages = conversation(messages, &of)?.into_iter().enumerate();
        variant.messages = messages
            .map(|(index, message)| plain_message(index, message))
            .collect::<Result<_, _>>()?;
    }
    if let Some(template) = go_template(asked.template.as_deref(), &of)? {
        variant.template = Some(template);
    }
    let mut not_applied = Vec::new();
    if let Some(Object(options)) = asked.parameters {
        let asked = options.read(state, &of).map_err(among_parameters)?;
        not_applied = asked.not_applied;
        // What it is made without it does not have of the model that it is made of either.
        let Without { seed, stop, .. } = asked.without;
        let of = &mut variant.values;
        of.seed = of.seed.filter(|_| !seed);
        if stop {
            of.stop.clear();
        }
        let mut values = VariantValues {
            sampling: asked.sampling,
            top_k_is_implied: asked.implied.contains(&"top_k") && asked.sampling.top_k.is_some(),
            seed: asked.draws.seed,
            min_p: asked.draws.min_p,
            max_new_tokens: asked.max_new_tokens,
            stop: asked.stop,
        };
        std::mem::swap(&mut values, &mut variant.values);
        variant.values.fill_in(values);
    }
    if let Some(license) = asked.license {
        variant.license = match license {
            TextOrList::Text(text) => vec![text],
            TextOrList::List(texts) => texts,
        };
        variant.license.retain(|text| !text.is_empty());
    }
    let limit = of.longest_prompt_bytes();
    if variant.bytes() > limit {
        return Err(RequestError::out_of_range(
            "system",
            format!(
                "must, with all other texts, have no more than {limit} bytes: no more fits the model's context"
            ),
        ));
    }
    Ok(Made {
        variant,
        of,
        stream: asked.stream != Some(false),
        not_applied,
    })
}

/// A template that a request brings, which has to be one that is understood here.
pub(in crate::http::dialects::ollama) fn go_template(
    source: Option<&str>,
    model: &InstalledModel,
) -> Result<Option<String>, RequestError> {
    let param = "template";
    let Some(source) = source.filter(|source| !source.is_empty()) else {
        return Ok(None);
    };
    // Before anything is made of it.
    let limit = model.longest_prompt_bytes();
    if source.len() > limit {
        return Err(RequestError::out_of_range(
            param,
            format!("must have no more than {limit} bytes: no more fits the model's context"),
        ));
    }
    refuse_nul(source, || param.to_owned())?;
    match GoTemplate::parse(source) {
        Ok(_) => Ok(Some(source.to_owned())),
        Err(error) => {
            let requirement = format!("is not understood in {error}");
            Err(RequestError::out_of_range(param, requirement))
        }
    }
}

impl CreateRequest {
    fn refuse_unsupported(&self) -> Result<(), RequestError> {
        let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let holds =
            |value: &Option<Outline>| value.as_ref().is_some_and(|Outline(it)| !is_empty(it));
        let refused = [
            ("files", holds(&self.files), FILES),
            ("adapters", holds(&self.adapters), FILES),
            (
                "quantize",
                given(&self.quantize),
                "no model is converted here",
            ),
            (
                "modelfile",
                given(&self.modelfile),
                "`from`, `system`, `messages` and `parameters` say the same",
            ),
        ];
        match refused.into_iter().find(|(_, is_given, _)| *is_given) {
            Some((param, _, reason)) => Err(RequestError::unsupported(param, reason)),
            None => Ok(()),
        }
    }
}

pub(super) fn copying(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
) -> Result<Made, RequestError> {
    let asked: CopyRequest = fields(body)?;
    let source = asked.source.filter(|name| !name.is_empty());
    let source = source.ok_or_else(|| RequestError::missing("source"))?;
    let of = installed(state, context, Some(&source))?;
    let name = free_name(state, context, asked.destination, "destination")?;
    Ok(Made {
        variant: copied(&of, name),
        of,
        stream: false,
        not_applied: Vec::new(),
    })
}

pub(super) fn deleting(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
) -> Result<Arc<InstalledModel>, RequestError> {
    let named: NamedModel = fields(body)?;
    installed(state, context, named.into_name().as_deref())
}

/// The same by another name.
fn copied(of: &InstalledModel, name: ModelId) -> Variant {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let created = now.map_or(0, |since| since.as_secs());
    match &of.variant {
        Some(variant) => Variant {
            name,
            created,
            ..Variant::clone(variant)
        },
        None => Variant {
            name,
            from: ModelId::clone(of.name()),
            created,
            system: None,
            messages: Vec::new(),
            template: None,
            values: VariantValues::default(),
            license: Vec::new(),
        },
    }
}

/// A name that no installed model answers to, or that of a made one which this client may replace.
fn free_name(
    state: &HttpState,
    context: &RequestContext,
    name: Option<String>,
    param: &'static str,
) -> Result<ModelId, RequestError> {
    let name = name.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| RequestError::missing(param))?;
    let name = name.strip_suffix(LATEST).unwrap_or(&name);
    if check_name(name).is_err() {
        return Err(RequestError::out_of_range(
            param,
            "must be a name of 1 to 200 bytes without characters that steer a terminal",
        ));
    }
    match state.engine.catalog().look_up(name) {
        Ok(model) if model.variant.is_none() => Err(RequestError::out_of_range(
            param,
            "is the name of an installed model, which stays as it is",
        )),
        // It is replaced, which is no less than to delete it. However it is spelled now.
        Ok(model) => {
            context.caller.check_model(model)?;
            Ok(ModelId::clone(model.name()))
        }
        Err(_) => Ok(name.into()),
    }
}

fn plain_message(index: usize, message: Message) -> Result<ChatMessage, RequestError> {
    let role = match message.role {
        Role::System | Role::Developer => ChatRole::System,
        Role::User => ChatRole::User,
        Role::Assistant => ChatRole::Assistant,
        Role::Tool => ChatRole::Tool,
    };
    let is_plain = message.tool_calls.is_empty() && message.reasoning.is_none();
    if role == ChatRole::Tool || !is_plain {
        return Err(RequestError::unsupported(
            format!("messages[{index}]"),
            "what a model is made with are texts, no calls, results or thoughts",
        ));
    }
    Ok(ChatMessage::new(role, message.parts.concat()))
}

/// The same error, of a field in `parameters`.
fn among_parameters(error: RequestError) -> RequestError {
    match error {
        RequestError::OutOfRange { param, requirement } => RequestError::OutOfRange {
            param: param.replacen("options", "parameters", 1),
            requirement,
        },
        other => other,
    }
}
