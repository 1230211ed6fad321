//! Repositories with models for these chips that others have published. None of them was tried on a board by this
//! project: each is listed because a public program names it as what it fetches, and that is told beside it.

use std::fmt;

use crate::board::Soc;

/// A repository on Hugging Face.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub repository: &'static str,
    /// That it has files for, as what fetches it or its name says.
    pub chips: &'static [Soc],
    /// What made them, likewise.
    pub toolkit: &'static str,
    /// A public repository on GitHub, and what in it names this one.
    pub told_by: &'static str,
}

const SEEED: &str = "Seeed-Projects/reComputer-RK-LLM, models/llm/";
const BOTH: &[Soc] = &[Soc::Rk3588, Soc::Rk3576];
const RK3588: &[Soc] = &[Soc::Rk3588];

pub const KNOWN: [Known; 7] = [
    Known {
        repository: "HanzoHuang/Qwen3-1.7B-RKLLM",
        chips: BOTH,
        toolkit: "1.2.3",
        told_by: SEEED,
    },
    Known {
        repository: "HanzoHuang/Qwen3-4B-RKLLM",
        chips: BOTH,
        toolkit: "1.2.3",
        told_by: SEEED,
    },
    Known {
        repository: "HanzoHuang/Qwen2.5-1.5B-Instruct-RKLLM",
        chips: BOTH,
        toolkit: "1.2.3",
        told_by: SEEED,
    },
    Known {
        repository: "HanzoHuang/Llama-3.2-1B-Instruct-RKLLM",
        chips: BOTH,
        toolkit: "1.3.0",
        told_by: SEEED,
    },
    Known {
        repository: "GatekeeperZA/Qwen3-1.7B-RKLLM-v1.2.3",
        chips: RK3588,
        toolkit: "1.2.3",
        told_by: "GatekeeperZA/RKLLM-API-Server, README.md",
    },
    Known {
        repository: "dulimov/Qwen3-4B-Instruct-2507-rk3588-1.2.2",
        chips: RK3588,
        toolkit: "1.2.2",
        told_by: "darkautism/llmserver-rs, assets/config/",
    },
    Known {
        repository: "thanhtantran/gemma-3-1b-it-rk3588-1.2.0",
        chips: RK3588,
        toolkit: "1.2.0",
        told_by: "darkautism/llmserver-rs, assets/config/",
    },
];

impl Known {
    fn is_for(&self, soc: Soc) -> bool {
        // An RK3582 runs what an RK3588 runs.
        let soc = match soc {
            Soc::Rk3582 => Soc::Rk3588,
            other => other,
        };
        self.chips.contains(&soc)
    }

    fn chips(&self) -> String {
        let names: Vec<&str> = self.chips.iter().map(|chip| chip.name()).collect();
        names.join(", ")
    }
}

/// Those for a board's chip, or all where it is none.
#[derive(Clone, Copy, Debug)]
pub struct KnownFor(pub Option<Soc>);

impl fmt::Display for KnownFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let board = self.0.filter(|soc| soc.runs_rkllm());
        let fitting: Vec<&Known> = KNOWN
            .iter()
            .filter(|it| board.is_none_or(|soc| it.is_for(soc)))
            .collect();
        if let (Some(soc), true) = (board, fitting.is_empty()) {
            return writeln!(
                f,
                "No repository with models for {} is known here.",
                soc.name()
            );
        }
        writeln!(
            f,
            "Published elsewhere, by others; never checked by us on a board. The last column is who fetches it."
        )?;
        for known in fitting {
            let Known {
                repository,
                toolkit,
                told_by,
                ..
            } = known;
            let chips = known.chips();
            writeln!(
                f,
                "{repository:<44} {chips:<15} toolkit {toolkit}  {told_by}"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Reference;

    #[test]
    fn each_is_a_name_that_can_be_pulled_and_is_in_the_document_with_its_source() {
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/pull.md");
        let document = std::fs::read_to_string(document).unwrap();
        for known in KNOWN {
            let reference = Reference::parse(known.repository).unwrap();
            assert_eq!(reference.repository(), known.repository);
            let row = format!(
                "| `{}` | {} | {} | {} |",
                known.repository,
                known.chips(),
                known.toolkit,
                known.told_by
            );
            assert!(document.contains(&row), "docs/pull.md lacks {row}");
        }
        let rows = document.lines().filter(|line| line.contains(" | 1."));
        assert_eq!(rows.count(), KNOWN.len());
    }

    #[test]
    fn a_board_is_told_of_those_for_its_chip_and_that_none_was_checked() {
        let count = |soc| KnownFor(soc).to_string().lines().count();
        assert_eq!(count(None), 1 + KNOWN.len());
        assert_eq!(count(Some(Soc::Rk3588)), 1 + KNOWN.len());
        assert_eq!(count(Some(Soc::Rk3582)), 1 + KNOWN.len());
        assert_eq!(count(Some(Soc::Rk3576)), 1 + 4);
        assert_eq!(count(Some(Soc::Rk356x)), 1 + KNOWN.len());
        let told = KnownFor(Some(Soc::Rk3576)).to_string();
        assert!(told.starts_with("Published elsewhere") && told.contains("never checked by us"));
        let none = KnownFor(Some(Soc::Rk3562)).to_string();
        assert_eq!(
            none,
            "No repository with models for RK3562 is known here.\n"
        );
    }
}
