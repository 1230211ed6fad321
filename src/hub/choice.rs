//! Which file of a repository suits a machine, or why none does. Pure.
//!
//! The chip and the version of the library rule files out, and so does memory; of the others the chip's own
//! quantisation comes first. Which files there are is told with each refusal.

use std::cmp::Reverse;
use std::fmt::Write as _;

use super::variant::{Variant, Version, version_in};
use super::{Board, Listing, PullError, Reference, RemoteFile, Selection};
use crate::board::Soc;
use crate::printable::printable;
use crate::reader::ModelKind;

/// Files that a refusal lists.
const MOST_OFFERS: usize = 24;
/// Libraries from here on may find files of older toolkits too old; some do load.
const OLD_BEFORE: Version = (1, 2, 0);

/// What the NPU of a chip runs, the fastest first (docs/vendor-library.md §5).
fn quantisations(soc: Soc) -> &'static [&'static str] {
    match soc {
        Soc::Rk3588 | Soc::Rk3582 => &["w8a8", "w8a8_g512", "w8a8_g256", "w8a8_g128"],
        Soc::Rk3576 | Soc::Rv1126b => &["w4a16", "w4a16_g128", "w4a16_g64", "w4a16_g32", "w8a8"],
        Soc::Rk3562 => &[
            "w8a8",
            "w4a16_g128",
            "w4a16_g64",
            "w4a16_g32",
            "w4a16",
            "w4a8_g32",
        ],
        Soc::Rk356x | Soc::Unknown => &[],
    }
}

/// What the CPU runs, the best for a board first.
const WEIGHTS: [&str; 9] = [
    "q4_k_m", "q4_0", "q4_1", "q4_k_s", "iq4_xs", "q5_k_m", "q6_k", "q8_0", "q3_k_m",
];

/// The file that is meant.
///
/// # Errors
///
/// None is, or none that is suits the machine; unless `force` takes what was named.
pub fn choose<'a>(
    reference: &Reference,
    listing: &'a Listing,
    board: &Board,
    force: bool,
) -> Result<&'a RemoteFile, PullError> {
    let beside = [&*reference.revision, &*reference.name];
    let files = listing.files.iter();
    let all: Vec<Variant<'a>> = files
        .filter_map(|file| Variant::of(file, &beside))
        .collect();
    let refuse = |reason: String| PullError::NoChoice {
        reason,
        offers: offers(&all, board),
    };
    let repository = reference.repository();
    if all.is_empty() {
        return Err(refuse(format!(
            "{repository} has no .rkllm and no .gguf file at {}",
            reference.revision
        )));
    }
    let meant: Vec<&Variant<'a>> = match &reference.selection {
        Selection::Best => all.iter().collect(),
        Selection::File(path) => all.iter().filter(|it| is_file(it.file, path)).collect(),
        Selection::Variant(word) => {
            let exact: Vec<_> = all.iter().filter(|it| it.has_quantisation(word)).collect();
            match exact.is_empty() {
                false => exact,
                true => all.iter().filter(|it| it.is_called(word)).collect(),
            }
        }
    };
    let what = match &reference.selection {
        Selection::Best => None,
        Selection::File(word) | Selection::Variant(word) => Some(printable(word)),
    };
    if meant.is_empty() {
        let what = what.unwrap_or_default();
        return Err(refuse(format!("{repository} has no model `{what}`")));
    }
    let fitting = meant.iter().filter(|it| unsuitable(it, board).is_none());
    if let Some(best) = fitting.min_by_key(|it| rank(it, board)) {
        return Ok(best.file);
    }
    // A part alone is never whole, whatever is wished.
    if let [only] = whole_of(&meant)[..]
        && force
    {
        return Ok(only.file);
    }
    Err(refuse(match (&meant[..], what) {
        ([only], Some(_)) => {
            let why = unsuitable(only, board).unwrap_or_default();
            format!("`{}` of {repository} {why}", printable(&only.file.path))
        }
        (_, Some(what)) => format!("no model `{what}` of {repository} suits this machine"),
        (_, None) => format!("no model of {repository} suits this machine"),
    }))
}

