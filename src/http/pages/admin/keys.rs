//! `/v1/admin/keys`: what `rkllmd keys` does, over HTTP. A plaintext is in the answer that makes its key and nowhere
//! else. A change is on the disk and in force before it is answered.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::authority::Authority;
use crate::apart::{self, Subject};
use crate::auth::{
    self, ApiKey, KeyName, Keyring, KeyringError, KeysFile, KeysFileError, Role, Secret,
};
use crate::generation::{GenerationError, Weight};
use crate::http::HttpState;
use crate::http::request::access::Rule;
use crate::http::request::audit::Auditor;
use crate::http::request::body::fields;
use crate::http::request::context::RequestContext;
use crate::http::request::error::{RequestError, quote};
use crate::http::request::parsed::parsed;
use crate::http::response::error_body::ErrorBody;
use crate::settings::AuthPolicy;

/// A disk that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(5);
/// Likewise for the keys to be read anew.
const IN_FORCE: Duration = Duration::from_secs(5);

/// All keys.
#[derive(Serialize, ToSchema)]
pub(crate) struct KeyList {
    /// `keys`, or `none` where no listener but a Unix socket asks for keys, as `http.auth` has it.
    #[schema(example = "keys")]
    auth: &'static str,
    /// Those that are in force, in the order in which they were made.
    keys: Vec<KeyView>,
    /// Why the file of keys cannot be followed now; null: it can be.
    #[schema(required)]
    trouble: Option<String>,
}

/// A key, without what opens anything.
#[derive(Serialize, ToSchema)]
pub(crate) struct KeyView {
    /// Which it is known by.
    name: String,
    /// `user` or `admin`.
    #[schema(example = "user")]
    role: String,
    /// The models it may use, by id or alias; null: all of them.
    #[schema(required)]
    models: Option<Vec<String>>,
    /// Its share beside other keys that wait as well.
    weight: u32,
    /// Keys of one tenant share what is cached of their prompts; null: that of all keys that name none.
    #[schema(required)]
    tenant: Option<String>,
    /// When it was made.
    #[schema(example = "2026-01-01T00:00:00Z")]
    created: String,
}

/// The key that is to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewKey {
    /// 1 to 64 letters, digits, `.`, `_`, `@` or `-`.
    #[schema(
        required,
        nullable = false,
        pattern = "^[A-Za-z0-9._@][A-Za-z0-9._@-]{0,63}$"
    )]
    name: Option<String>,
    /// `user` or `admin`. Default `user`.
    #[schema(pattern = "^(user|admin)$", example = "user")]
    role: Option<String>,
    /// The models it may use, by id or alias. Default: all.
    #[schema(min_items = 1)]
    models: Option<Vec<String>>,
    /// Its share beside other keys that wait as well. Default 1.
    #[schema(minimum = 1, maximum = 100)]
    weight: Option<i64>,
    /// Default: that of all keys that name none.
    #[schema(pattern = "^[A-Za-z0-9._@][A-Za-z0-9._@-]{0,63}$")]
    tenant: Option<String>,
}

/// It is made.
#[derive(Serialize, ToSchema)]
pub(crate) struct MadeKey {
    key: KeyView,
    /// The key itself, which is shown only now.
    secret: String,
    /// Whether it works already. False: the daemon could not read the file anew in time.
    in_force: bool,
    /// As in the list of keys.
    #[schema(example = "keys")]
    auth: &'static str,
}

/// It is revoked.
#[derive(Serialize, ToSchema)]
pub(crate) struct RevokedKey {
    /// The key's.
    name: String,
    /// Always true.
    #[schema(example = true)]
    revoked: bool,
    /// Whether it is refused already. False: the daemon could not read the file anew in time.
    in_force: bool,
}

impl KeyView {
    fn of(key: &ApiKey) -> Self {
        Self {
            name: key.name.to_string(),
            role: key.role.to_string(),
            models: key.models.clone(),
            weight: key.weight.get(),
            tenant: key.tenant.as_ref().map(ToString::to_string),
            created: key.created.clone(),
        }
    }
}

fn policy(state: &HttpState) -> &'static str {
    match state.http.auth {
        AuthPolicy::Keys => "keys",
        AuthPolicy::None => "none",
    }
}

