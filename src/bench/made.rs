//! One run, and what was seen of it from outside the worker.

use std::time::{Duration, Instant};

use crate::library_calls::{
    CallState, CallbackResult, CallbackThread, LibraryError, PerfStat, RunRequest, SlotResult,
};
use crate::supervisor::{LibraryHandle, RunEvent};

/// When a run is aborted.
#[derive(Clone, Copy, Debug)]
pub(super) enum AbortAt {
    Never,
    /// With this token.
    Token(u32),
    /// So long after it was handed over.
    Time(Duration),
}

#[derive(Debug, Default)]
pub(super) struct Made {
    /// Callbacks that are none of the end.
    pub callbacks: u32,
    pub with_ids: u32,
    pub with_texts: u32,
    pub with_logits: u32,
    /// Columns of the logits.
    pub vocabulary_tokens: Option<usize>,
    /// Of all sequences.
    pub tokens: u32,
    /// Of the first sequence.
    pub ids: Vec<i32>,
    pub first: Option<Duration>,
    pub last: Option<Duration>,
    /// From the abort to the end.
    pub aborted_for: Option<Duration>,
    pub tokens_before_abort: u32,
    /// The library has called back with the end.
    pub is_told_over: bool,
    pub called_back: Option<CallbackThread>,
    pub perf: Option<PerfStat>,
}

impl Made {
    /// Between the first token and the last.
    pub fn decoding(&self) -> Duration {
        match (self.first, self.last) {
            (Some(first), Some(last)) => last.saturating_sub(first),
            _ => Duration::ZERO,
        }
    }

    fn add(&mut self, at: Duration, callback: &CallbackResult) {
        let of_perf = callback.results.iter().find_map(|slot| slot.perf);
        self.perf = of_perf.or(self.perf);
        if !matches!(callback.state, CallState::Normal | CallState::Waiting) {
            self.is_told_over |= callback.state == CallState::Finish;
            return;
        }
        self.callbacks += 1;
        self.first.get_or_insert(at);
        self.last = Some(at);
        for slot in &callback.results {
            let has_text = slot.text.as_ref().is_some_and(|text| !text.is_empty());
            self.with_ids += u32::from(slot.token_id.is_some_and(|id| id >= 0));
            self.with_texts += u32::from(has_text);
            if let Some(logits) = &slot.logits {
                self.with_logits += 1;
                self.vocabulary_tokens = Some(logits.shape[1]);
            }
            self.tokens += u32::from(is_token(slot, callback.state));
            if let (0, Some(id @ 0..)) = (slot.batch_slot, slot.token_id) {
                self.ids.push(id);
            }
        }
    }
}

/// A sequence that has ended has a negative id, and a library may tell texts without ids.
fn is_token(slot: &SlotResult, state: CallState) -> bool {
    match slot.token_id {
        Some(id) => id >= 0,
        None => slot.text.is_some() || state == CallState::Waiting,
    }
}

/// Runs to the end, which the worker's deadlines see to.
pub(super) async fn run(
    handle: &LibraryHandle,
    request: RunRequest,
    abort_at: AbortAt,
) -> Result<Made, LibraryError> {
    let begun = Instant::now();
    let mut stream = handle.run(request, None).await?;
    let mut made = Made::default();
    let mut aborted: Option<Instant> = None;
    // Told behind what the run itself says of its end.
    let mut not_aborted = None;
    loop {
        let event = match abort_at {
            AbortAt::Time(after) if aborted.is_none() => {
                let left = after.saturating_sub(begun.elapsed());
                tokio::select! {
                    event = stream.next() => event,
                    () = tokio::time::sleep(left) => {
                        made.tokens_before_abort = made.tokens;
                        aborted = Some(Instant::now());
                        not_aborted = handle.abort().await.err();
                        continue;
                    }
                }
            }
            _ => stream.next().await,
        };
        match event {
            None => return Err(LibraryError::Closed),
            Some(RunEvent::Started { .. }) => {}
            Some(RunEvent::Result(callback)) => {
                made.add(begun.elapsed(), &callback);
                if let AbortAt::Token(token) = abort_at
                    && aborted.is_none()
                    && made.tokens >= token
                {
                    made.tokens_before_abort = made.tokens;
                    aborted = Some(Instant::now());
                    not_aborted = handle.abort().await.err();
                }
            }
            Some(RunEvent::Ended { called_back, .. }) => {
                made.called_back = called_back;
                made.aborted_for = aborted.map(|since| since.elapsed());
                if let Some(error) = not_aborted {
                    return Err(error);
                }
                return Ok(made);
            }
            Some(RunEvent::Failed(error)) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn callback(state: CallState, id: Option<i32>, text: Option<&str>) -> CallbackResult {
        let slot = SlotResult {
            token_id: id,
            text: text.map(str::to_owned),
            ..SlotResult::default()
        };
        CallbackResult {
            state,
            results: vec![slot],
        }
    }

    #[test]
    fn tokens_are_counted_whether_ids_or_texts_come() {
        let mut made = Made::default();
        let at = Duration::from_millis;
        made.add(at(5), &callback(CallState::Normal, Some(7), Some("a")));
        made.add(at(7), &callback(CallState::Waiting, None, None));
        made.add(at(9), &callback(CallState::Normal, None, Some("b")));
        made.add(at(10), &callback(CallState::Normal, Some(-1), None));
        assert!(!made.is_told_over);
        made.add(at(11), &callback(CallState::Finish, None, None));
        assert!(made.is_told_over);
        assert_eq!((made.callbacks, made.tokens), (4, 3));
        assert_eq!((made.with_ids, made.with_texts), (1, 2));
        assert_eq!(made.ids, [7]);
        assert_eq!(made.decoding(), at(5));
    }
}
