//! Turns where there is one place: a client with four busy handles and a client with one chat at a time get as many.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::client::{Ask, Endpoint, Extent, Leaving, Wanted};
use crate::daemon_support::{Setup, eventually};
use crate::handles::Handle;
use crate::outcome::Ended;
use crate::report::{Report, Target};
use crate::scenario::{self, MODELS};

const FAMILY: &str = "1_3_1";
const GREEDY_HOST: u8 = 21;
const MODEST_HOST: u8 = 22;
const HANDLES: usize = 4;
const CHATS: usize = 12;

pub fn measure(report: &mut Report) {
    report.section(
        "fairness",
        "one place, a client with four handles and one with a chat",
    );
    let model = &MODELS[0];
    let answers = scenario::answers().swap_remove(0);
    let daemon = Setup::with_family(FAMILY)
        .settings("models.max-loaded = 1\nmodels.minimum-residency = \"0s\"")
        .scenario(model.id, &scenario::toml(model, &answers, &[]))
        .start();
    let ask = Ask {
        address: daemon.address,
        host: MODEST_HOST,
        model: model.id,
        wanted: Wanted::Answer(&answers[0], Extent::Whole),
        endpoint: Endpoint::Chat,
        streamed: false,
        leaving: Leaving::Never,
        pause: Duration::ZERO,
    };
    let (going, runs) = (AtomicBool::new(true), AtomicUsize::new(0));
    let (beside, findings) = thread::scope(|scope| {
        let busy: Vec<_> = (0..HANDLES)
            .map(|_| {
                scope.spawn(|| {
                    let mut handle = Handle::connect(daemon.address, GREEDY_HOST, model.id)
                        .expect("the daemon accepts");
                    let mut findings = Vec::new();
                    while going.load(Ordering::Relaxed) {
                        let ended = handle.run(&answers[0], false).ended;
                        runs.fetch_add(1, Ordering::Relaxed);
                        if !matches!(ended, Ended::RunComplete) {
                            findings.push(ended);
                        }
                    }
                    findings
                })
            })
            .collect();
        // They are loaded, and wait for their turns from now on.
        eventually("busy handles", || {
            (runs.load(Ordering::Relaxed) >= 2 * HANDLES).then_some(())
        });
        let mut findings = Vec::new();
        let mut chat = || {
            let ended = ask.run().ended;
            if !matches!(ended, Ended::Complete) {
                findings.push(ended);
            }
        };
        chat();
        let before = runs.load(Ordering::Relaxed);
        (0..CHATS).for_each(|_| chat());
        let beside = runs.load(Ordering::Relaxed) - before;
        going.store(false, Ordering::Relaxed);
        for handle in busy {
            findings.extend(handle.join().expect("a client does not panic"));
        }
        (beside, findings)
    });
    let per_chat = beside as f64 / CHATS as f64;
    // The chat's client is out of line between two of its requests.
    report.promise(
        "runs_per_chat",
        "runs of handles beside each chat",
        (per_chat, ""),
        Target::AtMost(1.5),
    );
    report.promise(
        "least_runs_per_chat",
        "the same, no fewer",
        (per_chat, ""),
        Target::AtLeast(0.5),
    );
    report.promise(
        "findings",
        "answers and runs that were not whole",
        (findings.len() as f64, ""),
        Target::AtMost(0.0),
    );
    for ended in findings.iter().take(5) {
        report.note(format!("{ended:?}"));
    }
}
