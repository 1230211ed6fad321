//! Permissions of a file as people write them: octal digits in a string.

use std::fmt;
use std::str::FromStr;

use super::as_text::as_text;

/// The nine permission bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(u32);

impl FileMode {
    /// Of `bits` the nine that are permissions.
    pub const fn new(bits: u32) -> Self {
        Self(bits & 0o777)
    }

    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl FromStr for FileMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let octal = (3..=4).contains(&text.len()) && text.bytes().all(|c| matches!(c, b'0'..=b'7'));
        match u32::from_str_radix(text, 8) {
            Ok(bits @ 0..=0o777) if octal => Ok(Self(bits)),
            _ => Err(format!(
                "`{text}` is no permissions; \"0660\" lets the owner and the group in, for example"
            )),
        }
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

as_text!(FileMode);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_digits_and_nothing_else() {
        for (text, bits) in [("0660", 0o660), ("600", 0o600), ("0777", 0o777), ("000", 0)] {
            assert_eq!(text.parse(), Ok(FileMode(bits)));
        }
        for wrong in ["", "66", "0o660", "+660", "1777", "00660", "0680", "rw-"] {
            assert!(wrong.parse::<FileMode>().is_err(), "{wrong}");
        }
        assert_eq!(FileMode(0o60).to_string(), "0060");
    }
}
