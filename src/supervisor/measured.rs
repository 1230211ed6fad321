//! What a model's workers have shown so far; it outlives each of them.

use std::time::Duration;

use crate::ipc::RunEnd;
use crate::library_calls::PerfStat;

/// Prompts shorter than this say more about a run's overhead than about prefill.
const LEAST_TOKENS: u32 = 16;
/// How far the known rate follows a faster measurement; a slower one is taken at once, because a
/// deadline that is too short kills what works.
const TOWARDS_FASTER: f64 = 0.1;
/// How many times longer than measured a token's prefill may take: other work on the same cores
/// slows a run down by a multiple.
const PATIENCE: f64 = 8.0;

/// So many prefills tell how long one takes.
const TYPICAL_OF: usize = 8;

/// Measurements of one model on this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// For deadlines: on the slow side.
    prefill_seconds_per_token: Option<f64>,
    typical: Typical,
    /// Whether the runtime makes the same tokens of a prompt as the model's tokenizer.
    pub tokenizer_agrees: Option<bool>,
    /// Whether the runtime's tokens have the texts that the model's tokenizer knows by their numbers.
    pub tokens_agree: Option<bool>,
    /// Of the last run.
    pub decode_tokens_per_second: Option<f64>,
}

impl Measured {
    /// Takes in the prefill of one run.
    pub fn prefill(&mut self, tokens: u32, took: Duration) {
        if tokens < LEAST_TOKENS {
            return;
        }
        let measured = took.as_secs_f64() / f64::from(tokens);
        self.typical.add(tokens, measured);
        self.prefill_seconds_per_token = Some(match self.prefill_seconds_per_token {
            Some(known) if measured < known => known + TOWARDS_FASTER * (measured - known),
            _ => measured,
        });
    }

    /// Takes in what a run for a request told.
    pub fn run(&mut self, end: &RunEnd) {
        self.tokenizer(end.tokenizer_agrees);
        believes(&mut self.tokens_agree, end.tokens_agree);
        let Some(perf) = &end.perf else { return };
        let duration = |ms: f32| Duration::try_from_secs_f32(ms / 1000.0);
        if let Ok(took) = duration(perf.prefill_ms) {
            self.prefill(perf.prefill_tokens, took);
        }
        if let Ok(took) = duration(perf.generate_ms) {
            self.decode(perf.generate_tokens, took);
        }
    }

    /// Takes in what the library said at the end of a raw run.
    pub fn perf(&mut self, perf: &PerfStat) {
        let tokens = u32::try_from(perf.prefill_tokens);
        let took = Duration::try_from_secs_f32(perf.prefill_time_ms / 1000.0);
        if let (Ok(tokens), Ok(took)) = (tokens, took) {
            self.prefill(tokens, took);
        }
    }

    /// Takes in the decoding of one run; `tokens` without the first one.
    pub fn decode(&mut self, tokens: u32, took: Duration) {
        if tokens > 0 && !took.is_zero() {
            self.decode_tokens_per_second = Some(f64::from(tokens) / took.as_secs_f64());
        }
    }

    /// Takes in what one run told about the tokenizer. Once it has been wrong it is not trusted
    /// again.
    pub fn tokenizer(&mut self, agrees: Option<bool>) {
        believes(&mut self.tokenizer_agrees, agrees);
    }

    /// How long a token of a prompt takes, by no more and no less than was measured: what costs are
    /// compared by.
    pub fn prefill_takes_per_token(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.typical.get()?).ok()
    }

    /// How long a token of a prompt may take, by what was measured.
    pub fn prefill_per_token(&self) -> Option<Duration> {
        let seconds = self.prefill_seconds_per_token?;
        Duration::try_from_secs_f64(seconds * PATIENCE).ok()
    }
}

/// What was wrong once stays so.
fn believes(known: &mut Option<bool>, agrees: Option<bool>) {
    if let Some(agrees) = agrees {
        *known = Some(agrees && *known != Some(false));
    }
}

/// The last prefills. One that something else has slowed down, or a short one that shows the overhead of
/// a run, is outweighed by the tokens of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Typical {
    /// Tokens, and seconds for each; without tokens there is none.
    prefills: [(u32, f64); TYPICAL_OF],
    next: u8,
}

impl Typical {
    fn add(&mut self, tokens: u32, seconds_per_token: f64) {
        let at = usize::from(self.next) % TYPICAL_OF;
        self.prefills[at] = (tokens, seconds_per_token);
        self.next = ((at + 1) % TYPICAL_OF) as u8;
    }

