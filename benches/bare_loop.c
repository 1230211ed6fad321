/*
 * The baseline of `make bench`: what the runtime library gives a C program that does nothing but
 * call it; in `make chaos` what a resumed answer is compared with. Opens a library with the RKLLM
 * ABI (1.3.1), loads a model, and then runs each line of stdin, a token budget and a prompt, greedily
 * and in raw mode, printing one line of JSON for each. A line break in a prompt is written \n and a
 * backslash \\. The clock of a prompt starts when rkllm_run is called.
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

/* More than any budget makes. */
#define TEXT_CAPACITY (1 << 20)

struct measurement {
    double start_ms;
    double first_token_ms;
    double last_token_ms;
    int tokens;
    char *text;
    size_t text_bytes;
    size_t text_capacity;
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
            size_t bytes = strlen(result->text);
            if (run->text_bytes + bytes > run->text_capacity) {
                run->failed = 1;
                return 0;
            }
            memcpy(run->text + run->text_bytes, result->text, bytes);
            run->text_bytes += bytes;
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

/* In place: it only gets shorter. */
static void unescape(char *text) {
    char *to = text;
    for (const char *from = text; *from; from++) {
        if (*from == '\\' && (from[1] == 'n' || from[1] == '\\')) {
            from++;
            *to++ = *from == 'n' ? '\n' : '\\';
        } else {
            *to++ = *from;
        }
    }
    *to = '\0';
}

static void print_json_string(FILE *out, const char *text, size_t bytes) {
    fputc('"', out);
    for (size_t at = 0; at < bytes; at++) {
        unsigned char byte = (unsigned char)text[at];
        if (byte == '"' || byte == '\\') {
            fprintf(out, "\\%c", byte);
        } else if (byte < 0x20) {
            fprintf(out, "\\u%04x", byte);
        } else {
            fputc(byte, out);
        }
    }
    fputc('"', out);
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
    FILE *json = fdopen(dup(STDOUT_FILENO), "w");
    dup2(STDERR_FILENO, STDOUT_FILENO);
    static char answer[TEXT_CAPACITY];
    if (!json) {
        perror("bare_loop: stdout");
        return 1;
    }

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
        unescape(prompt);
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
        measured.text = answer;
        measured.text_capacity = sizeof answer;
        measured.start_ms = now_ms();
        int code = run(handle, &input, &infer, &measured);
        if (code != 0 || measured.failed || measured.tokens == 0) {
            fprintf(stderr, "bare_loop: a run failed with %d after %d tokens\n", code,
                    measured.tokens);
            return 1;
        }
        fprintf(json,
                "{\"tokens\":%d,\"first_token_ms\":%.3f,\"last_token_ms\":%.3f,"
                "\"prefill_tokens\":%d,\"prefill_ms\":%.3f,\"text\":",
                measured.tokens, measured.first_token_ms - measured.start_ms,
                measured.last_token_ms - measured.start_ms, measured.perf.prefill_tokens,
                measured.perf.prefill_time_ms);
        print_json_string(json, measured.text, measured.text_bytes);
        fputs("}\n", json);
        fflush(json);
    }
    free(line);
    destroy(handle);
    return 0;
}
