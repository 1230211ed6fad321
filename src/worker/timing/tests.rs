use super::*;
use crate::ipc::{LoadDeadline, LoadFigures};
use proptest::prelude::*;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub fn deadlines() -> WorkerDeadlines {
    WorkerDeadlines {
        library_open: ms(30_000),
        load: LoadDeadline {
            granted: ms(60_000),
            stall: ms(10_000),
            longest: ms(300_000),
        },
        prefill_base: ms(20_000),
        prefill_per_token: ms(100),
        inter_token: ms(9_000),
        control_call: ms(5_000),
        abort_to_finish: ms(7_000),
        unload: ms(15_000),
        heartbeat: ms(1_000),
    }
}

fn run(started: Instant) -> RunTimes {
    RunTimes {
        started,
        last_token: None,
        waiting_for_reader: false,
        complete: false,
        going_back: None,
        prefill: ms(20_000),
        writing: Duration::ZERO,
        abort: None,
        company: InCompany::alone(started),
    }
}

fn times(call: CallTimes, at: Instant) -> Times {
    Times {
        call,
        control: None,
        last_heartbeat: at,
    }
}

/// Lets time jump to whatever is due, as the main thread does, until a deadline ends it. Returns
/// which, and everything else that was due before it.
fn until_deadline(mut times: Times, start: Instant) -> (Passed, Instant, Vec<Due>) {
    let mut before = Vec::new();
    let mut now = start;
    loop {
        let wake = times
            .next_wake(&deadlines(), now)
            .expect("something is due");
        now = now.max(wake.at);
        match wake.due {
            Due::Deadline(passed) => return (passed, now, before),
            Due::ControlHangs(_) => times.control = None,
            Due::AbortFromOutside => {
                let CallTimes::Running(RunTimes {
                    abort: Some(abort), ..
                }) = &mut times.call
                else {
                    panic!("no run is aborted");
                };
                abort.next_outside = Some(now + ms(250));
            }
            Due::LookAtLoad => {
                let CallTimes::Loading { last_look, .. } = &mut times.call else {
                    panic!("nothing is loading");
                };
                *last_look = now;
            }
            Due::Heartbeat => times.last_heartbeat = now,
        }
        before.push(wake.due);
        assert!(before.len() < 10_000, "no deadline in sight");
    }
}

fn every_call(start: Instant) -> Vec<(CallTimes, Deadline, Duration)> {
    let watch = LoadWatch::begin(deadlines().load, start, LoadFigures::default());
    let token = RunTimes {
        last_token: Some(start),
        ..run(start)
    };
    let aborted = RunTimes {
        abort: Some(AbortTimes {
            since: start,
            next_outside: Some(start),
        }),
        ..token
    };
    let waits_for = |what| RunTimes {
        going_back: Some((what, start)),
        ..token
    };
    let cannot_be_told = RunTimes {
        abort: Some(AbortTimes {
            since: start,
            next_outside: None,
        }),
        ..run(start)
    };
    vec![
        (
            CallTimes::Opening { since: start },
            Deadline::LibraryOpen,
            ms(30_000),
        ),
        (
            CallTimes::Loading {
                watch,
                last_look: start,
            },
            Deadline::Load,
            ms(60_000),
        ),
        (
            CallTimes::Running(run(start)),
            Deadline::Prefill,
            ms(20_000),
        ),
        (CallTimes::Running(token), Deadline::InterToken, ms(9_000)),
        (
            CallTimes::Running(waits_for(WaitsFor::Finish)),
            Deadline::AbortToFinish,
            ms(7_000),
        ),
        (
            CallTimes::Running(waits_for(WaitsFor::Evaluation)),
            Deadline::Prefill,
            ms(20_000),
        ),
        (
            CallTimes::Running(aborted),
            Deadline::AbortToFinish,
            ms(7_000),
        ),
        (
            CallTimes::Running(cannot_be_told),
            Deadline::AbortToFinish,
            ms(7_000),
        ),
        (
            CallTimes::Unloading { since: start },
            Deadline::Unload,
            ms(15_000),
        ),
    ]
}

#[test]
fn every_call_ends_by_its_own_deadline_at_its_time_and_beats_until_then() {
    let start = Instant::now();
    for (call, name, limit) in every_call(start) {
        let (passed, at, before) = until_deadline(times(call, start), start);
        assert_eq!((passed.deadline, passed.limit), (name, limit));
        assert_eq!(at, start + limit, "{name}");
        let beats = before.iter().filter(|due| **due == Due::Heartbeat).count();
        // The one at the deadline's own time comes after it.
        let expected = usize::try_from(limit.as_secs() - 1).expect("small");
        assert_eq!(beats, expected, "{name}");
    }
}

#[test]
fn a_control_call_that_hangs_changes_no_other_deadline() {
    let start = Instant::now();
    for (call, name, limit) in every_call(start) {
        let mut hanging = times(call, start);
        hanging.control = Some(ControlTimes {
            call: ControlCall::Abort { run: 1 },
            since: start,
        });
        let (passed, at, before) = until_deadline(hanging, start);
        assert_eq!((passed.deadline, at), (name, start + limit));
        let hangs: Vec<_> = before
            .iter()
            .filter(|due| matches!(due, Due::ControlHangs(_)))
            .collect();
        let expected = Due::ControlHangs(Passed {
            deadline: Deadline::ControlCall,
            limit: ms(5_000),
            call: "rkllm_abort",
        });
        assert_eq!(hangs, [&expected], "{name}");
    }
}

