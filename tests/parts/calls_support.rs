//! Vocabularies in which a format's markers are tokens, or are not; what is drawn of them at random; and what
//! it reads as.

use std::collections::BTreeMap;
use std::sync::Arc;

use rkllmd::constraint::{Follower, ModelTokens, Next, Vocabulary};
use rkllmd::conversation::ReplyPiece;
use rkllmd::reply::{CallsAt, ReplyFormat, ReplyOptions, ReplyReader, ReplyToken, ToolTypes};
use serde_json::{Map, Value};

/// Whether markers are tokens or text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Markers {
    Tokens,
    Text,
}

/// A token for each byte, some words, and the markers of a format.
pub struct Words {
    pub tokens: Arc<ModelTokens>,
    pub count: i32,
    pub end: i32,
    pub special: BTreeMap<i32, String>,
}

pub fn words(format: &mut ReplyFormat, markers: Markers) -> Words {
    let mut vocabulary = Vocabulary::default();
    for byte in 0..=255_u8 {
        vocabulary.push(Some(&[byte]), byte == 0xff);
    }
    let mut count = 256;
    for word in [
        "\": \"", "\", \"", "}}", "\n</", ">\n", "{\"", "true", "call:", "name", "<tool",
    ] {
        vocabulary.push(Some(word.as_bytes()), false);
        count += 1;
    }
    let mut special = BTreeMap::new();
    if markers == Markers::Tokens {
        let mut ids = BTreeMap::new();
        let is_whole = |text: &str| text.starts_with(['<', '[']) && text.ends_with(['>', ']']);
        let of_markers = format
            .markers_mut()
            .into_iter()
            .map(|marker| marker.text.clone());
        let of_messages = [
            "<|start|>",
            "<|channel|>",
            "<|constrain|>",
            "<|message|>",
            "<|end|>",
            "<|return|>",
            "<|call|>",
        ];
        let of_messages = of_messages.map(str::to_owned);
        for text in of_markers
            .collect::<Vec<_>>()
            .into_iter()
            .chain(of_messages)
        {
            if is_whole(&text) && !ids.contains_key(&text) {
                vocabulary.push(Some(text.as_bytes()), true);
                ids.insert(text.clone(), count);
                special.insert(count, text);
                count += 1;
            }
        }
        *format = std::mem::take(format).with_ids(&|text| ids.get(text).copied());
    }
    vocabulary.push(Some(b"<end>"), true);
    vocabulary.ends = vec![count];
    Words {
        tokens: Arc::new(ModelTokens::new(vocabulary).expect("they can be used")),
        count: count + 1,
        end: count,
        special,
    }
}

pub struct Random(pub u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most
    }
}

/// What is drawn at random of what is allowed, until the answer is complete; none: it was cut.
pub fn drawn(
    follower: &mut Follower,
    words: &Words,
    random: &mut Random,
    most: usize,
) -> (Vec<i32>, bool) {
    let mut drawn = Vec::new();
    let mut row = vec![0.0; words.count as usize];
    while drawn.len() < most {
        row.fill(0.0);
        if follower.row(&drawn, &mut row).expect("it is followed") == Next::End {
            return (drawn, true);
        }
        let allowed: Vec<i32> = (0..)
            .zip(&row)
            .filter(|(_, logit)| **logit == 0.0)
            .map(|(id, _)| id)
            .collect();
        assert!(!allowed.is_empty(), "there is always a way on");
        // Answers that may end do so often, and texts are mostly of plain characters.
        let id = if allowed.contains(&words.end) && random.below(2) == 0 {
            words.end
        } else {
            let plain: Vec<i32> = allowed
                .iter()
                .copied()
                .filter(|id| (32..127).contains(id) || *id > 255)
                .collect();
            match plain.is_empty() || random.below(8) == 0 {
                true => allowed[random.below(allowed.len())],
                false => plain[random.below(plain.len())],
            }
        };
        drawn.push(id);
    }
    (drawn, false)
}

#[derive(Debug, Default)]
pub struct Read {
    pub calls: Vec<(String, String)>,
    pub ended: usize,
    pub text: String,
}

pub fn read(format: &ReplyFormat, tools: &[(&str, Value)], words: &Words, drawn: &[i32]) -> Read {
    read_of(format, tools, words, drawn, CallsAt::Anywhere)
}

/// Of an answer whose calls are looked for there.
pub fn read_of(
    format: &ReplyFormat,
    tools: &[(&str, Value)],
    words: &Words,
    drawn: &[i32],
    calls_at: CallsAt,
) -> Read {
    let none = Map::new();
    let types = tools
        .iter()
        .map(|(name, schema)| (*name, Some(schema.as_object().unwrap_or(&none))));
    let options = ReplyOptions {
        tools: Some(Arc::new(ToolTypes::new(types))),
        calls_at,
        ..ReplyOptions::default()
    };
    let mut parser = ReplyReader::new(format).parser(&options);
    let mut pieces = Vec::new();
    let mut bytes = Vec::new();
    for &id in drawn.iter().filter(|id| **id != words.end) {
        let is_special = words.special.contains_key(&id);
        bytes.extend_from_slice(if is_special {
            b""
        } else {
            words.tokens.piece(id)
        });
        // Whole characters only, as workers tell them.
        let whole = match std::str::from_utf8(&bytes) {
            Ok(_) => bytes.len(),
            Err(error) => error.valid_up_to(),
        };
        let text: Vec<u8> = bytes.drain(..whole).collect();
        let text = String::from_utf8(text).expect("whole characters");
        parser.push(ReplyToken { id: Some(id), text }, &mut pieces);
    }
    parser.finish(true, &mut pieces);
    let mut read = Read::default();
    for piece in pieces {
        match piece {
            ReplyPiece::ScoredText(_) | ReplyPiece::PromptLogprobs(_) => {
                panic!("log probabilities that nobody asked for")
            }
            ReplyPiece::ToolCall { name, .. } => read.calls.push((name, String::new())),
            ReplyPiece::ToolArguments { delta, .. } => {
                read.calls.last_mut().expect("a call").1.push_str(&delta);
            }
            ReplyPiece::ToolCallEnd { .. } => read.ended += 1,
            ReplyPiece::Text(text) => read.text.push_str(&text),
            ReplyPiece::Reasoning(_) => {}
        }
    }
    read
}
