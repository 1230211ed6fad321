//! A model stays loaded as long as the clients that used it want, each by its last request.

use std::time::{Duration, Instant};

use crate::daemon_support::{Daemon, Setup, children, eventually, keys};
use crate::doors::{Answer, Door, bearer, doors};
use serde_json::{Value, json};

const SCENARIO: &str = "tokens = ['x']\n";
/// From the last use on, where it is to be one second.
const LONGEST: Duration = Duration::from_secs(2);

fn question(extra: Value) -> Value {
    let mut body = json!({"model": "m", "prompt": "hi", "stream": false});
    let extra = extra.as_object().expect("fields").clone();
    body.as_object_mut().expect("an object").extend(extra);
    body
}

fn ask(daemon: &Daemon, extra: Value) {
    let answer = daemon.post("/api/generate", &question(extra));
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("x-rkllmd-not-applied"), None);
}

/// When the model is unloaded, from now on; `None`: never.
fn time_left(running: &Value) -> Option<f64> {
    let expires = running["models"][0]["expires_at"].as_str().expect("a time");
    let expires: jiff::Timestamp = expires.parse().expect("a time");
    let left = expires.duration_since(jiff::Timestamp::now()).as_secs_f64();
    (left < 1e9).then_some(left)
}

fn is_left(daemon: &Daemon) -> Option<f64> {
    time_left(&daemon.get("/api/ps").json())
}

/// A daemon with keys of a user, of another one and of an admin.
struct Keyed {
    _daemon: Daemon,
    door: Door,
    users: [String; 2],
    admin: String,
}

fn keyed(setup: Setup) -> Keyed {
    let daemon = setup.scenario("m", SCENARIO).start();
    let users = ["add one", "add other"].map(|add| keys(daemon.folder(), add));
    let admin = keys(daemon.folder(), "add admin --role admin");
    eventually("keys being asked for", || {
        (daemon.get("/api/tags").status == 401).then_some(())
    });
    let door = doors(&daemon, 1).remove(0);
    Keyed {
        _daemon: daemon,
        door,
        users,
        admin,
    }
}

