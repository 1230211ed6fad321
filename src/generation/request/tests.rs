use super::*;
use crate::constraint::{How, Limits, WhiteSpace};

const HOOKLESS: Abilities = Abilities {
    per_run_parameters: Some(true),
    run_extensions: Some(RunExtensions::None),
    tokens_agree: Some(true),
    is_batch: false,
};
const HOOKED: Abilities = Abilities {
    run_extensions: Some(RunExtensions::Deterministic),
    ..HOOKLESS
};

fn request(has_tokens: bool) -> GenerationRequest {
    GenerationRequest {
        id: RequestId("one".into()),
        model: ModelId::from("m"),
        client: ClientKey::new("c"),
        prompt: "x".into(),
        prompt_tokens: has_tokens.then(|| [1, 2].into()),
        goes_by_tokens: false,
        sampling: SamplingRequest {
            repeat_penalty: Some(1.2),
            ..SamplingRequest::default()
        },
        draws: DrawRequest::default(),
        adapter: None,
        strict_parameters: false,
        max_new_tokens: None,
        constraint: None,
        redraws: RedrawLimits::default(),
        reply: None,
        thought_budget: None,
        stop: Vec::new(),
        resume: true,
        total_deadline: None,
        keep_alive: None,
    }
}

fn kept(need: Need) -> Option<Arc<Constraint>> {
    Some(Arc::new(Constraint {
        grammar: "".into(),
        limits: Limits {
            white_space: WhiteSpace::None,
            schema_bytes: 1,
            schema_depth: 1,
            grammar_symbols: 1,
            lexer_states: 1,
            lexer_steps: 1,
            kept_grammars: 0,
        },
        how: How::default(),
        thought: None,
        need,
    }))
}

#[test]
fn a_format_is_kept_by_drawing_again_or_refused() {
    let of = |has_tokens| GenerationRequest {
        constraint: kept(Need::Needed),
        ..request(has_tokens)
    };
    assert!(of(true).is_redrawn(HOOKLESS) && !of(true).is_redrawn(HOOKED));
    assert!(of(true).check_runtime(HOOKLESS).is_ok());
    assert_eq!(of(true).not_applied(HOOKLESS), ["repeat_penalty"]);
    let fixed = |runtime| Abilities {
        per_run_parameters: Some(false),
        ..runtime
    };
    assert!(of(true).has_loaded_penalties(fixed(HOOKLESS)));
    assert!(!request(true).has_loaded_penalties(fixed(HOOKLESS)));
    assert!(!of(true).has_loaded_penalties(HOOKLESS));
    assert!(!of(true).has_loaded_penalties(fixed(HOOKED)));
    assert!(of(true).not_applied(HOOKED).is_empty());
    let refused = of(false).check_runtime(HOOKLESS);
    assert!(matches!(refused, Err(GenerationError::CannotConstrain)));
    assert!(of(false).check_runtime(HOOKED).is_ok());
}

#[test]
fn a_wish_is_named_where_nothing_can_be_drawn_again() {
    let of = |has_tokens| GenerationRequest {
        constraint: kept(Need::Wish(Some("strict"))),
        ..request(has_tokens)
    };
    assert!(of(true).is_redrawn(HOOKLESS));
    assert!(of(true).not_applied(HOOKLESS).is_empty(), "penalties stay");
    assert!(!of(false).is_redrawn(HOOKLESS));
    assert!(of(false).check_runtime(HOOKLESS).is_ok());
    assert_eq!(of(false).not_applied(HOOKLESS), ["strict"]);
    assert!(!of(true).is_to_show_tokens(HOOKLESS));
    for tokens_agree in [None, Some(false)] {
        let runtime = Abilities {
            tokens_agree,
            ..HOOKLESS
        };
        assert!(!of(true).is_redrawn(runtime), "{tokens_agree:?}");
        assert_eq!(of(true).not_applied(runtime), ["strict"]);
        let is_to_show = tokens_agree.is_none();
        assert_eq!(of(true).is_to_show_tokens(runtime), is_to_show);
        assert!(!of(false).is_to_show_tokens(runtime));
    }
    assert!(of(false).not_applied(HOOKED).is_empty());
}

