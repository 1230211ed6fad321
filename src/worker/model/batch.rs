//! A run of several sequences of one handle (`n_batch`): to the daemon each is a run of its own, with its own
//! budget, text and end. The library ends them together: what one of them has ended with, or has been
//! asked to, is told at once, its sequence idles on, and the library is told to end when none is left. A sequence
//! that no run has idles from the beginning where the library knows that; else it gets the shortest of prompts,
//! and what it makes is dropped.

use std::sync::{Arc, Once, PoisonError};

use rkllm_sys::{
    CallError, CallState, Flow, ResultSink, ResultView, RunExtras, RunId, RunInput, RunItem,
    RunOptions,
};

use super::super::library_call;
use super::super::npu_thread::RunReturned;
use super::super::prepared_input::{InputForm, PreparedInput};
use super::super::run_progress::RunProgress;
use super::super::seat::Seat;
use super::super::slot::{SlotNote, SlotNotes};
use super::super::slot_events::SlotEvents;
use super::super::token_sink::{SharedRecord, TokenSink};
use super::Model;
use crate::ipc::{RunSpec, SlotEvent};

/// What a sequence is given that no run has, where it cannot be given nothing: a token of every tokenizer.
const FILLER: RunInput<'static> = RunInput::Prompt("a");
/// It is told once that texts may be missing.
static MAY_LACK_TEXTS: Once = Once::new();

/// A run that is a sequence of a batch.
pub struct Member {
    pub spec: Box<RunSpec>,
    pub progress: Arc<RunProgress>,
    pub seat: Arc<Seat>,
    pub notes: SlotNotes,
    pub events: SlotEvents,
}

impl Member {
    fn tell_returned(self, returned: RunReturned) {
        self.notes.send(SlotNote::SequenceReturned {
            seat: self.seat,
            returned: Box::new(returned),
        });
    }
}

/// One that the library is given.
struct Seated {
    member: Member,
    form: InputForm,
    returned: RunReturned,
    record: SharedRecord,
}

impl Model {
    /// Blocks until the library has ended the run. All members are of one kind: see `worker_state::batches`.
    pub fn run_batch(&self, members: Vec<Member>) {
        let mut seated = Vec::with_capacity(members.len());
        // What has left is told already.
        for member in members.into_iter().filter(|it| !it.seat.has_left()) {
            let run = member.spec.run;
            let prepared = PreparedInput::prepare(&member.spec);
            let mut returned = RunReturned::of(&member.spec, &prepared);
            if let Some(tokens) = prepared.prompt_tokens {
                let event = SlotEvent::PromptCounted { run, tokens };
                member.events.send(event);
            }
            if let Some(tokens) = prepared.input_tokens
                && !self.has_room(tokens, &member.progress, &member.notes, &mut returned)
            {
                member.tell_returned(returned);
                continue;
            }
            seated.push(Seated {
                member,
                form: prepared.form,
                returned,
                record: SharedRecord::default(),
            });
        }
        // An abort that came before this point finds no run in the library.
        let is_wanted =
            |it: &Seated| !it.member.seat.has_left() && !it.member.progress.abort_requested();
        let result = match seated.iter().any(is_wanted) {
            true => {
                for it in &mut seated {
                    it.returned.asked_runtime = true;
                }
                self.call_batch(&seated)
            }
            false => Ok(()),
        };
        let is_failed = result.is_err();
        for it in seated {
            let mut returned = it.returned;
            returned.record =
                std::mem::take(&mut *it.record.lock().unwrap_or_else(PoisonError::into_inner));
            // Figures are told of one alone, whose prompt was evaluated from its beginning.
            returned.cache_emptied = returned.record.perf.is_some();
            // What has ended before is no failure's.
            let has_ended = returned.record.finished || returned.record.ended_by.is_some();
            if is_failed && !has_ended {
                returned.result = result.clone();
            }
            it.member.tell_returned(returned);
        }
    }

