/* Promises about hidden states, logits and embedding input. The rows go to the file that the
 * variable ROWS names, for the test to compare with llama.cpp's own. */
#define _GNU_SOURCE
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

static void keep(struct outputs *run, const float *values, int num_tokens, int width) {
    CHECK(num_tokens > 0 && width > 0);
    run->num_tokens = num_tokens;
    run->width = width;
    if (run->rows) {
        size_t floats = (size_t)num_tokens * (size_t)width;
        CHECK(fwrite(values, sizeof *values, floats, run->rows) == floats);
    }
}

/* One letter a callback: - no data, H hidden states, L logits, F and E the ends. */
static int on_output(RKLLMResult *result, void *userdata, LLMCallState state) {
    struct outputs *run = userdata;
    char letter = '-';
    CHECK_INT(rkllm_is_running(run->handle), 1);
    if (state == RKLLM_RUN_FINISH || state == RKLLM_RUN_ERROR) {
        letter = state == RKLLM_RUN_FINISH ? 'F' : 'E';
        run->perf = result->perf;
        CHECK(!result->last_hidden_layer.hidden_states && !result->logits.logits);
    } else if (result->last_hidden_layer.hidden_states) {
        letter = 'H';
        CHECK(!result->logits.logits && !result->text);
        keep(run, result->last_hidden_layer.hidden_states, result->last_hidden_layer.num_tokens,
             result->last_hidden_layer.embd_size);
    } else if (result->logits.logits) {
        letter = 'L';
        keep(run, result->logits.logits, result->logits.num_tokens, result->logits.vocab_size);
    }
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

static LLMHandle load_outputs(RKLLMParam param) {
    RKLLMCallback callback;
    memset(&callback, 0, sizeof callback);
    callback.result_callback = on_output;
    LLMHandle handle = NULL;
    CHECK_INT(rkllm_init(&handle, &param, &callback), 0);
    CHECK_INT(rkllm_set_chat_template(handle, "", "", ""), 0);
    return handle;
}

static struct outputs *new_outputs(LLMHandle handle) {
    struct outputs *run = calloc(1, sizeof *run);
    CHECK(run != NULL);
    run->handle = handle;
    return run;
}

/* The tokens of the file that TOKENS names. */
static RKLLMInput token_file(void) {
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

static RKLLMInferParam mode(RKLLMInferMode mode, int max_new_tokens) {
    RKLLMInferParam infer = generate();
    infer.mode = mode;
    infer.max_new_tokens = max_new_tokens;
    return infer;
}

static void run_outputs(struct outputs *run, RKLLMInput input, RKLLMInferParam infer,
                        const char *states) {
    CHECK_INT(rkllm_run(run->handle, &input, &infer, run), 0);
    CHECK_TEXT(run->states, states);
}

static FILE *rows_file(void) {
    FILE *rows = fopen(getenv("ROWS"), "wb");
    CHECK(rows != NULL);
    return rows;
}

static void hidden_states_of_a_prompt(void) {
    LLMHandle handle = load_outputs(defaults());
    RKLLMInput input = token_file();
    int n_tokens = (int)input.token_input.n_tokens;
    RKLLMInferParam infer = mode(RKLLM_INFER_GET_LAST_HIDDEN_LAYER, 0);
    /* The same twice: what is in the cache already has its row as well. */
    for (int again = 0; again < 2; again++) {
        struct outputs *run = new_outputs(handle);
        run->rows = again ? rows_file() : NULL;
        run->answer = again ? 2 : 0; /* release the buffer, or not */
        run_outputs(run, input, infer, "-HF");
        CHECK_INT(run->num_tokens, n_tokens);
        CHECK_INT(run->perf.prefill_tokens, n_tokens);
        CHECK_INT(run->perf.generate_tokens, 0);
        CHECK_INT(run->tokens, 0);
        CHECK_INT(kv_size(handle), n_tokens);
        if (run->rows) {
            fclose(run->rows);
        }
        free(run);
    }
    /* A generation afterwards is as if it came after another generation. */
    struct outputs *after = new_outputs(handle), *fresh = new_outputs(handle);
    RKLLMInferParam text = mode(RKLLM_INFER_GENERATE, 16);
    CHECK_INT(rkllm_run(handle, &input, &text, after), 0);
    CHECK_INT(after->perf.prefill_tokens, 1);
    rkllm_clear_kv_cache(handle, 0, NULL, NULL);
    CHECK_INT(rkllm_run(handle, &input, &text, fresh), 0);
    memset(fresh, 0, sizeof *fresh);
    fresh->handle = handle;
    CHECK_INT(rkllm_run(handle, &input, &text, fresh), 0);
    CHECK_INT(fresh->perf.prefill_tokens, 1);
    CHECK_TEXT(after->text, fresh->text);
    CHECK(strchr(after->states, 'H') == NULL && strchr(after->states, 'L') == NULL);
    free(after), free(fresh);
    rkllm_destroy(handle);
}

/* Only the last turn has rows, and they know the history. */
static void hidden_states_after_a_history(void) {
    LLMHandle handle = load_outputs(defaults());
    RKLLMInput all = token_file(), first = all, second = all;
    size_t half = all.token_input.n_tokens / 2;
    first.token_input.n_tokens = half;
    second.token_input.input_ids += half;
    second.token_input.n_tokens -= half;
    RKLLMInferParam infer = mode(RKLLM_INFER_GET_LAST_HIDDEN_LAYER, 0);
    infer.keep_history = 1;
    struct outputs *run = new_outputs(handle);
    run_outputs(run, first, infer, "-HF");
    infer.keep_history = 0;
    struct outputs *last = new_outputs(handle);
    last->rows = rows_file();
    run_outputs(last, second, infer, "-HF");
    CHECK_INT(last->num_tokens, (int)second.token_input.n_tokens);
    fclose(last->rows);
    free(run), free(last);
    rkllm_destroy(handle);
}

static void hidden_states_can_be_paused_and_aborted(void) {
    LLMHandle handle = load_outputs(defaults());
    RKLLMInput input = token_file();
    RKLLMInferParam infer = mode(RKLLM_INFER_GET_LAST_HIDDEN_LAYER, 0);
    struct outputs *run = new_outputs(handle);
    run->answer = 1;
    run_outputs(run, input, infer, "-");
    run_outputs(run, input, infer, "-H");
    run->answer = 0;
    run_outputs(run, input, infer, "-HF");
    struct outputs *cut = new_outputs(handle);
    cut->abort_at = 1;
    run_outputs(cut, input, infer, "-F");
    infer.mode = (RKLLMInferMode)7;
    CHECK_INT(rkllm_run(handle, &input, &infer, cut), -1);
    free(run), free(cut);
    rkllm_destroy(handle);
}

static void logits_of_a_prompt_and_what_follows(void) {
    RKLLMParam param = defaults();
    param.repeat_penalty = 1.0f;
    param.ignore_eos_token = true;
    LLMHandle handle = load_outputs(param);
    RKLLMInput input = token_file();
    int n_tokens = (int)input.token_input.n_tokens;
    struct outputs *plain = new_outputs(handle);
    run_outputs(plain, input, mode(RKLLM_INFER_GENERATE, 4), "----F");
    struct outputs *run = new_outputs(handle);
    run->rows = rows_file();
    run_outputs(run, input, mode(RKLLM_INFER_GET_LOGITS, 4), "LLLLF");
    CHECK_INT(run->num_tokens, 1);
    CHECK_INT(run->perf.prefill_tokens, n_tokens);
    CHECK_INT(run->perf.generate_tokens, 3);
    CHECK_TEXT(run->text, plain->text);
    /* The ids that were drawn follow the rows. */
    CHECK(fwrite(run->ids, sizeof *run->ids, 4, run->rows) == 4);
    fclose(run->rows);
    /* The first are all of the prompt's, and then it can be left. */
    struct outputs *first = new_outputs(handle);
    first->abort_at = 1;
    run_outputs(first, input, mode(RKLLM_INFER_GET_LOGITS, 0), "LF");
    CHECK_INT(first->num_tokens, n_tokens);
    struct outputs *paused = new_outputs(handle);
    paused->answer = 1;
    run_outputs(paused, input, mode(RKLLM_INFER_GET_LOGITS, 2), "L");
    paused->answer = 2;
    run_outputs(paused, input, mode(RKLLM_INFER_GET_LOGITS, 2), "LLF");
    CHECK_INT(paused->num_tokens, 1);
    free(plain), free(run), free(first), free(paused);
    rkllm_destroy(handle);
}

/* EMBEDDINGS names a file with the model's own rows for the tokens of TOKENS. */
static void embedding_rows_are_as_good_as_tokens(void) {
    RKLLMParam param = defaults();
    param.repeat_penalty = 1.0f; /* rows are no tokens that could be repeated */
    LLMHandle handle = load_outputs(param);
    RKLLMInput tokens = token_file(), input = tokens;
    size_t n_tokens = tokens.token_input.n_tokens, floats = n_tokens * 576;
    float *rows = malloc(floats * sizeof *rows);
    FILE *file = fopen(getenv("EMBEDDINGS"), "rb");
    CHECK(rows && file && fread(rows, sizeof *rows, floats, file) == floats);
    fclose(file);
    input.input_type = RKLLM_INPUT_EMBED;
    input.embed_input.embed = rows;
    input.embed_input.n_tokens = n_tokens;

    struct outputs *hidden = new_outputs(handle);
    hidden->rows = rows_file();
    run_outputs(hidden, input, mode(RKLLM_INFER_GET_LAST_HIDDEN_LAYER, 0), "-HF");
    CHECK_INT(hidden->num_tokens, (int)n_tokens);
    fclose(hidden->rows);
    struct outputs *text = new_outputs(handle), *wanted = new_outputs(handle);
    RKLLMInferParam infer = mode(RKLLM_INFER_GENERATE, 12);
    CHECK_INT(rkllm_run(handle, &input, &infer, text), 0);
    CHECK_INT(text->perf.prefill_tokens, 1); /* equal rows are found in the cache */
    rkllm_clear_kv_cache(handle, 0, NULL, NULL);
    memset(text, 0, sizeof *text);
    text->handle = handle;
    CHECK_INT(rkllm_run(handle, &input, &infer, text), 0);
    CHECK_INT(rkllm_run(handle, &tokens, &infer, wanted), 0);
    CHECK_INT(wanted->perf.prefill_tokens, (int)n_tokens);
    CHECK_TEXT(text->text, wanted->text);
    CHECK(strlen(text->text) > 8);

    /* In a history, with the rows gone from the caller's memory. */
    RKLLMInput more = prompt_input(" And then");
    infer.keep_history = 1;
    struct outputs *one = new_outputs(handle), *two = new_outputs(handle);
    CHECK_INT(rkllm_run(handle, &tokens, &infer, one), 0);
    CHECK_INT(rkllm_run(handle, &more, &infer, one), 0);
    rkllm_clear_kv_cache(handle, 0, NULL, NULL);
    CHECK_INT(rkllm_run(handle, &input, &infer, two), 0);
    memset(rows, 0, floats * sizeof *rows);
    CHECK_INT(rkllm_run(handle, &more, &infer, two), 0);
    CHECK(two->perf.prefill_tokens < 8);
    CHECK_TEXT(two->text, one->text);

    input.embed_input.embed = NULL;
    CHECK_INT(rkllm_run(handle, &input, &infer, one), -1);
    input.embed_input.embed = rows;
    input.embed_input.n_tokens = 0;
    CHECK_INT(rkllm_run(handle, &input, &infer, one), -1);
    input.embed_input.n_tokens = (size_t)-1;
    CHECK_INT(rkllm_run(handle, &input, &infer, one), -1);
    free(rows), free(hidden), free(text), free(wanted), free(one), free(two);
    rkllm_destroy(handle);
}

static void load_adapter(LLMHandle handle, const char *file, const char *name, float scale, int code) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("ADAPTERS"), file);
    RKLLMLoraAdapter adapter = {path, name, scale};
    CHECK_INT(rkllm_load_lora(handle, &adapter), code);
}

