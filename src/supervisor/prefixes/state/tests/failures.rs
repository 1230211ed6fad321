//! Saves, files and disks that fail.

use super::*;

#[test]
fn two_failures_in_a_row_end_it_for_the_model_as_it_is() {
    let (mut state, of) = (state(BOUNDS), identity("f"));
    let (a, b) = (text("a"), text("b"));
    turn(&mut state, &of, "", &a);
    assert!(!state.failed(&of, Fault::Own));
    state.succeeded(&of);
    assert!(!state.failed(&of, Fault::Own));
    assert!(state.failed(&of, Fault::Own));
    assert!(!state.failed(&of, Fault::Own), "told once");
    assert_eq!(turn(&mut state, &of, &a, &b), (false, false));
    let new = identity("g");
    assert_eq!(turn(&mut state, &new, &a, &b), (true, false));
    assert!(
        state.failed(&new, Fault::ForGood),
        "at once where there is no such function"
    );
}

#[test]
fn a_file_with_less_for_each_token_than_others_was_cut_short() {
    let (mut state, of) = (state(BOUNDS), identity("f"));
    let written = |cell_bytes| WholeCache {
        bytes: 100,
        cell_bytes: Some(cell_bytes),
    };
    let took = Duration::from_millis(1);
    let mut kept = |name: &str, cell_bytes| {
        let order = order(&mut state, &of, &text(name)).expect("it is worth it");
        state.wrote(order.id, 100, 7);
        let going = state.whole(&order, written(cell_bytes));
        if going.is_ok() {
            state.saved(&order, &Marked::new(&order.text), written(cell_bytes), took);
        }
        state.save_ended(order.id);
        (order.id, going)
    };
    let (first, going) = kept("a", 64);
    assert_eq!(going, Ok(NONE));
    let cut = NotKept::CutShort { cell_bytes: 64 };
    assert_eq!(kept("b", 32).1, Err(cut));
    // Then it was the first one.
    assert_eq!(kept("c", 96).1, Ok(vec![first]));
    assert_eq!(state.files(), 1);
}

#[test]
fn nothing_is_written_while_the_disk_is_left_alone() {
    let (mut state, of) = (state(BOUNDS), identity("f"));
    let (a, b) = (text("a"), text("b"));
    let minute = Duration::from_secs(60);
    assert!(state.rest(Instant::now(), minute));
    assert!(!state.rest(Instant::now(), minute));
    assert_eq!(turn(&mut state, &of, &a, &b), (false, false));
}

#[test]
fn nothing_is_read_from_a_disk_that_does_not_answer() {
    let (mut state, of) = (state(BOUNDS), identity("f"));
    let (a, b) = (text("a"), text("b"));
    turn(&mut state, &of, &a, &b);
    let more = a.clone() + "more";
    state.rest(Instant::now(), Duration::from_secs(60));
    assert_eq!(turn(&mut state, &of, "", &more), (false, true));
    state.leave_unread(Instant::now(), Duration::from_secs(60));
    assert_eq!(turn(&mut state, &of, "", &more), (false, false));
}
