//! The demo model's vocabulary, as its file has it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use tokenizers::Tokenizer;

fn file() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/fetch-demo-model");
    let mut command = Command::new(script);
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success());
    let path = String::from_utf8(output.stdout).unwrap();
    path.lines().last().unwrap().into()
}

/// A list of texts in the header of the model's file.
fn texts(key: &str) -> Vec<String> {
    let mut header = Vec::new();
    let file = std::fs::File::open(file()).unwrap();
    file.take(8 << 20).read_to_end(&mut header).unwrap();
    // An array (9) of texts (8), each behind its length.
    let key = [key.as_bytes(), b"\x09\0\0\0\x08\0\0\0"].concat();
    let found = header.windows(key.len()).position(|window| window == key);
    let mut at = found.unwrap() + key.len();
    let take_number = |at: &mut usize| {
        *at += 8;
        u64::from_le_bytes(header[*at - 8..*at].try_into().unwrap())
    };
    let count = take_number(&mut at);
    (0..count)
        .map(|_| {
            let len = usize::try_from(take_number(&mut at)).unwrap();
            at += len;
            std::str::from_utf8(&header[at - len..at])
                .unwrap()
                .to_owned()
        })
        .collect()
}

/// The texts of its tokens, by their ids, in the characters that GPT-2 writes bytes in.
pub fn tokens() -> Vec<String> {
    texts("tokenizer.ggml.tokens")
}

/// Its tokenizer, without the tokens that are special.
pub fn tokenizer() -> Tokenizer {
    let ids = tokens().into_iter().zip(0u32..);
    let merges: Vec<Vec<String>> = texts("tokenizer.ggml.merges")
        .iter()
        .map(|merge| merge.split(' ').map(str::to_owned).collect())
        .collect();
    let vocabulary: serde_json::Map<_, _> = ids.map(|(text, id)| (text, id.into())).collect();
    let written = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "post_processor": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false,
            "byte_fallback": false, "ignore_merges": false, "vocab": vocabulary, "merges": merges},
    });
    written.to_string().parse().unwrap()
}
