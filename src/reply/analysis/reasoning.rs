//! The markers around a thought.

use serde_json::Value;

use super::Render;
use super::pieces::{common_tags_at_start, is_blank, is_whole, tags};
use super::probes::Conversation;
use super::probes::{ANSWER, QUESTION, THOUGHT, after_question, asked, message};
use crate::conversation::ReplyPiece;
use crate::reply::format::{Marker, Reasoning, ReplyFormat};
use crate::reply::{ReplyOptions, ReplyReader, ReplyToken};

pub(super) fn find(source: &str, render: Render<'_>) -> Option<Reasoning> {
    let openings = openings(render);
    let written = written(&openings, render);
    written.or_else(|| of_opening(source, &openings, render))
}

impl Reasoning {
    /// With whether prompts may end with a thought that is open, or with an empty one, where the template
    /// renders any that tells.
    #[must_use]
    pub fn with_openings(mut self, render: Render<'_>) -> Self {
        let thinking = |thinks: bool| [("enable_thinking", Value::from(thinks))];
        let opened = [&[][..], &thinking(true), &thinking(false)]
            .into_iter()
            .filter_map(|variables| render(&asked(variables, None)))
            .map(|prompt| self.is_opened_at_the_end_of(&prompt))
            .reduce(|some, more| some || more);
        self.opened_by_prompts = opened.unwrap_or(self.opened_by_prompts);
        self
    }
}

/// What stands between a question and its answer, in templates that write no thought there.
fn openings(render: Render<'_>) -> Vec<String> {
    let answered = Conversation {
        messages: vec![message("user", QUESTION), message("assistant", ANSWER)],
        ..Conversation::default()
    };
    let mut earlier = answered.clone();
    earlier.messages.push(message("user", "zqmore"));
    earlier.messages.push(message("assistant", "zqlast"));
    [answered, earlier]
        .iter()
        .filter_map(|conversation| {
            let written = render(conversation)?;
            let rest = after_question(&written)?;
            Some(rest[..rest.find(ANSWER)?].to_owned())
        })
        .collect()
}

/// By what the template writes around a thought.
fn written(openings: &[String], render: Render<'_>) -> Option<Reasoning> {
    let mut answer = message("assistant", ANSWER);
    answer.insert("reasoning_content".to_owned(), THOUGHT.into());
    let with_thought = Conversation {
        messages: vec![message("user", QUESTION), answer],
        variables: [("enable_thinking".to_owned(), true.into())]
            .into_iter()
            .collect(),
        ..Conversation::default()
    };
    let written = render(&with_thought)?;
    let rest = after_question(&written)?;
    let thought = rest.find(THOUGHT)?;
    let (before, behind) = (&rest[..thought], &rest[thought + THOUGHT.len()..]);
    let close = &behind[..behind.find(ANSWER)?];
    let mut own: Vec<&str> = openings
        .iter()
        .map(|opening| &before[common_tags_at_start(before, opening)..])
        .filter(|own| !own.trim().is_empty())
        .collect();
    own.sort_by_key(|own| own.len());
    let open = match own.first() {
        Some(own) => own.trim().to_owned(),
        // A template that writes an empty thought where there is none: the last tag is the opener.
        None => (*tags(before).iter().rev().find(|tag| !is_blank(tag))?).to_owned(),
    };
    let (open, label) = with_label(&open);
    let closer = close.trim();
    if open.is_empty() || closer.is_empty() {
        return None;
    }
    // Behind the closer the answer may have an opener of its own.
    let closer = tags(closer)
        .first()
        .copied()
        .filter(|tag| is_whole(tag))
        .unwrap_or(closer);
    let lead = &close[..close.len() - close.trim_start().len()];
    let reasoning = Reasoning {
        open: Marker::text(open),
        label,
        close: Marker::text(closer).after(lead),
        opened_by_prompts: false,
    };
    let start = before.rfind(&reasoning.open.text)?;
    let written = format!("{}{THOUGHT}{close}{ANSWER}", &before[start..]);
    is_read(&reasoning, written).then_some(reasoning)
}

/// Whether what the template writes is read as what it was made of.
fn is_read(reasoning: &Reasoning, text: String) -> bool {
    let reader = ReplyReader::new(&ReplyFormat {
        reasoning: Some(reasoning.clone()),
        ..ReplyFormat::default()
    });
    let mut parser = reader.parser(&ReplyOptions::default());
    let mut out = Vec::new();
    parser.push(ReplyToken { id: None, text }, &mut out);
    parser.finish(true, &mut out);
    out == [
        ReplyPiece::Reasoning(THOUGHT.to_owned()),
        ReplyPiece::Text(ANSWER.to_owned()),
    ]
}

/// `<open>label` in two.
fn with_label(open: &str) -> (String, String) {
    let parts = tags(open);
    let visible: Vec<&&str> = parts.iter().filter(|part| !is_blank(part)).collect();
    match visible.as_slice() {
        [tag, label] if tag.starts_with(['<', '[']) && !label.starts_with(['<', '[']) => {
            ((**tag).to_owned(), label.trim().to_owned())
        }
        _ => (open.to_owned(), String::new()),
    }
}

/// By what a prompt for an answer ends with; the closer is the opener's counterpart, which the
/// template must know.
fn of_opening(source: &str, openings: &[String], render: Render<'_>) -> Option<Reasoning> {
    let prompt = render(&asked(&[], None))?;
    let end = after_question(&prompt)?;
    let own = openings
        .iter()
        .map(|opening| end[common_tags_at_start(end, opening)..].trim())
        .filter(|own| !own.is_empty())
        .min_by_key(|own| own.len());
    let pairs = own.map(|open| (open.to_owned(), counterpart(open)));
    let well_known = ("<think>".to_owned(), Some("</think>".to_owned()));
    pairs
        .into_iter()
        .chain([well_known])
        .find_map(|(open, close)| {
            let close = close.filter(|close| source.contains(close.as_str()))?;
            Some(Reasoning::new(open, Marker::text(close).after("\n")))
        })
}

fn counterpart(open: &str) -> Option<String> {
    let inner = open.strip_prefix('<').map(|inner| ("</", inner));
    let (start, rest) = inner.or_else(|| Some(("[/", open.strip_prefix('[')?)))?;
    (tags(open).len() == 1 && is_whole(open)).then(|| format!("{start}{rest}"))
}
