//! What the callback of a run and the main thread tell each other, without a lock: the callback
//! must not wait.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::credit::Credit;
use crate::ipc::WaitsFor;

const SHORTEST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Values of `going_back`.
const GOES_ON: u8 = 0;
const UNTIL_FINISH: u8 = 1;
const UNTIL_EVALUATED: u8 = 2;

#[derive(Debug)]
pub struct RunProgress {
    started: Instant,
    tokens: AtomicU32,
    /// Microseconds from `started` to the first and the last token.
    first_token_us: AtomicU64,
    last_token_us: AtomicU64,
    /// Likewise to the last token alone, whatever has moved it since.
    newest_token_us: AtomicU64,
    /// The run ends when it has made this many tokens.
    limit_tokens: AtomicU32,
    abort_requested: AtomicBool,
    /// The main thread waits for another token.
    next_is_told: AtomicBool,
    waiting_for_reader: AtomicBool,
    /// Microseconds for which it was held up before, and from `started` to when it was held up last.
    held_up_us: AtomicU64,
    held_up_since_us: AtomicU64,
    /// The answer is complete and the library was asked to end the run.
    complete: AtomicBool,
    /// What a run that goes back waits for: nothing, or one of the two below, and since when.
    going_back: AtomicU8,
    going_back_since_us: AtomicU64,
    pub credit: Credit,
}

impl RunProgress {
    /// `credit`: events that the daemon has room for at first.
    pub fn new(limit_tokens: u32, credit: u32) -> Self {
        Self {
            started: Instant::now(),
            tokens: AtomicU32::new(0),
            first_token_us: AtomicU64::new(0),
            last_token_us: AtomicU64::new(0),
            newest_token_us: AtomicU64::new(0),
            limit_tokens: AtomicU32::new(limit_tokens),
            abort_requested: AtomicBool::new(false),
            next_is_told: AtomicBool::new(false),
            waiting_for_reader: AtomicBool::new(false),
            held_up_us: AtomicU64::new(0),
            held_up_since_us: AtomicU64::new(0),
            complete: AtomicBool::new(false),
            going_back: AtomicU8::new(GOES_ON),
            going_back_since_us: AtomicU64::new(0),
            credit: Credit::new(credit),
        }
    }

    /// Counts a token. Returns how many there are now.
    pub fn count_token(&self) -> u32 {
        let elapsed_us = self.touch();
        if self.tokens.load(Ordering::Relaxed) == 0 {
            self.first_token_us.store(elapsed_us, Ordering::Relaxed);
        }
        self.newest_token_us.store(elapsed_us, Ordering::Relaxed);
        // Releases the times above to the thread that reads the count.
        self.tokens.fetch_add(1, Ordering::Release) + 1
    }

    /// The main thread is told of the next token too.
    pub fn tell_next(&self) {
        self.next_is_told.store(true, Ordering::Relaxed);
    }

    /// Whether the main thread is told of this token, which was counted: of the first one, and where it asked for that.
    pub fn is_told(&self, count: u32) -> bool {
        let is_asked_for = self.next_is_told.load(Ordering::Relaxed);
        if is_asked_for {
            self.next_is_told.store(false, Ordering::Relaxed);
        }
        count == 1 || is_asked_for
    }

    /// Twice the mean time between two tokens, in bounds that suit a wait for the next one.
    pub fn two_intervals(&self) -> Duration {
        match self.interval() {
            Some(interval) => (2 * interval).clamp(SHORTEST_WAIT, LONGEST_WAIT),
            None if self.tokens() == 0 => Duration::ZERO,
            None => LONGEST_WAIT,
        }
    }

    /// From its start to its first token, and from that to its last one; `None` before there is one, and of the
    /// second where there is no other.
    pub fn took(&self) -> Option<(Duration, Option<Duration>)> {
        let tokens = self.tokens();
        let first = self.first_token_us.load(Ordering::Relaxed);
        let last = self.newest_token_us.load(Ordering::Relaxed);
        let others = Duration::from_micros(last.saturating_sub(first));
        (tokens > 0).then(|| (Duration::from_micros(first), (tokens > 1).then_some(others)))
    }

    /// The mean time between two tokens; `None` before there are two.
    pub fn interval(&self) -> Option<Duration> {
        let intervals = self.tokens().saturating_sub(1);
        let first = self.first_token_us.load(Ordering::Relaxed);
        let last = self.last_token_us.load(Ordering::Relaxed);
        Duration::from_micros(last.saturating_sub(first)).checked_div(intervals)
    }

