mod on_disk;

use proptest::prelude::*;

use super::*;

const FOR: Duration = Duration::from_secs(100);

fn response(id: usize, json_bytes: usize) -> KeptResponse {
    KeptResponse {
        id: format!("resp_{id}"),
        json: vec![b'x'; json_bytes].into(),
        items: Vec::new(),
        asked: 0,
        is_answered: true,
        is_background: false,
    }
}

fn limits(count: usize, bytes: usize) -> ResponseSettings {
    ResponseSettings {
        max_kept_per_key: count,
        kept_limit_bytes: bytes,
        kept_for: FOR,
        ..ResponseSettings::default()
    }
}

#[test]
fn a_response_is_its_clients_alone_and_grows_old() {
    let (mut shelf, start) = (Shelf::default(), Instant::now());
    let limits = limits(2, 1 << 20);
    shelf.keep(&ClientKey::new("a"), response(1, 10), &limits, start);
    let at = |shelf: &mut Shelf, client: &str, seconds| {
        let now = start + Duration::from_secs(seconds);
        shelf.find(client, "resp_1", FOR, now).is_some()
    };
    let is_empty = |shelf: &Shelf| shelf.bytes == 0 && shelf.clients.is_empty();
    assert!(at(&mut shelf, "a", 99) && !at(&mut shelf, "b", 0));
    shelf.forget("b", "resp_1", FOR, start);
    assert!(at(&mut shelf, "a", 0));
    shelf.forget("a", "resp_1", FOR, start);
    assert!(!at(&mut shelf, "a", 0) && is_empty(&shelf));
    // Whichever request comes next, what is old goes.
    shelf.keep(&ClientKey::new("a"), response(1, 10), &limits, start);
    assert!(!at(&mut shelf, "b", 100) && is_empty(&shelf));
    shelf.keep(&ClientKey::new("a"), response(1, 10), &limits, start);
    shelf.forget("b", "resp_1", FOR, start + FOR);
    assert!(is_empty(&shelf));
}

#[test]
fn what_came_from_a_key_goes_with_it() {
    let (mut shelf, now) = (Shelf::default(), Instant::now());
    let limits = limits(2, 1 << 20);
    let key = |name: &str| ClientKey::new(name).of_tenant("");
    for (id, client) in [key("one"), key("other"), ClientKey::new("address")]
        .iter()
        .enumerate()
    {
        shelf.keep(client, response(id, 10), &limits, now);
    }
    shelf.keep_keys(&HashSet::from(["other".to_owned()]));
    let mut has = |client: &str, id: &str| shelf.find(client, id, FOR, now).is_some();
    assert!(!has("one", "resp_0") && has("other", "resp_1") && has("address", "resp_2"));
    let bytes: usize = shelf.clients.values().map(|of| of.bytes).sum();
    assert_eq!(shelf.bytes, bytes);
}

#[test]
fn who_has_the_most_makes_place() {
    let (mut shelf, now) = (Shelf::default(), Instant::now());
    let limits = limits(100, 4096);
    shelf.keep(&ClientKey::new("small"), response(1, 10), &limits, now);
    for id in 2..20 {
        shelf.keep(&ClientKey::new("large"), response(id, 1000), &limits, now);
    }
    let mut has = |client: &str, id: &str| shelf.find(client, id, FOR, now).is_some();
    assert!(has("small", "resp_1"));
    assert!(has("large", "resp_19") && !has("large", "resp_2"));
}

proptest! {
    #[test]
    fn no_bound_is_passed_and_the_newest_is_there(
        kept in prop::collection::vec((0..3usize, 0..3000usize, 0..40u64), 1..60),
        count in 0..5usize,
    ) {
        let (mut shelf, mut now) = (Shelf::default(), Instant::now());
        let limits = limits(count, 8192);
        for (id, (client, bytes, seconds)) in kept.into_iter().enumerate() {
            now += Duration::from_secs(seconds);
            let client = ["a", "b", "c"][client];
            shelf.keep(&ClientKey::new(client), response(id, bytes), &limits, now);
            let found = shelf.find(client, &format!("resp_{id}"), FOR, now);
            prop_assert_eq!(found.is_some(), count > 0);
            prop_assert!(shelf.bytes <= limits.kept_limit_bytes);
            let mut bytes = 0;
            for of in shelf.clients.values() {
                prop_assert!(of.responses.len() <= count && !of.responses.is_empty());
                let own: usize = of.responses.iter().map(|entry| entry.bytes).sum();
                prop_assert_eq!(own, of.bytes);
                let is_old = |entry: &Entry| now - entry.kept_at >= FOR;
                prop_assert!(!of.responses.iter().any(is_old));
                bytes += own;
            }
            prop_assert_eq!(bytes, shelf.bytes);
        }
    }
}
