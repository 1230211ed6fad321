//! The models of a folder as readers of the real program report them.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::io;
use std::path::{Path, PathBuf};

use rkllmd::models::{Catalog, InstalledModel};
use rkllmd::prompt::{ChatMessage, ChatRole, ControlTokenPolicy, RenderRequest};
use rkllmd::reader::{ReaderError, Readers};
use rkllmd::settings::Settings;
use rkllmd::telemetry::Metrics;

pub fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_rkllmd").into()
}

pub fn scan(folder: &Path) -> io::Result<Catalog> {
    let mut settings = Settings::default();
    settings.models.dir = folder.to_owned();
    Catalog::scan_apart(&settings, Some(program()))
}

/// The prompt of one user's message.
pub fn render(model: &InstalledModel, text: &str) -> Result<String, ReaderError> {
    with_readers(async |readers| {
        let messages = vec![ChatMessage::new(ChatRole::User, text)];
        let request = RenderRequest::new(messages, jiff::civil::DateTime::ZERO);
        Ok(readers.render(model, &request).await?.text)
    })
}

/// Texts as prompts in which no control token is left.
pub fn plain(model: &InstalledModel, texts: &[&str]) -> Vec<String> {
    let texts = texts.iter().map(|&text| text.to_owned()).collect();
    let policy = Some(ControlTokenPolicy::Neutralise);
    let prompts = with_readers(async |readers| readers.plain(model, texts, policy, false).await);
    let prompts = prompts.expect("prompts");
    prompts.into_iter().map(|prompt| prompt.text).collect()
}

fn with_readers<T>(work: impl AsyncFnOnce(&Readers) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let readers =
            Readers::start_with_readers_of(program(), &Settings::default(), Metrics::new())
                .expect("readers");
        work(&readers).await
    })
}
