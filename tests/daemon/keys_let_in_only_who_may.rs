//! Who gets what: each kind of caller, on each path, over each kind of listener. A path that the
//! daemon answers and that is not in the table fails the test.

use std::collections::BTreeSet;
use std::path::Path;

use crate::daemon_support::keys;
use crate::doors::{Door, bearer, doors, setup};

/// Each caller in the order of the table's columns.
const CALLERS: [&str; 6] = ["none", "wrong", "revoked", "user", "one-model", "admin"];

/// What each caller gets where keys are asked for. `one-model` may use `own` and nothing else.
const TABLE: &str = "
    GET  /health                              200 200 200 200 200 200
    HEAD /health                              200 200 200 200 200 200
    GET  /v1/ready                            200 200 200 200 200 200
    GET  /v1/ready?model=other                200 200 200 200 200 200
    GET  /v1/models                           401 401 401 200 200 200
    OPTIONS *                                 204 204 204 204 204 204
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
    GET  /v1/status                           401 401 401 403 403 200
    GET  /status                              401 401 401 403 403 200
    GET  /v1/doctor                           401 401 401 403 403 200
    GET  /v1/admin/keys                       401 401 401 403 403 200
    POST /v1/admin/keys                       401 401 401 403 403 400
    DELETE /v1/admin/keys/{name}absent        401 401 401 403 403 404
    GET  /v1/admin/keys/{name}absent          401 401 401 403 403 405
    GET  /v1/admin/requests                   401 401 401 403 403 200
    DELETE /v1/admin/requests/{id}absent      401 401 401 403 403 404
    GET  /v1/admin/logs                       401 401 401 403 403 200
    GET  /v1/admin/logs?limit=0               401 401 401 403 403 400
    GET  /v1/admin/events                     401 401 401 403 403 200
    POST /v1/admin/events                     401 401 401 403 403 405
    GET  /v1/admin                            401 401 401 404 404 404
    GET  /openapi.json                        401 401 401 200 200 200
    POST /v1/embeddings#own                   401 401 401 200 200 200
    POST /v1/embeddings#other                 401 401 401 200 403 200
    POST /apply-template#own                  401 401 401 200 200 200
    POST /apply-template#other                401 401 401 200 403 200
    POST /tokenize#own                        401 401 401 400 400 400
    POST /tokenize#other                      401 401 401 400 403 400
    POST /detokenize#own                      401 401 401 400 400 400
    POST /detokenize#other                    401 401 401 400 403 400
    POST /completion#own                      401 401 401 200 200 200
    POST /completion#other                    401 401 401 200 403 200
    POST /infill#own                          401 401 401 400 400 400
    POST /infill#other                        401 401 401 400 403 400
    POST /v1/messages#own                     401 401 401 200 200 200
    POST /v1/messages#other                   401 401 401 200 403 200
    POST /v1/messages/count_tokens#own        401 401 401 400 400 400
    POST /v1/messages/count_tokens#other      401 401 401 400 403 400
    POST /v1/responses#own                    401 401 401 200 200 200
    POST /v1/responses#other                  401 401 401 200 403 200
    POST /responses#absent                    401 401 401 404 404 404
    POST /v1/responses/input_tokens#own       401 401 401 400 400 400
    POST /v1/responses/input_tokens#other     401 401 401 400 403 400
    POST /v1/responses/compact#own            401 401 401 200 200 200
    POST /v1/responses/compact#other          401 401 401 200 403 200
    GET  /v1/responses/{id}absent             401 401 401 404 404 404
    DELETE /v1/responses/{id}absent           401 401 401 404 404 404
    GET  /v1/responses/{id}/input_items       401 401 401 404 404 404
    POST /v1/responses/{id}/cancel            401 401 401 404 404 404
    POST /v1/rerank#own                       401 401 401 400 400 400
    POST /v1/rerank#other                     401 401 401 400 403 400
    GET  /props                               401 401 401 200 200 200
    GET  /props?model=own                     401 401 401 200 200 200
    GET  /props?model=other                   401 401 401 200 403 200
    GET  /slots                               401 401 401 403 403 200
    GET  /slots?model=own                     401 401 401 403 403 200
    POST /models/load#own                     401 401 401 403 403 200
    POST /v1/models/load#own                  401 401 401 403 403 200
    POST /models/load#absent                  401 401 401 403 403 404
    POST /models/unload#absent                401 401 401 403 403 404
    POST /v1/models/unload#absent             401 401 401 403 403 404
    GET  /models/sse                          401 401 401 200 200 200
    GET  /models/load                         401 401 401 403 403 405
    GET  /v1/models/load                      401 401 401 404 404 404
    GET  /v1/health                           200 200 200 200 200 200
    GET  /                                    200 200 200 200 200 200
    GET  /api/version                         401 401 401 200 200 200
    GET  /api/tags                            401 401 401 200 200 200
    GET  /api/ps                              401 401 401 200 200 200
    POST /api/show#own                        401 401 401 200 200 200
    POST /api/show#other                      401 401 401 200 403 200
    POST /api/chat#OWN:latest                 401 401 401 200 200 200
    POST /api/chat#other                      401 401 401 200 403 200
    POST /api/chat#absent                     401 401 401 404 404 404
    POST /api/generate#own                    401 401 401 200 200 200
    POST /api/generate#other                  401 401 401 200 403 200
    POST /api/embed#own                       401 401 401 200 200 200
    POST /api/embed#other                     401 401 401 200 403 200
    POST /api/embeddings#own                  401 401 401 200 200 200
    POST /api/embeddings#other                401 401 401 200 403 200
    POST /api/pull#own                        401 401 401 403 403 400
    POST /api/push#own                        401 401 401 403 403 400
    POST /api/create#own                      401 401 401 403 403 400
    POST /api/copy#own                        401 401 401 403 403 400
    POST /api/copy#absent                     401 401 401 403 403 404
    DELETE /api/delete#own                    401 401 401 403 403 400
    DELETE /api/delete#absent                 401 401 401 403 403 404
    POST /api/blobs/{digest}sha256:0          401 401 401 403 403 400
    GET  /api/nowhere                         401 401 401 404 404 404
    DELETE //api/delete/#own                  401 401 401 403 403 400
    GET  //api//tags                          401 401 401 200 200 200
    GET  /api/chat                            401 401 401 405 405 405
    POST /rpc                                 401 401 401 200 200 200
    GET  /rpc/ws                              401 401 401 426 426 426
    GET  /nowhere                             401 401 401 404 404 404
    GET  //health                             200 200 200 200 200 200
    GET  /health/                             200 200 200 200 200 200
    GET  /v1//ready/                          200 200 200 200 200 200
    GET  /ready                               200 200 200 200 200 200
    GET  /v1/models/                          401 401 401 200 200 200
    GET  /models                              401 401 401 200 200 200
    GET  /v1/v1/models/{id}other              401 401 401 200 403 200
    GET  /models//{id}other                   401 401 401 200 403 200
    GET  /metrics/                            401 401 401 403 403 200
    GET  //metrics                            401 401 401 403 403 200
    GET  //metrics//?x=/health                401 401 401 403 403 200
    GET  /%6detrics                           401 401 401 404 404 404
    GET  /metrics%2f                          401 401 401 404 404 404
    GET  /health/../metrics                   401 401 401 404 404 404
    GET  /health/%2e%2e/metrics               401 401 401 404 404 404
    GET  /v1/metrics                          401 401 401 404 404 404
    POST /rpc/                                401 401 401 200 200 200
    POST //rpc                                401 401 401 200 200 200
    GET  /rpc//ws/                            401 401 401 426 426 426
    OPTIONS /metrics/                         401 401 401 403 403 204
    GET  /%68ealth                            401 401 401 404 404 404
    DELETE /v1/models                         401 401 401 403 403 405
    POST /v1/models/{id}own                   401 401 401 403 403 405
    POST /health                              405 405 405 405 405 405
