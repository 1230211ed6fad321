/* Promises about rkllm_run_async: a run on the library's own thread. */
#define _GNU_SOURCE

#include "harness.h"

#define STORY "<|im_start|>user\nTell me a story.<|im_end|>\n<|im_start|>assistant\n"

/* Written on the library's thread, read on the main thread while the run goes on. */
struct background {
    LLMHandle handle;
    char text[1 << 14];
    pthread_t thread;
    atomic_int tokens, ends, not_running, threads;
    int pause_at;
};

static int on_background_result(RKLLMResult *result, void *userdata, LLMCallState state) {
    struct background *run = userdata;
    if (atomic_load(&run->tokens) == 0) {
        run->thread = pthread_self();
    }
    run->threads += !pthread_equal(run->thread, pthread_self());
    run->not_running += rkllm_is_running(run->handle) != 1;
    if (state == RKLLM_RUN_NORMAL) {
        strcat(run->text, result->text);
    }
    if (state == RKLLM_RUN_FINISH || state == RKLLM_RUN_ERROR) {
        atomic_fetch_add(&run->ends, state == RKLLM_RUN_FINISH ? 1 : 100);
        return 0;
    }
    return atomic_fetch_add(&run->tokens, 1) + 1 == run->pause_at ? 1 : 0;
}

static LLMHandle load_background(RKLLMParam param) {
    RKLLMCallback callback;
    memset(&callback, 0, sizeof callback);
    callback.result_callback = on_background_result;
    LLMHandle handle = NULL;
    CHECK_INT(rkllm_init(&handle, &param, &callback), 0);
    CHECK_INT(rkllm_set_chat_template(handle, "", "", ""), 0);
    return handle;
}

static struct background *new_background(LLMHandle handle) {
    struct background *run = calloc(1, sizeof *run);
    CHECK(run != NULL);
    run->handle = handle;
    return run;
}

static void start(struct background *run, int max_new_tokens) {
    /* The input is gone as soon as the call returns. */
    char prompt[sizeof STORY] = STORY;
    RKLLMInput input = prompt_input(prompt);
    RKLLMInferParam infer = generate();
    infer.max_new_tokens = max_new_tokens;
    CHECK_INT(rkllm_run_async(run->handle, &input, &infer, run), 0);
    memset(prompt, 'x', sizeof prompt - 1);
    memset(&input, 0xff, sizeof input);
    memset(&infer, 0xff, sizeof infer);
}

static void a_background_run_is_the_same_run(void) {
    LLMHandle handle = load_background(defaults());
    struct background *blocking = new_background(handle), *run = new_background(handle);
    RKLLMInput input = prompt_input(STORY);
    RKLLMInferParam infer = generate();
    CHECK_INT(rkllm_run(handle, &input, &infer, blocking), 0);
    CHECK(pthread_equal(blocking->thread, pthread_self()));
    start(run, 0);
    AWAIT(atomic_load(&run->ends) && rkllm_is_running(handle) == 0);
    CHECK_INT(run->ends, 1);
    CHECK_INT(run->tokens, 24);
    CHECK_INT(run->not_running + run->threads, 0);
    CHECK(!pthread_equal(run->thread, pthread_self()));
    CHECK_TEXT(run->text, blocking->text);
    /* And it paused and resumed, by either call. */
    for (int by_async = 0; by_async < 2; by_async++) {
        struct background *paused = new_background(handle);
        paused->pause_at = 5;
        start(paused, 0);
        AWAIT(rkllm_is_running(handle) == 0);
        CHECK_INT(paused->tokens, 5);
        CHECK_INT(paused->ends, 0);
        paused->pause_at = 0;
        if (by_async) {
            CHECK_INT(rkllm_run_async(handle, &input, &infer, paused), 0);
        } else {
            CHECK_INT(rkllm_run(handle, &input, &infer, paused), 0);
        }
        AWAIT(rkllm_is_running(handle) == 0);
        CHECK_INT(paused->ends, 1);
        CHECK_TEXT(paused->text, blocking->text);
        free(paused);
    }
    free(blocking), free(run);
    CHECK_INT(rkllm_destroy(handle), 0);
}

