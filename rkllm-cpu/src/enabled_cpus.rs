//! Which CPUs compute, from `enabled_cpus_num` and `enabled_cpus_mask`. Only processors this
//! process may use are ever chosen, and a caller's own thread gets its affinity back.
//!
//! Where every chosen CPU has one thread, each thread is held to its own. ggml's threads wait for
//! each other by spinning, several hundred times a token; two of them on one CPU, where a busy
//! machine's scheduler will put them, wait for whole time slices (measured on two CPUs beside one
//! busy process: 1 token/s, where a single thread makes 17). Which of them compute at a time is
//! `thread_governor`'s.

use thiserror::Error;

/// The mask of the ABI names eight CPUs at most, as the vendor's runtime accepts no more.
const MAX_ENABLED: u32 = 8;

#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum CpuError {
    #[error("Expected The number of enabled CPUs between 1 and 8 for CPU, but got {0}")]
    Count(i8),
    #[error(
        "Mismatch between enabled CPUs mask and expected count (mask {mask:#x}, expected {expected})"
    )]
    Mismatch { mask: u32, expected: i8 },
    #[error("RKLLM_CPU_THREADS must be a number between 1 and 512, but is `{0}`")]
    Threads(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EnabledCpus {
    pub(crate) cpus: Vec<u32>,
    pub(crate) threads: i32,
    placement: Placement,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placement {
    /// Anywhere the process may run: there are more CPUs than threads, and the host chose none of them.
    Anywhere,
    /// On any of the chosen CPUs.
    OnTheChosen,
    /// Each thread on a chosen CPU of its own.
    OneEach,
}

impl EnabledCpus {
    /// `threads` is `RKLLM_CPU_THREADS`, which overrides the count but not the choice of CPUs.
    pub(crate) fn choose(
        num: i8,
        mask: u32,
        available: &[u32],
        threads: Option<&str>,
    ) -> Result<EnabledCpus, CpuError> {
        let defaults = default_mask(available);
        let wanted = if num == 0 && mask == 0 {
            defaults
        } else {
            mask
        };
        if num != 0 || mask != 0 {
            if !(1..=MAX_ENABLED as i8).contains(&num) {
                return Err(CpuError::Count(num));
            }
            if mask.count_ones() != u32::from(num.unsigned_abs()) {
                return Err(CpuError::Mismatch {
                    mask,
                    expected: num,
                });
            }
        }
        let mut cpus: Vec<u32> = available
            .iter()
            .copied()
            .filter(|&cpu| cpu < u32::BITS && wanted & (1 << cpu) != 0)
            .collect();
        if cpus.is_empty() {
            // A mask written for another machine (0xF0 on two CPUs): its count still means something.
            let count = usize::try_from(num).unwrap_or(1).max(1);
            cpus = available.iter().copied().take(count).collect();
        }
        let threads = match threads {
            None => cpus.len().max(1) as i32,
            Some(text) => text
                .trim()
                .parse()
                .ok()
                .filter(|threads| (1..=512).contains(threads))
                .ok_or_else(|| CpuError::Threads(text.to_owned()))?,
        };
        let all = cpus.len() == available.len();
        let placement = if threads as usize == cpus.len() && (all || wanted != defaults) {
            Placement::OneEach
        } else if !all && wanted != defaults {
            Placement::OnTheChosen
        } else {
            Placement::Anywhere
        };
        Ok(EnabledCpus {
            cpus,
            threads,
            placement,
        })
    }

    /// The CPUs to hand out one to a thread, if each is to have its own. The calling thread's is
    /// the last, as ggml places it.
    pub(crate) fn one_each(&self) -> Option<&[u32]> {
        (self.placement == Placement::OneEach).then_some(&self.cpus)
    }

    /// Holds the calling thread, and the threads it starts, to where it computes until dropped.
    pub(crate) fn hold(&self) -> HeldThread {
        match self.placement {
            Placement::Anywhere => HeldThread(None),
            Placement::OnTheChosen => HeldThread::on(&self.cpus),
            Placement::OneEach => HeldThread::on(&self.cpus[self.cpus.len().saturating_sub(1)..]),
        }
    }
}

pub(crate) struct HeldThread(Option<libc::cpu_set_t>);

impl HeldThread {
    /// Holds the calling thread to `cpus`, which are below 32.
    pub(crate) fn on(cpus: &[u32]) -> HeldThread {
        let before = affinity();
        if before.is_some() {
            move_thread(THIS_THREAD, cpus);
        }
        HeldThread(before)
    }
}

impl Drop for HeldThread {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            set_affinity(THIS_THREAD, before);
        }
    }
}

