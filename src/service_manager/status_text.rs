//! What the daemon is doing, in words for `systemctl status`.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use super::Notifier;
use crate::admission::QueueFigures;
use crate::board::{BoardReadings, BoardSample};
use crate::supervisor::{ModelStatus, Phase, StatusBoard, StatusSnapshot};

/// The status is for people. It is made this often, and sent when it has changed.
const INTERVAL: Duration = Duration::from_secs(1);
/// Characters of a reason that are told. The log has the whole reason.
const REASON_CHARACTERS: usize = 160;

/// What is told beside the models: what is wrong with the daemon itself, and how the board is.
type Surroundings = (Option<Arc<str>>, Option<Arc<BoardSample>>);

/// Keeps the service manager told, for the daemon's life.
pub async fn report_status(
    notifier: Notifier,
    models: StatusBoard,
    queue: impl Fn(&str) -> QueueFigures,
    surroundings: impl Fn() -> Surroundings,
) {
    if !notifier.is_connected() {
        return;
    }
    let mut told = String::new();
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let text = describe(&models.snapshot(), |model| queue(model).waiting);
        let (trouble, board) = surroundings();
        let text = with_trouble(trouble.as_deref(), text);
        let text = with_board(text, board.as_deref().map(|sample| &sample.readings));
        if text != told {
            notifier.status(&text);
            told = text;
        }
    }
}

/// What is wrong with the daemon itself comes first.
fn with_trouble(trouble: Option<&str>, models: String) -> String {
    match trouble {
        Some(trouble) => format!("{}; {models}", shortened(trouble)),
        None => models,
    }
}

/// How the board is comes last.
fn with_board(mut text: String, board: Option<&BoardReadings>) -> String {
    let Some(board) = board else { return text };
    if let Some(slowed @ [_, ..]) = board.throttled.as_deref() {
        let slowed: Vec<_> = slowed.iter().map(ToString::to_string).collect();
        let _ = write!(text, "; throttled: {}", shortened(&slowed.join(", ")));
    }
    if let Some((zone, celsius)) = board.hottest() {
        // Whole degrees, so that it is not told anew with each look.
        let _ = write!(text, "; hottest {celsius:.0} °C ({zone})");
    }
    text
}

fn shortened(reason: &str) -> String {
    reason.chars().take(REASON_CHARACTERS).collect()
}

fn describe(models: &StatusSnapshot, waiting: impl Fn(&str) -> usize) -> String {
    let mut text = String::new();
    for (model, status) in models.iter() {
        let waiting = waiting(model);
        if status.phase == Phase::Unloaded && waiting == 0 && status.blocked.is_none() {
            continue;
        }
        if !text.is_empty() {
            text.push_str("; ");
        }
        let _ = write!(text, "{model}: ");
        describe_one(&mut text, status, waiting);
    }
    if text.is_empty() {
        return match models.len() {
            0 => "No model is installed".to_owned(),
            1 => "1 model is installed; it loads when it is used".to_owned(),
            count => format!("{count} models are installed; each loads when it is used"),
        };
    }
    text
}

fn describe_one(text: &mut String, status: &ModelStatus, waiting: usize) {
    text.push_str(status.phase.name());
    if let Phase::Failed { reason, .. } | Phase::Unkillable { reason } = &status.phase {
        let _ = write!(text, " ({})", shortened(reason));
    } else if let Some(reason) = &status.blocked {
        let _ = write!(text, ", blocked ({})", shortened(reason));
    }
    if waiting > 0 {
        let _ = write!(text, ", {waiting} waiting");
    }
    if let Some(rate) = status.decode_tokens_per_second {
        let _ = write!(text, ", last answer {rate:.1} tokens/s");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use super::*;
    use crate::board::sensors::{SlowedDown, ThermalZone, ThrottleReason};

    fn status(phase: Phase) -> ModelStatus {
        ModelStatus {
            phase,
            since: Instant::now(),
            pid: None,
            facts: None,
            blocked: None,
            memory: None,
            plan: None,
            slots: None,
            decode_tokens_per_second: None,
            kept: Default::default(),
        }
    }

    fn snapshot(models: impl IntoIterator<Item = (&'static str, ModelStatus)>) -> StatusSnapshot {
        let models: BTreeMap<_, _> = models
            .into_iter()
            .map(|(id, status)| (id.into(), status))
            .collect();
        Arc::new(models)
    }

    #[test]
    fn the_words_tell_model_phase_queue_and_speed() {
        let running = ModelStatus {
            decode_tokens_per_second: Some(11.24),
            ..status(Phase::Running)
        };
        let failed = status(Phase::Failed {
            reason: "its file is broken".to_owned(),
            retry_at: Instant::now(),
        });
        let models = snapshot([
            ("broken", failed),
            ("idle", status(Phase::Unloaded)),
            ("qwen", running),
        ]);
        let text = describe(&models, |model| if model == "qwen" { 3 } else { 0 });
        assert_eq!(
            text,
            "broken: failed (its file is broken); \
             qwen: running, 3 waiting, last answer 11.2 tokens/s"
        );
    }

    #[test]
    fn the_board_is_told_as_far_as_it_is_known() {
        let told = |board: Option<&BoardReadings>| with_board("m: ready".to_owned(), board);
        assert_eq!(told(None), "m: ready");
        assert_eq!(told(Some(&BoardReadings::default())), "m: ready");
        let zone = |kind: &str, celsius| ThermalZone {
            kind: kind.to_owned(),
            celsius,
            ..ThermalZone::default()
        };
        let mut board = BoardReadings {
            thermal_zones: vec![
                zone("soc-thermal", Some(41.2)),
                zone("npu-thermal", Some(84.6)),
                zone("gpu-thermal", None),
            ],
            throttled: Some(Vec::new()),
            ..BoardReadings::default()
        };
        assert_eq!(told(Some(&board)), "m: ready; hottest 85 °C (npu-thermal)");
        board.throttled = Some(vec![SlowedDown {
            reason: ThrottleReason::Cooling,
            device: "thermal-cpufreq-0".to_owned(),
            detail: "state 2".to_owned(),
        }]);
        assert_eq!(
            told(Some(&board)),
            "m: ready; throttled: thermal-cpufreq-0 (state 2); hottest 85 °C (npu-thermal)"
        );
    }

    #[test]
    fn nothing_loaded_is_a_state_too() {
        assert_eq!(describe(&snapshot([]), |_| 0), "No model is installed");
        let one = snapshot([("a", status(Phase::Unloaded))]);
        assert_eq!(
            describe(&one, |_| 0),
            "1 model is installed; it loads when it is used"
        );
        assert_eq!(describe(&one, |_| 2), "a: unloaded, 2 waiting");
    }
}
