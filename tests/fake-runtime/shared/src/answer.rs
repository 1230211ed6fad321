//! Answers made ready before they are needed: a token is a C string and two numbers, so that the
//! loop over them allocates nothing.

use crate::continuation::{self, Start};
use crate::params::Input;
use crate::scenario::{Repeat, Scenario, Token};
use std::ffi::CString;
use std::sync::Arc;

pub const NORMAL: u32 = 0;
pub const WAITING: u32 = 1;
pub const FINISH: u32 = 2;
pub const ERROR: u32 = 3;

const PARAMS_MARK: &str = "{params}";
/// Ids of tokens that the scenario gives none.
const FIRST_ID: i32 = 1000;

#[derive(Clone)]
pub struct Event {
    pub state: u32,
    pub text: CString,
    pub id: i32,
    /// What stands for it in a prompt, where that is not its text.
    pub in_prompt: Option<Box<[u8]>>,
}

/// `events` over and over, `times` times, then `end` once.
pub struct Sequence {
    pub events: Vec<Event>,
    pub times: u64,
    pub end: Option<Event>,
    /// The end-of-text token does not end it, as in 1.3.0 with files of older toolkits.
    pub end_ignored: bool,
}

enum Source {
    Ready(Arc<Sequence>),
    /// Tokens with `{params}` in them.
    WithParams(Vec<Token>),
    Echo,
}

/// All answers of a scenario.
pub struct Answers {
    conditional: Vec<(Vec<u8>, Source)>,
    otherwise: Source,
    ending: Ending,
    continued: bool,
}

#[derive(Clone)]
struct Ending {
    id: Option<i32>,
    text: String,
    ignored: bool,
}

impl Answers {
    /// `skip_special_token`: the end-of-text token comes with empty text.
    pub fn of(scenario: &Scenario, skip_special_token: bool) -> Result<Answers, String> {
        let ending = Ending {
            id: scenario.eos_token_id,
            text: if skip_special_token {
                String::new()
            } else {
                scenario.eos_text.clone()
            },
            ignored: scenario.eos_ignored,
        };
        let source = |tokens: &[Token], repeat: &Option<Repeat>, echo| {
            source(tokens, repeat.as_ref(), echo, &ending)
        };
        let conditional = scenario
            .answer
            .iter()
            .map(|answer| {
                let text = answer.when_prompt_contains.clone().into_bytes();
                source(&answer.tokens, &answer.repeat, answer.echo_prompt)
                    .map(|source| (text, source))
            })
            .collect::<Result<_, _>>()?;
        let otherwise = source(&scenario.tokens, &scenario.repeat, scenario.echo_prompt)?;
        Ok(Answers {
            conditional,
            otherwise,
            ending,
            continued: scenario.continue_answers,
        })
    }

    /// The answer to `input` and where it begins. `prompt` is the input as the model sees it,
    /// `params` what `{params}` stands for.
    pub fn to(&self, input: &Input, prompt: &[u8], params: &str) -> (Arc<Sequence>, Start) {
        let sequence = self.chosen(prompt, params);
        let start = match &input.ids {
            _ if !self.continued => Start::default(),
            Some(ids) => continuation::of_ids(&sequence, ids),
            None => continuation::of_text(&sequence, prompt),
        };
        (sequence, start)
    }

    fn chosen(&self, prompt: &[u8], params: &str) -> Arc<Sequence> {
        let source = self
            .conditional
            .iter()
            .find(|(text, _)| prompt.windows(text.len()).any(|part| part == text))
            .map_or(&self.otherwise, |(_, source)| source);
        let events = match source {
            Source::Ready(sequence) => return Arc::clone(sequence),
            Source::WithParams(tokens) => tokens
                .iter()
                .cloned()
                .map(|token| match token {
                    Token::Text(text) => Token::Text(text.replace(PARAMS_MARK, params)),
                    other => other,
                })
                .enumerate()
                .flat_map(|(index, token)| {
                    events_of(&token, index).expect("checked when the model was loaded")
                })
                .collect(),
            Source::Echo => words(prompt)
                .enumerate()
                .map(|(index, word)| event(NORMAL, word, id_at(index)))
                .collect(),
        };
        Arc::new(self.ending.close(events, 1))
    }
}

impl Ending {
    fn close(&self, events: Vec<Event>, times: u64) -> Sequence {
        Sequence {
            events,
            times,
            end: self.id.map(|id| event(NORMAL, self.text.as_bytes(), id)),
            end_ignored: self.ignored,
        }
    }
}

fn source(
    tokens: &[Token],
    repeat: Option<&Repeat>,
    echo: bool,
    ending: &Ending,
) -> Result<Source, String> {
    if echo {
        return Ok(Source::Echo);
    }
    if let Some(repeat) = repeat {
        let events = events_of(&repeat.token, 0)?;
        return Ok(Source::Ready(Arc::new(ending.close(events, repeat.times))));
    }
    let mut events = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        events.extend(events_of(token, index)?);
    }
    let dynamic = tokens
        .iter()
        .any(|token| matches!(token, Token::Text(text) if text.contains(PARAMS_MARK)));
    Ok(if dynamic {
        Source::WithParams(tokens.to_vec())
    } else {
        Source::Ready(Arc::new(ending.close(events, 1)))
    })
}

fn events_of(token: &Token, index: usize) -> Result<Vec<Event>, String> {
    let detailed = match token {
        Token::Text(text) => {
            refuse_nul(text.as_bytes())?;
            return Ok(vec![event(NORMAL, text.as_bytes(), id_at(index))]);
        }
        Token::Detailed(detailed) => detailed,
    };
    let bytes = match (&detailed.text, &detailed.bytes) {
        (Some(text), None) => text.as_bytes(),
        (None, Some(bytes)) => bytes,
        _ => return Err("a token is either text or bytes".to_owned()),
    };
    refuse_nul(bytes)?;
    let id = detailed.id.unwrap_or(id_at(index));
    let mut events = Vec::new();
    for _ in 1..detailed.pieces.unwrap_or(1) {
        events.push(event(WAITING, b"", id));
    }
    events.push(Event {
        in_prompt: detailed
            .in_prompt
            .as_deref()
            .map(|text| text.as_bytes().into()),
        ..event(NORMAL, bytes, id)
    });
    Ok(events)
}

fn refuse_nul(bytes: &[u8]) -> Result<(), String> {
    if bytes.contains(&0) {
        return Err("a token with a NUL in it".to_owned());
    }
    Ok(())
}

fn event(state: u32, text: &[u8], id: i32) -> Event {
    Event {
        state,
        text: CString::new(text).expect("checked for NUL, as a prompt is by being a C string"),
        id,
        in_prompt: None,
    }
}

fn id_at(index: usize) -> i32 {
    FIRST_ID.saturating_add(i32::try_from(index).unwrap_or(i32::MAX))
}

/// Words with the white space that follows them: together they are the text.
fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let word = rest.iter().position(u8::is_ascii_whitespace);
        let end = word.map_or(rest.len(), |at| {
            let spaces = rest[at..].iter().take_while(|b| b.is_ascii_whitespace());
            at + spaces.count()
        });
        let (first, others) = rest.split_at(end);
        rest = others;
        Some(first)
    })
}
