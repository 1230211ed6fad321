//! Ranges and relations that types cannot say. Pure: it sees values, not where they came from, and
//! the defaults must pass it (a test). Newer groups of settings are checked in their own files.

mod prefixes;
mod responses;

use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::confinement::relative_paths;
use super::violation::{Found, LONGEST, RATES, SECOND, SHORTEST, Violation, ZERO};
use super::{KeepAlive, Settings, admin, hub};
use crate::generation::MOST_PARALLEL;

/// Looks at the board's sensors that come faster cost more than they tell.
const SHORTEST_LOOKS: Duration = Duration::from_millis(50);

pub(super) fn violations(settings: &Settings) -> Vec<Violation> {
    let mut found = Found::default();
    durations(settings, &mut found);

    let http = &settings.http;
    if http.listen.is_empty() && http.unix_socket.is_none() {
        found.push("http.listen", "must name at least one address");
    }
    found.path("http.keys-file", &http.keys_file);
    found.repeated("http.listen", &http.listen);
    found.range(
        "http.body-limit-bytes",
        http.body_limit_bytes,
        // Prompts travel to workers in one frame of at most 64 MiB.
        1024..=32 << 20,
    );
    let limit = http.header_limit_bytes;
    found.range("http.header-limit-bytes", limit, 1024..=1 << 20);
    let most = http.max_header_fields;
    found.range("http.max-header-fields", most, 1..=8192);
    found.range("http.max-connections", http.max_connections, 1..=1 << 20);
    found.range(
        "http.max-connections-per-address",
        http.max_connections_per_address,
        1..=1 << 20,
    );
    found.range(
        "http.slowest-bytes-per-second",
        http.slowest_bytes_per_second,
        RATES,
    );
    found.repeated("http.allowed-hosts", &http.allowed_hosts);
    found.repeated("http.cors-origins", &http.cors_origins);

    let models = &settings.models;
    found.path("models.dir", &models.dir);
    found.range("models.max-loaded", models.max_loaded, 1..=64);
    found.range("models.parallel", models.parallel, 1..=MOST_PARALLEL);
    let contexts = models.pool_contexts;
    found.range("models.pool-contexts", contexts, 1..=MOST_PARALLEL);
    found.repeated("models.preload", &models.preload);
    found.repeated("models.aliases", &models.aliases);
    if models.preload.len() > models.max_loaded {
        found.push(
            "models.preload",
            format!(
                "names {} models, but models.max-loaded is {}",
                models.preload.len(),
                models.max_loaded
            ),
        );
    }

    hub::check(&settings.hub, &mut found);

    for (key, reason) in relative_paths(settings) {
        found.push(key, reason);
    }

    let runtime = &settings.runtime;
    found.path("runtime.npu-library", &runtime.npu_library);
    found.range("runtime.log-level", runtime.log_level, 0..=2);
    if let Some(name) = runtime
        .pass_environment
        .iter()
        .find(|name| name.is_empty() || name.contains(['=', '\0']))
    {
        found.push(
            "runtime.pass-environment",
            format!("`{name}` cannot be the name of an environment variable"),
        );
    }

    let chat = &settings.chat;
    found.range("chat.max-stops", chat.max_stops, 1..=65_536);
    found.range("chat.stop-limit-bytes", chat.stop_limit_bytes, 1..=1 << 20);
    found.range("chat.max-tools", chat.max_tools, 1..=65_536);
    let limit = chat.tools_limit_bytes;
    found.range("chat.tools-limit-bytes", limit, 1024..=64 << 20);

    found.range("chat.max-values", chat.max_values, 64..=1 << 20);
    let most = chat.max_logit_biases;
    found.range("chat.max-logit-biases", most, 1..=65_536);
    let room = chat.answer_room_tokens;
    found.range("chat.answer-room-tokens", room, 1..=u32::MAX);
    found.range("chat.max-choices", chat.max_choices, 1..=65_536);
    found.range("chat.max-prompts", chat.max_prompts, 1..=65_536);

    let constraints = &settings.constraints;
    let limit = constraints.schema_limit_bytes;
    found.range("constraints.schema-limit-bytes", limit, 1024..=8 << 20);
    let depth = constraints.max_schema_depth;
    found.range("constraints.max-schema-depth", depth, 1..=64);
    let symbols = constraints.max_grammar_symbols;
    found.range("constraints.max-grammar-symbols", symbols, 1000..=2_000_000);
    let states = constraints.max_lexer_states;
    found.range("constraints.max-lexer-states", states, 1000..=250_000);
    let steps = constraints.max_lexer_steps;
    found.range("constraints.max-lexer-steps", steps, 10_000..=10_000_000);
    found.range(
        "constraints.kept-grammars",
        constraints.kept_grammars,
        0..=64,
    );
    let most = constraints.max_redraws;
    found.range("constraints.max-redraws", most, 0..=1_000_000);
    let most = constraints.max_redraws_without_reuse;
    found.range("constraints.max-redraws-without-reuse", most, 0..=1_000_000);

    responses::check(settings, &mut found);

    let embeddings = &settings.embeddings;
    let max_inputs = embeddings.max_inputs;
    found.range("embeddings.max-inputs", max_inputs, 1..=65_536);
    let limit = embeddings.limit_bytes;
    found.range("embeddings.limit-bytes", limit, 1024..=32 << 20);

    // A text and its tokens travel in one frame of at most 64 MiB.
    let limit = settings.tokenizer.limit_bytes;
    found.range("tokenizer.limit-bytes", limit, 1024..=4 << 20);

    let reader = &settings.reader;
    found.range("reader.max-processes", reader.max_processes, 1..=16);
    let limit = reader.memory_limit_bytes;
    // Less than the program itself and a small tokenizer need ends every reader.
    found.range("reader.memory-limit-bytes", limit, 256 << 20..=64 << 30);
    let limit = reader.control_tokens_limit_bytes;
    found.range("reader.control-tokens-limit-bytes", limit, 1024..=64 << 20);
    let limit = reader.template_steps;
    found.range("reader.template-steps", limit, 4096..=1_000_000_000);
    let limit = reader.template_output_bytes;
    found.range("reader.template-output-bytes", limit, 4096..=16 << 20);

    found.range("queue.capacity", settings.queue.capacity, 1..=65_536);

    let library = &settings.library;
    found.path("library.state-dir", &library.state_dir);
    found.range(
        "library.tensor-limit-bytes",
        library.tensor_limit_bytes,
        1 << 20..=16 << 30,
    );
    // One client may have half of it.
    let before = found.len();
    found.range(
        "library.tensors-held-limit-bytes",
        library.tensors_held_limit_bytes,
        library.tensor_limit_bytes.saturating_mul(2)..=1 << 40,
    );
    found.depending_on("library.tensor-limit-bytes", before);

    prefixes::check(settings, &mut found);

    let memory = &settings.memory;
    if let Some(limit) = memory.requests_limit_bytes {
        found.range("memory.requests-limit-bytes", limit, 1 << 20..=1 << 40);
    }
    let rate = memory.slowest_bytes_per_second;
    found.range("memory.slowest-bytes-per-second", rate, RATES);
    if let (Some(soft), Some(hard @ 1..)) = (
        memory.worker_soft_limit_bytes,
        memory.worker_hard_limit_bytes,
    ) && soft > hard
    {
        found.push(
            "memory.worker-soft-limit-bytes",
            format!("{soft} is more than memory.worker-hard-limit-bytes, which is {hard}"),
        );
    }

    found.path("board.root", &settings.board.root);

    let rpc = &settings.rpc;
    found.range("rpc.max-connections", rpc.max_connections, 1..=65_536);
    found.range(
        "rpc.message-limit-bytes",
        rpc.message_limit_bytes,
        // As with http.body-limit-bytes.
        1024..=32 << 20,
    );
    found.range("rpc.batch-limit", rpc.batch_limit, 1..=65_536);
    let limit = rpc.batch_answer_limit_bytes;
    found.range("rpc.batch-answer-limit-bytes", limit, 4096..=1 << 30);
    let limit = rpc.result_limit_bytes;
    found.range("rpc.result-limit-bytes", limit, 4096..=1 << 30);
    found.range("rpc.max-calls", rpc.max_calls, 1..=65_536);
    found.range(
        "rpc.outgoing-limit-bytes",
        rpc.outgoing_limit_bytes,
        4096..=1 << 30,
    );
    let rate = rpc.slowest_bytes_per_second;
    found.range("rpc.slowest-bytes-per-second", rate, RATES);
    found.range("rpc.max-handles", rpc.max_handles, 1..=65_536);

    admin::check(&settings.admin, &mut found);

    if let Err(error) = EnvFilter::builder().parse(&settings.log.filter) {
        found.push("log.filter", error.to_string());
    }
    found.into_violations()
}

