//! The steps of a run, from its start over aborts and questions beside it to its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::active_run::ActiveRun;
use super::super::constrained::SharedTokens;
use super::super::control_thread::{ControlAnswer, ControlCall, ControlReply, KvPurpose};
use super::super::npu_thread::{NpuTask, RunReturned};
use super::super::prepared_input::budget_left;
use super::super::run_progress::RunProgress;
use super::super::size_in_run::{Reading, SizeInRun};
use super::{Common, Doing, Slot};
use crate::ipc::{RunSpec, SlotEvent};

/// An abort is repeated this often until the run has come back.
const ABORT_REPEAT: Duration = Duration::from_millis(250);
/// No more questions are asked of a run of which the library may tell nothing.
const MOST_CONTEXT_QUESTIONS: u32 = 3;

impl Slot {
    pub(super) fn start_run(&mut self, common: &mut Common, mut spec: Box<RunSpec>) {
        // In the order of the commands: another slot's run may count on it.
        if let Some(vocabulary) = spec.vocabulary.take() {
            // Several may tell them before one has ended.
            let tokens = &mut common.tokens;
            tokens.get_or_insert_with(|| Arc::new(SharedTokens::new(vocabulary)));
        }
        if !self.is_free() {
            eprintln!("W rkllmd-worker: a run was asked for while none can start");
            return;
        }
        let most = budget_left(common.context_length, 1);
        let wanted = spec
            .max_new_tokens
            .or(common.default_max_new_tokens)
            .unwrap_or(most);
        let progress = Arc::new(RunProgress::new(wanted.clamp(1, most), spec.credit));
        self.doing = Doing::Running(Box::new(ActiveRun::begin(&spec, Arc::clone(&progress))));
        // A run that saves is of what the cache holds.
        let empty_cache = spec.save.is_none() && self.prompt_counter.wants_empty_cache();
        self.npu_task(NpuTask::Run {
            spec,
            progress,
            tokens: common.tokens.clone(),
            empty_cache,
        });
    }

    /// Tells the library to abort, again and again until the run has come back: a call that
    /// reaches it just before it counts itself as running does nothing.
    pub fn abort_from_outside(&mut self) {
        let Doing::Running(active) = &mut self.doing else {
            return;
        };
        let Some(abort) = &mut active.abort else {
            return;
        };
        abort.from_outside = true;
        abort.next_outside = Instant::now() + ABORT_REPEAT;
        let call = ControlCall::Abort { run: active.run };
        if !self.control.is_outstanding(call) {
            self.control.make(call);
        }
    }

    /// Without a tokenizer the context's use is known only once the prompt is in it.
    pub(super) fn ask_context_left(&mut self, run: u64) {
        let Some(active) = self
            .active(run)
            .filter(|active| active.input_tokens.is_none())
        else {
            return;
        };
        active.context_questions += 1;
        let tokens_before = active.progress.tokens();
        let purpose = KvPurpose::ContextLeft { tokens_before };
        self.control.make(ControlCall::KvCacheSize { run, purpose });
    }

    pub(super) fn run_returned(&mut self, common: &mut Common, returned: Box<RunReturned>) {
        if returned.cache_emptied {
            self.prompt_counter.cache_emptied();
        }
        let run = returned.run;
        if let Some(active) = self.active(run) {
            active.returned = Some(returned);
            self.conclude(common, run);
        }
    }

    /// Ends a run that has come back, once nothing that was asked for it is outstanding: an abort
    /// that is still on its way would hit the next run.
    pub(super) fn conclude(&mut self, common: &mut Common, run: u64) {
        if self.control.is_outstanding(ControlCall::Abort { run }) {
            return;
        }
        let Some(active) = self.active(run) else {
            return;
        };
        if active.returned.is_none() {
            return;
        }
        let purpose = KvPurpose::PromptCount;
        let is_asked =
            active.is_countable() && self.control.make(ControlCall::KvCacheSize { run, purpose });
        if !is_asked {
            self.end_run(common, None);
        }
    }

    pub(super) fn control_replied(&mut self, common: &mut Common, reply: ControlReply) {
        self.control.replied(reply.call);
        if let ControlCall::Ask { id, .. } = reply.call {
            return self.answered(id, reply.result);
        }
        let size = match reply.result {
            Ok(ControlAnswer::Size(size)) => size,
            Ok(_) => None,
            Err(error) => {
                eprintln!("W rkllmd-worker: {error}");
                None
            }
        };
        let (run, purpose) = match reply.call {
            ControlCall::Abort { run } => return self.conclude(common, run),
            ControlCall::KvCacheSize { run, purpose } => (run, purpose),
            ControlCall::Ask { .. } => return,
        };
        match purpose {
            KvPurpose::ContextLeft { tokens_before } => {
                if let Some(size) = size {
                    self.context_told(common.context_length, run, tokens_before, size);
                }
            }
            KvPurpose::PromptCount if self.active(run).is_some() => self.end_run(common, size),
            KvPurpose::PromptCount => {}
        }
    }

    /// Ends a run where the context does, unless what the library says of that is not the run's.
    fn context_told(&mut self, context_length: u32, run: u64, tokens_before: u32, size: u32) {
        // Where it is not known, what is told first may be it.
        let left_before = self.left_in_cache;
        let Some(active) = self.active(run) else {
            return;
        };
        // Tokens made since the question are in the size and in the count to come, so the limit errs on the early side.
        let limit = tokens_before.saturating_add(budget_left(context_length, size));
        if limit >= active.progress.limit_tokens() {
            return;
        }
        let told = SizeInRun {
            size,
            left_before: left_before.unwrap_or(size),
            input_bytes: active.input_bytes,
            made_tokens: active.progress.tokens(),
            context_length,
        };
        match told.reading() {
            Reading::OfThisRun => active.progress.lower_limit(limit),
            Reading::MayBeOfTheRunBefore if active.context_questions < MOST_CONTEXT_QUESTIONS => {
                active.progress.tell_next();
                self.left_in_cache = Some(size);
            }
            Reading::MayBeOfTheRunBefore | Reading::NotOfThisRun => {}
        }
    }

    pub(super) fn end_run(&mut self, common: &mut Common, kv_cache: Option<u32>) {
        let Doing::Running(active) = std::mem::replace(&mut self.doing, Doing::Nothing) else {
            return;
        };
        let Some(returned) = &active.returned else {
            return;
        };
        if let Some(raw) = &returned.raw {
            common.tainted |= raw.reported_error;
            // It has filled the cache with what was not counted.
            self.prompt_counter.cache_used();
            self.prompt_counter.count(None);
            self.left_in_cache = None;
            return self.events.send(SlotEvent::RawEnded {
                run: active.run,
                result: raw.result.clone(),
                called_back: raw.called_back,
                tainted: common.tainted,
            });
        }
        if returned.asked_runtime {
            self.left_in_cache = kv_cache;
        }
        let mut end = active.end(returned, kv_cache, &mut self.prompt_counter);
        common.tainted |= end.tainted;
        end.tainted = common.tainted;
        self.events.send(SlotEvent::RunEnded(Box::new(end)));
    }
}