/// Why a model's file cannot serve on a board, as its name tells, or else those `beside` it, such as its
/// repository's. `None`: nothing that is told speaks against it.
pub fn unsuited_by_name(name: &str, beside: &[&str], board: &Board) -> Option<String> {
    let file = RemoteFile {
        path: name.to_owned(),
        size: None,
        hash: None,
    };
    unsuitable(&Variant::of(&file, beside)?, board)
}

/// Those that are whole models.
fn whole_of<'v, 'a>(meant: &[&'v Variant<'a>]) -> Vec<&'v Variant<'a>> {
    let whole = meant.iter().filter(|it| !it.is_part);
    whole.copied().collect()
}

fn is_file(file: &RemoteFile, path: &str) -> bool {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    file.path == path || name.eq_ignore_ascii_case(path)
}

/// Why it cannot serve here, as its name and size tell.
fn unsuitable(variant: &Variant<'_>, board: &Board) -> Option<String> {
    if variant.is_part {
        return Some("is a part of a model, and models in parts are not pulled".to_owned());
    }
    if variant.kind == ModelKind::Rkllm {
        let Some(soc) = board.soc.filter(|_| board.has_npu()) else {
            return Some(
                "needs an NPU that the vendor's library serves, and there is none".to_owned(),
            );
        };
        if !variant.is_for(soc) {
            let chips = variant.chips.join(" and ").to_uppercase();
            return Some(format!("is for {chips}, and this board has {}", soc.name()));
        }
        let known = quantisations(soc);
        if let Some(found) = &variant.quantisation
            && !known.contains(&&**found)
        {
            return Some(format!("is {found}, which {} does not run", soc.name()));
        }
        let runtime = board.runtime.as_deref();
        if let (Some(toolkit), Some(library)) = (variant.toolkit, runtime.and_then(version_in))
            && toolkit > library
        {
            return Some(format!(
                "was made by toolkit {}, which is newer than the library, {}",
                shown(toolkit),
                shown(library)
            ));
        }
    }
    let (size, memory) = (variant.file.size?, board.memory_bytes?);
    (size > memory).then(|| {
        format!(
            "has {} MiB, and a model may take {} MiB here",
            size >> 20,
            memory >> 20
        )
    })
}

/// The less the better.
fn rank<'a>(variant: &Variant<'a>, board: &Board) -> impl Ord + use<'a> {
    let position = |known: &[&str]| {
        let name = variant.quantisation.as_deref();
        let found = known.iter().position(|it| Some(*it) == name);
        found.unwrap_or(known.len())
    };
    let preference = match variant.kind {
        ModelKind::Rkllm => position(board.soc.map_or(&[][..], quantisations)),
        ModelKind::Gguf => position(&WEIGHTS),
    };
    (
        variant.kind != ModelKind::Rkllm,
        variant.toolkit.is_some_and(|toolkit| toolkit < OLD_BEFORE),
        variant.chips.is_empty(),
        preference,
        Reverse(variant.toolkit),
        Reverse(variant.optimisation),
        variant.hybrid_tenths,
        &*variant.file.path,
    )
}

/// What there is, and why it does not suit.
fn offers(all: &[Variant<'_>], board: &Board) -> String {
    let mut text = String::new();
    for variant in all.iter().take(MOST_OFFERS) {
        let path = printable(&variant.file.path);
        let why =
            unsuitable(variant, board).unwrap_or_else(|| "would suit this machine".to_owned());
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  {path} {why}");
    }
    if let Some(more) = all.len().checked_sub(MOST_OFFERS).filter(|more| *more > 0) {
        let _ = write!(text, "\n  and {more} more");
    }
    text
}

fn shown((major, minor, patch): Version) -> String {
    format!("{major}.{minor}.{patch}")
}

#[cfg(test)]
mod tests;
