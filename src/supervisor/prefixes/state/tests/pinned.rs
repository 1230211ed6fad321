//! What a model's owner has pinned.

use super::*;
use crate::supervisor::prefixes::record::AdapterIdentity;

fn installed(pinned: &[&str]) -> Vec<Installed> {
    vec![Installed {
        id: "m".into(),
        file: "f".to_owned(),
        shared: Vec::new(),
        pinned: pinned.iter().map(|text| Named::from(*text)).collect(),
        adapters: Vec::new(),
    }]
}

/// Before anything was measured.
fn unmeasured(of: &Identity) -> Now<'_> {
    Now {
        prefill_per_token: None,
        ..now(of, Instant::now())
    }
}

/// A state in which `rules` is pinned, and what says to write it.
fn ordered(of: &Identity, rules: &str) -> (State, SaveOrder) {
    let mut state = state(BOUNDS);
    state.set_installed(installed(&[rules]));
    let nobody = Owner::nobody();
    let plan = state.plan(unmeasured(of), None, turn_of(rules, &nobody));
    let order = plan.share.expect("it is not there");
    (state, order)
}

#[test]
fn it_is_written_once_and_read_whether_or_not_that_was_measured() {
    // Fewer tokens than are kept of conversations.
    let (of, rules) = (identity("f"), "You are a ship's cook.");
    let prompt = rules.to_owned() + " What is for dinner?";
    let (mut state, order) = ordered(&of, rules);
    assert_eq!((order.text.as_str(), order.owner.is_shared), (rules, true));
    assert_eq!(save(&mut state, &order, 100), NONE);
    assert!(state.has_shared(&of, Marked::new(rules).marks()));
    for tenant in ["upstairs", "downstairs"] {
        let own = owner(tenant);
        let plan = state.plan(unmeasured(&of), None, turn_of(&prompt, &own));
        assert_eq!((plan.share, plan.save), (None, None));
        let load = plan.load.expect("it is every key's");
        assert_eq!(load.id, order.id);
        state.load_ended(&load, None);
        // A slot that holds it asks for nothing, and loses nothing with it.
        let held = || Held {
            of: of.clone(),
            text: Text::from(rules),
            owner: Owner::all(),
        };
        let plan = state.plan(unmeasured(&of), Some(held()), turn_of(&prompt, &own));
        assert_eq!((plan.load, plan.share, plan.save), (None, None, None));
        let other = text("a");
        let plan = state.plan(unmeasured(&of), Some(held()), turn_of(&other, &own));
        assert_eq!((plan.load, plan.share, plan.save), (None, None, None));
    }
}

#[test]
fn no_conversation_takes_its_room_and_it_goes_when_it_is_pinned_no_more() {
    let (of, rules) = (identity("f"), text("rules"));
    let (mut state, pinned) = ordered(&of, &rules);
    assert_eq!(save(&mut state, &pinned, 600), NONE);
    // Conversations push each other out of what is left of the bound.
    for (held, next) in [("a", "b"), ("b", "c"), ("c", "d"), ("d", "e")] {
        turn(&mut state, &of, &text(held), &text(next));
        assert!(state.has_shared(&of, Marked::new(&rules).marks()), "{held}");
        assert!(state.bytes() <= BOUNDS.files_bytes);
    }
    assert!(state.files() > 1);
    let going = state.set_installed(installed(&[]));
    assert_eq!(going, [pinned.id]);
}

#[test]
fn another_file_of_the_model_takes_it_away() {
    let (of, rules) = (identity("f|1"), text("rules"));
    let (mut state, order) = ordered(&of, &rules);
    save(&mut state, &order, 100);
    // As the worker has opened it.
    let (changed, nobody) = (identity("f|2"), Owner::nobody());
    let plan = state.plan(unmeasured(&changed), None, turn_of(&rules, &nobody));
    assert_eq!(plan.stale, [order.id]);
    assert_eq!(plan.load, None);
    assert!(plan.share.is_some(), "it is built again");
}

