//! Bytes of a broken peer never make a reader of frames take memory for what they only announce.

use crate::counting::peak_of;
use proptest::prelude::*;
use rkllmd::ipc::{Command, Event, FrameReader, MAX_FRAME_BYTES, encode};
use serde::de::DeserializeOwned;

/// What serde allocates at once for a sequence of any announced length.
const SEQUENCE_BYTES: usize = 1024 * 1024;

/// The most memory held at a time while `bytes` are read as messages.
fn peak_of_reading<T: DeserializeOwned>(bytes: &[u8]) -> usize {
    peak_of(|| {
        let mut reader = FrameReader::default();
        for piece in bytes.chunks(4096) {
            reader.buffer().extend_from_slice(piece);
            loop {
                match reader.next_message::<T>() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
        }
    })
}

/// A growing buffer doubles, and while it moves both are there; messages are as large as their
/// bytes, or their fixed parts where those are few.
fn allowed(bytes: &[u8]) -> usize {
    SEQUENCE_BYTES + 4 * bytes.len() + 16 * 1024
}

fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    for peak in [
        peak_of_reading::<Event>(bytes),
        peak_of_reading::<Command>(bytes),
    ] {
        prop_assert!(peak <= allowed(bytes), "{peak} for {} bytes", bytes.len());
    }
    Ok(())
}

/// A frame around `body` that announces `excess` more bytes than there are.
fn frame(body: &[u8], excess: u32) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().saturating_add(excess);
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

proptest! {
    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        check(&bytes)?;
    }

    #[test]
    fn arbitrary_bodies_in_frames_that_lie_about_them(
        variant in 0u8..8,
        body in prop::collection::vec(any::<u8>(), 0..512),
        excess in prop_oneof![Just(0), any::<u32>()],
    ) {
        let mut body = body;
        body.insert(0, variant);
        check(&frame(&body, excess))?;
    }
}

#[test]
fn the_measure_sees_what_is_allocated() {
    const LENGTH: usize = 20_000;
    let event = Event::LoadFailed {
        reason: "x".repeat(LENGTH),
        failure: None,
    };
    let mut bytes = Vec::new();
    encode(&event, &mut bytes).expect("small enough");
    let peak = peak_of_reading::<Event>(&bytes);
    assert!(peak >= 2 * LENGTH, "buffer and text are {peak} bytes");
}

/// Lengths at the edges, which random bytes hardly find.
#[test]
fn announced_lengths_allocate_nothing() {
    let limit = u32::try_from(MAX_FRAME_BYTES).unwrap();
    let most = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let mut cases = vec![
        limit.to_le_bytes().to_vec(),
        (limit + 1).to_le_bytes().to_vec(),
        u32::MAX.to_le_bytes().to_vec(),
    ];
    for variant in 0..8 {
        for padding in 0..12 {
            let mut body = vec![variant];
            body.extend(std::iter::repeat_n(1, padding));
            body.extend_from_slice(&most);
            cases.push(frame(&body, 0));
        }
    }
    for case in cases {
        check(&case).unwrap_or_else(|error| panic!("{case:?}: {error}"));
    }
}
