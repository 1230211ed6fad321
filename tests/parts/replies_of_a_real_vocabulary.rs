//! Whatever tokens of a real model come in whatever order, among the markers of a format and in the
//! middle of what models write in it: the answer is read to its end, and what is told and the markup
//! are all of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::reply_support::examples::{Example, examples, types};
use crate::reply_support::rounds::{Round, rounds};
use crate::reply_support::{
    TokensOfMarkers, demo_vocabulary, events, is_markup, joined, told, with_tokens,
};
use rkllmd::reply::{
    OpenedIn, ReplyFamily, ReplyFormat, ReplyOptions, ReplyReader, ReplyToken, ToolTypes,
};

/// The tokens of the demo model as a worker tells them one by one.
fn vocabulary() -> Vec<ReplyToken> {
    (0..)
        .zip(demo_vocabulary::tokens())
        .map(|(id, token)| {
            let bytes: Vec<u8> = token.chars().map(byte_of).collect();
            ReplyToken {
                id: Some(id),
                text: String::from_utf8_lossy(&bytes).into_owned(),
            }
        })
        .collect()
}

/// GPT-2 writes a byte that is no printable character as one from 256 on.
fn byte_of(c: char) -> u8 {
    let is_itself = |byte: &u8| matches!(byte, 33..=126 | 161..=172 | 174..);
    let code = u32::from(c);
    let others = || (0..=u8::MAX).filter(|byte| !is_itself(byte));
    match u8::try_from(code) {
        Ok(byte) => byte,
        Err(_) => others().nth(code as usize - 256).unwrap(),
    }
}

/// One family's machines, with markers by their texts and by their tokens.
struct Reading {
    family: ReplyFamily,
    format: ReplyFormat,
    by_text: ReplyReader,
    by_id: ReplyReader,
    markers: Vec<ReplyToken>,
    examples: Vec<Example>,
}

impl Reading {
    fn new(family: ReplyFamily) -> Self {
        let mut format = with_tokens(family);
        let of_messages = format.harmony_ids.clone();
        let markers = format.markers_mut();
        let markers: Vec<ReplyToken> = markers
            .iter()
            .map(|marker| (marker.text.clone(), marker.id))
            .chain(of_messages.into_iter().map(|(text, id)| (text, Some(id))))
            .filter(|(text, _)| !text.is_empty())
            .map(|(text, id)| ReplyToken { id, text })
            .collect();
        Self {
            family,
            by_text: ReplyReader::new(&family.format()),
            by_id: ReplyReader::new(&format),
            markers,
            examples: examples()
                .into_iter()
                // Escapes are read, so they are not told as they are.
                .filter(|example| example.family == family && !example.output.contains('\\'))
                .collect(),
            format,
        }
    }

    /// Random tokens: among markers, or in an answer of the format.
    fn answer(&self, vocabulary: &[ReplyToken], random: &mut fastrand::Rng) -> Vec<ReplyToken> {
        let one_of = |tokens: &[ReplyToken], random: &mut fastrand::Rng| {
            tokens[random.usize(..tokens.len())].clone()
        };
        // What stands before it is markup, wherever that begins.
        let markers = self.markers.iter();
        let markers: Vec<ReplyToken> = markers
            .filter(|marker| marker.text != "<｜tool▁sep｜>")
            .cloned()
            .collect();
        if random.bool() {
            let among = 1 + random.usize(..8);
            return (0..random.usize(1..60))
                .map(|_| match random.usize(..among) {
                    0 => one_of(&markers, random),
                    _ => one_of(vocabulary, random),
                })
                .collect();
        }
        let example = &self.examples[random.usize(..self.examples.len())];
        let tokens = TokensOfMarkers::new(true);
        let mut answer = tokens.cut(&mut self.format.clone(), example.output, &[]);
        for _ in 0..random.usize(..5) {
            let at = random.usize(..=answer.len());
            match random.usize(..4) {
                0 if at < answer.len() => drop(answer.remove(at)),
                1 => answer.insert(at, one_of(&markers, random)),
                _ => answer.insert(at, one_of(vocabulary, random)),
            }
        }
        answer
    }

