/* Promises about saved prompts. CACHE names a file to save to. */
#define _GNU_SOURCE
#include <sys/stat.h>

#include "harness.h"

static RKLLMInferParam saving(RKLLMPromptCacheParam *cache) {
    RKLLMInferParam infer = generate();
    cache->save_prompt_cache = 1;
    cache->prompt_cache_path = getenv("CACHE");
    infer.prompt_cache_params = cache;
    return infer;
}

static char *question(const char *beginning) {
    char *prompt = NULL;
    CHECK(asprintf(&prompt, "%s<|im_start|>user\nWhat is the capital of France?<|im_end|>\n"
                            "<|im_start|>assistant\n", beginning) > 0);
    return prompt;
}

static void a_saved_prompt_is_not_evaluated_again(void) {
    char *beginning = long_prompt(40), *prompt = question(beginning);
    const char *path = getenv("CACHE");
    LLMHandle handle = load_raw(defaults());
    struct record *plain = finished_run(handle, prompt, generate());
    int whole = plain->perf.prefill_tokens;
    CHECK(whole > 350);
    CHECK(access(path, F_OK) != 0);
    rkllm_clear_kv_cache(handle, 0, NULL, NULL);
    RKLLMPromptCacheParam cache;
    struct record *saving_run = finished_run(handle, beginning, saving(&cache));
    CHECK(access(path, R_OK) == 0);
    int saved = saving_run->perf.prefill_tokens;
    rkllm_destroy(handle);

    /* Another handle, as another process would have it. */
    handle = load_raw(defaults());
    CHECK_INT(rkllm_load_prompt_cache(handle, path), 0);
    struct record *quick = finished_run(handle, prompt, generate());
    fprintf(stderr, "prefill %.1f ms instead of %.1f ms\n", quick->perf.prefill_time_ms,
            plain->perf.prefill_time_ms);
    CHECK(quick->perf.prefill_tokens <= whole - saved + PIECE);
    CHECK(quick->perf.prefill_time_ms < plain->perf.prefill_time_ms / 2);
    CHECK_TEXT(quick->text, plain->text);
    CHECK(strstr(quick->text, "Paris") != NULL);
    /* As often as wanted, also after the cells are gone; but not for another beginning. */
    rkllm_clear_kv_cache(handle, 0, NULL, NULL);
    struct record *again = finished_run(handle, prompt, generate());
    CHECK_INT(again->perf.prefill_tokens, quick->perf.prefill_tokens);
    CHECK_TEXT(again->text, plain->text);
    struct record *other = finished_run(handle, "Something else.", generate());
    CHECK_INT(other->perf.prefill_tokens, 3);
    /* The saved prompt itself. */
    struct record *itself = finished_run(handle, beginning, generate());
    CHECK(itself->perf.prefill_tokens <= PIECE);
    CHECK_TEXT(itself->text, saving_run->text);

    /* Not for a model with an adapter, which would have computed something else. */
    char adapter_path[4096];
    snprintf(adapter_path, sizeof adapter_path, "%s/first.gguf", getenv("ADAPTERS"));
    RKLLMLoraAdapter adapter = {adapter_path, "first", 1.0f};
    CHECK_INT(rkllm_load_lora(handle, &adapter), 0);
    RKLLMLoraParam lora = {"first"};
    RKLLMInferParam adapted = generate();
    adapted.lora_params = &lora;
    struct record *with_adapter = finished_run(handle, prompt, adapted);
    CHECK_INT(with_adapter->perf.prefill_tokens, whole);

    CHECK_INT(rkllm_load_prompt_cache(handle, path), -1);
    CHECK_INT(rkllm_release_prompt_cache(handle), 0);
    CHECK_INT(rkllm_release_prompt_cache(handle), 0);
    rkllm_clear_kv_cache(handle, 0, NULL, NULL);
    struct record *released = finished_run(handle, prompt, generate());
    CHECK_INT(released->perf.prefill_tokens, whole);
    CHECK_INT(rkllm_load_prompt_cache(handle, path), 0);
    rkllm_destroy(handle);
    free(plain), free(saving_run), free(quick), free(again), free(other), free(itself);
    free(with_adapter), free(released), free(beginning), free(prompt);
}

static void a_saved_prompt_belongs_to_its_model(void) {
    const char *path = getenv("CACHE");
    LLMHandle handle = load_raw(defaults());
    RKLLMPromptCacheParam cache;
    free(finished_run(handle, "One, two, three", saving(&cache)));
    /* A place that cannot be written does not cost the run. */
    RKLLMInferParam infer = saving(&cache);
    cache.prompt_cache_path = "/nonexistent/prompt.bin";
    free(finished_run(handle, "One, two, three", infer));
    CHECK_INT(rkllm_load_prompt_cache(handle, NULL), -1);
    CHECK_INT(rkllm_load_prompt_cache(handle, "/nonexistent/prompt.bin"), -1);
    CHECK_INT(rkllm_load_prompt_cache(handle, model_path), -1);
    CHECK_INT(rkllm_load_prompt_cache(NULL, path), -1);
    CHECK_INT(rkllm_release_prompt_cache(NULL), -1);
    rkllm_destroy(handle);

    RKLLMParam param = defaults();
    param.model_path = getenv("OTHER");
    handle = load_raw(param);
    CHECK_INT(rkllm_load_prompt_cache(handle, path), -1);
    rkllm_destroy(handle);

    /* Nor one that is cut short. */
    struct stat status;
    CHECK_INT(stat(path, &status), 0);
    CHECK_INT(truncate(path, status.st_size - 100), 0);
    handle = load_raw(defaults());
    CHECK_INT(rkllm_load_prompt_cache(handle, path), -1);
    free(finished_run(handle, "One, two, three", generate()));
    rkllm_destroy(handle);
}

static const struct promise promises[] = {
    {"a_saved_prompt_is_not_evaluated_again", a_saved_prompt_is_not_evaluated_again},
    {"a_saved_prompt_belongs_to_its_model", a_saved_prompt_belongs_to_its_model},
};

int main(int argc, char **argv) {
    return hold_promise(promises, sizeof promises / sizeof *promises, argc, argv);
}
