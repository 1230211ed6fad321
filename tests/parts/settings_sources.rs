//! One configuration out of files, drop-ins, environment and flags, and every problem of all of them
//! told at once with its place.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rkllmd::settings::{
    CliOverrides, ControlTokenPolicy, KnownKey, Settings, SettingsError, known_keys,
};

/// A configuration file in a folder of its own, with what else a load is given.
struct Configuration {
    folder: tempfile::TempDir,
    environment: Vec<(OsString, OsString)>,
    overrides: CliOverrides,
}

impl Configuration {
    fn new(toml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("rkllmd.toml"), toml).unwrap();
        Self {
            folder,
            environment: Vec::new(),
            overrides: CliOverrides::default(),
        }
    }

    fn drop_in(self, name: &str, toml: &str) -> Self {
        let folder = self.folder.path().join("rkllmd.toml.d");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), toml).unwrap();
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("rkllmd.toml")
    }

    fn load(&self) -> Result<Settings, SettingsError> {
        Settings::load(
            Some(&self.path()),
            self.environment.clone(),
            &self.overrides,
        )
    }

    /// The problems as a person reads them, with the folder's random name taken out.
    fn problems(&self) -> Vec<String> {
        let error = self.load().expect_err("this configuration is wrong");
        let folder = format!("{}/", self.folder.path().display());
        error
            .problems()
            .iter()
            .map(|problem| problem.to_string().replace(&folder, ""))
            .collect()
    }
}

#[test]
fn an_empty_file_gives_the_defaults() {
    assert_eq!(Configuration::new("").load().unwrap(), Settings::default());
}

#[test]
fn each_source_overrides_the_one_before() {
    let mut configuration = Configuration::new(
        "[models]\nmax-loaded = 2\ndir = '/file'\n[queue]\ncapacity = 1\ndeadline = '1s'\n",
    )
    .drop_in(
        "20-second.toml",
        "queue.deadline = '3s'\n[models]\ndir = '/20'",
    )
    .drop_in(
        "10-first.toml",
        "queue.deadline = '2s'\n[models]\ndir = '/10'",
    )
    .drop_in("30-not-toml.conf", "this is not read")
    .drop_in(".40-hidden.toml", "nor is this")
    .variable("RKLLMD_MODELS__DIR", "/environment")
    .variable("RKLLMD_QUEUE__CAPACITY", "5")
    .variable("HOME", "/nobody");
    assert_eq!(
        configuration.load().unwrap().models.dir,
        PathBuf::from("/environment")
    );

    configuration.overrides.models = Some("/flag".to_owned());
    let settings = configuration.load().unwrap();
    assert_eq!(settings.models.dir, PathBuf::from("/flag"));
    assert_eq!(settings.models.max_loaded, 2);
    assert_eq!(settings.queue.capacity, 5);
    assert_eq!(settings.queue.deadline, Duration::from_secs(3));
    assert_eq!(
        settings.deadlines,
        Settings::default().deadlines,
        "what is not set keeps its default"
    );
}

#[test]
fn flags_set_their_keys() {
    let mut configuration = Configuration::new("models.max-loaded = 2");
    configuration.overrides = CliOverrides {
        listen: vec!["127.0.0.1:0".to_owned(), "[::1]:8081".to_owned()],
        models: Some("/m".to_owned()),
        preload: vec!["a".to_owned(), "b".to_owned()],
        log: Some("debug".to_owned()),
    };
    let settings = configuration.load().unwrap();
    assert_eq!(
        settings.http.listen,
        [
            "127.0.0.1:0".parse().unwrap(),
            "[::1]:8081".parse().unwrap()
        ]
    );
    assert_eq!(settings.models.dir, PathBuf::from("/m"));
    assert_eq!(settings.models.preload, ["a", "b"]);
    assert_eq!(settings.log.filter, "debug");
}

