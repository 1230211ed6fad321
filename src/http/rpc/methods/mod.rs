//! What can be called. A method is one type: its name, its parameters, its result and the errors it
//! may give. Dispatch, positions of parameters, `rpc.discover` and the documentation all come from
//! that one definition.

mod calls;
mod definition;
mod failure;
mod handle_reset;
mod life;
mod result;
mod run;
mod running;
mod tensor;

use std::sync::LazyLock;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::protocol::{ErrorKind, Params, RpcError};
use super::session::{self, Afterwards, Session};
pub(super) use definition::Definition;

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

    fn call(
        scope: Scope<'_>,
        params: Self::Params,
    ) -> impl Future<Output = Result<Self::Result, RpcError>> + Send;
}

/// What a call may use.
pub(super) struct Scope<'a> {
    pub session: &'a Session,
    /// What begins once the answer is sent.
    pub afterwards: &'a mut Vec<Afterwards>,
}

macro_rules! methods {
    ($($method:ty),* $(,)?) => {
        /// All methods, in the order of the documentation.
        static DEFINITIONS: LazyLock<Vec<Definition>> =
            LazyLock::new(|| vec![$(Definition::of::<$method>()),*]);

        /// Makes a call; the result is JSON text.
        pub(super) async fn call(
            session: &Session,
            afterwards: &mut Vec<Afterwards>,
            name: &str,
            params: &Params,
        ) -> Result<Box<RawValue>, RpcError> {
            let scope = Scope { session, afterwards };
            $(if name == <$method>::NAME {
                return Box::pin(invoke::<$method>(scope, params)).await;
            })*
            Err(RpcError::new(
                ErrorKind::MethodNotFound,
                format!("no method `{}`; `rpc.discover` lists them", crate::http::request_error::quote(name)),
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

/// All methods.
pub(super) fn definitions() -> &'static [Definition] {
    &DEFINITIONS
}

async fn invoke<M: Method>(scope: Scope<'_>, params: &Params) -> Result<Box<RawValue>, RpcError> {
    let names = definitions()
        .iter()
        .find(|definition| definition.name == M::NAME)
        .map_or(&[][..], |definition| &definition.positions);
    let params = session::read(params, names)?;
    let result = M::call(scope, params).await?;
    serde_json::value::to_raw_value(&result)
        .map_err(|error| RpcError::new(ErrorKind::InternalError, error.to_string()))
}
