//! What the name of a model's file says about it. Pure. Names are hints: the publisher of a file writes them
//! by hand, and the library's own lines at a load are the authority.

use std::path::Path;

use super::RemoteFile;
use crate::board::Soc;
use crate::reader::{ModelFile, ModelKind, kind_of};

/// Chips that names tell, and how: an RK3582 runs what an RK3588 runs.
const CHIPS: [(&str, &[Soc]); 7] = [
    ("rk3588", &[Soc::Rk3588, Soc::Rk3582]),
    ("rk3582", &[Soc::Rk3588, Soc::Rk3582]),
    ("rk3576", &[Soc::Rk3576]),
    ("rk3562", &[Soc::Rk3562]),
    ("rv1126b", &[Soc::Rv1126b]),
    ("rk3566", &[Soc::Rk356x]),
    ("rk3568", &[Soc::Rk356x]),
];
const BITS: [&str; 4] = ["w8a8", "w4a16", "w4a8", "w8a16"];

/// A version of the vendor's toolkit or library.
pub(super) type Version = (u32, u32, u32);

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Variant<'a> {
    pub file: &'a RemoteFile,
    pub kind: ModelKind,
    /// Whether it is but a part of a model.
    pub is_part: bool,
    /// Chips that it says it is for; none: it does not say.
    pub chips: Vec<&'static str>,
    /// Such as `w8a8_g128` or `q4_k_m`.
    pub quantisation: Option<String>,
    pub toolkit: Option<Version>,
    /// `opt-1`, as c01zaut's files have it.
    pub optimisation: u32,
    /// `hybrid-ratio-0.5`, in tenths.
    pub hybrid_tenths: u32,
}

impl<'a> Variant<'a> {
    /// `beside`: names that tell what the file's own does not, such as the revision's and the repository's.
    pub fn of(file: &'a RemoteFile, beside: &[&str]) -> Option<Self> {
        let path = Path::new(&file.path);
        let kind = kind_of(path)?;
        let stem = path.file_stem()?.to_str()?.to_lowercase();
        // What makes images into tokens is no model.
        if stem.starts_with("mmproj") || stem.contains("imatrix") {
            return None;
        }
        let beside = beside.iter().map(|name| name.to_lowercase());
        let names: Vec<String> = std::iter::once(stem.clone()).chain(beside).collect();
        let mut chips = names.iter().map(|name| chips_in(name));
        let quantisation = match kind {
            ModelKind::Rkllm => names.iter().find_map(|name| bits_in(name)),
            ModelKind::Gguf => weights_in(&stem),
        };
        let alone = ModelFile::group(&[path.file_name()?.to_str()?.to_owned()].into());
        Some(Self {
            file,
            kind,
            is_part: !matches!(&alone[..], [Ok(model)] if model.files.len() == 1),
            chips: chips.find(|found| !found.is_empty()).unwrap_or_default(),
            quantisation,
            toolkit: names.iter().find_map(|name| version_in(name)),
            optimisation: number_behind(&stem, "opt-").unwrap_or(0),
            hybrid_tenths: hybrid_in(&stem),
        })
    }

    /// Whether it may be meant by a word: by its quantisation, or by a part of its name.
    pub fn is_called(&self, word: &str) -> bool {
        self.has_quantisation(word) || {
            let word = word.to_lowercase();
            let path = self.file.path.to_lowercase();
            let is_end = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
            path.match_indices(&word).any(|(start, _)| {
                let before = path[..start].chars().next_back();
                is_end(before) && is_end(path[start + word.len()..].chars().next())
            })
        }
    }

    pub fn has_quantisation(&self, word: &str) -> bool {
        let word = word.to_lowercase().replace('-', "_");
        self.quantisation.as_deref() == Some(&*word)
    }

    pub fn is_for(&self, soc: Soc) -> bool {
        let mut known = CHIPS.iter().filter(|(name, _)| self.chips.contains(name));
        self.chips.is_empty() || known.any(|(_, socs)| socs.contains(&soc))
    }
}

fn chips_in(name: &str) -> Vec<&'static str> {
    let found = CHIPS.iter().filter(|(chip, _)| name.contains(chip));
    found.map(|(chip, _)| *chip).collect()
}

/// `w8a8`, and `_g128` behind it.
fn bits_in(name: &str) -> Option<String> {
    let (bits, at) = BITS
        .iter()
        .find_map(|bits| Some((bits, name.find(bits)? + bits.len())))?;
    let rest = &name[at..];
    let group = rest.strip_prefix("_g").or_else(|| rest.strip_prefix("-g"));
    let digits: String = group
        .unwrap_or_default()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    Some(match digits.is_empty() {
        true => (*bits).to_owned(),
        false => format!("{bits}_g{digits}"),
    })
}