";

/// What paths for admins hold.
const ADMINS: [&str; 13] = [
    "metrics",
    "/status",
    "/doctor",
    "/v1/admin/",
    "/pull",
    "/push",
    "/create",
    "/copy",
    "/delete",
    "/blobs",
    "/slots",
    "/models/load",
    "/models/unload",
];

fn is_for_admins(method: &str, path: &str) -> bool {
    let changes = !["GET", "HEAD", "OPTIONS"].contains(&method);
    changes && path.starts_with("/v1/models") || ADMINS.iter().any(|name| path.contains(name))
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

/// One row of the table: method, path, body and the statuses.
fn rows() -> Vec<(&'static str, String, String, Vec<u16>)> {
    let rows = TABLE.lines().map(str::trim).filter(|line| !line.is_empty());
    rows.map(|line| {
        let mut words = line.split_whitespace();
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let (path, model) = target.split_once('#').unwrap_or((target, ""));
        let body = match (path, model) {
            (_, "") => String::new(),
            ("/v1/completions" | "/completion", model) => {
                format!(r#"{{"model":"{model}","prompt":"hi"}}"#)
            }
            ("/v1/embeddings" | "/api/embed", model) => {
                format!(r#"{{"model":"{model}","input":"hi"}}"#)
            }
            ("/api/generate" | "/api/embeddings", model) => {
                format!(r#"{{"model":"{model}","prompt":"hi"}}"#)
            }
            (
                "/v1/responses"
                | "/responses"
                | "/v1/responses/input_tokens"
                | "/v1/responses/compact",
                model,
            ) => {
                format!(r#"{{"model":"{model}","input":"hi"}}"#)
            }
            ("/v1/messages", model) => format!(
                r#"{{"model":"{model}","max_tokens":9,"messages":[{{"role":"user","content":"hi"}}]}}"#
            ),
            ("/api/copy", model) => format!(r#"{{"source":"{model}","destination":"own"}}"#),
            ("/tokenize", model) => format!(r#"{{"model":"{model}","content":"hi"}}"#),
            ("/detokenize", model) => format!(r#"{{"model":"{model}","tokens":[1]}}"#),
            (_, model) => {
                format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"hi"}}]}}"#)
            }
        };
        let statuses = words.map(|word| word.parse().unwrap()).collect();
        // What has more of a path behind it cannot be left out.
        let path = path.replace("{id}/", "absent/");
        let path = ["{id}", "{digest}", "{name}"]
            .iter()
            .fold(path, |path, name| path.replace(name, ""));
        (method, path, body, statuses)
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
                403 if is_for_admins(method, &path) => "role_not_allowed",
                403 => "model_not_allowed",
                _ => continue,
            };
            let is_rpc = path.contains("/rpc");
            assert_eq!(answer.is_json_rpc(), is_rpc, "{case}: {}", answer.body);
            let code = if is_rpc { "" } else { code };
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
        // A parameter is followed by a value, or by more of the path.
        .map(
            |path| match (path.find('}'), described.contains_key(path)) {
                (Some(end), false) => &path[..=end],
                _ => path,
            },
        )
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
                ["/", "/health", "/v1/ready"].contains(&path.as_str()),
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

/// No key is looked at where none is asked for: every caller gets what an admin gets.
fn check_open(name: &str, door: &Door, callers: &Callers) {
    let admin = CALLERS.len() - 1;
    check(name, door, callers, |_, statuses| statuses[admin]);
}

/// What may not be deleted may not be replaced either.
#[test]
fn an_admin_of_one_model_replaces_no_other() {
    let setup = setup();
    let admin = keys(setup.folder(), "add admin --role admin");
    let bound = keys(setup.folder(), "add bound --role admin --model own");
    let daemon = setup.start();
    let door = &doors(&daemon, 1)[0];
    let ask = |path: &str, key: &str, body: &str| door.ask("POST", path, &bearer(Some(key)), body);
    let of_other = r#"{"model":"made","from":"other","system":"hers"}"#;
    assert_eq!(ask("/api/create", &admin, of_other).status, 200);
    for (path, body) in [
        ("/api/create", r#"{"model":"made","from":"own"}"#),
        ("/api/create", r#"{"model":"MADE:latest","from":"own"}"#),
        ("/api/copy", r#"{"source":"own","destination":"made"}"#),
    ] {
        let answer = ask(path, &bound, body);
        assert_eq!(
            (answer.status, &*answer.code()),
            (403, "model_not_allowed"),
            "{body}"
        );
    }
    let shown = ask("/api/show", &admin, r#"{"model":"made"}"#).json();
    assert_eq!(shown["system"], "hers");
    let new = r#"{"model":"new","from":"own"}"#;
    assert_eq!(ask("/api/create", &bound, new).status, 200);
}

#[test]
fn a_unix_socket_lets_in_every_user_who_may_connect() {
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

/// Everyone is let in, but for what is for admins: that is for `open-admin` to say.
#[test]
fn auth_none_lets_everyone_in_but_to_what_is_for_admins() {
    for is_open in [false, true] {
        let setup = setup()
            .listen(&["127.0.0.1:0", "0.0.0.0:0"])
            .settings("http.auth = 'none'")
            .settings(&format!("http.open-admin = {is_open}"));
        let callers = Callers::add_to(setup.folder());
        let daemon = setup.start();
        daemon
            .log
            .wait_for("every client that reaches this address");
        let doors = doors(&daemon, 2);
        check_open("loopback", &doors[0], &callers);
        if is_open {
            check_open("beyond loopback", &doors[1], &callers);
            continue;
        }
        let user = CALLERS.iter().position(|name| *name == "user").unwrap();
        check("beyond loopback", &doors[1], &callers, |_, statuses| {
            statuses[user]
        });
    }
}

/// On every listener, whatever the body is said to be: a browser sends a form's without asking first.
#[test]
fn no_page_of_another_site_changes_anything() {
    let setup = setup();
    let socket = setup.folder().join("http.sock");
    let daemon = setup
        .settings(&format!("http.unix-socket = '{}'", socket.display()))
        .settings("http.cors-origins = ['https://ui.lan']")
        .start();
    let door = &doors(&daemon, 2)[1];
    let mut refused = 0;
    for (method, path, body, _) in rows() {
        let ask = |origin: &str| {
            let headers = format!("origin: {origin}\r\ncontent-type: text/plain\r\n");
            door.ask(method, &path, &headers, &body).status
        };
        let own = door.ask(method, &path, "", &body).status;
        for origin in ["https://ui.lan", "http://localhost"] {
            assert_eq!(ask(origin), own, "{method} {path} of {origin}");
        }
        let changes = ["POST", "DELETE"].contains(&method);
        for origin in ["http://evil.example", "http://localhost:1", "null"] {
            let expected = if changes { 403 } else { own };
            assert_eq!(ask(origin), expected, "{method} {path} of {origin}");
            refused += u32::from(changes);
        }
    }
    assert!(refused > 60, "{refused}");
}