/* The rows with `name` (NULL: none), also into ROWS if they are to be compared. */
static struct outputs *adapted(LLMHandle handle, const char *name, FILE *rows) {
    struct outputs *run = new_outputs(handle);
    RKLLMInferParam infer = mode(RKLLM_INFER_GET_LOGITS, 1);
    RKLLMLoraParam lora = {name};
    infer.lora_params = name ? &lora : NULL;
    run->rows = rows;
    run_outputs(run, token_file(), infer, "LF");
    CHECK_INT(run->perf.prefill_tokens, run->num_tokens);
    /* A text to compare. */
    infer = mode(RKLLM_INFER_GENERATE, 24);
    infer.lora_params = name ? &lora : NULL;
    RKLLMInput input = token_file();
    run->text[0] = 0;
    CHECK_INT(rkllm_run(handle, &input, &infer, run), 0);
    CHECK_INT(run->perf.prefill_tokens, 1); /* the cells of the same adapter are reused */
    return run;
}

static void adapters_are_chosen_per_run(void) {
    LLMHandle handle = load_outputs(defaults());
    FILE *rows = rows_file();
    struct outputs *before = adapted(handle, NULL, NULL);
    load_adapter(handle, "first.gguf", "first", 0.5f, 0);
    load_adapter(handle, "second.gguf", "second", 1.0f, 0);
    /* Loading applies nothing yet; then each by name, and none again. */
    struct outputs *runs[] = {adapted(handle, NULL, rows), adapted(handle, "first", rows),
                              adapted(handle, "second", rows), adapted(handle, "first", rows),
                              adapted(handle, NULL, rows)};
    CHECK_TEXT(runs[0]->text, before->text);
    CHECK_TEXT(runs[4]->text, before->text);
    CHECK_TEXT(runs[3]->text, runs[1]->text);
    CHECK(strcmp(runs[1]->text, before->text) != 0);
    CHECK(strcmp(runs[2]->text, before->text) != 0);
    CHECK(strcmp(runs[2]->text, runs[1]->text) != 0);
    for (int i = 0; i < 5; i++) {
        free(runs[i]);
    }
    fclose(rows), free(before);
    rkllm_destroy(handle);
}

