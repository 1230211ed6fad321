//! The format of a model's replies, as data: what stands around a thought and around a call, and
//! how a call is written. It travels from the reader, which learns it, to the daemon, which parses.

use serde::{Deserialize, Serialize};

/// A text that a model writes for its readers' machine, not for its readers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Marker {
    /// White space before it that belongs to it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub lead: String,
    pub text: String,
    /// The token that it is. `None`: it is made of ordinary tokens, or its token is not known, and
    /// its text is what it is known by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<i32>,
}

impl Marker {
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    #[must_use]
    pub fn after(mut self, lead: impl Into<String>) -> Self {
        self.lead = lead.into();
        self
    }
}

/// What stands before and behind something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Around {
    pub open: Marker,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close: Option<Marker>,
}

impl Around {
    pub fn new(open: &str, close: &str) -> Self {
        Self {
            open: Marker::text(open),
            close: Some(Marker::text(close)),
        }
    }
}

/// How a model writes a thought.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reasoning {
    pub open: Marker,
    /// Text right behind the opener that belongs to it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub label: String,
    pub close: Marker,
    /// A prompt may end with the opener, or with an empty thought: a closer without an opener in the answer
    /// is then one all the same.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub opened_by_prompts: bool,
}

impl Reasoning {
    pub fn new(open: impl Into<String>, close: Marker) -> Self {
        Self {
            open: Marker::text(open),
            close,
            ..Self::default()
        }
    }

    /// Whether a prompt that ends like this has opened a thought, and perhaps closed it.
    pub fn is_opened_at_the_end_of(&self, prompt: &str) -> bool {
        let end = prompt.trim_end();
        let close = (!self.close.text.is_empty()).then_some(self.close.text.as_str());
        let end = close
            .and_then(|close| end.strip_suffix(close))
            .unwrap_or(end);
        let end = end.trim_end();
        let end = end.strip_suffix(self.label.trim()).unwrap_or(end);
        !self.open.text.is_empty() && end.trim_end().ends_with(&self.open.text)
    }
}

/// How a model writes calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// Around all calls of an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section: Option<Around>,
    /// Around each call; more than one where models write one thing or another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub call: Vec<Around>,
    /// An answer that begins as the JSON of a call is one, also without a marker.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bare_json: bool,
    /// Behind a marker a call may also be written as Python writes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub also_python: bool,
    /// Markers behind a call's opener that say nothing more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Marker>,
    pub body: CallBody,
}

impl Calls {
    /// Calls between these markers, and in no other form.
    pub fn new(call: Vec<Around>, body: CallBody) -> Self {
        Self {
            section: None,
            call,
            bare_json: false,
            also_python: false,
            skipped: Vec::new(),
            body,
        }
    }
}

/// What is between a call's markers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallBody {
    /// An object, a list of objects, or one object behind the other.
    Json(JsonKeys),
    /// A name, then its arguments as JSON.
    NameThenJson(NameThenJson),
    /// A name, then each parameter in markers of its own.
    Parameters(Parameters),
    /// `call:NAME{key:<quote>text<quote>,other:1}`.
    KeyValues { before_name: String, quote: Marker },
    /// `[name(key="text", other=1)]`.
    Python,
}

/// The keys of a call in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JsonKeys {
    /// Empty: the name is itself the key, and the arguments are its value.
    pub name: String,
    pub arguments: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

impl JsonKeys {
    pub fn new(name: &str, arguments: &str) -> Self {
        Self {
            name: name.to_owned(),
            arguments: arguments.to_owned(),
            id: None,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NameThenJson {
    /// What is between the call's opener and this is no part of the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_name: Option<Marker>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<IdPlace>,
    pub before_arguments: Marker,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_arguments: Option<Marker>,
}

/// Where a call's id stands that is not in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdPlace {
    /// Between the call's opener and the name.
    BeforeName,
    /// Behind the name and this.
    Behind(Marker),
    /// The name is a part of it: `functions.NAME:0`.
    AroundName,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Parameters {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_name: Option<Marker>,
    pub after_name: Marker,
    pub before_key: Marker,
    pub after_key: Marker,
    /// `None`: the value stands right behind `after_key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_value: Option<Marker>,
    pub after_value: Marker,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_arguments: Option<Marker>,
    /// A value may stand in `<![CDATA[` and `]]>`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub has_cdata: bool,
}

/// Everything that is known of how a model replies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReplyFormat {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<Reasoning>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<Calls>,
    /// Another form of calls, which is read beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub also_calls: Option<Calls>,
    /// Around content, where it has markers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Around>,
    /// Messages with headers that name a channel and a recipient, as gpt-oss writes them; the parts
    /// above are not read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub harmony: bool,
    /// Tokens of the format that are neither around a thought nor around a call, by their texts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub harmony_ids: Vec<(String, i32)>,
}

/// What a prompt has opened that the answer goes on in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OpenedIn {
    #[default]
    Content,
    Reasoning,
    /// In the middle of a thought, of which the prompt has words: white space belongs to it.
    BegunReasoning,
}

impl ReplyFormat {
    /// What the end of a prompt has opened. `begun`: what of the answer itself the prompt ends with.
    pub fn opened_by(&self, before: &str, begun: &str) -> OpenedIn {
        let Some(reasoning) = &self.reasoning else {
            return OpenedIn::Content;
        };
        let last = |marker: &Marker| match marker.text.is_empty() {
            true => None,
            false => begun.rfind(&marker.text),
        };
        match (last(&reasoning.open), last(&reasoning.close)) {
            (None, None) => {}
            (Some(open), close) if Some(open) > close => {
                let thought = begun[open + reasoning.open.text.len()..].trim();
                return match thought == reasoning.label.trim() {
                    true => OpenedIn::Reasoning,
                    false => OpenedIn::BegunReasoning,
                };
            }
            _ => return OpenedIn::Content,
        }
        let end = before.trim_end();
        let end = match reasoning.label.is_empty() {
            true => end,
            false => end.strip_suffix(reasoning.label.trim()).unwrap_or_default(),
        };
        match !reasoning.open.text.is_empty() && end.ends_with(&reasoning.open.text) {
            true if begun.trim().is_empty() => OpenedIn::Reasoning,
            true => OpenedIn::BegunReasoning,
            false => OpenedIn::Content,
        }
    }

