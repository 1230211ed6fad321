//! Pages that show the daemon and its models, and describe what it answers.

pub(crate) mod admin;
pub(crate) mod health;
pub(crate) mod loading_progress;
pub(crate) mod metrics;
pub(crate) mod openapi;
pub(crate) mod readiness;
pub(crate) mod status;
