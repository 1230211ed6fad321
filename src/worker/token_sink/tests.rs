use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};

use rkllm_sys::RunId;

use super::*;
use crate::ipc::{Event, FrameReader};
use crate::worker::event_writer::EventWriter;
use crate::worker::worker_state::Note;

/// A sink, what it told, and how often it asked for the run's end.
struct Bench {
    sink: Option<TokenSink>,
    record: SharedRecord,
    aborts: Arc<AtomicU32>,
    daemon: UnixStream,
    _notes: Receiver<Note>,
}

/// A token as the daemon gets it.
type Seen = (TokenKind, Option<i32>, String);

fn seen(kind: TokenKind, id: Option<i32>, text: &str) -> Seen {
    (kind, id, text.to_owned())
}

impl Bench {
    fn new(limit_tokens: u32) -> Self {
        let (daemon, worker) = UnixStream::pair().expect("a socket pair");
        let (notes, inbox) = channel();
        let record = SharedRecord::default();
        let aborts = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&aborts);
        let sink = TokenSink {
            run: 1,
            progress: Arc::new(RunProgress::new(limit_tokens, u32::MAX)),
            record: RunRecord::default(),
            record_for_caller: Arc::clone(&record),
            events: SlotEvents::new(0, EventWriter::start(worker).expect("a writer")),
            notes: SlotNotes::new(0, notes),
            abort: Box::new(move || {
                counted.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }),
            eos_ids: Arc::from([2]),
            budget_of_runtime: None,
            kept: None,
            text: Utf8Assembly::default(),
            prompt_logprobs: Vec::new(),
            logprobs: None,
        };
        Self {
            sink: Some(sink),
            record,
            aborts,
            daemon,
            _notes: inbox,
        }
    }

    fn result(&mut self, state: CallState, text: Option<&[u8]>, token_id: Option<i32>) {
        let perf = (state == CallState::Finish).then_some(PerfStat {
            prefill_time_ms: 1.0,
            prefill_tokens: 5,
            generate_time_ms: 1.0,
            generate_tokens: 1,
            memory_usage_mb: 1.0,
        });
        let view = ResultView {
            run: RunId::new(1).expect("not zero"),
            state,
            text,
            token_id,
            hidden_states: None,
            logits: None,
            perf,
        };
        let sink = self.sink.as_mut().expect("the run goes on");
        assert_eq!(sink.on_result(view), Flow::Continue);
    }

    fn normal(&mut self, text: &str, id: i32) {
        self.result(CallState::Normal, Some(text.as_bytes()), Some(id));
    }

    fn finish(&mut self) {
        self.result(CallState::Finish, None, None);
    }

    /// Ends the run. Returns what was delivered, how many tokens were counted, and the record.
    fn end(self) -> (Vec<Seen>, u32, RunRecord) {
        let (tokens, _, counted, record) = self.end_with_completion();
        (tokens, counted, record)
    }

    /// Also why the answer was reported complete, if it was, and with how many tokens.
    fn end_with_completion(mut self) -> (Vec<Seen>, Option<(FinishReason, u32)>, u32, RunRecord) {
        let sink = self.sink.take().expect("the run goes on");
        let counted = sink.progress.tokens();
        // The writer ends with the sink, and its end of the socket with it.
        drop(sink);
        let mut frames = FrameReader::default();
        std::io::Read::read_to_end(&mut self.daemon, frames.buffer()).expect("all events");
        let mut tokens = Vec::new();
        let mut complete = None;
        while let Some(event) = frames.next_message().expect("an event") {
            match event {
                Event::Slot {
                    event: SlotEvent::Token { kind, id, text, .. },
                    ..
                } => {
                    assert_eq!(complete, None, "a token of a complete answer");
                    tokens.push((kind, id, text));
                }
                Event::Slot {
                    event:
                        SlotEvent::AnswerComplete {
                            reason,
                            generated_tokens,
                            ..
                        },
                    ..
                } => {
                    assert_eq!(complete, None, "complete twice");
                    complete = Some((reason, generated_tokens));
                }
                other => panic!("{other:?}"),
            }
        }
        let record = std::mem::take(&mut *self.record.lock().expect("no panic"));
        (tokens, complete, counted, record)
    }
}

