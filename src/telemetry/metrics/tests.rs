use super::*;
use crate::board::sensors::{
    Clock, ClockOf, CoolingDevice, Fan, KernelMemory, Power, Pressure, ThermalZone,
};
use crate::board::{BoardReadings, BoardSample};
use crate::generation::Deadline;
use crate::ipc::Redraws;
use crate::reader::ReaderFigures;

fn lines(metrics: &Metrics, models: &[ModelFigures]) -> Vec<String> {
    let readings = Readings {
        board: Some(Arc::new(sample())),
        readers: ReaderFigures {
            memory_bytes: models
                .iter()
                .map(|model| (model.model.clone(), 1))
                .collect(),
            abandoned: (!models.is_empty()).then_some(0),
        },
        own: OwnFigures {
            response_write_failures: (!models.is_empty()).then_some(0),
            prefixes: (!models.is_empty()).then_some(PrefixFigures { files: 1, bytes: 1 }),
            ..OwnFigures::default()
        },
        ..Readings::default()
    };
    let page = metrics
        .render(models, &readings, PageFormat::OpenMetrics)
        .unwrap();
    assert!(page.ends_with("# EOF\n"));
    page.lines().map(str::to_owned).collect()
}

/// A board with a sensor of each kind.
fn sample() -> BoardSample {
    BoardSample {
        taken: std::time::Instant::now(),
        readings: BoardReadings {
            npu_load: Some(vec![0.25, 1.0]),
            thermal_zones: vec![
                ThermalZone {
                    kind: "npu-thermal".to_owned(),
                    celsius: Some(43.5),
                    ..ThermalZone::default()
                },
                ThermalZone {
                    kind: "gpu-thermal".to_owned(),
                    ..ThermalZone::default()
                },
            ],
            cooling_devices: vec![CoolingDevice {
                kind: "thermal-cpufreq-0".to_owned(),
                state: Some(2),
                most: None,
            }],
            devices: vec![Clock {
                device: ClockOf::Npu,
                name: "fdab0000.npu".to_owned(),
                governor: Some("performance".to_owned()),
                current_hertz: Some(900_000_000),
                max_hertz: Some(1_000_000_000),
                highest_hertz: Some(1_000_000_000),
                ..Clock::default()
            }],
            memory: KernelMemory {
                available_bytes: Some(4096),
                ..KernelMemory::default()
            },
            pressure: vec![Pressure {
                resource: "memory",
                some_ratio: Some(0.125),
                full_ratio: None,
            }],
            fans: vec![Fan {
                name: "pwmfan 1".to_owned(),
                rpm: Some(1200),
                drive_ratio: None,
            }],
            power: vec![Power {
                name: "ina226 1".to_owned(),
                watts: 7.5,
            }],
            ..BoardReadings::default()
        },
        read_timeouts: 3,
    }
}

fn run(prompt_tokens: u64, completion_tokens: u64) -> RpcRun {
    RpcRun {
        model: "a".into(),
        method: "rkllm.run",
        outcome: "complete",
        prompt_tokens,
        completion_tokens,
    }
}

fn redraws(redraws: u32, wasted_tokens: u32, evaluated_tokens: Option<u32>) -> Redraws {
    Redraws {
        redraws,
        wasted_tokens,
        evaluated_tokens,
        runs_with_rows: 0,
        restarts: 0,
    }
}

fn logits_runs(runs_with_rows: u32) -> Redraws {
    Redraws {
        runs_with_rows,
        ..redraws(0, 0, None)
    }
}

fn restarts(restarts: u32) -> Redraws {
    Redraws {
        restarts,
        ..redraws(0, 0, None)
    }
}

