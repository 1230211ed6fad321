/*
 * What the promise programs share: a record of every callback, and checks that name what failed.
 * Each promise is a function; the program's first argument names it, the second is the model.
 */
#ifndef HARNESS_H
#define HARNESS_H

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "rkllm.h"

#define CHECK(what)                                                                  \
    do {                                                                             \
        if (!(what)) {                                                               \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #what); \
            exit(1);                                                                 \
        }                                                                            \
    } while (0)

#define CHECK_INT(left, right)                                                            \
    do {                                                                                  \
        long l_ = (long)(left), r_ = (long)(right);                                       \
        if (l_ != r_) {                                                                   \
            fprintf(stderr, "%s:%d: %s is %ld, but %s is %ld\n", __FILE__, __LINE__, #left, l_, \
                    #right, r_);                                                          \
            exit(1);                                                                      \
        }                                                                                 \
    } while (0)

#define CHECK_TEXT(left, right)                                                             \
    do {                                                                                    \
        if (strcmp((left), (right)) != 0) {                                                 \
            fprintf(stderr, "%s:%d: %s is\n%s\nbut %s is\n%s\n", __FILE__, __LINE__, #left, \
                    (left), #right, (right));                                               \
            exit(1);                                                                        \
        }                                                                                   \
    } while (0)

/* Everything one run told its callback. */
struct record {
    LLMHandle handle;
    char text[1 << 16];
    size_t text_len;
    int normal, waiting, finish, error;
    int after_end;      /* callbacks after FINISH or ERROR */
    int early_perf;     /* perf that was not zero before FINISH */
    int bad_text;       /* NORMAL without text, or WAITING with some, or text that is not UTF-8 */
    int foreign_thread; /* callbacks on another thread than the caller's */
    int not_running;    /* callbacks during which rkllm_is_running was not 1 */
    int max_kv;
    int32_t ids[4096];
    char last_text[64];
    pthread_t caller;
    RKLLMPerfStat perf;
    /* What to do at the n-th token (1 is the first); 0 is never. */
    int abort_at, pause_at;
    int (*at_token)(struct record *record, int token);
    atomic_int tokens;
};

static inline int valid_utf8(const unsigned char *s) {
    while (*s) {
        int more = *s < 0x80 ? 0 : *s >= 0xC2 && *s < 0xE0 ? 1 : *s >= 0xE0 && *s < 0xF0 ? 2
                 : *s >= 0xF0 && *s < 0xF5 ? 3 : -1;
        if (more < 0) {
            return 0;
        }
        for (s++; more > 0; more--, s++) {
            if ((*s & 0xC0) != 0x80) {
                return 0;
            }
        }
    }
    return 1;
}

static int on_result(RKLLMResult *result, void *userdata, LLMCallState state) {
    struct record *record = userdata;
    RKLLMPerfStat none;
    memset(&none, 0, sizeof none);
    int kv = 0;
    record->after_end += record->finish + record->error;
    record->foreign_thread += !pthread_equal(record->caller, pthread_self());
    record->not_running += rkllm_is_running(record->handle) != 1;
    CHECK_INT(rkllm_get_kv_cache_size(record->handle, &kv), 0);
    record->max_kv = kv > record->max_kv ? kv : record->max_kv;
    if (state != RKLLM_RUN_FINISH) {
        record->early_perf += memcmp(&result->perf, &none, sizeof none) != 0;
    }
    switch (state) {
    case RKLLM_RUN_NORMAL:
        record->normal++;
        if (!result->text || !valid_utf8((const unsigned char *)result->text)) {
            record->bad_text++;
            break;
        }
        snprintf(record->last_text, sizeof record->last_text, "%s", result->text);
        CHECK(record->text_len + strlen(result->text) < sizeof record->text);
        memcpy(record->text + record->text_len, result->text, strlen(result->text) + 1);
        record->text_len += strlen(result->text);
        break;
    case RKLLM_RUN_WAITING:
        record->waiting++;
        record->bad_text += result->text != NULL;
        break;
    case RKLLM_RUN_FINISH:
        record->finish++;
        record->perf = result->perf;
        return 0;
    case RKLLM_RUN_ERROR:
        record->error++;
        return 0;
    }
    int token = record->normal + record->waiting;
    if (token <= 4096) {
        record->ids[token - 1] = result->token_id;
    }
    atomic_store(&record->tokens, token);
    if (token == record->abort_at) {
        CHECK_INT(rkllm_abort(record->handle), 0);
    }
    if (record->at_token) {
        return record->at_token(record, token);
    }
    return token == record->pause_at ? 1 : 0;
}

static const char *model_path;

static inline RKLLMParam defaults(void) {
    RKLLMParam param = rkllm_createDefaultParam();
    param.model_path = model_path;
    param.max_context_len = 1024;
    param.max_new_tokens = 24;
    param.top_k = 1;
    return param;
}

static inline LLMHandle load_with(RKLLMParam param) {
    RKLLMCallback callback;
    memset(&callback, 0, sizeof callback);
    callback.result_callback = on_result;
    LLMHandle handle = NULL;
    CHECK_INT(rkllm_init(&handle, &param, &callback), 0);
    CHECK(handle != NULL);
    return handle;
}

/* A handle in raw mode: prompts are tokenised as given. */
static inline LLMHandle load_raw(RKLLMParam param) {
    LLMHandle handle = load_with(param);
    CHECK_INT(rkllm_set_chat_template(handle, "", "", ""), 0);
    return handle;
}

static inline struct record *new_record(LLMHandle handle) {
    struct record *record = calloc(1, sizeof *record);
    CHECK(record != NULL);
    record->handle = handle;
    return record;
}

static inline RKLLMInput prompt_input(const char *prompt) {
    RKLLMInput input;
    memset(&input, 0, sizeof input);
    input.role = "user";
    input.input_type = RKLLM_INPUT_PROMPT;
    input.prompt_input = prompt;
    return input;
}

static inline RKLLMInferParam generate(void) {
    RKLLMInferParam infer;
    memset(&infer, 0, sizeof infer);
    infer.mode = RKLLM_INFER_GENERATE;
    return infer;
}

/* Runs and holds every run to what is true of all of them. */
static inline int run_into(struct record *record, const char *prompt, RKLLMInferParam infer) {
    RKLLMInput input = prompt_input(prompt);
    record->caller = pthread_self();
    int code = rkllm_run(record->handle, &input, &infer, record);
    CHECK_INT(record->after_end, 0);
    CHECK_INT(record->early_perf, 0);
    CHECK_INT(record->bad_text, 0);
    CHECK_INT(record->foreign_thread, 0);
    CHECK_INT(record->not_running, 0);
    CHECK_INT(rkllm_is_running(record->handle), 0);
    return code;
}

/* A run that ends normally, of whatever model. The caller frees the record. */
static inline struct record *ended_run(LLMHandle handle, const char *prompt, RKLLMInferParam infer) {
    struct record *record = new_record(handle);
    CHECK_INT(run_into(record, prompt, infer), 0);
    CHECK_INT(record->finish, 1);
    CHECK_INT(record->error, 0);
    int tokens = record->normal + record->waiting;
    CHECK_INT(record->perf.generate_tokens, tokens > 0 ? tokens - 1 : 0);
    return record;
}

/* Likewise of the demo model, which takes memory. */
static inline struct record *finished_run(LLMHandle handle, const char *prompt, RKLLMInferParam infer) {
    struct record *record = ended_run(handle, prompt, infer);
    CHECK(record->perf.memory_usage_mb > 50);
    return record;
}

static inline int kv_size(LLMHandle handle) {
    int size = -1;
    CHECK_INT(rkllm_get_kv_cache_size(handle, &size), 0);
    return size;
}

static inline int count_threads(void) {
    DIR *tasks = opendir("/proc/self/task");
    CHECK(tasks != NULL);
    int threads = -2;
    while (readdir(tasks)) {
        threads++;
    }
    closedir(tasks);
    return threads;
}

static inline double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* Waits for a condition with a generous limit, and leaves the processor to what computes meanwhile. */
#define AWAIT(what)                                 \
    do {                                            \
        double until_ = now_ms() + 60000;           \
        while (!(what)) {                           \
            CHECK(now_ms() < until_ && "in time");  \
            struct timespec moment_ = {0, 200000};  \
            nanosleep(&moment_, NULL);              \
        }                                           \
    } while (0)

/* A prompt that is in the cells: a last piece of it is evaluated again, so that it is evaluated as if it
   were not. Of one that is shorter than 64 tokens that is less. */
enum { PIECE = 67, SHORT_PIECE = 7 };

/* About ten tokens a repetition. */
static inline char *long_prompt(int repetitions) {
    static const char sentence[] = "The quick brown fox jumps over the lazy dog. ";
    char *prompt = calloc((size_t)repetitions, sizeof sentence);
    CHECK(prompt != NULL);
    for (int i = 0; i < repetitions; i++) {
        strcat(prompt, sentence);
    }
    return prompt;
}

struct promise {
    const char *name;
    void (*hold)(void);
};

static inline int hold_promise(const struct promise *promises, size_t count, int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc != 3) {
        fprintf(stderr, "usage: %s PROMISE MODEL\n", argv[0]);
        return 2;
    }
    model_path = argv[2];
    for (size_t i = 0; i < count; i++) {
        if (strcmp(promises[i].name, argv[1]) == 0) {
            promises[i].hold();
            printf("held: %s\n", argv[1]);
            return 0;
        }
    }
    fprintf(stderr, "no promise is called %s\n", argv[1]);
    return 2;
}

#endif
