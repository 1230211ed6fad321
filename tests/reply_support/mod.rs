//! Answers cut into tokens, and what was read of them.

pub mod demo_vocabulary;
pub mod examples;
pub mod rounds;

use std::sync::Arc;

use rkllmd::conversation::ReplyPiece;
use rkllmd::reply::{
    OpenedIn, ReplyFamily, ReplyFormat, ReplyOptions, ReplyParser, ReplyReader, ReplyToken,
    ToolTypes,
};

/// What was told, neighbouring pieces joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Reasoning(String),
    Text(String),
    Call {
        id: Option<String>,
        name: String,
        arguments: String,
        is_whole: bool,
    },
}

pub fn reasoning(text: &str) -> Said {
    Said::Reasoning(text.to_owned())
}

pub fn text(text: &str) -> Said {
    Said::Text(text.to_owned())
}

pub fn call(name: &str, arguments: &str) -> Said {
    Said::Call {
        id: None,
        name: name.to_owned(),
        arguments: arguments.to_owned(),
        is_whole: true,
    }
}

pub fn cut_call(name: &str, arguments: &str) -> Said {
    Said::Call {
        id: None,
        name: name.to_owned(),
        arguments: arguments.to_owned(),
        is_whole: false,
    }
}

pub fn call_with_id(id: &str, name: &str, arguments: &str) -> Said {
    Said::Call {
        id: Some(id.to_owned()),
        name: name.to_owned(),
        arguments: arguments.to_owned(),
        is_whole: true,
    }
}

/// Joins pieces, and holds them to what holds of every reply.
pub fn joined(pieces: Vec<ReplyPiece>) -> Vec<Said> {
    let mut said: Vec<Said> = Vec::new();
    let mut open = None;
    let mut calls = 0;
    for piece in pieces {
        match piece {
            ReplyPiece::Reasoning(piece) => {
                assert!(!piece.is_empty());
                open = None;
                match said.last_mut() {
                    Some(Said::Reasoning(last)) => last.push_str(&piece),
                    _ => said.push(Said::Reasoning(piece)),
                }
            }
            ReplyPiece::Text(piece) => {
                assert!(!piece.is_empty());
                open = None;
                match said.last_mut() {
                    Some(Said::Text(last)) => last.push_str(&piece),
                    _ => said.push(Said::Text(piece)),
                }
            }
            ReplyPiece::ScoredText(_) | ReplyPiece::PromptLogprobs(_) => {
                panic!("log probabilities that nobody asked for")
            }
            ReplyPiece::ToolCall { index, id, name } => {
                assert_eq!(index, calls);
                assert!(!name.is_empty());
                calls += 1;
                open = Some(index);
                said.push(Said::Call {
                    id,
                    name,
                    arguments: String::new(),
                    is_whole: false,
                });
            }
            ReplyPiece::ToolArguments { index, delta } => {
                assert_eq!(Some(index), open);
                assert!(!delta.is_empty());
                let Some(Said::Call { arguments, .. }) = said.last_mut() else {
                    panic!("arguments behind {said:?}");
                };
                arguments.push_str(&delta);
            }
            ReplyPiece::ToolCallEnd { index } => {
                assert_eq!(Some(index), open.take());
                let Some(Said::Call { is_whole, .. }) = said.last_mut() else {
                    panic!("an end behind {said:?}");
                };
                *is_whole = true;
            }
        }
    }
    said
}

pub fn token(text: &str) -> ReplyToken {
    ReplyToken {
        id: None,
        text: text.to_owned(),
    }
}

pub fn parser(format: &ReplyFormat, opened_in: OpenedIn, types: ToolTypes) -> ReplyParser {
    ReplyReader::new(format).parser(&ReplyOptions {
        keeps_thoughts: false,
        tools: Some(Arc::new(types)),
        opened_in,
        ..ReplyOptions::default()
    })
}

/// What is read of an answer that comes as these tokens and ends by itself.
pub fn read(mut parser: ReplyParser, tokens: impl IntoIterator<Item = ReplyToken>) -> Vec<Said> {
    joined(events(&mut parser, tokens, true))
}

pub fn events(
    parser: &mut ReplyParser,
    tokens: impl IntoIterator<Item = ReplyToken>,
    is_complete: bool,
) -> Vec<ReplyPiece> {
    let mut out = Vec::new();
    for token in tokens {
        let told = out.len();
        let mut piece = Vec::new();
        let is_seen = parser.push(token, &mut piece);
        assert_eq!(is_seen, !piece.is_empty());
        out.append(&mut piece);
        assert!(out.len() >= told);
    }
    parser.finish(is_complete, &mut out);
    out
}

/// The text in one piece, in single characters, and cut at `cuts`.
pub fn splits(text: &str, cuts: &[usize]) -> Vec<Vec<ReplyToken>> {
    let mut bounds: Vec<usize> = cuts
        .iter()
        .map(|cut| cut % (text.len() + 1))
        .filter(|cut| text.is_char_boundary(*cut))
        .collect();
    bounds.extend([0, text.len()]);
    bounds.sort_unstable();
    bounds.dedup();
    let chars = text.chars().map(|c| token(c.encode_utf8(&mut [0; 4])));
    vec![
        vec![token(text)],
        chars.collect(),
        bounds
            .windows(2)
            .map(|w| token(&text[w[0]..w[1]]))
            .collect(),
    ]
}

