//! From a socket to a request and back: who may connect, how long a connection may take, and which
//! hosts and origins are let in. Nothing here knows what a request asks for.

pub(crate) mod accept;
pub(crate) mod connection;
pub(crate) mod cors;
pub(crate) mod host_guard;
pub(crate) mod listener;
pub(crate) mod messages;
pub(crate) mod origin;
mod places;
pub(crate) mod seats;
pub(crate) mod socket;
pub(in crate::http) mod transfer_coding;
pub(crate) mod unix_socket;
pub(crate) mod websocket;
