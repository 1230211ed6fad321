//! What a worker loads, and what it tells of the library that it has opened.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::deadlines::WorkerDeadlines;
use crate::confinement::{Reach, Right};
use crate::generation::SamplingRequest;
use crate::library_calls::{LoraAdapter, ModelShape, Param};

/// The library to open and the model to load with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadSpec {
    pub library: PathBuf,
    pub assume_family: Option<String>,
    pub model: PathBuf,
    /// As far as the model's files tell.
    pub shape: ModelShape,
    pub handles: Handles,
    pub deadlines: WorkerDeadlines,
    /// What the worker gives up all else for before it opens the library; `None`: it gives nothing up.
    pub walls: Option<WorkerWalls>,
}

/// What a worker may reach beside its library and its model, and the folders of its own, which it makes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerWalls {
    pub reach: Reach,
    pub own: Vec<(PathBuf, Right)>,
}

/// What is opened, and for whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Handles {
    /// Those of requests, whose prompts are rendered.
    OfRequests(Box<RequestHandles>),
    /// One of a client of the vendor's API: these parameters and no other, the model's own template,
    /// and only raw runs.
    OfClient(Box<Param>),
}

impl Handles {
    /// How many slots they make.
    pub fn count(&self) -> u8 {
        match self {
            Self::OfRequests(handles) => handles.count.max(1),
            Self::OfClient(_) => 1,
        }
    }

    /// How many there are, each of which loads the files.
    pub fn copies(&self) -> u8 {
        match self.is_batch() {
            true => 1,
            false => self.count(),
        }
    }

    /// They have their room together, where the library knows of it.
    pub fn share_a_pool(&self) -> bool {
        matches!(self, Self::OfRequests(handles) if handles.pool_tokens.is_some())
    }

    /// The slots are sequences of one handle.
    pub fn is_batch(&self) -> bool {
        matches!(self, Self::OfRequests(handles) if handles.is_batch)
    }
}

/// Handles that are alike.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RequestHandles {
    /// Slots, at least 1.
    pub count: u8,
    /// They are sequences of one handle, whose runs begin together (`n_batch`).
    pub is_batch: bool,
    /// Tokens.
    pub context_length: u32,
    /// Tokens that all of them hold together at most, where the library lets them share; `None`: each has
    /// its own context.
    pub pool_tokens: Option<u32>,
    /// Tokens per answer where the family fixes it at init.
    pub max_new_tokens: Option<u32>,
    pub sampling: SamplingRequest,
    pub cpu_mask: Option<u32>,
    pub base_domain_id: Option<i32>,
    /// Token ids that end an answer even if the runtime ignores them.
    pub eos_ids: Vec<i32>,
    /// The runtime prints special tokens.
    pub prints_special_tokens: bool,
    /// What each loads once, for runs that choose one. Their paths are real ones here.
    pub adapters: Vec<LoraAdapter>,
}

/// What is known about a library once it is open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LibraryFacts {
    pub path: PathBuf,
    pub version: String,
    pub family: String,
    /// What its `rkllm_createDefaultParam` returned.
    pub defaults: Box<Param>,
}
