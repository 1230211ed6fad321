/* A promise about the callbacks by which a host tokenises and embeds itself. */
#define _GNU_SOURCE
#include "outputs.h"

/* A host's own tokenizer and embedding table; what they were asked, and what they shall fail with. */
struct host {
    RKLLMInput tokens;
    char asked[4096];
    _Float16 *rows;
    size_t width;
    int embedded, fail_tokens, fail_embed;
};

static int host_tokenizer(void *userdata, const char *text, int32_t text_len, int32_t *tokens,
                          int32_t n_tokens_max) {
    struct host *host = userdata;
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
    CHECK(len == num_tokens * host->width * sizeof(_Float16));
    for (uint64_t i = 0; i < num_tokens; i++) {
        size_t at = 0;
        while (at < host->tokens.token_input.n_tokens &&
               host->tokens.token_input.input_ids[at] != tokens[i]) {
            at++;
        }
        CHECK(at < host->tokens.token_input.n_tokens);
        memcpy((_Float16 *)embed + i * host->width, host->rows + at * host->width,
               host->width * sizeof(_Float16));
        host->embedded++;
    }
    return host->fail_embed;
}

static void a_host_tokenises_and_embeds(void) {
    struct host host = {.tokens = token_file(), .width = 576};
    size_t n_tokens = host.tokens.token_input.n_tokens, floats = n_tokens * host.width;
    float *rows = malloc(floats * sizeof *rows);
    host.rows = malloc(floats * sizeof *host.rows);
    FILE *file = fopen(getenv("EMBEDDINGS"), "rb");
    CHECK(rows && host.rows && file && fread(rows, sizeof *rows, floats, file) == floats);
    fclose(file);
    for (size_t i = 0; i < floats; i++) {
        host.rows[i] = (_Float16)rows[i];
    }
    RKLLMParam param = defaults();
    RKLLMCallback callback = {on_output, NULL, host_tokenizer, &host, host_embed, &host};
    LLMHandle handle = NULL;
    CHECK_INT(rkllm_init(&handle, &param, &callback), 0);
    CHECK_INT(rkllm_set_chat_template(handle, "", "<", ">"), 0);
    /* The host's tokens are evaluated, whatever the text, and by its rows. */
    char text[256];
    memset(text, 'a', sizeof text - 1), text[255] = 0;
    RKLLMInput input = prompt_input(text);
    struct outputs *run = new_outputs(handle);
    run->rows = rows_file();
    run_outputs(run, input, mode(RKLLM_INFER_GET_LAST_HIDDEN_LAYER, 0), "-HF");
    fclose(run->rows);
    CHECK_INT(run->num_tokens, (int)n_tokens);
    CHECK_INT(host.embedded, (int)n_tokens);
    CHECK(host.asked[0] == '<' && strchr(host.asked, '>') != NULL);

    struct outputs *failing = new_outputs(handle);
    RKLLMInferParam infer = mode(RKLLM_INFER_GENERATE, 1);
    const int failures[] = {-1, 100000};
    for (int i = 0; i < 2; i++) {
        host.fail_tokens = failures[i];
        CHECK_INT(rkllm_run(handle, &input, &infer, failing), -1);
        CHECK_TEXT(failing->states, "");
    }
    host.fail_tokens = 0;
    host.fail_embed = -1;
    CHECK_INT(rkllm_run(handle, &input, &infer, failing), -1);
    CHECK_TEXT(failing->states, "E");
    host.fail_embed = 0;
    host.tokens.token_input.input_ids[0] = 1 << 30;
    CHECK_INT(rkllm_run(handle, &input, &infer, failing), -1);
    CHECK_TEXT(failing->states, "E");
    free(rows), free(host.rows), free(run), free(failing);
    rkllm_destroy(handle);
}

static const struct promise promises[] = {
    {"a_host_tokenises_and_embeds", a_host_tokenises_and_embeds},
};

int main(int argc, char **argv) {
    return hold_promise(promises, sizeof promises / sizeof *promises, argc, argv);
}
