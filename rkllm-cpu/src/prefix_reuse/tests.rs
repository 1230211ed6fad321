use super::*;

/// A memory that records positions and can be told what it is unable to do.
#[derive(Default)]
struct FakeMemory {
    positions: Vec<usize>,
    partial_removal: bool,
    shift: bool,
}

impl FakeMemory {
    fn able() -> Self {
        FakeMemory {
            positions: Vec::new(),
            partial_removal: true,
            shift: true,
        }
    }
}

impl Memory for FakeMemory {
    fn remove(&mut self, from: usize, to: Option<usize>) -> bool {
        if !self.partial_removal {
            return false;
        }
        self.positions
            .retain(|&position| position < from || to.is_some_and(|to| position >= to));
        true
    }
    fn move_down(&mut self, from: usize, by: usize) {
        for position in &mut self.positions {
            if *position >= from {
                *position -= by;
            }
        }
    }
    fn can_shift(&self) -> bool {
        self.shift
    }
    fn can_forget(&self) -> bool {
        self.partial_removal
    }
    fn clear(&mut self) {
        self.positions.clear();
    }
    fn begin(&self) -> usize {
        self.positions.iter().min().copied().unwrap_or(0)
    }
    fn end(&self) -> usize {
        self.positions.iter().max().map_or(0, |last| last + 1)
    }
}

fn cells(memory: FakeMemory, tokens: &[Token]) -> KvCells<FakeMemory> {
    let mut cells = KvCells::new(memory);
    cells.memory.positions = (0..tokens.len()).collect();
    cells.decoded(tokens);
    cells
}

fn holds(cells: &KvCells<FakeMemory>, tokens: &[Token]) {
    assert_eq!(cells.tokens(), tokens);
    let dense: Vec<usize> = (0..tokens.len()).collect();
    assert_eq!(cells.memory.positions, dense, "record and memory agree");
    assert_eq!(cells.published.load(Ordering::Relaxed), tokens.len());
}

#[test]
fn the_longest_common_prefix_is_kept() {
    let mut cells = cells(FakeMemory::able(), &[1, 2, 3, 4]);
    assert_eq!(cells.reuse_at_most(&[1, 2, 9, 9, 9], 4, Reused::All), 2);
    holds(&cells, &[1, 2]);
}

#[test]
fn what_is_wanted_anew_is_not_reused() {
    let mut same = cells(FakeMemory::able(), &[1, 2, 3]);
    assert_eq!(same.reuse_at_most(&[1, 2, 3], 2, Reused::All), 2);
    holds(&same, &[1, 2]);
    let mut single = cells(FakeMemory::able(), &[1]);
    assert_eq!(single.reuse_at_most(&[1], 0, Reused::All), 0);
    holds(&single, &[]);
}

#[test]
fn a_memory_that_cannot_forget_in_part_forgets_all() {
    let recurrent = FakeMemory::default();
    let mut cells = cells(recurrent, &[1, 2, 3]);
    assert_eq!(cells.reuse_at_most(&[1, 2, 9], 2, Reused::All), 0);
    holds(&cells, &[]);
}

#[test]
fn a_memory_that_cannot_forget_in_part_is_still_continued() {
    let mut cells = cells(FakeMemory::default(), &[1, 2, 3]);
    assert_eq!(cells.reuse_at_most(&[1, 2, 3, 4, 5], 4, Reused::All), 3);
    holds(&cells, &[1, 2, 3]);
}

#[test]
fn what_goes_on_behind_a_prompt_can_take_its_cells_as_they_are() {
    let prompt: Vec<Token> = (0..200).collect();
    let longer: Vec<Token> = (0..201).collect();
    let other: Vec<Token> = (0..150).chain(900..960).collect();
    // The same prompt is evaluated as it was, and so is one that parts from it.
    for (wanted, kind, kept) in [
        (&longer, Reused::All, 136),
        (&longer, Reused::AsTheyAre, 200),
        (&prompt, Reused::AsTheyAre, 136),
        (&other, Reused::AsTheyAre, 144),
    ] {
        let mut cells = KvCells::new(FakeMemory::able());
        cells.memory.positions = (0..200).collect();
        cells.read(&prompt, true);
        let most = wanted.len() - 1;
        assert_eq!(cells.reuse_at_most(wanted, most, kind), kept, "{kind:?}");
    }
}

