use super::*;
use crate::conversation::TokenLogprob;
use proptest::prelude::*;

/// A token with these bytes, whose place in the answer is its id.
fn token(id: usize, bytes: &[u8]) -> TokenLogprobs {
    TokenLogprobs {
        token: TokenLogprob {
            id: i32::try_from(id).unwrap(),
            bytes: bytes.to_vec(),
            logprob: Some(-1.0),
        },
        top: Vec::new(),
    }
}

#[derive(Default)]
struct Reading {
    tokens: ContentTokens,
    count: usize,
    told: Vec<ReplyPiece>,
}

impl Reading {
    /// A token with its text, and what becomes certain with it.
    fn push(&mut self, text: &str, content: &[&str], is_settled: bool) {
        self.push_as(TokenKind::Text, text.as_bytes(), text);
        self.score(content, is_settled);
    }

    fn push_as(&mut self, kind: TokenKind, bytes: &[u8], text: &str) {
        self.tokens.push(kind, text, Some(token(self.count, bytes)));
        self.count += 1;
    }

    fn score(&mut self, content: &[&str], is_settled: bool) {
        let pieces = content
            .iter()
            .map(|&text| ReplyPiece::Text(text.to_owned()));
        let mut pieces = pieces.collect();
        self.tokens.score(&mut pieces, is_settled);
        self.told.extend(pieces);
    }

    /// The content, and the tokens with their ids and bytes.
    fn finish(self) -> (String, Vec<(i32, Vec<u8>)>) {
        self.finish_behind(Behind::Content)
    }

    fn finish_behind(mut self, behind: Behind) -> (String, Vec<(i32, Vec<u8>)>) {
        let mut last = Vec::new();
        self.tokens.finish(&mut last, behind);
        self.told.extend(last);
        let (mut text, mut tokens) = (String::new(), Vec::new());
        for piece in self.told {
            if let ReplyPiece::ScoredText(scored) = piece {
                text.push_str(&scored.text);
                let all = scored.tokens.into_iter();
                tokens.extend(all.map(|told| (told.token.id, told.token.bytes)));
            }
        }
        (text, tokens)
    }
}

fn told(tokens: &[(i32, Vec<u8>)]) -> Vec<(i32, &str)> {
    let text = |bytes: &'_ [u8]| str::from_utf8(bytes).map(str::to_owned);
    assert!(tokens.iter().all(|(_, bytes)| text(bytes).is_ok()));
    tokens
        .iter()
        .map(|(id, bytes)| (*id, str::from_utf8(bytes).unwrap()))
        .collect()
}

#[test]
fn each_piece_has_its_tokens() {
    let mut reading = Reading::default();
    reading.push("Hello", &["Hello"], true);
    assert_eq!(reading.told.len(), 1);
    reading.push(" you", &[" you"], true);
    assert_eq!(reading.told.len(), 2);
    let (text, tokens) = reading.finish();
    assert_eq!(text, "Hello you");
    assert_eq!(told(&tokens), [(0, "Hello"), (1, " you")]);
}

#[test]
fn what_is_no_content_has_no_token_there() {
    let mut reading = Reading::default();
    for thought in ["<think>", "a", "b", "</think>"] {
        reading.push(thought, &[], true);
    }
    reading.push("\n\na", &["a"], true);
    reading.push("b", &["b"], true);
    let (text, tokens) = reading.finish();
    assert_eq!(text, "ab");
    assert_eq!(told(&tokens), [(4, "a"), (5, "b")]);
}

#[test]
fn no_token_is_told_beyond_a_stop_string() {
    let mut reading = Reading::default();
    reading.push("so E", &["so "], false);
    // It is not known yet how much of it is content.
    assert!(reading.told.is_empty());
    reading.push("ND", &[], true);
    let (text, tokens) = reading.finish_behind(Behind::Other);
    assert_eq!(text, "so ");
    assert_eq!(told(&tokens), [(0, "so ")]);
}

#[test]
fn a_token_that_was_held_back_is_told_once() {
    let mut reading = Reading::default();
    reading.push("so E", &["so "], false);
    reading.push("N", &[], false);
    reading.push("!", &["EN!"], true);
    let (text, tokens) = reading.finish();
    assert_eq!(text, "so EN!");
    assert_eq!(told(&tokens), [(0, "so E"), (1, "N"), (2, "!")]);
}

