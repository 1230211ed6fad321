use super::of_model::CROWDED_FOR;
use super::*;

const BOUNDS: Bounds = Bounds {
    files_bytes: 1000,
    daily_bytes: 10_000,
    least_tokens: 100,
};

const NONE: Vec<PrefixId> = Vec::new();

fn identity(file: &str) -> Identity {
    Identity {
        model: "m".into(),
        file: file.to_owned(),
        runtime: "r".to_owned(),
    }
}

fn owner(tenant: &str) -> Owner {
    Owner {
        tenant: tenant.to_owned(),
        client: 1,
        has_key: true,
    }
}

fn now(of: &Identity, at: Instant) -> Now<'_> {
    Now {
        of,
        prefill_per_token: Some(Duration::from_millis(10)),
        at,
        hour: 7,
    }
}

fn state(bounds: Bounds) -> State {
    State::new(bounds, Vec::new(), Daily::default())
}

/// A conversation's beginning that no other shares.
fn text(name: &str) -> String {
    (0..300).map(|n| format!("{name}{n} ")).collect()
}

/// `prompt` is given a slot that holds `held`, both of one tenant; what is ordered is done.
fn turn(state: &mut State, of: &Identity, held: &str, prompt: &str) -> (bool, bool) {
    let at = Instant::now();
    let held = (!held.is_empty()).then(|| Held {
        text: held,
        owner: owner(""),
    });
    let plan = state.plan(now(of, at), held, (prompt, &owner("")), true);
    let done = (plan.save.is_some(), plan.load.is_some());
    if let Some(order) = plan.save {
        state.saved(&order, 100, Duration::from_millis(1));
        state.wrote(100, 7);
    }
    if let Some(order) = plan.load {
        state.load_ended(&order, Some(Duration::from_millis(1)));
    }
    done
}

#[test]
fn what_a_slot_loses_is_written_and_read_when_it_comes_back() {
    let (mut state, of) = (state(BOUNDS), identity("f"));
    let (a, b) = (text("a"), text("b"));
    assert_eq!(turn(&mut state, &of, "", &a), (false, false));
    assert_eq!(turn(&mut state, &of, &a, &b), (true, false));
    assert_eq!(
        turn(&mut state, &of, &b, &(a.clone() + "more")),
        (true, true)
    );
    assert_eq!((state.files(), state.bytes()), (2, 200));
    // Nothing of it is new.
    assert_eq!(turn(&mut state, &of, &a, &b), (false, true));
    // A conversation that goes on in its slot needs neither.
    assert_eq!(
        turn(&mut state, &of, &b, &(b.clone() + "more")),
        (false, false)
    );
}

#[test]
fn a_longer_one_takes_the_place_of_its_beginning() {
    let (mut state, of) = (state(BOUNDS), identity("f"));
    let (a, b) = (text("a"), text("b"));
    turn(&mut state, &of, &a, &b);
    let longer = a.clone() + &text("c");
    assert_eq!(turn(&mut state, &of, &longer, &b), (true, false));
    assert_eq!(state.files(), 1);
}

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
fn what_is_larger_than_the_folder_may_be_is_not_kept_and_not_tried_again() {
    let (mut state, of) = (state(BOUNDS), identity("f"));
    let (a, b) = (text("a"), text("b"));
    let at = Instant::now();
    let held = || Held {
        text: &a,
        owner: owner(""),
    };
    let plan = state.plan(now(&of, at), Some(held()), (&b, &owner("")), true);
    let order = plan.save.expect("its size is not known");
    assert_eq!(
        state.saved(&order, 1001, Duration::from_millis(1)),
        [order.id]
    );
    assert_eq!((state.files(), state.bytes()), (0, 0));
    let plan = state.plan(now(&of, at), Some(held()), (&b, &owner("")), true);
    assert_eq!(plan.save, None);
}

#[test]
fn no_tenant_gets_what_is_anothers() {
    let (mut state, of) = (state(BOUNDS), identity("f"));
    let (a, at) = (text("a"), Instant::now());
    let held = Held {
        text: &a,
        owner: owner("one"),
    };
    // Although it asks for the same text, all of it is lost to the slot.
    let plan = state.plan(now(&of, at), Some(held), (&a, &owner("two")), true);
    let order = plan.save.expect("the other one loses it");
    assert_eq!(order.owner, owner("one"));
    state.saved(&order, 100, Duration::from_millis(1));
    let plan = state.plan(now(&of, at), None, (&a, &owner("two")), true);
    assert_eq!(plan.load, None);
    let plan = state.plan(now(&of, at), None, (&a, &owner("one")), true);
    assert!(plan.load.is_some());
}

