//! What every connection does with its messages, whatever carries them: several are answered at the
//! same time, each answer is sent when it is there, and calls reach a handle in the order in which
//! their messages came.

use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;

use super::outbound::Outbound;
use super::outgoing::{NotSent, Outgoing};
use super::protocol::{ErrorKind, Reply, RpcError};
use super::session::{Held, Session};
use crate::generation::Deadline;
use crate::http::transport::messages::{ChargedText, End, Incoming, Source, asked_to_close};
use crate::memory::Charge;

/// What is kept of the time for draining to say that it is over.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Messages in progress may have so many times the bytes that one may have.
const LARGE_MESSAGES: usize = 2;

/// Answers messages until the connection ends.
pub(super) async fn pump(
    source: &mut impl Source,
    session: &Session,
    outgoing: &Outgoing,
    closing: &mut watch::Receiver<bool>,
) -> End {
    // Futures in it are polled first in the order in which they were added.
    let mut answers = FuturesUnordered::new();
    // Sent beside the answers, which may have to be sent before it.
    let mut refusals = FuturesUnordered::new();
    let end = loop {
        tokio::select! {
            biased;
            Some(sent) = answers.next() => {
                if let Err(end) = sent {
                    return end;
                }
            }
            Some(sent) = refusals.next() => {
                if let Err(end) = sent {
                    return end;
                }
            }
            () = outgoing.given_up() => return End::SlowReader,
            () = asked_to_close(closing) => break End::ShuttingDown,
            // A client that does not read its refusals is not listened to.
            incoming = source.next(), if refusals.is_empty() => match incoming {
                Incoming::Left => return End::ClientLeft,
                Incoming::Unreadable(end) => {
                    if let End::TooSlow { .. } = end {
                        session.rpc.engine.metrics().deadline_passed(Deadline::Message);
                    }
                    break end;
                }
                Incoming::Message(text) => match begin(session, answers.len(), &text.text) {
                    Err(error) => {
                        refusals.push(send(outgoing, session.refuse(text, &error)));
                    }
                    Ok(begun) => answers.push(answer(session, begun, outgoing, text)),
                },
            },
        }
    };
    if let Some(error) = end.error() {
        // They would be in its way, and are not wanted any more.
        drop((answers, refusals));
        let _ = send(outgoing, Some(Reply::error(&error).into())).await;
    } else if end == End::ShuttingDown {
        // What is under way may end. The last of the time is for telling why the rest did not.
        let rest = async {
            while let Some(Ok(())) = answers.next().await {}
            drop(answers);
            session.finish().await;
        };
        let drain = session.rpc.drain;
        let mut rest = std::pin::pin!(rest);
        let limit = drain.saturating_sub(LAST_WORDS).max(drain / 2);
        if tokio::time::timeout(limit, &mut rest).await.is_err() {
            session.rpc.cut_off_runs();
            rest.await;
        }
    }
    end
}

async fn answer(
    session: &Session,
    (_held, charge): (Held, Charge),
    outgoing: &Outgoing,
    text: ChargedText,
) -> Result<(), End> {
    let answer = session.answer(text, charge).await;
    send(outgoing, answer.message).await?;
    session.in_background(answer.afterwards);
    Ok(())
}

/// What another message takes while so many are answered; or why it is not.
fn begin(session: &Session, messages: usize, text: &[u8]) -> Result<(Held, Charge), RpcError> {
    let bytes = session.held_bytes();
    let settings = &session.rpc.settings;
    let most_bytes = settings.message_limit_bytes.saturating_mul(LARGE_MESSAGES);
    let reason = if messages >= settings.max_calls {
        format!("{messages} messages are being answered (rpc.max-calls)")
    } else if bytes + text.len() > most_bytes {
        format!("messages of {bytes} bytes are being answered, and {most_bytes} may be")
    } else {
        let charge = session.charge_for(text)?;
        return Ok((session.hold(text.len()), charge));
    };
    Err(RpcError::new(ErrorKind::LimitReached, reason))
}

async fn send(outgoing: &Outgoing, answer: Option<Outbound>) -> Result<(), End> {
    let Some(answer) = answer else { return Ok(()) };
    outgoing
        .send_answer(answer)
        .await
        .map_err(|error| match error {
            NotSent::SlowReader(_) => End::SlowReader,
            NotSent::Gone => End::ClientLeft,
        })
}

impl End {
    /// What the client is told of it in a message.
    fn error(&self) -> Option<RpcError> {
        if let Self::OverBudget(over) = self {
            return Some(RpcError::of_budget(*over));
        }
        if let Self::TooSlow {
            stall,
            bytes_per_second,
        } = self
        {
            let error = RpcError::new(
                ErrorKind::DeadlinePassed,
                format!(
                    "a message goes on arriving, each {} ms and with {bytes_per_second} bytes a second",
                    stall.as_millis()
                ),
            );
            return Some(
                error
                    .with("deadline", Deadline::Message.name())
                    .with(
                        "limit_ms",
                        u64::try_from(stall.as_millis()).unwrap_or(u64::MAX),
                    )
                    .with("bytes_per_second", *bytes_per_second),
            );
        }
        let message = match self {
            Self::TooLong { limit_bytes } => {
                format!("a message has at most {limit_bytes} bytes (rpc.message-limit-bytes)")
            }
            Self::NotText => "a message is text".to_owned(),
            Self::NotUtf8 => "a message is text in UTF-8".to_owned(),
            Self::ClientLeft
            | Self::ShuttingDown
            | Self::TooOld
            | Self::SlowReader
            | Self::ShutOut
            | Self::OverBudget(_)
            | Self::TooSlow { .. }
            | Self::Broken => return None,
        };
        Some(RpcError::new(ErrorKind::InvalidRequest, message))
    }
}
