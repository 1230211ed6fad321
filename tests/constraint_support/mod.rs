//! Answers that are kept to a format, followed without a model: each byte is a token.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use rkllmd::constraint::{
    Begun, Compiled, Constraint, Follower, Limits, ModelTokens, Need, Next, Parsers, Vocabulary,
    WhiteSpace,
};

pub const LIMITS: Limits = Limits {
    white_space: WhiteSpace::None,
    schema_bytes: 1 << 20,
    schema_depth: 64,
    grammar_symbols: 100_000,
    lexer_states: 8_000,
    lexer_steps: 200_000,
    kept_grammars: 1,
};

/// The end behind a token for each byte.
const END: i32 = 256;

/// What the script of this name has fetched.
pub fn fetched(script: &str) -> PathBuf {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("scripts")
        .join(script);
    let output = Command::new(script).output().expect("the script runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).trim().into()
}

pub fn byte_parsers() -> Parsers {
    let mut vocabulary = Vocabulary::default();
    for byte in 0..=u8::MAX {
        vocabulary.push(Some(&[byte]), byte == 0xFF);
    }
    vocabulary.push(Some(b"<end>"), true);
    vocabulary.ends.push(END);
    Parsers::new(Arc::new(
        ModelTokens::new(vocabulary).expect("they can be used"),
    ))
}

/// Whether an answer can be this text.
pub fn can_say(compiled: &Compiled, parsers: &Parsers, text: &str) -> bool {
    let constraint = Constraint {
        grammar: compiled.grammar.as_str().into(),
        limits: LIMITS,
        how: compiled.how.clone(),
        thought: None,
        need: Need::Needed,
    };
    let follower = Follower::with(&constraint, parsers, Begun::Nothing);
    let mut follower = follower.expect("it was compiled before");
    let said: Vec<i32> = text.bytes().map(i32::from).chain([END]).collect();
    for (at, &next) in said.iter().enumerate() {
        let mut row = [0.0; 257];
        match follower.row(&said[..at], &mut row) {
            Ok(Next::End) => return next == END,
            Ok(Next::Token) if row[next as usize] == 0.0 => {}
            Ok(Next::Token) | Err(_) => return false,
        }
    }
    true
}
