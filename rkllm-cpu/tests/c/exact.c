/* Promises about prefixes: an answer is the same to the bit whether what its prompt begins with was in
   the cells or is evaluated. TOKENS names a file of token ids. */
#define _GNU_SOURCE
#include "outputs.h"

/* The logits of a run's prompt. */
struct rows {
    float *values;
    int count, width, evaluated, token;
};

static int on_rows(RKLLMResult *result, void *userdata, LLMCallState state) {
    struct rows *rows = userdata;
    CHECK(state != RKLLM_RUN_ERROR);
    if (state == RKLLM_RUN_FINISH) {
        rows->evaluated = result->perf.prefill_tokens;
    } else if (result->logits.logits) {
        rows->count = result->logits.num_tokens;
        rows->width = result->logits.vocab_size;
        size_t floats = (size_t)rows->count * (size_t)rows->width;
        rows->values = malloc(floats * sizeof(float));
        CHECK(rows->values != NULL);
        memcpy(rows->values, result->logits.logits, floats * sizeof(float));
    }
    rows->token = state == RKLLM_RUN_FINISH ? rows->token : result->token_id;
    return 0;
}

static LLMHandle load_rows(void) {
    RKLLMCallback callback;
    memset(&callback, 0, sizeof callback);
    callback.result_callback = on_rows;
    RKLLMParam param = defaults();
    param.repeat_penalty = 1;
    LLMHandle handle = NULL;
    CHECK_INT(rkllm_init(&handle, &param, &callback), 0);
    return handle;
}

static struct rows run_of(LLMHandle handle, int32_t *ids, size_t count, RKLLMInferParam infer) {
    struct rows rows;
    memset(&rows, 0, sizeof rows);
    RKLLMInput input = prompt_input(NULL);
    input.input_type = RKLLM_INPUT_TOKEN;
    input.token_input.input_ids = ids;
    input.token_input.n_tokens = count;
    infer.max_new_tokens = 1;
    CHECK_INT(rkllm_run(handle, &input, &infer, &rows), 0);
    return rows;
}

/* A history of `first` tokens and the one that was said to them, and then `second` more. */
static void compare(int32_t *ids, int first, int second) {
    LLMHandle handle = load_rows();
    RKLLMInferParam keeping = generate(), logits = mode(RKLLM_INFER_GET_LOGITS, 1);
    keeping.keep_history = 1;
    struct rows said = run_of(handle, ids, (size_t)first, keeping);
    struct rows warm = run_of(handle, ids + first, (size_t)second, logits);
    CHECK_INT(warm.count, second);

    CHECK_INT(rkllm_clear_kv_cache(handle, 0, NULL, NULL), 0);
    int whole = first + 1 + second;
    int32_t *all = malloc((size_t)whole * sizeof *all);
    CHECK(all != NULL);
    memcpy(all, ids, (size_t)first * sizeof *all);
    all[first] = said.token;
    memcpy(all + first + 1, ids + first, (size_t)second * sizeof *all);
    struct rows cold = run_of(handle, all, (size_t)whole, logits);
    CHECK_INT(cold.count, whole);
    CHECK_INT(cold.evaluated, whole);
    size_t floats = (size_t)second * (size_t)cold.width;
    int same = memcmp(warm.values, cold.values + (size_t)(first + 1) * (size_t)cold.width,
                      floats * sizeof(float)) == 0;
    printf("%d tokens after %d: %d evaluated, %s\n", second, first, warm.evaluated,
           same ? "the same" : "other logits");
    CHECK(same);
    /* What is new, and a constant. */
    CHECK(warm.evaluated <= second + 1 + PIECE);
    free(warm.values), free(cold.values), free(all);
    CHECK_INT(rkllm_destroy(handle), 0);
}

static void logits_do_not_depend_on_what_was_in_the_cells(void) {
    int32_t *ids = token_file().token_input.input_ids;
    const int pairs[][2] = {{9, 5}, {30, 20}, {40, 60}, {70, 1}, {130, 3}, {512, 30}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        compare(ids, pairs[i][0], pairs[i][1]);
    }
}

/* Between logits that were computed in pieces of different lengths. */
#define ROUNDING 0.1f

static size_t likeliest(const float *row, size_t width) {
    size_t best = 0;
    for (size_t i = 1; i < width; i++) {
        if (row[i] > row[best]) {
            best = i;
        }
    }
    return best;
}

