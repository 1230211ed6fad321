mod adapters;
mod bounds;
mod failures;
mod pinned;

use super::of_model::CROWDED_FOR;
use super::*;
use crate::supervisor::handle::WholeCache;
use crate::supervisor::prefixes::marks::Text;

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
        adapter: None,
    }
}

fn owner(tenant: &str) -> Owner {
    Owner {
        tenant: tenant.to_owned(),
        client: 1,
        has_key: true,
        is_shared: false,
    }
}

fn now(of: &Identity, at: Instant) -> Now<'_> {
    Now {
        of,
        prefill_per_token: Some(Duration::from_millis(10)),
        at,
        hour: 7,
        is_alone: true,
    }
}

fn state(bounds: Bounds) -> State {
    State::new(bounds, Vec::new(), Daily::default())
}

/// A conversation's beginning that no other shares.
fn text(name: &str) -> String {
    (0..300).map(|n| format!("{name}{n} ")).collect()
}

fn file(bytes: u64) -> WholeCache {
    WholeCache {
        bytes,
        cell_bytes: None,
    }
}

fn turn_of<'a>(prompt: &'a str, owner: &'a Owner) -> Turn<'a> {
    Turn {
        prompt: Text::from(prompt),
        owner,
        can_load: true,
    }
}

/// Carries a save out. Returns what goes for it.
fn save(state: &mut State, order: &SaveOrder, bytes: u64) -> Vec<PrefixId> {
    state.wrote(order.id, bytes, 7);
    let mut going = match state.whole(order, file(bytes)) {
        Ok(going) => going,
        Err(_) => vec![order.id],
    };
    if !going.contains(&order.id) {
        going.extend(state.saved(
            order,
            &Marked::new(&order.text),
            file(bytes),
            Duration::from_millis(1),
        ));
    }
    state.save_ended(order.id);
    going
}

/// `prompt` is given a slot that holds `held`, both of one tenant; what is ordered is done.
fn turn(state: &mut State, of: &Identity, held: &str, prompt: &str) -> (bool, bool) {
    let at = Instant::now();
    let held = (!held.is_empty()).then(|| Held {
        of: of.clone(),
        text: Text::from(held),
        owner: owner(""),
    });
    let plan = state.plan(now(of, at), held, turn_of(prompt, &owner("")));
    let done = (plan.save.is_some(), plan.load.is_some());
    if let Some(order) = plan.save {
        save(state, &order, 100);
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
fn what_is_larger_than_the_folder_may_be_is_not_kept_and_not_tried_again() {
    let (mut state, of) = (state(BOUNDS), identity("f"));
    let (a, b) = (text("a"), text("b"));
    let at = Instant::now();
    let held = || Held {
        of: of.clone(),
        text: Text::from(&a[..]),
        owner: owner(""),
    };
    let plan = state.plan(now(&of, at), Some(held()), turn_of(&b, &owner("")));
    let order = plan.save.expect("its size is not known");
    assert_eq!(save(&mut state, &order, 1001), [order.id]);
    assert_eq!((state.files(), state.bytes()), (0, 0));
    let plan = state.plan(now(&of, at), Some(held()), turn_of(&b, &owner("")));
    assert_eq!(plan.save, None);
}

#[test]
fn no_tenant_gets_what_is_anothers() {
    let (mut state, of) = (state(BOUNDS), identity("f"));
    let (a, at) = (text("a"), Instant::now());
    let held = Held {
        of: of.clone(),
        text: Text::from(&a[..]),
        owner: owner("one"),
    };
    // Although it asks for the same text, all of it is lost to the slot.
    let plan = state.plan(now(&of, at), Some(held), turn_of(&a, &owner("two")));
    let order = plan.save.expect("the other one loses it");
    assert_eq!(order.owner, owner("one"));
    save(&mut state, &order, 100);
    let plan = state.plan(now(&of, at), None, turn_of(&a, &owner("two")));
    assert_eq!(plan.load, None);
    let plan = state.plan(now(&of, at), None, turn_of(&a, &owner("one")));
    assert!(plan.load.is_some());
}

#[test]
fn another_file_of_the_model_or_another_library_takes_none_of_them() {
    let (mut state, of) = (state(BOUNDS), identity("f"));
    let (a, b) = (text("a"), text("b"));
    turn(&mut state, &of, &a, &b);
    let other = identity("g");
    let plan = state.plan(now(&other, Instant::now()), None, turn_of(&a, &owner("")));
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
            of: of.clone(),
            text: Text::from(&a[..]),
            owner: owner(""),
        };
        let plan = state.plan(now(&of, at), Some(held), turn_of(&b, &owner("")));
        plan.save.expect("it is worth it")
    };
    let first = order(&mut state);
    assert_eq!(save(&mut state, &first, 100), NONE);
    let installed = |file: &str| {
        vec![Installed {
            id: "m".into(),
            file: file.to_owned(),
            shared: Vec::new(),
            pinned: Vec::new(),
            adapters: Vec::new(),
        }]
    };
    assert_eq!(state.set_installed(installed("f")), NONE);
    assert_eq!(state.set_keys([1, 2].into()), NONE);
    assert_eq!(state.set_keys([2].into()), [first.id]);
    let second = order(&mut state);
    assert_eq!(save(&mut state, &second, 100), [second.id]);
    state.set_keys([1].into());
    assert_eq!(state.set_installed(installed("g")), NONE);
    let third = order(&mut state);
    assert_eq!(save(&mut state, &third, 100), [third.id]);
    assert_eq!((state.files(), state.bytes()), (0, 0));
}

