//! What can be called. A method is one type: its name, its parameters, its result and the errors it
//! may give. Dispatch, positions of parameters, `rpc.discover` and the documentation all come from
//! that one definition.

mod calls;
mod counts;
mod definition;
mod failure;
mod handle_reset;
mod inputs;
mod life;
mod result;
mod run;
mod running;
mod tensor;

use std::sync::LazyLock;

use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use super::outbound::Outbound;
use super::protocol::{ErrorKind, Params, RpcError};
use super::session::{self, Afterwards, Session};
use crate::aside::aside;
use crate::memory::Charge;
use counts::CountedCall;
pub(super) use definition::Definition;
pub(super) use tensor::TensorForm;

/// One method.
pub(super) trait Method {
    const NAME: &'static str;
    /// What it does, in a sentence or a few.
    const SUMMARY: &'static str;
    /// Errors of its own, beside those every method may give.
    const ERRORS: &'static [ErrorKind];
    /// Its fields are the parameters, their order is their positions.
    type Params: DeserializeOwned + ToSchema + Send;
    type Result: Serialize + ToSchema + Send;

    /// About how many bytes the result is, without tensors, where it may be large.
    fn size(_: &Self::Result) -> usize {
        0
    }

    fn call(
        scope: Scope<'_>,
        params: Self::Params,
    ) -> impl Future<Output = Result<Self::Result, RpcError>> + Send;
}

/// What a call may use.
pub(super) struct Scope<'a> {
    pub session: &'a Session,
    /// Of the parameters' text.
    pub bytes: usize,
    /// What is charged for the answer; a result that is large is charged before it is made.
    pub charge: &'a mut Charge,
    /// What begins once the answer is sent.
    pub afterwards: &'a mut Vec<Afterwards>,
}

macro_rules! methods {
    ($($method:ty),* $(,)?) => {
        /// All methods, in the order of the documentation.
        static DEFINITIONS: LazyLock<Vec<Definition>> =
            LazyLock::new(|| vec![$(Definition::of::<$method>()),*]);

        async fn dispatch(
            scope: Scope<'_>,
            name: &str,
            params: Params,
        ) -> Result<Outbound, RpcError> {
            $(if name == <$method>::NAME {
                return Box::pin(invoke::<$method>(scope, params)).await;
            })*
            Err(RpcError::new(
                ErrorKind::MethodNotFound,
                format!("no method `{}`; `rpc.discover` lists them", crate::http::request::error::quote(name)),
            ))
        }
    };
}

methods![
    life::CreateDefaultParam,
    life::Init,
    run::Run,
    run::RunAsync,
    running::Abort,
    running::IsRunning,
    calls::LoadLora,
    calls::LoadPromptCache,
    calls::ReleasePromptCache,
    calls::ClearKvCache,
    calls::GetKvCacheSize,
    calls::SetChatTemplate,
    calls::SetFunctionTools,
    calls::SetCrossAttnParams,
    life::Destroy,
    super::open_rpc::Discover,
];

/// Makes a call; the result is JSON.
pub(super) async fn call(
    session: &Session,
    (charge, afterwards): (&mut Charge, &mut Vec<Afterwards>),
    name: &str,
    params: Params,
) -> Result<Outbound, RpcError> {
    let counted = CountedCall::new(session.rpc.engine.metrics(), name);
    let scope = Scope {
        session,
        bytes: params.len(),
        charge,
        afterwards,
    };
    let result = dispatch(scope, name, params).await;
    counted.ended(&result);
    result
}

/// A call that is refused before anything is done.
pub(super) fn refused(session: &Session, name: &str, error: &RpcError) {
    CountedCall::new(session.rpc.engine.metrics(), name).refused(error);
}

/// All methods.
pub(super) fn definitions() -> &'static [Definition] {
    &DEFINITIONS
}

async fn invoke<M: Method>(scope: Scope<'_>, text: Params) -> Result<Outbound, RpcError> {
    let names = definitions()
        .iter()
        .find(|definition| definition.name == M::NAME)
        .map_or(&[][..], |definition| &definition.positions);
    let params = session::read(&text, names)?;
    // A call may take long, and its parameters' text may be large.
    drop(text);
    let result = M::call(scope, params).await?;
    Ok(aside(M::size(&result), || Outbound::of(&result)))
}
