//! What prefixes of conversations may be set to.

use super::{Found, ZERO};
use crate::settings::Settings;

pub(super) fn check(settings: &Settings, found: &mut Found) {
    let prefixes = &settings.prefixes;
    let least = prefixes.least_tokens;
    found.range("prefixes.least-tokens", least, 1..=1 << 20);
    found.duration("prefixes.pinned-first", prefixes.pinned_first, ZERO);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_out_of_range_is_named() {
        let mut settings = Settings::default();
        settings.prefixes.pinned_first = Duration::MAX;
        settings.prefixes.least_tokens = 0;
        let mut found = Found::default();
        check(&settings, &mut found);
        assert_eq!(found.len(), 2);
        settings.prefixes.pinned_first = ZERO;
        settings.prefixes.least_tokens = 1;
        let mut found = Found::default();
        check(&settings, &mut found);
        assert_eq!(found.len(), 0);
    }
}
