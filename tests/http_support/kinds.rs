//! Servers whose engines do what several dialects are asked about.

use std::sync::Mutex;

use rkllmd::admission::Generation;
use rkllmd::generation::{GenerationError, ReplyEvent};
use rkllmd::settings::Settings;
use tokio::sync::mpsc;

use super::{Server, replay, started, text};

impl Server {
    /// Its one generation is fed by hand.
    pub async fn fed_by_hand(settings: Settings) -> (Self, mpsc::Sender<ReplyEvent>) {
        let (sender, receiver) = mpsc::channel(64);
        let receiver = Mutex::new(Some(receiver));
        let server = Self::start(settings, move |_| {
            Ok(Generation::new(
                receiver.lock().unwrap().take().expect("one request"),
            ))
        })
        .await;
        (server, sender)
    }

    /// Its worker dies before the first token, or behind an `x` where the prompt says `late`.
    pub async fn whose_worker_dies() -> Self {
        Self::start(Settings::default(), |request| {
            let mut events = vec![started(&[])];
            if request.prompt.contains("late") {
                events.push(text("x"));
            }
            events.push(ReplyEvent::Failed(GenerationError::WorkerDied {
                cause: "signal 11".to_owned(),
            }));
            Ok(replay(events))
        })
        .await
    }
}