/// `q4_k_m` and the like, as llama.cpp names them.
fn weights_in(stem: &str) -> Option<String> {
    let is_name = |word: &&str| {
        let rest = word.strip_prefix(['i', 't']).unwrap_or(word);
        let has_bits = rest
            .strip_prefix('q')
            .is_some_and(|bits| bits.starts_with(|c: char| c.is_ascii_digit()));
        has_bits || matches!(*word, "f16" | "bf16" | "f32" | "mxfp4")
    };
    let mut words = stem.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.rfind(is_name).map(str::to_owned)
}

/// A number of three parts that stands for itself.
pub(super) fn version_in(text: &str) -> Option<Version> {
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    text.split(|c: char| !is_number(c)).find_map(|word| {
        let mut parts = word.trim_matches('.').split('.');
        let mut next = || parts.next()?.parse::<u32>().ok();
        let found = (next()?, next()?, next()?);
        // The vendor's have begun with 1 so far.
        (parts.next().is_none() && found.0 == 1).then_some(found)
    })
}

fn number_behind(stem: &str, word: &str) -> Option<u32> {
    let (_, rest) = stem.split_once(word)?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn hybrid_in(stem: &str) -> u32 {
    let Some((_, rest)) = stem.split_once("hybrid-ratio-") else {
        return 0;
    };
    let digits: String = rest.chars().filter(char::is_ascii_digit).take(2).collect();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_chip_quantisation_and_toolkit() {
        for (path, beside, chips, quantisation, toolkit) in [
            (
                "Qwen2.5-3B-Instruct-rk3588-w8a8_g128-opt-1-hybrid-ratio-0.5.rkllm",
                &["Qwen2.5-3B-Instruct-RK3588-1.1.4"][..],
                &["rk3588"][..],
                Some("w8a8_g128"),
                Some((1, 1, 4)),
            ),
            (
                "qwen2.5-vl-3b-w8a8_level1_rk3588.rkllm",
                &[],
                &["rk3588"],
                Some("w8a8"),
                None,
            ),
            (
                "model.rkllm",
                &["w8a8_g512-toolkitv1.1.1", "x-rk3576"],
                &["rk3576"],
                Some("w8a8_g512"),
                Some((1, 1, 1)),
            ),
            (
                "Qwen3-4B.rkllm",
                &["Qwen3-4B-RKLLM-v1.2.3"],
                &[],
                None,
                Some((1, 2, 3)),
            ),
            (
                "gemma-rv1126b-w4a16-g64.rkllm",
                &[],
                &["rv1126b"],
                Some("w4a16_g64"),
                None,
            ),
            (
                "SmolLM2-135M-Instruct.Q4_1.gguf",
                &[],
                &[],
                Some("q4_1"),
                None,
            ),
            ("a/Qwen3-0.6B-IQ4_XS.gguf", &[], &[], Some("iq4_xs"), None),
            ("phi-BF16.gguf", &[], &[], Some("bf16"), None),
        ] {
            let file = RemoteFile {
                path: path.to_owned(),
                size: None,
                hash: None,
            };
            let found = Variant::of(&file, beside).unwrap_or_else(|| panic!("{path}"));
            assert_eq!(found.chips, chips, "{path}");
            assert_eq!(found.quantisation.as_deref(), quantisation, "{path}");
            assert_eq!(found.toolkit, toolkit, "{path}");
            assert!(!found.is_part, "{path}");
        }
    }

    #[test]
    fn not_every_file_is_a_model() {
        let of = |path: &str| {
            let file = RemoteFile {
                path: path.to_owned(),
                size: None,
                hash: None,
            };
            Variant::of(&file, &[]).map(|it| it.is_part)
        };
        assert_eq!(of("README.md"), None);
        assert_eq!(of("mmproj-model-f16.gguf"), None);
        assert_eq!(of("m-00001-of-00003.gguf"), Some(true));
        assert_eq!(of("m-00002-of-00003.gguf"), Some(true));
        assert_eq!(of("m.gguf"), Some(false));
    }

    #[test]
    fn a_word_is_a_whole_part_of_the_name() {
        let file = |path: &str| RemoteFile {
            path: path.to_owned(),
            size: None,
            hash: None,
        };
        let grouped = file("x-rk3588-w8a8_g128-opt-0.rkllm");
        let grouped = Variant::of(&grouped, &[]).unwrap();
        for (word, is_called) in [
            ("w8a8_g128", true),
            ("W8A8-G128", true),
            ("rk3588", true),
            ("opt-0", true),
            ("opt", true),
            ("rk35", false),
            ("g12", false),
        ] {
            assert_eq!(grouped.is_called(word), is_called, "{word}");
        }
        assert!(!grouped.has_quantisation("w8a8"));
    }
}
