use rkllm_sys::{CallError, PerfStat};

use super::*;
use crate::generation::SamplingRequest;
use crate::ipc::BegunAnswer;
use crate::worker::token_sink::RunRecord;

fn active(tokens: u32) -> ActiveRun {
    let spec = RunSpec {
        run: 1,
        prompt: "four".to_owned(),
        prompt_tokens: None,
        begun: Some(BegunAnswer {
            text: "and six".to_owned(),
            token_ids: None,
            tokens: Some(2),
        }),
        draws: Default::default(),
        constraint: None,
        adapter: None,
        redraws: None,
        vocabulary: None,
        sampling: SamplingRequest::default(),
        max_new_tokens: None,
        prefill_per_token: Duration::from_millis(1),
        credit: 0,
        save: None,
    };
    let progress = Arc::new(RunProgress::new(100, 0));
    for _ in 0..tokens {
        progress.count_token();
    }
    ActiveRun::begin(&spec, progress)
}

fn alone() -> Company {
    Company {
        runs: 1,
        moved: Instant::now(),
        others_began: None,
        still: None,
        may_be_full: false,
    }
}

fn refusal() -> CallError {
    CallError::Failed {
        function: "rkllm_run",
        code: -1,
        version: "1.3.1".to_owned(),
    }
}

/// A run that the runtime took and that evaluated nine tokens.
fn returned() -> RunReturned {
    RunReturned {
        run: 1,
        result: Ok(()),
        record: RunRecord {
            finished: true,
            perf: Some(PerfStat {
                prefill_time_ms: 1.0,
                prefill_tokens: 9,
                generate_time_ms: 1.0,
                generate_tokens: 1,
                memory_usage_mb: 1.0,
            }),
            ..RunRecord::default()
        },
        input_tokens: None,
        input_was_text: true,
        cache_emptied: false,
        asked_runtime: true,
        over_limit_tokens: None,
        not_kept: None,
        redraws: None,
        tokens_agree: None,
        raw: None,
    }
}

fn end(tokens: u32, returned: &RunReturned) -> RunEnd {
    active(tokens).end(returned, None, &mut PromptCounter::default())
}

#[test]
fn a_run_that_failed_taints_and_one_that_was_refused_does_not() {
    let mut refused = returned();
    refused.result = Err(refusal());
    let run_end = end(0, &refused);
    assert!(matches!(run_end.outcome, RunOutcome::Refused { .. }) && !run_end.tainted);

    let after_tokens = end(3, &refused);
    assert!(matches!(after_tokens.outcome, RunOutcome::Failed { .. }) && after_tokens.tainted);

    for result in [Ok(()), Err(refusal())] {
        let mut error_state = returned();
        error_state.result = result;
        error_state.record.reported_error = true;
        for tokens in [0, 3] {
            let run_end = end(tokens, &error_state);
            assert!(matches!(run_end.outcome, RunOutcome::Failed { .. }) && run_end.tainted);
        }
    }
    let run_end = end(3, &returned());
    assert_eq!(run_end.outcome, RunOutcome::Finished(FinishReason::Stop));
    assert!(!run_end.tainted);
}

#[test]
fn an_error_while_it_is_aborted_taints_although_the_abort_is_the_outcome() {
    let mut error_state = returned();
    error_state.record.reported_error = true;
    let mut active = active(3);
    active.request_abort(AbortMode::AtOnce);
    let run_end = active.end(&error_state, None, &mut PromptCounter::default());
    assert!(run_end.outcome == RunOutcome::Aborted && run_end.tainted);
}

