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
    /// What is computed with it, or was before, may round it otherwise.
    NotSurely,
}

impl Fingerprint {
    /// Of an answer that has gone on with another worker so often.
    pub fn text(&self, resumptions: u32) -> String {
        let more = match (self.repeats, resumptions) {
            (Repeats::Always, _) => "",
            (Repeats::NotSurely, 0) => "-varies",
            (Repeats::NotSurely, _) => "-resumed",
        };
        format!("fp_{}{more}", self.of)
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
        assert_eq!(of(Repeats::NotSurely, 0), "fp_ab12-varies");
        assert_eq!(of(Repeats::NotSurely, 1), "fp_ab12-resumed");
    }
}