    fn elapsed_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn touch(&self) -> u64 {
        let elapsed = self.elapsed_us();
        self.last_token_us.store(elapsed, Ordering::Relaxed);
        elapsed
    }

    /// Whether the callback is held up by the daemon or its client, so that time does not count as
    /// the library's.
    pub fn set_waiting_for_reader(&self, waiting: bool) {
        let now = self.touch();
        match waiting {
            true => self.held_up_since_us.store(now, Ordering::Relaxed),
            false => {
                let since = self.held_up_since_us.load(Ordering::Relaxed);
                let lasted = now.saturating_sub(since);
                self.held_up_us.fetch_add(lasted, Ordering::Relaxed);
                // Nor is it the time of what it waits for on its way back.
                self.going_back_since_us.store(now, Ordering::Relaxed);
            }
        }
        self.waiting_for_reader.store(waiting, Ordering::Release);
    }

    /// How long the callback was held up by the daemon or its client in all.
    pub fn held_up(&self) -> Duration {
        let is_held_up = self.waiting_for_reader();
        let mut us = self.held_up_us.load(Ordering::Relaxed);
        if is_held_up {
            let since = self.held_up_since_us.load(Ordering::Relaxed);
            us = us.saturating_add(self.elapsed_us().saturating_sub(since));
        }
        Duration::from_micros(us)
    }

    pub fn waiting_for_reader(&self) -> bool {
        self.waiting_for_reader.load(Ordering::Acquire)
    }

    /// The answer has all its tokens; what the library does from now on is not part of it.
    pub fn set_complete(&self) {
        self.touch();
        self.complete.store(true, Ordering::Release);
    }

    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// The library is asked to end, or to evaluate, in the middle of the answer.
    pub fn goes_back(&self, waits_for: WaitsFor) {
        let now = self.touch();
        self.going_back_since_us.store(now, Ordering::Relaxed);
        let code = match waits_for {
            WaitsFor::Finish => UNTIL_FINISH,
            WaitsFor::Evaluation => UNTIL_EVALUATED,
        };
        // Releases the time above to the thread that reads this.
        self.going_back.store(code, Ordering::Release);
    }

    /// Tokens come again.
    pub fn goes_on(&self) {
        if self.going_back.load(Ordering::Relaxed) != GOES_ON {
            self.touch();
            self.going_back.store(GOES_ON, Ordering::Release);
        }
    }

    /// What it waits for instead of the next token, and since when.
    pub fn going_back(&self) -> Option<(WaitsFor, Instant)> {
        let waits_for = match self.going_back.load(Ordering::Acquire) {
            UNTIL_FINISH => WaitsFor::Finish,
            UNTIL_EVALUATED => WaitsFor::Evaluation,
            _ => return None,
        };
        let since = self.going_back_since_us.load(Ordering::Relaxed);
        Some((waits_for, self.started + Duration::from_micros(since)))
    }

    pub fn tokens(&self) -> u32 {
        self.tokens.load(Ordering::Acquire)
    }

    pub fn started(&self) -> Instant {
        self.started
    }

    /// When the last token was made; `None` before the first.
    pub fn last_token(&self) -> Option<Instant> {
        (self.tokens() > 0).then(|| {
            self.started + Duration::from_micros(self.last_token_us.load(Ordering::Relaxed))
        })
    }

    /// When it last moved; at first, when it started.
    pub fn moved(&self) -> Instant {
        self.last_token().unwrap_or(self.started)
    }

    pub fn limit_tokens(&self) -> u32 {
        self.limit_tokens.load(Ordering::Relaxed)
    }

    /// Ends the run earlier than planned, never later.
    pub fn lower_limit(&self, limit_tokens: u32) {
        self.limit_tokens.fetch_min(limit_tokens, Ordering::Relaxed);
    }

    pub fn request_abort(&self) {
        self.abort_requested.store(true, Ordering::Relaxed);
    }

    pub fn abort_requested(&self) -> bool {
        self.abort_requested.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_its_reader_holds_up_is_no_part_of_a_wait_on_the_way_back() {
        for waits_for in [WaitsFor::Finish, WaitsFor::Evaluation] {
            let progress = RunProgress::new(9, 0);
            progress.goes_back(waits_for);
            progress.set_waiting_for_reader(true);
            let held_up_from = Instant::now();
            while held_up_from.elapsed() < Duration::from_millis(3) {
                std::thread::yield_now();
            }
            progress.set_waiting_for_reader(false);
            let (told, since) = progress.going_back().expect("it goes back");
            assert_eq!(told, waits_for);
            assert!(since > held_up_from, "as if it had begun before");
            progress.goes_on();
            assert_eq!(progress.going_back(), None);
        }
    }
}
