//! What calls begin with, by which they are told apart from text.

use super::{CallBody, Calls, Marker, ReplyFormat};

impl Calls {
    /// A text that begins a call even where its marker is left out.
    pub fn own_opener(&self) -> Option<&Marker> {
        let before = match &self.body {
            CallBody::NameThenJson(body) => {
                let before = body.before_name.as_ref();
                before.filter(|marker| marker.text.starts_with('<'))
            }
            CallBody::Parameters(body) => body.before_name.as_ref(),
            _ => None,
        };
        before.filter(|marker| marker.id.is_none() && !marker.text.is_empty())
    }

    /// The markers that they begin with.
    fn openers(&self) -> impl Iterator<Item = &Marker> {
        let around = self.section.iter().chain(&self.call);
        let open = around.map(|around| &around.open);
        let open = open.filter(|open| open.id.is_some() || !open.text.is_empty());
        open.chain(self.own_opener())
    }
}

impl ReplyFormat {
    /// Whether some form of calls begins with a marker.
    pub fn begins_calls_with_markers(&self) -> bool {
        let has_marker = |calls: &Calls| calls.openers().next().is_some();
        !self.harmony && self.calls.as_ref().is_some_and(has_marker)
    }

    /// The texts that a call is read from, where they are what an answer begins with. Openers that are tokens are
    /// no texts.
    pub fn openers_in_text(&self) -> Vec<&str> {
        let all = || self.calls.iter().chain(&self.also_calls);
        let markers = all().flat_map(Calls::openers);
        let texts = markers.filter(|marker| marker.id.is_none());
        let mut texts: Vec<&str> = texts.map(|marker| &*marker.text).collect();
        if !self.begins_calls_with_markers() && all().any(|calls| calls.bare_json) {
            texts.extend(["{", "["]);
        }
        texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::{JsonKeys, ReplyFamily};

    #[test]
    fn a_marker_that_is_a_token_is_no_text() {
        let mut format = ReplyFamily::Hermes.format();
        assert!(format.begins_calls_with_markers());
        assert!(format.openers_in_text().contains(&"<tool_call>"));
        format = format.with_ids(&|text| (text == "<tool_call>").then_some(7));
        assert!(format.begins_calls_with_markers());
        assert!(!format.openers_in_text().contains(&"<tool_call>"));
    }

    #[test]
    fn json_begins_calls_where_no_marker_does() {
        let keys = JsonKeys::new("name", "arguments");
        let mut calls = Calls::new(Vec::new(), CallBody::Json(keys));
        calls.bare_json = true;
        let format = ReplyFormat {
            calls: Some(calls),
            ..ReplyFormat::default()
        };
        assert!(!format.begins_calls_with_markers());
        assert_eq!(format.openers_in_text(), ["{", "["]);
    }
}
