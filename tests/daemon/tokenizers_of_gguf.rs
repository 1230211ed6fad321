//! A `tokenizer.json` of what a model's GGUF file says of its vocabulary, for models that are run as a board's
//! are, which have no such file of their own.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};

/// More than the headers of the tests' models take.
const HEADER_BYTES: u64 = 8 << 20;
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;

struct Header(Vec<u8>);

impl Header {
    fn of(file: &Path) -> Self {
        let mut bytes = Vec::new();
        let file = File::open(file).expect("the model's file");
        file.take(HEADER_BYTES)
            .read_to_end(&mut bytes)
            .expect("its header");
        Self(bytes)
    }

    /// Where an array of this kind of items begins, and how many there are.
    fn array(&self, key: &str, kind: u8) -> (usize, usize) {
        let key = [key.as_bytes(), &[9, 0, 0, 0, kind, 0, 0, 0]].concat();
        let found = self.0.windows(key.len()).position(|window| window == key);
        let at = found.unwrap_or_else(|| panic!("no {key:?}")) + key.len();
        (at + 8, self.number(at))
    }

    fn number(&self, at: usize) -> usize {
        let bytes = self.0[at..at + 8].try_into().expect("eight bytes");
        u64::from_le_bytes(bytes) as usize
    }

    fn texts(&self, key: &str) -> Vec<String> {
        let (mut at, count) = self.array(key, 8);
        let text = |_| {
            let len = self.number(at);
            at += 8 + len;
            String::from_utf8(self.0[at - len..at].to_vec()).expect("a text")
        };
        (0..count).map(text).collect()
    }

    fn integers(&self, key: &str) -> Vec<i32> {
        let (at, count) = self.array(key, 5);
        let bytes = self.0[at..at + 4 * count].chunks_exact(4);
        bytes
            .map(|bytes| i32::from_le_bytes(bytes.try_into().expect("four bytes")))
            .collect()
    }
}

/// Of a vocabulary as GPT-2 has it; `digits_apart`: each is a token of its own.
pub fn tokenizer_json(file: &Path, digits_apart: bool) -> String {
    let header = Header::of(file);
    let tokens = header.texts("tokenizer.ggml.tokens");
    let kinds = header.integers("tokenizer.ggml.token_type");
    let merges: Vec<Vec<String>> = header
        .texts("tokenizer.ggml.merges")
        .iter()
        .map(|merge| merge.split(' ').map(str::to_owned).collect())
        .collect();
    let added = (0..).zip(tokens.iter().zip(kinds));
    let added = added.filter(|(_, (_, kind))| *kind != NORMAL);
    let added: Vec<Value> = added
        .map(|(id, (text, kind)): (u32, _)| {
            json!({"id": id, "content": text, "special": kind == CONTROL, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false})
        })
        .collect();
    let ids = tokens.iter().cloned().zip(0_u32..);
    let vocabulary: serde_json::Map<_, _> = ids.map(|(text, id)| (text, id.into())).collect();
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": true});
    let cuts = match digits_apart {
        true => vec![
            json!({"type": "Digits", "individual_digits": true}),
            bytes.clone(),
        ],
        false => vec![bytes.clone()],
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "post_processor": null, "decoder": bytes,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": cuts},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false,
            "byte_fallback": false, "ignore_merges": false, "vocab": vocabulary, "merges": merges},
    })
    .to_string()
}
