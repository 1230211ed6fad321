/*
 * A chat in C, independent of everything else in this project: loads a model, asks each prompt in
 * turn with the turns before it in the context, and streams the answers to stdout. What the runtime
 * prints goes to stderr with the figures.
 *
 *   cc -Iinclude -o chat tests/chat.c -L folder -lrkllmrt -Wl,-rpath,folder
 *   chat MODEL PROMPT [PROMPT ...]
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rkllm.h"

static int on_result(RKLLMResult *result, void *userdata, LLMCallState state) {
    FILE *answer = userdata;
    switch (state) {
    case RKLLM_RUN_NORMAL:
        fputs(result->text, answer);
        fflush(answer);
        break;
    case RKLLM_RUN_FINISH:
        fputc('\n', answer);
        fflush(answer);
        fprintf(stderr, "[prefill %d tokens in %.1f ms, then %d tokens in %.1f ms, peak %.0f MB]\n",
                result->perf.prefill_tokens, result->perf.prefill_time_ms,
                result->perf.generate_tokens, result->perf.generate_time_ms,
                result->perf.memory_usage_mb);
        break;
    case RKLLM_RUN_WAITING:
    case RKLLM_RUN_ERROR:
        break;
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: chat MODEL PROMPT [PROMPT ...]\n");
        return 2;
    }
    FILE *answer = fdopen(dup(STDOUT_FILENO), "w");
    if (!answer || dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
        perror("chat");
        return 1;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);

    RKLLMParam param = rkllm_createDefaultParam();
    param.model_path = argv[1];
    param.max_context_len = 2048;
    param.max_new_tokens = 512;
    param.top_k = 1;
    RKLLMCallback callback;
    memset(&callback, 0, sizeof callback);
    callback.result_callback = on_result;
    callback.result_userdata = answer;
    LLMHandle handle = NULL;
    if (rkllm_init(&handle, &param, &callback) != 0) {
        return 1;
    }

    int failed = 0;
    for (int turn = 2; turn < argc && !failed; turn++) {
        RKLLMInput input;
        memset(&input, 0, sizeof input);
        input.role = "user";
        input.input_type = RKLLM_INPUT_PROMPT;
        input.prompt_input = argv[turn];
        RKLLMInferParam infer;
        memset(&infer, 0, sizeof infer);
        infer.mode = RKLLM_INFER_GENERATE;
        infer.keep_history = 1;
        failed = rkllm_run(handle, &input, &infer, NULL) != 0;
    }
    failed |= rkllm_destroy(handle) != 0;
    fclose(answer);
    return failed;
}
