//! What tests of batches have in common: a worker whose slots are sequences of one handle, and what it tells.

use std::fs;

use crate::worker_support::Worker;
use rkllmd::generation::FinishReason;
use rkllmd::ipc::{Event, RunEnd, RunOutcome, RunSpec, SlotCommand, SlotEvent, WorkerDeadlines};

pub const FINISHED: RunOutcome = RunOutcome::Finished(FinishReason::Stop);
pub const AT_ITS_LIMIT: RunOutcome = RunOutcome::Finished(FinishReason::Length);
pub const ENDLESS: &str = "token-delay-us = 50000\nrepeat = { token = \"w \", times = 1000000 }\n";

pub fn loaded(family: &str, sequences: u8, scenario: &str, deadlines: WorkerDeadlines) -> Worker {
    let scenario = format!("max-context-limit = 1048576\n{scenario}");
    let mut worker = Worker::start(family, &scenario);
    worker.load_batch(sequences, deadlines);
    while !matches!(worker.next(), Event::Loaded { .. }) {}
    worker
}

pub fn run(worker: &mut Worker, slot: u8, spec: RunSpec) {
    worker.ask_slot(slot, SlotCommand::Run(Box::new(spec)));
}

/// Gives each slot a run of this prompt, by the number of the slot and one.
pub fn run_all(worker: &mut Worker, prompts: &[&str]) {
    for (slot, prompt) in (0..).zip(prompts) {
        let spec = worker.spec(u64::from(slot) + 1, prompt, None);
        run(worker, slot, spec);
    }
}

pub fn answers() -> String {
    let answer = |name: &str, count: usize| {
        let tokens: Vec<String> = (0..count).map(|n| format!("\"{name}{n} \"")).collect();
        let tokens = tokens.join(", ");
        format!("[[answer]]\nwhen-prompt-contains = \"{name}\"\ntokens = [{tokens}]\n")
    };
    answer("alpha", 3) + &answer("beta", 8)
}

pub fn whole(name: &str, count: usize) -> String {
    (0..count).map(|n| format!("{name}{n} ")).collect()
}

/// A fault: the run waits until `go` lets it go on.
pub fn waits(place: &str) -> String {
    format!("[[fault]]\ncall = \"run\"\nkind = \"wait\"\ntext = \"go\"\n{place}\n")
}

pub fn go(worker: &Worker) {
    fs::write(worker.folder().join("go"), "").expect("a file");
}

pub struct Told {
    pub texts: Vec<String>,
    pub ends: Vec<Option<RunEnd>>,
    /// The slots in the order of their ends, and how many tokens had come by then.
    pub order: Vec<usize>,
}

impl Told {
    pub fn new(slots: usize) -> Self {
        Self {
            texts: vec![String::new(); slots],
            ends: vec![None; slots],
            order: Vec::new(),
        }
    }

    pub fn until(&mut self, worker: &mut Worker, happened: impl Fn(&Self) -> bool) {
        while !happened(self) {
            let Event::Slot { slot, event } = worker.next() else {
                continue;
            };
            let slot = usize::from(slot);
            match event {
                SlotEvent::Token { text, .. } => {
                    assert!(self.ends[slot].is_none(), "a token behind its end");
                    self.texts[slot].push_str(&text);
                }
                SlotEvent::RunEnded(end) => {
                    assert!(self.ends[slot].is_none(), "a second end");
                    self.ends[slot] = Some(*end);
                    self.order.push(slot);
                }
                _ => {}
            }
        }
    }

    pub fn until_all_end(&mut self, worker: &mut Worker) {
        self.until(worker, |told| told.ends.iter().all(Option::is_some));
    }

    pub fn outcome(&self, slot: usize) -> &RunOutcome {
        &self.ends[slot].as_ref().expect("an end").outcome
    }

    pub fn tokens(&self, slot: usize) -> u32 {
        self.ends[slot].as_ref().expect("an end").generated_tokens
    }
}
