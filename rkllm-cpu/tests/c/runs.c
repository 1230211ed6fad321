/* Promises about one run: its callbacks, its end, aborting, pausing. */
#define _GNU_SOURCE
#include "harness.h"

#define QUESTION "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
#define STORY "<|im_start|>user\nTell me a story.<|im_end|>\n<|im_start|>assistant\n"

static void callbacks_come_in_order(void) {
    LLMHandle handle = load_raw(defaults());
    struct record *run = finished_run(handle, QUESTION, generate());
    CHECK(strstr(run->text, "Paris") != NULL);
    CHECK(run->normal > 3);
    /* The end token came as a NORMAL with empty text, and was the last before FINISH. */
    CHECK_TEXT(run->last_text, "");
    CHECK_INT(run->ids[run->normal - 1], 2);
    CHECK(run->perf.prefill_tokens > 8);
    CHECK(run->perf.prefill_time_ms > 0);
    CHECK(run->perf.generate_time_ms > 0);
    free(run);
    CHECK_INT(rkllm_destroy(handle), 0);
}

static void special_tokens_are_shown_on_request(void) {
    RKLLMParam param = defaults();
    param.skip_special_token = false;
    LLMHandle handle = load_raw(param);
    struct record *run = finished_run(handle, QUESTION, generate());
    CHECK_TEXT(run->last_text, "<|im_end|>");
    free(run);
    rkllm_destroy(handle);
}

static void an_ignored_end_token_does_not_end_the_run(void) {
    RKLLMParam param = defaults();
    param.ignore_eos_token = true;
    param.max_new_tokens = 40;
    LLMHandle handle = load_raw(param);
    struct record *run = finished_run(handle, QUESTION, generate());
    CHECK_INT(run->normal + run->waiting, 40);
    int ends = 0;
    for (int i = 0; i < 39; i++) {
        ends += run->ids[i] == 2;
    }
    CHECK(ends > 0);
    free(run);
    rkllm_destroy(handle);
}

static void incomplete_characters_wait(void) {
    RKLLMParam param = defaults();
    param.repeat_penalty = 1.0f;
    LLMHandle handle = load_raw(param);
    struct record *run = finished_run(handle, "🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀", generate());
    CHECK(run->waiting > 0);
    CHECK(strstr(run->text, "🚀") != NULL);
    CHECK_INT(run->normal + run->waiting, 24);
    free(run);
    rkllm_destroy(handle);
}

static void an_abort_in_the_callback_ends_the_run(void) {
    LLMHandle handle = load_raw(defaults());
    struct record *whole = finished_run(handle, STORY, generate());
    struct record *cut = new_record(handle);
    cut->abort_at = 5;
    CHECK_INT(run_into(cut, STORY, generate()), 0);
    CHECK_INT(cut->finish, 1);
    CHECK_INT(cut->normal + cut->waiting, 5);
    CHECK_INT(cut->perf.generate_tokens, 4);
    /* The next run is clean. */
    struct record *again = finished_run(handle, STORY, generate());
    CHECK_TEXT(again->text, whole->text);
    free(whole), free(cut), free(again);
    rkllm_destroy(handle);
}

struct thread_run {
    struct record *record;
    const char *prompt;
    int32_t max_new_tokens;
    int code;
    double ended_ms;
};

static void *run_on_thread(void *argument) {
    struct thread_run *work = argument;
    RKLLMInferParam infer = generate();
    infer.max_new_tokens = work->max_new_tokens;
    work->code = run_into(work->record, work->prompt, infer);
    work->ended_ms = now_ms();
    return NULL;
}

