//! Reads a body as it arrives: bounded in size, and in time without progress.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::BodyExt;

use crate::http::request::content_coding::{Decoded, Refused, SLICE_BYTES};
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::pace::{Pace, SlowestPace};

/// How much of a refused body is read and thrown away, and for how long: a connection that is
/// closed with unread bytes is reset, and then the client may never see why.
const DISCARD_BYTES: usize = 64 * 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// Bytes of a body are charged in steps of this size.
const STEP_BYTES: usize = 16 * 1024;

/// The whole body, decoded and charged to the request. Bytes that drip in hold a connection, and the
/// memory of what has arrived, for a bounded time.
pub(crate) async fn read(
    context: &RequestContext,
    headers: &HeaderMap,
    mut body: Body,
    limit_bytes: usize,
    slowest: SlowestPace,
) -> Result<Bytes, RequestError> {
    let account = context.account();
    // With less memory than the limit of a body, the memory is the limit.
    let limit_bytes = limit_bytes.min(account.most_bytes());
    let too_large = RequestError::BodyTooLarge { limit_bytes };
    let announced: Option<u64> = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length| length > limit_bytes as u64) {
        // A client that waits for `100 Continue` has sent nothing yet and reads the refusal.
        if !headers.contains_key(header::EXPECT) {
            discard(body).await;
        }
        return Err(too_large);
    }
    let mut whole = match Decoded::new(headers, limit_bytes) {
        Ok(whole) => whole,
        Err(error) => {
            if !headers.contains_key(header::EXPECT) {
                discard(body).await;
            }
            return Err(error);
        }
    };
    let mut arrived = 0u32;
    if let Some(length) = announced.and_then(|length| usize::try_from(length).ok()) {
        whole.expect(length);
    }
    let mut pace = Pace::new(slowest);
    loop {
        if pace.is_too_slow(arrived) && account.is_scarce() {
            return Err(RequestError::BodyTooSlow {
                bytes_per_second: slowest.rate_while_scarce,
            });
        }
        let patience = pace.patience(arrived);
        let frame = match tokio::time::timeout(patience, body.frame()).await {
            Err(_) if arrived > 0 && patience < slowest.stall => {
                return Err(RequestError::BodyTooSlow {
                    bytes_per_second: slowest.rate,
                });
            }
            Err(_) => {
                return Err(RequestError::BodyStalled {
                    seconds: slowest.stall.as_secs(),
                });
            }
            Ok(None) => {
                return whole.finish().map_err(|refused| match refused {
                    Refused::TooLarge => too_large,
                    Refused::Broken(error) => badly_coded(&error),
                });
            }
            Ok(Some(Err(error))) => return Err(broken(error)),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        arrived = arrived.saturating_add(u32::try_from(piece.len()).unwrap_or(u32::MAX));
        let slice = match whole.is_coded() {
            true => SLICE_BYTES,
            false => piece.len().max(1),
        };
        for slice in piece.chunks(slice) {
            let taken = whole.push(slice).map_err(|refused| match refused {
                Refused::TooLarge => too_large.clone(),
                Refused::Broken(error) => badly_coded(&error),
            });
            let steps = whole.len().div_ceil(STEP_BYTES);
            if let Err(error) = taken.and_then(|()| Ok(context.hold(steps * STEP_BYTES)?)) {
                drop(whole);
                context.keep(0);
                discard(body).await;
                return Err(error);
            }
            if whole.is_coded() {
                tokio::task::yield_now().await;
            }
        }
    }
}

fn badly_coded(error: &io::Error) -> RequestError {
    RequestError::BodyBroken {
        reason: format!("it is not what `content-encoding` says: {error}"),
    }
}

fn broken(error: axum::Error) -> RequestError {
    let first: &(dyn std::error::Error + 'static) = &error;
    let connection_ended = std::iter::successors(Some(first), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
            )
        });
    if connection_ended {
        RequestError::ClientLeft
    } else {
        RequestError::BodyBroken {
            reason: error.to_string(),
        }
    }
}

async fn discard(mut body: Body) {
    let mut left = DISCARD_BYTES;
    // Either way the refusal is sent now.
    let _ = tokio::time::timeout(DISCARD_TIME, async {
        while let Some(Ok(frame)) = body.frame().await {
            let read = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(read) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    })
    .await;
}
