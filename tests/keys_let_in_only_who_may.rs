//! Who gets what: each kind of caller, on each path, over each kind of listener. A path that the
//! daemon answers and that is not in the table fails the test.

mod daemon_support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use daemon_support::{Daemon, Setup, eventually, keys};
use rustix::process::{Pid, Resource, Rlimit, Signal};
use serde_json::Value;

/// Each caller in the order of the table's columns.
const CALLERS: [&str; 6] = ["none", "wrong", "revoked", "user", "one-model", "admin"];

/// What each caller gets where keys are asked for. `one-model` may use `own` and nothing else.
const TABLE: &str = "
    GET  /health                              200 200 200 200 200 200
    HEAD /health                              200 200 200 200 200 200
    GET  /v1/ready                            200 200 200 200 200 200
    GET  /v1/ready?model=other                200 200 200 200 200 200
    GET  /v1/models                           401 401 401 200 200 200
    OPTIONS /v1/models                        401 401 401 204 204 204
    GET  /v1/models/{id}own                   401 401 401 200 200 200
    GET  /v1/models/{id}other                 401 401 401 200 403 200
    GET  /v1/models/{id}other-alias           401 401 401 200 403 200
    GET  /v1/models/{id}absent                401 401 401 404 404 404
    POST /v1/chat/completions#own             401 401 401 200 200 200
    POST /v1/chat/completions#own-alias       401 401 401 200 200 200
    POST /v1/chat/completions#other           401 401 401 200 403 200
    POST /v1/chat/completions#absent          401 401 401 404 404 404
    POST /v1/completions#own                  401 401 401 200 200 200
    POST /v1/completions#other                401 401 401 200 403 200
    GET  /v1/loading/progress                 401 401 401 200 200 200
    GET  /v1/loading/progress?model=own       401 401 401 200 200 200
    GET  /v1/loading/progress?model=other     401 401 401 200 403 200
    GET  /metrics                             401 401 401 403 403 200
    GET  /openapi.json                        401 401 401 200 200 200
    POST /v1/embeddings#own                   401 401 401 200 200 200
    POST /v1/embeddings#other                 401 401 401 200 403 200
    POST /apply-template#own                  401 401 401 200 200 200
    POST /apply-template#other                401 401 401 200 403 200
    POST /tokenize#own                        401 401 401 400 400 400
    POST /tokenize#other                      401 401 401 400 403 400
    POST /detokenize#own                      401 401 401 400 400 400
    POST /detokenize#other                    401 401 401 400 403 400
    POST /rpc                                 401 401 401 200 200 200
    GET  /rpc/ws                              401 401 401 400 400 400
    GET  /nowhere                             401 401 401 404 404 404
    GET  //health                             401 401 401 404 404 404
    GET  /health/                             401 401 401 404 404 404
    GET  /%68ealth                            401 401 401 404 404 404
    DELETE /v1/models                         401 401 401 405 405 405
    POST /health                              405 405 405 405 405 405
";