    /// Every marker of the format.
    pub fn markers_mut(&mut self) -> Vec<&mut Marker> {
        let mut markers = Vec::new();
        if let Some(reasoning) = &mut self.reasoning {
            markers.extend([&mut reasoning.open, &mut reasoning.close]);
        }
        if let Some(content) = &mut self.content {
            markers.push(&mut content.open);
            markers.extend(&mut content.close);
        }
        for calls in self.calls.iter_mut().chain(&mut self.also_calls) {
            markers.extend(&mut calls.skipped);
            for around in calls.section.iter_mut().chain(&mut calls.call) {
                markers.push(&mut around.open);
                markers.extend(&mut around.close);
            }
            match &mut calls.body {
                CallBody::Json(_) | CallBody::Python => {}
                CallBody::NameThenJson(body) => {
                    markers.extend(&mut body.before_name);
                    if let Some(IdPlace::Behind(marker)) = &mut body.id {
                        markers.push(marker);
                    }
                    markers.push(&mut body.before_arguments);
                    markers.extend(&mut body.after_arguments);
                }
                CallBody::Parameters(body) => {
                    markers.extend(&mut body.before_name);
                    markers.extend([
                        &mut body.after_name,
                        &mut body.before_key,
                        &mut body.after_key,
                        &mut body.after_value,
                    ]);
                    markers.extend(&mut body.before_value);
                    markers.extend(&mut body.after_arguments);
                }
                CallBody::KeyValues { quote, .. } => markers.push(quote),
            }
        }
        markers
    }

    /// Takes the tokens that the markers are from the model's tokenizer; `id_of` knows the texts of
    /// whole tokens. A marker that goes on behind its token is divided.
    pub fn with_ids(mut self, id_of: &dyn Fn(&str) -> Option<i32>) -> Self {
        if let Some(reasoning) = &mut self.reasoning
            && let Some(rest) = divide(&mut reasoning.open, id_of)
        {
            reasoning.label.insert_str(0, rest.trim());
        }
        for calls in self.calls.iter_mut().chain(&mut self.also_calls) {
            let mut rests = Vec::new();
            for around in &mut calls.call {
                let mut rest = divide(&mut around.open, id_of).map(Marker::text);
                while let Some(mut marker) = rest.take() {
                    rest = divide(&mut marker, id_of).map(Marker::text);
                    rests.push(marker);
                }
            }
            rests.retain(|marker| !marker.text.trim().is_empty());
            calls.skipped.extend(rests);
        }
        for marker in self.markers_mut() {
            marker.id = id_of(&marker.text);
        }
        if self.harmony {
            let texts = super::harmony::TOKENS.iter();
            self.harmony_ids = texts
                .filter_map(|text| Some(((*text).to_owned(), id_of(text)?)))
                .collect();
        }
        self
    }
}

/// Leaves of a marker the token that it begins with, if there is one and it is not all of it, and
/// gives back the rest.
fn divide(marker: &mut Marker, id_of: &dyn Fn(&str) -> Option<i32>) -> Option<String> {
    if id_of(&marker.text).is_some() {
        return None;
    }
    let ends = marker.text.match_indices(['>', ']']);
    let end = ends
        .map(|(at, _)| at + 1)
        .find(|end| id_of(&marker.text[..*end]).is_some())?;
    Some(marker.text.split_off(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_opens_a_thought_by_its_end_or_by_the_answer_that_it_begins() {
        let format = ReplyFormat {
            reasoning: Some(Reasoning::new("<think>", Marker::text("</think>"))),
            ..ReplyFormat::default()
        };
        for (before, begun, expected) in [
            ("a: ", "", OpenedIn::Content),
            ("a: <think>\n", "", OpenedIn::Reasoning),
            ("a: <think>\n", "Let me", OpenedIn::BegunReasoning),
            ("a: <think>\n", "so</think>It", OpenedIn::Content),
            ("a: ", "<think>\n", OpenedIn::Reasoning),
            ("a: ", "<think>\nLet me", OpenedIn::BegunReasoning),
            ("a: ", "<think>so</think>It", OpenedIn::Content),
            (
                "a: ",
                "<think>so</think>It <think>or",
                OpenedIn::BegunReasoning,
            ),
            ("u: <think> a: ", "It", OpenedIn::Content),
        ] {
            assert_eq!(
                format.opened_by(before, begun),
                expected,
                "{before}|{begun}"
            );
        }
    }
}