fn durations(settings: &Settings, found: &mut Found) {
    let http = &settings.http;
    let deadlines = &settings.deadlines;
    let recovery = &settings.recovery;
    let checks = [
        (
            "http.header-read-timeout",
            http.header_read_timeout,
            SHORTEST,
        ),
        // Announced in whole seconds.
        ("http.keep-alive-timeout", http.keep_alive_timeout, SECOND),
        ("http.header-delay", http.header_delay, ZERO),
        ("http.keep-alive", http.keep_alive, SHORTEST),
        (
            "http.slow-reader-timeout",
            http.slow_reader_timeout,
            SHORTEST,
        ),
        (
            "models.minimum-residency",
            settings.models.minimum_residency,
            ZERO,
        ),
        (
            "models.keep-alive",
            match settings.models.keep_alive {
                KeepAlive::ForEver => ZERO,
                KeepAlive::For(time) => time,
            },
            ZERO,
        ),
        ("queue.deadline", settings.queue.deadline, SHORTEST),
        ("deadlines.spawn", deadlines.spawn, SHORTEST),
        ("deadlines.library-open", deadlines.library_open, SHORTEST),
        ("deadlines.load-base", deadlines.load_base, SHORTEST),
        ("deadlines.load-per-gib", deadlines.load_per_gib, ZERO),
        ("deadlines.load-stall", deadlines.load_stall, SHORTEST),
        ("deadlines.load-longest", deadlines.load_longest, SHORTEST),
        (
            "deadlines.prefix-file-base",
            deadlines.prefix_file_base,
            SHORTEST,
        ),
        (
            "deadlines.prefix-file-per-gib",
            deadlines.prefix_file_per_gib,
            ZERO,
        ),
        ("deadlines.prefill-base", deadlines.prefill_base, SHORTEST),
        (
            "deadlines.prefill-per-token",
            deadlines.prefill_per_token,
            ZERO,
        ),
        ("deadlines.inter-token", deadlines.inter_token, SHORTEST),
        ("deadlines.control-call", deadlines.control_call, SHORTEST),
        (
            "deadlines.abort-to-finish",
            deadlines.abort_to_finish,
            SHORTEST,
        ),
        (
            "deadlines.total",
            deadlines.total.unwrap_or(LONGEST),
            SHORTEST,
        ),
        ("deadlines.heartbeat", deadlines.heartbeat, SECOND),
        ("deadlines.unload", deadlines.unload, SHORTEST),
        ("deadlines.kill", deadlines.kill, SHORTEST),
        ("deadlines.drain", deadlines.drain, ZERO),
        ("recovery.backoff-first", recovery.backoff_first, SHORTEST),
        (
            "recovery.backoff-longest",
            recovery.backoff_longest,
            SHORTEST,
        ),
        (
            "reader.idle-timeout",
            settings.reader.idle_timeout,
            SHORTEST,
        ),
        ("reader.cpu-limit", settings.reader.cpu_limit, 10 * SECOND),
        ("deadlines.reader-open", deadlines.reader_open, SHORTEST),
        (
            "deadlines.reader-at-start",
            deadlines.reader_at_start,
            SHORTEST,
        ),
        ("deadlines.reader-call", deadlines.reader_call, SHORTEST),
        ("deadlines.models-read", deadlines.models_read, SHORTEST),
        ("recovery.healthy-after", recovery.healthy_after, ZERO),
        (
            "rpc.handle-idle-timeout",
            settings.rpc.handle_idle_timeout,
            SHORTEST,
        ),
        (
            "board.interval",
            settings.board.interval,
            // Zero is none at all.
            if settings.board.interval == ZERO {
                ZERO
            } else {
                SHORTEST_LOOKS
            },
        ),
        (
            "memory.check-interval",
            settings.memory.check_interval,
            SHORTEST,
        ),
    ];
    for (key, value, shortest) in checks {
        found.duration(key, value, shortest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(violations(&Settings::default()), []);
    }

    #[test]
    fn looks_at_the_board_are_off_or_not_too_many() {
        let valid = |interval| {
            let mut settings = Settings::default();
            settings.board.interval = interval;
            violations(&settings).is_empty()
        };
        assert!(valid(ZERO) && valid(SHORTEST_LOOKS));
        assert!(!valid(SHORTEST) && !valid(LONGEST + SECOND));
    }

    #[test]
    fn a_soft_memory_limit_is_not_above_the_hard_one() {
        let valid = |soft, hard| {
            let mut settings = Settings::default();
            settings.memory.worker_soft_limit_bytes = soft;
            settings.memory.worker_hard_limit_bytes = hard;
            violations(&settings).is_empty()
        };
        assert!(!valid(Some(2), Some(1)));
        assert!(valid(Some(1), Some(1)));
        assert!(valid(Some(2), None));
        assert!(valid(Some(2), Some(0)), "0 is no limit");
        assert!(valid(Some(0), Some(2)));
    }
}