/// At a start with a lower bound.
#[test]
fn a_bound_that_has_no_room_for_it_is_kept_to() {
    let (mut state, order) = ordered(&identity("f"), &text("rules"));
    save(&mut state, &order, 600);
    state.bounds.files_bytes = 500;
    assert_eq!(state.trim(), [order.id]);
}

/// At a start it is not told yet what is pinned.
#[test]
fn what_may_be_pinned_goes_behind_conversations_where_a_bound_was_lowered() {
    let (_, pinned) = ordered(&identity("f"), &text("rules"));
    let conversation = SaveOrder {
        owner: owner("a"),
        text: text("b"),
        marks: Marked::new(&text("b")).marks().clone(),
        ..pinned.clone()
    };
    let records = vec![
        (1, record_of(&pinned, file(100))),
        (2, record_of(&conversation, file(100))),
    ];
    let bounds = Bounds {
        files_bytes: 150,
        ..BOUNDS
    };
    let mut state = State::new(bounds, records, Daily::default());
    assert_eq!(state.trim(), [2]);
}

#[test]
fn another_models_that_is_being_written_keeps_it_from_nothing() {
    let (mut state, of) = (state(BOUNDS), identity("f"));
    let other = Identity {
        model: "n".into(),
        ..of.clone()
    };
    let rules = text("rules");
    let models = installed(&[&rules]).into_iter().flat_map(|model| {
        let id = other.model.clone();
        [
            Installed {
                id,
                ..model.clone()
            },
            model,
        ]
    });
    state.set_installed(models.collect());
    let nobody = Owner::nobody();
    for of in [&of, &other] {
        let plan = state.plan(unmeasured(of), None, turn_of(&rules, &nobody));
        assert!(plan.share.is_some(), "{}", &*of.model);
        let again = state.plan(unmeasured(of), None, turn_of(&rules, &nobody));
        assert_eq!(again.share, None, "{}", &*of.model);
    }
}

#[test]
fn what_ends_workers_in_a_row_is_left_alone_also_where_others_go_well() {
    let (mut state, of) = (state(BOUNDS), identity("f"));
    state.set_installed(installed(&["deadly", "good"]));
    state.meet(&of);
    let lose = |state: &mut State| {
        state.failed(&of, Fault::Own);
        let is_left_alone = state.is_lost_pinning(&of, "deadly");
        state.succeeded(&of);
        state.is_pinned(&of, "good");
        is_left_alone
    };
    assert!(!lose(&mut state), "once is none too many");
    assert!(lose(&mut state));
    assert!(!state.may_pin(&of, "deadly") && state.may_pin(&of, "good"));
    assert!(
        state.may_pin(&identity("g"), "deadly"),
        "of another file nothing is known"
    );
    state.set_installed(installed(&["deadly", "good"]));
    assert!(state.may_pin(&of, "deadly"), "it is tried after a reload");
}

#[test]
fn what_an_adapter_computes_of_it_is_not_pinned() {
    let (mut state, of) = (state(BOUNDS), identity("f"));
    let tone = AdapterIdentity {
        name: "tone".to_owned(),
        stamp: "1".to_owned(),
    };
    let with_adapter = Identity {
        adapter: Some(tone.clone()),
        ..of.clone()
    };
    let rules = text("rules");
    let models = installed(&[&rules]).into_iter().map(|model| Installed {
        adapters: vec![tone.clone()],
        ..model
    });
    state.set_installed(models.collect());
    let own = owner("a");
    let plan = state.plan(unmeasured(&with_adapter), None, turn_of(&rules, &own));
    assert_eq!(plan.share, None, "it is not known to pay");
    let measured = now(&with_adapter, Instant::now());
    let plan = state.plan(measured, None, turn_of(&rules, &own));
    let order = plan.share.expect("it pays");
    save(&mut state, &order, 100);
    assert!(!state.index.stays(order.id));
    let plan = state.plan(unmeasured(&of), None, turn_of(&rules, &own));
    let order = plan.share.expect("without one it is pinned");
    save(&mut state, &order, 100);
    assert!(state.index.stays(order.id));
}