#[test]
fn bans_are_drawn_again_and_other_biases_named() {
    let of = |has_tokens, biases: &[(i32, f32)]| {
        let mut request = request(has_tokens);
        request.draws.logit_bias = biases.to_vec();
        request
    };
    let ban = (3, f32::NEG_INFINITY);
    assert!(of(true, &[ban]).is_redrawn(HOOKLESS));
    assert!(of(true, &[ban]).not_applied(HOOKLESS).is_empty());
    for (has_tokens, biases) in [
        (false, &[ban][..]),
        (true, &[ban, (4, 2.0)]),
        (true, &[(4, -99.0)]),
    ] {
        let request = of(has_tokens, biases);
        assert_eq!(request.not_applied(HOOKLESS), ["logit_bias"], "{biases:?}");
        assert!(request.not_applied(HOOKED).is_empty());
    }
    for (tokens_agree, is_kept) in [(None, true), (Some(false), false)] {
        let runtime = Abilities {
            tokens_agree,
            ..HOOKLESS
        };
        let request = of(true, &[ban]);
        assert_eq!(request.is_redrawn(runtime), is_kept);
        assert_eq!(request.not_applied(runtime).is_empty(), is_kept);
    }
    assert!(!of(true, &[(4, -99.0)]).is_redrawn(HOOKLESS));
    assert!(!of(true, &[]).is_redrawn(HOOKLESS));
}

#[test]
fn log_probabilities_are_read_from_logits_or_refused() {
    let of = |has_tokens, of_prompt| {
        let mut request = request(has_tokens);
        request.draws.logprobs = Some(LogprobsRequest { top: 2, of_prompt });
        request
    };
    assert!(of(true, false).is_redrawn(HOOKLESS) && of(true, false).reads_logits(HOOKLESS));
    assert!(of(true, false).check_runtime(HOOKLESS).is_ok());
    assert!(!of(true, false).reads_logits(HOOKED));
    // All is made so where it is set, of what is looked at.
    let mut set = request(true);
    set.redraws.runs = RedrawRuns::Logits;
    assert!(!set.reads_logits(HOOKLESS));
    set.draws.logit_bias = vec![(3, f32::NEG_INFINITY)];
    assert!(set.reads_logits(HOOKLESS) && !set.reads_logits(HOOKED));
    for request in [of(false, false), of(true, true)] {
        let refused = request.check_runtime(HOOKLESS);
        assert!(matches!(refused, Err(GenerationError::CannotTellLogprobs)));
        assert!(request.check_runtime(HOOKED).is_ok());
    }
    // An older CPU runtime has a hook, and tells nothing.
    let older = Abilities {
        run_extensions: Some(RunExtensions::Draws),
        ..HOOKLESS
    };
    let refused = of(true, false).check_runtime(older);
    assert!(matches!(refused, Err(GenerationError::CannotTellLogprobs)));
}

#[test]
fn in_a_batch_nothing_is_drawn_again_and_no_logits_are_told() {
    let batch = Abilities {
        is_batch: true,
        ..HOOKLESS
    };
    let format = GenerationRequest {
        constraint: kept(Need::Needed),
        ..request(true)
    };
    assert!(format.is_redrawn(HOOKLESS) && !format.is_redrawn(batch));
    let refused = format.check_runtime(batch);
    assert!(matches!(refused, Err(GenerationError::CannotConstrain)));
    let mut told = request(true);
    told.draws.logprobs = Some(LogprobsRequest {
        top: 2,
        of_prompt: false,
    });
    assert!(told.check_runtime(HOOKLESS).is_ok());
    let refused = told.check_runtime(batch);
    assert!(matches!(refused, Err(GenerationError::CannotTellLogprobs)));
    let plain = request(true);
    assert!(plain.check_runtime(batch).is_ok() && plain.not_applied(batch).is_empty());
}
