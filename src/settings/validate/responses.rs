//! What responses may be set to: kept ones, those in the background, and those on WebSockets.

use super::{Found, SHORTEST, ZERO};
use crate::settings::Settings;

pub(super) fn check(settings: &Settings, found: &mut Found) {
    let responses = &settings.responses;
    let most = responses.max_kept_per_key;
    found.range("responses.max-kept-per-key", most, 0..=65_536);
    let limit = responses.kept_limit_bytes;
    found.range("responses.kept-limit-bytes", limit, 4096..=1 << 30);
    found.duration("responses.kept-for", responses.kept_for, SHORTEST);
    let most = responses.max_background_per_key;
    found.range("responses.max-background-per-key", most, 0..=1024);
    let limit = responses.background_events_limit_bytes;
    found.range(
        "responses.background-events-limit-bytes",
        limit,
        4096..=1 << 30,
    );
    let kept_for = responses.background_events_kept_for;
    found.duration("responses.background-events-kept-for", kept_for, ZERO);
    let limit = responses.compacted_limit_bytes;
    found.range("responses.compacted-limit-bytes", limit, 1024..=16 << 20);
    let most = responses.max_streams_per_socket;
    found.range("responses.max-streams-per-socket", most, 0..=1024);
    let age = responses.max_socket_age;
    found.duration("responses.max-socket-age", age, SHORTEST);
    let deadline = settings.deadlines.background;
    found.duration("deadlines.background", deadline, SHORTEST);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_out_of_range_is_named() {
        let mut settings = Settings::default();
        settings.responses.max_background_per_key = 1025;
        settings.responses.background_events_limit_bytes = 4095;
        settings.responses.compacted_limit_bytes = 1023;
        settings.responses.max_streams_per_socket = 1025;
        settings.responses.max_socket_age = Duration::ZERO;
        settings.deadlines.background = Duration::ZERO;
        let mut found = Found::default();
        check(&settings, &mut found);
        let found = found.into_violations();
        let keys: Vec<&str> = found.iter().map(|violation| violation.key).collect();
        assert_eq!(
            keys,
            [
                "responses.max-background-per-key",
                "responses.background-events-limit-bytes",
                "responses.compacted-limit-bytes",
                "responses.max-streams-per-socket",
                "responses.max-socket-age",
                "deadlines.background",
            ]
        );
    }
}
