/* What a fresh handle says to PROMPT with the adapter that the file ADAPTER is (none: as it is), into ROWS. */
#define _GNU_SOURCE
#include "outputs.h"

static void a_fresh_handle_says(void) {
    RKLLMParam param = defaults();
    param.repeat_penalty = 1.0f;
    LLMHandle handle = load_outputs(param);
    RKLLMInferParam infer = mode(RKLLM_INFER_GENERATE, 40);
    RKLLMLoraParam lora = {"only"};
    const char *file = getenv("ADAPTER");
    if (file[0]) {
        RKLLMLoraAdapter adapter = {file, "only", 0.5f};
        CHECK_INT(rkllm_load_lora(handle, &adapter), 0);
        infer.lora_params = &lora;
    }
    struct outputs *run = new_outputs(handle);
    RKLLMInput input = prompt_input(getenv("PROMPT"));
    CHECK_INT(rkllm_run(handle, &input, &infer, run), 0);
    FILE *text = rows_file();
    CHECK(fputs(run->text, text) >= 0);
    fclose(text), free(run);
    rkllm_destroy(handle);
}

static const struct promise promises[] = {
    {"a_fresh_handle_says", a_fresh_handle_says},
};

int main(int argc, char **argv) {
    return hold_promise(promises, sizeof promises / sizeof *promises, argc, argv);
}
