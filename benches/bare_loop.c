/*
 * The baseline of `make bench`: what the runtime library gives a C program that does nothing but
 * call it. Opens a library with the RKLLM ABI (1.3.1), loads a model, and then runs each line of
 * stdin, a token budget and a prompt, greedily and in raw mode, printing one line of JSON for each.
 * The clock of a prompt starts when rkllm_run is called.
 *
 *   echo '128 Once upon a time' | bare_loop LIBRARY MODEL
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
    double last_token_ms;
    int tokens;
    size_t text_bytes;
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
        run->last_token_ms = now_ms();
        if (run->tokens++ == 0) {
            run->first_token_ms = run->last_token_ms;
        }
        if (result->text) {
            run->text_bytes += strlen(result->text);
        }
        break;
    case RKLLM_RUN_FINISH:
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
    if (argc != 3) {
        fprintf(stderr, "usage: bare_loop LIBRARY MODEL\n");
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
    param.top_k = 1;
    param.repeat_penalty = 1.0f;
    RKLLMCallback callback = {0};
    callback.result_callback = on_result;
    LLMHandle handle = NULL;
    if (init(&handle, &param, &callback) != 0 || set_chat_template(handle, "", "", "") != 0) {
        fprintf(stderr, "bare_loop: the library could not load %s\n", argv[2]);
        return 1;
    }

    char *line = NULL;
    size_t capacity = 0;
    ssize_t length;
    while ((length = getline(&line, &capacity, stdin)) > 0) {
        if (line[length - 1] == '\n') {
            line[length - 1] = '\0';
        }
        char *prompt = line;
        long budget = strtol(line, &prompt, 10);
        if (prompt == line || *prompt++ != ' ') {
            fprintf(stderr, "bare_loop: a line is a token budget, a space and a prompt\n");
            return 2;
        }
        RKLLMInput input;
        memset(&input, 0, sizeof input);
        input.role = "user";
        input.input_type = RKLLM_INPUT_PROMPT;
        input.prompt_input = prompt;
        RKLLMInferParam infer;
        memset(&infer, 0, sizeof infer);
        infer.mode = RKLLM_INFER_GENERATE;
        infer.max_new_tokens = (int)budget;
        struct measurement measured;
        memset(&measured, 0, sizeof measured);
        measured.start_ms = now_ms();
        int code = run(handle, &input, &infer, &measured);
        if (code != 0 || measured.failed || measured.tokens == 0) {
            fprintf(stderr, "bare_loop: a run failed with %d after %d tokens\n", code,
                    measured.tokens);
            return 1;
        }
        dprintf(json,
                "{\"tokens\":%d,\"text_bytes\":%zu,\"first_token_ms\":%.3f,"
                "\"last_token_ms\":%.3f,\"prefill_tokens\":%d,\"prefill_ms\":%.3f}\n",
                measured.tokens, measured.text_bytes, measured.first_token_ms - measured.start_ms,
                measured.last_token_ms - measured.start_ms, measured.perf.prefill_tokens,
                measured.perf.prefill_time_ms);
    }
    free(line);
    destroy(handle);
    return 0;
}
