//! A model of a few words: the next one is that with the highest logit of the row behind all that there is,
//! prompt and answer. So runs that make tokens and runs for logits tell of the same model, and an answer can be
//! gone on with behind any of its tokens. Rows are scripted, or follow from a seed.

use crate::answer::{Event, NORMAL};
use crate::generation::{End, MODE_LOGITS};
use crate::model::lock;
use crate::scenario::{LogitsCome, RowsOf, Scenario};
use crate::token_loop::TokenLoop;
use std::ffi::CString;

/// Of what no row names.
const UNLIKELY: f32 = -10.0;

/// The logits behind these tokens.
pub fn row(scenario: &Scenario, before: &[i32]) -> Vec<f32> {
    let mut row = vec![UNLIKELY; columns(scenario)];
    let scripted = scenario
        .row
        .iter()
        .find(|row| before.ends_with(&row.behind));
    match (scripted, scenario.row_seed) {
        (Some(scripted), _) => {
            for (place, logit) in row.iter_mut().zip(&scripted.logits) {
                *place = *logit;
            }
        }
        (None, Some(seed)) => {
            let mut state = before.iter().fold(seed, |state, &id| {
                (state ^ u64::from(id.cast_unsigned())).wrapping_mul(0x0100_0000_01B3)
            });
            for place in &mut row {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                *place = (state >> 40) as f32 / (1_u64 << 21) as f32;
            }
        }
        (None, None) => {}
    }
    row
}

fn columns(scenario: &Scenario) -> usize {
    scenario.words.len().max(usize::from(scenario.vocab_size))
}

/// The first one of equals.
fn likeliest(row: &[f32]) -> usize {
    let best = (0..row.len()).reduce(|best, next| match row[next] > row[best] {
        true => next,
        false => best,
    });
    best.unwrap_or(0)
}

/// Tokens at the input's beginning that were evaluated before. The last one always is again.
pub fn kept(scenario: &Scenario, cached: &[i32], input: &[i32]) -> usize {
    if !scenario.prefix_reuse {
        return 0;
    }
    let same = cached.iter().zip(input).take_while(|(a, b)| a == b);
    same.count().min(input.len().saturating_sub(1))
}

impl TokenLoop<'_, '_> {
    /// Behind `input`, of which so many tokens are in the cache.
    pub fn run_words(mut self, input: &[i32], kept: usize) -> End {
        let model = self.generation.model;
        let scenario = &model.scenario;
        let wants_rows = self.generation.params.mode == MODE_LOGITS;
        let mut before = input.to_vec();
        let end = loop {
            let next = row(scenario, &before);
            let id = likeliest(&next) as i32;
            if wants_rows {
                let is_first = before.len() == input.len();
                let mut rows: Vec<f32> = Vec::new();
                if is_first {
                    let from = match scenario.rows_of {
                        RowsOf::Input => 0,
                        RowsOf::Evaluated => kept,
                    };
                    for at in from + 1..input.len() {
                        rows.extend(row(scenario, &input[..at]));
                    }
                }
                rows.extend(&next);
                self.output.has_logits(rows, next.len());
                if scenario.logits_come == LogitsCome::Alone {
                    if is_first && !self.has_faults_now() {
                        self.output.is_paused_by_normal(None, 0);
                    }
                    self.output.has_no_logits();
                }
            }
            let is_end = scenario.eos_token_id == Some(id) && !scenario.eos_ignored;
            if is_end && scenario.eos_silent && !wants_rows {
                break End::Finished;
            }
            let text = match scenario.eos_token_id == Some(id) {
                true => "",
                false => scenario.words.get(id as usize).map_or("", String::as_str),
            };
            let event = Event {
                state: NORMAL,
                text: CString::new(text).expect("checked when the model was loaded"),
                id,
                in_prompt: None,
            };
            let ended = match wants_rows && scenario.logits_come == LogitsCome::WithIds {
                true => self.hand_over_without_text(&event),
                false => self.hand_over(&event),
            };
            self.output.has_no_logits();
            if let Some(end) = ended {
                break end;
            }
            before.push(id);
            if is_end {
                break End::Finished;
            }
        };
        lock(&model.cache).ids = before;
        match end {
            End::Finished => (self.faults)
                .happen(self.output, self.tally)
                .unwrap_or(End::Finished),
            end => end,
        }
    }
}
