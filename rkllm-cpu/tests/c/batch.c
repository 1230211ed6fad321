/* Promises about n_batch: arrays of inputs, a result for each in every callback. */
#define _GNU_SOURCE
#include "harness.h"

#define N 3
#define QUESTION "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
#define STORY "<|im_start|>user\nTell me a story.<|im_end|>\n<|im_start|>assistant\n"
#define COUNT "One, two, three, four,"

struct batch {
    LLMHandle handle;
    char text[N][4096];
    int tokens[N], ended[N], idles[N], sizes[N];
    int steps, finish, error, abort_at, pause_at;
    RKLLMPerfStat perf;
};

static int on_batch(RKLLMResult *results, void *userdata, LLMCallState state) {
    struct batch *run = userdata;
    CHECK_INT(rkllm_is_running(run->handle), 1);
    if (state == RKLLM_RUN_FINISH || state == RKLLM_RUN_ERROR) {
        run->finish += state == RKLLM_RUN_FINISH;
        run->error += state == RKLLM_RUN_ERROR;
        run->perf = results[0].perf;
        return 0;
    }
    CHECK(run->finish + run->error == 0);
    int texts = 0;
    for (int i = 0; i < N; i++) {
        if (results[i].token_id < 0) {
            /* Once ended, always ended, and without text. */
            CHECK(results[i].text == NULL && (run->tokens[i] > 0 || run->idles[i]));
            run->ended[i] = 1;
            continue;
        }
        CHECK(!run->ended[i] && !run->idles[i]);
        run->tokens[i]++;
        if (results[i].text) {
            texts++;
            strcat(run->text[i], results[i].text);
        }
    }
    CHECK_INT(texts > 0, state == RKLLM_RUN_NORMAL);
    run->steps++;
    if (run->steps == run->abort_at) {
        CHECK_INT(rkllm_abort(run->handle), 0);
    }
    return run->steps == run->pause_at ? 1 : 0;
}

static LLMHandle load_batch(RKLLMParam param) {
    RKLLMCallback callback;
    memset(&callback, 0, sizeof callback);
    callback.result_callback = on_batch;
    LLMHandle handle = NULL;
    param.extend_param.n_batch = N;
    CHECK_INT(rkllm_init(&handle, &param, &callback), 0);
    CHECK_INT(rkllm_set_chat_template(handle, "", "", ""), 0);
    return handle;
}

static RKLLMInput no_input(void) {
    RKLLMInput input;
    memset(&input, 0, sizeof input);
    input.role = "user";
    input.input_type = RKLLM_INPUT_TOKEN;
    return input;
}

static struct batch *run_batch(LLMHandle handle, const char *const prompts[N], RKLLMInferParam infer,
                               struct batch *run) {
    RKLLMInput inputs[N];
    if (!run) {
        run = calloc(1, sizeof *run);
        CHECK(run != NULL);
        run->handle = handle;
    }
    for (int i = 0; i < N; i++) {
        inputs[i] = prompts[i] ? prompt_input(prompts[i]) : no_input();
        run->idles[i] = !prompts[i];
    }
    CHECK_INT(rkllm_run(handle, inputs, &infer, run), 0);
    CHECK_INT(rkllm_get_kv_cache_size(handle, run->sizes), 0);
    CHECK_INT(run->error, 0);
    return run;
}