static void an_abort_from_another_thread_ends_the_run(void) {
    RKLLMParam param = defaults();
    param.ignore_eos_token = true;
    LLMHandle handle = load_raw(param);
    struct thread_run work = {new_record(handle), STORY, 900, -2, 0};
    pthread_t thread;
    CHECK_INT(pthread_create(&thread, NULL, run_on_thread, &work), 0);
    AWAIT(atomic_load(&work.record->tokens) >= 3);
    CHECK_INT(rkllm_is_running(handle), 1);
    /* What would need the engine is refused meanwhile, not queued. */
    CHECK_INT(rkllm_clear_kv_cache(handle, 0, NULL, NULL), -1);
    CHECK_INT(rkllm_set_chat_template(handle, "", "", ""), -1);
    double aborted_ms = now_ms();
    CHECK_INT(rkllm_abort(handle), 0);
    /* Far from the many seconds of the run; a busy machine may let a thread wait for a while. */
    CHECK(now_ms() - aborted_ms < 500);
    pthread_join(thread, NULL);
    CHECK_INT(work.code, 0);
    CHECK_INT(work.record->finish, 1);
    CHECK(work.record->normal < 900);
    fprintf(stderr, "a decode was aborted within %.1f ms\n", work.ended_ms - aborted_ms);
    CHECK(work.ended_ms - aborted_ms < 2000);
    free(work.record);
    rkllm_destroy(handle);
}

static void an_abort_reaches_into_the_prefill(void) {
    RKLLMParam param = defaults();
    param.max_context_len = 8192;
    LLMHandle handle = load_raw(param);
    char *prompt = long_prompt(700);
    struct thread_run work = {new_record(handle), prompt, 4, -2, 0};
    pthread_t thread;
    CHECK_INT(pthread_create(&thread, NULL, run_on_thread, &work), 0);
    /* The first batch is in the cache, the others are not. */
    AWAIT(kv_size(handle) > 0);
    double aborted_ms = now_ms();
    CHECK_INT(rkllm_abort(handle), 0);
    pthread_join(thread, NULL);
    fprintf(stderr, "a prefill was aborted within %.1f ms\n", work.ended_ms - aborted_ms);
    CHECK(work.ended_ms - aborted_ms < 2000);
    CHECK_INT(work.code, 0);
    CHECK_INT(work.record->finish, 1);
    CHECK_INT(work.record->normal + work.record->waiting, 0);
    CHECK_INT(work.record->perf.generate_tokens, 0);
    int kept = kv_size(handle);
    CHECK(kept > 0 && kept < 6000);
    CHECK_INT(work.record->perf.prefill_tokens, kept);

    /* What it left is whole: a prompt that begins the same, and is longer than one batch, reuses it and answers as if
       fresh. */
    char *shorter = long_prompt(60);
    struct record *reusing = finished_run(handle, shorter, generate());
    CHECK_INT(rkllm_clear_kv_cache(handle, 0, NULL, NULL), 0);
    struct record *fresh = finished_run(handle, shorter, generate());
    CHECK(reusing->perf.prefill_tokens < fresh->perf.prefill_tokens);
    CHECK_TEXT(reusing->text, fresh->text);
    free(work.record), free(reusing), free(fresh), free(prompt), free(shorter);
    rkllm_destroy(handle);
}

static void an_abort_while_idle_is_not_kept(void) {
    LLMHandle handle = load_raw(defaults());
    CHECK_INT(rkllm_abort(handle), 0);
    struct record *run = finished_run(handle, STORY, generate());
    CHECK_INT(run->normal + run->waiting, 24);
    free(run);
    rkllm_destroy(handle);
}

static void a_paused_run_is_resumed_by_the_next(void) {
    LLMHandle handle = load_raw(defaults());
    struct record *whole = finished_run(handle, STORY, generate());
    struct record *paused = new_record(handle);
    paused->pause_at = 7;
    CHECK_INT(run_into(paused, STORY, generate()), 0);
    CHECK_INT(paused->finish, 0);
    CHECK_INT(paused->normal + paused->waiting, 7);
    /* An abort now has nothing to abort, and the prompt of the next run is not read. */
    CHECK_INT(rkllm_abort(handle), 0);
    CHECK_INT(run_into(paused, "not read", generate()), 0);
    CHECK_INT(paused->finish, 1);
    CHECK_INT(paused->normal + paused->waiting, 24);
    CHECK_TEXT(paused->text, whole->text);
    CHECK_INT(paused->perf.generate_tokens, 23);
    /* A cleared cache has nothing to resume. */
    struct record *dropped = new_record(handle);
    dropped->pause_at = 3;
    CHECK_INT(run_into(dropped, STORY, generate()), 0);
    CHECK_INT(rkllm_clear_kv_cache(handle, 0, NULL, NULL), 0);
    struct record *next = finished_run(handle, QUESTION, generate());
    CHECK(strstr(next->text, "Paris") != NULL);
    free(whole), free(paused), free(dropped), free(next);
    rkllm_destroy(handle);
}

