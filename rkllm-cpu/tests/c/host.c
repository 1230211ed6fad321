/* Promises about the callbacks by which a host tokenises and embeds itself. */
#define _GNU_SOURCE
#include "outputs.h"

/* A host's own tokenizer and embedding table; what they were asked, and what they shall fail with. */
struct host {
    RKLLMInput tokens;
    char asked[4096];
    float *rows;
    size_t width;
    int tokenized, embedded, fail_tokens, fail_embed;
};

static int host_tokenizer(void *userdata, const char *text, int32_t text_len, int32_t *tokens,
                          int32_t n_tokens_max) {
    struct host *host = userdata;
    host->tokenized++;
    CHECK_INT((int)strlen(text), text_len);
    snprintf(host->asked, sizeof host->asked, "%s", text);
    int32_t count = (int32_t)host->tokens.token_input.n_tokens;
    if (host->fail_tokens) {
        return host->fail_tokens;
    }
    CHECK(n_tokens_max >= count);
    memcpy(tokens, host->tokens.token_input.input_ids, (size_t)count * sizeof *tokens);
    return count;
}

static int host_embed(void *userdata, int32_t *tokens, uint64_t num_tokens, void *embed, uint64_t len) {
    struct host *host = userdata;
    size_t known = host->tokens.token_input.n_tokens;
    CHECK(len == num_tokens * host->width * sizeof(float));
    for (uint64_t i = 0; i < num_tokens; i++) {
        size_t at = 0;
        while (at < known && host->tokens.token_input.input_ids[at] != tokens[i]) {
            at++;
        }
        CHECK(at < known);
        memcpy((float *)embed + i * host->width, host->rows + at * host->width,
               host->width * sizeof(float));
        host->embedded++;
    }
    return host->fail_embed;
}

static LLMHandle load_host(struct host *host) {
    RKLLMParam param = defaults();
    param.repeat_penalty = 1;
    RKLLMCallback callback = {on_output, NULL, host_tokenizer, host, host_embed, host};
    LLMHandle handle = NULL;
    CHECK_INT(rkllm_init(&handle, &param, &callback), 0);
    CHECK_INT(rkllm_set_chat_template(handle, "", "<", ">"), 0);
    return handle;
}

static void a_host_tokenises_for_a_model_that_cannot(void) {
    struct host host = {.tokens = token_file()};
    LLMHandle handle = load_host(&host);
    /* The host's tokens are evaluated, whatever the text. */
    char text[256];
    memset(text, 'a', sizeof text - 1), text[255] = 0;
    RKLLMInput input = prompt_input(text);
    struct outputs *run = new_outputs(handle);
    run->rows = rows_file();
    run_outputs(run, input, mode(RKLLM_INFER_GET_LAST_HIDDEN_LAYER, 0), "-HF");
    fclose(run->rows);
    CHECK_INT(run->num_tokens, (int)host.tokens.token_input.n_tokens);
    CHECK(host.asked[0] == '<' && strchr(host.asked, '>') != NULL);
    /* What it generates are ids, as many as asked for: it knows no text and no end. */
    struct outputs *ids = new_outputs(handle);
    CHECK_INT(rkllm_run(handle, &input, &(RKLLMInferParam){.max_new_tokens = 8}, ids), 0);
    CHECK_INT(ids->tokens, 8);
    CHECK_TEXT(ids->text, "");

    struct outputs *failing = new_outputs(handle);
    RKLLMInferParam infer = mode(RKLLM_INFER_GENERATE, 1);
    const int failures[] = {-1, 100000};
    for (int i = 0; i < 2; i++) {
        host.fail_tokens = failures[i];
        CHECK_INT(rkllm_run(handle, &input, &infer, failing), -1);
        CHECK_TEXT(failing->states, "");
    }
    host.fail_tokens = 0;
    host.tokens.token_input.input_ids[0] = 1 << 30;
    CHECK_INT(rkllm_run(handle, &input, &infer, failing), -1);
    CHECK_TEXT(failing->states, "");
    CHECK_INT(host.embedded, 0);
    free(run), free(ids), free(failing);
    rkllm_destroy(handle);

    /* Without the callback there is only token input. */
    handle = load_outputs(defaults());
    failing = new_outputs(handle);
    CHECK_INT(rkllm_run(handle, &input, &infer, failing), -1);
    CHECK_TEXT(failing->states, "");
    host.tokens = token_file();
    run_outputs(failing, host.tokens, infer, "-F");
    CHECK_INT(failing->tokens, 1);
    free(failing);
    rkllm_destroy(handle);
}

