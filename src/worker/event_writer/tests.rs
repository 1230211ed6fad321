use std::io::{ErrorKind, Read};
use std::sync::Barrier;

use super::*;
use crate::ipc::{FrameReader, SlotEvent, TokenKind};

fn token(slot: u8, nth: u64) -> Event {
    Event::Slot {
        slot,
        event: SlotEvent::Token {
            run: nth,
            kind: TokenKind::Text,
            id: Some(5),
            text: "tok ".to_owned(),
        },
    }
}

/// More than a socket holds.
fn filler() -> Event {
    Event::LoadFailed {
        reason: "x".repeat(4 << 20),
        failure: None,
    }
}

/// Reads until the writer has closed its end, or nothing more is there for a reader that does not wait.
fn read(daemon: &mut UnixStream) -> Vec<Event> {
    read_while(daemon, |_| true)
}

fn read_while(daemon: &mut UnixStream, goes_on: impl Fn(&[Event]) -> bool) -> Vec<Event> {
    let mut frames = FrameReader::default();
    let mut received = Vec::new();
    let mut chunk = vec![0; 1 << 16];
    while goes_on(&received) {
        match daemon.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => frames.buffer().extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
        while let Some(event) = frames.next_message().unwrap() {
            received.push(event);
        }
    }
    received
}

#[test]
fn an_event_is_there_when_its_sender_goes_on() {
    let (mut daemon, worker) = UnixStream::pair().unwrap();
    daemon.set_nonblocking(true).unwrap();
    // No thread could have written it.
    let events = EventWriter::without_thread(worker);
    for nth in 0..3 {
        events.send(token(0, nth));
        assert_eq!(read(&mut daemon), [token(0, nth)]);
    }
    events.heartbeat();
    assert_eq!(read(&mut daemon), [Event::Heartbeat]);
    events.flush();
    assert_eq!(events.shared().lock().turn, Turn::Free);
}

#[test]
fn what_comes_while_another_writes_shares_its_next_write() {
    let (mut daemon, worker) = UnixStream::pair().unwrap();
    daemon.set_nonblocking(true).unwrap();
    let events = EventWriter::without_thread(worker);
    events.shared().lock().turn = Turn::Caller;
    let all: Vec<Event> = (0..8).map(|slot| token(slot, 1)).collect();
    for event in &all[1..] {
        events.send(event.clone());
    }
    assert_eq!(read(&mut daemon), []);
    assert_eq!(events.shared().lock().waiting.len(), 1);
    let own = Write::of(&all[0], Vec::new());
    events.shared().write_as_caller(own);
    assert_eq!(read(&mut daemon), all);
    assert_eq!(events.shared().lock().turn, Turn::Free);
}

#[test]
fn a_large_event_is_written_by_itself() {
    let (_daemon, worker) = UnixStream::pair().unwrap();
    let events = EventWriter::without_thread(worker);
    events.shared().lock().turn = Turn::Caller;
    events.send(token(0, 0));
    events.send(token(0, 1));
    events.send(filler());
    events.send(token(0, 2));
    let state = events.shared().lock();
    let shared: Vec<usize> = state.waiting.iter().map(|write| write.events).collect();
    assert_eq!(shared, [2, 1, 1]);
}

#[test]
fn no_sender_waits_for_a_daemon_that_does_not_read() {
    let (mut daemon, worker) = UnixStream::pair().unwrap();
    let events = EventWriter::start(worker).unwrap();
    events.send(filler());
    let mut sent = vec![filler()];
    for nth in 0.. {
        let event = token(0, nth);
        match events.try_send(event.clone()) {
            Ok(()) => sent.push(event),
            Err(refused) => {
                assert_eq!(refused, event);
                break;
            }
        }
    }
    assert!(sent.len() >= QUEUE_EVENTS, "{}", sent.len());
    let count = sent.len();
    let received = read_while(&mut daemon, |received| received.len() < count);
    assert!(received == sent);
    events.flush();
    assert!(events.try_send(token(0, 0)).is_ok());
}

#[test]
fn a_daemon_that_does_not_read_finds_one_heartbeat() {
    let (mut daemon, worker) = UnixStream::pair().unwrap();
    let events = EventWriter::start(worker).unwrap();
    // The writer is stuck when the heartbeats come.
    events.send(filler());
    for _ in 0..100 {
        events.heartbeat();
    }
    events.send(Event::Hello { protocol: 0 });
    let is_last = |received: &[Event]| received.last() == Some(&Event::Hello { protocol: 0 });
    let received = read_while(&mut daemon, |received| !is_last(received));
    assert!(received[0] == filler());
    assert_eq!(
        received[1..],
        [Event::Heartbeat, Event::Hello { protocol: 0 }]
    );
    events.flush();
    events.heartbeat();
    let received = read_while(&mut daemon, <[Event]>::is_empty);
    assert_eq!(received, [Event::Heartbeat]);
}

/// Callers write, with events of other callers, and so does the thread.
#[test]
fn the_events_of_each_sender_come_in_their_order_and_none_is_lost() {
    const SENDERS: u8 = 8;
    const EACH: u64 = 3_000;
    let (mut daemon, worker) = UnixStream::pair().unwrap();
    let events = EventWriter::start(worker).unwrap();
    let together = Arc::new(Barrier::new(SENDERS.into()));
    for slot in 0..SENDERS {
        let (events, together) = (events.clone(), Arc::clone(&together));
        thread::spawn(move || {
            for nth in 0..EACH {
                // Steps at first, and then as fast as they can.
                if nth < 200 {
                    together.wait();
                }
                events.send(token(slot, nth));
            }
        });
    }
    drop(events);
    // Until the last sender has gone, and with it the writer.
    let received = read(&mut daemon);
    for slot in 0..SENDERS {
        let of_slot = received.iter().filter(|event| match event {
            Event::Slot { slot: of, .. } => *of == slot,
            _ => true,
        });
        let expected = (0..EACH).map(|nth| token(slot, nth));
        assert!(of_slot.cloned().eq(expected), "{slot}");
    }
}

#[test]
fn callers_that_write_too_often_leave_it_to_the_thread() {
    let mut callers = Callers::default();
    let begin = Instant::now();
    let step = SPAN / (2 * WRITES_IN_SPAN);
    let may: Vec<bool> = (0..2 * WRITES_IN_SPAN)
        .map(|nth| callers.may_write(begin + step * nth))
        .collect();
    let half = WRITES_IN_SPAN as usize;
    assert!(may[..half].iter().all(|may| *may) && !may[half..].contains(&true));
    assert!(callers.may_write(begin + SPAN));
    // Steps that are apart are never too many.
    for nth in 2..100 {
        assert!((0..8).all(|_| callers.may_write(begin + SPAN * nth)));
    }
}

#[test]
fn senders_go_on_once_the_daemon_has_gone() {
    let (daemon, worker) = UnixStream::pair().unwrap();
    let events = EventWriter::start(worker).unwrap();
    events.send(filler());
    while events.try_send(token(0, 0)).is_ok() {}
    let waits = {
        let events = events.clone();
        thread::spawn(move || events.send(token(0, 1)))
    };
    drop(daemon);
    waits.join().unwrap();
    events.flush();
    assert!(events.try_send(token(0, 2)).is_ok());
}
