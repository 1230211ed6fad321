//! The faults of a run that is going on, in the order in which they are due. All that the loop
//! over tokens looks at is the number of tokens after which the next one is.

use crate::answer::{Event, NORMAL};
use crate::fault::{After, Call, Fault};
use crate::generation::{End, Tally};
use crate::model::Model;
use crate::output::Output;
use std::ffi::CString;

pub struct FaultsOfARun<'a> {
    in_prefill: &'a [Fault],
    rest: std::slice::Iter<'a, Fault>,
    model: &'a Model,
    /// Tokens after which the next one happens.
    pub next_at: u64,
    /// Tokens that are no part of the answer.
    pub extra_tokens: u64,
    pub at_the_end: AtTheEnd,
}

/// What is left to go wrong when the run ends.
#[derive(Default)]
pub struct AtTheEnd {
    pub finish_again: bool,
    pub text: Option<Event>,
    pub late_callback: bool,
}

/// The faults of a run of these prompts: those in prefill, then the others in the order of their tokens.
pub fn faults_of_run(model: &Model, occasion: u32, prompts: &[&[u8]]) -> Vec<Fault> {
    let mut faults: Vec<Fault> = model
        .scenario
        .fault
        .iter()
        .filter(|fault| {
            let mut prompts = prompts.iter();
            prompts.any(|prompt| fault.applies(Call::Run, occasion, prompt))
        })
        .cloned()
        .collect();
    faults.sort_by_key(|fault| (!fault.in_prefill, fault.after_tokens.unwrap_or(0)));
    faults
}

impl<'a> FaultsOfARun<'a> {
    /// `faults` are in the order of [`faults_of_run`].
    pub fn new(faults: &'a [Fault], model: &'a Model) -> Self {
        let (in_prefill, rest) = faults.split_at(faults.partition_point(|fault| fault.in_prefill));
        let mut faults = FaultsOfARun {
            in_prefill,
            rest: rest.iter(),
            model,
            next_at: 0,
            extra_tokens: 0,
            at_the_end: AtTheEnd::default(),
        };
        faults.next_at = faults.due_at();
        faults
    }

    fn due_at(&self) -> u64 {
        let next = self.rest.as_slice().first();
        next.map_or(u64::MAX, |fault| fault.after_tokens.unwrap_or(0))
    }

    /// Lets those in prefill happen; an end of the run, if one of them is.
    pub fn happen_in_prefill(&mut self) -> Option<End> {
        std::mem::take(&mut self.in_prefill)
            .iter()
            .map(|fault| fault.happen(self.model.scene()))
            .find(|after| *after != After::GoOn)
            .map(End::Fault)
    }

    /// Lets all that are due happen; an end of the run, if one of them is.
    pub fn happen(&mut self, output: &mut Output<'_>, tally: &mut Tally) -> Option<End> {
        while tally.produced >= self.due_at() {
            let fault = self.rest.next()?;
            let paused = match fault.happen(self.model.scene()) {
                After::GoOn => false,
                After::FinishTwice => {
                    self.at_the_end.finish_again = true;
                    false
                }
                After::TextAfterFinish { text, id } => {
                    self.at_the_end.text = Some(Event {
                        state: NORMAL,
                        text: CString::new(text).expect("checked when the model was loaded"),
                        id,
                        in_prompt: None,
                    });
                    false
                }
                After::LateCallback => {
                    self.at_the_end.late_callback = true;
                    false
                }
                After::NullText { id } => {
                    self.count_extra(tally);
                    output.is_paused_by_normal(None, id)
                }
                After::SpecialToken { id } => {
                    self.count_extra(tally);
                    output.is_paused_by_normal(Some(c""), id)
                }
                other => return Some(End::Fault(other)),
            };
            if paused {
                return Some(End::Paused);
            }
        }
        self.next_at = self.due_at();
        None
    }

    /// To its host it is a token like the others.
    fn count_extra(&mut self, tally: &mut Tally) {
        self.extra_tokens += 1;
        tally.produced += 1;
    }
}
