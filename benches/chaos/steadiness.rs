//! What the daemon holds while it is ill-treated: memory, descriptors, threads and children. Memory is
//! sampled under load; what follows the number of clients and workers of a moment is compared between
//! two quiet ones.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::daemon_support::{
    Daemon, all_children, chat, children, descriptors, eventually, resident_bytes, threads,
};

const INTERVAL: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(50);
/// An idle thread for blocking work ends after ten seconds.
const IDLE_THREADS_END: Duration = Duration::from_secs(11);

#[derive(Clone, Debug)]
pub struct Sample {
    pub resident_mb: f64,
    /// What each descriptor stands for, without numbers.
    pub targets: Vec<String>,
    /// Without the connections of clients.
    pub descriptors: f64,
    pub threads: f64,
    pub children: f64,
}

impl Sample {
    pub fn of(daemon: u32, connections: usize) -> Self {
        let targets: Vec<String> = (descriptors(daemon).into_iter())
            .map(|(_, target)| target.replace(|digit: char| digit.is_ascii_digit(), ""))
            .collect();
        Self {
            resident_mb: resident_bytes(daemon) as f64 / 1e6,
            descriptors: targets.len() as f64 - connections as f64,
            targets,
            threads: threads(daemon) as f64,
            children: children(daemon).len() as f64,
        }
    }

    pub fn held_descriptors(&self) -> f64 {
        self.descriptors
    }

    pub fn held_threads(&self) -> f64 {
        self.threads
    }
}

/// Samples until `going` is false.
pub fn watch(daemon: u32, open: &AtomicUsize, going: &AtomicBool) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut next = Instant::now();
    while going.load(Ordering::Relaxed) {
        if Instant::now() >= next {
            samples.push(Sample::of(daemon, open.load(Ordering::Relaxed)));
            next += INTERVAL;
        }
        thread::sleep(POLL);
    }
    samples
}

/// Mean of the last third less mean of the first.
pub fn growth(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let third = samples.len() / 3;
    if third == 0 {
        return 0.0;
    }
    let mean = |part: &[Sample]| part.iter().map(&of).sum::<f64>() / part.len() as f64;
    mean(&samples[samples.len() - third..]) - mean(&samples[..third])
}

/// Waits until as many workers as may be are loaded and nothing else runs, so that two samples differ
/// in what the daemon keeps and not in the number of its children; models that are asked for get there.
/// No client may be connected.
pub fn quiet(daemon: &Daemon, max_loaded: usize, models: &[(&str, &str)]) -> Sample {
    eventually("a quiet daemon", || {
        let ready = daemon.get("/v1/ready").json();
        let phases: Vec<&str> = (ready["models"].as_array()?.iter())
            .filter_map(|model| model["phase"].as_str())
            .collect();
        let loaded = phases.iter().filter(|phase| **phase == "ready").count();
        let changes = |phase: &&str| !matches!(*phase, "ready" | "unloaded" | "failed");
        if phases.iter().any(changes) {
            return None;
        }
        if loaded < max_loaded {
            for (model, prompt) in models {
                if daemon.phase(model) != "ready" {
                    daemon.post("/v1/chat/completions", &chat(model, prompt, json!({})));
                }
            }
            return None;
        }
        (all_children(daemon.pid()).len() == max_loaded).then_some(())
    });
    Sample::of(daemon.pid(), 0)
}

/// Likewise, and gives what comes and goes with the requests of the last seconds the time to go, if
/// there is more of it than `before`.
pub fn quiet_again(
    daemon: &Daemon,
    max_loaded: usize,
    models: &[(&str, &str)],
    before: &Sample,
) -> Sample {
    let until = Instant::now() + IDLE_THREADS_END;
    loop {
        let now = quiet(daemon, max_loaded, models);
        if (now.threads <= before.threads && now.descriptors <= before.descriptors)
            || Instant::now() >= until
        {
            return now;
        }
        thread::sleep(POLL);
    }
}
