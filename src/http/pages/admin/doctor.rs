//! `GET /v1/doctor`: what `rkllmd doctor` finds, from inside the daemon. One examination at a time is made, however
//! many ask, and none of them waits longer than it may take.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::apart::{self, Subject};
use crate::generation::GenerationError;
use crate::http::HttpState;
use crate::http::request::error::RequestError;
use crate::http::response::error_body::ErrorBody;

/// More than an examination allows itself.
const LIMIT: Duration = Duration::from_secs(5);

/// Makes a report, as JSON.
pub type Examine = dyn Fn() -> String + Send + Sync;

/// What is found.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the API's description is made of it")]
pub(crate) struct DoctorReport {
    checks: Vec<DoctorCheck>,
}

/// One check.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the API's description is made of it")]
pub(crate) struct DoctorCheck {
    /// Stays the same from release to release.
    #[schema(example = "driver.version")]
    id: String,
    /// `ok`, `warn`, `fail`, or `skip` where it cannot be told or does not concern this machine.
    #[schema(example = "ok")]
    status: String,
    /// What was found.
    observed: String,
    /// Null: there is nothing to compare with.
    #[schema(required)]
    expected: Option<String>,
    /// What to type. Null: nothing is to be done.
    #[schema(required)]
    remedy: Option<String>,
    /// Where the documents say more.
    doc: String,
}

/// Shares an examination that is under way.
pub(in crate::http) struct Doctor {
    examine: Arc<Examine>,
    under_way: Mutex<Option<watch::Receiver<Option<Bytes>>>>,
}

impl Doctor {
    pub fn new(examine: Arc<Examine>) -> Self {
        Self {
            examine,
            under_way: Mutex::default(),
        }
    }

    /// `None`: it was not through in time.
    async fn report(self: &Arc<Self>) -> Option<Bytes> {
        let mut told = self.joined();
        let report = told.wait_for(Option::is_some).await.ok()?;
        report.clone()
    }

    /// The examination that is under way, or a new one. It goes on when who asked for it has left.
    fn joined(self: &Arc<Self>) -> watch::Receiver<Option<Bytes>> {
        let mut under_way = self.lock();
        if let Some(told) = &*under_way {
            return told.clone();
        }
        let (tell, told) = watch::channel(None);
        *under_way = Some(told.clone());
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let examine = Arc::clone(&this.examine);
            let report = apart::ask(Subject::Doctor, LIMIT, move || examine()).await;
            // Who asks from now on has another one made.
            *this.lock() = None;
            if let Some(report) = report {
                tell.send_replace(Some(Bytes::from(report)));
            }
        });
        told
    }

    fn lock(&self) -> MutexGuard<'_, Option<watch::Receiver<Option<Bytes>>>> {
        // Whole after every statement.
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Examine the machine
///
/// The checks of `rkllmd doctor`, made by the daemon's user with the settings that it runs with. It takes up to
/// three seconds; several who ask at the same time share one examination.
#[utoipa::path(get, path = "/v1/doctor", tag = "admin",
    responses(
        (status = 200, description = "The report, as `rkllmd doctor --json` prints it", body = DoctorReport),
        (status = 500, description = "The examination did not end in time", body = ErrorBody)))]
pub(crate) async fn examine(
    State(state): State<Arc<HttpState>>,
) -> Result<impl IntoResponse, RequestError> {
    let report = match &state.doctor {
        Some(doctor) => doctor.report().await,
        None => None,
    };
    let report = report.ok_or_else(|| RequestError::Generation {
        error: GenerationError::Internal("the machine could not be examined in time".to_owned()),
        prompt_param: "",
    })?;
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json)], report))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn who_asks_meanwhile_shares_the_examination() {
        let (go_on, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let doctor = Arc::new(Doctor::new(Arc::new(move || {
            let number = count.fetch_add(1, Ordering::SeqCst);
            gate.lock().unwrap().recv().unwrap();
            number.to_string()
        })));
        let mut asking: Vec<_> = (0..20).map(|_| doctor.joined()).collect();
        go_on.send(()).unwrap();
        for told in &mut asking {
            let report = told.wait_for(Option::is_some).await.unwrap().clone();
            assert_eq!(report.as_deref(), Some(&b"0"[..]));
        }
        assert_eq!(made.load(Ordering::SeqCst), 1);
        go_on.send(()).unwrap();
        let next = doctor.report().await;
        assert_eq!(next.as_deref(), Some(&b"1"[..]));
    }
}
