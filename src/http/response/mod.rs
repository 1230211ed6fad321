//! What answers have in common, whatever they say: their memory charged until they are sent, the
//! frames of streams, and the shape of an error by the path that was asked for.

pub(crate) mod append_json;
pub(crate) mod charged_body;
pub(crate) mod clock;
pub(crate) mod error_body;
pub(crate) mod error_shape;
pub(crate) mod event_writer;
pub(crate) mod model_view;
pub(crate) mod ndjson;
pub(crate) mod notices;
pub(crate) mod silence;
pub(crate) mod sse;
pub(crate) mod stream_body;
