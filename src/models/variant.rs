//! A model that was made of an installed one by a request: the same files and the same worker, with a
//! beginning of its conversations and values of its own.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{InstalledModel, SharedPrefixes, TemplateState};
use crate::generation::{ModelId, SamplingRequest};
use crate::prompt::{ChatMessage, ChatRole, ClientTemplate, GoTemplate, RenderRequest};

/// What of it a request does not say otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Variant {
    pub name: ModelId,
    /// The installed model's id, or that of it with an adapter.
    pub from: ModelId,
    /// Seconds since the epoch.
    pub created: u64,
    /// What the model is told before a conversation without a system's message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// What is before each conversation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<ChatMessage>,
    /// What its conversations are written by, in Go's words. `None`: the model's own template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    #[serde(default)]
    pub values: VariantValues,
    /// As it was given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub license: Vec<String>,
}

/// Values of its runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct VariantValues {
    pub sampling: SamplingRequest,
    /// `sampling.top-k` is only how a temperature or a nucleus of 0 is made.
    pub top_k_is_implied: bool,
    pub seed: Option<i64>,
    pub min_p: Option<f32>,
    pub max_new_tokens: Option<u32>,
    pub stop: Vec<String>,
}

/// Why one could not be made or removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VariantError {
    #[error(
        "the model `{name}` cannot be made: there are {limit}, as many as `max-variants` in the [models] \
         settings allows"
    )]
    TooMany { name: String, limit: usize },
    #[error("the model `{name}` cannot be made or removed: {reason}")]
    Folder { name: String, reason: String },
}

impl VariantError {
    /// Where nothing is kept.
    pub fn nowhere(name: String) -> Self {
        let reason = "there is no folder to keep it in".to_owned();
        Self::Folder { name, reason }
    }
}

impl Variant {
    /// The model that it is.
    pub fn of(self, installed: &InstalledModel) -> InstalledModel {
        let mut model = InstalledModel::clone(installed);
        model.facts.aliases.clear();
        let most = &mut model.facts.max_new_tokens;
        *most = self.values.max_new_tokens.or(*most);
        if self.template.is_some() && !matches!(model.template, TemplateState::Usable { .. }) {
            model.template = TemplateState::Usable {
                failed_probe: None,
                shared: SharedPrefixes::default(),
            };
        }
        model.variant = Some(Arc::new(self));
        model
    }

    /// What its texts take.
    pub fn bytes(&self) -> usize {
        let messages = self.messages.iter().map(|message| message.content.len());
        let system = self.system.as_ref().map_or(0, String::len);
        let license = self.license.iter().map(String::len);
        let template = self.template.as_ref().map_or(0, String::len);
        system + template + messages.chain(license).sum::<usize>()
    }

    /// Whether functions have a place in its own template; also where it has none of its own.
    pub fn takes_functions(&self) -> bool {
        let template = self.template.as_deref().map(GoTemplate::parse);
        template.is_none_or(|read| read.is_ok_and(|template| template.takes_functions()))
    }

    /// Its own template. Who made it may write what structures prompts.
    pub fn client_template(&self) -> Option<ClientTemplate> {
        self.template.as_ref().map(|source| ClientTemplate {
            source: source.clone(),
            suffix: None,
            may_control: true,
        })
    }

    /// Has a conversation written by its template, unless that brings another one.
    pub fn lend_template(&self, conversation: &mut RenderRequest) {
        let template = &mut conversation.template;
        *template = template.take().or_else(|| self.client_template());
    }

    /// Puts its beginning before a conversation.
    pub fn begin(&self, conversation: &mut RenderRequest) {
        self.lend_template(conversation);
        let own = conversation.messages.iter();
        let is_system = |message: &&ChatMessage| message.role == ChatRole::System;
        let systems = own.take_while(is_system).count();
        let system = self.system.as_ref().filter(|_| systems == 0);
        let system = system.map(|text| ChatMessage::new(ChatRole::System, text));
        let first: Vec<ChatMessage> = system
            .into_iter()
            .chain(self.messages.iter().cloned())
            .collect();
        conversation.insert(systems, first);
    }
}

