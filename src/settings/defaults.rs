//! The default of every key. `packaging/rkllmd.toml` documents the same values, and a test holds the
//! two together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{
    AuthPolicy, BoardSettings, ChatSettings, ConstraintSettings, ControlTokenPolicy,
    DeadlineSettings, EmbeddingSettings, FileMode, HalfClosedGenerations, HttpSettings,
    HubSettings, KeepAlive, LibrarySettings, LogSettings, MemorySettings, ModelSettings,
    PrefixSettings, QueueSettings, ReaderSandbox, ReaderSettings, RecoverySettings, RedrawRuns,
    ResponseSettings, RpcSettings, RuntimeSettings, TokenizerSettings, UnixSocketAuth, WhiteSpace,
};

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
            body_limit_bytes: 8 * 1024 * 1024,
            header_limit_bytes: 32 * 1024,
            max_header_fields: 100,
            max_connections: 1024,
            max_connections_per_address: 512,
            header_read_timeout: seconds(10),
            keep_alive_timeout: seconds(75),
            half_closed_generations: HalfClosedGenerations::Cancel,
            header_delay: seconds(2),
            keep_alive: seconds(15),
            allowed_hosts: Vec::new(),
            cors_origins: Vec::new(),
            slow_reader_timeout: seconds(30),
            slowest_bytes_per_second: 1024,
            auth: AuthPolicy::Keys,
            open_admin: false,
            keys_file: PathBuf::from("/var/lib/rkllmd/keys.toml"),
            unix_socket: None,
            unix_socket_mode: FileMode::new(0o660),
            unix_socket_group: None,
            unix_socket_auth: UnixSocketAuth::Permissions,
        }
    }
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("/var/lib/rkllmd/models"),
            preload: Vec::new(),
            aliases: Vec::new(),
            max_loaded: 1,
            parallel: 1,
            pool_contexts: 2,
            minimum_residency: seconds(10),
            keep_alive: KeepAlive::ForEver,
            max_variants: 64,
        }
    }
}

impl Default for HubSettings {
    fn default() -> Self {
        Self {
            endpoint: "https://huggingface.co".to_owned(),
            token_file: None,
            redirect_hosts: Vec::new(),
            ca_file: None,
            proxy: None,
            offline: false,
            quota_bytes: None,
            keep_free_bytes: 256 << 20,
            max_pulls: 2,
            max_tries: 6,
            retry_wait: seconds(1),
            connect_timeout: seconds(30),
            stall_timeout: seconds(30),
            slowest_bytes_per_second: 1024,
        }
    }
}

impl Default for RuntimeSettings {
    fn default() -> Self {
        Self {
            npu_library: PathBuf::from("/usr/lib/librkllmrt.so"),
            cpu_library: None,
            assume_family: None,
            log_level: 0,
            pass_environment: Vec::new(),
            core_dumps: false,
        }
    }
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            capacity: 64,
            deadline: seconds(600),
        }
    }
}

impl Default for DeadlineSettings {
    fn default() -> Self {
        Self {
            spawn: seconds(10),
            library_open: seconds(30),
            reader_open: seconds(10),
            reader_at_start: seconds(3),
            reader_call: seconds(20),
            models_read: seconds(30),
            load_base: seconds(60),
            load_per_gib: seconds(45),
            load_stall: seconds(10),
            load_longest: seconds(30 * 60),
            prefix_file_base: seconds(15),
            prefix_file_per_gib: seconds(120),
            prefill_base: seconds(30),
            prefill_per_token: Duration::from_millis(100),
            inter_token: seconds(30),
            control_call: seconds(5),
            abort_to_finish: seconds(30),
            total: None,
            background: seconds(3600),
            heartbeat: seconds(5),
            unload: seconds(15),
            kill: seconds(5),
            drain: seconds(30),
        }
    }
}

impl Default for RecoverySettings {
    fn default() -> Self {
        Self {
            resume: true,
            backoff_first: seconds(1),
            backoff_longest: seconds(60),
            healthy_after: seconds(30),
        }
    }
}