/// A value other than the default for each type a key has, as the environment would carry it.
fn another_value(key: &KnownKey) -> &'static str {
    match key.path().as_str() {
        "http.listen" => "127.0.0.1:9, [::1]:9",
        "models.pool-contexts" => "3",
        "http.auth" => "none",
        "http.cors-origins" => "https://ui.lan",
        "models.aliases" => "gpt-* = qwen3",
        "http.half-closed-generations" => "answer",
        "http.unix-socket-auth" => "keys",
        "http.unix-socket-mode" => "0600",
        "chat.control-tokens" => "reject",
        "constraints.white-space" => "any",
        "constraints.redraw-runs" => "tokens",
        "recovery.resume" | "rpc.http" => "false",
        "constraints.show-format" | "constraints.keep-calls" => "false",
        "rpc.unix-socket-mode" => "0600",
        "hub.endpoint" => "https://hub.lan",
        "hub.proxy" => "http://proxy.lan:3128",
        "hub.max-pulls" => "3",
        "responses.max-background-per-key" => "3",
        "confinement.workers" | "confinement.pulls" => "false",
        "confinement.worker-reads" | "confinement.worker-writes" => "/x",
        "hub.slowest-bytes-per-second" => "2048",
        "library.tensor-limit-bytes" | "memory.requests-limit-bytes" => "2097152",
        "library.tensors-held-limit-bytes" => "4294967296",
        _ if key.default.is_boolean() => "true",
        "reader.memory-limit-bytes" => "300000000",
        "reader.max-processes" => "3",
        "reader.sandbox" => "off",
        "chat.max-values" | "reader.template-steps" => "10001",
        path if path.starts_with("constraints.max-grammar") => "10001",
        path if path.starts_with("constraints.max-lexer") => "10001",
        path if path.ends_with("-bytes") => "4096",
        _ if key.default.is_number() => "2",
        _ if key.default.is_array() => "x",
        path if path.starts_with("deadlines.") => "1h 2s",
        _ => "1h 3s",
    }
}

#[test]
fn every_key_is_settable_by_its_variable_and_no_two_share_one() {
    let default = serde_json::to_value(Settings::default()).unwrap();
    let keys = known_keys();
    for key in &keys {
        let configuration = Configuration::new("").variable(&key.variable(), another_value(key));
        let settings = configuration
            .load()
            .unwrap_or_else(|error| panic!("{}: {error}", key.variable()));
        let settings = serde_json::to_value(settings).unwrap();
        for other in &keys {
            let pointer = format!("/{}/{}", other.section, other.name);
            assert_eq!(
                settings.pointer(&pointer) != default.pointer(&pointer),
                other == key,
                "{} must change {} and nothing else; looked at {}",
                key.variable(),
                key.path(),
                other.path()
            );
        }
    }
}

#[test]
fn variables_carry_every_type() {
    let settings = Configuration::new("runtime.assume-family = '1.3.1'")
        .variable("RKLLMD_HTTP__LISTEN", "127.0.0.1:1, [::1]:2")
        .variable("RKLLMD_HTTP__HEADER_DELAY", "250ms")
        .variable("RKLLMD_CHAT__RAW_COMPLETIONS", "true")
        .variable("RKLLMD_CHAT__CONTROL_TOKENS", "reject")
        .variable("RKLLMD_RUNTIME__ASSUME_FAMILY", "")
        .variable("RKLLMD_DEADLINES__TOTAL", "5m")
        .load()
        .unwrap();
    assert_eq!(settings.deadlines.total, Some(Duration::from_secs(300)));
    assert_eq!(settings.http.listen.len(), 2);
    assert_eq!(settings.http.header_delay, Duration::from_millis(250));
    assert!(settings.chat.raw_completions);
    assert_eq!(settings.chat.control_tokens, ControlTokenPolicy::Reject);
    assert_eq!(
        settings.runtime.assume_family, None,
        "the empty string unsets an optional key"
    );
}

#[test]
fn an_optional_duration_is_unset_by_the_empty_string_and_checked_otherwise() {
    let total = |value: &str| {
        Configuration::new("deadlines.total = '1h'")
            .variable("RKLLMD_DEADLINES__TOTAL", value)
            .load()
            .map(|settings| settings.deadlines.total)
    };
    assert_eq!(total("").unwrap(), None);
    assert_eq!(total("2s").unwrap(), Some(Duration::from_secs(2)));
    for wrong in ["0s", "fast", "2", "10000years"] {
        let problem = total(wrong).unwrap_err().to_string();
        assert!(problem.contains("`deadlines.total`"), "{problem}");
    }
    let problem = Configuration::new("deadlines.heartbeat = '900ms'").problems();
    assert_eq!(problem.len(), 1);
    assert!(problem[0].contains("not between 1s and"), "{problem:?}");
}

