use proptest::prelude::*;

use super::*;
use crate::generation::ClientKey;
use crate::http::dialects::background_responses::line::Line;
use crate::memory::{Accountant, Standing};

const LIMIT: usize = 4096;

fn account() -> Account {
    Accountant::of_files(1 << 24).account(ClientKey::new("a"), Standing::Ordinary)
}

fn begun(account: &Account, limit_bytes: usize) -> BackgroundResponse {
    let beginning = Beginning {
        id: "resp_1".to_owned(),
        events: vec![Bytes::from_static(b"0;")],
        now: Bytes::from_static(b"{}"),
        items: Vec::new(),
    };
    let ticket = Arc::new(Line::default()).ticket();
    BackgroundResponse::new(beginning, account, limit_bytes, ticket).expect("memory")
}

#[test]
fn who_follows_is_woken_by_what_there_is_to_read_only() {
    let response = begun(&account(), LIMIT);
    let mut more = response.follow();
    let is_woken = |more: &mut watch::Receiver<()>| {
        let woken = more.has_changed().expect("it is there");
        more.mark_unchanged();
        woken
    };
    assert!(response.tell([], None).is_ok() && !is_woken(&mut more));
    let told = response.tell([Bytes::from_static(b"1;")], None);
    assert!(told.is_ok() && is_woken(&mut more));
    response.end([], None);
    assert!(is_woken(&mut more));
}

#[test]
fn what_cannot_be_charged_goes_once_it_has_ended() {
    let accountant = Accountant::of_files(4 * STEP_BYTES as u64);
    let account = accountant.account(ClientKey::new("a"), Standing::Ordinary);
    let response = begun(&account, usize::MAX);
    // A client has half of all.
    let large = Bytes::from(vec![b'x'; 3 * STEP_BYTES]);
    assert!(response.tell([large], None).is_err());
    response.end([Bytes::from_static(b"end")], None);
    assert!(matches!(response.behind(0), Behind::Events(..)));
    response.settle();
    assert_eq!(response.behind(0), Behind::Gone);
    assert_eq!(response.behind(3), Behind::TheEnd);
    drop(response);
    assert_eq!(accountant.used_bytes(), 0);
}

#[test]
fn nothing_is_told_behind_an_end() {
    let response = begun(&account(), LIMIT);
    response.end(
        [Bytes::from_static(b"1;")],
        Some(Bytes::from_static(b"end")),
    );
    response.end([Bytes::from_static(b"2;")], Some(Bytes::from_static(b"no")));
    let told = response.tell([Bytes::from_static(b"3;")], None);
    assert!(told.is_ok());
    assert_eq!(
        response.behind(0),
        Behind::Events(Bytes::from_static(b"0;1;"), 2)
    );
    assert_eq!(response.behind(2), Behind::TheEnd);
    assert_eq!(response.now(), Bytes::from_static(b"end"));
}

proptest! {
    #[test]
    fn readers_miss_nothing_that_is_there_and_are_told_what_is_not(
        lengths in prop::collection::vec(1..900usize, 1..60),
        from in 0..60u64,
    ) {
        let response = begun(&account(), LIMIT);
        for (number, length) in (1..).zip(&lengths) {
            let event = format!("{number};{}|", "x".repeat(*length));
            prop_assert!(response.tell([Bytes::from(event)], None).is_ok());
            let told = response.told();
            let bytes: usize = told.events.iter().map(|it| EVENT_BYTES + it.len()).sum();
            prop_assert_eq!(bytes, told.bytes);
            prop_assert!(bytes <= LIMIT && told.charge.bytes() >= bytes);
        }
        let last = lengths.len() as u64;
        let (first, end) = response.numbers();
        prop_assert_eq!(end, last + 1);
        let mut next = from.min(end);
        if next < first {
            prop_assert_eq!(response.behind(next), Behind::Gone);
            return Ok(());
        }
        while let Behind::Events(frame, behind) = response.behind(next) {
            let text = String::from_utf8(frame.to_vec()).expect("text");
            let numbers: Vec<u64> = text
                .split('|')
                .flat_map(|event| event.split(';'))
                .filter_map(|it| it.parse().ok())
                .collect();
            prop_assert_eq!(numbers, (next..behind).collect::<Vec<_>>());
            next = behind;
        }
        prop_assert_eq!(next, end);
        prop_assert_eq!(response.behind(next), Behind::NothingYet);
    }
}