static void each_sequence_answers_its_own_prompt(void) {
    RKLLMParam param = defaults();
    LLMHandle single = load_raw(param), handle = load_batch(param);
    const char *const prompts[N] = {STORY, QUESTION, COUNT};
    struct batch *run = run_batch(handle, prompts, generate(), NULL);
    CHECK_INT(run->finish, 1);
    int prefill = 0, generated = 0;
    for (int i = 0; i < N; i++) {
        rkllm_clear_kv_cache(single, 0, NULL, NULL);
        struct record *alone = finished_run(single, prompts[i], generate());
        CHECK_TEXT(run->text[i], alone->text);
        CHECK_INT(run->tokens[i], alone->normal + alone->waiting);
        CHECK_INT(run->sizes[i], kv_size(single));
        prefill += alone->perf.prefill_tokens;
        generated += alone->perf.generate_tokens;
        free(alone);
    }
    CHECK(run->ended[1] && run->tokens[1] < 24);
    CHECK_INT(run->steps, 24);
    CHECK_INT(run->perf.prefill_tokens, prefill);
    CHECK_INT(run->perf.generate_tokens, generated);
    /* Each has a cache of its own. */
    struct batch *again = run_batch(handle, prompts, generate(), NULL);
    CHECK(again->perf.prefill_tokens <= N * SHORT_PIECE);
    CHECK_TEXT(again->text[1], run->text[1]);
    rkllm_clear_kv_cache(handle, 0, NULL, NULL);
    CHECK_INT(rkllm_get_kv_cache_size(handle, run->sizes), 0);
    CHECK_INT(run->sizes[0] + run->sizes[1] + run->sizes[2], 0);
    free(run), free(again);
    rkllm_destroy(single), rkllm_destroy(handle);
}

static void a_batch_is_paused_aborted_and_continued(void) {
    LLMHandle handle = load_batch(defaults());
    const char *const prompts[N] = {STORY, COUNT, "Once upon a time"};
    struct batch *whole = run_batch(handle, prompts, generate(), NULL);
    struct batch *paused = calloc(1, sizeof *paused);
    CHECK(paused != NULL);
    paused->handle = handle;
    paused->pause_at = 5;
    run_batch(handle, prompts, generate(), paused);
    CHECK_INT(paused->finish, 0);
    CHECK_INT(paused->steps, 5);
    int starts[N] = {0, 0, 0}, ends[N] = {0, 0, 99};
    CHECK_INT(rkllm_clear_kv_cache(handle, 0, starts, ends), -1);
    ends[2] = 0;
    CHECK_INT(rkllm_clear_kv_cache(handle, 0, starts, ends), 0);
    run_batch(handle, prompts, generate(), paused);
    CHECK_INT(paused->finish, 1);
    for (int i = 0; i < N; i++) {
        CHECK_TEXT(paused->text[i], whole->text[i]);
    }
    struct batch *cut = calloc(1, sizeof *cut);
    CHECK(cut != NULL);
    cut->handle = handle;
    cut->abort_at = 3;
    run_batch(handle, prompts, generate(), cut);
    CHECK_INT(cut->finish, 1);
    CHECK_INT(cut->steps, 3);
    /* Histories, one each. */
    RKLLMInferParam keeping = generate();
    keeping.keep_history = 1;
    keeping.max_new_tokens = 4;
    const char *const more[N] = {" And", " And", " And"};
    free(run_batch(handle, prompts, keeping, NULL));
    struct batch *second = run_batch(handle, more, keeping, NULL);
    CHECK(second->perf.prefill_tokens <= 2 * N);
    CHECK(second->sizes[0] > second->sizes[2]);
    free(whole), free(paused), free(cut), free(second);
    rkllm_destroy(handle);
}

static void a_full_window_shifts_in_a_batch(void) {
    RKLLMParam param = defaults();
    param.max_context_len = 64;
    param.ignore_eos_token = true;
    LLMHandle handle = load_batch(param);
    RKLLMInferParam infer = generate();
    infer.max_new_tokens = 150;
    const char *const prompts[N] = {STORY, COUNT, "Once upon a time"};
    struct batch *run = run_batch(handle, prompts, infer, NULL);
    for (int i = 0; i < N; i++) {
        CHECK_INT(run->tokens[i], 150);
        CHECK(run->sizes[i] <= 64);
    }
    free(run);
    rkllm_destroy(handle);
}