/// List the keys
///
/// Those that are in force, without anything that opens.
#[utoipa::path(get, path = "/v1/admin/keys", tag = "admin",
    responses((status = 200, description = "The keys", body = KeyList)))]
pub(crate) async fn list_keys(State(state): State<Arc<HttpState>>) -> Json<KeyList> {
    let keyring = state.keys.get().unwrap_or_default();
    Json(KeyList {
        auth: policy(&state),
        keys: keyring.keys().map(KeyView::of).collect(),
        trouble: state.keys.trouble().map(|trouble| trouble.to_string()),
    })
}

/// Make a key
///
/// It is written down as `rkllmd keys add` does, and works when this is answered. The key itself is in this answer
/// and nowhere else. The first key there is makes listeners ask for keys, where `http.auth` has it so; made without a
/// key on such a listener it must be an admin's.
#[utoipa::path(post, path = "/v1/admin/keys", tag = "admin", request_body(content = NewKey),
    responses(
        (status = 201, description = "It is made", body = MadeKey),
        (status = 400, description = "The request is wrong; `param` says where", body = ErrorBody),
        (status = 403, description = "It would be for models that the own key is not for", body = ErrorBody),
        (status = 409, description = "There is one of this name, or the file of keys cannot be written", body = ErrorBody),
        (status = 503, description = "The file of keys cannot be read, or does not answer: then it is not known \
            whether the key was made", body = ErrorBody)))]
pub(crate) async fn create_key(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, RequestError> {
    let context = RequestContext::of(request.extensions());
    let rule = request.extensions().get().copied().unwrap_or(Rule::Keys);
    let wanted = parsed(&state, &context, request, wanted).await?;
    let secret = Secret::generate().map_err(|error| {
        let error = GenerationError::Internal(format!("making a key: {error}"));
        RequestError::Generation {
            error,
            prompt_param: "",
        }
    })?;
    let key = ApiKey {
        digest: secret.digest(),
        created: auth::creation_time(),
        ..wanted
    };
    let added = key.clone();
    let done = Done::by(&context, "added a key", &key.name);
    let authority = Authority {
        rule,
        caller: context.caller.clone(),
    };
    change(&state, done, move |keyring| {
        authority.may_add(keyring, &added)?;
        Ok(keyring.add(added).map_err(KeysFileError::Refused)?)
    })
    .await?;
    let is_there =
        |keyring: Option<&Keyring>| keyring.is_some_and(|now| now.find_again(&key).is_some());
    let made = MadeKey {
        in_force: in_force(&state, is_there).await,
        key: KeyView::of(&key),
        secret: secret.plaintext().to_owned(),
        auth: policy(&state),
    };
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

/// Revoke a key
///
/// It is refused when this is answered; answers that are under way go on. The last key of an admin is not revoked
/// over HTTP: 409.
#[utoipa::path(delete, path = "/v1/admin/keys/{name}", tag = "admin",
    params(("name" = String, Path, description = "Name of the key")),
    responses(
        (status = 200, description = "It is revoked", body = RevokedKey),
        (status = 403, description = "It is for models that the own key is not for", body = ErrorBody),
        (status = 404, description = "There is no such key", body = ErrorBody),
        (status = 409, description = "It is the last of an admin, or the file of keys cannot be written", body = ErrorBody),
        (status = 503, description = "The file of keys cannot be read, or does not answer: then it is not known \
            whether the key was revoked", body = ErrorBody)))]
