//! The models and what they must say. Every token's text names its model, its answer and its place,
//! so that a lost, repeated or foreign token is seen wherever it happens.

use std::fmt::Write;

use crate::faults::Fault;

/// Answers of each model, told apart by a mark in the prompt.
const ANSWERS: usize = 24;
/// The prompt that ends every worker.
pub const POISON: &str = "poison pill";
/// A model that makes tokens at once, and more than fill every buffer between the runtime and a
/// client that stopped reading.
pub const FLOOD: &str = "flood";
pub const FLOOD_TOML: &str = "continue-answers = true\nmax-context-limit = 2000000000\n\
    repeat = { token = \"flood \", times = 1000000 }\n";
pub const FLOOD_MODEL_TOML: &str = "template = \"chatml\"\ncontext-length = 1999999968\n";
/// An answer may contain it; the texts around it never do.
pub const STOP: &str = "<stop here>";
const MARKS: [&str; 5] = ["é", "€", "ß", "😀", "日本"];

/// A model and its speed.
pub struct Model {
    pub id: &'static str,
    token_delay_us: u32,
    /// Largest answer in tokens; the slow model's are short.
    longest: usize,
}

pub const MODELS: [Model; 3] = [
    Model {
        id: "swift",
        token_delay_us: 200,
        longest: 400,
    },
    Model {
        id: "steady",
        token_delay_us: 1000,
        longest: 300,
    },
    Model {
        id: "slow",
        token_delay_us: 5000,
        longest: 100,
    },
];

/// A token as the fake runtime is told it.
enum Token {
    Text(String),
    /// Comes as so many callbacks, the last of which has the text.
    Pieces(String, u32),
    /// A character that is cut in two tokens.
    Halves(&'static str),
}

/// What one prompt is answered with.
pub struct Answer {
    pub prompt: String,
    pub text: String,
    /// Text after each token, where tokens and callbacks are the same thing.
    prefixes: Option<Vec<usize>>,
    tokens: Vec<Token>,
    /// Where the stop text begins, if it is in the answer.
    pub stop_at: Option<usize>,
}

impl Answer {
    /// The same in every run: what a client must see depends on no chance.
    fn of(model: &Model, number: usize) -> Self {
        // A third is short, a third is up to a fifth of the longest, the rest up to the longest.
        let most = match number % 3 {
            0 => 15,
            1 => model.longest / 5,
            _ => model.longest,
        };
        let count = 5 + (number * 37) % (most - 4);
        let plain = number % 4 < 2;
        let mut tokens = Vec::new();
        for place in 0..count {
            let name = format!("{}/{number}/{place} ", model.id);
            tokens.push(match (place + number) % 7 {
                3 if !plain => Token::Pieces(format!("{name}{} ", MARKS[place % MARKS.len()]), 3),
                5 if !plain => Token::Halves(MARKS[place % MARKS.len()]),
                _ if place % 2 == 1 => {
                    Token::Text(format!("{name}{} ", MARKS[place % MARKS.len()]))
                }
                _ => Token::Text(name),
            });
        }
        if number % 6 == 5 {
            let (begin, end) = STOP.split_at(STOP.len() / 2);
            let middle = tokens.len() / 2;
            tokens.insert(middle, Token::Text(end.to_owned()));
            tokens.insert(middle, Token::Text(begin.to_owned()));
        }
        let text: String = tokens.iter().map(Token::text).collect();
        let mut length = 0;
        let prefixes = plain.then(|| {
            tokens
                .iter()
                .map(|token| {
                    length += token.text().len();
                    length
                })
                .collect()
        });
        Self {
            prompt: prompt(number),
            stop_at: text.find(STOP),
            prefixes,
            text,
            tokens,
        }
    }

    /// The text of the first `budget` tokens; `None` where a token is not one callback.
    pub fn cut(&self, budget: usize) -> Option<&str> {
        let length = self.prefixes.as_ref()?.get(budget.checked_sub(1)?)?;
        Some(&self.text[..*length])
    }

    /// Tokens of the whole answer with its end-of-text token; `None` where a resumption may count
    /// the callbacks of a token twice.
    pub fn token_count(&self) -> Option<usize> {
        self.prefixes.as_ref().map(|prefixes| prefixes.len() + 1)
    }

    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }
}

/// The answers of each model, in the order of [`MODELS`].
pub fn answers() -> Vec<Vec<Answer>> {
    MODELS
        .iter()
        .map(|model| (0..ANSWERS).map(|n| Answer::of(model, n)).collect())
        .collect()
}

/// No answer contains such a mark, so a resumed prompt still asks for what it asked for.
fn prompt(number: usize) -> String {
    format!("Tell me q{number}.")
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Pieces(text, _) => text,
            Self::Halves(text) => text,
        }
    }

    fn write(&self, toml: &mut String) {
        let written = match self {
            // Rust's quoting of printable text is TOML's.
            Self::Text(text) => write!(toml, "{text:?}, "),
            Self::Pieces(text, pieces) => {
                write!(toml, "{{ text = {text:?}, pieces = {pieces} }}, ")
            }
            Self::Halves(text) => {
                let (begin, end) = text.as_bytes().split_at(text.len() - 1);
                write!(toml, "{{ bytes = {begin:?} }}, {{ bytes = {end:?} }}, ")
            }
        };
        written.expect("a String takes everything");
    }
}

/// The model file.
pub fn toml(model: &Model, answers: &[Answer], faults: &[Fault]) -> String {
    let mut toml = format!(
        "eos-token-id = 2\ncontinue-answers = true\ntoken-delay-us = {}\nprefill-delay-ms = 4\nabort-interrupts-prefill = true\n\
         tokens = [\"not asked for anything\"]\n",
        model.token_delay_us
    );
    for answer in answers {
        // A closing full stop: q1. is not in q11.
        let mark = answer.prompt.rsplit(' ').next().unwrap_or_default();
        toml += &format!("\n[[answer]]\nwhen-prompt-contains = {mark:?}\ntokens = [");
        for token in &answer.tokens {
            token.write(&mut toml);
        }
        toml += "]\n";
    }
    toml += &format!(
        "\n[[fault]]\ncall = \"run\"\nkind = \"segv\"\nwhen-prompt-contains = {POISON:?}\n"
    );
    for fault in faults {
        toml += &fault.toml();
    }
    toml
}