#[test]
fn characters_of_several_tokens_have_them_all() {
    let mut reading = Reading::default();
    let rocket = "🚀".as_bytes();
    reading.push_as(TokenKind::Partial, &rocket[..2], "");
    reading.score(&[], true);
    reading.push_as(TokenKind::Partial, &rocket[2..3], "");
    reading.score(&[], true);
    reading.push_as(TokenKind::Text, &rocket[3..], "🚀");
    reading.score(&["🚀"], true);
    let (text, tokens) = reading.finish();
    let bytes: Vec<u8> = tokens.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    assert_eq!((text.as_str(), bytes.as_slice()), ("🚀", rocket));
    assert_eq!(tokens.len(), 3);
}

#[test]
fn bytes_that_are_no_text_are_told_as_they_are() {
    let mut reading = Reading::default();
    reading.push("a", &["a"], true);
    reading.push_as(TokenKind::Partial, &[0xF0, 0x9F], "");
    reading.score(&[], true);
    reading.push_as(TokenKind::Replaced, b"b", "\u{fffd}b");
    reading.score(&["\u{fffd}b"], true);
    reading.push("c", &["c"], true);
    let (text, tokens) = reading.finish();
    assert_eq!(text, "a\u{fffd}bc");
    let bytes: Vec<&[u8]> = tokens.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    assert_eq!(bytes, [b"a".as_slice(), &[0xF0, 0x9F], b"b", b"c"]);
}

#[test]
fn what_was_told_of_a_token_is_not_told_again_where_its_rest_is_no_text() {
    let mut reading = Reading::default();
    reading.push_as(TokenKind::Partial, b"a\xF0", "a");
    reading.score(&["a"], true);
    reading.push_as(TokenKind::Replaced, b"b", "\u{fffd}b");
    reading.score(&["\u{fffd}b"], true);
    let (text, tokens) = reading.finish();
    assert_eq!(text, "a\u{fffd}b");
    let bytes: Vec<&[u8]> = tokens.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    assert_eq!(bytes, [b"a\xF0".as_slice(), b"b"]);
}

/// How an answer ends that has only begun a character.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Budget,
    /// The model ends.
    Token,
    /// The text has U+FFFD.
    Rest,
}

#[test]
fn content_that_ends_within_a_character_has_its_tokens() {
    let characters = ["é", "☃", "日", "🚀"];
    let cuts = characters.iter().flat_map(|character| {
        let bytes = character.as_bytes();
        (1..bytes.len()).map(move |cut| &bytes[..cut])
    });
    for begun in cuts {
        for (size, before, end) in [1, 2, 3].into_iter().flat_map(|size| {
            let ends = [End::Budget, End::Token, End::Rest];
            let befores = [None, Some(false), Some(true)];
            befores
                .into_iter()
                .flat_map(move |before| ends.map(|end| (size, before, end)))
        }) {
            let case = format!("{begun:?} by {size}, {before:?} before, {end:?}");
            for behind in [Behind::Content, Behind::Other] {
                let mut reading = Reading::default();
                let mut pieces = begun.chunks(size);
                match before {
                    None => {}
                    Some(false) => reading.push("a", &["a"], true),
                    // One token with what comes before.
                    Some(true) => {
                        let first = pieces.next().unwrap();
                        reading.push_as(
                            TokenKind::Partial,
                            &[b"a".as_slice(), first].concat(),
                            "a",
                        );
                        reading.score(&["a"], true);
                    }
                }
                for piece in pieces {
                    reading.push_as(TokenKind::Partial, piece, "");
                    reading.score(&[], true);
                }
                match end {
                    End::Budget => {}
                    End::Token => reading.push_as(TokenKind::Swallowed, b"<|end|>", ""),
                    End::Rest => {
                        reading.tokens.push(TokenKind::Rest, "\u{fffd}", None);
                        let pieces: &[&str] = match behind {
                            Behind::Content => &["\u{fffd}"],
                            Behind::Other => &[],
                        };
                        reading.score(pieces, true);
                    }
                }
                let (text, tokens) = reading.finish_behind(behind);
                let has_rest = end == End::Rest && behind == Behind::Content;
                let mut wanted = before.map_or(String::new(), |_| "a".to_owned());
                wanted.push_str(if has_rest { "\u{fffd}" } else { "" });
                assert_eq!(text, wanted, "{case}");
                let mut wanted = before.map_or(Vec::new(), |_| b"a".to_vec());
                if behind == Behind::Content {
                    wanted.extend_from_slice(begun);
                    let count = begun.len().div_ceil(size) + usize::from(before == Some(false));
                    assert_eq!(tokens.len(), count, "{case}");
                }
                let bytes: Vec<u8> = tokens.into_iter().flat_map(|(_, bytes)| bytes).collect();
                assert_eq!(bytes, wanted, "{case}");
            }
        }
    }
}

