/* Promises about the streams of a shared context, one for each handle: what memory they take, and that those
   which are used together lie side by side. */
#define _GNU_SOURCE

#include "together.h"

/* Memory of this process that lies in no file. */
static long anonymous_kb(void) {
    FILE *file = fopen("/proc/self/status", "r");
    CHECK(file != NULL);
    char line[256];
    long kb = -1;
    while (kb < 0 && fgets(line, sizeof line, file)) {
        (void)sscanf(line, "RssAnon: %ld kB", &kb);
    }
    fclose(file);
    CHECK(kb > 0);
    return kb;
}

/* Of a cell of the demo model: 30 layers, keys and values of three heads of 64 numbers. */
#define CELL_KB 22.5
#define PAGE_KB 4

static void memory_is_that_of_the_pool(void) {
    share("8", "256");
    RKLLMParam param = greedy();
    param.max_context_len = 256;
    LLMHandle handles[MOST];
    char *some = long_prompt(2), *much = long_prompt(22), *prompts[MOST], *longer[MOST];
    for (int i = 0; i < MOST; i++) {
        handles[i] = load_raw(param);
        CHECK(asprintf(&prompts[i], "%d %s", i, some) > 0);
        CHECK(asprintf(&longer[i], "%d %s", i, much) > 0);
    }
    RKLLMInferParam infer = generate();
    infer.max_new_tokens = 6;
    struct record *first = finished_run(handles[0], longer[0], infer);
    /* What else a run takes is there now; without its cells. */
    long before = anonymous_kb() - (long)(kv_size(handles[0]) * CELL_KB);
    int held = 0;
    for (int i = 1; i < MOST; i++) {
        free(finished_run(handles[i], prompts[i], infer));
        held += kv_size(handles[i]);
    }
    for (int i = 3; i < 6; i += 2) {
        free(finished_run(handles[i], longer[i], infer));
        held += kv_size(handles[i]);
        long taken = anonymous_kb() - before;
        printf("%d cells were filled, and %ld kB are taken by them\n", held, taken);
        /* And a page at the end of what each stream has of each layer. */
        CHECK(taken < (long)(256 * CELL_KB) + 8 * 60 * PAGE_KB);
    }
    CHECK(held > 600);
    /* What was given back is as it was when it was new. */
    struct record *again = finished_run(handles[0], longer[0], infer);
    CHECK_TEXT(again->text, first->text);
    CHECK_INT(again->perf.prefill_tokens, first->perf.prefill_tokens);
    for (int i = 0; i < MOST; i++) {
        free(prompts[i]), free(longer[i]);
        CHECK_INT(rkllm_destroy(handles[i]), 0);
    }
    free(first), free(again), free(some), free(much);
}

static void a_shifted_window_takes_no_memory_of_others(void) {
    share("8", "256");
    RKLLMParam param = greedy();
    param.max_context_len = 256;
    LLMHandle handles[MOST];
    for (int i = 0; i < MOST; i++) {
        handles[i] = load_raw(param);
    }
    RKLLMInferParam infer = generate();
    infer.max_new_tokens = 16;
    free(finished_run(handles[1], questions[0], infer));
    long before = anonymous_kb();
    infer.max_new_tokens = 280;
    free(finished_run(handles[0], questions[0], infer));
    long taken = anonymous_kb() - before;
    printf("%ld kB were taken\n", taken);
    CHECK(taken < (long)(256 * CELL_KB) + 8 * 60 * PAGE_KB);
    for (int i = 0; i < MOST; i++) {
        CHECK_INT(rkllm_destroy(handles[i]), 0);
    }
}

/* Two runs, with others' prefixes between them. */
static void runs_are_brought_together(void) {
    share("4", "4096");
    LLMHandle handles[4];
    struct record *first[4];
    char *body = long_prompt(6), *prompts[4], *longer[4];
    RKLLMInferParam infer = generate();
    infer.max_new_tokens = 8;
    for (int i = 0; i < 4; i++) {
        handles[i] = load_raw(greedy());
        CHECK(asprintf(&prompts[i], "%d %s", i, body) > 0);
        CHECK(asprintf(&longer[i], "%s And then?", prompts[i]) > 0);
    }
    for (int i = 0; i < 4; i++) {
        free(finished_run(handles[i], prompts[i], infer));
    }
    for (int i = 1; i < 3; i++) {
        /* As it is without the others. */
        first[i] = finished_run(handles[i], longer[i], infer);
        CHECK_INT(rkllm_clear_kv_cache(handles[i], 0, NULL, NULL), 0);
        free(finished_run(handles[i], prompts[i], infer));
    }
    struct run *runs[2] = {start(handles[0], questions[0], 48), start(handles[3], questions[3], 48)};
    FILE *file = fopen(getenv("ROWS"), "wb");
    CHECK(file != NULL);
    for (int i = 0; i < 2; i++) {
        finish(runs[i], 48);
        write_run(file, runs[i], 48);
        printf("prefill tokens: %d\n", runs[i]->record->perf.prefill_tokens);
        forget(runs[i]);
    }
    CHECK_INT(fclose(file), 0);
    for (int i = 1; i < 3; i++) {
        struct record *again = finished_run(handles[i], longer[i], infer);
        CHECK_TEXT(again->text, first[i]->text);
        CHECK_INT(again->perf.prefill_tokens, first[i]->perf.prefill_tokens);
        free(again), free(first[i]);
    }
    for (int i = 0; i < 4; i++) {
        free(prompts[i]), free(longer[i]);
        CHECK_INT(rkllm_destroy(handles[i]), 0);
    }
    free(body);
}

static const struct promise promises[] = {
    {"memory_is_that_of_the_pool", memory_is_that_of_the_pool},
    {"a_shifted_window_takes_no_memory_of_others", a_shifted_window_takes_no_memory_of_others},
    {"runs_are_brought_together", runs_are_brought_together},
};

int main(int argc, char **argv) {
    return hold_promise(promises, sizeof promises / sizeof *promises, argc, argv);
}