static void a_host_embeds_for_a_model_that_cannot(void) {
    struct host host = {.tokens = token_file(), .width = 576};
    size_t n_tokens = host.tokens.token_input.n_tokens, floats = n_tokens * host.width;
    host.rows = malloc(floats * sizeof *host.rows);
    FILE *file = fopen(getenv("EMBEDDINGS"), "rb");
    CHECK(host.rows && file && fread(host.rows, sizeof *host.rows, floats, file) == floats);
    fclose(file);
    LLMHandle handle = load_host(&host);
    struct outputs *run = new_outputs(handle);
    run->rows = rows_file();
    run_outputs(run, host.tokens, mode(RKLLM_INFER_GET_LAST_HIDDEN_LAYER, 0), "-HF");
    fclose(run->rows);
    CHECK_INT(run->num_tokens, (int)n_tokens);
    CHECK_INT(host.embedded, (int)n_tokens);
    /* It has a tokenizer of its own. */
    CHECK_INT(host.tokenized, 0);
    /* The token that follows has a text; its row is not asked for, as it is the last one. */
    struct outputs *next = new_outputs(handle);
    run_outputs(next, host.tokens, mode(RKLLM_INFER_GENERATE, 1), "-F");
    CHECK_INT(next->tokens, 1);
    CHECK(strlen(next->text) > 0);
    printf("next: %d\n", next->ids[0]);

    rkllm_clear_kv_cache(handle, 0, NULL, NULL);
    struct outputs *failing = new_outputs(handle);
    RKLLMInferParam infer = mode(RKLLM_INFER_GENERATE, 1);
    host.fail_embed = -1;
    CHECK_INT(rkllm_run(handle, &host.tokens, &infer, failing), -1);
    CHECK_TEXT(failing->states, "E");
    free(host.rows), free(run), free(next), free(failing);
    rkllm_destroy(handle);

    /* Without the callback there is nothing to load. */
    RKLLMParam param = defaults();
    RKLLMCallback callback = {.result_callback = on_output};
    CHECK_INT(rkllm_init(&handle, &param, &callback), -1);
}

static void a_model_tokenises_and_embeds_itself(void) {
    struct host host = {.tokens = token_file()};
    RKLLMParam param = defaults();
    param.repeat_penalty = 1;
    LLMHandle plain = load_outputs(param), handle = load_host(&host);
    CHECK_INT(rkllm_set_chat_template(plain, "", "<", ">"), 0);
    RKLLMInput input = prompt_input("The capital of France is");
    struct outputs *wanted = new_outputs(plain), *run = new_outputs(handle);
    RKLLMInferParam infer = mode(RKLLM_INFER_GENERATE, 12);
    CHECK_INT(rkllm_run(plain, &input, &infer, wanted), 0);
    CHECK_INT(rkllm_run(handle, &input, &infer, run), 0);
    CHECK_TEXT(run->text, wanted->text);
    CHECK(strlen(run->text) > 8);
    CHECK_INT(host.tokenized + host.embedded, 0);
    free(wanted), free(run);
    rkllm_destroy(plain), rkllm_destroy(handle);
}

static const struct promise promises[] = {
    {"a_host_tokenises_for_a_model_that_cannot", a_host_tokenises_for_a_model_that_cannot},
    {"a_host_embeds_for_a_model_that_cannot", a_host_embeds_for_a_model_that_cannot},
    {"a_model_tokenises_and_embeds_itself", a_model_tokenises_and_embeds_itself},
};

int main(int argc, char **argv) {
    return hold_promise(promises, sizeof promises / sizeof *promises, argc, argv);
}