    fn call_batch(&self, seated: &[Seated]) -> Result<(), CallError> {
        let Some(first) = seated.first() else {
            return Ok(());
        };
        let spec = &first.member.spec;
        let id = RunId::new(spec.run).ok_or_else(|| CallError::OutOfRange {
            what: "the run id",
            value: spec.run.to_string(),
            allowed: "it must not be 0",
        })?;
        // Those before it may have been other tenants'.
        self.handle.clear_kv_cache(false)?;
        let budgets = seated.iter().map(|it| it.member.progress.limit_tokens());
        let budget = i32::try_from(budgets.max().unwrap_or(1)).unwrap_or(i32::MAX);
        let sampling = library_call::sampling(spec.sampling);
        let options = RunOptions {
            per_run: self
                .per_run
                .map(|per_run| per_run.values(sampling, Some(budget))),
            ..RunOptions::default()
        };
        let extras = RunExtras {
            lora: spec.adapter.as_deref(),
            prompt_cache: None,
        };
        let control = self.handle.control();
        let fillers = control.sequences().saturating_sub(seated.len());
        let idles = self.handle.library().takes_idle_sequences();
        let filler = match idles {
            true => RunInput::Nothing,
            false => FILLER,
        };
        let items: Vec<RunItem<'_>> = seated
            .iter()
            .map(|it| match &it.form {
                InputForm::Text(text) => RunInput::Prompt(text),
                InputForm::Tokens(ids) => RunInput::Tokens(ids),
            })
            .chain(std::iter::repeat_n(filler, fillers))
            .map(RunItem::user)
            .collect();
        // The library's figures are those of all sequences together.
        let figures = match seated.len() == 1 && (fillers == 0 || idles) {
            true => Figures::OfOne,
            false => Figures::OfAll,
        };
        let taken = seated.iter().map(|it| self.sequence_of(it)).collect();
        let sink = BatchSink {
            taken,
            figures,
            waits_together: idles,
            abort: Box::new(move || control.abort()),
        };
        self.handle
            .run_batch(&items, &options, &extras, id, Box::new(sink))
    }

    fn sequence_of(&self, seated: &Seated) -> TakenSequence {
        let Member {
            spec,
            progress,
            seat,
            notes,
            events,
        } = &seated.member;
        let mut sink = self.sink(spec.run, progress, &seated.record, notes, events);
        // The library's run is not this one's to end.
        sink.abort = Box::new(|| Ok(()));
        sink.budget_of_runtime = None;
        sink.eos_ids = self.ends(spec);
        TakenSequence {
            sink,
            seat: Arc::clone(seat),
            has_ended: false,
        }
    }
}

/// A sequence that a run has.
struct TakenSequence {
    sink: TokenSink,
    seat: Arc<Seat>,
    has_ended: bool,
}

/// Whose the figures are that the library tells at its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Figures {
    /// Nothing else was computed.
    OfOne,
    OfAll,
}

struct BatchSink {
    taken: Vec<TakenSequence>,
    figures: Figures,
    /// The library is known to say WAITING only where no sequence has a text.
    waits_together: bool,
    /// Asks the library to end.
    abort: Box<dyn Fn() -> Result<(), CallError> + Send>,
}

impl ResultSink for BatchSink {
    fn on_result(&mut self, result: ResultView<'_>) -> Flow {
        self.on_results(&[result])
    }

    fn on_results(&mut self, results: &[ResultView<'_>]) -> Flow {
        let waits = |result: &ResultView<'_>| result.state == CallState::Waiting;
        if !self.waits_together && results.iter().any(waits) {
            MAY_LACK_TEXTS.call_once(|| {
                eprintln!(
                    "W rkllmd-worker: the runtime says WAITING of several sequences; texts of those that do not \
                     wait may be missing"
                );
            });
        }
        for (sequence, result) in self.taken.iter_mut().zip(results) {
            let result = beside_others(result, self.waits_together);
            sequence.take(&result, self.figures);
        }
        let is_over = results
            .first()
            .is_some_and(|result| matches!(result.state, CallState::Finish | CallState::Error));
        let is_idle = |sequence: &TakenSequence| sequence.has_ended || sequence.seat.has_left();
        if !is_over
            && self.taken.iter().all(is_idle)
            && let Err(error) = (self.abort)()
        {
            eprintln!("W rkllmd-worker: ending a batch: {error}");
        }
        Flow::Continue
    }
}

impl TakenSequence {
    fn take(&mut self, result: &ResultView<'_>, figures: Figures) {
        if self.has_ended || !self.seat.enter() {
            return self.take_figures(result, figures);
        }
        self.sink.on_result(of_sequence(result, figures));
        self.seat.exit();
        let (record, progress) = (&self.sink.record, &self.sink.progress);
        self.has_ended = record.finished || record.ended_by.is_some();
        // An abort that came while this was at it is told here.
        if self.has_ended || progress.abort_requested() {
            self.sink.notes.send(SlotNote::Idles {
                run: self.sink.run,
                has_ended: self.has_ended,
                ended_by: record.ended_by,
            });
        }
    }