#[test]
fn only_text_that_was_evaluated_by_a_whole_prefill_tells_about_the_tokenizer() {
    let counted = |input_tokens| RunReturned {
        input_tokens,
        ..returned()
    };
    assert_eq!(end(3, &counted(Some(9))).tokenizer_agrees, Some(true));
    assert_eq!(end(3, &counted(Some(10))).tokenizer_agrees, Some(false));
    assert_eq!(end(3, &counted(Some(8))).tokenizer_agrees, Some(false));
    assert_eq!(end(3, &counted(None)).tokenizer_agrees, None);
    assert_eq!(end(0, &counted(Some(10))).tokenizer_agrees, None);
    let mut of_tokens = counted(Some(9));
    of_tokens.input_was_text = false;
    assert_eq!(end(3, &of_tokens).tokenizer_agrees, None);

    let mut counter = PromptCounter::default();
    let mut never_asked = counted(Some(9));
    never_asked.asked_runtime = false;
    never_asked.record.perf = None;
    active(0).end(&never_asked, None, &mut counter);
    let first = active(3).end(&counted(Some(10)), None, &mut counter);
    assert_eq!(first.tokenizer_agrees, Some(false), "the cache was empty");
    let second = active(3).end(&counted(Some(10)), None, &mut counter);
    assert_eq!(second.tokenizer_agrees, None, "one may have been cached");
}

#[test]
fn a_second_abort_can_only_be_more_urgent() {
    let mut active = active(1);
    active.request_abort(AbortMode::BetweenTokens);
    let first = active.abort.as_mut().expect("asked for");
    let (at, next_outside) = (first.at, first.next_outside);
    first.from_outside = true;
    active.request_abort(AbortMode::AtOnce);
    let second = active.abort.as_ref().expect("asked for");
    assert_eq!(second.at, at, "the deadline stays");
    assert!(second.from_outside && second.next_outside < next_outside);
}

#[test]
fn the_prefill_deadline_counts_the_begun_answer() {
    let mut active = active(0);
    assert_eq!(active.input_bytes, "fourand six".len());
    let deadlines = crate::worker::timing::test_deadlines();
    let prefill = |active: &ActiveRun| match active.times(&deadlines, alone(), true) {
        CallTimes::Running(run) => run.prefill,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        prefill(&active),
        deadlines.prefill_base + Duration::from_millis(3)
    );
    active.input_tokens = Some(40);
    assert_eq!(
        prefill(&active),
        deadlines.prefill_base + Duration::from_millis(40)
    );
}

/// In a pool that is full it may lose its cells, and evaluates each of its tokens by itself when it has some again.
#[test]
fn a_run_whose_tokens_are_computed_one_by_one_has_the_time_to_make_them_again() {
    let deadlines = crate::worker::timing::test_deadlines();
    let mut active = active(1);
    let pause = Duration::from_millis(20);
    let until = Instant::now() + pause;
    while Instant::now() < until {
        std::thread::yield_now();
    }
    active.progress.count_token();
    active.progress.count_token();
    let interval = active.progress.interval().expect("of three tokens");
    assert!(
        interval >= pause / 2 - Duration::from_millis(1),
        "{interval:?}"
    );
    let prompt = deadlines.prefill_base + Duration::from_millis(3);
    assert_eq!(
        active.prefill(&deadlines),
        prompt + 3 * active.prefill_per_token
    );
    active.one_by_one = true;
    assert_eq!(active.prefill(&deadlines), prompt + 6 * interval);
}

#[test]
fn a_run_is_counted_by_the_cache_only_where_its_figures_can_add_up() {
    let countable = |change: fn(&mut RunReturned)| {
        let mut returned = returned();
        change(&mut returned);
        let mut active = active(3);
        active.returned = Some(Box::new(returned));
        active.is_countable()
    };
    assert!(countable(|_| {}));
    assert!(!countable(|returned| returned.input_tokens = Some(9)));
    assert!(!countable(|returned| returned.record.after_finish = 1));
    assert!(!countable(|returned| returned.record.perf = None));
    assert!(!countable(|returned| returned.result = Err(refusal())));
}

#[test]
fn a_clock_can_be_asked_for_the_end_of_any_prefill() {
    let mut slow = active(3);
    slow.prefill_per_token = Duration::MAX;
    let deadlines = crate::worker::timing::test_deadlines();
    assert_eq!(slow.prefill(&deadlines), LONGEST_PREFILL);
    let shared = WorkerDeadlines {
        prefill_per_token: Duration::MAX,
        ..deadlines
    };
    let shared = shared.shared_by(16, Some(1 << 20));
    let until = Instant::now() + shared.inter_token;
    assert!(until > Instant::now());
}
