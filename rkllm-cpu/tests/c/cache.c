/* Promises about the KV cache, the history, the context window and sampling. */
#define _GNU_SOURCE
#include "harness.h"

#define STORY "<|im_start|>user\nTell me a story.<|im_end|>\n<|im_start|>assistant\n"

static RKLLMInferParam keeping(int max_new_tokens) {
    RKLLMInferParam infer = generate();
    infer.keep_history = 1;
    infer.max_new_tokens = max_new_tokens;
    return infer;
}

static RKLLMInferParam limited(int max_new_tokens) {
    RKLLMInferParam infer = generate();
    infer.max_new_tokens = max_new_tokens;
    return infer;
}

static void a_common_prefix_is_not_evaluated_again(void) {
    LLMHandle handle = load_raw(defaults());
    CHECK_INT(kv_size(handle), 0);
    char *shared = long_prompt(30);
    char other[4096];
    snprintf(other, sizeof other, "%.4000sAnd then", shared);
    struct record *first = finished_run(handle, shared, generate());
    CHECK(first->perf.prefill_tokens > 250);
    /* Everything but the last sampled token is physically there. */
    CHECK_INT(kv_size(handle), first->perf.prefill_tokens + first->perf.generate_tokens);
    struct record *longer = finished_run(handle, other, generate());
    CHECK(longer->perf.prefill_tokens >= 64 && longer->perf.prefill_tokens <= PIECE + 8);
    struct record *same = finished_run(handle, other, generate());
    CHECK(same->perf.prefill_tokens <= PIECE);
    CHECK_TEXT(same->text, longer->text);
    CHECK_INT(rkllm_clear_kv_cache(handle, 0, NULL, NULL), 0);
    CHECK_INT(kv_size(handle), 0);
    struct record *fresh = finished_run(handle, other, generate());
    CHECK(fresh->perf.prefill_tokens > 250);
    CHECK_TEXT(fresh->text, longer->text);
    free(shared), free(first), free(longer), free(same), free(fresh);
    rkllm_destroy(handle);
}

static void special_tokens_are_parsed_in_raw_mode(void) {
    LLMHandle handle = load_with(defaults());
    struct record *templated = finished_run(handle, "Hi", limited(1));
    CHECK_INT(rkllm_set_chat_template(handle, "", "", ""), 0);
    struct record *raw = finished_run(handle, "Hi", limited(1));
    CHECK(templated->perf.prefill_tokens > raw->perf.prefill_tokens);
    CHECK_INT(rkllm_clear_kv_cache(handle, 0, NULL, NULL), 0);
    /* This vocabulary wants no token at the beginning, and the three are one token each. */
    struct record *special = finished_run(handle, "<|im_start|><|im_end|><|im_start|>", limited(1));
    CHECK_INT(special->perf.prefill_tokens, 3);
    CHECK_INT(kv_size(handle), 3);
    free(templated), free(raw), free(special);
    rkllm_destroy(handle);
}

static void a_custom_template_surrounds_the_prompt(void) {
    LLMHandle handle = load_raw(defaults());
    struct record *raw = finished_run(handle, STORY, generate());
    CHECK_INT(rkllm_set_chat_template(handle, "", "<|im_start|>user\n",
                                      "<|im_end|>\n<|im_start|>assistant\n"), 0);
    CHECK_INT(kv_size(handle), 0);
    struct record *custom = finished_run(handle, "Tell me a story.", generate());
    CHECK_TEXT(custom->text, raw->text);
    CHECK_INT(custom->perf.prefill_tokens, raw->perf.prefill_tokens);
    /* The model's own template gives a turn of the same form, with a system prompt. */
    CHECK_INT(rkllm_set_chat_template(handle, "Be brief.", NULL, NULL), 0);
    struct record *own = finished_run(handle, "Tell me a story.", generate());
    CHECK_INT(rkllm_set_chat_template(handle, "", "", ""), 0);
    struct record *same = finished_run(handle, "<|im_start|>system\nBe brief.<|im_end|>\n" STORY,
                                       generate());
    CHECK_TEXT(own->text, same->text);
    CHECK_INT(own->perf.prefill_tokens, same->perf.prefill_tokens);
    free(raw), free(custom), free(own), free(same);
    rkllm_destroy(handle);
}

static void clearing_can_keep_the_system_prompt(void) {
    LLMHandle handle = load_with(defaults());
    CHECK_INT(rkllm_set_chat_template(handle, "You are a pirate who answers briefly.", NULL, NULL), 0);
    struct record *first = finished_run(handle, "Hello", limited(4));
    CHECK_INT(rkllm_clear_kv_cache(handle, 1, NULL, NULL), 0);
    int kept = kv_size(handle);
    CHECK(kept > 5 && kept < first->perf.prefill_tokens);
    struct record *second = finished_run(handle, "Who are you?", limited(4));
    CHECK(second->perf.prefill_tokens < first->perf.prefill_tokens);
    free(first), free(second);
    rkllm_destroy(handle);
}