impl VariantValues {
    /// What these do not say is as in `others`.
    pub fn fill_in(&mut self, others: Self) {
        let is_implied = match self.sampling.top_k {
            Some(_) => self.top_k_is_implied,
            None => others.top_k_is_implied,
        };
        *self = Self {
            sampling: others.sampling(self.sampling),
            top_k_is_implied: is_implied,
            seed: self.seed.or(others.seed),
            min_p: self.min_p.or(others.min_p),
            max_new_tokens: self.max_new_tokens.or(others.max_new_tokens),
            stop: match self.stop.is_empty() {
                true => others.stop,
                false => std::mem::take(&mut self.stop),
            },
        };
    }

    /// As a request would ask for it; `model`: what the model does by itself.
    pub fn as_given(&self, model: SamplingRequest) -> SamplingRequest {
        let mut given = self.sampling;
        if self.top_k_is_implied {
            // Both are 1 where one of them was 0.
            given.top_k = None;
            given.temperature = Some(0.0);
        }
        Self {
            sampling: model,
            ..Self::default()
        }
        .sampling(given)
    }

    /// The sampling of a run for which a request says so much.
    pub fn sampling(&self, asked: SamplingRequest) -> SamplingRequest {
        let own = &self.sampling;
        let is_told = asked.temperature.is_some() || asked.top_p.is_some();
        SamplingRequest {
            temperature: asked.temperature.or(own.temperature),
            top_p: asked.top_p.or(own.top_p),
            top_k: asked
                .top_k
                .or(own.top_k.filter(|_| !(is_told && self.top_k_is_implied))),
            repeat_penalty: asked.repeat_penalty.or(own.repeat_penalty),
            presence_penalty: asked.presence_penalty.or(own.presence_penalty),
            frequency_penalty: asked.frequency_penalty.or(own.frequency_penalty),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variant(system: Option<&str>, messages: &[&str]) -> Variant {
        let messages = messages.iter();
        Variant {
            name: "mine".into(),
            from: "m".into(),
            created: 0,
            system: system.map(str::to_owned),
            messages: messages
                .map(|text| ChatMessage::new(ChatRole::User, *text))
                .collect(),
            template: None,
            values: VariantValues::default(),
            license: Vec::new(),
        }
    }

    fn begun(variant: &Variant, messages: &[(ChatRole, &str)]) -> (Vec<String>, Vec<usize>) {
        let messages = messages.iter();
        let messages = messages.map(|(role, text)| ChatMessage::new(*role, *text));
        let mut asked = RenderRequest::new(messages.collect(), jiff::civil::DateTime::default());
        variant.begin(&mut asked);
        let texts = asked.messages.into_iter().map(|message| message.content);
        (texts.collect(), asked.sent_at)
    }

    #[test]
    fn a_conversation_has_one_system_and_the_clients_goes_first() {
        let user = (ChatRole::User, "hi");
        let (texts, sent_at) = begun(&variant(Some("be kind"), &["a"]), &[user]);
        assert_eq!(texts, ["be kind", "a", "hi"]);
        assert_eq!(sent_at.last(), Some(&0), "the client's is its first");
        let system = (ChatRole::System, "be brief");
        let (texts, sent_at) = begun(&variant(Some("be kind"), &["a"]), &[system, user]);
        assert_eq!(texts, ["be brief", "a", "hi"]);
        assert_eq!((sent_at[0], sent_at[2]), (0, 1));
        assert_eq!(begun(&variant(None, &[]), &[user]).0, ["hi"]);
    }

    #[test]
    fn a_request_says_otherwise_value_by_value() {
        let greedy = VariantValues {
            sampling: SamplingRequest {
                temperature: Some(1.0),
                top_k: Some(1),
                repeat_penalty: Some(1.1),
                ..SamplingRequest::default()
            },
            top_k_is_implied: true,
            ..VariantValues::default()
        };
        assert_eq!(greedy.sampling(SamplingRequest::default()), greedy.sampling);
        let asked = SamplingRequest {
            temperature: Some(0.5),
            ..SamplingRequest::default()
        };
        let sampling = greedy.sampling(asked);
        assert_eq!((sampling.temperature, sampling.top_k), (Some(0.5), None));
        assert_eq!(sampling.repeat_penalty, Some(1.1));
    }
}
