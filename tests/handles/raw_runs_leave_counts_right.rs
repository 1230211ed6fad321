//! Runs for hidden states share a worker with ordinary runs, whose token counts stay right.

use crate::daemon_support::FAMILIES_RUN;
use crate::worker_support::{Worker, deadlines, ms};
use rkllmd::ipc::{Event, RawRunSpec, SlotCommand, SlotEvent};
use rkllmd::library_calls::{InferMode, InferParam, Input, RowSelection};

fn hidden(worker: &mut Worker, run: u64, text: &str) {
    worker.ask(SlotCommand::RawRun(Box::new(RawRunSpec {
        run,
        inputs: vec![Input::prompt(text)],
        infer: InferParam {
            mode: InferMode::GetLastHiddenLayer,
            ..InferParam::default()
        },
        rows: RowSelection::Last,
        generate_after_logits: false,
        clear_kv_cache: true,
        prefill_per_token: ms(1),
        tensor_limit_bytes: 1 << 20,
        credit: 8,
    })));
    let mut last_row = None;
    loop {
        match worker.next() {
            Event::Slot {
                event: SlotEvent::RawResult { results, .. },
                ..
            } => {
                let tensor = results[0].hidden_states.clone();
                last_row = last_row.or(tensor.and_then(|tensor| tensor.data));
            }
            Event::Slot {
                event: SlotEvent::RawEnded { result, .. },
                ..
            } => {
                result.expect("hidden states");
                break;
            }
            _ => {}
        }
    }
    let words = text.split(' ').count();
    let first = (words - 1) * 8;
    let expected: Vec<f32> = (first..first + 8).map(|value| value as f32).collect();
    assert_eq!(last_row, Some(expected));
}

#[test]
fn prompt_tokens_are_counted_around_raw_runs() {
    for family in FAMILIES_RUN {
        let scenario = "tokens = [\"a\", \"b\"]\nprefix-reuse = true\n";
        let mut worker = Worker::loaded(family, scenario, deadlines());
        // Before the first ordinary run, which measures how the runtime counts, and after it.
        hidden(&mut worker, 1, "one two three");
        for (run, text) in [(2, "one two three four"), (4, "one two five")] {
            worker.run(run, text, None);
            let (_, end) = worker.until_end();
            let words = u32::try_from(text.split(' ').count()).unwrap();
            assert_eq!(end.prompt_tokens, Some(words), "{family} {text}");
            hidden(&mut worker, run + 1, "six seven");
        }
    }
}