impl Keyed {
    fn ask(&self, key: &str, extra: Value) -> Answer {
        let body = question(extra).to_string();
        let answer = self
            .door
            .ask("POST", "/api/generate", &bearer(Some(key)), &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer
    }

    fn left(&self) -> Option<f64> {
        time_left(&self.door.get("/api/ps", Some(&self.admin)).json())
    }

    fn is_loaded(&self) -> bool {
        let running = self.door.get("/api/ps", Some(&self.admin)).json();
        !running["models"].as_array().expect("a list").is_empty()
    }
}

fn not_applied(answer: &Answer) -> bool {
    let head = answer.head.to_lowercase();
    head.contains("x-rkllmd-not-applied: keep_alive")
}

#[test]
fn a_second_after_its_last_use_it_goes() {
    let daemon = Setup::new().scenario("m", SCENARIO).start();
    ask(&daemon, json!({"keep_alive": "5m"}));
    let left = is_left(&daemon).expect("a time");
    assert!((290.0..=300.0).contains(&left), "{left}");
    let model = daemon.get("/v1/models/m").json();
    let told = model["rkllmd"]["state"]["expires_at"].as_str();
    assert!(told.is_some_and(|it| it.ends_with('Z')), "{model}");
    // Its last wish counts.
    ask(&daemon, json!({"keep_alive": "1s"}));
    let last_use = Instant::now();
    let worker = daemon.worker_pid();
    let running = daemon.get("/api/ps").json();
    if !running["models"].as_array().expect("a list").is_empty() {
        let rest = time_left(&running).expect("a time");
        assert!(rest <= 1.0, "{rest}");
    }
    daemon.wait_for_phase("m", "unloaded");
    let took = last_use.elapsed();
    assert!(
        took > Duration::from_millis(900) && took < LONGEST,
        "{took:?}"
    );
    assert!(
        !children(daemon.pid()).contains(&worker),
        "its worker ended"
    );
    daemon.log.wait_for("no client keeps this model any more");
    // It comes back when it is asked for, and what it was kept for before counts no more.
    ask(&daemon, json!({}));
    assert_eq!(is_left(&daemon), None);
}

#[test]
fn it_goes_at_once_where_nobody_else_keeps_it() {
    let daemon = Setup::new().scenario("m", SCENARIO).start();
    ask(&daemon, json!({"keep_alive": 0}));
    daemon.wait_for_phase("m", "unloaded");
    let embedded = daemon.post(
        "/api/embed",
        &json!({"model": "m", "input": "hi", "keep_alive": "0s"}),
    );
    assert_eq!(embedded.status, 200, "{}", embedded.body);
    daemon.wait_for_phase("m", "unloaded");
}

#[test]
fn another_key_holds_it() {
    let keyed = keyed(Setup::new());
    let [one, other] = &keyed.users;
    keyed.ask(other, json!({"keep_alive": "2m"}));
    keyed.ask(one, json!({"keep_alive": 0}));
    let left = keyed.left().expect("a time");
    assert!((100.0..=120.0).contains(&left), "{left}");
    // Who says nothing keeps it as the setting says: for ever.
    keyed.ask(other, json!({}));
    keyed.ask(one, json!({"keep_alive": "1s"}));
    assert_eq!(keyed.left(), None);
    // No client holds it any more.
    keyed.ask(other, json!({"keep_alive": 0}));
    eventually("the end of the second", || {
        (!keyed.is_loaded()).then_some(())
    });
}

#[test]
fn only_administrators_keep_it_for_ever() {
    let keyed = keyed(Setup::new().settings("models.keep-alive = '2m'"));
    let user = &keyed.users[0];
    let refused = keyed.ask(user, json!({"keep_alive": -1}));
    assert!(not_applied(&refused), "{}", refused.head);
    let left = keyed.left().expect("the setting's time");
    assert!((100.0..=120.0).contains(&left), "{left}");
    let kept = keyed.ask(&keyed.admin, json!({"keep_alive": "-1m"}));
    assert!(!not_applied(&kept), "{}", kept.head);
    assert_eq!(keyed.left(), None);
    // And no other key takes that back for them.
    keyed.ask(user, json!({"keep_alive": 0}));
    assert_eq!(keyed.left(), None);
    assert!(keyed.is_loaded());
}

#[test]
fn settings_say_what_requests_do_not() {
    let daemon = Setup::new()
        .scenario("m", SCENARIO)
        .model_file(
            "m",
            "model.toml",
            "template = 'chatml'\nkeep-alive = '1s'\n",
        )
        .settings("models.keep-alive = '1h'")
        .start();
    ask(&daemon, json!({}));
    daemon.wait_for_phase("m", "unloaded");
    // Loaded for nothing, it is kept likewise.
    let loaded = daemon.post("/api/generate", &json!({"model": "m"}));
    assert_eq!(loaded.json()["done_reason"], "load");
    daemon.wait_for_phase("m", "unloaded");
    let loaded = daemon.post("/api/generate", &json!({"model": "m", "keep_alive": "30m"}));
    assert_eq!(loaded.header("x-rkllmd-not-applied"), None);
    let left = is_left(&daemon).expect("a time");
    assert!((1700.0..=1800.0).contains(&left), "{left}");
    // Loaded already, it is only kept otherwise.
    let again = daemon.post("/api/generate", &json!({"model": "m", "keep_alive": -1}));
    assert_eq!(again.json()["done_reason"], "load");
    assert_eq!(again.json().get("load_duration"), None, "{}", again.body);
    eventually("it stays", || is_left(&daemon).is_none().then_some(()));
}

#[test]
fn what_is_preloaded_stays() {
    let daemon = Setup::new()
        .scenario("m", SCENARIO)
        .settings("models.preload = ['m']\nmodels.keep-alive = '1ms'")
        .start();
    daemon.wait_for_phase("m", "ready");
    ask(&daemon, json!({"keep_alive": 0}));
    assert_eq!(is_left(&daemon), None);
    // An administrator unloads it all the same, by asking for that alone.
    let unloaded = daemon.post("/api/generate", &json!({"model": "m", "keep_alive": 0}));
    assert_eq!(unloaded.json()["done_reason"], "unload");
    assert_eq!(daemon.phase("m"), "unloaded");
}
