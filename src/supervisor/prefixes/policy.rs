//! Whether it pays to write a prefix to disk, and to read it back. Pure: it is given figures.
//!
//! Both are compared with evaluating the prefix again. A prefix that is written may never be asked for,
//! so what writing gains is counted by the share of lost prefixes that came back; until there are some,
//! by half.

use std::time::Duration;

/// What a save or load costs besides its bytes: calls, names, bringing it to the disk.
const OVERHEAD_SECONDS: f64 = 0.05;
/// So much more than it costs a save has to gain: it wears the disk, and others wait for it.
const LEAST_GAIN: f64 = 2.0;
/// A smaller file tells the overhead and not the rate.
const TELLING_BYTES: u64 = 1 << 20;
/// How far a known rate follows a new measurement.
const TOWARDS_NEW: f64 = 0.3;
/// Assumed until the first file tells: what is tried once is known from then on.
const ASSUMED_BYTES_PER_TOKEN: f64 = 16.0 * 1024.0;
/// A first file may be so many times larger.
const UNTOLD_FACTOR: u64 = 8;
const ASSUMED_WRITTEN_PER_SECOND: f64 = 100e6;
const ASSUMED_READ_PER_SECOND: f64 = 200e6;
/// A token of ordinary text, in bytes.
const BYTES_OF_TEXT_PER_TOKEN: usize = 3;
/// Beyond so many losses the older half counts half.
const REMEMBERED_LOSSES: f64 = 64.0;

/// About how many tokens so many bytes of text are.
pub fn tokens_of(text_bytes: usize) -> u32 {
    u32::try_from(text_bytes / BYTES_OF_TEXT_PER_TOKEN).unwrap_or(u32::MAX)
}

/// How fast files are written and read; bytes a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskRates {
    written: Option<f64>,
    read: Option<f64>,
}

impl DiskRates {
    pub fn wrote(&mut self, bytes: u64, took: Duration) {
        follow(&mut self.written, bytes, took);
    }

    pub fn read(&mut self, bytes: u64, took: Duration) {
        follow(&mut self.read, bytes, took);
    }

    fn writing(&self, bytes: f64) -> f64 {
        OVERHEAD_SECONDS + bytes / self.written.unwrap_or(ASSUMED_WRITTEN_PER_SECOND)
    }

    fn reading(&self, bytes: f64) -> f64 {
        OVERHEAD_SECONDS + bytes / self.read.unwrap_or(ASSUMED_READ_PER_SECOND)
    }
}

fn follow(rate: &mut Option<f64>, bytes: u64, took: Duration) {
    if bytes < TELLING_BYTES || took.is_zero() {
        return;
    }
    let new = bytes as f64 / took.as_secs_f64();
    *rate = Some(rate.map_or(new, |known| known + TOWARDS_NEW * (new - known)));
}

/// How large a model's files are.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileSize {
    per_token: Option<f64>,
}

impl FileSize {
    pub fn told(&mut self, bytes: u64, tokens: u32) {
        if tokens > 0 {
            self.per_token = Some(bytes as f64 / f64::from(tokens));
        }
    }

    /// `None`: no file has told yet.
    pub fn expected(&self, tokens: u32) -> Option<u64> {
        Some((self.per_token? * f64::from(tokens)).ceil() as u64)
    }

    /// It will hardly have more.
    pub fn most(&self, tokens: u32) -> u64 {
        let expected = self.expected(tokens);
        expected.map_or_else(
            || self.assumed(tokens).saturating_mul(UNTOLD_FACTOR),
            |bytes| bytes.saturating_mul(2),
        )
    }

    /// Likewise, and a guess until then.
    pub fn assumed(&self, tokens: u32) -> u64 {
        let per_token = self.per_token.unwrap_or(ASSUMED_BYTES_PER_TOKEN);
        (per_token * f64::from(tokens)).ceil() as u64
    }
}

/// The share of lost prefixes that are asked for again.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReturnRate {
    lost: f64,
    returned: f64,
}

impl ReturnRate {
    pub fn one_is_lost(&mut self) {
        self.lost += 1.0;
        if self.lost > REMEMBERED_LOSSES {
            self.lost /= 2.0;
            self.returned /= 2.0;
        }
    }

    pub fn one_is_back(&mut self) {
        self.returned += 1.0;
    }

    pub fn get(&self) -> f64 {
        ((self.returned + 1.0) / (self.lost + 2.0)).min(1.0)
    }
}

/// A prefix that a slot holds, or is about to lose.
#[derive(Clone, Copy, Debug)]
pub struct Saving {
    /// All of them, which are written.
    pub tokens: u32,
    /// Those of them that no file has.
    pub new_tokens: u32,
}

