//! What adapters have computed.

use super::*;
use crate::supervisor::prefixes::record::AdapterIdentity;

/// Keys and values that an adapter has computed are wrong without it and with any other.
#[test]
fn what_an_adapter_has_computed_is_read_with_it_alone() {
    let (mut state, plain, at) = (state(BOUNDS), identity("f"), Instant::now());
    let adapter = |name: &str, stamp: &str| AdapterIdentity {
        name: name.to_owned(),
        stamp: stamp.to_owned(),
    };
    let with = |name: &str, stamp: &str| Identity {
        adapter: Some(adapter(name, stamp)),
        ..identity("f")
    };
    let (one, other) = (with("one", "1"), with("other", "1"));
    let (a, me) = (text("a"), owner(""));
    for of in [&plain, &one, &other] {
        state.plan(now(of, at), None, turn_of(&a, &me));
    }
    let held = Held {
        of: one.clone(),
        text: Text::from(&a[..]),
        owner: owner(""),
    };
    // It asks for the same text, and has no use for what is there.
    let plan = state.plan(now(&plain, at), Some(held), turn_of(&a, &me));
    let order = plan.save.expect("all of it is lost");
    assert_eq!(order.of, one);
    assert_eq!(save(&mut state, &order, 100), NONE);
    for of in [&plain, &other] {
        let plan = state.plan(now(of, at), None, turn_of(&a, &me));
        assert_eq!((plan.load, plan.stale), (None, NONE));
    }
    let plan = state.plan(now(&one, at), None, turn_of(&a, &me));
    let load = plan.load.expect("it is its own");
    assert_eq!((load.id, &load.of), (order.id, &one));
    state.load_ended(&load, None);
    // The model keeps that adapter and changes the other one.
    let installed = |adapters: Vec<AdapterIdentity>| {
        vec![Installed {
            id: "m".into(),
            file: "f".to_owned(),
            shared: Vec::new(),
            pinned: Vec::new(),
            adapters,
        }]
    };
    let both = vec![adapter("one", "1"), adapter("other", "2")];
    assert_eq!(state.set_installed(installed(both)), NONE);
    let plan = state.plan(now(&with("other", "2"), at), None, turn_of(&a, &me));
    assert_eq!(plan.stale, NONE);
    let replaced = vec![adapter("one", "2")];
    assert_eq!(state.set_installed(installed(replaced)), [order.id]);
    assert_eq!(state.files(), 0);
}

/// Where saving has failed with one adapter, turns with another one do not try it again.
#[test]
fn what_cannot_be_saved_with_one_adapter_is_not_saved_for_another() {
    let (mut state, plain, at) = (state(BOUNDS), identity("f"), Instant::now());
    let one = Identity {
        adapter: Some(AdapterIdentity {
            name: "one".to_owned(),
            stamp: "1".to_owned(),
        }),
        ..identity("f")
    };
    let (a, b, me) = (text("a"), text("b"), owner(""));
    let held = || Held {
        of: one.clone(),
        text: Text::from(&a[..]),
        owner: owner(""),
    };
    for of in [&plain, &one] {
        state.plan(now(of, at), None, turn_of(&b, &me));
    }
    let plan = state.plan(now(&plain, at), Some(held()), turn_of(&b, &me));
    let order = plan.save.expect("nothing has failed");
    state.save_ended(order.id);
    assert!(!state.failed(&one, Fault::Own));
    assert!(state.failed(&one, Fault::Own));
    let plan = state.plan(now(&plain, at), Some(held()), turn_of(&b, &me));
    assert!(plan.save.is_none());
}

#[test]
fn what_a_changed_adapter_or_file_has_left_is_stale() {
    let with = |file: &str, stamp: Option<&str>| Identity {
        adapter: stamp.map(|stamp| AdapterIdentity {
            name: "one".to_owned(),
            stamp: stamp.to_owned(),
        }),
        ..identity(file)
    };
    let new = with("f", Some("2"));
    assert!(new.has_replaced(&with("f", Some("1"))));
    assert!(new.has_replaced(&with("e", None)));
    assert!(!new.has_replaced(&new));
    assert!(!new.has_replaced(&with("f", None)));
}
