//! What a killed daemon left half done is never loaded, and what it left whole is; with another model of
//! that name all of it goes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Child;
use std::thread;
use std::time::Duration;

use crate::daemon_support::{Setup, eventually, request};
use crate::prefixes_support::{
    COMPLETIONS, NEW_WORDS, SCENARIO, ask, beginning, folder, names, saving, setup, told, turn,
};
use serde_json::Value;

/// Marks the fake runtime's files.
const MARK: &str = "fake prompt cache";
const KILLS: u64 = 12;

/// A daemon that is killed and started again with what it left.
struct Killed<'a> {
    setup: &'a Setup,
    child: Child,
    address: SocketAddr,
}

impl<'a> Killed<'a> {
    fn start(setup: &'a Setup) -> Self {
        let mut child = setup.command().spawn().expect("the daemon starts");
        let stderr = child.stderr.take().expect("piped");
        let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
        let line = lines.find(|line| line.contains("listening address="));
        let line = line.expect("it listens");
        // The folder was looked through.
        let kept = lines.find(|line| line.contains("prefixes of conversations are kept"));
        kept.expect("they are kept");
        let address = line
            .rsplit("address=")
            .next()
            .and_then(|it| it.trim().parse().ok());
        thread::spawn(move || lines.count());
        Self {
            setup,
            child,
            address: address.expect("an address"),
        }
    }

    fn ask(&self, prompt: &str) -> Value {
        request(self.address, "POST", COMPLETIONS, Some(&ask(prompt))).json()
    }

    fn again(mut self) -> Self {
        self.child.kill().expect("a process");
        self.child.wait().expect("its end");
        Self::start(self.setup)
    }
}

impl Drop for Killed<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_half_written_one_is_never_loaded() {
    // A file takes about 60 ms.
    let scenario = format!("save-us-per-byte = 10\n{SCENARIO}");
    let setup = Setup::new().scenario("m", &scenario);
    let prefixes = setup.folder().join("state/prefixes");
    let mut daemon = Killed::start(&setup);
    for kill in 0..KILLS {
        let address = daemon.address;
        let turns = thread::spawn(move || {
            for name in ["a", "b", "c", "a", "b", "c"] {
                let body = ask(&beginning(&format!("{name}{kill}x")));
                let answered = std::panic::catch_unwind(|| {
                    request(address, "POST", COMPLETIONS, Some(&body));
                });
                // Its daemon was killed.
                if answered.is_err() {
                    return;
                }
            }
        });
        // At another moment each time, of a file's time and what lies around it.
        thread::sleep(Duration::from_millis(150 + kill * 37 % 300));
        daemon = daemon.again();
        turns.join().expect("a thread");
        // What the start has left is whole.
        let caches = names(&prefixes, ".cache");
        let records = names(&prefixes, ".json");
        for name in &caches {
            let text = fs::read_to_string(prefixes.join(name)).expect("a text");
            assert!(
                text.contains(MARK) && text.ends_with("one two three "),
                "{name} is cut"
            );
            let record = name.replace(".cache", ".json");
            assert!(records.contains(&record), "{name} of {records:?}");
        }
        let whole = records
            .iter()
            .filter(|name| *name != "written.json")
            .count();
        assert_eq!(whole, caches.len());
        let left = saving(&prefixes);
        assert!(left.is_empty(), "{left:?}");
    }
    let page = request(daemon.address, "GET", "/metrics", None).body;
    assert!(!page.contains("rkllmd_prefix_failures_total{"), "{page}");
}

#[test]
fn a_conversation_goes_on_after_a_restart_where_it_was() {
    let setup = Setup::new().scenario("m", SCENARIO);
    let prefixes = setup.folder().join("state/prefixes");
    let daemon = Killed::start(&setup);
    let (a, b) = (beginning("a"), beginning("b"));
    told(&daemon.ask(&a));
    told(&daemon.ask(&b));
    eventually("both on disk", || {
        (names(&prefixes, ".json").len() == 3).then_some(())
    });
    let daemon = daemon.again();
    // Shows how long a prefill takes, and that this slot counts.
    told(&daemon.ask(&beginning("c")));
    let (_, evaluated) = told(&daemon.ask(&(a + "one two three and then ")));
    assert!(evaluated <= NEW_WORDS, "{evaluated}");
}

#[test]
fn with_another_file_of_the_model_all_of_it_goes() {
    let daemon = setup(1, "").start();
    let (mut a, mut b) = (beginning("a"), beginning("b"));
    turn(&daemon, &mut a);
    turn(&daemon, &mut b);
    turn(&daemon, &mut a);
    assert!(!names(&folder(&daemon), ".cache").is_empty());
    let other = format!("# Another one.\n{SCENARIO}");
    fs::write(daemon.folder().join("models/m/model.rkllm"), other).expect("the model");
    daemon.signal(rustix::process::Signal::HUP);
    eventually("the end of its files", || {
        names(&folder(&daemon), ".cache").is_empty().then_some(())
    });
    assert!(turn(&daemon, &mut b) > NEW_WORDS);
}
