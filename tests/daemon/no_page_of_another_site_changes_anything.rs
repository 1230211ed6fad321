//! On every listener, whatever the body is said to be: a browser sends a form's without asking first. Every path that
//! the daemon answers is tried.

use crate::doors::{doors, setup};
use crate::keys_let_in_only_who_may::rows;

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
        let changes = !["GET", "HEAD", "OPTIONS"].contains(&method);
        for origin in ["http://evil.example", "http://localhost:1", "null"] {
            let expected = if changes { 403 } else { own };
            assert_eq!(ask(origin), expected, "{method} {path} of {origin}");
            refused += u32::from(changes);
        }
    }
    assert!(refused > 60, "{refused}");
}