#[test]
fn a_memory_that_cannot_forget_in_part_goes_on_where_another_begins_its_last_piece_again() {
    let prompt: Vec<Token> = (0..200).collect();
    for (memory, kept) in [(FakeMemory::able(), 136), (FakeMemory::default(), 200)] {
        let mut cells = KvCells::new(memory);
        cells.memory.positions = (0..200).collect();
        cells.read(&prompt, true);
        let longer: Vec<Token> = (0..201).collect();
        assert_eq!(cells.reuse_at_most(&longer, 200, Reused::All), kept);
    }
}

#[test]
fn a_run_that_repeats_takes_no_cells_that_were_drawn() {
    let prompt: Vec<Token> = (0..200).collect();
    let longer: Vec<Token> = (0..300).collect();
    for (partial_removal, kind, kept) in [
        (true, Reused::All, 230),
        (true, Reused::OfPrompts, 200),
        (false, Reused::All, 230),
        (false, Reused::OfPrompts, 0),
    ] {
        let mut cells = KvCells::new(FakeMemory {
            positions: (0..230).collect(),
            partial_removal,
            shift: false,
        });
        cells.read(&prompt, true);
        cells.decoded(&longer[200..230]);
        assert_eq!(cells.reuse_at_most(&longer, 299, kind), kept, "{kind:?}");
    }
}

#[test]
fn a_memory_that_lacks_the_beginning_is_continued_and_not_cut_short() {
    let prompt: Vec<Token> = (0..1900).collect();
    let mut other = prompt[..150].to_vec();
    other.extend([7; 50]);
    for kept in [200..1900, 0..0] {
        let mut shorter = cells(FakeMemory::able(), &prompt);
        shorter.memory.positions = kept.collect();
        assert_eq!(shorter.reuse_at_most(&other, 148, Reused::All), 0);
        holds(&shorter, &[]);
    }
    let mut longer = cells(FakeMemory::able(), &prompt);
    longer.memory.positions = (200..1900).collect();
    let more: Vec<Token> = (0..1950).collect();
    assert_eq!(longer.reuse_at_most(&more, 1900, Reused::All), 1900);
}

#[test]
fn a_cut_closes_its_gap() {
    let mut cut = cells(FakeMemory::able(), &[1, 2, 3, 4, 5]);
    assert!(cut.cut(1, 3));
    holds(&cut, &[1, 4, 5]);
    assert!(cut.shift_pending());
    cut.clear();
    assert!(cut.shift_pending(), "llama.cpp rotates all the same");
    cut.rotated();
    assert!(!cut.shift_pending());
    let mut at_end = cells(FakeMemory::able(), &[1, 2, 3]);
    assert!(at_end.cut(1, 3));
    holds(&at_end, &[1]);
    assert!(!at_end.shift_pending());
}

#[test]
fn a_cut_the_memory_cannot_do_changes_nothing() {
    let rigid = FakeMemory {
        partial_removal: true,
        ..FakeMemory::default()
    };
    let mut cells = cells(rigid, &[1, 2, 3]);
    assert!(!cells.cut(0, 2));
    holds(&cells, &[1, 2, 3]);
}

#[test]
fn an_aborted_decode_keeps_only_what_the_memory_holds() {
    let mut cells = cells(FakeMemory::able(), &[1, 2]);
    cells.memory.positions = vec![0, 1, 2, 3];
    assert_eq!(cells.decoded_in_part(&[7, 8, 9]), 2);
    holds(&cells, &[1, 2, 7, 8]);
}

#[test]
fn a_full_window_gives_up_half_of_what_may_go() {
    assert_eq!(discard_count(64, 4), 30);
    assert_eq!(discard_count(64, 63), 1);
    assert_eq!(discard_count(64, 64), 1);
}
