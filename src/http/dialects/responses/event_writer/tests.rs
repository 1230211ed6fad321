use super::*;
use crate::conversation::TokenLogprob;
use crate::generation::Timings;

fn identity() -> Identity {
    Identity {
        id: crate::generation::RequestId("req-1".into()),
        created: 7,
        model: "m".into(),
        fingerprint: None,
        choice: 0,
    }
}

#[test]
fn sent_memory_is_used_again() {
    let mut writer = ResponseWriter::new(&identity(), Arc::new(Answered::example()));
    let piece = ReplyPiece::Text("a token".to_owned());
    let mut buffer = BytesMut::new();
    let mut places = std::collections::HashSet::new();
    for _ in 0..10_000 {
        writer.piece(&piece, &mut buffer);
        places.insert(buffer.split().freeze().as_ptr() as usize / 65536);
    }
    assert!(places.len() < 16, "{} regions", places.len());
    assert_eq!(writer.held_bytes(), COPIES * 70_000);
}

#[test]
fn what_is_written_at_the_end_is_charged_before() {
    let mut writer = ResponseWriter::new(&identity(), Arc::new(Answered::example()));
    let token = TokenLogprob {
        id: 1,
        bytes: b" token".to_vec(),
        logprob: Some(-1.234_567),
    };
    let top = vec![token.clone(); 20];
    let piece = ReplyPiece::ScoredText(ScoredText {
        text: " token".to_owned(),
        tokens: vec![TokenLogprobs { token, top }],
    });
    let mut buffer = BytesMut::new();
    for _ in 0..1000 {
        writer.piece(&piece, &mut buffer);
        buffer.clear();
    }
    let charged = writer.held_bytes();
    let completion = Completion {
        reason: FinishReason::Stop,
        stop_text: None,
        usage: None,
        timings: Timings::default(),
    };
    writer.finished(&completion, &mut buffer);
    let written = buffer.len();
    assert!(written > 1_000_000, "{written}");
    assert!(charged > written, "{charged} for {written}");
}