/// What `rkllm_createDefaultParam` puts into the mask: the first eight CPUs this process may use.
pub(crate) fn default_mask(available: &[u32]) -> u32 {
    available
        .iter()
        .filter(|&&cpu| cpu < u32::BITS)
        .take(MAX_ENABLED as usize)
        .fold(0, |mask, &cpu| mask | 1 << cpu)
}

/// The CPUs this process may use, ascending.
pub(crate) fn available() -> Vec<u32> {
    let Some(set) = affinity() else {
        return vec![0];
    };
    (0..libc::CPU_SETSIZE as u32)
        // SAFETY: the index is below CPU_SETSIZE.
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu as usize, &set) })
        .collect()
}

fn affinity() -> Option<libc::cpu_set_t> {
    // SAFETY: an all-zero cpu_set_t is the empty set, and the kernel writes at most the given size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        (libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) == 0).then_some(set)
    }
}

pub(crate) const THIS_THREAD: libc::pid_t = 0;

/// Lets a thread of this process run on `cpus` only, which are below 32.
pub(crate) fn move_thread(thread: libc::pid_t, cpus: &[u32]) {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus {
        // SAFETY: far inside the set's 1024 bits.
        unsafe { libc::CPU_SET(cpu as usize, &mut set) };
    }
    set_affinity(thread, &set);
}

fn set_affinity(thread: libc::pid_t, set: &libc::cpu_set_t) {
    // SAFETY: the set is a live cpu_set_t of the given size. A failure leaves the affinity as it
    // was, which only costs speed.
    unsafe { libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), set) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus(num: i8, mask: u32, available: &[u32]) -> Result<Vec<u32>, CpuError> {
        EnabledCpus::choose(num, mask, available, None).map(|chosen| chosen.cpus)
    }

    #[test]
    fn the_default_is_every_cpu_up_to_eight() {
        assert_eq!(default_mask(&[0, 1]), 0b11);
        assert_eq!(default_mask(&[4, 5, 6, 7]), 0xF0);
        let sixteen: Vec<u32> = (0..16).collect();
        assert_eq!(default_mask(&sixteen), 0xFF);
        assert_eq!(cpus(0, 0, &sixteen), Ok((0..8).collect()));
    }

    #[test]
    fn a_mask_chooses_and_must_match_its_count() {
        assert_eq!(cpus(2, 0b1010, &[0, 1, 2, 3]), Ok(vec![1, 3]));
        assert_eq!(
            cpus(3, 0b11, &[0, 1]),
            Err(CpuError::Mismatch {
                mask: 0b11,
                expected: 3
            })
        );
        assert_eq!(cpus(9, 0x1FF, &[0, 1]), Err(CpuError::Count(9)));
        assert_eq!(cpus(-1, 1, &[0, 1]), Err(CpuError::Count(-1)));
    }

    #[test]
    fn a_mask_of_absent_cpus_falls_back_to_its_count() {
        assert_eq!(cpus(4, 0xF0, &[0, 1]), Ok(vec![0, 1]));
        assert_eq!(cpus(4, 0xF0, &[0, 1, 4]), Ok(vec![4]));
    }

    #[test]
    fn the_environment_overrides_the_number_of_threads() {
        let choose = |threads| EnabledCpus::choose(0, 0, &[0, 1], Some(threads));
        assert_eq!(choose("3").map(|chosen| chosen.threads), Ok(3));
        assert!(matches!(choose("0"), Err(CpuError::Threads(_))));
        assert!(matches!(choose("many"), Err(CpuError::Threads(_))));
    }

    #[test]
    fn every_thread_has_its_own_cpu_where_there_are_no_others() {
        let place = |num, mask, available: &[u32], threads| {
            EnabledCpus::choose(num, mask, available, threads).map(|chosen| chosen.placement)
        };
        assert_eq!(place(0, 0, &[0, 1], None), Ok(Placement::OneEach));
        assert_eq!(place(0, 0, &[0, 1], Some("1")), Ok(Placement::Anywhere));
        assert_eq!(place(0, 0, &[0, 1], Some("3")), Ok(Placement::Anywhere));
        assert_eq!(place(2, 0b110, &[0, 1, 2], None), Ok(Placement::OneEach));
        assert_eq!(
            place(2, 0b110, &[0, 1, 2], Some("1")),
            Ok(Placement::OnTheChosen)
        );
        let sixteen: Vec<u32> = (0..16).collect();
        assert_eq!(place(0, 0, &sixteen, None), Ok(Placement::Anywhere));
    }

    #[test]
    fn a_held_thread_gets_its_affinity_back() {
        let before = available();
        let chosen = EnabledCpus {
            cpus: before.clone(),
            threads: before.len() as i32,
            placement: Placement::OneEach,
        };
        let held = chosen.hold();
        assert_eq!(available(), before[before.len() - 1..]);
        drop(held);
        assert_eq!(available(), before);
    }
}
