//! How the loop is started: with what of the settings, inside which walls, and what it shares with the readers.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::event_loop::{EventLoop, Rules};
use super::handle::{HandleServices, LiveSettings};
use super::loading::Loader;
use super::memory_limits::Beside;
use super::walls::Walls;
use super::{Prefixes, Pulse, RunDeadlines, StatusBoard, Supervisor, prefixes};
use crate::children::memory::HeldBytes;
use crate::children::{ChildEnvironment, Host};
use crate::memory::{Accountant, machine, requests_limit};
use crate::models::Catalog;
use crate::reader::Readers;
use crate::settings::Settings;
use crate::telemetry::Metrics;

/// What the loop is given besides settings and models.
struct Services {
    metrics: Metrics,
    readers: HeldBytes,
    walls: Walls,
    /// And what they take of the machine's memory.
    prefixes: (Prefixes, HeldBytes),
}

impl Supervisor {
    /// Starts the loop and the thread that spawns workers. The loop gives the `pulse`. What the readers
    /// and the files of tensors hold is not left for workers.
    pub fn start(
        settings: &Settings,
        catalog: &Catalog,
        services: (Metrics, &Readers),
        pulse: Option<Pulse>,
    ) -> std::io::Result<(Self, StatusBoard)> {
        let (metrics, readers) = services;
        let memory = HeldBytes::default();
        // Before anything is served, so that nothing is held up.
        let prefixes = Prefixes::open(settings, metrics.clone(), memory.clone());
        let services = Services {
            metrics,
            readers: readers.held(),
            walls: Walls::of(settings, &prefixes),
            prefixes: (prefixes, memory),
        };
        let environment = own_environment(settings);
        let for_pinned = services.metrics.clone();
        let (this, status) = Self::start_in(environment, settings, catalog, services, pulse)?;
        prefixes::pinned::start(&this, &status, for_pinned);
        Ok((this, status))
    }

    /// As `start`, with the workers of another `rkllmd`: for a program that is none itself.
    pub fn start_with_workers_of(
        program: PathBuf,
        settings: &Settings,
        catalog: &Catalog,
        metrics: Metrics,
    ) -> std::io::Result<(Self, StatusBoard)> {
        let environment = own_environment(settings).with_program(program);
        let services = Services {
            metrics,
            readers: HeldBytes::default(),
            walls: Walls::of(settings, &Prefixes::default()),
            prefixes: Default::default(),
        };
        Self::start_in(environment, settings, catalog, services, None)
    }

    /// As `start`, for a program that goes by a daemon's settings beside it, and whose handles name no files: it keeps
    /// nothing, and makes nothing in the state folder.
    pub fn start_beside(
        settings: &Settings,
        catalog: &Catalog,
        metrics: Metrics,
    ) -> std::io::Result<(Self, StatusBoard)> {
        let services = Services {
            metrics,
            readers: HeldBytes::default(),
            walls: Walls::of(settings, &Prefixes::default()).without_state(),
            prefixes: Default::default(),
        };
        Self::start_in(own_environment(settings), settings, catalog, services, None)
    }

    fn start_in(
        environment: ChildEnvironment,
        settings: &Settings,
        catalog: &Catalog,
        services: Services,
        pulse: Option<Pulse>,
    ) -> std::io::Result<(Self, StatusBoard)> {
        let Services {
            metrics,
            readers,
            walls,
            prefixes: (prefixes, in_prefixes),
        } = services;
        let runtime = &settings.runtime;
        let tensors = Accountant::of_files(settings.library.tensors_held_limit_bytes);
        let beside = Beside {
            readers,
            tensors: tensors.clone(),
            prefixes: in_prefixes,
        };
        let loader = Loader {
            host: Host::start(environment)?,
            beside: beside.clone(),
            runtime: runtime.clone(),
            deadlines: settings.deadlines.clone(),
            run_deadlines: RunDeadlines::from(settings),
            parallel: settings.models.parallel,
            pool_contexts: settings.models.pool_contexts,
            pinned_first: match prefixes.folder() {
                Some(_) => settings.prefixes.pinned_first,
                None => Duration::ZERO,
            },
            walls,
            metrics,
        };
        // Before anything is served, so that nothing is held up.
        let machine_bytes = machine::machine_bytes();
        let rules = Rules::of(settings, machine_bytes);
        let handles = Arc::new(HandleServices {
            metrics: loader.metrics.clone(),
            state_dir: settings.library.state_dir.clone(),
            tensor_limit_bytes: settings.library.tensor_limit_bytes,
            prompt_caches_limit_bytes: settings.library.prompt_caches_limit_bytes,
            live: Mutex::new(LiveSettings::from(settings)),
        });
        let (event_loop, messages, status) = EventLoop::new(catalog, loader, rules, pulse);
        tokio::spawn(event_loop.run());
        let this = Self {
            messages,
            handles,
            machine_bytes,
            tensors,
            requests: Accountant::new(requests_limit(
                settings.memory.requests_limit_bytes,
                machine_bytes,
            )),
            beside,
            prefixes,
        };
        Ok((this, status))
    }
}

fn own_environment(settings: &Settings) -> ChildEnvironment {
    let runtime = &settings.runtime;
    ChildEnvironment::new(
        &runtime.pass_environment,
        runtime.log_level,
        runtime.core_dumps,
    )
}
