//! Which of the chosen CPUs compute. ggml's threads wait for each other by spinning, several hundred
//! times a token, so that all of them are as slow as the one whose CPU another process has most of the
//! time: two CPUs beside four busy processes make a tenth of what one of them makes alone. This is the
//! decision only: it is told how long each thread was ready to run and had no CPU, and gives up a CPU
//! where fewer threads that wait less make more. A CPU that was given up is tried again, so seldom
//! that the trials cost little: one beside many busy processes can last a second.
//!
//! ```text
//!   used ──► its neighbour costs more than it gives ──► away ──► its time is over ──► on trial ──┐
//!    ▲                                                   ▲                                       │
//!    └────────────────────── no worse ───────────────────┴────── as before, for longer ──────────┘
//! ```
//!
//! At least one CPU is always used. The thread that is left alone waits for no other and may run on any
//! of the chosen ones, so its waiting says nothing about a CPU.

use std::time::Duration;

/// How far back waiting counts.
const MEMORY: Duration = Duration::from_millis(60);
/// What is seen of a CPU before it can be given up: some time slices, or one long step.
const FIRST_LOOK: Duration = Duration::from_millis(15);
/// How long a CPU is left to a neighbour that was not there before: in any case, and as many times as
/// long as the step that showed it, within a limit.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const STEPS_TO_REST: u32 = 5;
const LAST_FIRST_RETRY: Duration = Duration::from_secs(2);
/// And after a trial, this many times as long as that took: trials have a twentieth of the time.
const TRIALS_TO_REST: u32 = 20;
const LAST_RETRY: Duration = Duration::from_secs(30);
/// What each thread but the first takes from the others; 0.2 is two threads being 1.67 times one, as
/// measured with the demo model.
const COST_OF_A_THREAD: f64 = 0.2;
/// A change must be worth it.
const GAIN: f64 = 1.05;
#[derive(Debug)]
pub(crate) struct ThreadGovernor {
    cpus: Vec<Cpu>,
    used: Vec<u32>,
}

#[derive(Debug)]
struct Cpu {
    number: u32,
    duty: Duty,
    /// Part of the time its thread was ready and did not run.
    waiting: f64,
    /// The time this was seen in, while it is short.
    seen: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Duty {
    Used { on_trial_since: Option<Duration> },
    Away { until: Duration },
}

impl ThreadGovernor {
    pub(crate) fn new(cpus: &[u32]) -> ThreadGovernor {
        let mut governor = ThreadGovernor {
            cpus: Vec::with_capacity(cpus.len()),
            used: Vec::new(),
        };
        governor.cpus.extend(cpus.iter().map(|&number| Cpu {
            number,
            duty: Duty::Used {
                on_trial_since: None,
            },
            waiting: 0.0,
            seen: Duration::ZERO,
        }));
        governor.list_used();
        governor
    }

    /// The CPUs that compute, one thread on each; never none.
    pub(crate) fn used(&self) -> &[u32] {
        &self.used
    }

    /// A CPU is on trial of which too little is seen to give it up again: the next step had better
    /// be short.
    pub(crate) fn is_looking(&self) -> bool {
        self.cpus.iter().any(|cpu| {
            let on_trial = matches!(
                cpu.duty,
                Duty::Used {
                    on_trial_since: Some(_)
                }
            );
            on_trial && cpu.seen < FIRST_LOOK
        })
    }

    /// `before_step` will bring back a CPU.
    pub(crate) fn returns_by(&self, now: Duration) -> bool {
        let returns = |cpu: &Cpu| matches!(cpu.duty, Duty::Away { until } if until <= now);
        self.cpus.iter().any(returns)
    }

    /// Brings back the CPUs whose time has come. `now` is since any fixed moment. True: `used` has
    /// changed.
    pub(crate) fn before_step(&mut self, now: Duration) -> bool {
        let mut changed = false;
        for cpu in &mut self.cpus {
            if matches!(cpu.duty, Duty::Away { until } if until <= now) {
                *cpu = Cpu {
                    number: cpu.number,
                    duty: Duty::Used {
                        on_trial_since: Some(now),
                    },
                    waiting: 0.0,
                    seen: Duration::ZERO,
                };
                changed = true;
            }
        }
        if changed {
            self.list_used();
        }
        changed
    }

    /// A step took `wall`, and the thread on each of `used` waited as long as `waited` says. True:
    /// `used` has changed.
    pub(crate) fn after_step(
        &mut self,
        now: Duration,
        wall: Duration,
        waited: &[Duration],
    ) -> bool {
        if self.used.len() < 2 || wall.is_zero() {
            return false;
        }
        let used = self
            .cpus
            .iter_mut()
            .filter(|cpu| matches!(cpu.duty, Duty::Used { .. }));
        for (cpu, waited) in used.zip(waited) {
            cpu.see(wall, *waited);
        }
        let changed = self.give_up(now, wall);
        for cpu in &mut self.cpus {
            if let Duty::Used { on_trial_since } = &mut cpu.duty
                && cpu.seen >= MEMORY
            {
                *on_trial_since = None;
            }
        }
        changed
    }

    fn give_up(&mut self, now: Duration, wall: Duration) -> bool {
        let mut by_waiting: Vec<usize> = (0..self.cpus.len())
            .filter(|&at| matches!(self.cpus[at].duty, Duty::Used { .. }))
            .collect();
        by_waiting.sort_by(|&a, &b| self.cpus[a].waiting.total_cmp(&self.cpus[b].waiting));
        let mut all_run = 1.0;
        let mut best = (1, 0.0);
        let mut as_it_is = 0.0;
        for (before, &at) in by_waiting.iter().enumerate() {
            all_run *= 1.0 - self.cpus[at].waiting;
            as_it_is = speed_of(before + 1) * all_run;
            if as_it_is > best.1 {
                best = (before + 1, as_it_is);
            }
        }
        if best.1 <= as_it_is * GAIN {
            return false;
        }
        let mut changed = false;
        for &at in &by_waiting[best.0..] {
            let cpu = &mut self.cpus[at];
            let Duty::Used { on_trial_since } = cpu.duty else {
                continue;
            };
            if cpu.seen >= FIRST_LOOK {
                let away = match on_trial_since {
                    None => (wall * STEPS_TO_REST).clamp(FIRST_RETRY, LAST_FIRST_RETRY),
                    Some(since) => {
                        let trial = now.saturating_sub(since);
                        (trial * TRIALS_TO_REST).clamp(FIRST_RETRY, LAST_RETRY)
                    }
                };
                cpu.duty = Duty::Away { until: now + away };
                changed = true;
            }
        }
        if changed {
            self.list_used();
        }
        changed
    }

    fn list_used(&mut self) {
        let used = self.cpus.iter().filter_map(|cpu| match cpu.duty {
            Duty::Used { .. } => Some(cpu.number),
            Duty::Away { .. } => None,
        });
        self.used = used.collect();
    }
}

impl Cpu {
    fn see(&mut self, wall: Duration, waited: Duration) {
        self.seen = (self.seen + wall).min(MEMORY);
        let weight = (wall.as_secs_f64() / self.seen.as_secs_f64()).min(1.0);
        let waiting = (waited.as_secs_f64() / wall.as_secs_f64()).min(1.0);
        self.waiting += (waiting - self.waiting) * weight;
    }
}

/// Of so many threads that all run, one being 1.
fn speed_of(threads: usize) -> f64 {
    let threads = threads as f64;
    threads / (1.0 + COST_OF_A_THREAD * (threads - 1.0))
}

#[cfg(test)]
mod tests;