#[test]
fn an_optional_size_is_an_integer_or_unset() {
    let settings = Configuration::new(
        "[memory]\nworker-soft-limit-bytes = 1_000\nworker-hard-limit-bytes = 2_000",
    )
    .drop_in("10.toml", "[memory]\nworker-hard-limit-bytes = ''")
    .variable("RKLLMD_MEMORY__WORKER_SOFT_LIMIT_BYTES", "3000000000")
    .load()
    .unwrap();
    assert_eq!(settings.memory.worker_soft_limit_bytes, Some(3_000_000_000));
    assert_eq!(settings.memory.worker_hard_limit_bytes, None);

    let problems = Configuration::new("memory.worker-soft-limit-bytes = -1")
        .variable("RKLLMD_MEMORY__WORKER_HARD_LIMIT_BYTES", "2GB")
        .problems();
    assert_eq!(
        problems,
        [
            "rkllmd.toml:1: `memory.worker-soft-limit-bytes`: must not be negative",
            "environment variable RKLLMD_MEMORY__WORKER_HARD_LIMIT_BYTES: \
             `memory.worker-hard-limit-bytes`: invalid value: string \"2GB\", expected a number of \
             bytes, or the empty string for none",
        ]
    );
}

#[test]
fn an_unknown_key_is_refused_with_file_line_and_the_key_that_was_meant() {
    let configuration = Configuration::new(
        "[http]\n\n  listne = ['127.0.0.1:1']\nmax-loaded = 2\n[quue]\ncapacity = 3\n[queue]\nzzz = 1\n",
    )
    .drop_in("10.toml", "\nfilter = 'debug'");
    assert_eq!(
        configuration.problems(),
        [
            "rkllmd.toml:3: unknown key `http.listne`; did you mean `http.listen`?",
            "rkllmd.toml:4: unknown key `http.max-loaded`; did you mean `models.max-loaded`?",
            "rkllmd.toml:5: unknown key `quue`; did you mean `queue`?",
            "rkllmd.toml:8: unknown key `queue.zzz`",
            "rkllmd.toml.d/10.toml:2: unknown key `filter`; did you mean `log.filter`?",
        ]
    );
}

#[test]
fn an_unknown_variable_is_refused_with_the_one_that_was_meant() {
    assert_eq!(
        Configuration::new("")
            .variable("RKLLMD_HTTP_LISTEN", "127.0.0.1:1")
            .variable("RKLLMD_ZZZ", "")
            .problems(),
        [
            "environment variable RKLLMD_HTTP_LISTEN: sets nothing; did you mean \
             `RKLLMD_HTTP__LISTEN`?",
            "environment variable RKLLMD_ZZZ: sets nothing",
        ]
    );
}

#[test]
fn every_wrong_value_is_told_with_the_source_that_set_it() {
    let mut configuration = Configuration::new(
        "log = 'info'\n[queue]\ncapacity = 0\ndeadline = 5\n[models]\nmax-loaded = 'one'\n",
    )
    .drop_in("a.toml", "http.listen = []\nmodels.preload = ['a', 'b']")
    .variable("RKLLMD_RUNTIME__LOG_LEVEL", "3")
    .variable("RKLLMD_DEADLINES__SPAWN", "0s");
    configuration.overrides.log = Some("rkllmd=loud".to_owned());
    let problems = configuration.problems();
    let expected = [
        "rkllmd.toml:1: `log`: must be a table of keys, not a string",
        "rkllmd.toml:3: `queue.capacity`: 0 is not between 1 and 65536",
        "rkllmd.toml:4: `queue.deadline`: invalid type: integer `5`, expected a duration",
        "rkllmd.toml:6: `models.max-loaded`: invalid type: string \"one\", expected usize",
        "rkllmd.toml.d/a.toml:1: `http.listen`: must name at least one address",
        "rkllmd.toml.d/a.toml:2: `models.preload`: names 2 models, but models.max-loaded is 1",
        "environment variable RKLLMD_DEADLINES__SPAWN: `deadlines.spawn`: 0s is not between 1ms",
        "environment variable RKLLMD_RUNTIME__LOG_LEVEL: `runtime.log-level`: 3 is not between 0 and 2",
        "flag --log: `log.filter`: ",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(
            problem.starts_with(expected),
            "{problem:?} is not {expected:?}"
        );
    }
}

#[test]
fn a_value_that_the_default_of_another_does_not_go_with_is_told_with_its_source() {
    let problems = Configuration::new("library.tensor-limit-bytes = 536870913").problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    let told =
        "1: `library.tensor-limit-bytes`: with it, `library.tensors-held-limit-bytes` cannot";
    assert!(problems[0].contains(told), "{problems:?}");
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_its_line() {
    let problems = Configuration::new("[http]\nlisten = [\n[models]\n").problems();
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].starts_with("rkllmd.toml:3: ") || problems[0].starts_with("rkllmd.toml:2: "),
        "{problems:?}"
    );
}

#[test]
fn a_named_file_must_exist() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent.toml");
    let error = Settings::load(Some(&path), [], &CliOverrides::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with(&format!("{}: cannot be read: ", path.display())),
        "{error}"
    );
}
