use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::*;
use crate::generation::SamplingRequest;
use crate::ipc::{self, FrameReader, RunSpec, TokenKind};

const CREDIT: u32 = 8;

/// A worker with so many slots: its end, and the daemon's of each slot.
fn linked(slots: u8) -> (UnixStream, Vec<SlotLink>) {
    let (daemon, worker) = UnixStream::pair().unwrap();
    daemon.set_nonblocking(true).unwrap();
    (worker, start(Connection::new(daemon).unwrap(), slots))
}

fn spec(run: u64, prompt: String) -> SlotCommand {
    SlotCommand::Run(Box::new(RunSpec {
        run,
        prompt,
        prompt_tokens: None,
        begun: None,
        draws: Default::default(),
        constraint: None,
        adapter: None,
        redraws: None,
        vocabulary: None,
        sampling: SamplingRequest::default(),
        max_new_tokens: None,
        prefill_per_token: Duration::ZERO,
        credit: CREDIT,
        save: None,
    }))
}

fn token(slot: u8) -> Event {
    let event = SlotEvent::Token {
        run: 1,
        kind: TokenKind::Text,
        id: None,
        text: "w".to_owned(),
    };
    Event::Slot { slot, event }
}

fn say(worker: &mut UnixStream, events: impl IntoIterator<Item = Event>) {
    let mut frames = Vec::new();
    for event in events {
        ipc::encode(&event, &mut frames).unwrap();
    }
    worker.write_all(&frames).unwrap();
}

/// The next commands that the worker gets, read on a thread of its own.
async fn heard(worker: &UnixStream, count: usize) -> Vec<Command> {
    let mut worker = worker.try_clone().unwrap();
    let (done, commands) = oneshot::channel();
    std::thread::spawn(move || {
        let mut frames = FrameReader::default();
        let mut chunk = vec![0; 1 << 16];
        let mut commands = Vec::new();
        loop {
            while let Some(command) = frames.next_message().unwrap() {
                commands.push(command);
            }
            if commands.len() >= count {
                return done.send(commands).unwrap();
            }
            let count = worker.read(&mut chunk).unwrap();
            frames.buffer().extend_from_slice(&chunk[..count]);
        }
    });
    commands.await.unwrap()
}

#[tokio::test]
async fn a_slot_whose_events_are_not_taken_holds_up_no_other() {
    let (mut worker, mut links) = linked(2);
    links[0].send(spec(1, String::new())).unwrap();
    say(&mut worker, (0..CREDIT).map(|_| token(0)).chain([token(1)]));
    let other = links[1].next_event().await.unwrap();
    assert!(other.event.takes_credit());
    for _ in 0..CREDIT {
        links[0].next_event().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_taken_is_credited_again() {
    let (mut worker, mut links) = linked(1);
    links[0].send(spec(1, String::new())).unwrap();
    heard(&worker, 1).await;
    // Far more than its credit, but never more at a time.
    for _ in 0..50 {
        let events = CREDIT / 4 + 1;
        say(&mut worker, (0..events).map(|_| token(0)));
        for _ in 0..events {
            links[0].next_event().await.unwrap();
        }
        let command = SlotCommand::Credit { run: 1, events };
        assert_eq!(
            heard(&worker, 1).await,
            [Command::Slot { slot: 0, command }]
        );
    }
}

#[tokio::test]
async fn a_worker_that_sends_more_than_it_may_is_heard_no_more() {
    for event in [token(0), token(1)] {
        let (mut worker, mut links) = linked(1);
        links[0].send(spec(1, String::new())).unwrap();
        let most = CREDIT + OTHER_EVENTS;
        say(&mut worker, (0..most).map(|_| token(0)).chain([event]));
        let error = loop {
            if let Err(error) = links[0].next_event().await {
                break error;
            }
            // Nothing that is taken makes room: the worker did not wait for it.
            links[0].run = None;
        };
        assert!(matches!(error, ConnectionError::Frame(_)), "{error}");
    }
}

#[tokio::test]
async fn what_the_socket_has_no_room_for_follows_in_order() {
    let (worker, mut links) = linked(2);
    let large = "x".repeat(8 << 20);
    links[0].send(spec(1, large.clone())).unwrap();
    links[1].send(spec(2, String::new())).unwrap();
    let expected = [(0, spec(1, large)), (1, spec(2, String::new()))];
    let expected = expected.map(|(slot, command)| Command::Slot { slot, command });
    assert!(heard(&worker, 2).await == expected);
}

#[tokio::test]
async fn the_end_of_the_worker_comes_after_all_it_has_said() {
    let (mut worker, mut links) = linked(1);
    links[0].send(spec(1, String::new())).unwrap();
    say(&mut worker, [token(0), Event::Heartbeat]);
    drop(worker);
    links[0].next_event().await.unwrap();
    let end = links[0].next_event().await;
    assert!(matches!(
        end,
        Err(ConnectionError::Closed | ConnectionError::Io(_))
    ));
}

#[test]
fn what_a_slot_is_found_by_is_no_larger_than_its_cells() {
    assert_eq!(beginning(&["ab", "cd"], 100), "abcd");
    assert_eq!(beginning(&["ab", "cd"], 3), "abc");
    assert_eq!(
        beginning(&["aé", "cd"], 2),
        "a",
        "whole characters, and nothing behind a gap"
    );
    assert_eq!(beginning(&[], 0), "");
}
