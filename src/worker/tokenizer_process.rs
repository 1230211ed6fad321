//! A process that makes tokens of texts and texts of tokens, for clients that ask for no run. It
//! loads no library and has one thread: whatever a vocabulary of any size or a text of any kind
//! does to it, the daemon and the model's worker notice nothing.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use anyhow::Context;

use super::tokenizer::Tokenizer;
use super::{WorkerArguments, process_setup, receive};
use crate::ipc::{self, FrameReader, PROTOCOL_VERSION, TokenizerCommand, TokenizerEvent};

/// Answers until the daemon closes the connection.
pub fn run_tokenizer(arguments: WorkerArguments) -> ExitCode {
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("E rkllmd-tokenizer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: WorkerArguments) -> anyhow::Result<()> {
    let mut socket = process_setup::prepare(arguments.parent_pid, arguments.core_dumps)?;
    rustix::thread::set_name(c"rkllmd-tokens").context("naming the process")?;
    let mut frames = FrameReader::default();
    let mut tokenizer = None;
    while let Some(command) = receive::<TokenizerCommand>(&mut socket, &mut frames)? {
        let event = answer(command, &mut tokenizer).unwrap_or_else(failed);
        let mut frame = Vec::new();
        if let Err(error) = ipc::encode(&event, &mut frame) {
            frame.clear();
            ipc::encode(&failed(error.into()), &mut frame)?;
        }
        send(&mut socket, &frame)?;
    }
    Ok(())
}

fn failed(error: anyhow::Error) -> TokenizerEvent {
    TokenizerEvent::Failed {
        reason: format!("{error:#}"),
    }
}

fn send(socket: &mut UnixStream, frame: &[u8]) -> anyhow::Result<()> {
    socket.write_all(frame).context("answering the daemon")
}

fn answer(
    command: TokenizerCommand,
    tokenizer: &mut Option<Tokenizer>,
) -> anyhow::Result<TokenizerEvent> {
    let opened = tokenizer.as_ref().context("no tokenizer is open");
    Ok(match command {
        TokenizerCommand::Open {
            protocol,
            tokenizer_json,
        } => {
            anyhow::ensure!(
                protocol == PROTOCOL_VERSION,
                "the daemon speaks protocol {protocol}, this process {PROTOCOL_VERSION}"
            );
            *tokenizer = Some(Tokenizer::open(&tokenizer_json)?);
            TokenizerEvent::Opened
        }
        TokenizerCommand::Encode {
            text,
            add_special,
            with_pieces,
        } => {
            let tokenizer = opened?;
            let tokens = tokenizer.encode_ids(&text, add_special)?;
            let pieces = with_pieces.then(|| {
                let pieces = tokens.iter().map(|&id| tokenizer.piece(id));
                pieces.map(Option::unwrap_or_default).collect()
            });
            TokenizerEvent::Encoded { tokens, pieces }
        }
        TokenizerCommand::Decode { tokens } => {
            let tokenizer = opened?;
            match tokens.iter().position(|&id| !tokenizer.is_token(id)) {
                Some(index) => TokenizerEvent::NoSuchToken { index },
                None => TokenizerEvent::Decoded {
                    text: tokenizer.decode(&tokens)?,
                },
            }
        }
    })
}
