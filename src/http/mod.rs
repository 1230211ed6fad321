//! Listener, router and dialects.