impl Default for MemorySettings {
    fn default() -> Self {
        Self {
            requests_limit_bytes: None,
            worker_soft_limit_bytes: None,
            worker_hard_limit_bytes: None,
            slowest_bytes_per_second: 64 * 1024,
            check_interval: seconds(1),
        }
    }
}

impl Default for LibrarySettings {
    fn default() -> Self {
        Self {
            state_dir: PathBuf::from("/var/lib/rkllmd/state"),
            tensor_limit_bytes: 512 << 20,
            tensors_held_limit_bytes: 1 << 30,
            prompt_caches_limit_bytes: 8 << 30,
        }
    }
}

impl Default for PrefixSettings {
    fn default() -> Self {
        Self {
            folder: None,
            limit_bytes: None,
            written_per_day_bytes: 2 << 30,
            least_tokens: 256,
            pinned_first: seconds(20),
        }
    }
}

impl Default for ChatSettings {
    fn default() -> Self {
        Self {
            control_tokens: ControlTokenPolicy::Neutralise,
            raw_completions: false,
            strict_parameters: false,
            max_stops: 64,
            stop_limit_bytes: 1024,
            max_tools: 128,
            tools_limit_bytes: 256 * 1024,
            max_values: 65_536,
            max_logit_biases: 1024,
            answer_room_tokens: 512,
            max_choices: 8,
            max_prompts: 64,
            also_reasoning: false,
        }
    }
}

impl Default for ConstraintSettings {
    fn default() -> Self {
        Self {
            white_space: WhiteSpace::One,
            show_format: true,
            keep_calls: true,
            schema_limit_bytes: 256 * 1024,
            max_schema_depth: 32,
            max_grammar_symbols: 100_000,
            max_lexer_states: 8_000,
            max_lexer_steps: 200_000,
            kept_grammars: 8,
            max_redraws: 256,
            max_redraws_without_reuse: 16,
            redraw_runs: RedrawRuns::Measured,
        }
    }
}

impl Default for ResponseSettings {
    fn default() -> Self {
        Self {
            max_kept_per_key: 256,
            kept_limit_bytes: 16 << 20,
            kept_for: seconds(24 * 3600),
            keep_on_disk: false,
            max_background_per_key: 2,
            background_events_limit_bytes: 4 << 20,
            background_events_kept_for: seconds(5 * 60),
            compacted_limit_bytes: 8192,
            max_streams_per_socket: 32,
            max_socket_age: seconds(3600),
        }
    }
}

impl Default for RpcSettings {
    fn default() -> Self {
        Self {
            http: true,
            unix_socket: None,
            unix_socket_mode: FileMode::new(0o660),
            unix_socket_group: None,
            max_connections: 64,
            message_limit_bytes: 8 * 1024 * 1024,
            batch_limit: 64,
            batch_answer_limit_bytes: 64 << 20,
            result_limit_bytes: 16 << 20,
            max_calls: 32,
            outgoing_limit_bytes: 1024 * 1024,
            slowest_bytes_per_second: 64 * 1024,
            max_handles: 4,
            handle_idle_timeout: seconds(600),
        }
    }
}

impl Default for EmbeddingSettings {
    fn default() -> Self {
        Self {
            max_inputs: 2048,
            limit_bytes: 1024 * 1024,
        }
    }
}

impl Default for TokenizerSettings {
    fn default() -> Self {
        Self {
            limit_bytes: 1024 * 1024,
        }
    }
}

impl Default for ReaderSettings {
    fn default() -> Self {
        Self {
            max_processes: 2,
            idle_timeout: seconds(300),
            memory_limit_bytes: 1 << 30,
            cpu_limit: seconds(120),
            control_tokens_limit_bytes: 4 << 20,
            template_steps: 5_000_000,
            template_output_bytes: 1 << 20,
            sandbox: ReaderSandbox::Required,
        }
    }
}

impl Default for BoardSettings {
    fn default() -> Self {
        Self {
            interval: seconds(5),
            root: PathBuf::from("/"),
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
        }
    }
}
