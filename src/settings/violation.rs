//! What is wrong with settings, and the checks of one value that several groups of them share.

use std::collections::HashSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

/// Any wait longer than this is a typing error, and far larger ones overflow clock arithmetic.
pub(super) const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
pub(super) const ZERO: Duration = Duration::ZERO;
pub(super) const SHORTEST: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
/// Bytes a second.
pub(super) const RATES: RangeInclusive<u32> = 1..=1 << 30;

/// A value that no daemon could run with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub key: &'static str,
    pub reason: String,
    /// The key that the allowed values depend on, which is to blame where this one was not set.
    pub depends_on: Option<&'static str>,
}

/// The violations that were found so far.
#[derive(Default)]
pub(super) struct Found(Vec<Violation>);

impl Found {
    pub fn push(&mut self, key: &'static str, reason: impl Into<String>) {
        self.0.push(Violation {
            key,
            reason: reason.into(),
            depends_on: None,
        });
    }

    /// What was pushed since there were `before` goes by `other`, too.
    pub fn depending_on(&mut self, other: &'static str, before: usize) {
        for violation in &mut self.0[before..] {
            violation.depends_on = Some(other);
        }
    }

    pub fn range<T: PartialOrd + Display>(
        &mut self,
        key: &'static str,
        value: T,
        range: RangeInclusive<T>,
    ) {
        if !range.contains(&value) {
            let (low, high) = range.into_inner();
            self.push(key, format!("{value} is not between {low} and {high}"));
        }
    }

    pub fn path(&mut self, key: &'static str, path: &Path) {
        if path.as_os_str().is_empty() {
            self.push(key, "must not be empty");
        }
    }

    pub fn repeated<T: Eq + std::hash::Hash + Display>(&mut self, key: &'static str, values: &[T]) {
        let mut seen = HashSet::new();
        if let Some(twice) = values.iter().find(|value| !seen.insert(*value)) {
            self.push(key, format!("names {twice} twice"));
        }
    }

    /// A wait of at least `shortest`.
    pub fn duration(&mut self, key: &'static str, value: Duration, shortest: Duration) {
        if value < shortest || value > LONGEST {
            self.push(
                key,
                format!(
                    "{} is not between {} and {}",
                    humantime::format_duration(value),
                    humantime::format_duration(shortest),
                    humantime::format_duration(LONGEST),
                ),
            );
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn into_violations(self) -> Vec<Violation> {
        self.0
    }
}
