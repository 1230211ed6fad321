/*
 * What the programs share that look at hidden states and logits: a record of every callback, and the
 * rows in the file that the variable ROWS names, for the test to compare with llama.cpp's own.
 */
#ifndef OUTPUTS_H
#define OUTPUTS_H

#include "harness.h"

/* Every callback of a run, in order. */
struct outputs {
    LLMHandle handle;
    FILE *rows;
    char states[4096];
    int callbacks, width, num_tokens, abort_at, answer, early_perf, tokens;
    int32_t ids[512];
    char text[4096];
    RKLLMPerfStat perf;
};

static inline void keep(struct outputs *run, const float *values, int num_tokens, int width) {
    CHECK(num_tokens > 0 && width > 0);
    run->num_tokens = num_tokens;
    run->width = width;
    if (run->rows) {
        size_t floats = (size_t)num_tokens * (size_t)width;
        CHECK(fwrite(values, sizeof *values, floats, run->rows) == floats);
    }
}

/* One letter a callback: - no data, H hidden states, L logits, F and E the ends. */
static inline int on_output(RKLLMResult *result, void *userdata, LLMCallState state) {
    struct outputs *run = userdata;
    char letter = '-';
    CHECK_INT(rkllm_is_running(run->handle), 1);
    if (state == RKLLM_RUN_FINISH || state == RKLLM_RUN_ERROR) {
        letter = state == RKLLM_RUN_FINISH ? 'F' : 'E';
        run->perf = result->perf;
        CHECK(!result->last_hidden_layer.hidden_states && !result->logits.logits);
    } else if (result->last_hidden_layer.hidden_states) {
        letter = 'H';
        CHECK(!result->logits.logits && result->text);
        CHECK_TEXT(result->text, "");
        keep(run, result->last_hidden_layer.hidden_states, result->last_hidden_layer.num_tokens,
             result->last_hidden_layer.embd_size);
    } else if (result->logits.logits) {
        letter = 'L';
        CHECK_INT(state, RKLLM_RUN_NORMAL);
        keep(run, result->logits.logits, result->logits.num_tokens, result->logits.vocab_size);
    }
    /* Programs print it without looking. */
    CHECK(state != RKLLM_RUN_NORMAL || result->text);
    if (result->token_id >= 0 && state != RKLLM_RUN_FINISH) {
        CHECK(run->tokens < 512);
        run->ids[run->tokens++] = result->token_id;
    }
    if (result->text) {
        strcat(run->text, result->text);
    }
    run->states[run->callbacks++] = letter;
    if (run->callbacks == run->abort_at) {
        CHECK_INT(rkllm_abort(run->handle), 0);
    }
    return run->answer;
}

static inline LLMHandle load_outputs(RKLLMParam param) {
    RKLLMCallback callback;
    memset(&callback, 0, sizeof callback);
    callback.result_callback = on_output;
    LLMHandle handle = NULL;
    CHECK_INT(rkllm_init(&handle, &param, &callback), 0);
    CHECK_INT(rkllm_set_chat_template(handle, "", "", ""), 0);
    return handle;
}

static inline struct outputs *new_outputs(LLMHandle handle) {
    struct outputs *run = calloc(1, sizeof *run);
    CHECK(run != NULL);
    run->handle = handle;
    return run;
}

/* The tokens of the file that TOKENS names. */
static inline RKLLMInput token_file(void) {
    static int32_t ids[4096];
    FILE *file = fopen(getenv("TOKENS"), "rb");
    CHECK(file != NULL);
    RKLLMInput input = prompt_input(NULL);
    input.input_type = RKLLM_INPUT_TOKEN;
    input.token_input.input_ids = ids;
    input.token_input.n_tokens = fread(ids, sizeof *ids, 4096, file);
    fclose(file);
    CHECK(input.token_input.n_tokens > 2);
    return input;
}

static inline RKLLMInferParam mode(RKLLMInferMode mode, int max_new_tokens) {
    RKLLMInferParam infer = generate();
    infer.mode = mode;
    infer.max_new_tokens = max_new_tokens;
    return infer;
}

static inline void run_outputs(struct outputs *run, RKLLMInput input, RKLLMInferParam infer,
                        const char *states) {
    CHECK_INT(rkllm_run(run->handle, &input, &infer, run), 0);
    CHECK_TEXT(run->states, states);
}

static inline FILE *rows_file(void) {
    FILE *rows = fopen(getenv("ROWS"), "wb");
    CHECK(rows != NULL);
    return rows;
}

#endif
