use bytes::Bytes;
use futures_util::FutureExt;

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

#[tokio::test]
async fn one_gets_in_line_behind_what_its_client_has_begun_before_it() {
    let (all, one) = (responses(4), ClientKey::new("one"));
    let [first, second, third, fourth] = [1, 2, 3, 4].map(|id| begin(&all, &one, id));
    let other = begin(&all, &ClientKey::new("other"), 5);
    let may = |response: &BackgroundResponse| response.turn_comes().now_or_never().is_some();
    assert!(may(&first) && may(&other));
    assert!(!may(&second) && !may(&third) && !may(&fourth));
    // One that ends leaves those before it where they are.
    second.end([], None);
    assert!(!may(&third));
    let mut waits = Box::pin(third.turn_comes());
    assert!((&mut waits).now_or_never().is_none());
    first.gets_in_line();
    waits.await;
    assert!(!may(&fourth));
    third.gets_in_line();
    assert!(may(&fourth));
    for ended in [first, third, fourth] {
        ended.end([], None);
    }
    assert!(may(&begin(&all, &one, 6)));
}

#[test]
fn those_that_go_leave_the_others_in_their_order() {
    let (all, one) = (responses(5), ClientKey::new("one"));
    let [first, second, third, fourth] = [1, 2, 3, 4].map(|id| begin(&all, &one, id));
    let may = |response: &BackgroundResponse| response.turn_comes().now_or_never().is_some();
    // Nothing of them is left: neither what they were nor a wait for them.
    for gone in [second, third] {
        all.delete("one", &gone.id);
        gone.end([], None);
        all.let_go("one", &gone.id);
        assert_eq!(Arc::strong_count(&gone), 1);
    }
    assert!(!may(&fourth));
    let fifth = begin(&all, &one, 5);
    fourth.end([], None);
    assert!(!may(&fifth));
    first.gets_in_line();
    assert!(may(&fifth));
}

#[test]
fn one_that_is_deleted_has_its_place_until_its_end() {
    let (all, one) = (responses(1), ClientKey::new("one"));
    let deleted = begin(&all, &one, 1);
    assert!(all.delete("one", "resp_1").is_some());
    assert!(all.find("one", "resp_1").is_none() && all.delete("one", "resp_1").is_none());
    assert!(all.begin(&one, &account(), beginning(2)).is_err());
    deleted.end([], None);
    let next = begin(&all, &one, 2);
    // One that has ended goes at once.
    next.end([], None);
    assert!(all.delete("one", "resp_2").is_some());
    all.let_go("one", "resp_1");
    assert!(all.shelf().clients.is_empty());
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
fn one_whose_beginning_has_no_room_takes_no_place() {
    let (all, one) = (responses(1), ClientKey::new("one"));
    let large = Beginning {
        events: vec![Bytes::from(vec![b'x'; LIMIT])],
        ..beginning(1)
    };
    let refused = all.begin(&one, &account(), large);
    assert!(matches!(
        refused,
        Err(RequestError::OutOfRange { param, .. }) if param == "background"
    ));
    begin(&all, &one, 2);
}

#[tokio::test]
async fn the_end_of_all_is_waited_for() {
    let all = responses(2);
    let made = [1, 2].map(|id| begin(&all, &ClientKey::new("one"), id));
    all.close();
    let mut ended = std::pin::pin!(all.ended());
    for response in &made {
        assert!((&mut ended).now_or_never().is_none());
        response.end([], None);
    }
    assert!(ended.now_or_never().is_some());
}
