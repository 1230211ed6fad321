//! What a template writes of conversations that differ in one thing tells how its model replies: the
//! markers around a thought and a call, and how arguments are written.
//!
//! Nothing is taken on trust: a form of calls counts only if the answer that the template writes is
//! read as the calls that it was made of.

mod calls;
mod parts;
mod pieces;
mod probes;
mod reasoning;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashMap;

use super::families::ReplyFamily;
use super::format::{CallBody, ReplyFormat};
use super::found::{FormatSource, FoundFormat, TemplateTraits};

pub use probes::Conversation;

/// Renders a conversation; `None`: the template refuses it.
pub type Render<'r> = &'r dyn Fn(&Conversation) -> Option<String>;

/// What a template wrote of conversations: it may take long for each, and one that is looked at for several
/// things is rendered once. What it writes depends on the conversation alone, and so does its refusal: time is the
/// same in all, and a rendering has limits of its own. Few conversations are asked for.
#[derive(Default)]
pub struct Renderings(RefCell<HashMap<String, Option<String>>>);

impl Renderings {
    /// A template that writes more of so little is rendered again.
    const MOST_KEPT_BYTES: usize = 64 << 10;

    /// What `render` writes of `conversation`, or wrote.
    pub fn of(&self, conversation: &Conversation, render: Render<'_>) -> Option<String> {
        // With the order of fields, which a template can see and equality cannot.
        let key = format!("{conversation:?}");
        if let Some(written) = self.0.borrow().get(&key) {
            return written.clone();
        }
        let written = render(conversation);
        if written.as_ref().map_or(0, String::len) <= Self::MOST_KEPT_BYTES {
            self.0.borrow_mut().insert(key, written.clone());
        }
        written
    }
}

/// Finds how the model of a template replies. `source` is the template's text.
pub fn analyse(source: &str, render: Render<'_>) -> FoundFormat {
    let family = ReplyFamily::of_template(source);
    let probed = probes::Probed::new(render);
    let template = probed.traits();
    if family == Some(ReplyFamily::GptOss) {
        return of_family(ReplyFamily::GptOss, template);
    }
    let reasoning = reasoning::find(source, render);
    let calls = calls::find(source, &probed);
    let family_format = family.map(ReplyFamily::format).unwrap_or_default();
    let reasoning = reasoning.and_then(|found| {
        let format = ReplyFormat {
            reasoning: Some(found),
            ..ReplyFormat::default()
        };
        reasonable(format)?.reasoning
    });
    let calls = calls.and_then(|found| {
        let format = ReplyFormat {
            calls: Some(found),
            ..ReplyFormat::default()
        };
        reasonable(format)?.calls
    });
    let (reasoning, reasoning_from) = match (reasoning, family_format.reasoning) {
        (Some(found), _) => (Some(found), FormatSource::Template),
        (None, Some(known)) if source.contains(&known.close.text) => (
            Some(known),
            family.map_or(FormatSource::None, FormatSource::Family),
        ),
        _ => (None, FormatSource::None),
    };
    let (calls, calls_from) = match (calls, family_format.calls, family) {
        (Some(found), known, _) => {
            let mut found = found;
            // What models of the family write beside what their template says.
            if let Some(known) = known
                && matches!(
                    (&known.body, &found.body),
                    (CallBody::Json(_), CallBody::Json(_))
                )
            {
                found.bare_json |= known.bare_json;
                found.also_python |= known.also_python;
                let more = known.call.into_iter().filter(|around| {
                    found
                        .call
                        .iter()
                        .all(|found| found.open.text != around.open.text)
                });
                found.call.extend(more.collect::<Vec<_>>());
            }
            (Some(found), FormatSource::Template)
        }
        (None, Some(known), Some(family)) => (Some(known), FormatSource::Family(family)),
        _ => {
            let generic = ReplyFamily::Generic.format();
            (generic.calls, FormatSource::Generic)
        }
    };
    let reasoning = reasoning.map(|found| found.with_openings(render));
    FoundFormat {
        format: ReplyFormat {
            reasoning,
            calls,
            content: family_format.content,
            ..ReplyFormat::default()
        },
        reasoning_from,
        calls_from,
        template,
        notes: Vec::new(),
    }
}

/// What a template writes may be anything.
fn reasonable(format: ReplyFormat) -> Option<ReplyFormat> {
    let format = format.with_short_leads();
    format.is_reasonable().then_some(format)
}

fn of_family(family: ReplyFamily, template: TemplateTraits) -> FoundFormat {
    FoundFormat {
        format: family.format(),
        reasoning_from: FormatSource::Family(family),
        calls_from: FormatSource::Family(family),
        template,
        notes: Vec::new(),
    }
}