/// A tokenizer that has a token for every marker that looks like one.
pub struct TokensOfMarkers {
    /// Whether the runtime prints them.
    is_printed: bool,
}

/// Behind the ids of every vocabulary.
const FIRST_ID: i32 = 10_000_000;

impl TokensOfMarkers {
    pub fn new(is_printed: bool) -> Self {
        Self { is_printed }
    }

    pub fn id(&self, text: &str) -> Option<i32> {
        let is_one = |text: &str| {
            let inner = text
                .strip_prefix('<')
                .and_then(|text| text.strip_suffix('>'));
            let inner = inner.or_else(|| text.strip_prefix('[')?.strip_suffix(']'));
            inner.is_some_and(|inner| {
                !inner.is_empty() && !inner.contains(['<', '>', '[', ']', ' '])
            })
        };
        // Stands for itself: the same text has the same id.
        let sum = text
            .bytes()
            .fold(0i32, |sum, byte| (sum * 31 + i32::from(byte)) % 1_000_000);
        is_one(text).then_some(FIRST_ID + sum)
    }

    /// The markers of the format as tokens, what is between as ordinary tokens, cut at `cuts`.
    pub fn cut(&self, format: &mut ReplyFormat, output: &str, cuts: &[usize]) -> Vec<ReplyToken> {
        let mut markers: Vec<(String, i32)> = format
            .markers_mut()
            .into_iter()
            .filter_map(|marker| Some((marker.text.clone(), marker.id?)))
            .collect();
        markers.extend(format.harmony_ids.iter().cloned());
        let mut tokens = Vec::new();
        let mut ordinary = String::new();
        let mut rest = output;
        let mut at = 0;
        let end = |ordinary: &mut String, tokens: &mut Vec<ReplyToken>| {
            let text = std::mem::take(ordinary);
            if !text.is_empty() {
                tokens.push(ReplyToken { id: Some(1), text });
            }
        };
        while let Some(c) = rest.chars().next() {
            if let Some((text, id)) = markers.iter().find(|(text, _)| rest.starts_with(text)) {
                end(&mut ordinary, &mut tokens);
                tokens.push(ReplyToken {
                    id: Some(*id),
                    text: match self.is_printed {
                        true => text.clone(),
                        false => String::new(),
                    },
                });
                rest = &rest[text.len()..];
                at += text.len();
                continue;
            }
            if cuts.is_empty() || cuts.iter().any(|cut| cut % (output.len() + 1) == at) {
                end(&mut ordinary, &mut tokens);
            }
            if c != '¦' {
                ordinary.push(c);
            }
            rest = &rest[c.len_utf8()..];
            at += c.len_utf8();
        }
        end(&mut ordinary, &mut tokens);
        tokens
    }
}

/// The family's format, its markers known by their tokens.
pub fn with_tokens(family: ReplyFamily) -> ReplyFormat {
    let tokens = TokensOfMarkers::new(false);
    family.format().with_ids(&|text| tokens.id(text))
}

/// Ordinary tokens of one character each.
pub fn ordinary(text: &str) -> Vec<ReplyToken> {
    text.chars()
        .map(|c| ReplyToken {
            id: Some(1),
            text: c.to_string(),
        })
        .collect()
}

/// The texts of every event, one behind the other.
pub fn told(said: &[Said]) -> String {
    said.iter()
        .map(|said| match said {
            Said::Reasoning(text) | Said::Text(text) => text.clone(),
            Said::Call {
                id,
                name,
                arguments,
                ..
            } => {
                format!(" {} {name} {arguments} ", id.clone().unwrap_or_default())
            }
        })
        .collect()
}

/// Whether the word at `at` is markup although it is no marker: it stands in the header of a message, or
/// says what kind of call the one is whose name follows.
pub fn is_markup(family: ReplyFamily, pieces: &[&str], at: usize) -> bool {
    let next_is_first_of = |markers: &[&str]| {
        let mut behind = pieces[at..].iter();
        let next = behind.find(|piece| markers.contains(piece));
        next.is_some_and(|next| *next == markers[0])
    };
    match family {
        ReplyFamily::DeepseekR1 => next_is_first_of(&["<｜tool▁sep｜>", "<｜tool▁call▁begin｜>"]),
        ReplyFamily::GptOss => {
            let ends = [
                "<|message|>",
                "<|start|>",
                "<|end|>",
                "<|return|>",
                "<|call|>",
            ];
            let begins = ["<|channel|>", "<|start|>", " to=functions."];
            let mut before = pieces[..at].iter().rev();
            let last = before.find(|piece| begins.contains(piece) || ends.contains(piece));
            let is_in_header = match last {
                Some(last) => begins.contains(last),
                None => {
                    let all = pieces.concat();
                    let header = all.trim_start().trim_start_matches("<|constrain|>");
                    header.trim_start().starts_with("to=")
                }
            };
            is_in_header && next_is_first_of(&ends)
        }
        _ => false,
    }
}
