//! What an answer was made with, for clients that compare answers of one seed.

use std::sync::Arc;

/// The same for answers that the same model, library and daemon have made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Hexadecimal digits.
    pub of: Arc<str>,
    pub repeats: Repeats,
}

/// Whether the same seed says the same again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// Also where another worker has made it once more.
    Always,
    /// What is computed with it, or was before, may round it otherwise: its worker makes so many answers
    /// at the same time, where that is known.
    NotSurely { slots: Option<u8> },
}

impl Fingerprint {
    /// Of an answer that has gone on with another worker so often.
    pub fn text(&self, resumptions: u32) -> String {
        let Repeats::NotSurely { slots } = self.repeats else {
            return format!("fp_{}", self.of);
        };
        let slots = slots.map(|slots| format!("-slots{slots}"));
        let how = match resumptions {
            0 => "varies",
            _ => "resumed",
        };
        format!("fp_{}{}-{how}", self.of, slots.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_vary_says_so() {
        let of = |repeats, resumptions| {
            let of = "ab12".into();
            Fingerprint { of, repeats }.text(resumptions)
        };
        assert_eq!(of(Repeats::Always, 2), "fp_ab12");
        let one = Repeats::NotSurely { slots: Some(1) };
        assert_eq!(of(one, 0), "fp_ab12-slots1-varies");
        assert_eq!(of(one, 1), "fp_ab12-slots1-resumed");
        let four = Repeats::NotSurely { slots: Some(4) };
        assert_eq!(of(four, 0), "fp_ab12-slots4-varies");
        let unknown = Repeats::NotSurely { slots: None };
        assert_eq!(of(unknown, 0), "fp_ab12-varies");
    }
}
