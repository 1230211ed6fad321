//! Gauges, which are read when the metrics are asked for.

use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};

use super::labels::{ByKind, ByModel, ByPhase};
use super::{ModelFigures, OwnFigures, PREFIX};
use crate::reader::ReaderFigures;
use crate::telemetry::own_process::OwnProcess;

pub(super) fn models(models: &[ModelFigures]) -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    let phase = Family::<ByPhase, Gauge>::default();
    let length = Family::<ByModel, Gauge>::default();
    let capacity = Family::<ByModel, Gauge>::default();
    let slots = Family::<ByModel, Gauge>::default();
    let slots_in_use = Family::<ByModel, Gauge>::default();
    let memory = Family::<ByKind, Gauge>::default();
    for figures in models {
        let model = figures.model.to_string();
        let phase_labels = ByPhase {
            model,
            phase: figures.phase,
        };
        phase.get_or_create(&phase_labels).set(1);
        let labels = ByModel::new(&figures.model);
        length
            .get_or_create(&labels)
            .set(gauge(figures.queue_length));
        capacity
            .get_or_create(&labels)
            .set(gauge(figures.queue_capacity));
        if let Some(of_worker) = figures.slots {
            slots.get_or_create(&labels).set(of_worker.all.into());
            slots_in_use
                .get_or_create(&labels)
                .set(of_worker.in_use().into());
        }
        for &(kind, bytes) in &figures.memory_bytes {
            let labels = ByKind {
                model: figures.model.to_string(),
                kind,
            };
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            memory.get_or_create(&labels).set(bytes);
        }
    }
    registry.register(
        "worker_phase",
        "1 for the phase that the model's worker is in, as /v1/ready names it",
        phase,
    );
    registry.register("queue_length", "Requests waiting for the model", length);
    registry.register(
        "queue_capacity",
        "Requests that may wait for the model",
        capacity,
    );
    registry.register(
        "slots",
        "Answers that the loaded worker can make at the same time",
        slots,
    );
    registry.register(
        "slots_in_use",
        "Slots of the loaded worker that a request has",
        slots_in_use,
    );
    registry.register_with_unit(
        "worker_memory",
        "What the model's worker holds: kind anonymous, shared or npu, file mappings apart",
        Unit::Bytes,
        memory,
    );
    registry
}

pub(super) fn readers(figures: &ReaderFigures) -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    let memory = Family::<ByModel, Gauge>::default();
    for (model, &bytes) in &figures.memory_bytes {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        memory.get_or_create(&ByModel::new(model)).set(bytes);
    }
    registry.register_with_unit(
        "reader_memory",
        "What the processes hold that read the model's files, file mappings apart",
        Unit::Bytes,
        memory,
    );
    if let Some(abandoned) = figures.abandoned {
        let hanging = Gauge::<i64>::default();
        hanging.set(gauge(abandoned));
        registry.register(
            "readers_abandoned",
            "Processes that read models' files, were killed and hang in the kernel",
            hanging,
        );
    }
    registry
}

/// What the daemon holds and had to drop.
pub(super) fn own(own: &OwnFigures) -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_with_unit(
        "requests_memory",
        "Memory that is charged to requests and answers",
        Unit::Bytes,
        ConstGauge::new(own.requests_memory_bytes),
    );
    registry.register(
        "requests_memory_refusals",
        "How often there was no memory for a request",
        ConstCounter::new(own.requests_memory_refusals),
    );
    registry.register_with_unit(
        "tensors_memory",
        "Memory of tensors that wait for their readers",
        Unit::Bytes,
        ConstGauge::new(own.tensors_memory_bytes),
    );
    registry.register(
        "tensors_memory_refusals",
        "How often there was no memory for a tensor",
        ConstCounter::new(own.tensors_memory_refusals),
    );
    if let Some(failures) = own.response_write_failures {
        registry.register(
            "response_write_failures",
            "Responses that could not be kept on disk",
            ConstCounter::new(failures),
        );
    }
    registry.register(
        "log_entries_dropped",
        "Log entries that were dropped because they were not read",
        ConstCounter::new(own.log_entries_dropped),
    );
    if let Some(prefixes) = own.prefixes {
        let files = Gauge::<i64>::default();
        files.set(gauge(prefixes.files));
        registry.register(
            "prefix_files",
            "Prefixes of conversations that are kept on disk",
            files,
        );
        registry.register_with_unit(
            "prefix",
            "What they take",
            Unit::Bytes,
            ConstGauge::new(prefixes.bytes),
        );
    }
    registry
}

/// The names and units that Prometheus's own client libraries use.
pub(super) fn process(process: &OwnProcess) -> Registry {
    let mut registry = Registry::with_prefix("process");
    let mut number = |name: &str, help: &str, value: Option<u64>| {
        if let Some(value) = value {
            registry.register(name, help, ConstGauge::new(value));
        }
    };
    number("threads", "Threads", process.threads);
    number("open_fds", "Open file descriptors", process.open_fds);
    number(
        "max_fds",
        "File descriptors that may be open",
        process.max_fds,
    );
    let mut bytes = |name: &str, help: &str, value: Option<u64>| {
        if let Some(value) = value {
            registry.register_with_unit(name, help, Unit::Bytes, ConstGauge::new(value));
        }
    };
    bytes("resident_memory", "Resident memory", process.resident_bytes);
    bytes("virtual_memory", "Virtual memory", process.virtual_bytes);
    if let Some(seconds) = process.cpu_seconds {
        let counter = ConstCounter::new(seconds);
        registry.register_with_unit("cpu", "User and system CPU time", Unit::Seconds, counter);
    }
    if let Some(seconds) = process.start_time_seconds {
        let help = "When the process started, since the epoch";
        registry.register_with_unit("start_time", help, Unit::Seconds, ConstGauge::new(seconds));
    }
    registry
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
