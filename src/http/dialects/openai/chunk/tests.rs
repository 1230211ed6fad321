use super::*;
use crate::generation::RequestId;

fn writer(model: &str) -> ChatWriter {
    let identity = Identity {
        id: RequestId("chatcmpl-1".into()),
        created: 7,
        model: model.into(),
        fingerprint: None,
        choice: 0,
    };
    let form = ChatForm {
        is_named: false,
        calls: CallForm::Tools,
        thoughts: ThoughtFields::ReasoningContent,
        tells_logprobs: false,
    };
    ChatWriter::new(&identity, UsageChunk::NotWanted, form)
}

#[test]
fn whatever_is_in_names_and_texts_the_json_holds() {
    let mut writer = writer("we\"ird\\na\nme");
    let text = "\"quoted\" \\ back\nline\u{0}\u{7f}\u{2028}😀";
    let mut buffer = BytesMut::new();
    writer.piece(&ReplyPiece::Text(text.to_owned()), &mut buffer);
    let event = String::from_utf8(buffer.to_vec()).unwrap();
    let data = event.strip_prefix("data: ").unwrap();
    let data = data.strip_suffix("\n\n").unwrap();
    assert!(!data.contains('\n'));
    let value: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(value["choices"][0]["delta"]["content"], text);
    assert_eq!(value["model"], "we\"ird\\na\nme");
}

#[test]
fn sent_memory_is_used_again() {
    let mut writer = writer("m");
    let piece = ReplyPiece::Text("a token".to_owned());
    let mut buffer = BytesMut::new();
    let mut places = std::collections::HashSet::new();
    for _ in 0..10_000 {
        writer.piece(&piece, &mut buffer);
        places.insert(buffer.split().freeze().as_ptr() as usize / 65536);
    }
    assert!(places.len() < 16, "{} regions", places.len());
}
