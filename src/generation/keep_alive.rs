use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// For how long a model stays loaded once it is not used any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum KeepAlive {
    For(Duration),
    /// Until another model needs its place.
    #[default]
    ForEver,
}

/// Until when it does; what is for ever is the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeptUntil {
    Time(Instant),
    ForEver,
}

impl KeepAlive {
    /// After a use that ends `now`.
    pub fn from(self, now: Instant) -> KeptUntil {
        match self {
            Self::ForEver => KeptUntil::ForEver,
            // Beyond what a clock can tell.
            Self::For(time) => now
                .checked_add(time)
                .map_or(KeptUntil::ForEver, KeptUntil::Time),
        }
    }
}

impl KeptUntil {
    pub fn is_over(self, now: Instant) -> bool {
        self <= Self::Time(now)
    }

    /// `None`: no time ends it.
    pub fn time(self) -> Option<Instant> {
        match self {
            Self::Time(time) => Some(time),
            Self::ForEver => None,
        }
    }
}

/// As settings write it: a duration such as `5m`, or nothing.
impl TryFrom<String> for KeepAlive {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::ForEver);
        }
        humantime::parse_duration(&text)
            .map(Self::For)
            .map_err(|error| format!("{text:?} is no duration such as \"5m\", nor empty: {error}"))
    }
}

impl From<KeepAlive> for String {
    fn from(keep_alive: KeepAlive) -> Self {
        match keep_alive {
            KeepAlive::ForEver => Self::new(),
            KeepAlive::For(time) => humantime::format_duration(time).to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_write_a_duration_or_nothing() {
        for (text, expected) in [
            ("", KeepAlive::ForEver),
            ("0s", KeepAlive::For(Duration::ZERO)),
            ("1h 30m", KeepAlive::For(Duration::from_secs(5400))),
        ] {
            let read = KeepAlive::try_from(text.to_owned());
            assert_eq!(read, Ok(expected), "{text}");
            let again = KeepAlive::try_from(String::from(expected));
            assert_eq!(again, Ok(expected), "{text}");
        }
        let error = KeepAlive::try_from("never".to_owned()).expect_err("no duration");
        assert!(error.starts_with("\"never\" is no duration"), "{error}");
    }

    #[test]
    fn no_duration_is_beyond_the_clock() {
        let now = Instant::now();
        let ever = KeepAlive::For(Duration::MAX).from(now);
        assert_eq!(ever, KeptUntil::ForEver);
        let at_once = KeepAlive::For(Duration::ZERO).from(now);
        assert!(at_once.is_over(now) && !ever.is_over(now) && at_once < ever);
    }
}
