//! What a worker says while calls are in progress, and what it does about one that hangs: the
//! process is real, the daemon is this test.

use crate::daemon_support::{FAMILIES_RUN, PATIENCE};
use crate::worker_support::{QUIET, Worker, deadlines, heartbeats, ms, text_of};
use rkllmd::generation::{Deadline, FinishReason};
use rkllmd::ipc::{
    AbortMode, Command, EXIT_DEADLINE, EXIT_LOAD_FAILED, Event, LoadDeadline, PassedDeadline,
    RunOutcome, SlotCommand, SlotEvent, WorkerDeadlines,
};
use rustix::process::Signal;

#[test]
fn heartbeats_come_while_a_call_is_in_progress_and_only_then() {
    let scenario = "load-delay-ms = 1500\nprefill-delay-ms = 1500\ntokens = [\"a\", \"b\"]\ntoken-delay-us = 1500000\n";
    let mut worker = Worker::start("1_3_1", scenario);
    assert_eq!(worker.next_within(QUIET), None, "nothing is in progress");
    worker.load(deadlines(), false);
    let mut loading = Vec::new();
    while !matches!(loading.last(), Some(Event::Loaded { .. })) {
        loading.push(worker.next());
    }
    assert!(heartbeats(&loading) >= 5, "{loading:?}");
    assert_eq!(worker.next_within(QUIET), None, "nothing is in progress");

    worker.run(1, "x", None);
    let (events, _) = worker.until_end();
    let waits: Vec<_> = events
        .split(|event| {
            matches!(
                event,
                Event::Slot {
                    event: SlotEvent::Token { .. },
                    ..
                }
            )
        })
        .collect();
    assert_eq!(waits.len(), 3, "{events:?}");
    assert!(heartbeats(waits[0]) >= 5, "in prefill: {events:?}");
    assert!(heartbeats(waits[1]) >= 5, "between tokens: {events:?}");
    assert_eq!(worker.next_within(QUIET), None, "nothing is in progress");
}

#[test]
fn a_stopped_worker_is_silent_and_goes_on_where_it_was() {
    let scenario = "prefill-delay-ms = 5000\ntokens = [\"fine\"]\n";
    let mut worker = Worker::loaded("1_3_1", scenario, deadlines());
    worker.run(1, "x", None);
    assert_eq!(worker.next(), Event::Heartbeat);
    worker.signal(Signal::STOP);
    // One may have been on its way.
    while worker.next_within(QUIET).is_some() {}
    assert_eq!(worker.next_within(QUIET), None);
    worker.signal(Signal::CONT);
    assert_eq!(worker.next(), Event::Heartbeat);
    let (events, end) = worker.until_end();
    assert_eq!(text_of(&events), "fine");
    assert!(!end.tainted);
}

#[test]
fn a_stream_in_flow_carries_no_heartbeat() {
    let scenario = "repeat = { token = \"w \", times = 50 }\ntoken-delay-us = 50000\n";
    let slow = WorkerDeadlines {
        heartbeat: ms(2000),
        ..deadlines()
    };
    let mut worker = Worker::loaded("1_3_1", scenario, slow);
    worker.run(1, "x", None);
    let (events, end) = worker.until_end();
    assert_eq!(end.generated_tokens, 50);
    assert_eq!(heartbeats(&events), 0, "{events:?}");
}

#[test]
fn a_load_without_progress_ends_after_the_time_it_is_granted() {
    let scenario = "[[fault]]\ncall = \"init\"\nkind = \"hang\"\n";
    let mut worker = Worker::start("1_3_1", scenario);
    let granted = ms(1500);
    let short = WorkerDeadlines {
        load: LoadDeadline {
            granted,
            stall: ms(200),
            longest: PATIENCE,
        },
        ..deadlines()
    };
    worker.load(short, false);
    let last = loop {
        match worker.next() {
            Event::Heartbeat | Event::LibraryOpened(_) => {}
            event => break event,
        }
    };
    let Event::DeadlinePassed(PassedDeadline {
        deadline,
        limit,
        call,
    }) = last
    else {
        panic!("{last:?}");
    };
    assert_eq!((deadline, &*call), (Deadline::Load, "rkllm_init"));
    // Opening the model file and the like may count as progress at the start.
    assert!(limit >= granted && limit < granted + ms(1000), "{limit:?}");
    assert_eq!(worker.exit_code(), Some(EXIT_DEADLINE));
}