#[test]
fn kinds_tell_what_stands_behind_the_text() {
    let mut bench = Bench::new(100);
    bench.normal("a", 10);
    bench.result(CallState::Waiting, None, Some(11));
    bench.normal("é", 12);
    bench.normal("", 13);
    bench.result(CallState::Normal, None, Some(14));
    bench.result(CallState::Normal, Some(&[b'b', 0xc3]), Some(15));
    bench.result(CallState::Normal, Some(&[]), Some(16));
    bench.result(CallState::Normal, Some(&[0xa9]), Some(17));
    bench.finish();
    let (tokens, counted, _) = bench.end();
    use TokenKind::{Partial, Swallowed, Text};
    assert_eq!(
        tokens,
        [
            seen(Text, Some(10), "a"),
            seen(Partial, Some(11), ""),
            seen(Text, Some(12), "é"),
            seen(Swallowed, Some(13), ""),
            seen(Swallowed, Some(14), ""),
            seen(Partial, Some(15), "b"),
            seen(Partial, Some(16), ""),
            seen(Text, Some(17), "é"),
        ]
    );
    assert_eq!(counted, 8);
}

#[test]
fn what_stays_unfinished_is_told_at_the_end_and_is_no_token() {
    let mut bench = Bench::new(100);
    bench.result(CallState::Normal, Some(&[0xc3]), Some(15));
    bench.finish();
    let (tokens, counted, record) = bench.end();
    assert_eq!(tokens[1], seen(TokenKind::Rest, None, "\u{fffd}"));
    assert_eq!((tokens.len(), counted), (2, 1));
    assert!(record.finished && record.perf.is_some());
}

#[test]
fn a_finished_sequence_reports_no_tokens() {
    let mut bench = Bench::new(100);
    bench.result(CallState::Normal, None, Some(-1));
    bench.result(CallState::Normal, Some(&[]), Some(-1));
    bench.normal("text without an id", -1);
    bench.finish();
    let (tokens, counted, _) = bench.end();
    assert_eq!(tokens, [seen(TokenKind::Text, None, "text without an id")]);
    assert_eq!(counted, 1);
}

#[test]
fn nothing_after_finish_belongs_to_the_answer() {
    let mut bench = Bench::new(100);
    bench.normal("a", 10);
    bench.finish();
    bench.normal("ghost", 11);
    bench.result(CallState::Waiting, None, Some(12));
    bench.result(CallState::Error, None, None);
    bench.finish();
    let aborts = Arc::clone(&bench.aborts);
    let (tokens, counted, record) = bench.end();
    assert_eq!(tokens, [seen(TokenKind::Text, Some(10), "a")]);
    assert_eq!((counted, record.after_finish), (1, 4));
    assert_eq!((record.dropped_tokens, record.reported_error), (0, false));
    assert_eq!(aborts.load(Ordering::Relaxed), 0, "there is nothing to end");
}

#[test]
fn tokens_after_our_end_are_dropped_counted_and_answered_with_an_abort() {
    for ends in ["eos", "budget", "abort"] {
        let mut bench = Bench::new(2);
        bench.normal("a", 10);
        match ends {
            "eos" => bench.normal("", 2),
            "budget" => bench.normal("b", 11),
            _ => {
                let sink = bench.sink.as_ref().expect("the run goes on");
                sink.progress.request_abort();
                bench.normal("b", 11);
            }
        }
        bench.normal("ghost", 12);
        bench.finish();
        let aborts = Arc::clone(&bench.aborts);
        let (tokens, complete, counted, record) = bench.end_with_completion();
        let (text, tokens_counted, dropped, by) = match ends {
            "eos" => ("a", 2, 1, EndedBy::Reason(FinishReason::Stop)),
            "budget" => ("ab", 2, 1, EndedBy::Reason(FinishReason::Length)),
            _ => ("a", 1, 2, EndedBy::Abort),
        };
        let reported = match by {
            EndedBy::Reason(reason) => Some((reason, 2)),
            EndedBy::Abort => None,
        };
        assert_eq!(complete, reported, "{ends}");
        let delivered: String = tokens.into_iter().map(|(_, _, text)| text).collect();
        assert_eq!(delivered, text, "{ends}");
        assert_eq!(counted, tokens_counted, "{ends}");
        assert_eq!(record.dropped_tokens, dropped, "{ends}");
        assert_eq!(record.ended_by, Some(by), "{ends}");
        assert_eq!(aborts.load(Ordering::Relaxed), 2, "{ends}");
    }
}
