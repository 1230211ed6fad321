/* Runs of several handles that share a context (RKLLM_CPU_SLOTS), each on a thread of its own. */
#ifndef TOGETHER_H
#define TOGETHER_H

#include "harness.h"

#define MOST 8

static const char *const questions[MOST] = {
    "<|im_start|>user\nTell me a story.<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nList the days of the week.<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nDescribe a cat to someone who has never seen one.<|im_end|>\n<|im_start|>assistant\n",
    "One, two, three, four,",
    "The quick brown fox jumps over the lazy dog. The quick brown fox",
    "<|im_start|>user\nHow do I boil an egg?<|im_end|>\n<|im_start|>assistant\n",
};

static inline RKLLMParam greedy(void) {
    RKLLMParam param = defaults();
    param.repeat_penalty = 1;
    param.ignore_eos_token = true;
    return param;
}

static inline void share(const char *slots, const char *pool_tokens) {
    setenv("RKLLM_CPU_SLOTS", slots, 1);
    if (pool_tokens) {
        setenv("RKLLM_CPU_POOL_TOKENS", pool_tokens, 1);
    }
}

struct run {
    struct record *record;
    const char *prompt;
    RKLLMInferParam infer;
    pthread_t thread;
    int code;
};

static inline void *run_on_thread(void *argument) {
    struct run *run = argument;
    run->code = run_into(run->record, run->prompt, run->infer);
    return NULL;
}

static inline struct run *start(LLMHandle handle, const char *prompt, int max_new_tokens) {
    struct run *run = calloc(1, sizeof *run);
    CHECK(run != NULL);
    run->record = new_record(handle);
    run->prompt = prompt;
    run->infer = generate();
    run->infer.max_new_tokens = max_new_tokens;
    CHECK_INT(pthread_create(&run->thread, NULL, run_on_thread, run), 0);
    return run;
}

/* Waits for a run that ends normally after so many tokens. The caller frees both. */
static inline void finish(struct run *run, int tokens) {
    pthread_join(run->thread, NULL);
    CHECK_INT(run->code, 0);
    CHECK_INT(run->record->finish, 1);
    CHECK_INT(run->record->error, 0);
    CHECK_INT(run->record->normal + run->record->waiting, tokens);
    CHECK_INT(run->record->perf.generate_tokens, tokens - 1);
    CHECK(run->record->perf.generate_time_ms > 0);
}

static inline void forget(struct run *run) {
    free(run->record);
    free(run);
}

static inline int tokens_of(struct run *run) { return atomic_load(&run->record->tokens); }

/* What each run was asked and said, for a judge that knows llama.cpp alone: texts that end with a NUL,
   each followed by how many numbers come after it, and these. */
static inline void write_run(FILE *file, const struct run *run, int32_t tokens) {
    size_t length = strlen(run->prompt) + 1;
    CHECK(fwrite(run->prompt, 1, length, file) == length);
    CHECK(fwrite(&tokens, sizeof tokens, 1, file) == 1);
    CHECK(fwrite(run->record->ids, sizeof(int32_t), (size_t)tokens, file) == (size_t)tokens);
}

#endif