#[test]
fn a_load_that_fails_is_told_with_an_exit_code_of_its_own() {
    let scenario = "[[fault]]\ncall = \"init\"\nkind = \"fail\"\n";
    let mut worker = Worker::start("1_3_1", scenario);
    worker.load(deadlines(), false);
    let last = loop {
        match worker.next() {
            Event::Heartbeat | Event::LibraryOpened(_) => {}
            event => break event,
        }
    };
    assert!(matches!(last, Event::LoadFailed { .. }), "{last:?}");
    assert_eq!(worker.exit_code(), Some(EXIT_LOAD_FAILED));
}

#[test]
fn a_load_that_gets_on_outlives_the_time_it_is_granted() {
    for (family, progress) in [("1_2_1", "read"), ("1_3_0", "memory"), ("1_3_1", "read")] {
        let scenario =
            format!("tokens = [\"fine\"]\nload-delay-ms = 3000\nload-progress = \"{progress}\"\n");
        let mut worker = Worker::start(family, &scenario);
        let short = WorkerDeadlines {
            load: LoadDeadline {
                granted: ms(500),
                stall: ms(1500),
                longest: PATIENCE,
            },
            ..deadlines()
        };
        worker.load(short, false);
        let answer = loop {
            match worker.next() {
                Event::Heartbeat | Event::LibraryOpened(_) => {}
                event => break event,
            }
        };
        assert!(
            matches!(answer, Event::Loaded { .. }),
            "{progress}: {answer:?}"
        );
    }
}

#[test]
fn a_load_that_gets_on_for_ever_ends_at_its_cap() {
    let scenario = "load-delay-ms = 60000\nload-progress = \"read\"\n";
    let mut worker = Worker::start("1_3_1", scenario);
    let longest = ms(2500);
    let short = WorkerDeadlines {
        load: LoadDeadline {
            granted: ms(500),
            stall: ms(1500),
            longest,
        },
        ..deadlines()
    };
    worker.load(short, false);
    let passed = loop {
        match worker.next() {
            Event::Heartbeat | Event::LibraryOpened(_) => {}
            event => break event,
        }
    };
    assert!(
        matches!(&passed, Event::DeadlinePassed(PassedDeadline { deadline, limit, .. })
            if *deadline == Deadline::Load && *limit == longest),
        "{passed:?}"
    );
}

#[test]
fn a_control_call_that_hangs_taints_the_worker_and_leaves_the_run_alone() {
    for family in FAMILIES_RUN {
        let scenario = "repeat = { token = \"w \", times = 40 }\ntoken-delay-us = 50000\n\
            [[fault]]\ncall = \"get_kv_cache_size\"\nkind = \"hang\"\n";
        let short = WorkerDeadlines {
            control_call: ms(500),
            ..deadlines()
        };
        let mut worker = Worker::loaded(family, scenario, short);
        worker.run(1, "x", None);
        let (events, end) = worker.until_end();
        let tainted: Vec<usize> = (0..events.len())
            .filter(|&at| {
                matches!(
                    events[at],
                    Event::Slot {
                        event: SlotEvent::Tainted(_),
                        ..
                    }
                )
            })
            .collect();
        assert_eq!(tainted.len(), 1, "{family}: {events:?}");
        assert_eq!(
            events[tainted[0]],
            Event::Slot {
                slot: 0,
                event: SlotEvent::Tainted(PassedDeadline {
                    deadline: Deadline::ControlCall,
                    limit: ms(500),
                    call: "rkllm_get_kv_cache_size".to_owned(),
                })
            }
        );
        assert!(!text_of(&events[tainted[0]..]).is_empty(), "{family}");
        assert_eq!(text_of(&events), "w ".repeat(40), "{family}");
        assert_eq!(end.outcome, RunOutcome::Finished(FinishReason::Stop));
        assert!(end.tainted, "{family}");
        assert_eq!(end.prompt_tokens, None, "{family}");
        // It stays, quietly, until it is told to go.
        assert_eq!(worker.next_within(QUIET), None, "{family}");
        assert!(worker.is_alive());
        worker.send(Command::Unload);
        assert_eq!(worker.exit_code(), Some(0), "{family}");
    }
}

