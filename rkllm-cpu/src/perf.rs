//! The figures of a FINISH callback. Every one is read from a clock, a counter or the kernel; time
//! spent paused is not counted.

use std::time::{Duration, Instant};

use crate::abi::RKLLMPerfStat;
use crate::log::info;

#[derive(Debug, Default)]
pub(crate) struct PerfClock {
    prefill: Duration,
    generate: Duration,
    evaluated: usize,
    tokens: usize,
    /// When the stretch that is being measured began; none while paused.
    since: Option<Instant>,
}

impl PerfClock {
    /// Starts the clock at the beginning of a run, or again after a pause.
    pub(crate) fn start(&mut self) {
        self.since = Some(Instant::now());
    }

    pub(crate) fn stop(&mut self) {
        if let Some(since) = self.since.take() {
            *self.stretch() += since.elapsed();
        }
    }

    pub(crate) fn prompt_tokens_evaluated(&mut self, tokens: usize) {
        self.evaluated += tokens;
    }

    /// A token has been sampled; the first one ends the prefill.
    pub(crate) fn token(&mut self) {
        if self.tokens == 0 {
            self.stop();
            self.start();
        }
        self.tokens += 1;
    }

    /// Prompt tokens that were evaluated are evaluated again. Time and tokens are those of the last
    /// time, so that they belong together.
    pub(crate) fn forget_prompt(&mut self) {
        self.evaluated = 0;
        self.prefill = Duration::ZERO;
    }

    /// The last ones are not told to anybody.
    pub(crate) fn forget_tokens(&mut self, tokens: usize) {
        self.tokens = self.tokens.saturating_sub(tokens);
    }

    pub(crate) fn evaluated(&self) -> usize {
        self.evaluated
    }

    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    fn stretch(&mut self) -> &mut Duration {
        if self.tokens == 0 {
            &mut self.prefill
        } else {
            &mut self.generate
        }
    }

    pub(crate) fn finish(&mut self) -> RKLLMPerfStat {
        self.stop();
        RKLLMPerfStat {
            prefill_time_ms: milliseconds(self.prefill),
            prefill_tokens: self.evaluated as i32,
            generate_time_ms: milliseconds(self.generate),
            generate_tokens: self.tokens.saturating_sub(1) as i32,
            memory_usage_mb: peak_memory_mb(),
        }
    }
}

/// The table of `RKLLM_LOG_LEVEL=1`.
pub(crate) fn print_table(perf: &RKLLMPerfStat) {
    let row = |stage: &str, milliseconds: f32, tokens: i32| {
        if tokens > 0 && milliseconds > 0.0 {
            let each = milliseconds / tokens as f32;
            let rate = 1000.0 / each;
            info!("{stage:<10} {milliseconds:>15.2} {tokens:>8} {each:>20.2} {rate:>20.2}");
        } else {
            info!(
                "{stage:<10} {milliseconds:>15.2} {tokens:>8} {:>20} {:>20}",
                "/", "/"
            );
        }
    };
    info!("--------------------------------------------------------------------------------");
    info!(
        "{:<10} {:>15} {:>8} {:>20} {:>20}",
        "Stage", "Total Time (ms)", "Tokens", "Time per Token (ms)", "Tokens per Second"
    );
    info!("--------------------------------------------------------------------------------");
    row("Prefill", perf.prefill_time_ms, perf.prefill_tokens);
    row("Generate", perf.generate_time_ms, perf.generate_tokens);
    info!("--------------------------------------------------------------------------------");
    info!("Memory Usage (MB): {:.2}", perf.memory_usage_mb);
}

/// VmHWM, the process's peak resident memory, as the vendor reports; 0 only where there is no
/// procfs, since the field cannot say "unknown".
fn peak_memory_mb() -> f32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|value| value.trim().strip_suffix("kB"))
        .and_then(|value| value.trim().parse::<f32>().ok());
    kilobytes.unwrap_or(0.0) / 1024.0
}

fn milliseconds(duration: Duration) -> f32 {
    duration.as_secs_f32() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_tokens_are_those_after_the_first() {
        let mut clock = PerfClock::default();
        clock.start();
        clock.prompt_tokens_evaluated(7);
        assert_eq!(clock.finish().generate_tokens, 0);
        for _ in 0..5 {
            clock.token();
        }
        let perf = clock.finish();
        assert_eq!((perf.prefill_tokens, perf.generate_tokens), (7, 4));
        assert!(perf.memory_usage_mb > 0.0);
    }

    #[test]
    fn a_prompt_that_is_evaluated_again_is_counted_and_timed_once() {
        let mut clock = PerfClock::default();
        clock.start();
        clock.prompt_tokens_evaluated(7);
        std::thread::sleep(Duration::from_millis(2));
        clock.stop();
        clock.forget_prompt();
        let perf = clock.finish();
        assert_eq!((perf.prefill_tokens, perf.prefill_time_ms), (0, 0.0));
    }

    #[test]
    fn time_moves_from_prefill_to_generation_and_stops_in_a_pause() {
        let mut clock = PerfClock::default();
        clock.start();
        std::thread::sleep(Duration::from_millis(2));
        clock.token();
        clock.stop();
        let prefill = clock.prefill;
        assert!(prefill >= Duration::from_millis(2));
        std::thread::sleep(Duration::from_millis(20));
        clock.start();
        let perf = clock.finish();
        assert_eq!(clock.prefill, prefill);
        assert!(perf.generate_time_ms < 20.0);
    }
}