#[test]
fn what_is_made_again_is_told_once() {
    let mut reading = Reading::default();
    reading.push("a", &["a"], true);
    reading.push_as(TokenKind::Partial, &"🚀".as_bytes()[..2], "");
    reading.score(&[], true);
    reading.tokens.roll_back();
    reading.push("🚀", &["🚀"], true);
    let (text, tokens) = reading.finish();
    assert_eq!(text, "a🚀");
    assert_eq!(told(&tokens), [(0, "a"), (2, "🚀")]);
}

#[test]
fn what_is_made_again_behind_a_token_without_text_is_told_once() {
    let mut reading = Reading::default();
    reading.push("a", &["a"], true);
    reading.push_as(TokenKind::Partial, &"🚀".as_bytes()[..2], "");
    reading.push_as(TokenKind::Swallowed, b"<|end|>", "");
    reading.tokens.roll_back();
    reading.push("🚀", &["🚀"], true);
    let (text, tokens) = reading.finish();
    assert_eq!(text, "a🚀");
    assert_eq!(told(&tokens), [(0, "a"), (3, "🚀")]);
}

#[test]
fn tokens_without_text_are_none_of_the_content() {
    let mut reading = Reading::default();
    reading.push("a", &["a"], true);
    reading.push_as(TokenKind::Swallowed, b"<|end|>", "");
    reading.score(&[], true);
    reading.push("b", &["b"], true);
    let (text, tokens) = reading.finish();
    assert_eq!(text, "ab");
    assert_eq!(told(&tokens), [(0, "a"), (2, "b")]);
}

proptest! {
    /// However tokens are cut and whatever is held back: the bytes of the tokens are the content and what it
    /// ends within, in order, and each token is there once at most.
    #[test]
    fn bytes_are_the_content(
        text in "[aé☃🚀<>]{0,24}",
        sizes in prop::collection::vec(1usize..6, 30),
        holds in prop::collection::vec(any::<bool>(), 30),
        kept in prop::collection::vec(any::<bool>(), 30),
        is_cut in any::<bool>(),
    ) {
        let mut reading = Reading::default();
        let bytes = text.as_bytes();
        let (mut at, mut whole, mut told) = (0, 0, 0);
        let mut content = String::new();
        for ((size, hold), keep) in sizes.into_iter().zip(holds).zip(kept) {
            if at == bytes.len() {
                break;
            }
            let end = (at + size).min(bytes.len());
            let next = text.floor_char_boundary(end);
            let kind = if next == end { TokenKind::Text } else { TokenKind::Partial };
            reading.push_as(kind, &bytes[at..end], &text[whole..next]);
            (at, whole) = (end, next);
            // A part of it is held back; of what is decided, all is content or nothing.
            let decided = match hold {
                true => text.floor_char_boundary(told + (whole - told) / 2),
                false => whole,
            };
            let piece = &text[told..decided];
            let pieces = [piece];
            // Content that could stand in two places would be ambiguous.
            let is_content = keep || text.matches(piece).count() != 1;
            let pieces: &[&str] = if is_content && !piece.is_empty() { &pieces } else { &[] };
            content.extend(pieces.iter().copied());
            reading.score(pieces, decided == whole);
            told = decided;
        }
        if !is_cut && told < whole {
            let rest = [&text[told..whole]];
            content.push_str(rest[0]);
            reading.score(&rest, true);
        }
        let is_stopped = is_cut && told < whole;
        let (got, tokens) = reading.finish_behind(match is_stopped {
            true => Behind::Other,
            false => Behind::Content,
        });
        prop_assert_eq!(&got, &content);
        let begun = if is_stopped { &[][..] } else { &bytes[whole..at] };
        let ids: Vec<i32> = tokens.iter().map(|(id, _)| *id).collect();
        prop_assert!(ids.is_sorted_by(|a, b| a < b), "{:?}", ids);
        let all: Vec<u8> = tokens.into_iter().flat_map(|(_, bytes)| bytes).collect();
        prop_assert_eq!(all, [content.as_bytes(), begun].concat());
    }
}
