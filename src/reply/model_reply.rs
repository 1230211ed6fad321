use super::{FoundFormat, Marker, ReplyOptions, ReplyParser, ReplyReader, Unreasonable};

/// What is known of a model's replies, ready for use.
#[derive(Clone, Debug)]
pub struct ModelReply {
    pub found: FoundFormat,
    /// Why what was found is not used.
    pub unused: Option<Unreasonable>,
    reader: ReplyReader,
}

/// How the reply to one request is to be read.
#[derive(Clone, Debug)]
pub struct ReplyPlan {
    /// Before the first token.
    pub parser: ReplyParser,
    /// The answer ends with its first call.
    pub one_call: bool,
    /// Whether thoughts are told apart from content.
    pub tells_thoughts: bool,
    /// `None`: a thought may be as long as it likes.
    pub thought_budget: Option<ThoughtBudget>,
    /// Markers that are tokens, by their ids. The runtime does not print all of them.
    markers: std::sync::Arc<[(i32, String)]>,
}

/// How much may be thought before an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThoughtBudget {
    /// With markers that the model wrote, as reasoning tokens are counted.
    pub tokens: u32,
    /// What closes a thought that has used them.
    pub close: Marker,
}

impl ModelReply {
    /// A format that cannot be one is not used: all of a reply is content then, and `unused` says why.
    pub fn new(mut found: FoundFormat) -> Self {
        let unused = found.format.check().err();
        if unused.is_some() {
            found = FoundFormat {
                template: found.template,
                ..FoundFormat::default()
            };
        }
        Self {
            reader: ReplyReader::new(&found.format),
            found,
            unused,
        }
    }

    /// `None`: whatever such a reply holds is content. `thought_tokens`: the most tokens of thoughts.
    pub fn plan(
        &self,
        options: &ReplyOptions,
        one_call: bool,
        thought_tokens: Option<u32>,
    ) -> Option<ReplyPlan> {
        let mut format = self.found.format.clone();
        let reasoning = format.reasoning.as_ref();
        // Kept in the content, a marker that the runtime does not print is printed for it.
        let has_tokens = reasoning
            .is_some_and(|reasoning| reasoning.open.id.is_some() || reasoning.close.id.is_some());
        let tells_thoughts = (reasoning.is_some() || format.harmony) && !options.keeps_thoughts;
        if !tells_thoughts && options.tools.is_none() && !has_tokens && !format.harmony {
            return None;
        }
        let close = reasoning.map(|reasoning| &reasoning.close);
        let close = close.filter(|close| tells_thoughts && !close.text.is_empty());
        let thought_budget = thought_tokens.zip(close).map(|(tokens, close)| {
            let close = close.clone();
            ThoughtBudget { tokens, close }
        });
        let mut markers: Vec<(i32, String)> = format
            .markers_mut()
            .into_iter()
            .filter_map(|marker| Some((marker.id?, marker.text.clone())))
            .collect();
        let of_messages = self.found.format.harmony_ids.iter();
        markers.extend(of_messages.map(|(text, id)| (*id, text.clone())));
        Some(ReplyPlan {
            parser: self.reader.parser(options),
            one_call,
            tells_thoughts,
            thought_budget,
            markers: markers.into(),
        })
    }
}

impl ReplyPlan {
    /// The text of a marker that is this token.
    pub fn marker(&self, id: i32) -> Option<&str> {
        let marker = self.markers.iter().find(|(of, _)| *of == id);
        marker.map(|(_, text)| text.as_str())
    }
}
