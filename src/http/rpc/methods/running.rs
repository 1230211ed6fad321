//! What goes beside a run.

use super::calls::{Done, HandleParam};
use super::{Method, Scope, failure};
use crate::http::rpc::protocol::{ErrorKind, RpcError};
use crate::library_calls::RunningAnswer;

pub(crate) struct Abort;

impl Method for Abort {
    const NAME: &'static str = "rkllm.abort";
    const SUMMARY: &'static str = "Ends the handle's run; it answers with what was generated. The library \
        does not interrupt a prefill, so the run may end somewhat later. Without a run nothing happens.";
    const ERRORS: &'static [ErrorKind] = super::calls::CALL_ERRORS;
    type Params = HandleParam;
    type Result = Done;

    async fn call(scope: Scope<'_>, params: HandleParam) -> Result<Done, RpcError> {
        let session = scope.session;
        let aborted = session.handle(&params.handle)?.abort().await;
        aborted.map_err(|error| failure::of(error, &session.caller))?;
        Ok(Done::default())
    }
}

pub(crate) struct IsRunning;

impl Method for IsRunning {
    const NAME: &'static str = "rkllm.is_running";
    const SUMMARY: &'static str = "Asks the library whether the handle runs. Where the library does not \
        answer within deadlines.control-call, the daemon answers from what it knows, and says so.";
    const ERRORS: &'static [ErrorKind] = super::calls::CALL_ERRORS;
    type Params = HandleParam;
    type Result = RunningAnswer;

    async fn call(scope: Scope<'_>, params: HandleParam) -> Result<RunningAnswer, RpcError> {
        let session = scope.session;
        let answer = session.handle(&params.handle)?.is_running().await;
        answer.map_err(|error| failure::of(error, &session.caller))
    }
}