static void history_is_kept_or_forgotten(void) {
    LLMHandle handle = load_raw(defaults());
    /* Two turns that keep their history are one text. */
    struct record *one = finished_run(handle, "One, two, three,", keeping(4));
    struct record *two = finished_run(handle, " and so on:", keeping(8));
    CHECK(two->perf.prefill_tokens <= 8);
    char whole[512];
    snprintf(whole, sizeof whole, "One, two, three,%.200s and so on:", one->text);
    CHECK_INT(rkllm_clear_kv_cache(handle, 0, NULL, NULL), 0);
    struct record *at_once = finished_run(handle, whole, limited(8));
    CHECK_TEXT(two->text, at_once->text);
    /* After a run without history the next one starts anew. */
    struct record *anew = finished_run(handle, "One, two, three,", limited(4));
    CHECK_TEXT(anew->text, one->text);
    free(one), free(two), free(at_once), free(anew);
    rkllm_destroy(handle);
}

static void a_range_can_be_cleared_while_paused(void) {
    LLMHandle handle = load_raw(defaults());
    int start = 2, end = 5;
    CHECK_INT(rkllm_clear_kv_cache(handle, 0, &start, &end), -1);
    struct record *run = new_record(handle);
    run->pause_at = 3;
    CHECK_INT(run_into(run, STORY, generate()), 0);
    int before = kv_size(handle);
    CHECK_INT(rkllm_clear_kv_cache(handle, 0, &start, NULL), -1);
    int beyond = before + 1;
    CHECK_INT(rkllm_clear_kv_cache(handle, 0, &start, &beyond), -1);
    CHECK_INT(rkllm_clear_kv_cache(handle, 0, &start, &end), 0);
    CHECK_INT(kv_size(handle), before - 3);
    CHECK_INT(run_into(run, NULL, generate()), 0);
    CHECK_INT(run->finish, 1);
    CHECK_INT(kv_size(handle), before - 3 + 21);
    free(run);
    rkllm_destroy(handle);
}

static void the_window_shifts_when_it_is_full(void) {
    RKLLMParam param = defaults();
    param.max_context_len = 64;
    param.n_keep = 8;
    param.ignore_eos_token = true;
    LLMHandle handle = load_raw(param);
    struct record *run = finished_run(handle, STORY, limited(300));
    CHECK_INT(run->normal + run->waiting, 300);
    CHECK_INT(run->max_kv, 64);
    /* A shift can be aborted around, never into: the cache stays usable. */
    struct record *cut = new_record(handle);
    cut->abort_at = 50;
    CHECK_INT(run_into(cut, STORY, limited(300)), 0);
    CHECK_INT(cut->normal + cut->waiting, 50);
    /* A history past the window is shortened, not refused. */
    for (int turn = 0; turn < 6; turn++) {
        struct record *more = finished_run(handle, " And then what happened to the fox?", keeping(16));
        CHECK_INT(more->normal + more->waiting, 16);
        CHECK(more->max_kv <= 64);
        free(more);
    }
    free(run), free(cut);
    rkllm_destroy(handle);
}

static void a_prompt_that_does_not_fit_is_refused(void) {
    RKLLMParam param = defaults();
    param.max_context_len = 64;
    LLMHandle handle = load_raw(param);
    char *prompt = long_prompt(8);
    struct record *run = new_record(handle);
    CHECK_INT(run_into(run, prompt, generate()), -1);
    CHECK_INT(run->normal + run->waiting + run->finish + run->error, 0);
    struct record *next = finished_run(handle, STORY, limited(4));
    CHECK_INT(next->normal + next->waiting, 4);
    free(prompt), free(run), free(next);
    rkllm_destroy(handle);
}

static void each_run_has_its_own_limit(void) {
    LLMHandle handle = load_raw(defaults());
    const int limits[][2] = {{3, 3}, {0, 24}, {-1, 24}, {1, 1}, {30, 30}};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct record *run = finished_run(handle, STORY, limited(limits[i][0]));
        CHECK_INT(run->normal + run->waiting, limits[i][1]);
        free(run);
    }
    rkllm_destroy(handle);
}

static void tokens_are_as_good_as_text(void) {
    LLMHandle handle = load_raw(defaults());
    struct record *text = finished_run(handle, "<|im_start|>user\nSay hi", generate());
    int32_t ids[] = {1, 4093, 198, 36218, 15876};
    RKLLMInput input = prompt_input(NULL);
    input.input_type = RKLLM_INPUT_TOKEN;
    input.token_input.input_ids = ids;
    input.token_input.n_tokens = sizeof ids / sizeof *ids;
    RKLLMInferParam infer = generate();
    struct record *tokens = new_record(handle);
    tokens->caller = pthread_self();
    CHECK_INT(rkllm_run(handle, &input, &infer, tokens), 0);
    CHECK_TEXT(tokens->text, text->text);
    CHECK(tokens->perf.prefill_tokens <= SHORT_PIECE);
    ids[2] = 1 << 30;
    CHECK_INT(rkllm_run(handle, &input, &infer, tokens), -1);
    ids[2] = -1;
    CHECK_INT(rkllm_run(handle, &input, &infer, tokens), -1);
    free(text), free(tokens);
    rkllm_destroy(handle);
}

