//! What can be the format of a model's replies at all. One may come from a stranger's template by a
//! reader, which the daemon does not trust, and its markers are looked for in every answer.

use super::format::{CallBody, ReplyFormat};

const MOST_MARKER_BYTES: usize = 256;
const MOST_LEAD_BYTES: usize = 16;
const MOST_LABEL_BYTES: usize = 64;
const MOST_MARKERS: usize = 64;

/// Why a format cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreasonable {
    #[error("it has {count} markers, and {MOST_MARKERS} is the most")]
    TooManyMarkers { count: usize },
    #[error("{what} `{start}…` has {bytes} bytes, and {most} is the most")]
    TooLong {
        what: &'static str,
        /// What it begins with.
        start: String,
        bytes: usize,
        most: usize,
    },
    #[error(
        "{bytes} bytes of white space stand before the marker `{marker}`, and {MOST_LEAD_BYTES} is the most"
    )]
    LongLead { marker: String, bytes: usize },
}

/// Characters that are told of a text that is too long.
const TOLD_CHARS: usize = 24;

fn is_short(what: &'static str, text: &str, most: usize) -> Result<(), Unreasonable> {
    if text.len() <= most {
        return Ok(());
    }
    Err(Unreasonable::TooLong {
        what,
        start: text.chars().take(TOLD_CHARS).collect(),
        bytes: text.len(),
        most,
    })
}

impl ReplyFormat {
    /// Whether its markers are as short as markers are, and as few.
    pub fn is_reasonable(&self) -> bool {
        self.check().is_ok()
    }

    /// What of it is longer, or more, than a format has.
    pub fn check(&self) -> Result<(), Unreasonable> {
        let mut format = self.clone();
        let markers = format.markers_mut();
        let count = markers.len() + self.harmony_ids.len();
        if count > MOST_MARKERS {
            return Err(Unreasonable::TooManyMarkers { count });
        }
        for marker in markers {
            is_short("the marker", &marker.text, MOST_MARKER_BYTES)?;
            if marker.lead.len() > MOST_LEAD_BYTES {
                return Err(Unreasonable::LongLead {
                    marker: marker.text.clone(),
                    bytes: marker.lead.len(),
                });
            }
        }
        for (text, _) in &self.harmony_ids {
            is_short("the token", text, MOST_MARKER_BYTES)?;
        }
        if let Some(reasoning) = &self.reasoning {
            is_short("the label", &reasoning.label, MOST_LABEL_BYTES)?;
        }
        for calls in self.calls.iter().chain(&self.also_calls) {
            let words: Vec<&str> = match &calls.body {
                CallBody::Json(keys) => {
                    let id = keys.id.as_deref().unwrap_or_default();
                    vec![&keys.name, &keys.arguments, id]
                }
                CallBody::KeyValues { before_name, .. } => vec![before_name],
                _ => Vec::new(),
            };
            for word in words {
                is_short("the key", word, MOST_MARKER_BYTES)?;
            }
        }
        Ok(())
    }

    /// Cuts white space before markers to what is looked for.
    pub fn with_short_leads(mut self) -> Self {
        for marker in self.markers_mut() {
            let mut from = marker.lead.len().saturating_sub(MOST_LEAD_BYTES);
            while !marker.lead.is_char_boundary(from) {
                from += 1;
            }
            marker.lead.drain(..from);
        }
        self
    }
}
