/*
 * The baseline of `make bench`: what the runtime library gives a C program that does nothing but
 * call it. Opens a library with the RKLLM ABI (1.3.1), runs one prompt greedily in raw mode and
 * prints one line of JSON. The clock starts when rkllm_run is called.
 *
 *   bare_loop LIBRARY MODEL PROMPT MAX_NEW_TOKENS
 *   cc -O2 -Irkllm-cpu/include -o bare_loop benches/bare_loop.c -ldl
 *
 * The library's own lines are kept off stdout, so that the JSON is alone there.
 */
#define _POSIX_C_SOURCE 200809L
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "rkllm.h"

struct measurement {
    double start_ms;
    double first_token_ms;
    double end_ms;
    int tokens;
    int failed;
    RKLLMPerfStat perf;
};

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static int on_result(RKLLMResult *result, void *userdata, LLMCallState state) {
    struct measurement *run = userdata;
    switch (state) {
    case RKLLM_RUN_NORMAL:
    case RKLLM_RUN_WAITING:
        if (run->tokens++ == 0) {
            run->first_token_ms = now_ms();
        }
        break;
    case RKLLM_RUN_FINISH:
        run->end_ms = now_ms();
        run->perf = result->perf;
        break;
    case RKLLM_RUN_ERROR:
        run->failed = 1;
        break;
    }
    return 0;
}

static void *symbol(void *library, const char *name) {
    void *found = dlsym(library, name);
    if (!found) {
        fprintf(stderr, "bare_loop: %s\n", dlerror());
        exit(1);
    }
    return found;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: bare_loop LIBRARY MODEL PROMPT MAX_NEW_TOKENS\n");
        return 2;
    }
    /* Lines of the library go where the errors go. */
    int json = dup(STDOUT_FILENO);
    dup2(STDERR_FILENO, STDOUT_FILENO);

    void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "bare_loop: %s\n", dlerror());
        return 1;
    }
    RKLLMParam (*create_default_param)(void);
    int (*init)(LLMHandle *, RKLLMParam *, RKLLMCallback *);
    int (*set_chat_template)(LLMHandle, const char *, const char *, const char *);
    int (*run)(LLMHandle, RKLLMInput *, RKLLMInferParam *, void *);
    int (*destroy)(LLMHandle);
    *(void **)&create_default_param = symbol(library, "rkllm_createDefaultParam");
    *(void **)&init = symbol(library, "rkllm_init");
    *(void **)&set_chat_template = symbol(library, "rkllm_set_chat_template");
    *(void **)&run = symbol(library, "rkllm_run");
    *(void **)&destroy = symbol(library, "rkllm_destroy");

    RKLLMParam param = create_default_param();
    param.model_path = argv[2];
    param.max_context_len = 4096;
    param.max_new_tokens = atoi(argv[4]);
    param.top_k = 1;
    param.repeat_penalty = 1.0f;
    RKLLMCallback callback = {0};
    callback.result_callback = on_result;
    LLMHandle handle = NULL;
    if (init(&handle, &param, &callback) != 0 || set_chat_template(handle, "", "", "") != 0) {
        fprintf(stderr, "bare_loop: the library could not load %s\n", argv[2]);
        return 1;
    }

    RKLLMInput input;
    memset(&input, 0, sizeof input);
    input.role = "user";
    input.input_type = RKLLM_INPUT_PROMPT;
    input.prompt_input = argv[3];
    RKLLMInferParam infer;
    memset(&infer, 0, sizeof infer);
    infer.mode = RKLLM_INFER_GENERATE;
    struct measurement measured;
    memset(&measured, 0, sizeof measured);
    measured.start_ms = now_ms();
    int code = run(handle, &input, &infer, &measured);
    destroy(handle);
    if (code != 0 || measured.failed || measured.tokens == 0) {
        fprintf(stderr, "bare_loop: the run failed with %d after %d tokens\n", code, measured.tokens);
        return 1;
    }
    double first = measured.first_token_ms - measured.start_ms;
    double total = measured.end_ms - measured.start_ms;
    double decode = measured.end_ms - measured.first_token_ms;
    dprintf(json,
            "{\"tokens\":%d,\"first_token_ms\":%.3f,\"total_ms\":%.3f,\"tokens_per_second\":%.3f,"
            "\"decode_tokens_per_second\":%.3f,\"prefill_tokens\":%d}\n",
            measured.tokens, first, total, measured.tokens * 1e3 / total,
            decode > 0 ? (measured.tokens - 1) * 1e3 / decode : 0.0, measured.perf.prefill_tokens);
    return 0;
}
