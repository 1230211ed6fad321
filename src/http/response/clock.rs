//! The time as text: RFC 3339 with nanoseconds, in UTC. A stream asks for it with every
//! token, so all of it that a second leaves as it is, is written once a second.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, BytesMut};
use jiff::Timestamp;

/// `2026-11-29T15:04:05.`
const WHOLE_BYTES: usize = 20;
const NANOSECOND_DIGITS: usize = 9;

#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// Since the epoch.
    second: Option<u64>,
    whole: [u8; WHOLE_BYTES],
}

impl Clock {
    /// Writes what time it is.
    pub fn write_now(&mut self, buffer: &mut BytesMut) {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.write(since.as_secs(), since.subsec_nanos(), buffer);
    }

    fn write(&mut self, second: u64, nanoseconds: u32, buffer: &mut BytesMut) {
        if self.second != Some(second) {
            self.whole = whole(second);
            self.second = Some(second);
        }
        buffer.put_slice(&self.whole);
        let mut digits = [b'0'; NANOSECOND_DIGITS];
        let mut rest = nanoseconds;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        buffer.put_slice(&digits);
        buffer.put_u8(b'Z');
    }
}

/// The time now.
pub(crate) fn now() -> String {
    let mut buffer = BytesMut::new();
    Clock::default().write_now(&mut buffer);
    String::from_utf8_lossy(&buffer).into_owned()
}

/// The time after so long.
pub(crate) fn in_future(time: Duration) -> String {
    let then = SystemTime::now().checked_add(time);
    // Past what the clock can tell there is the last time of this form.
    let since = then.and_then(|then| then.duration_since(UNIX_EPOCH).ok());
    let since = since.unwrap_or(Duration::MAX);
    let mut buffer = BytesMut::new();
    Clock::default().write(since.as_secs(), since.subsec_nanos(), &mut buffer);
    String::from_utf8_lossy(&buffer).into_owned()
}

/// A second since the epoch, without a fraction.
pub(crate) fn at(second: u64) -> String {
    let whole = whole(second);
    format!("{}Z", String::from_utf8_lossy(&whole[..WHOLE_BYTES - 1]))
}

fn whole(second: u64) -> [u8; WHOLE_BYTES] {
    let second = i64::try_from(second).unwrap_or(i64::MAX);
    // Past the year 9999 there is no such form.
    let time = Timestamp::from_second(second).unwrap_or(Timestamp::MAX);
    let text = format!("{}.", time.strftime("%Y-%m-%dT%H:%M:%S"));
    let mut whole = *b"0000-00-00T00:00:00.";
    if text.len() == WHOLE_BYTES {
        whole.copy_from_slice(text.as_bytes());
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(clock: &mut Clock, second: u64, nanoseconds: u32) -> String {
        let mut buffer = BytesMut::new();
        clock.write(second, nanoseconds, &mut buffer);
        String::from_utf8(buffer.to_vec()).expect("a text")
    }

    #[test]
    fn every_time_has_all_its_digits() {
        let mut clock = Clock::default();
        for (second, nanoseconds, expected) in [
            (0, 0, "1970-01-01T00:00:00.000000000Z"),
            (1_700_000_000, 7, "2023-11-14T22:13:20.000000007Z"),
            (1_700_000_000, 999_999_999, "2023-11-14T22:13:20.999999999Z"),
            (1_700_000_001, 120_000_000, "2023-11-14T22:13:21.120000000Z"),
        ] {
            assert_eq!(written(&mut clock, second, nanoseconds), expected);
        }
        assert_eq!(at(1_700_000_000), "2023-11-14T22:13:20Z");
        assert!(at(u64::MAX).starts_with("9999-"));
    }

    #[test]
    fn it_is_now() {
        let now: Timestamp = now().parse().expect("a time");
        assert!((Timestamp::now().as_second() - now.as_second()).abs() < 60);
        let then: Timestamp = in_future(Duration::from_secs(3600)).parse().expect("one");
        assert!((then.as_second() - now.as_second() - 3600).abs() < 60);
        assert!(in_future(Duration::MAX).starts_with("9999-"));
    }
}
