//! A request, whatever it asks for: who sent it, what may be told to them, its body read within
//! limits, and everything that can be wrong with it. No dialect is known here.

pub(crate) mod access;
pub(crate) mod anthropic_version;
pub(crate) mod audit;
pub(crate) mod body;
pub(crate) mod content_coding;
pub(crate) mod context;
mod disclosure;
pub(crate) mod endpoints;
pub(crate) mod error;
pub(crate) mod free_form;
pub(crate) mod half_pairs;
pub(crate) mod id;
pub(crate) mod installed;
pub(crate) mod json_weight;
pub(crate) mod json_words;
pub(crate) mod live;
pub(crate) mod live_run;
pub(crate) mod nul;
pub(crate) mod numbers;
pub(crate) mod pace;
pub(crate) mod parsed;
pub(crate) mod paths;
pub(crate) mod together;
pub(crate) mod unread;
