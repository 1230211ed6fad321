//! The time that loading takes, and what can be seen of it from outside meanwhile: bytes that are
//! read, memory that grows, or nothing.

use crate::memory::{MIB, Memory};
use serde::Deserialize;
use std::fs::File;
use std::io::Read;
use std::time::{Duration, Instant};

/// Between two signs of progress.
const STEP: Duration = Duration::from_millis(50);
const READ_BYTES_PER_STEP: usize = 4 * MIB;
const MEMORY_BYTES_PER_STEP: usize = 2 * MIB;
/// What a load takes at most, over all its steps.
const MEMORY_BYTES: usize = 256 * MIB;

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum LoadProgress {
    None,
    Read,
    Memory,
}

/// Takes `delay` and progresses meanwhile.
pub fn take_time(delay: Duration, progress: LoadProgress, memory: &Memory) -> Result<(), String> {
    let began = Instant::now();
    let until = |end: Duration| std::thread::sleep(end.saturating_sub(began.elapsed()));
    if progress == LoadProgress::None {
        until(delay);
        return Ok(());
    }
    let mut zeros = File::open("/dev/zero").map_err(|error| format!("/dev/zero: {error}"))?;
    let mut block = vec![0; MIB];
    let steps = u32::try_from(delay.as_millis().div_ceil(STEP.as_millis())).unwrap_or(u32::MAX);
    for step in 1..=steps {
        match progress {
            LoadProgress::None => {}
            LoadProgress::Read => {
                for _ in 0..READ_BYTES_PER_STEP / MIB {
                    zeros
                        .read_exact(&mut block)
                        .map_err(|error| format!("/dev/zero: {error}"))?;
                }
            }
            LoadProgress::Memory => {
                memory.grow(MEMORY_BYTES_PER_STEP.min(MEMORY_BYTES / steps as usize));
            }
        }
        until(delay.min(STEP * step));
    }
    Ok(())
}
