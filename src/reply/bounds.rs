//! What can be the format of a model's replies at all. One may come from a stranger's template by a
//! reader, which the daemon does not trust, and its markers are looked for in every answer.

use super::format::{CallBody, ReplyFormat};

const MOST_MARKER_BYTES: usize = 256;
const MOST_LEAD_BYTES: usize = 16;
const MOST_LABEL_BYTES: usize = 64;
const MOST_MARKERS: usize = 64;

impl ReplyFormat {
    /// Whether its markers are as short as markers are, and as few.
    pub fn is_reasonable(&self) -> bool {
        let mut format = self.clone();
        let markers = format.markers_mut();
        let are_few = markers.len() + self.harmony_ids.len() <= MOST_MARKERS;
        let are_short = markers.iter().all(|marker| {
            marker.text.len() <= MOST_MARKER_BYTES && marker.lead.len() <= MOST_LEAD_BYTES
        });
        let label = self.reasoning.as_ref().map_or("", |found| &found.label);
        let calls = self.calls.as_ref();
        let words: Vec<&str> = match calls.map(|calls| &calls.body) {
            Some(CallBody::Json(keys)) => {
                vec![
                    &keys.name,
                    &keys.arguments,
                    keys.id.as_deref().unwrap_or_default(),
                ]
            }
            Some(CallBody::KeyValues { before_name, .. }) => vec![before_name],
            _ => Vec::new(),
        };
        let of_messages = self.harmony_ids.iter().map(|(text, _)| text.as_str());
        are_few
            && are_short
            && label.len() <= MOST_LABEL_BYTES
            && words
                .into_iter()
                .chain(of_messages)
                .all(|text| text.len() <= MOST_MARKER_BYTES)
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
