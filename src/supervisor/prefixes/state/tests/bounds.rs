//! The folder's bound, and a day's.

use super::*;

#[test]
fn the_folder_stays_in_its_bound_and_a_day_in_its() {
    let bounds = Bounds {
        files_bytes: 250,
        daily_bytes: 510,
        ..BOUNDS
    };
    let (mut state, of) = (state(bounds), identity("f"));
    let mut written = 0;
    for name in ["a", "b", "c", "d", "e", "g", "h", "i"] {
        written += u32::from(turn(&mut state, &of, &text(name), &text("x")).0);
        assert!(state.bytes() <= 250, "{}", state.bytes());
    }
    assert_eq!(written, 5, "of a hundred bytes each");
}

#[test]
fn saves_that_are_under_way_together_keep_to_the_bounds() {
    let bounds = Bounds {
        files_bytes: 350,
        daily_bytes: 450,
        ..BOUNDS
    };
    let (mut state, of) = (state(bounds), identity("f"));
    let texts = ["a", "b", "c", "d", "e", "g"].map(text);
    let first = order(&mut state, &of, &texts[0]).expect("it is worth it");
    let too_early = order(&mut state, &of, &texts[1]);
    assert_eq!(too_early, None, "how large they are is not known");
    save(&mut state, &first, 100);
    let orders: Vec<_> = texts[1..]
        .iter()
        .filter_map(|text| order(&mut state, &of, text))
        .collect();
    assert_eq!(orders.len(), 3, "a day has room for these");
    for each in &orders {
        save(&mut state, each, 100);
        assert!(state.bytes() <= 350, "{}", state.bytes());
    }
    assert_eq!(order(&mut state, &of, &texts[5]), None, "the day is over");
}

#[test]
fn what_a_failed_save_has_written_counts_and_no_other_goes_for_it() {
    let bounds = Bounds {
        files_bytes: 250,
        daily_bytes: 600,
        ..BOUNDS
    };
    let (mut state, of) = (state(bounds), identity("f"));
    for name in ["a", "b"] {
        turn(&mut state, &of, &text(name), &text("x"));
    }
    assert_eq!(state.files(), 2);
    // There is no room for a third one.
    for _ in 0..3 {
        let failing = order(&mut state, &of, &text("c")).expect("a day has room");
        assert_eq!(state.files(), 2, "nothing goes before it is known to work");
        state.wrote(failing.id, 105, 7);
        state.save_ended(failing.id);
    }
    assert_eq!(state.files(), 2);
    assert_eq!(state.daily().bytes(7), 200 + 3 * 105);
    assert_eq!(order(&mut state, &of, &text("c")), None);
}