    /// What has ended before the library is told its figures when that has.
    fn take_figures(&mut self, result: &ResultView<'_>, figures: Figures) {
        let are_its = self.has_ended && figures == Figures::OfOne;
        if are_its && result.state == CallState::Finish {
            self.sink.record.perf = result.perf;
        }
    }
}

/// What a callback of the batch says to one sequence: the state is all sequences' together, the figures may be, too,
/// and one that has ended by itself is told so by its token alone (docs/vendor-library.md §4).
fn of_sequence<'a>(result: &ResultView<'a>, figures: Figures) -> ResultView<'a> {
    let has_text = result.text.is_some_and(|text| !text.is_empty());
    let has_ended = result.token_id.is_some_and(|id| id < 0) && !has_text;
    let is_token = matches!(result.state, CallState::Normal | CallState::Waiting);
    let state = match result.state {
        _ if is_token && has_ended => CallState::Finish,
        CallState::Waiting if has_text => CallState::Normal,
        state => state,
    };
    ResultView {
        state,
        perf: result.perf.filter(|_| figures == Figures::OfOne),
        ..*result
    }
}

/// Half a character beside texts of others: it has none itself, where what is not printed has an empty one.
fn beside_others<'a>(result: &ResultView<'a>, waits_together: bool) -> ResultView<'a> {
    let is_half = result.text.is_none() && result.token_id.is_some_and(|id| id >= 0);
    let state = match result.state {
        CallState::Normal if waits_together && is_half => CallState::Waiting,
        state => state,
    };
    ResultView { state, ..*result }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(state: CallState, text: Option<&[u8]>, token_id: Option<i32>) -> ResultView<'_> {
        ResultView {
            run: RunId::new(1).expect("it is not 0"),
            state,
            text,
            token_id,
            hidden_states: None,
            logits: None,
            perf: None,
        }
    }

    fn told(state: CallState, text: Option<&[u8]>, token_id: Option<i32>) -> CallState {
        of_sequence(&said(state, text, token_id), Figures::OfAll).state
    }

    #[test]
    fn half_a_character_beside_texts_of_others_waits() {
        use CallState::{Finish, Normal, Waiting};
        let beside = |state, text, token_id, waits_together| {
            beside_others(&said(state, text, token_id), waits_together).state
        };
        assert_eq!(beside(Normal, None, Some(7), true), Waiting);
        assert_eq!(beside(Normal, None, Some(7), false), Normal, "not known");
        assert_eq!(
            beside(Normal, Some(b""), Some(7), true),
            Normal,
            "it is not printed"
        );
        assert_eq!(beside(Normal, Some(b"a"), Some(7), true), Normal);
        assert_eq!(beside(Normal, None, Some(-1), true), Normal, "it has ended");
        assert_eq!(beside(Finish, None, Some(7), true), Finish);
    }

    #[test]
    fn a_sequence_that_has_ended_is_told_by_its_token() {
        use CallState::{Error, Finish, Normal, Waiting};
        assert_eq!(told(Normal, None, Some(-1)), Finish);
        assert_eq!(told(Normal, Some(b""), Some(-1)), Finish);
        assert_eq!(told(Normal, None, None), Normal, "nothing is told of it");
        assert_eq!(told(Waiting, None, Some(-1)), Finish);
        assert_eq!(
            told(Normal, Some(b""), Some(7)),
            Normal,
            "it is not printed"
        );
        assert_eq!(told(Waiting, None, Some(7)), Waiting);
        assert_eq!(
            told(Waiting, Some(b"a"), Some(7)),
            Normal,
            "another one waits"
        );
        assert_eq!(told(Finish, None, Some(-1)), Finish);
        assert_eq!(told(Error, None, None), Error);
    }
}
