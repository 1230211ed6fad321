//! How many tokens a prompt had, from what the runtime reports when no tokenizer can tell.
//!
//! The KV cache holds the prompt and the generated tokens after a run, and whether the last
//! generated token is among them differs between runtimes. The first run after a load measures
//! that: its cache was empty, so its prefill was the whole prompt. A figure that does not add up is
//! not known.

use std::cmp::Ordering;

/// Counts of one finished run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunCounts {
    /// Tokens in the KV cache after the run.
    pub kv_cache: u32,
    /// Callbacks that stood for a token.
    pub generated: u32,
    /// Prompt tokens evaluated, as the perf statistics say.
    pub prefilled: u32,
}

/// A prompt's tokens, and those of them that were found in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptTokens {
    pub total: u32,
    /// `None`: the runtime may or may not count them as evaluated.
    pub cached: Option<u32>,
}

/// Whether the runtime evaluated exactly the tokens that a tokenizer makes of its input text.
///
/// `counted` are the tokenizer's tokens, `prefilled` those that the runtime evaluated. Fewer may
/// have been evaluated because the rest was in the cache, which tells nothing; more cannot.
pub fn tokenizer_agrees(counted: u32, prefilled: u32, cache_was_empty: bool) -> Option<bool> {
    match prefilled.cmp(&counted) {
        Ordering::Equal => Some(true),
        Ordering::Greater => Some(false),
        Ordering::Less => cache_was_empty.then_some(false),
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum CacheMeasure {
    /// The cache is empty: the next run's prefill is the whole prompt.
    #[default]
    Fresh,
    /// Nothing was measured and the cache is not known to be empty.
    Stale,
    /// The cache holds this many of the generated tokens less than all.
    Measured { not_in_cache: u32 },
    /// The runtime's figures do not add up.
    Unknown,
}

/// Counts prompts over a worker's life.
#[derive(Clone, Copy, Debug, Default)]
pub struct PromptCounter {
    cache: CacheMeasure,
    /// A run has filled the cache since the model was loaded or the cache was emptied.
    cache_is_filled: bool,
    /// A prefill shorter than its prompt was seen, so the runtime leaves cache hits out of it.
    /// Before that, a prefill as long as the prompt may mean that it counts them.
    hits_left_out: bool,
    /// A prompt cache was loaded for the next run: emptying the cache would undo that, and what that run
    /// evaluates is not its whole prompt.
    is_restored: bool,
}

impl PromptCounter {
    /// Whether emptying the cache before the next run would let it be measured.
    pub fn wants_empty_cache(self) -> bool {
        self.cache == CacheMeasure::Stale && !self.is_restored
    }

    /// A prompt cache was loaded.
    pub fn cache_restored(&mut self) {
        self.cache_is_filled = true;
        self.is_restored = true;
        if self.cache == CacheMeasure::Fresh {
            self.cache = CacheMeasure::Stale;
        }
    }

    /// The cache was emptied.
    pub fn cache_emptied(&mut self) {
        self.cache = CacheMeasure::Fresh;
        self.cache_is_filled = false;
        self.is_restored = false;
    }

    /// A run was given to the runtime. Returns whether it found the cache empty.
    pub fn cache_used(&mut self) -> bool {
        self.is_restored = false;
        !std::mem::replace(&mut self.cache_is_filled, true)
    }

    /// Reads a run's counts; `None`: the run did not tell them, or was cut off between two tokens.
    pub fn count(&mut self, counts: Option<RunCounts>) -> Option<PromptTokens> {
        let first = self.cache == CacheMeasure::Fresh;
        let Some(counts) = counts.filter(|counts| counts.generated > 0) else {
            if first {
                self.cache = CacheMeasure::Stale;
            }
            return None;
        };
        if first {
            let all = u64::from(counts.prefilled) + u64::from(counts.generated);
            self.cache = match all.checked_sub(u64::from(counts.kv_cache)) {
                Some(0) => CacheMeasure::Measured { not_in_cache: 0 },
                Some(1) => CacheMeasure::Measured { not_in_cache: 1 },
                _ => CacheMeasure::Unknown,
            };
        }
        let CacheMeasure::Measured { not_in_cache } = self.cache else {
            return None;
        };
        let total = (counts.kv_cache + not_in_cache).checked_sub(counts.generated)?;
        if total == 0 || counts.prefilled > total {
            return None;
        }
        let cached = if first {
            Some(0)
        } else {
            self.cached(total, counts.prefilled)
        };
        Some(PromptTokens { total, cached })
    }

    /// Cached tokens of a prompt whose length is known.
    pub fn cached(&mut self, total: u32, prefilled: u32) -> Option<u32> {
        let cached = total.checked_sub(prefilled)?;
        self.hits_left_out |= cached > 0;
        self.hits_left_out.then_some(cached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(kv_cache: u32, generated: u32, prefilled: u32) -> Option<RunCounts> {
        Some(RunCounts {
            kv_cache,
            generated,
            prefilled,
        })
    }

    #[test]
    fn only_an_input_that_was_evaluated_whole_tells_whether_the_tokenizer_agrees() {
        let agrees = tokenizer_agrees;
        assert_eq!([agrees(9, 9, true), agrees(9, 9, false)], [Some(true); 2]);
        assert_eq!(
            [agrees(9, 10, true), agrees(9, 10, false)],
            [Some(false); 2]
        );
        assert_eq!(agrees(9, 8, true), Some(false));
        assert_eq!(agrees(9, 8, false), None, "one may have been cached");
    }

    #[test]
    fn the_cache_is_empty_for_one_run_after_a_load_and_after_it_was_emptied() {
        let mut counter = PromptCounter::default();
        assert_eq!([counter.cache_used(), counter.cache_used()], [true, false]);
        counter.cache_emptied();
        assert_eq!([counter.cache_used(), counter.cache_used()], [true, false]);
    }

    #[test]
    fn nothing_is_emptied_or_measured_around_a_prompt_cache_that_was_loaded() {
        // Of a slot in which nothing was measured.
        let mut counter = PromptCounter::default();
        counter.cache_restored();
        assert!(
            !counter.wants_empty_cache(),
            "it would be loaded for nothing"
        );
        assert!(!counter.cache_used());
        assert_eq!(counter.count(counts(29, 10, 2)), None);
        assert!(counter.wants_empty_cache(), "it is behind a run");
        counter.cache_emptied();
        assert_eq!(
            counter.count(counts(29, 10, 20)),
            Some(PromptTokens {
                total: 20,
                cached: Some(0)
            }),
            "it is no runtime whose figures do not add up"
        );
        // Of one in which it was.
        counter.cache_restored();
        assert_eq!(
            counter.count(counts(34, 10, 5)),
            Some(PromptTokens {
                total: 25,
                cached: Some(20)
            })
        );
    }

    #[test]
    fn the_first_run_measures_and_later_runs_use_it() {
        let mut counter = PromptCounter::default();
        let first = counter.count(counts(29, 10, 20));
        assert_eq!(
            first,
            Some(PromptTokens {
                total: 20,
                cached: Some(0)
            })
        );
        // 25 prompt tokens of which 20 were cached, 10 generated, the last one not in the cache.
        let second = counter.count(counts(34, 10, 5));
        assert_eq!(
            second,
            Some(PromptTokens {
                total: 25,
                cached: Some(20)
            })
        );
    }

    #[test]
    fn a_runtime_that_keeps_the_last_token_is_measured_too() {
        let mut counter = PromptCounter::default();
        assert_eq!(
            counter.count(counts(30, 10, 20)),
            Some(PromptTokens {
                total: 20,
                cached: Some(0)
            })
        );
        assert_eq!(
            counter.count(counts(35, 10, 5)),
            Some(PromptTokens {
                total: 25,
                cached: Some(20)
            })
        );
    }

    #[test]
    fn figures_that_do_not_add_up_are_not_known() {
        let mut counter = PromptCounter::default();
        assert_eq!(counter.count(counts(99, 10, 20)), None);
        assert_eq!(
            counter.count(counts(29, 10, 20)),
            None,
            "never measured after that"
        );
        let mut untold = PromptCounter::default();
        assert_eq!(untold.count(None), None);
        assert_eq!(
            untold.count(counts(29, 10, 20)),
            None,
            "the cache was not empty"
        );
        assert!(untold.wants_empty_cache());
        untold.cache_emptied();
        assert_eq!(
            untold.count(counts(29, 10, 20)),
            Some(PromptTokens {
                total: 20,
                cached: Some(0)
            })
        );
    }
}
