use proptest::prelude::*;

use super::*;
use crate::memory::{Accountant, Standing};

const LIMIT: usize = 4096;

fn account() -> Account {
    Accountant::of_files(1 << 24).account(ClientKey::new("a"), Standing::Ordinary)
}

fn responses(most: usize) -> BackgroundResponses {
    BackgroundResponses::new(&ResponseSettings {
        max_background_per_key: most,
        background_events_limit_bytes: LIMIT,
        ..ResponseSettings::default()
    })
}

fn beginning(id: usize) -> Beginning {
    Beginning {
        id: format!("resp_{id}"),
        events: vec![Bytes::from_static(b"0;")],
        now: Bytes::from_static(b"{}"),
        items: Vec::new(),
    }
}

fn begin(of: &BackgroundResponses, client: &ClientKey, id: usize) -> Arc<BackgroundResponse> {
    let begun = of.begin(client, &account(), beginning(id));
    begun.expect("a place")
}

#[test]
fn a_key_has_its_places_and_gets_them_back_with_an_end() {
    let (all, one) = (responses(2), ClientKey::new("one"));
    let first = begin(&all, &one, 1);
    begin(&all, &one, 2);
    let refused = all.begin(&one, &account(), beginning(3));
    assert!(matches!(
        refused,
        Err(RequestError::TooManyInBackground { most: 2 })
    ));
    begin(&all, &ClientKey::new("other"), 4);
    first.end([], None);
    begin(&all, &one, 3);
    assert!(all.find("one", "resp_1").is_some() && all.find("other", "resp_1").is_none());
}

#[test]
fn of_those_that_have_ended_the_oldest_go() {
    let (all, one) = (responses(1), ClientKey::new("one"));
    for id in 0..4 {
        begin(&all, &one, id).end([], None);
    }
    let is_there: Vec<bool> = (0..4)
        .map(|id| all.find("one", &format!("resp_{id}")).is_some())
        .collect();
    // The newest had not ended yet when it was counted.
    assert_eq!(is_there, [false, false, true, true]);
    all.let_go("one", "resp_2");
    all.let_go("one", "resp_3");
    assert!(all.shelf().clients.is_empty());
}

#[tokio::test]
async fn what_is_revoked_deleted_or_cut_off_is_asked_to_end() {
    let all = responses(4);
    let key = ClientKey::new("key").of_tenant("");
    let (revoked, deleted) = (begin(&all, &key, 1), begin(&all, &ClientKey::new("x"), 2));
    all.keep_keys(&HashSet::new());
    assert!(matches!(
        revoked.end_wished().await,
        RequestError::InvalidKey
    ));
    assert!(revoked.is_deleted() && all.find("key", "resp_1").is_none());
    all.delete("x", "resp_2");
    assert!(matches!(
        deleted.end_wished().await,
        RequestError::Cancelled
    ));
    assert!(deleted.is_deleted() && all.find("x", "resp_2").is_none());
    let cut = begin(&all, &ClientKey::new("x"), 3);
    all.close();
    // The first reason stays.
    cut.wish_end(RequestError::Cancelled);
    let why = cut.end_wished().await;
    let is_end = |error: &RequestError| {
        matches!(
            error,
            RequestError::Generation {
                error: GenerationError::ShuttingDown,
                ..
            }
        )
    };
    assert!(is_end(&why) && !cut.is_deleted());
    let refused = all.begin(&key, &account(), beginning(4));
    assert!(refused.is_err_and(|error| is_end(&error)));
}

#[test]
fn what_cannot_be_charged_goes_once_it_has_ended() {
    let accountant = Accountant::of_files(4 * STEP_BYTES as u64);
    let account = accountant.account(ClientKey::new("a"), Standing::Ordinary);
    let all = BackgroundResponses::new(&ResponseSettings::default());
    let begun = all.begin(&ClientKey::new("a"), &account, beginning(1));
    let response = begun.expect("a place");
    // A client has half of all.
    let large = || Bytes::from(vec![b'x'; 3 * STEP_BYTES]);
    assert!(response.tell([large()], None).is_err());
    response.end([Bytes::from_static(b"end")], None);
    assert!(matches!(response.behind(0), Behind::Events(..)));
    response.settle();
    assert_eq!(response.behind(0), Behind::Gone);
    assert_eq!(response.behind(3), Behind::TheEnd);
    drop(response);
    all.let_go("a", "resp_1");
    assert_eq!(accountant.used_bytes(), 0);
}

#[test]
fn nothing_is_told_behind_an_end() {
    let response = begin(&responses(1), &ClientKey::new("a"), 1);
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
        let response = begin(&responses(1), &ClientKey::new("a"), 1);
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