#[test]
fn an_idle_worker_is_heard_of_only_while_it_is_asked_something() {
    let now = Instant::now();
    let mut idle = times(CallTimes::Idle, now);
    assert_eq!(idle.next_wake(&deadlines(), now), None);
    idle.control = Some(ControlTimes {
        call: ControlCall::Abort { run: 1 },
        since: now,
    });
    let wake = idle.next_wake(&deadlines(), now).expect("it is heard of");
    assert_eq!(wake.at, now + deadlines().heartbeat);
    assert!(matches!(wake.due, Due::Heartbeat));
    idle.last_heartbeat = now + ms(4_900);
    let wake = idle.next_wake(&deadlines(), now).expect("a call is timed");
    assert_eq!(wake.at, now + ms(5_000));
    assert!(matches!(wake.due, Due::ControlHangs(_)));
}

#[test]
fn a_stream_that_is_busy_carries_no_heartbeat_nor_does_its_end() {
    let start = Instant::now();
    for token in 1..100 {
        let at = start + ms(token * 300);
        let running = RunTimes {
            last_token: Some(at),
            ..run(start)
        };
        let returned = CallTimes::Counting { since: at };
        for call in [CallTimes::Running(running), returned] {
            let times = times(call, start);
            let next_token = at + ms(300);
            let wake = times.next_wake(&deadlines(), at).expect("a run is timed");
            assert!(wake.at > next_token, "{wake:?}");
        }
    }
}

#[test]
fn a_reader_that_holds_the_callback_up_stops_the_librarys_clock() {
    let start = Instant::now();
    let held = RunTimes {
        last_token: Some(start),
        waiting_for_reader: true,
        ..run(start)
    };
    let hour = start + ms(3_600_000);
    let mut times = times(CallTimes::Running(held), hour);
    let wake = times.next_wake(&deadlines(), hour).expect("heartbeats");
    assert_eq!(wake.due, Due::Heartbeat);
    times.last_heartbeat = hour + ms(100_000);
    let wake = times.next_wake(&deadlines(), hour).expect("a deadline");
    assert_eq!(wake.at, hour + deadlines().inter_token);
}

proptest! {
    #[test]
    fn whatever_is_in_progress_has_a_deadline(
        elapsed in 0u64..100_000,
        last_token in prop::option::of(0u64..100_000),
        waiting_for_reader: bool,
        aborted in prop::option::of((0u64..100_000, prop::option::of(0u64..100_000))),
    ) {
        let start = Instant::now();
        let running = RunTimes {
            last_token: last_token.map(|at| start + ms(at)),
            waiting_for_reader,
            abort: aborted.map(|(at, outside)| AbortTimes {
                since: start + ms(at),
                next_outside: outside.map(|outside| start + ms(outside)),
            }),
            ..run(start)
        };
        let times = times(CallTimes::Running(running), start);
        prop_assert!(times.deadline(&deadlines(), start + ms(elapsed)).is_some());
        prop_assert!(times.heartbeat(&deadlines()).is_some());
    }

    #[test]
    fn a_token_never_brings_the_deadline_of_the_next_forward(first in 0u64..20_000, gap in 0u64..20_000) {
        let start = Instant::now();
        let deadline = |last| {
            let running = RunTimes { last_token: Some(start + ms(last)), ..run(start) };
            times(CallTimes::Running(running), start)
                .deadline(&deadlines(), start)
                .expect("a deadline")
                .at
        };
        prop_assert!(deadline(first + gap) >= deadline(first));
    }

    #[test]
    fn a_load_that_gets_on_is_never_given_less(grown in prop::collection::vec(0u64..8, 1..60)) {
        let start = Instant::now();
        let figures = |mib: u64| LoadFigures { read_bytes: Some(mib << 20), resident_bytes: None };
        let mut watch = LoadWatch::begin(deadlines().load, start, figures(0));
        let mut read = 0;
        let mut before = start;
        for (second, mib) in (1..).zip(grown) {
            let now = start + ms(second * 1000);
            read += mib;
            watch.observe(now, figures(read));
            let call = CallTimes::Loading { watch, last_look: now };
            let deadline = times(call, now).deadline(&deadlines(), now).expect("a deadline");
            prop_assert!(deadline.at >= before);
            prop_assert_eq!(deadline.at, watch.expires_at());
            before = deadline.at;
        }
    }

    #[test]
    fn timers_never_spin(heartbeat in 0u64..5, stall in 0u64..5) {
        let now = Instant::now();
        let mut limits = deadlines();
        limits.heartbeat = ms(heartbeat);
        limits.load.stall = ms(stall);
        let watch = LoadWatch::begin(limits.load, now, LoadFigures::default());
        let call = CallTimes::Loading { watch, last_look: now };
        let wake = times(call, now).next_wake(&limits, now).expect("a load is timed");
        prop_assert!(wake.at >= now + ms(10));
    }
}
