/* Promises about tools and thinking, on a model whose template knows both: what the template makes
 * of a turn is as if its text had been given in raw mode. */
#define _GNU_SOURCE
#include "harness.h"

#define TOOLS "[{\"type\": \"function\", \"function\": {\"name\": \"weather\"}}]"
#define SYSTEM "<|im_start|>system\nYou may call functions." TOOLS "<|im_end|>\n"
#define USER "<|im_start|>user\nHow warm is it?<|im_end|>\n"
#define ANSWER "<|im_start|>assistant\n"
#define NO_THOUGHT "<think>\n\n</think>\n\n"

static struct record *turn(LLMHandle handle, const char *role, const char *prompt, bool thinking,
                           RKLLMInferParam infer) {
    RKLLMInput input = prompt_input(prompt);
    input.role = role;
    input.enable_thinking = thinking;
    struct record *run = new_record(handle);
    run->caller = pthread_self();
    CHECK_INT(rkllm_run(handle, &input, &infer, run), 0);
    CHECK_INT(run->finish, 1);
    return run;
}

/* The whole conversation in raw mode says the same. */
static void same_as_raw(LLMHandle raw, struct record *run, int prompt_tokens, const char *prompt) {
    rkllm_clear_kv_cache(raw, 0, NULL, NULL);
    struct record *wanted = finished_run(raw, prompt, generate());
    CHECK_TEXT(run->text, wanted->text);
    CHECK_INT(prompt_tokens, wanted->perf.prefill_tokens);
    free(wanted);
}

static RKLLMInferParam keeping(void) {
    RKLLMInferParam infer = generate();
    infer.keep_history = 1;
    return infer;
}

static void tools_are_shown_by_the_models_template(void) {
    RKLLMParam param = defaults();
    param.repeat_penalty = 1.0f;
    param.max_new_tokens = 12;
    LLMHandle handle = load_with(param), raw = load_raw(param);
    CHECK_INT(rkllm_set_function_tools(handle, "You may call functions.", TOOLS, "tool_response"), 0);
    struct record *call = turn(handle, "user", "How warm is it?", true, keeping());
    int first = call->perf.prefill_tokens;
    same_as_raw(raw, call, first, SYSTEM USER ANSWER);

    /* Results: one JSON array, an own turn each, after the answer that asked for them. */
    RKLLMInput input = prompt_input("not JSON");
    input.role = "tool";
    RKLLMInferParam infer = keeping();
    CHECK_INT(rkllm_run(handle, &input, &infer, call), -1);
    struct record *result = turn(handle, "tool", "[\"20 C\", {\"rain\": false}]", true, keeping());
    char whole[8192];
    snprintf(whole, sizeof whole,
             SYSTEM USER ANSWER "%.1000s<|im_end|>\n<|im_start|>tool\n20 C<|im_end|>\n"
             "<|im_start|>tool\n{\"rain\":false}<|im_end|>\n" ANSWER, call->text);
    struct record *wanted = finished_run(raw, whole, generate());
    CHECK_TEXT(result->text, wanted->text);
    CHECK(result->perf.prefill_tokens < first);

    /* They stay in the next conversation, and an empty array takes them away. */
    rkllm_clear_kv_cache(handle, 0, NULL, NULL);
    struct record *anew = turn(handle, "user", "How warm is it?", true, generate());
    CHECK_TEXT(anew->text, call->text);
    CHECK_INT(rkllm_set_function_tools(handle, "You may call functions.", "[]", NULL), 0);
    struct record *without = turn(handle, "user", "How warm is it?", true, generate());
    same_as_raw(raw, without, without->perf.prefill_tokens,
                "<|im_start|>system\nYou may call functions.<|im_end|>\n" USER ANSWER);

    CHECK_INT(rkllm_set_function_tools(handle, "", "{\"a\": 1}", ""), -1);
    CHECK_INT(rkllm_set_function_tools(handle, "", "not JSON", ""), -1);
    CHECK_INT(rkllm_set_function_tools(handle, "", NULL, ""), -1);
    CHECK_INT(rkllm_set_function_tools(NULL, "", "[]", ""), -1);
    /* A template of the caller's own has no place for tools. */
    CHECK_INT(rkllm_set_function_tools(raw, "", TOOLS, ""), -1);
    free(call), free(result), free(wanted), free(anew), free(without);
    rkllm_destroy(handle), rkllm_destroy(raw);
}

static void thinking_is_switched_by_the_models_template(void) {
    RKLLMParam param = defaults();
    param.repeat_penalty = 1.0f;
    LLMHandle handle = load_with(param), raw = load_raw(param);
    struct record *thinking = turn(handle, "user", "How warm is it?", true, generate());
    same_as_raw(raw, thinking, thinking->perf.prefill_tokens, USER ANSWER);
    rkllm_clear_kv_cache(handle, 0, NULL, NULL);
    struct record *quick = turn(handle, "user", "How warm is it?", false, generate());
    same_as_raw(raw, quick, quick->perf.prefill_tokens, USER ANSWER NO_THOUGHT);
    CHECK_INT(quick->perf.prefill_tokens > thinking->perf.prefill_tokens, 1);
    free(thinking), free(quick);
    rkllm_destroy(handle), rkllm_destroy(raw);
}

static void a_template_without_tools_refuses_them(void) {
    LLMHandle handle = load_with(defaults());
    struct record *before = finished_run(handle, "Hi", generate());
    CHECK_INT(rkllm_set_function_tools(handle, "", TOOLS, ""), -1);
    rkllm_clear_kv_cache(handle, 0, NULL, NULL);
    struct record *after = finished_run(handle, "Hi", generate());
    CHECK_TEXT(after->text, before->text);
    CHECK_INT(after->perf.prefill_tokens, before->perf.prefill_tokens);
    free(before), free(after);
    rkllm_destroy(handle);
}

static const struct promise promises[] = {
    {"tools_are_shown_by_the_models_template", tools_are_shown_by_the_models_template},
    {"thinking_is_switched_by_the_models_template", thinking_is_switched_by_the_models_template},
    {"a_template_without_tools_refuses_them", a_template_without_tools_refuses_them},
};

int main(int argc, char **argv) {
    return hold_promise(promises, sizeof promises / sizeof *promises, argc, argv);
}
