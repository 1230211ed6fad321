//! However the runs of a batch leave it, by abort or by budget and in any order, each has one end, and its end counts
//! what came of it.

use crate::batches_support::{AT_ITS_LIMIT, loaded, run};
use crate::worker_support::deadlines;
use rkllmd::ipc::{AbortMode, Command, Event, RunEnd, RunOutcome, RunSpec, SlotCommand, SlotEvent};

/// Numbers that are the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

#[test]
fn each_run_has_one_end_however_the_runs_of_a_batch_leave() {
    const SLOTS: usize = 4;
    let scenario = "token-delay-us = 300\nrepeat = { token = \"w \", times = 1000 }\n";
    let mut worker = loaded("1_3_1", SLOTS as u8, scenario, deadlines());
    let mut numbers = Numbers(7);
    for round in 0..80_u64 {
        let run_of = |slot: usize| round * SLOTS as u64 + slot as u64 + 1;
        let mut aborts = [None; SLOTS];
        let mut budgets = [0; SLOTS];
        for slot in 0..SLOTS {
            budgets[slot] = 1 + numbers.below(30);
            // Behind so many tokens, if at all.
            aborts[slot] = (numbers.below(2) == 0).then(|| numbers.below(20));
            let spec = RunSpec {
                max_new_tokens: u32::try_from(budgets[slot]).ok(),
                ..worker.spec(run_of(slot), "x", None)
            };
            run(&mut worker, slot as u8, spec);
        }
        worker.send(Command::BeginBatch);
        let mut tokens = [0; SLOTS];
        let mut ends: [Option<RunEnd>; SLOTS] = [const { None }; SLOTS];
        while ends.iter().any(Option::is_none) {
            for slot in 0..SLOTS {
                if aborts[slot].is_some_and(|at| at <= tokens[slot]) {
                    aborts[slot] = None;
                    let (run, mode) = (run_of(slot), AbortMode::AtOnce);
                    worker.ask_slot(slot as u8, SlotCommand::Abort { run, mode });
                }
            }
            let Event::Slot { slot, event } = worker.next() else {
                continue;
            };
            let slot = usize::from(slot);
            match event {
                SlotEvent::Token { run, text, .. } => {
                    assert_eq!((run, &*text), (run_of(slot), "w "), "round {round}");
                    assert!(
                        ends[slot].is_none(),
                        "round {round}: a token behind its end"
                    );
                    tokens[slot] += 1;
                }
                SlotEvent::RunEnded(end) => {
                    assert_eq!(end.run, run_of(slot), "round {round}");
                    assert!(!end.tainted, "round {round}: {end:?}");
                    assert!(
                        ends[slot].replace(*end).is_none(),
                        "round {round}: a second end"
                    );
                }
                _ => {}
            }
        }
        for (slot, end) in ends.iter().flatten().enumerate() {
            let made = u64::from(end.generated_tokens);
            assert_eq!(made, tokens[slot], "round {round}");
            match &end.outcome {
                RunOutcome::Aborted => assert!(made <= budgets[slot]),
                outcome => {
                    assert_eq!((outcome, made), (&AT_ITS_LIMIT, budgets[slot]));
                }
            }
        }
    }
}