#[test]
fn another_file_of_the_model_or_another_library_takes_none_of_them() {
    let (mut state, of) = (state(BOUNDS), identity("f"));
    let (a, b) = (text("a"), text("b"));
    turn(&mut state, &of, &a, &b);
    let other = identity("g");
    let plan = state.plan(now(&other, Instant::now()), None, (&a, &owner("")), true);
    assert_eq!(plan.load, None);
    assert_eq!((plan.stale.len(), state.files()), (1, 0));
}

/// A save that ends after its model or its key has gone leaves nothing.
#[test]
fn what_is_not_wanted_any_more_goes_and_does_not_come_late() {
    let (mut state, of) = (state(BOUNDS), identity("f"));
    let (a, b, at) = (text("a"), text("b"), Instant::now());
    let order = |state: &mut State| {
        let held = Held {
            text: &a,
            owner: owner(""),
        };
        let plan = state.plan(now(&of, at), Some(held), (&b, &owner("")), true);
        plan.save.expect("it is worth it")
    };
    let took = Duration::from_millis(1);
    let first = order(&mut state);
    assert_eq!(state.saved(&first, 100, took), NONE);
    let installed = |file: &str| vec![("m".into(), file.to_owned())];
    assert_eq!(state.set_installed(installed("f")), NONE);
    assert_eq!(state.set_keys([1, 2].into()), NONE);
    assert_eq!(state.set_keys([2].into()), [first.id]);
    let second = order(&mut state);
    assert_eq!(state.saved(&second, 100, took), [second.id]);
    state.set_keys([1].into());
    assert_eq!(state.set_installed(installed("g")), NONE);
    let third = order(&mut state);
    assert_eq!(state.saved(&third, 100, took), [third.id]);
    assert_eq!((state.files(), state.bytes()), (0, 0));
}

#[test]
fn an_answer_is_followed_by_a_save_while_slots_lose_prefixes() {
    let (mut state, of) = (state(BOUNDS), identity("f"));
    let (a, b, at) = (text("a"), text("b"), Instant::now());
    let held = Held {
        text: &b,
        owner: owner(""),
    };
    assert_eq!(state.after_answer(now(&of, at), &held), None, "never met");
    state.plan(now(&of, at), None, (&b, &owner("")), true);
    assert_eq!(
        state.after_answer(now(&of, at), &held),
        None,
        "nothing is lost"
    );
    turn(&mut state, &of, &a, &b);
    assert!(state.after_answer(now(&of, at), &held).is_some());
    let later = at + CROWDED_FOR + Duration::from_secs(60);
    assert_eq!(state.after_answer(now(&of, later), &held), None);
}

#[test]
fn two_failures_in_a_row_end_it_for_the_model_as_it_is() {
    let (mut state, of) = (state(BOUNDS), identity("f"));
    let (a, b) = (text("a"), text("b"));
    turn(&mut state, &of, "", &a);
    assert!(!state.failed(&of, false));
    state.succeeded(&of);
    assert!(!state.failed(&of, false));
    assert!(state.failed(&of, false));
    assert!(!state.failed(&of, false), "told once");
    assert_eq!(turn(&mut state, &of, &a, &b), (false, false));
    let new = identity("g");
    assert_eq!(turn(&mut state, &new, &a, &b), (true, false));
    assert!(
        state.failed(&new, true),
        "at once where there is no such function"
    );
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
fn short_prefixes_and_unmeasured_models_are_left_alone() {
    let (mut state, of) = (state(BOUNDS), identity("f"));
    assert_eq!(turn(&mut state, &of, "short", &text("b")), (false, false));
    let (a, b) = (text("a"), text("b"));
    let unmeasured = Now {
        prefill_per_token: None,
        ..now(&of, Instant::now())
    };
    let held = Held {
        text: &a,
        owner: owner(""),
    };
    let plan = state.plan(unmeasured, Some(held), (&b, &owner("")), true);
    assert_eq!((plan.save, plan.load), (None, None));
}