    /// So that half of the tokens took no longer each.
    fn get(&self) -> Option<f64> {
        let mut known = self.prefills;
        known.sort_unstable_by(|one, other| one.1.total_cmp(&other.1));
        let all: u64 = known.iter().map(|(tokens, _)| u64::from(*tokens)).sum();
        let mut so_far = 0;
        let of_half = known.iter().find(|(tokens, _)| {
            so_far += u64::from(*tokens);
            *tokens > 0 && so_far * 2 >= all
        });
        of_half.map(|(_, seconds)| *seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_is_known_until_a_prompt_of_some_length_was_measured() {
        let mut measured = Measured::default();
        measured.prefill(LEAST_TOKENS - 1, Duration::from_secs(100));
        assert_eq!(measured.prefill_per_token(), None);
        measured.prefill(100, Duration::from_secs(5));
        let per_token = measured.prefill_per_token();
        assert_eq!(
            per_token,
            Some(Duration::from_millis(400)),
            "50 ms, eight times"
        );
    }

    #[test]
    fn figures_of_a_library_that_cannot_be_true_teach_nothing() {
        let mut measured = Measured::default();
        for (prefill_tokens, prefill_time_ms) in [(-1, 1.0), (100, -1.0), (100, f32::NAN)] {
            measured.perf(&PerfStat {
                prefill_tokens,
                prefill_time_ms,
                ..PerfStat::default()
            });
        }
        assert_eq!(measured, Measured::default());
        measured.perf(&PerfStat {
            prefill_tokens: 100,
            prefill_time_ms: 5000.0,
            ..PerfStat::default()
        });
        let per_token = measured.prefill_per_token();
        assert_eq!(
            per_token,
            Some(Duration::from_millis(400)),
            "50 ms, eight times"
        );
    }

    #[test]
    fn slower_is_believed_at_once_and_faster_only_slowly() {
        let mut measured = Measured::default();
        measured.prefill(100, Duration::from_secs(1));
        measured.prefill(100, Duration::from_secs(10));
        assert_eq!(
            measured.prefill_per_token(),
            Some(Duration::from_millis(800))
        );
        measured.prefill(100, Duration::from_secs(1));
        let per_token = measured.prefill_per_token().unwrap();
        assert!(
            per_token > Duration::from_millis(700) && per_token < Duration::from_millis(800),
            "{per_token:?}"
        );
    }

    fn takes(measured: &Measured) -> Duration {
        measured.prefill_takes_per_token().expect("it was measured")
    }

    #[test]
    fn what_a_prefill_takes_follows_measurements_up_and_down() {
        let mut measured = Measured::default();
        assert_eq!(measured.prefill_takes_per_token(), None);
        // In a company of eight, or on a machine that does something else.
        measured.prefill(1000, Duration::from_secs(80));
        assert_eq!(takes(&measured), Duration::from_millis(80));
        measured.prefill(1000, Duration::from_secs(10));
        measured.prefill(1000, Duration::from_secs(10));
        assert_eq!(takes(&measured), Duration::from_millis(10));
        let deadline = measured.prefill_per_token().unwrap();
        assert!(deadline > Duration::from_millis(500), "{deadline:?}");
        for _ in 0..3 {
            measured.prefill(1000, Duration::from_secs(20));
        }
        assert_eq!(takes(&measured), Duration::from_millis(20));
    }

    #[test]
    fn short_prompts_say_less_of_what_a_long_one_takes() {
        let mut measured = Measured::default();
        measured.prefill(2000, Duration::from_secs(4));
        for _ in 0..6 {
            measured.prefill(20, Duration::from_secs(1));
        }
        assert_eq!(takes(&measured), Duration::from_millis(2));
    }

    proptest! {
        #[test]
        fn what_a_prefill_takes_was_measured(
            prefills in prop::collection::vec((LEAST_TOKENS..5000, 1u64..100_000), 1..40),
        ) {
            let mut measured = Measured::default();
            for &(tokens, ms) in &prefills {
                measured.prefill(tokens, Duration::from_millis(ms));
            }
            let last = prefills.iter().rev().take(TYPICAL_OF);
            let each = last.map(|&(tokens, ms)| Duration::from_secs_f64(ms as f64 / 1000.0 / f64::from(tokens)));
            let each: Vec<_> = each.collect();
            prop_assert!(each.contains(&takes(&measured)));
        }
    }

    #[test]
    fn a_tokenizer_that_was_wrong_once_is_not_trusted_again() {
        let mut measured = Measured::default();
        measured.tokenizer(Some(true));
        measured.tokenizer(None);
        assert_eq!(measured.tokenizer_agrees, Some(true));
        measured.tokenizer(Some(false));
        measured.tokenizer(Some(true));
        assert_eq!(measured.tokenizer_agrees, Some(false));
    }
}
