//! What a run is asked for, and the only source of chance in it: every decision of every thread comes
//! from the recorded seed, so a run can be asked to decide the same again. What the machine makes of
//! the decisions, it decides itself.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds of crowd and injections, all families together.
const DEFAULT_SECONDS: u64 = 60;

#[derive(Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    /// Time with crowd and injections, all families together.
    pub load: Duration,
    /// Time of a soak, which then is all that is done.
    pub soak: Option<Duration>,
}

impl Plan {
    /// From `CHAOS_SEED`, `CHAOS_SECONDS` and `SOAK_SECONDS`.
    pub fn from_environment() -> Self {
        let number = |name: &str| {
            std::env::var(name).ok().map(|text| {
                text.parse()
                    .unwrap_or_else(|error| panic!("{name}={text}: {error}"))
            })
        };
        Self {
            seed: number("CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000)),
            load: Duration::from_secs(number("CHAOS_SECONDS").unwrap_or(DEFAULT_SECONDS)),
            soak: number("SOAK_SECONDS").map(Duration::from_secs),
        }
    }

    /// The decisions of one thread. Whatever another one does, they stay the same.
    pub fn decisions(&self, of: impl Hash) -> fastrand::Rng {
        // Its keys are fixed, unlike those of a hash map.
        let mut hasher = DefaultHasher::new();
        (self.seed, of).hash(&mut hasher);
        fastrand::Rng::with_seed(hasher.finish())
    }
}

/// Wall-clock microseconds: what the daemon's log lines, file times and the clients have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    pub fn now() -> Self {
        Self::of(SystemTime::now())
    }

    pub fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).expect("a clock after 1970");
        Self(u64::try_from(since.as_micros()).expect("a clock of this age"))
    }

    /// Milliseconds since `earlier`, negative when it was later.
    pub fn ms_since(self, earlier: Self) -> f64 {
        (self.0 as f64 - earlier.0 as f64) / 1e3
    }
}