static void a_sequence_without_an_input_idles(void) {
    CHECK_INT(rkllm_takes_idle_sequences(), 1);
    RKLLMParam param = defaults();
    LLMHandle single = load_raw(param), handle = load_batch(param);
    struct record *alone = finished_run(single, STORY, generate());
    const char *const all[N] = {COUNT, STORY, COUNT};
    RKLLMInferParam keeping = generate();
    keeping.keep_history = 1;
    struct batch *before = run_batch(handle, all, keeping, NULL);
    rkllm_clear_kv_cache(handle, 0, NULL, NULL);
    /* Alone in the middle, as bit for bit without the others: none has a row in a decode. */
    const char *const one[N] = {NULL, STORY, NULL};
    struct batch *run = run_batch(handle, one, generate(), NULL);
    CHECK_INT(run->finish, 1);
    CHECK_TEXT(run->text[1], alone->text);
    CHECK_INT(run->perf.prefill_tokens, alone->perf.prefill_tokens);
    CHECK_INT(run->perf.generate_tokens, alone->perf.generate_tokens);
    CHECK_INT(run->tokens[0] + run->tokens[2], 0);
    CHECK_INT(run->sizes[0] + run->sizes[2], 0);
    CHECK_INT(run->sizes[1], kv_size(single));
    /* What one holds outlasts that it idles, and the first one may be it. */
    free(run_batch(handle, all, keeping, NULL));
    const char *const last[N] = {NULL, NULL, " And"};
    struct batch *second = run_batch(handle, last, keeping, NULL);
    CHECK(second->sizes[0] > 0 && second->tokens[2] > 0);
    CHECK(second->perf.prefill_tokens <= 2);
    const char *const first[N] = {" And", NULL, NULL};
    struct batch *third = run_batch(handle, first, keeping, NULL);
    CHECK(third->tokens[0] > 0 && third->perf.prefill_tokens <= 2);
    /* Of nothing there is no run. */
    RKLLMInput inputs[N] = {no_input(), no_input(), no_input()};
    struct batch refused = {.handle = handle};
    CHECK_INT(rkllm_run(handle, inputs, &keeping, &refused), -1);
    CHECK_INT(refused.steps + refused.finish + refused.error, 0);
    CHECK_INT(rkllm_run(single, inputs, &keeping, &refused), -1);
    setenv("RKLLM_CPU_VENDOR_ONLY", "1", 1);
    CHECK_INT(rkllm_takes_idle_sequences(), 0);
    LLMHandle vendors = load_batch(param);
    inputs[1] = prompt_input(STORY);
    CHECK_INT(rkllm_run(vendors, inputs, &keeping, &refused), -1);
    unsetenv("RKLLM_CPU_VENDOR_ONLY");
    free(alone), free(before), free(run), free(second), free(third);
    rkllm_destroy(single), rkllm_destroy(handle), rkllm_destroy(vendors);
}

static void what_a_batch_cannot_do_is_refused(void) {
    LLMHandle handle = load_batch(defaults());
    RKLLMInput inputs[N] = {prompt_input(COUNT), prompt_input(COUNT), prompt_input(NULL)};
    RKLLMInferParam infer = generate();
    struct batch run = {.handle = handle};
    CHECK_INT(rkllm_run(handle, inputs, &infer, &run), -1);
    CHECK_INT(rkllm_run(handle, NULL, &infer, &run), -1);
    inputs[2] = prompt_input(COUNT);
    infer.mode = RKLLM_INFER_GET_LOGITS;
    CHECK_INT(rkllm_run(handle, inputs, &infer, &run), -1);
    infer.mode = RKLLM_INFER_GET_LAST_HIDDEN_LAYER;
    CHECK_INT(rkllm_run(handle, inputs, &infer, &run), -1);
    infer = generate();
    RKLLMPromptCacheParam cache = {1, "/nonexistent/x"};
    infer.prompt_cache_params = &cache;
    CHECK_INT(rkllm_run(handle, inputs, &infer, &run), -1);
    CHECK_INT(run.steps + run.finish + run.error, 0);
    CHECK_INT(rkllm_is_running(handle), 0);
    rkllm_destroy(handle);
}

static const struct promise promises[] = {
    {"each_sequence_answers_its_own_prompt", each_sequence_answers_its_own_prompt},
    {"a_batch_is_paused_aborted_and_continued", a_batch_is_paused_aborted_and_continued},
    {"a_full_window_shifts_in_a_batch", a_full_window_shifts_in_a_batch},
    {"a_sequence_without_an_input_idles", a_sequence_without_an_input_idles},
    {"what_a_batch_cannot_do_is_refused", what_a_batch_cannot_do_is_refused},
};

int main(int argc, char **argv) {
    return hold_promise(promises, sizeof promises / sizeof *promises, argc, argv);
}
