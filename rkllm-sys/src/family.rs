//! Which ABI a release speaks. A version that is not in the table belongs to no family: guessing
//! the nearest one is how layouts get mixed up, so only the operator may do it.

use std::fmt;

/// Releases that share one ABI.
///
/// Ordered by age, so `family >= Family::V1_3_0` asks for per-run sampling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// 1.1.0 to 1.1.4. Recognised, never run.
    V1_1,
    /// 1.2.0. Recognised, never run.
    V1_2_0,
    /// 1.2.1b1, a beta. Recognised, never run.
    V1_2_1b1,
    /// 1.2.1, 1.2.2 and 1.2.3: sampling and max-new-tokens are fixed at init.
    V1_2_1,
    /// 1.3.0: sampling and max-new-tokens per run.
    V1_3_0,
    /// 1.3.1: as 1.3.0, with audio input.
    V1_3_1,
}

/// What to upgrade to, as an error message says it.
pub(crate) const UPGRADE_TO: &str = "1.3.1 (best), 1.2.3, 1.2.2 or 1.2.1";

impl Family {
    pub const ALL: [Family; 6] = [
        Family::V1_1,
        Family::V1_2_0,
        Family::V1_2_1b1,
        Family::V1_2_1,
        Family::V1_3_0,
        Family::V1_3_1,
    ];

    /// The releases known to speak this ABI.
    pub fn versions(self) -> &'static [&'static str] {
        match self {
            Family::V1_1 => &["1.1.0", "1.1.1", "1.1.2", "1.1.3", "1.1.4"],
            Family::V1_2_0 => &["1.2.0"],
            Family::V1_2_1b1 => &["1.2.1b1"],
            Family::V1_2_1 => &["1.2.1", "1.2.2", "1.2.3"],
            Family::V1_3_0 => &["1.3.0"],
            Family::V1_3_1 => &["1.3.1"],
        }
    }

    /// The family of a release, `None` for one that was not measured.
    pub fn of_version(version: &str) -> Option<Family> {
        Family::ALL
            .into_iter()
            .find(|family| family.versions().contains(&version))
    }

    /// The name used in settings and messages: the family's oldest release.
    pub fn name(self) -> &'static str {
        match self {
            Family::V1_1 => "1.1",
            Family::V1_2_0 => "1.2.0",
            Family::V1_2_1b1 => "1.2.1b1",
            Family::V1_2_1 => "1.2.1",
            Family::V1_3_0 => "1.3.0",
            Family::V1_3_1 => "1.3.1",
        }
    }

    /// The family a setting names: a family's [`name`](Family::name) or one of its releases.
    pub fn from_name(name: &str) -> Option<Family> {
        Family::ALL
            .into_iter()
            .find(|family| family.name() == name)
            .or_else(|| Family::of_version(name))
    }

    /// Whether a library of this family is run, or only recognised.
    pub fn is_run(self) -> bool {
        self >= Family::V1_2_1
    }

    /// Whether sampling and max-new-tokens can be set for each run.
    pub fn has_per_run_sampling(self) -> bool {
        self >= Family::V1_3_0
    }

    /// Whether the callback may answer "release the output buffer".
    pub fn has_release_buffer(self) -> bool {
        self >= Family::V1_3_0
    }

    /// Every function the family's headers declare.
    pub fn functions(self) -> &'static [&'static str] {
        use crate::abi;
        match self {
            Family::V1_1 => abi::v1_1::FUNCTIONS,
            Family::V1_2_0 => abi::v1_2_0::FUNCTIONS,
            Family::V1_2_1b1 => abi::v1_2_1b1::FUNCTIONS,
            Family::V1_2_1 => abi::v1_2_1::FUNCTIONS,
            Family::V1_3_0 => abi::v1_3_0::FUNCTIONS,
            Family::V1_3_1 => abi::v1_3_1::FUNCTIONS,
        }
    }

    /// Bytes that `rkllm_createDefaultParam` of this family may write.
    pub(crate) fn param_size(self) -> usize {
        use crate::abi;
        match self {
            Family::V1_1 => size_of::<abi::v1_1::RKLLMParam>(),
            Family::V1_2_0 => size_of::<abi::v1_2_0::RKLLMParam>(),
            Family::V1_2_1b1 => size_of::<abi::v1_2_1b1::RKLLMParam>(),
            Family::V1_2_1 => size_of::<abi::v1_2_1::RKLLMParam>(),
            Family::V1_3_0 => size_of::<abi::v1_3_0::RKLLMParam>(),
            Family::V1_3_1 => size_of::<abi::v1_3_1::RKLLMParam>(),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Whether a version that is in no family is one that came before all of them (1.0.x).
pub(crate) fn predates_all_families(version: &str) -> bool {
    let mut numbers = version
        .split('.')
        .map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) < (1, 1),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_has_one_family_and_a_stranger_none() {
        assert_eq!(Family::of_version("1.1.4"), Some(Family::V1_1));
        assert_eq!(Family::of_version("1.2.1b1"), Some(Family::V1_2_1b1));
        assert_eq!(Family::of_version("1.2.1"), Some(Family::V1_2_1));
        assert_eq!(Family::of_version("1.2.3"), Some(Family::V1_2_1));
        assert_eq!(Family::of_version("1.2.4"), None);
        assert_eq!(Family::of_version("1.3.1b1"), None);
        assert_eq!(Family::of_version("1.2"), None);
    }

    #[test]
    fn settings_may_name_a_family_by_any_of_its_releases() {
        assert_eq!(Family::from_name("1.1"), Some(Family::V1_1));
        assert_eq!(Family::from_name("1.2.2"), Some(Family::V1_2_1));
        assert_eq!(Family::from_name("1.3.1"), Some(Family::V1_3_1));
        assert_eq!(Family::from_name("latest"), None);
    }

    #[test]
    fn only_1_0_predates_the_families() {
        assert!(predates_all_families("1.0.1"));
        assert!(predates_all_families("0.9.6"));
        assert!(!predates_all_families("1.1.9"));
        assert!(!predates_all_families("9.9.9"));
        assert!(!predates_all_families("2.0.0"));
    }
}