#[test]
fn a_run_that_has_returned_waits_no_longer_than_its_control_calls_deadline() {
    let scenario =
        "tokens = [\"fine\"]\n[[fault]]\ncall = \"get_kv_cache_size\"\nkind = \"hang\"\n";
    let short = WorkerDeadlines {
        control_call: ms(500),
        ..deadlines()
    };
    let mut worker = Worker::loaded("1_3_1", scenario, short);
    worker.run(1, "x", None);
    let (events, end) = worker.until_end();
    assert!(
        matches!(
            events.last(),
            Some(Event::Slot {
                event: SlotEvent::Tainted(_),
                ..
            })
        ),
        "{events:?}"
    );
    assert_eq!(end.outcome, RunOutcome::Finished(FinishReason::Stop));
    assert!(end.tainted);
}

#[test]
fn when_the_abort_call_hangs_the_callback_still_ends_the_run() {
    // The first abort comes while the prompt is read, from outside the callback.
    let scenario = "repeat = { token = \"w \", times = 1000 }\ntoken-delay-us = 20000\n\
        prefill-delay-ms = 2000\n[[fault]]\ncall = \"abort\"\noccasion = 1\nkind = \"hang\"\n";
    let short = WorkerDeadlines {
        control_call: ms(300),
        ..deadlines()
    };
    let mut worker = Worker::loaded("1_3_1", scenario, short);
    worker.run(1, "x", None);
    assert_eq!(worker.next(), Event::Heartbeat);
    worker.ask(SlotCommand::Abort {
        run: 1,
        mode: AbortMode::AtOnce,
    });
    let (events, end) = worker.until_end();
    let calls: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Slot {
                event: SlotEvent::Tainted(passed),
                ..
            } => Some(passed.call.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(calls, ["rkllm_abort"]);
    assert_eq!(end.outcome, RunOutcome::Aborted);
    assert_eq!((end.generated_tokens, end.tainted), (0, true));
}

#[test]
fn an_abort_that_does_nothing_ends_the_worker() {
    for family in FAMILIES_RUN {
        let scenario = "repeat = { token = \"w \", times = 100000 }\ntoken-delay-us = 20000\n\
            eos-token-id = 3\neos-ignored = true\n\
            [[fault]]\ncall = \"abort\"\nkind = \"ignore\"\n";
        let short = WorkerDeadlines {
            abort_to_finish: ms(1000),
            ..deadlines()
        };
        let mut worker = Worker::loaded(family, scenario, short);
        worker.run(1, "x", None);
        while !matches!(
            worker.next(),
            Event::Slot {
                event: SlotEvent::Token { .. },
                ..
            }
        ) {}
        worker.ask(SlotCommand::Abort {
            run: 1,
            mode: AbortMode::BetweenTokens,
        });
        let passed = loop {
            match worker.next() {
                Event::Heartbeat
                | Event::Slot {
                    event: SlotEvent::Token { .. },
                    ..
                } => {}
                event => break event,
            }
        };
        assert_eq!(
            passed,
            Event::Slot {
                slot: 0,
                event: SlotEvent::DeadlinePassed(PassedDeadline {
                    deadline: Deadline::AbortToFinish,
                    limit: ms(1000),
                    call: "rkllm_run".to_owned(),
                })
            },
            "{family}"
        );
        assert_eq!(worker.exit_code(), Some(EXIT_DEADLINE), "{family}");
    }
}

#[test]
fn a_run_that_failed_taints_the_worker_and_one_that_was_refused_does_not() {
    let fails = "tokens = [\"fine\"]\n[[fault]]\ncall = \"run\"\nwhen-prompt-contains = \"fail\"\n";
    for (kind, tainted) in [("fail", false), ("error-state", true)] {
        let scenario = format!("{fails}kind = \"{kind}\"\n");
        let mut worker = Worker::loaded("1_3_1", &scenario, deadlines());
        worker.run(1, "please fail", None);
        let (_, end) = worker.until_end();
        assert_eq!(end.tainted, tainted, "{kind}: {:?}", end.outcome);
        let is_refused = matches!(end.outcome, RunOutcome::Refused { .. });
        assert_eq!(is_refused, !tainted, "{kind}: {:?}", end.outcome);
        worker.run(2, "x", None);
        let (_, end) = worker.until_end();
        assert_eq!(end.tainted, tainted, "{kind}: for good");
    }
}
