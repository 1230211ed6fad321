use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::children::{ChildEnvironment, ExitContext, Host, ProcessEvent};
use crate::memory::Accountant;
use crate::models::Catalog;
use crate::settings::Settings;
use crate::supervisor::drive::RunDeadlines;
use crate::supervisor::event_loop::{Message, Rules};
use crate::supervisor::instance::Instance;
use crate::supervisor::loading::Loader;
use crate::supervisor::memory_limits::Beside;
use crate::supervisor::walls::Walls;
use crate::telemetry::{Metrics, PageFormat};

fn event_loop(metrics: &Metrics) -> EventLoop {
    let settings = Settings::default();
    let loader = Loader {
        host: Host::start(ChildEnvironment::bare(false)).unwrap(),
        beside: Beside {
            readers: Default::default(),
            tensors: Accountant::of_files(1 << 20),
            prefixes: Default::default(),
        },
        runtime: settings.runtime.clone(),
        deadlines: settings.deadlines.clone(),
        run_deadlines: RunDeadlines::from(&settings),
        parallel: 1,
        pool_contexts: 1,
        pinned_first: Duration::ZERO,
        walls: Walls::default(),
        metrics: metrics.clone(),
    };
    let rules = Rules::of(&settings, None);
    let (event_loop, ..) = EventLoop::new(&Catalog::default(), loader, rules, None);
    event_loop
}

#[tokio::test]
async fn the_loss_of_an_earlier_worker_says_nothing_of_its_successor() {
    let mut event_loop = event_loop(&Metrics::new());
    let policy = event_loop.rules.restart;
    let mut instance = Instance::new(Arc::default(), policy);
    let now = Instant::now();
    assert!(instance.life.begin_load(now) && instance.life.loaded(2, now));
    assert!(instance.life.granted());
    let model = ModelId::from("m");
    let since = now.checked_sub(Duration::from_secs(60)).unwrap();
    instance.since = since;
    event_loop.instances.insert(model.clone(), instance);
    let mut lost = |pid| {
        event_loop.handle(Message::Lost {
            model: model.clone(),
            pid,
            slot: 0,
        });
        event_loop.instances[&model].since
    };
    assert_eq!(lost(1), since);
    let lost_at = lost(2);
    assert!(lost_at > since);
    assert_eq!(lost(2), lost_at, "its other slots tell nothing new");
}

/// Names of handles would be labels without end.
#[tokio::test]
async fn the_worker_of_a_handle_that_is_gone_is_counted_as_its_models() {
    let metrics = Metrics::new();
    let mut event_loop = event_loop(&metrics);
    let context = ExitContext {
        reason: Some(EndReason::Cancelled),
        killed_by_kernel: Some(false),
        started_at: Instant::now(),
        activities: Vec::new(),
    };
    event_loop.handle(Message::Process {
        model: "m#handle-1".into(),
        name: "m".into(),
        pid: 1,
        event: ProcessEvent::Exited(ExitReport::new(None, context)),
    });
    let page = metrics.render(&[], &Default::default(), PageFormat::OpenMetrics);
    let page = page.unwrap();
    assert!(page.contains("worker_exits_total{model=\"m\""), "{page}");
    assert!(!page.contains("handle-1"), "{page}");
}