pub(crate) async fn revoke_key(
    State(state): State<Arc<HttpState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    Extension(rule): Extension<Rule>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<RevokedKey>, RequestError> {
    // What is no UTF-8 is the name of no key.
    let given = name.map_or_else(|_| String::new(), |Path(name)| name);
    let name: KeyName = given.parse().map_err(|_| RequestError::UnknownKey {
        name: quote(&given),
    })?;
    let revoked = name.clone();
    let done = Done::by(&context, "revoked a key", &name);
    let authority = Authority {
        rule,
        caller: context.caller.clone(),
    };
    change(&state, done, move |keyring| {
        let key = keyring.keys().find(|key| key.name == revoked);
        authority.may_revoke(keyring, key)?;
        let done = keyring.revoke_but_the_last_admin(&revoked);
        Ok(done.map_err(KeysFileError::Refused)?)
    })
    .await?;
    let is_gone = |keyring: Option<&Keyring>| {
        keyring.is_none_or(|now| now.keys().all(|key| key.name != name))
    };
    Ok(Json(RevokedKey {
        in_force: in_force(&state, is_gone).await,
        name: given,
        revoked: true,
    }))
}

/// The key that a body asks for, which still has no plaintext and no time.
fn wanted(
    _state: &HttpState,
    _context: &RequestContext,
    body: &[u8],
) -> Result<ApiKey, RequestError> {
    let asked: NewKey = fields(body)?;
    let name = asked.name.ok_or_else(|| RequestError::missing("name"))?;
    let is_name = |param: &'static str, name: String| {
        let parsed = name.parse::<KeyName>();
        parsed.map_err(|must| RequestError::out_of_range(param, format!("is no name: {must}")))
    };
    let role = match asked.role.as_deref() {
        None | Some("user") => Role::User,
        Some("admin") => Role::Admin,
        Some(_) => {
            let must = "must be `user` or `admin`";
            return Err(RequestError::out_of_range("role", must));
        }
    };
    if asked.models.as_ref().is_some_and(Vec::is_empty) {
        let must = "must not be empty; leave it out to allow all models";
        return Err(RequestError::out_of_range("models", must));
    }
    let weight = match asked.weight {
        None => Weight::default(),
        Some(weight) => {
            let weight = Weight::try_from(u32::try_from(weight).unwrap_or(0));
            let must = format!("must be from 1 to {}", Weight::MOST);
            weight.map_err(|_| RequestError::out_of_range("weight", must))?
        }
    };
    let tenant = asked.tenant.map(|tenant| is_name("tenant", tenant));
    Ok(ApiKey {
        name: is_name("name", name)?,
        digest: auth::KeyDigest::of(b""),
        role,
        models: asked.models,
        weight,
        tenant: tenant.transpose()?,
        created: String::new(),
    })
}

/// A change as the log tells it.
struct Done {
    auditor: Auditor,
    did: &'static str,
    name: String,
}

impl Done {
    fn by(context: &RequestContext, did: &'static str, name: &KeyName) -> Self {
        Self {
            auditor: context.auditor(),
            did,
            name: name.to_string(),
        }
    }
}

/// Changes the file of keys beside the threads that serve, and has it read anew. What was done is written down
/// also where its client has left meanwhile.
async fn change(
    state: &HttpState,
    done: Done,
    change: impl FnOnce(&mut Keyring) -> Result<(), RequestError> + Send + 'static,
) -> Result<(), RequestError> {
    let file = KeysFile::new(&state.http.keys_file);
    let subject = Subject::KeysChange(state.http.keys_file.clone());
    let keys = state.keys.clone();
    let changed = apart::ask(subject, LIMIT, move || {
        let changed = file.change(change);
        if changed.is_ok() {
            done.auditor.tell(done.did, &done.name);
            keys.look_now();
        }
        changed
    });
    match changed.await {
        Some(changed) => changed,
        None => Err(RequestError::KeysUnavailable {
            reason: format!(
                "their file does not answer within {} s, and whether they were changed is not known",
                LIMIT.as_secs()
            ),
        }),
    }
}

impl From<KeysFileError> for RequestError {
    fn from(error: KeysFileError) -> Self {
        use KeyringError as R;
        match error {
            KeysFileError::Refused(R::NameTaken(name)) => Self::KeyNameTaken { name },
            KeysFileError::Refused(R::NoSuchKey(name)) => Self::UnknownKey { name },
            KeysFileError::Refused(R::LastAdmin(name)) => Self::LastAdminKey { name },
            error @ (KeysFileError::Unwritable { .. }
            | KeysFileError::Refused(_)
            | KeysFileError::NoRandomness(_)) => Self::KeysNotWritable {
                reason: error.to_string(),
            },
            error @ (KeysFileError::Unreadable { .. } | KeysFileError::Wrong { .. }) => {
                Self::KeysUnavailable {
                    reason: error.to_string(),
                }
            }
        }
    }
}

/// Whether the keys are so, at once or soon.
async fn in_force(state: &HttpState, are: impl FnMut(Option<&Keyring>) -> bool) -> bool {
    let waiting = tokio::time::timeout(IN_FORCE, state.keys.wait_for(are));
    waiting.await.is_ok()
}