static void an_adapter_must_be_known_once(void) {
    LLMHandle handle = load_outputs(defaults());
    load_adapter(handle, "first.gguf", "first", 1.0f, 0);
    load_adapter(handle, "second.gguf", "first", 1.0f, -1);
    load_adapter(handle, "absent.gguf", "absent", 1.0f, -1);
    load_adapter(handle, "lock", "empty", 1.0f, -1);
    load_adapter(handle, "second.gguf", NULL, 1.0f, -1);
    CHECK_INT(rkllm_load_lora(handle, NULL), -1);
    CHECK_INT(rkllm_load_lora(NULL, NULL), -1);
    struct outputs *run = new_outputs(handle);
    RKLLMInput input = token_file();
    RKLLMInferParam infer = mode(RKLLM_INFER_GENERATE, 2);
    RKLLMLoraParam lora = {"absent"};
    infer.lora_params = &lora;
    CHECK_INT(rkllm_run(handle, &input, &infer, run), -1);
    lora.lora_adapter_name = NULL;
    CHECK_INT(rkllm_run(handle, &input, &infer, run), -1);
    CHECK_TEXT(run->states, "");
    lora.lora_adapter_name = "first";
    run_outputs(run, input, infer, "--F");
    free(run);
    rkllm_destroy(handle);
}

static const struct promise promises[] = {
    {"adapters_are_chosen_per_run", adapters_are_chosen_per_run},
    {"an_adapter_must_be_known_once", an_adapter_must_be_known_once},
    {"hidden_states_of_a_prompt", hidden_states_of_a_prompt},
    {"hidden_states_after_a_history", hidden_states_after_a_history},
    {"hidden_states_can_be_paused_and_aborted", hidden_states_can_be_paused_and_aborted},
    {"logits_of_a_prompt_and_what_follows", logits_of_a_prompt_and_what_follows},
    {"embedding_rows_are_as_good_as_tokens", embedding_rows_are_as_good_as_tokens},
};

int main(int argc, char **argv) {
    return hold_promise(promises, sizeof promises / sizeof *promises, argc, argv);
}