/// What is known.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// To evaluate a token; `None`: not measured, and nothing is written or read for a guess.
    pub prefill_per_token: Option<Duration>,
    pub disk: DiskRates,
    pub size: FileSize,
    pub returns: ReturnRate,
}

pub fn is_worth_saving(saving: Saving, known: &Known) -> bool {
    let Some(per_token) = known.prefill_per_token else {
        return false;
    };
    let gain = known.returns.get() * f64::from(saving.new_tokens) * per_token.as_secs_f64();
    gain > LEAST_GAIN * known.disk.writing(known.size.assumed(saving.tokens) as f64)
}

/// `gained`: tokens that need no evaluation then, and would without.
pub fn is_worth_loading(gained: u32, file_bytes: u64, known: &Known) -> bool {
    let Some(per_token) = known.prefill_per_token else {
        return false;
    };
    f64::from(gained) * per_token.as_secs_f64() > known.disk.reading(file_bytes as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn known(prefill_ms: u64) -> Known {
        Known {
            prefill_per_token: Some(Duration::from_millis(prefill_ms)),
            disk: DiskRates::default(),
            size: FileSize::default(),
            returns: ReturnRate::default(),
        }
    }

    const ALL_NEW: Saving = Saving {
        tokens: 3000,
        new_tokens: 3000,
    };

    #[test]
    fn a_slow_prefill_is_worth_a_file_and_a_fast_one_is_not() {
        assert!(is_worth_saving(ALL_NEW, &known(3)));
        let fast = Known {
            prefill_per_token: Some(Duration::from_micros(100)),
            ..known(0)
        };
        assert!(!is_worth_saving(ALL_NEW, &fast));
        let unmeasured = Known {
            prefill_per_token: None,
            ..known(0)
        };
        assert!(!is_worth_saving(ALL_NEW, &unmeasured));
        assert!(!is_worth_loading(3000, 1, &unmeasured));
    }

    #[test]
    fn a_whole_file_is_not_written_for_a_few_new_tokens() {
        let few = Saving {
            tokens: 3000,
            new_tokens: 20,
        };
        assert!(!is_worth_saving(few, &known(3)));
    }

    #[test]
    fn a_slow_disk_ends_what_a_guess_began() {
        let mut slow = known(3);
        // 300 MB in a minute, read back in half of it.
        slow.disk.wrote(300_000_000, Duration::from_secs(60));
        slow.disk.read(300_000_000, Duration::from_secs(30));
        slow.size.told(300_000_000, 3000);
        assert!(!is_worth_saving(ALL_NEW, &slow));
        assert!(!is_worth_loading(3000, 300_000_000, &slow));
        slow.disk = DiskRates::default();
        assert!(is_worth_loading(3000, 300_000_000, &slow));
        assert_eq!(slow.size.expected(10), Some(1_000_000));
    }

    #[test]
    fn small_files_say_nothing_of_the_disk() {
        let mut rates = DiskRates::default();
        rates.wrote(4096, Duration::from_secs(1));
        assert_eq!(rates.written, None);
    }

    #[test]
    fn prefixes_that_never_come_back_are_not_written_any_more() {
        let mut known = known(1);
        assert_eq!(known.returns.get(), 0.5);
        assert!(is_worth_saving(ALL_NEW, &known));
        for _ in 0..20 {
            known.returns.one_is_lost();
        }
        assert!(!is_worth_saving(ALL_NEW, &known));
        // They are used in another way now.
        for _ in 0..60 {
            known.returns.one_is_lost();
            known.returns.one_is_back();
        }
        assert!(known.returns.get() > 0.5, "{}", known.returns.get());
        assert!(is_worth_saving(ALL_NEW, &known));
    }

    proptest! {
        #[test]
        fn what_pays_pays_also_where_more_is_gained_or_less_is_written(
            tokens in 1u32..20_000, new in 1u32..20_000, more in 0u32..20_000,
            prefill_us in 1u64..100_000, lost in 0u32..100, back in 0u32..100,
        ) {
            let mut known = known(0);
            known.prefill_per_token = Some(Duration::from_micros(prefill_us));
            for _ in 0..lost { known.returns.one_is_lost(); }
            for _ in 0..back.min(lost) { known.returns.one_is_back(); }
            prop_assert!((0.0..=1.0).contains(&known.returns.get()));
            let saving = Saving { tokens: tokens.max(new), new_tokens: new };
            let better = Saving { tokens: saving.tokens, new_tokens: new.saturating_add(more) };
            prop_assert!(!is_worth_saving(saving, &known) || is_worth_saving(better, &known));
            prop_assert!(!is_worth_loading(new, 1 << 20, &known)
                || is_worth_loading(new.saturating_add(more), 1 << 20, &known));
        }
    }
}
