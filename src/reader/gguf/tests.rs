//! Headers written here, whole, cut short and damaged.

use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::constraint::Vocabulary;

/// Writes a GGUF header pair by pair.
#[derive(Default)]
struct Writer {
    pairs: u64,
    body: Vec<u8>,
}

fn string_bytes(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

impl Writer {
    fn pair(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.pairs += 1;
        self.body.extend(string_bytes(key));
        self.body.extend(kind.to_le_bytes());
        self.body.extend(value);
        self
    }

    fn string(self, key: &str, value: &str) -> Self {
        self.pair(key, 8, &string_bytes(value))
    }

    fn u32(self, key: &str, value: u32) -> Self {
        self.pair(key, 4, &value.to_le_bytes())
    }

    fn array(self, key: &str, kind: u32, items: &[Vec<u8>]) -> Self {
        let mut value = kind.to_le_bytes().to_vec();
        value.extend((items.len() as u64).to_le_bytes());
        value.extend(items.concat());
        self.pair(key, 9, &value)
    }

    fn strings(self, key: &str, items: &[&str]) -> Self {
        let items: Vec<_> = items.iter().map(|item| string_bytes(item)).collect();
        self.array(key, 8, &items)
    }

    fn i32s(self, key: &str, items: &[i32]) -> Self {
        let items: Vec<_> = items
            .iter()
            .map(|item| item.to_le_bytes().to_vec())
            .collect();
        self.array(key, 5, &items)
    }

    fn finish(self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(3u32.to_le_bytes());
        file.extend(0u64.to_le_bytes());
        file.extend(self.pairs.to_le_bytes());
        file.extend(self.body);
        file
    }
}

fn parse(bytes: &[u8]) -> Result<GgufFacts, GgufError> {
    read_from(Cursor::new(bytes), bytes.len() as u64)
}

fn model() -> Vec<u8> {
    Writer::default()
        .u32("llama.context_length", 8192)
        .u32("other.context_length", 1)
        .u32("other.embedding_length", 2)
        .u32("llama.embedding_length", 576)
        .u32("llama.block_count", 30)
        .u32("llama.attention.head_count", 9)
        .u32("llama.attention.head_count_kv", 3)
        .string("general.architecture", "llama")
        .string("general.name", "Tiny")
        .string("tokenizer.ggml.model", "gpt2")
        .u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.eos_token_id", 4)
        .i32s("tokenizer.ggml.token_type", &[2, 3, 1, 4, 3, 4, 4])
        .strings(
            "tokenizer.ggml.tokens",
            &[
                "<unk>",
                "<s>",
                "word",
                "<think>",
                "</s>",
                "<|turn>",
                "<end_of_turn>",
            ],
        )
        .array(
            "nested",
            9,
            &[{
                let mut inner = 8u32.to_le_bytes().to_vec();
                inner.extend(1u64.to_le_bytes());
                inner.extend(string_bytes("x"));
                inner
            }],
        )
        .string("tokenizer.chat_template", "{{ messages }}")
        .finish()
}

#[test]
fn a_header_tells_its_facts_in_any_order() {
    assert_eq!(
        parse(&model()).unwrap(),
        GgufFacts {
            architecture: Some("llama".into()),
            name: Some("Tiny".into()),
            kind: None,
            context_length: Some(8192),
            shape: ModelShape {
                vocabulary_tokens: Some(7),
                embedding_columns: Some(576),
                // 30 layers, 3 heads, 64 numbers of a key and of a value, 2 bytes each.
                token_bytes: Some(23_040),
            },
            chat_template: Some("{{ messages }}".into()),
            bos_token: Some("<s>".into()),
            eos_token: Some("</s>".into()),
            control_tokens: ["<s>", "</s>", "<|turn>", "<end_of_turn>"]
                .map(str::to_owned)
                .to_vec(),
            spells_tokens: true,
            listed_tokens: [
                ("<s>", 1),
                ("<think>", 3),
                ("</s>", 4),
                ("<|turn>", 5),
                ("<end_of_turn>", 6),
            ]
            .map(|(text, id)| (text.to_owned(), id))
            .to_vec(),
        }
    );
}

#[test]
fn a_header_cut_anywhere_is_an_error() {
    let whole = model();
    for len in 0..whole.len() {
        assert!(parse(&whole[..len]).is_err(), "cut to {len} bytes");
    }
}

#[test]
fn lengths_beyond_the_file_are_refused_before_anything_is_allocated() {
    for kind in [8, 9] {
        let mut value = match kind {
            9 => 8u32.to_le_bytes().to_vec(),
            _ => Vec::new(),
        };
        value.extend(u64::MAX.to_le_bytes());
        let file = Writer::default()
            .pair("general.name", kind, &value)
            .finish();
        assert!(
            matches!(parse(&file), Err(GgufError::PastEnd { .. })),
            "{kind}"
        );
    }
}

#[test]
fn what_is_no_gguf_says_so() {
    assert!(matches!(parse(b"kind = \"toml\""), Err(GgufError::NotGguf)));
    assert!(matches!(parse(b""), Err(GgufError::NotGguf)));
    let mut file = model();
    file[4] = 1;
    assert!(matches!(parse(&file), Err(GgufError::Version(1))));
    file[4..8].copy_from_slice(&3u32.to_be_bytes());
    assert!(matches!(parse(&file), Err(GgufError::BigEndian)));
}

#[test]
fn arrays_nested_without_end_are_refused() {
    let mut value = Vec::new();
    for _ in 0..100 {
        value.extend(9u32.to_le_bytes());
        value.extend(1u64.to_le_bytes());
    }
    let file = Writer::default().pair("deep", 9, &value).finish();
    assert!(matches!(parse(&file), Err(GgufError::Damaged { .. })));
}

#[test]
fn a_token_id_outside_the_vocabulary_is_no_token() {
    let file = Writer::default()
        .u32("tokenizer.ggml.bos_token_id", u32::MAX)
        .strings("tokenizer.ggml.tokens", &["a"])
        .finish();
    let facts = parse(&file).unwrap();
    assert_eq!((facts.bos_token, facts.control_tokens), (None, Vec::new()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend(bytes);
        let _ = parse(&file);
    }

    #[test]
    fn damaged_headers_never_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut file = model();
        for (at, byte) in damage {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if let Ok(facts) = parse(&file) {
            let kept: usize = facts.control_tokens.iter().map(String::len).sum();
            prop_assert!(kept <= 2 * file.len());
        }
    }
}

#[test]
fn the_bytes_of_its_tokens_are_told_when_they_are_asked_for() {
    let file = |model: &str, tokens: &[&str], types: &[i32]| {
        Writer::default()
            .string("tokenizer.ggml.model", model)
            .strings("tokenizer.ggml.tokens", tokens)
            .i32s("tokenizer.ggml.token_type", types)
            .u32("tokenizer.ggml.eos_token_id", 1)
            .u32("tokenizer.ggml.eot_token_id", 77)
            .finish()
    };
    let told = |file: Vec<u8>| {
        let len = file.len() as u64;
        vocabulary::vocabulary_from(Cursor::new(file), len).expect("it is whole")
    };
    let mut expected = Vocabulary::default();
    for (piece, is_special) in [(" a\n", false), ("<end>", true), ("b", true)] {
        expected.push(Some(piece.as_bytes()), is_special);
        if is_special {
            expected.last_is_unprinted();
        }
    }
    expected.ends = vec![1];
    let byte_level = file("gpt2", &["\u{120}a\u{10A}", "<end>", "b"], &[1, 3, 5]);
    assert_eq!(told(byte_level), Some(expected));
    let mut expected = Vocabulary::default();
    for (piece, is_special) in [(&b" a"[..], false), (b"</s>", true), (b"\xE2", false)] {
        expected.push(Some(piece), is_special);
        if is_special {
            expected.last_is_unprinted();
        }
    }
    expected.ends = vec![1];
    let pieces = file("llama", &["\u{2581}a", "</s>", "<0xE2>"], &[1, 3, 6]);
    assert_eq!(told(pieces), Some(expected));
    assert_eq!(told(file("bert", &["a", "b"], &[1, 1])), None);
    assert_eq!(told(Writer::default().finish()), None);
}