static struct record *sampled(LLMHandle handle, RKLLMSamplingParam sampling) {
    RKLLMInferParam infer = limited(32);
    infer.sampling_params = &sampling;
    return finished_run(handle, STORY, infer);
}

static void sampling_is_chosen_per_run(void) {
    RKLLMParam param = defaults();
    param.ignore_eos_token = true;
    LLMHandle handle = load_raw(param);
    RKLLMSamplingParam plain = {40, 0.95f, 1.0f, 1.0f, 0, 0, 0, 5.0f, 0.1f};
    RKLLMSamplingParam top_one = plain, cold = plain, narrow = plain, frequent = plain;
    RKLLMSamplingParam present = plain, repeated = plain, mirostat = plain, mirostat2 = plain;
    top_one.top_k = 1;
    cold.temperature = 0;
    narrow.top_p = 0;
    frequent = top_one, frequent.frequency_penalty = 2;
    present = top_one, present.presence_penalty = 2;
    repeated = top_one, repeated.repeat_penalty = 1.5f;
    mirostat.mirostat = 1;
    mirostat2.mirostat = 2;
    struct record *greedy = sampled(handle, top_one);
    struct record *others[] = {sampled(handle, cold), sampled(handle, narrow)};
    for (int i = 0; i < 2; i++) {
        CHECK_TEXT(others[i]->text, greedy->text);
        free(others[i]);
    }
    struct record *changed[] = {sampled(handle, frequent), sampled(handle, present),
                                sampled(handle, repeated), sampled(handle, mirostat),
                                sampled(handle, mirostat2), sampled(handle, plain)};
    for (int i = 0; i < 6; i++) {
        CHECK(strcmp(changed[i]->text, greedy->text) != 0);
        free(changed[i]);
    }
    RKLLMSamplingParam bad = plain;
    bad.repeat_penalty = 0;
    RKLLMInferParam infer = generate();
    infer.sampling_params = &bad;
    struct record *refused = new_record(handle);
    CHECK_INT(run_into(refused, STORY, infer), -1);
    CHECK_INT(refused->normal + refused->finish + refused->error, 0);
    free(greedy), free(refused);
    rkllm_destroy(handle);
}

static void a_seed_makes_runs_repeat(void) {
    RKLLMSamplingParam hot = {0, 1.0f, 1.5f, 1.0f, 0, 0, 0, 5.0f, 0.1f};
    setenv("RKLLM_CPU_SEED", "7", 1);
    LLMHandle handle = load_raw(defaults());
    struct record *first = sampled(handle, hot), *second = sampled(handle, hot);
    CHECK_TEXT(first->text, second->text);
    rkllm_destroy(handle);
    setenv("RKLLM_CPU_SEED", "8", 1);
    handle = load_raw(defaults());
    struct record *other = sampled(handle, hot);
    CHECK(strcmp(first->text, other->text) != 0);
    rkllm_destroy(handle);
    unsetenv("RKLLM_CPU_SEED");
    handle = load_raw(defaults());
    struct record *free_one = sampled(handle, hot), *free_two = sampled(handle, hot);
    CHECK(strcmp(free_one->text, free_two->text) != 0);
    rkllm_destroy(handle);
    free(first), free(second), free(other), free(free_one), free(free_two);
}

static const struct promise promises[] = {
    {"a_common_prefix_is_not_evaluated_again", a_common_prefix_is_not_evaluated_again},
    {"special_tokens_are_parsed_in_raw_mode", special_tokens_are_parsed_in_raw_mode},
    {"a_custom_template_surrounds_the_prompt", a_custom_template_surrounds_the_prompt},
    {"clearing_can_keep_the_system_prompt", clearing_can_keep_the_system_prompt},
    {"history_is_kept_or_forgotten", history_is_kept_or_forgotten},
    {"a_range_can_be_cleared_while_paused", a_range_can_be_cleared_while_paused},
    {"the_window_shifts_when_it_is_full", the_window_shifts_when_it_is_full},
    {"a_prompt_that_does_not_fit_is_refused", a_prompt_that_does_not_fit_is_refused},
    {"each_run_has_its_own_limit", each_run_has_its_own_limit},
    {"tokens_are_as_good_as_text", tokens_are_as_good_as_text},
    {"sampling_is_chosen_per_run", sampling_is_chosen_per_run},
    {"a_seed_makes_runs_repeat", a_seed_makes_runs_repeat},
};

int main(int argc, char **argv) {
    return hold_promise(promises, sizeof promises / sizeof *promises, argc, argv);
}
