//! What may not be deleted may not be replaced either.

use crate::daemon_support::keys;
use crate::doors::{bearer, doors, setup};

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
