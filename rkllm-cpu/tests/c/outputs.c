/* Promises about hidden states, logits and embedding input. */
#define _GNU_SOURCE
#include "outputs.h"

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
    CHECK(after->perf.prefill_tokens <= PIECE);
    rkllm_clear_kv_cache(handle, 0, NULL, NULL);
    CHECK_INT(rkllm_run(handle, &input, &text, fresh), 0);
    memset(fresh, 0, sizeof *fresh);
    fresh->handle = handle;
    CHECK_INT(rkllm_run(handle, &input, &text, fresh), 0);
    CHECK(fresh->perf.prefill_tokens <= PIECE);
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

/* A token that ends inside a character has its logits where hosts look for them. */
static void logits_do_not_wait_for_a_character(void) {
    RKLLMParam param = defaults();
    param.repeat_penalty = 1.0f;
    LLMHandle handle = load_outputs(param);
    RKLLMInput input = prompt_input("🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀");
    struct outputs *plain = new_outputs(handle), *run = new_outputs(handle);
    run_outputs(plain, input, mode(RKLLM_INFER_GENERATE, 8), "--------F");
    run_outputs(run, input, mode(RKLLM_INFER_GET_LOGITS, 8), "LLLLLLLLF");
    CHECK(strstr(run->text, "🚀") != NULL);
    CHECK_TEXT(run->text, plain->text);
    free(plain), free(run);
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
    CHECK(text->perf.prefill_tokens <= PIECE); /* equal rows are found in the cache */
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

static const struct promise promises[] = {
    {"hidden_states_of_a_prompt", hidden_states_of_a_prompt},
    {"hidden_states_after_a_history", hidden_states_after_a_history},
    {"hidden_states_can_be_paused_and_aborted", hidden_states_can_be_paused_and_aborted},
    {"logits_of_a_prompt_and_what_follows", logits_of_a_prompt_and_what_follows},
    {"logits_do_not_wait_for_a_character", logits_do_not_wait_for_a_character},
    {"embedding_rows_are_as_good_as_tokens", embedding_rows_are_as_good_as_tokens},
};

int main(int argc, char **argv) {
    return hold_promise(promises, sizeof promises / sizeof *promises, argc, argv);
}