    fn is_marker(&self, token: &ReplyToken) -> bool {
        let is_it = |marker: &ReplyToken| marker.id.is_some() && marker.id == token.id;
        self.markers.iter().any(is_it)
    }

    /// Of a text, without what is markup wherever it stands.
    fn without_markup(&self, mut text: String) -> String {
        let markers = self.markers.iter().map(|marker| marker.text.as_str());
        let mut markup: Vec<&str> = markers.chain(MARKUP).collect();
        markup.retain(|markup| markup.len() > 2);
        // One may stand in the middle of another, where it is a token that is not printed: a word may be
        // a part of what is a marker once that token is taken out.
        markup.sort_by_key(|markup| (MARKUP.contains(markup), std::cmp::Reverse(markup.len())));
        while let Some(markup) = markup.iter().find(|markup| text.contains(**markup)) {
            text = text.replace(markup, "");
        }
        // An id behind the arguments comes too late to be told.
        while let Some(at) = text.find("\"id\"") {
            let len = text[at..].find('}').unwrap_or(text.len() - at);
            text.replace_range(at..at + len, "");
        }
        // Letters that may stand before a text in Python.
        if matches!(self.family, ReplyFamily::Lfm2 | ReplyFamily::Llama3) {
            text = text.replace(['r', 'b', 'u', 'f', 'R', 'B', 'U', 'F'], "");
        }
        text
    }

    fn written(&self, tokens: &[ReplyToken]) -> String {
        let pieces: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
        let said = (0..pieces.len()).filter(|at| !is_markup(self.family, &pieces, *at));
        self.without_markup(said.map(|at| pieces[at]).collect())
    }
}

/// How often each letter and each digit is in a text.
fn letters(text: &str) -> BTreeMap<char, usize> {
    let mut letters = BTreeMap::new();
    let text = text.to_lowercase();
    for c in text.chars().filter(|c| c.is_alphanumeric()) {
        *letters.entry(c).or_default() += 1;
    }
    letters
}

/// Words that a call's format has beside its markers.
const MARKUP: [&str; 18] = [
    "<![CDATA[",
    "\"name\"",
    "\"arguments\"",
    "\"parameters\"",
    "\"function\"",
    "\"type\"",
    "call:",
    ".call",
    "functions.",
    "function",
    "thought",
    "assistant",
    "analysis",
    "commentary",
    "final",
    "to=",
    "json",
    "None",
];

#[test]
fn random_tokens_are_told_or_are_markup() {
    let vocabulary = vocabulary();
    assert!(vocabulary.len() > 40_000);
    let families = ReplyFamily::ALL.map(Reading::new);
    let tools = Arc::<ToolTypes>::new(types());
    let mut calls = 0;
    for Round { seed, mut random } in rounds() {
        for family in &families {
            let answer = family.answer(&vocabulary, &mut random);
            let options = ReplyOptions {
                keeps_thoughts: random.usize(..4) == 0,
                tools: (random.usize(..4) > 0).then(|| Arc::clone(&tools)),
                opened_in: match random.bool() {
                    true => OpenedIn::Content,
                    false => OpenedIn::Reasoning,
                },
                ..ReplyOptions::default()
            };
            let is_complete = random.usize(..4) > 0;
            let as_text = answer.iter().map(|token| ReplyToken {
                id: None,
                text: token.text.clone(),
            });
            let by_id = answer.iter().map(|token| match family.is_marker(token) {
                true => ReplyToken {
                    text: String::new(),
                    ..token.clone()
                },
                false => token.clone(),
            });
            for (reader, tokens) in [
                (&family.by_text, as_text.collect::<Vec<_>>()),
                (&family.by_id, by_id.collect()),
            ] {
                let said = joined(events(&mut reader.parser(&options), tokens, is_complete));
                let told = told(&said);
                calls += told.matches("get_weather").count();
                if !is_complete {
                    continue;
                }
                let told = letters(&told);
                for (c, count) in letters(&family.written(&answer)) {
                    assert!(
                        told.get(&c).copied().unwrap_or_default() >= count,
                        "{}, seed {seed}, {options:?}: {c:?} of {answer:?} is not in {said:?}",
                        family.family
                    );
                }
            }
        }
    }
    assert!(calls > 10, "{calls} calls");
}
