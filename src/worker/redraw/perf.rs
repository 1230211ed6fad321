//! The library's figures of several runs for one answer, as those of one.

use rkllm_sys::PerfStat;

/// The first run evaluates forced tokens with the prompt, which are the answer's: so is their part of the time.
pub fn of_prompt(mut perf: PerfStat, forced: usize) -> PerfStat {
    let forced = i32::try_from(forced).unwrap_or(i32::MAX);
    if forced > 0 && perf.prefill_tokens > 0 {
        let all = perf.prefill_tokens;
        // No library evaluates none.
        perf.prefill_tokens = all.saturating_sub(forced).max(1);
        let of_prompt = perf.prefill_time_ms * perf.prefill_tokens as f32 / all as f32;
        perf.generate_time_ms += perf.prefill_time_ms - of_prompt;
        perf.prefill_time_ms = of_prompt;
    }
    perf
}

/// The prompt is evaluated by the first run; all that comes later is a part of making the answer's tokens.
pub fn goes_on(all: &mut PerfStat, more: &PerfStat) {
    all.generate_time_ms += more.prefill_time_ms + more.generate_time_ms;
    all.memory_usage_mb = all.memory_usage_mb.max(more.memory_usage_mb);
}
