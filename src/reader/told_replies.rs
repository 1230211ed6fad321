//! What a model's files say outright of how it replies: `[replies]` in `model.toml`, then
//! `response_template` in `tokenizer_config.json`. Each goes before what is found of the template.

use serde::Deserialize;

use crate::reply::{
    Around, CallBody, Calls, FormatSource, FoundFormat, JsonKeys, Marker, Reasoning, ReplyFamily,
    ResponseTemplate,
};

/// The table `[replies]` of a `model.toml`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct Replies {
    /// How models of this family reply.
    family: Option<ReplyFamily>,
    thought: Option<ThoughtMarkers>,
    call: Option<CallMarkers>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct ThoughtMarkers {
    open: String,
    close: String,
}

/// Around a call, which is an object in JSON.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct CallMarkers {
    open: String,
    /// `None`: the call's JSON ends it.
    close: Option<String>,
    /// Keys of the object.
    #[serde(default = "name_key")]
    name: String,
    #[serde(default = "arguments_key")]
    arguments: String,
}

fn name_key() -> String {
    "name".to_owned()
}

fn arguments_key() -> String {
    "arguments".to_owned()
}

/// All that is said.
#[derive(Clone, Debug, Default)]
pub struct ToldReplies {
    pub(super) manifest: Replies,
    pub(super) checkpoint: ResponseTemplate,
}

impl Replies {
    pub fn check(&self) -> Result<(), String> {
        let thought = self.thought.iter();
        let thought = thought.flat_map(|markers| [&markers.open, &markers.close]);
        let call = self.call.iter().flat_map(|markers| {
            let close = markers.close.iter();
            [&markers.open, &markers.name, &markers.arguments]
                .into_iter()
                .chain(close)
        });
        if thought.chain(call).any(|text| text.trim().is_empty()) {
            return Err("replies holds an empty marker or key".into());
        }
        let has_markers = self.thought.is_some() || self.call.is_some();
        if has_markers && self.family.is_some_and(|family| family.format().harmony) {
            return Err("replies.family has its own form of messages and takes no markers".into());
        }
        Ok(())
    }

    fn tell(&self, found: &mut FoundFormat) {
        if let Some(family) = self.family {
            found.format = family.format();
            found.reasoning_from = FormatSource::ModelToml;
            found.calls_from = FormatSource::ModelToml;
        }
        if let Some(markers) = &self.thought {
            found.format.harmony = false;
            let close = Marker::text(markers.close.trim()).after("\n");
            found.format.reasoning = Some(Reasoning::new(markers.open.trim(), close));
            found.reasoning_from = FormatSource::ModelToml;
        }
        if let Some(markers) = &self.call {
            found.format.harmony = false;
            let around = Around {
                open: Marker::text(markers.open.trim()).after("\n"),
                close: markers
                    .close
                    .as_ref()
                    .map(|close| Marker::text(close.trim())),
            };
            let keys = JsonKeys::new(&markers.name, &markers.arguments);
            found.format.calls = Some(Calls::new(vec![around], CallBody::Json(keys)));
            found.calls_from = FormatSource::ModelToml;
        }
    }
}

impl ToldReplies {
    /// Puts what is said before what was found.
    pub fn tell(&self, found: &mut FoundFormat) {
        // Of messages with headers markers tell less than is known.
        let has_markers = !found.format.harmony;
        if let Some(reasoning) = &self.checkpoint.reasoning
            && has_markers
        {
            found.format.reasoning = Some(reasoning.clone());
            found.reasoning_from = FormatSource::ResponseTemplate;
        }
        // A model whose template shows it no functions is told of them in words, and of a form.
        if let Some(calls) = &self.checkpoint.calls
            && found.template.shows_tools
            && has_markers
        {
            found.format.calls = Some(calls.clone());
            found.calls_from = FormatSource::ResponseTemplate;
        }
        self.manifest.tell(found);
    }
}