#[test]
fn an_answer_is_followed_by_a_save_while_slots_lose_prefixes() {
    let (mut state, of) = (state(BOUNDS), identity("f"));
    let (a, b, at) = (text("a"), text("b"), Instant::now());
    let held = Held {
        of: of.clone(),
        text: Text::from(&b[..]),
        owner: owner(""),
    };
    assert_eq!(state.after_answer(now(&of, at), &held), None, "never met");
    state.plan(now(&of, at), None, turn_of(&b, &owner("")));
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
fn short_prefixes_and_unmeasured_models_are_left_alone() {
    let (mut state, of) = (state(BOUNDS), identity("f"));
    assert_eq!(turn(&mut state, &of, "short", &text("b")), (false, false));
    let (a, b) = (text("a"), text("b"));
    let unmeasured = Now {
        prefill_per_token: None,
        ..now(&of, Instant::now())
    };
    let held = Held {
        of: of.clone(),
        text: Text::from(&a[..]),
        owner: owner(""),
    };
    let plan = state.plan(unmeasured, Some(held), turn_of(&b, &owner("")));
    assert_eq!((plan.save, plan.load), (None, None));
}

fn order(state: &mut State, of: &Identity, held: &str) -> Option<SaveOrder> {
    let at = Instant::now();
    let held = Held {
        of: of.clone(),
        text: Text::from(held),
        owner: owner(""),
    };
    let next = text("next");
    state
        .plan(now(of, at), Some(held), turn_of(&next, &owner("")))
        .save
}

#[test]
fn what_has_died_in_company_is_tried_alone_and_is_no_strike() {
    let (mut state, of) = (state(BOUNDS), identity("f"));
    let (a, b, at) = (text("a"), text("b"), Instant::now());
    turn(&mut state, &of, "", &a);
    let ordered = |state: &mut State, is_alone| {
        let now = Now {
            is_alone,
            ..now(&of, at)
        };
        let held = Held {
            of: of.clone(),
            text: Text::from(&a[..]),
            owner: owner(""),
        };
        let plan = state.plan(now, Some(held), turn_of(&b, &owner("")));
        if let Some(order) = &plan.save {
            state.save_ended(order.id);
        }
        plan.save
    };
    assert!(ordered(&mut state, false).is_some());
    for _ in 0..5 {
        assert!(!state.failed(&of, Fault::OfOneInCompany));
    }
    assert_eq!(ordered(&mut state, false), None);
    let alone = ordered(&mut state, true).expect("nothing else is there");
    assert_eq!(state.whole(&alone, file(100)), Ok(NONE));
    assert!(ordered(&mut state, false).is_some(), "it was not the save");
    assert!(!state.failed(&of, Fault::None));
    assert!(!state.failed(&of, Fault::Own));
    assert!(state.failed(&of, Fault::Own));
}

#[test]
fn what_is_named_for_all_is_saved_once_and_read_by_every_tenant() {
    let (mut state, of, at) = (state(BOUNDS), identity("f"), Instant::now());
    let rules = text("rules");
    let model = |shared: &[&str]| Installed {
        id: "m".into(),
        file: "f".to_owned(),
        shared: shared.iter().map(|text| Named::from(*text)).collect(),
        pinned: Vec::new(),
        adapters: Vec::new(),
    };
    state.set_installed(vec![model(&["rules0", &rules, "other rules"])]);
    let prompt = |asked: &str| rules.clone() + asked;
    let plan = |state: &mut State, asked: &str, tenant: &str| {
        let (prompt, owner) = (prompt(asked), owner(tenant));
        let plan = state.plan(now(&of, at), None, turn_of(&prompt, &owner));
        (plan.share, plan.load)
    };
    let (share, load) = plan(&mut state, "one", "upstairs");
    let order = share.expect("it is the first");
    assert_eq!((load, &order.text), (None, &rules));
    let (again, _) = plan(&mut state, "two", "upstairs");
    assert_eq!(again, None, "it is under way");
    assert_eq!(save(&mut state, &order, 100), NONE);
    for tenant in ["upstairs", "downstairs"] {
        let (share, load) = plan(&mut state, "three", tenant);
        assert_eq!(share, None);
        let load = load.expect("it is every key's");
        assert_eq!(load.id, order.id);
        state.load_ended(&load, None);
    }
    // A conversation that begins so takes no place of it, and is its tenant's alone.
    let (a, b) = (prompt(&text("a")), text("b"));
    let held = Held {
        of: of.clone(),
        text: Text::from(&a[..]),
        owner: owner("upstairs"),
    };
    let own = owner("upstairs");
    let plan = state.plan(now(&of, at), Some(held), turn_of(&b, &own));
    let going = save(&mut state, &plan.save.expect("it is worth it"), 100);
    assert_eq!((going, state.files()), (NONE, 2));
    assert_eq!(state.set_keys([1].into()), NONE);
    assert_eq!(state.set_installed(vec![model(&[&*rules])]), NONE);
    assert_eq!(state.set_installed(vec![model(&["other"])]), [order.id]);
}

#[test]
fn what_a_plan_looks_at_is_told_before() {
    let (mut state, of) = (state(BOUNDS), identity("f"));
    let (a, b, own) = (text("a"), text("b"), owner(""));
    let to_mark = |state: &State, held: &str, prompt: &str| -> Vec<String> {
        let held = Held {
            of: of.clone(),
            text: Text::from(held),
            owner: owner(""),
        };
        let turn = turn_of(prompt, &own);
        let texts = state.to_mark(now(&of, Instant::now()), Some(&held), &turn);
        texts.iter().map(|text| text.to_string()).collect()
    };
    assert_eq!(to_mark(&state, &a, &b), [a.as_str()], "nothing is stored");
    turn(&mut state, &of, &a, &b);
    assert_eq!(to_mark(&state, &a, &b), [b.as_str(), &a]);
    // The slot has all of it.
    let next = b.clone() + " and more";
    assert_eq!(to_mark(&state, &b, &next), [""; 0]);
    let short = "a question";
    assert_eq!(to_mark(&state, short, &b), [b.as_str()], "it is no loss");
}
