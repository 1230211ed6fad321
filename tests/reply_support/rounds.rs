//! Random answers, others each time, for a bounded time.

use std::time::{Duration, Instant};

/// How long a test makes random answers, unless `FUZZ_SECONDS` says otherwise.
const SECONDS: u64 = 2;

pub struct Rounds {
    seed: u64,
    done: u64,
    end: Instant,
}

/// One random answer's source of chance.
pub struct Round {
    /// Given back as `FUZZ_SEED` it makes the same answer first.
    pub seed: u64,
    pub random: fastrand::Rng,
}

pub fn rounds() -> Rounds {
    let number = |name: &str| Some(std::env::var(name).ok()?.parse().expect(name));
    let seconds = number("FUZZ_SECONDS").unwrap_or(SECONDS);
    let seed = number("FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("the first answer is FUZZ_SEED={seed}");
    Rounds {
        seed,
        done: 0,
        end: Instant::now() + Duration::from_secs(seconds),
    }
}

impl Iterator for Rounds {
    type Item = Round;

    fn next(&mut self) -> Option<Round> {
        if self.done > 0 && Instant::now() >= self.end {
            return None;
        }
        let seed = self.seed.wrapping_add(self.done);
        self.done += 1;
        Some(Round {
            seed,
            random: fastrand::Rng::with_seed(seed),
        })
    }
}
