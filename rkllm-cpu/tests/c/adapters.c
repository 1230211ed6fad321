/* Promises about LoRA adapters, which are in the folder that ADAPTERS names. */
#define _GNU_SOURCE
#include "outputs.h"

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
    CHECK(run->perf.prefill_tokens <= PIECE); /* the cells of the same adapter are reused */
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
};

int main(int argc, char **argv) {
    return hold_promise(promises, sizeof promises / sizeof *promises, argc, argv);
}