/// Where the daemon is reached.
enum Door {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn code(&self) -> String {
        self.json()["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

impl Door {
    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut answer = Vec::new();
        match self {
            Self::Tcp(address) => {
                exchange(TcpStream::connect(address).unwrap(), &request, &mut answer)
            }
            Self::Unix(path) => exchange(UnixStream::connect(path).unwrap(), &request, &mut answer),
        }
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a whole header");
        Answer {
            status: head[9..12].parse().unwrap(),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    fn get(&self, path: &str, key: Option<&str>) -> Answer {
        self.ask("GET", path, &bearer(key), "")
    }
}

fn exchange(mut stream: impl Read + Write, request: &str, answer: &mut Vec<u8>) {
    stream.write_all(request.as_bytes()).unwrap();
    stream.read_to_end(answer).unwrap();
}

fn bearer(key: Option<&str>) -> String {
    key.map_or_else(String::new, |key| {
        format!("authorization: Bearer {key}\r\n")
    })
}

/// The keys of each caller, in the order of the table.
struct Callers([Option<String>; 6]);

impl Callers {
    fn add_to(folder: &Path) -> Self {
        let revoked = keys(folder, "add revoked --role admin");
        let callers = [
            None,
            Some(revoked.replace(|c: char| c.is_ascii_digit(), "0")),
            Some(revoked),
            Some(keys(folder, "add user")),
            Some(keys(folder, "add one-model --model own")),
            Some(keys(folder, "add admin --role admin")),
        ];
        keys(folder, "revoke revoked");
        Self(callers)
    }

    fn key(&self, caller: &str) -> Option<&str> {
        let column = CALLERS.iter().position(|name| *name == caller).unwrap();
        self.0[column].as_deref()
    }
}

fn setup() -> Setup {
    let scenario = "tokens = ['Hello']\n";
    Setup::new()
        .settings("models.max-loaded = 2")
        .scenario("own", scenario)
        .model_file(
            "own",
            "model.toml",
            "template = 'chatml'\naliases = ['own-alias']\n",
        )
        .scenario("other", scenario)
        .model_file(
            "other",
            "model.toml",
            "template = 'chatml'\naliases = ['other-alias']\n",
        )
}

/// All addresses that the daemon says it listens on.
fn doors(daemon: &Daemon, count: usize) -> Vec<Door> {
    let listening = eventually("all listeners", || {
        let lines = daemon.log.lines();
        let lines: Vec<String> = lines
            .iter()
            .filter_map(|line| Some(line.split_once("listening address=")?.1.trim().to_owned()))
            .collect();
        (lines.len() == count).then_some(lines)
    });
    let door = |address: &String| match address.strip_prefix("unix:") {
        Some(path) => Door::Unix(path.into()),
        None => {
            let mut address: SocketAddr = address.parse().unwrap();
            // Every address of this machine, also this one.
            address.set_ip("127.0.0.1".parse().unwrap());
            Door::Tcp(address)
        }
    };
    listening.iter().map(door).collect()
}

/// One row of the table: method, path, body and the statuses.
fn rows() -> Vec<(&'static str, String, String, Vec<u16>)> {
    let rows = TABLE.lines().map(str::trim).filter(|line| !line.is_empty());
    rows.map(|line| {
        let mut words = line.split_whitespace();
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let (path, model) = target.split_once('#').unwrap_or((target, ""));
        let body = match (path, model) {
            (_, "") => String::new(),
            ("/v1/completions", model) => format!(r#"{{"model":"{model}","prompt":"hi"}}"#),
            ("/v1/embeddings", model) => format!(r#"{{"model":"{model}","input":"hi"}}"#),
            ("/tokenize", model) => format!(r#"{{"model":"{model}","content":"hi"}}"#),
            ("/detokenize", model) => format!(r#"{{"model":"{model}","tokens":[1]}}"#),
            (_, model) => {
                format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"hi"}}]}}"#)
            }
        };
        let statuses = words.map(|word| word.parse().unwrap()).collect();
        (method, path.replace("{id}", ""), body, statuses)
    })
    .collect()
}

/// Checks all rows of the table at a door; `expected` changes a status as the door demands.
fn check(name: &str, door: &Door, callers: &Callers, expected: impl Fn(usize, &[u16]) -> u16) {
    for (method, path, body, statuses) in rows() {
        assert_eq!(statuses.len(), CALLERS.len(), "{path}");
        for (column, caller) in CALLERS.iter().enumerate() {
            let key = callers.key(caller);
            let wanted = expected(column, &statuses);
            let case = format!("{name}: {method} {path} {body} by {caller}");
            let answer = door.ask(method, &path, &bearer(key), &body);
            assert_eq!(answer.status, wanted, "{case}: {}", answer.body);
            let code = match wanted {
                401 if key.is_none() => "missing_api_key",
                401 => "invalid_api_key",
                403 if path == "/metrics" => "role_not_allowed",
                403 => "model_not_allowed",
                _ => continue,
            };
            assert_eq!(answer.code(), code, "{case}");
            let challenged = answer
                .head
                .to_lowercase()
                .contains("\r\nwww-authenticate: bearer");
            assert_eq!(challenged, wanted == 401, "{case}: {}", answer.head);
            if let Some(key) = key {
                let other = format!("x-api-key: {key}\r\n");
                let answer = door.ask(method, &path, &other, &body);
                assert_eq!(
                    (answer.status, answer.code().as_str()),
                    (wanted, code),
                    "{case}"
                );
            }
        }
    }
}

#[test]
fn the_table_has_every_path_there_is() {
    let daemon = setup().start();
    let document = daemon.get("/openapi.json").json();
    let described = document["paths"].as_object().unwrap();
    let in_table: BTreeSet<&str> = TABLE
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(|word| word.split(['?', '#']).next().unwrap())
        .map(|path| path.find('}').map_or(path, |end| &path[..=end]))
        .collect();
    for path in described.keys() {
        assert!(
            in_table.contains(path.as_str()),
            "{path} is not in the table"
        );
        for (method, operation) in described[path].as_object().unwrap() {
            let open = operation["security"] == serde_json::json!([{}]);
            assert_eq!(
                open,
                ["/health", "/v1/ready"].contains(&path.as_str()),
                "{method} {path}"
            );
        }
    }
}

#[test]
fn where_keys_are_asked_for_each_caller_gets_what_the_table_says() {
    let setup = setup().listen(&["127.0.0.1:0", "0.0.0.0:0"]);
    let socket = setup.folder().join("http.sock");
    let setup = setup
        .settings(&format!("http.unix-socket = '{}'", socket.display()))
        .settings("http.unix-socket-auth = 'keys'");
    let callers = Callers::add_to(setup.folder());
    let daemon = setup.start();
    let names = ["loopback", "beyond loopback", "unix with keys"];
    for (name, door) in names.iter().zip(&doors(&daemon, 3)) {
        check(name, door, &callers, |column, statuses| statuses[column]);
        let models = door.get("/v1/models", callers.key("one-model")).json();
        let listed = models["data"].as_array().unwrap().iter();
        assert_eq!(
            listed.map(|model| &model["id"]).collect::<Vec<_>>(),
            ["own"],
            "{name}"
        );
        let progress = door.get("/v1/loading/progress", callers.key("one-model"));
        assert!(progress.body.contains("\"own\"") && !progress.body.contains("\"other\""));
    }
}

/// No key is looked at where none is asked for: everyone gets what an admin gets.
fn check_open(name: &str, door: &Door, callers: &Callers) {
    let admin = CALLERS.len() - 1;
    check(name, door, callers, |_, statuses| statuses[admin]);
}

#[test]
fn a_unix_socket_lets_in_whoever_may_connect() {
    let setup = setup();
    let socket = setup.folder().join("http.sock");
    let setup = setup.settings(&format!("http.unix-socket = '{}'", socket.display()));
    let callers = Callers::add_to(setup.folder());
    let daemon = setup.start();
    let doors = doors(&daemon, 2);
    check_open("unix", &doors[1], &callers);
    assert_eq!(
        doors[0].get("/v1/models", None).status,
        401,
        "its TCP listener asks"
    );
}

#[test]
fn loopback_is_open_while_there_is_no_file_of_keys() {
    let daemon = setup().start();
    let elsewhere = tempfile::tempdir().unwrap();
    let callers = Callers::add_to(elsewhere.path());
    check_open("loopback", &doors(&daemon, 1)[0], &callers);
}

#[test]
fn auth_none_lets_everyone_in() {
    let setup = setup()
        .listen(&["0.0.0.0:0"])
        .settings("http.auth = 'none'");
    let callers = Callers::add_to(setup.folder());
    let daemon = setup.start();
    daemon.log.wait_for("everyone who reaches this address");
    check_open("beyond loopback", &doors(&daemon, 1)[0], &callers);
}

#[test]
fn beyond_loopback_the_daemon_does_not_start_without_a_key() {
    let setup = setup().listen(&["127.0.0.1:0", "[::]:0"]);
    let refused = |text: &str| {
        let output = setup.command().output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{output:?}");
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(log.contains(text), "{log}");
        assert!(!log.contains("listening address"), "{log}");
    };
    refused("refusing to listen on [::]:");
    refused("rkllmd keys add NAME");
    refused("auth = \"none\"");
    keys(setup.folder(), "add one");
    keys(setup.folder(), "revoke one");
    refused("without any key");
    keys(setup.folder(), "add one");
    let daemon = setup.start();
    assert_eq!(daemon.get("/v1/models").status, 401);
}

#[test]
fn a_broken_keys_file_is_no_open_door() {
    let setup = setup();
    fs::write(setup.folder().join("keys.toml"), "version = 1\nkye = []\n").unwrap();
    let output = setup.command().output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("keys.toml") && log.contains("kye"), "{log}");
}

#[test]
fn keys_are_added_and_revoked_without_a_restart() {
    let daemon = setup().start();
    let door = &doors(&daemon, 1)[0];
    let status = |key: Option<&str>| door.get("/v1/models", key).status;
    assert_eq!(status(None), 200);

    let folder = daemon.folder().to_owned();
    let one = keys(&folder, "add one");
    eventually("the lock", || (status(None) == 401).then_some(()));
    assert_eq!(status(Some(&one)), 200);
    let other = keys(&folder, "add other");
    eventually("the other key", || {
        (status(Some(&other)) == 200).then_some(())
    });
    keys(&folder, "revoke one");
    eventually("the end of the first", || {
        (status(Some(&one)) == 401).then_some(())
    });
    assert_eq!(status(Some(&other)), 200);

    // A broken file changes nothing, and the last key's end opens nothing.
    let file = folder.join("keys.toml");
    let whole = fs::read(&file).unwrap();
    fs::write(&file, "nonsense").unwrap();
    daemon
        .log
        .wait_for("the keys that were read before stay valid");
    assert_eq!((status(Some(&other)), status(None)), (200, 401));
    fs::write(&file, whole).unwrap();
    keys(&folder, "revoke other");
    eventually("the end of the other", || {
        (status(Some(&other)) == 401).then_some(())
    });
    assert_eq!(status(None), 401);
    fs::remove_file(&file).unwrap();
    daemon.log.wait_for("the file of keys is gone");
    assert_eq!(status(None), 401);
}

/// A daemon without a free descriptor cannot read the file; it must not forget to.
#[test]
fn a_revocation_that_could_not_be_read_at_first_is_read_later() {
    let setup = setup();
    let one = keys(setup.folder(), "add one");
    let daemon = setup.start();
    let door = &doors(&daemon, 1)[0];
    assert_eq!(door.get("/v1/models", Some(&one)).status, 200);
    let pid = Pid::from_raw(daemon.pid().cast_signed());
    let usual = rustix::process::getrlimit(Resource::Nofile);
    let none_free = Rlimit {
        current: Some(3),
        ..usual
    };
    rustix::process::prlimit(pid, Resource::Nofile, none_free).unwrap();
    keys(daemon.folder(), "revoke one");
    daemon.log.wait_for("keys.toml: cannot be read");
    rustix::process::prlimit(pid, Resource::Nofile, usual).unwrap();
    eventually("the end of the key", || {
        (door.get("/v1/models", Some(&one)).status == 401).then_some(())
    });
    let lines = daemon.log.lines();
    let told = lines
        .iter()
        .filter(|line| line.contains("keys.toml: cannot be read"));
    assert_eq!(told.count(), 1);
}

#[test]
fn a_key_is_named_in_the_log_and_never_shown() {
    let setup = setup();
    let key = keys(setup.folder(), "add laptop");
    let daemon = setup.start();
    let door = &doors(&daemon, 1)[0];
    assert_eq!(door.get("/v1/models", Some(&key)).status, 200);
    assert_eq!(door.get("/v1/models", Some("rkllmd-wrong")).status, 401);
    let line = daemon.log.wait_for("status=200");
    assert!(line.contains("laptop"), "{line}");
    let log = daemon.log.lines().join("\n");
    assert!(
        !log.contains(&key) && !log.contains("rkllmd-wrong"),
        "{log}"
    );
}

#[test]
fn the_unix_socket_has_its_permissions_and_is_removed_at_the_end() {
    let setup = setup();
    let socket = setup.folder().join("http.sock");
    let mut lines = format!("http.unix-socket = '{}'\n", socket.display());
    lines.push_str("http.unix-socket-mode = '0606'\n");
    let root = rustix::process::geteuid().is_root();
    let own_group = rustix::process::getegid().as_raw();
    let group = if root { 54321 } else { own_group };
    lines.push_str(&format!("http.unix-socket-group = '{group}'\n"));
    let setup = setup.settings(&lines);
    // What a daemon that was killed leaves.
    drop(UnixListener::bind(&socket).unwrap());
    let daemon = setup.start();
    let door = &doors(&daemon, 2)[1];
    assert_eq!(door.get("/health", None).status, 200);
    let file = fs::symlink_metadata(&socket).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o606);
    assert_eq!(std::os::unix::fs::MetadataExt::gid(&file), group);
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
    assert!(!socket.exists());
}

#[test]
fn a_unix_socket_of_another_process_and_other_files_are_left_alone() {
    let setup = setup();
    let socket = setup.folder().join("http.sock");
    let setup = setup.settings(&format!("http.unix-socket = '{}'", socket.display()));
    let refused = |text: &str| {
        let output = setup.command().output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(log.contains(text) && log.contains("http.sock"), "{log}");
    };
    let other = UnixListener::bind(&socket).unwrap();
    refused("another process serves it");
    assert!(UnixStream::connect(&socket).is_ok());
    drop(other);
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "precious").unwrap();
    refused("is no socket");
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
}