static int call_everything(struct record *record, int token) {
    if (token == 2) {
        RKLLMInput input = prompt_input(STORY);
        RKLLMInferParam infer = generate();
        CHECK_INT(rkllm_run(record->handle, &input, &infer, record), -1);
        CHECK_INT(rkllm_destroy(record->handle), -1);
        CHECK_INT(rkllm_clear_kv_cache(record->handle, 0, NULL, NULL), -1);
        CHECK_INT(rkllm_set_chat_template(record->handle, "a", "b", "c"), -1);
    }
    return 2; /* release output buffers: nothing to release, and no reason to stop */
}

static void calls_in_the_callback_cannot_disturb_the_run(void) {
    LLMHandle handle = load_raw(defaults());
    struct record *whole = finished_run(handle, STORY, generate());
    struct record *run = new_record(handle);
    run->at_token = call_everything;
    CHECK_INT(run_into(run, STORY, generate()), 0);
    CHECK_INT(run->finish, 1);
    CHECK_TEXT(run->text, whole->text);
    free(whole), free(run);
    rkllm_destroy(handle);
}

/* Only rkllm_run: the handle is gone when it returns. */
static void *bare_run(void *argument) {
    struct thread_run *work = argument;
    RKLLMInput input = prompt_input(work->prompt);
    RKLLMInferParam infer = generate();
    infer.max_new_tokens = work->max_new_tokens;
    work->record->caller = pthread_self();
    work->code = rkllm_run(work->record->handle, &input, &infer, work->record);
    return NULL;
}

static void destroying_ends_a_run_first(void) {
    RKLLMParam param = defaults();
    param.ignore_eos_token = true;
    LLMHandle handle = load_raw(param);
    struct thread_run work = {new_record(handle), STORY, 900, -2, 0};
    pthread_t thread;
    CHECK_INT(pthread_create(&thread, NULL, bare_run, &work), 0);
    AWAIT(atomic_load(&work.record->tokens) >= 3);
    CHECK_INT(rkllm_destroy(handle), 0);
    pthread_join(thread, NULL);
    CHECK_INT(work.code, 0);
    CHECK_INT(work.record->finish, 1);
    CHECK(work.record->normal < 900);
    free(work.record);
}

static void a_thousand_tokens(void) {
    RKLLMParam param = defaults();
    param.max_context_len = 2048;
    param.ignore_eos_token = true;
    LLMHandle handle = load_raw(param);
    RKLLMInferParam infer = generate();
    infer.max_new_tokens = 1000;
    struct record *run = finished_run(handle, STORY, infer);
    CHECK_INT(run->normal + run->waiting, 1000);
    CHECK(run->text_len > 1000);
    fprintf(stderr, "%.1f tokens/s\n", 999e3 / run->perf.generate_time_ms);
    free(run);
    rkllm_destroy(handle);
}

static const struct promise promises[] = {
    {"callbacks_come_in_order", callbacks_come_in_order},
    {"special_tokens_are_shown_on_request", special_tokens_are_shown_on_request},
    {"an_ignored_end_token_does_not_end_the_run", an_ignored_end_token_does_not_end_the_run},
    {"incomplete_characters_wait", incomplete_characters_wait},
    {"an_abort_in_the_callback_ends_the_run", an_abort_in_the_callback_ends_the_run},
    {"an_abort_from_another_thread_ends_the_run", an_abort_from_another_thread_ends_the_run},
    {"an_abort_reaches_into_the_prefill", an_abort_reaches_into_the_prefill},
    {"an_abort_while_idle_is_not_kept", an_abort_while_idle_is_not_kept},
    {"a_paused_run_is_resumed_by_the_next", a_paused_run_is_resumed_by_the_next},
    {"calls_in_the_callback_cannot_disturb_the_run", calls_in_the_callback_cannot_disturb_the_run},
    {"destroying_ends_a_run_first", destroying_ends_a_run_first},
    {"a_thousand_tokens", a_thousand_tokens},
};

int main(int argc, char **argv) {
    return hold_promise(promises, sizeof promises / sizeof *promises, argc, argv);
}