type Move = (fn(&Metrics), &'static str);

/// Each method, and the sample it makes.
const MOVES: [Move; 31] = [
    (
        |m| m.request_ended("a", "complete"),
        r#"rkllmd_requests_total{model="a",outcome="complete"} 1"#,
    ),
    (
        |m| m.prefix_written("a", 2),
        r#"rkllmd_prefix_written_bytes_total{model="a"} 2"#,
    ),
    (
        |m| m.prefix_loaded("a", 2),
        r#"rkllmd_prefix_loaded_bytes_total{model="a"} 2"#,
    ),
    (
        |m| m.prefix_hit("a"),
        r#"rkllmd_prefix_hits_total{model="a"} 1"#,
    ),
    (
        |m| m.prefix_failed("a", "save"),
        r#"rkllmd_prefix_failures_total{model="a",reason="save"} 1"#,
    ),
    (
        |m| m.queue_wait("a", 0.5),
        r#"rkllmd_queue_wait_seconds_sum{model="a"} 0.5"#,
    ),
    (
        |m| m.time_to_first_token("a", 0.5),
        r#"rkllmd_time_to_first_token_seconds_sum{model="a"} 0.5"#,
    ),
    (
        |m| m.tokens("a", 0, 7),
        r#"rkllmd_completion_tokens_total{model="a"} 7"#,
    ),
    (
        |m| m.tokens("a", 7, 0),
        r#"rkllmd_prompt_tokens_total{model="a"} 7"#,
    ),
    (
        |m| m.rpc_call_ended("rkllm.init", "complete"),
        r#"rkllmd_rpc_calls_total{method="rkllm.init",outcome="complete"} 1"#,
    ),
    (
        |m| m.rpc_run_ended(&run(0, 0)),
        r#"rkllmd_rpc_runs_total{model="a",method="rkllm.run",outcome="complete"} 1"#,
    ),
    (
        |m| m.rpc_run_ended(&run(7, 0)),
        r#"rkllmd_rpc_prompt_tokens_total{model="a",method="rkllm.run",outcome="complete"} 7"#,
    ),
    (
        |m| m.rpc_run_ended(&run(0, 7)),
        r#"rkllmd_rpc_completion_tokens_total{model="a",method="rkllm.run",outcome="complete"} 7"#,
    ),
    (
        |m| m.worker_exited("a", "sigsegv"),
        r#"rkllmd_worker_exits_total{model="a",cause="sigsegv"} 1"#,
    ),
    (
        |m| m.deadline_passed(Deadline::Prefill),
        r#"rkllmd_deadlines_passed_total{deadline="prefill"} 1"#,
    ),
    (
        |m| m.run_resumed("a"),
        r#"rkllmd_runs_resumed_total{model="a"} 1"#,
    ),
    (
        |m| m.run_repeated("a"),
        r#"rkllmd_runs_repeated_total{model="a"} 1"#,
    ),
    (
        |m| m.resume_refused("a", "poison"),
        r#"rkllmd_resumes_refused_total{model="a",reason="poison"} 1"#,
    ),
    (
        |m| m.batch_begins("a", 3),
        r#"rkllmd_batches_total{model="a"} 1"#,
    ),
    (
        |m| m.batch_begins("a", 3),
        r#"rkllmd_batched_requests_total{model="a"} 3"#,
    ),
    (
        |m| m.redrawn("a", &redraws(3, 0, None)),
        r#"rkllmd_redraws_total{model="a"} 3"#,
    ),
    (
        |m| m.redrawn("a", &redraws(0, 4, None)),
        r#"rkllmd_redraw_wasted_tokens_total{model="a"} 4"#,
    ),
    (
        |m| m.redrawn("a", &redraws(0, 0, Some(5))),
        r#"rkllmd_redraw_prompt_tokens_total{model="a"} 5"#,
    ),
    (
        |m| m.redrawn("a", &logits_runs(6)),
        r#"rkllmd_redraw_logits_runs_total{model="a"} 6"#,
    ),
    (
        |m| m.answer_redrawn("a", &restarts(7)),
        r#"rkllmd_redraw_restarts_per_answer_sum{model="a"} 7.0"#,
    ),
    (
        |m| m.answer_redrawn("a", &redraws(1, 8, None)),
        r#"rkllmd_redraw_wasted_tokens_per_answer_sum{model="a"} 8.0"#,
    ),
    (
        |m| m.answer_redrawn("a", &redraws(1, 0, Some(9))),
        r#"rkllmd_redraw_prompt_tokens_per_answer_sum{model="a"} 9.0"#,
    ),
    (
        |m| m.resume_gap("a", 0.5),
        r#"rkllmd_resume_gap_seconds_sum{model="a"} 0.5"#,
    ),
    (
        |m| m.resume_overhead("a", 0.5),
        r#"rkllmd_resume_overhead_seconds_sum{model="a"} 0.5"#,
    ),
    (
        |m| m.model_loaded("a", 0.5),
        r#"rkllmd_model_load_seconds_sum{model="a"} 0.5"#,
    ),
    (
        |m| m.load_failed("a"),
        r#"rkllmd_model_load_failures_total{model="a"} 1"#,
    ),
];

fn samples(metrics: &Metrics) -> Vec<String> {
    let given = [
        "rkllmd_build",
        "rkllmd_npu",
        "rkllmd_board",
        "rkllmd_requests_memory",
        "rkllmd_tensors_memory",
        "rkllmd_log",
    ];
    let own = |line: &String| {
        line.starts_with("rkllmd_") && !given.iter().any(|name| line.starts_with(name))
    };
    lines(metrics, &[]).into_iter().filter(own).collect()
}

#[test]
fn every_method_moves_its_own_series_and_no_other() {
    for (act, expected) in MOVES {
        let metrics = Metrics::new();
        assert_eq!(
            samples(&metrics),
            [""; 0],
            "a fresh daemon has counted nothing"
        );
        act(&metrics.clone());
        let name = expected.split('{').next().unwrap();
        let base = name.trim_end_matches("_sum");
        let moved = samples(&metrics);
        assert!(moved.iter().any(|line| line == expected), "{moved:#?}");
        // A run's tokens come with the run, bytes with their files, all of an answer at its end, and a batch with its
        // requests.
        let is_own = |line: &String| {
            line.starts_with(base)
                || (base.starts_with("rkllmd_rpc_") && line.starts_with("rkllmd_rpc_runs_total"))
                || (base.starts_with("rkllmd_prefix_written")
                    && line.starts_with("rkllmd_prefix_saves_total"))
                || (base.starts_with("rkllmd_prefix_loaded")
                    && line.starts_with("rkllmd_prefix_loads_total"))
                || (base.ends_with("_per_answer") && line.contains("_per_answer_"))
                || (base.starts_with("rkllmd_batch") && line.starts_with("rkllmd_batch"))
        };
        assert!(moved.iter().all(is_own), "{moved:#?}");
    }
}

#[test]
fn figures_of_now_are_what_they_are_now() {
    let metrics = Metrics::new();
    let mut figures = ModelFigures {
        model: "a\"b".into(),
        phase: "loading",
        slots: Some(Slots {
            all: 8,
            busy: 0b1101,
        }),
        queue_length: 3,
        queue_capacity: 64,
        memory_bytes: vec![("anonymous", 4096), ("npu", 1 << 30)],
    };
    let before = lines(&metrics, std::slice::from_ref(&figures));
    for line in [
        r#"rkllmd_worker_phase{model="a\"b",phase="loading"} 1"#,
        r#"rkllmd_queue_length{model="a\"b"} 3"#,
        r#"rkllmd_queue_capacity{model="a\"b"} 64"#,
        r#"rkllmd_slots{model="a\"b"} 8"#,
        r#"rkllmd_slots_in_use{model="a\"b"} 3"#,
        r#"rkllmd_worker_memory_bytes{model="a\"b",kind="anonymous"} 4096"#,
        r#"rkllmd_worker_memory_bytes{model="a\"b",kind="npu"} 1073741824"#,
        r#"rkllmd_npu_load_ratio{core="0"} 0.25"#,
        r#"rkllmd_npu_load_ratio{core="1"} 1.0"#,
        r#"rkllmd_board_temperature_celsius{zone="npu-thermal"} 43.5"#,
        r#"rkllmd_board_throttled{reason="cooling"} 1"#,
        r#"rkllmd_board_throttled{reason="npu-capped"} 0"#,
        r#"rkllmd_board_frequency_hertz{device="npu"} 900000000"#,
        r#"rkllmd_board_frequency_limit_hertz{device="npu"} 1000000000"#,
        r#"rkllmd_board_frequency_highest_hertz{device="npu"} 1000000000"#,
        r#"rkllmd_board_governor{device="npu",governor="performance"} 1"#,
        r#"rkllmd_board_memory_bytes{kind="available"} 4096"#,
        r#"rkllmd_board_pressure_ratio{resource="memory",who="some"} 0.125"#,
        r#"rkllmd_board_fan_rpm{fan="pwmfan 1"} 1200"#,
        r#"rkllmd_board_power_watts{sensor="ina226 1"} 7.5"#,
        "rkllmd_board_read_timeouts_total 3",
    ] {
        assert!(
            before.iter().any(|l| l == line),
            "{line} is not in {before:#?}"
        );
    }
    let told = before
        .iter()
        .filter(|line| line.starts_with("rkllmd_board_"));
    assert_eq!(told.count(), 12, "what is not known is absent: {before:#?}");
    figures.phase = "ready";
    let after = lines(&metrics, &[figures]).join("\n");
    assert!(
        after.contains(r#"phase="ready"} 1"#) && !after.contains("loading"),
        "{after}"
    );
    let no_models = lines(&metrics, &[]).join("\n");
    assert!(!no_models.contains("rkllmd_queue_length{"), "{no_models}");
}

#[test]
fn the_documents_name_each_of_them_and_none_is_there_twice() {
    let metrics = Metrics::new();
    for (act, _) in MOVES {
        act(&metrics);
    }
    let model = ModelFigures {
        model: "a".into(),
        phase: "ready",
        slots: Some(Slots { all: 1, busy: 0 }),
        queue_length: 0,
        queue_capacity: 0,
        memory_bytes: vec![("anonymous", 1)],
    };
    let shown: Vec<String> = lines(&metrics, &[model])
        .iter()
        .filter_map(|line| line.strip_prefix("# TYPE rkllmd_")?.split_once(' '))
        .map(|(name, kind)| match kind {
            "counter" => format!("rkllmd_{name}_total"),
            "info" => format!("rkllmd_{name}_info"),
            _ => format!("rkllmd_{name}"),
        })
        .collect();
    let documented: Vec<&str> = include_str!("../../../docs/metrics.md")
        .split('`')
        .filter(|text| text.starts_with("rkllmd_"))
        .collect();
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    assert_eq!(
        sorted(shown),
        sorted(documented.into_iter().map(str::to_owned).collect())
    );
}