static void a_background_run_excludes_others(void) {
    RKLLMParam param = defaults();
    param.ignore_eos_token = true;
    LLMHandle handle = load_background(param);
    struct background *run = new_background(handle);
    RKLLMInput input = prompt_input(STORY);
    RKLLMInferParam infer = generate();
    start(run, 900);
    /* From the moment the call returned, before the first token. */
    CHECK_INT(rkllm_is_running(handle), 1);
    CHECK_INT(rkllm_run(handle, &input, &infer, run), -1);
    CHECK_INT(rkllm_run_async(handle, &input, &infer, run), -1);
    CHECK_INT(rkllm_clear_kv_cache(handle, 0, NULL, NULL), -1);
    /* An abort is not lost either, however early it comes. */
    CHECK_INT(rkllm_abort(handle), 0);
    AWAIT(rkllm_is_running(handle) == 0);
    CHECK_INT(run->ends, 1);
    CHECK(run->tokens < 900);
    /* What is refused is refused at once. */
    CHECK_INT(rkllm_run_async(handle, NULL, &infer, run), -1);
    input = prompt_input("");
    CHECK_INT(rkllm_run_async(handle, &input, &infer, run), -1);
    CHECK_INT(rkllm_run_async(NULL, &input, &infer, run), -1);
    CHECK_INT(rkllm_is_running(handle), 0);
    CHECK_INT(run->ends, 1);
    free(run);
    rkllm_destroy(handle);
}

static void destroying_ends_a_background_run(void) {
    RKLLMParam param = defaults();
    param.ignore_eos_token = true;
    int before = count_threads();
    for (int wait_for = 0; wait_for < 4; wait_for++) {
        LLMHandle handle = load_background(param);
        struct background *run = new_background(handle);
        start(run, 900);
        AWAIT(atomic_load(&run->tokens) >= wait_for);
        CHECK_INT(rkllm_destroy(handle), 0);
        /* Its thread has been joined: nothing calls back any more. */
        CHECK_INT(run->ends, 1);
        CHECK(run->tokens < 900);
        CHECK_INT(count_threads(), before);
        free(run);
    }
}

static atomic_int all_started;

static void *clear_in_a_loop(void *handle) {
    while (!atomic_load(&all_started)) {
        rkllm_clear_kv_cache(handle, 0, NULL, NULL);
    }
    return NULL;
}

/* Clearing is refused while a run goes on, from the moment that it is accepted. */
static void an_accepted_run_ends_whatever_is_cleared(void) {
    LLMHandle handle = load_background(defaults());
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) {
        CHECK_INT(pthread_create(&threads[i], NULL, clear_in_a_loop, handle), 0);
    }
    struct background *run = new_background(handle);
    for (int accepted = 0; accepted < 40; accepted++) {
        atomic_store(&run->tokens, 0);
        run->text[0] = 0;
        start(run, 1);
        AWAIT(rkllm_is_running(handle) == 0);
        CHECK_INT(atomic_load(&run->ends), accepted + 1);
        CHECK_INT(atomic_load(&run->tokens), 1);
    }
    atomic_store(&all_started, 1);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
    }
    CHECK_INT(rkllm_destroy(handle), 0);
    free(run);
}

static const struct promise promises[] = {
    {"an_accepted_run_ends_whatever_is_cleared", an_accepted_run_ends_whatever_is_cleared},
    {"a_background_run_is_the_same_run", a_background_run_is_the_same_run},
    {"a_background_run_excludes_others", a_background_run_excludes_others},
    {"destroying_ends_a_background_run", destroying_ends_a_background_run},
};

int main(int argc, char **argv) {
    return hold_promise(promises, sizeof promises / sizeof *promises, argc, argv);
}