/* As the vendor's library has them: of what is evaluated, and the last one is always. */
static void rows_can_be_of_what_was_not_in_the_cells(void) {
    enum { BEFORE = 290, ALL = 300 };
    int32_t *ids = token_file().token_input.input_ids;
    LLMHandle handle = load_rows();
    struct rows all = run_of(handle, ids, ALL, mode(RKLLM_INFER_GET_LOGITS, 1));
    CHECK_INT(all.count, ALL);
    CHECK_INT(rkllm_destroy(handle), 0);

    setenv("RKLLM_CPU_VENDOR_ONLY", "1", 1);
    handle = load_rows();
    run_of(handle, ids, BEFORE, generate());
    struct rows some = run_of(handle, ids, ALL, mode(RKLLM_INFER_GET_LOGITS, 1));
    CHECK_INT(some.count, some.evaluated);
    CHECK(some.count >= ALL - BEFORE && some.count <= ALL - BEFORE + 1 + PIECE);
    size_t width = (size_t)all.width;
    /* What goes on behind the prompt is evaluated one by one here, which rounds otherwise than one piece: the
     * likeliest token is the other's too, or as good as it. */
    const float *last = some.values + (size_t)(some.count - 1) * width;
    const float *of_all = all.values + (size_t)(ALL - 1) * width;
    float missed = of_all[likeliest(of_all, width)] - of_all[likeliest(last, width)];
    printf("the likeliest token misses by %g\n", (double)missed);
    CHECK(missed <= ROUNDING);
    struct rows again = run_of(handle, ids, ALL, mode(RKLLM_INFER_GET_LOGITS, 1));
    CHECK(again.count >= 1 && again.count <= 1 + PIECE);
    free(all.values), free(some.values), free(again.values);
    CHECK_INT(rkllm_destroy(handle), 0);
}

#define QUESTIONS 6

static const char *const questions[QUESTIONS] = {
    "Why is the sky blue?",  "Tell me a story.",     "What is the capital of France?",
    "How do I boil an egg?", "List three animals.", "Describe a cat to someone who has never seen one, "
                                                    "and say what it eats and where it sleeps.",
};

static char *asked(const char *question) {
    char *beginning = long_prompt(15), *prompt = NULL;
    CHECK(asprintf(&prompt, "%s<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n", beginning,
                   question) > 0);
    free(beginning);
    return prompt;
}

static RKLLMParam long_answers(void) {
    RKLLMParam param = defaults();
    param.repeat_penalty = 1;
    param.ignore_eos_token = true;
    param.max_new_tokens = 32;
    return param;
}

static void answers_do_not_depend_on_what_was_in_the_cells(void) {
    LLMHandle warm = load_raw(long_answers());
    struct record *hits[QUESTIONS];
    for (int i = 0; i < QUESTIONS; i++) {
        char *prompt = asked(questions[i]);
        hits[i] = finished_run(warm, prompt, generate());
        CHECK(i == 0 ? hits[i]->perf.prefill_tokens > 140 : hits[i]->perf.prefill_tokens < 100);
        free(prompt);
    }
    CHECK_INT(rkllm_destroy(warm), 0);
    LLMHandle cold = load_raw(long_answers());
    for (int i = 0; i < QUESTIONS; i++) {
        char *prompt = asked(questions[i]);
        CHECK_INT(rkllm_clear_kv_cache(cold, 0, NULL, NULL), 0);
        struct record *alone = finished_run(cold, prompt, generate());
        CHECK(alone->perf.prefill_tokens > 140);
        CHECK_TEXT(hits[i]->text, alone->text);
        free(prompt), free(alone), free(hits[i]);
    }
    CHECK_INT(rkllm_destroy(cold), 0);
}

/* CACHE names a file to save to. */
static void answers_do_not_depend_on_a_saved_prompt(void) {
    char *beginning = long_prompt(15);
    LLMHandle saves = load_raw(long_answers());
    RKLLMInferParam infer = generate();
    RKLLMPromptCacheParam cache = {1, getenv("CACHE")};
    infer.prompt_cache_params = &cache;
    free(finished_run(saves, beginning, infer));
    CHECK_INT(rkllm_destroy(saves), 0);
    for (int i = 0; i < QUESTIONS; i += 2) {
        char *prompt = asked(questions[i]);
        LLMHandle handle = load_raw(long_answers());
        struct record *alone = finished_run(handle, prompt, generate());
        CHECK_INT(rkllm_clear_kv_cache(handle, 0, NULL, NULL), 0);
        CHECK_INT(rkllm_load_prompt_cache(handle, getenv("CACHE")), 0);
        struct record *hit = finished_run(handle, prompt, generate());
        CHECK(alone->perf.prefill_tokens > 140 && hit->perf.prefill_tokens < 100);
        CHECK_TEXT(hit->text, alone->text);
        CHECK_INT(rkllm_destroy(handle), 0);
        free(prompt), free(alone), free(hit);
    }
    free(beginning);
}

static const struct promise promises[] = {
    {"logits_do_not_depend_on_what_was_in_the_cells", logits_do_not_depend_on_what_was_in_the_cells},
    {"rows_can_be_of_what_was_not_in_the_cells", rows_can_be_of_what_was_not_in_the_cells},
    {"answers_do_not_depend_on_what_was_in_the_cells",
     answers_do_not_depend_on_what_was_in_the_cells},
    {"answers_do_not_depend_on_a_saved_prompt", answers_do_not_depend_on_a_saved_prompt},
};

int main(int argc, char **argv) {
    return hold_promise(promises, sizeof promises / sizeof *promises, argc, argv);
}
