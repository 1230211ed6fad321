//! What the daemon holds while it is ill-treated: memory, descriptors, threads and children. Memory is
//! sampled under load; what follows the number of clients and workers of a moment is compared between
//! two quiet ones.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::daemon_support::{Daemon, children, descriptors, eventually, resident_bytes, threads};

const INTERVAL: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(50);
/// An idle thread for blocking work ends after ten seconds.
const IDLE_THREADS_END: Duration = Duration::from_secs(11);

#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub resident_mb: f64,
    /// Without the connections of clients.
    pub descriptors: f64,
    pub threads: f64,
    pub children: f64,
}

impl Sample {
    pub fn of(daemon: u32, connections: usize) -> Self {
        Self {
            resident_mb: resident_bytes(daemon) as f64 / 1e6,
            descriptors: descriptors(daemon).len() as f64 - connections as f64,
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

/// Waits until no worker is starting, serving or ending, and takes a sample. No client may be
/// connected.
pub fn quiet(daemon: &Daemon, max_loaded: usize) -> Sample {
    let idle = |phase: &str| matches!(phase, "ready" | "unloaded" | "failed");
    eventually("a quiet daemon", || {
        let ready = daemon.get("/v1/ready").json();
        let models = ready["models"].as_array()?;
        let all_idle = models
            .iter()
            .all(|model| model["phase"].as_str().is_some_and(idle));
        (all_idle && children(daemon.pid()).len() <= max_loaded).then_some(())
    });
    Sample::of(daemon.pid(), 0)
}

/// Likewise, and gives what comes and goes with the requests of the last seconds the time to go, if
/// there is more of it than `before`.
pub fn quiet_again(daemon: &Daemon, max_loaded: usize, before: &Sample) -> Sample {
    let until = Instant::now() + IDLE_THREADS_END;
    loop {
        let now = quiet(daemon, max_loaded);
        if (now.threads <= before.threads && now.descriptors <= before.descriptors)
            || Instant::now() >= until
        {
            return now;
        }
        thread::sleep(POLL);
    }
}
