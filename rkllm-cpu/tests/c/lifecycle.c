/* Promises about loading, refusing and freeing. */
#define _GNU_SOURCE
#include <dirent.h>

#include "harness.h"

#define STORY "<|im_start|>user\nTell me a story.<|im_end|>\n<|im_start|>assistant\n"

static int count_entries(const char *folder) {
    DIR *open_folder = opendir(folder);
    CHECK(open_folder != NULL);
    int entries = 0;
    while (readdir(open_folder)) {
        entries++;
    }
    closedir(open_folder);
    return entries;
}

static long resident_kb(void) {
    FILE *status = fopen("/proc/self/status", "r");
    CHECK(status != NULL);
    char line[256];
    long kb = -1;
    while (fgets(line, sizeof line, status)) {
        sscanf(line, "VmRSS: %ld kB", &kb);
    }
    fclose(status);
    CHECK(kb > 0);
    return kb;
}

static void loading_and_destroying_leaves_nothing(void) {
    int files = 0, threads = 0;
    long resident = 0;
    for (int cycle = 0; cycle < 25; cycle++) {
        LLMHandle handle = load_raw(defaults());
        RKLLMInferParam infer = generate();
        infer.max_new_tokens = 2;
        struct record *run = finished_run(handle, STORY, infer);
        free(run);
        CHECK_INT(rkllm_destroy(handle), 0);
        if (cycle == 4) {
            files = count_entries("/proc/self/fd");
            threads = count_entries("/proc/self/task");
            resident = resident_kb();
        }
    }
    CHECK_INT(count_entries("/proc/self/fd"), files);
    CHECK_INT(count_entries("/proc/self/task"), threads);
    long grown = resident_kb() - resident;
    fprintf(stderr, "%ld kB more resident after 20 cycles (of %ld kB)\n", grown, resident);
    /* The model alone is 96 MB: one leaked load would be seen. */
    CHECK(grown < 24 * 1024);
}

struct story {
    LLMHandle handle;
    struct record *run;
};

static void *tell(void *argument) {
    struct story *story = argument;
    story->run = finished_run(story->handle, STORY, generate());
    return NULL;
}

static void two_models_run_at_once(void) {
    struct story stories[2] = {{load_raw(defaults()), NULL}, {load_raw(defaults()), NULL}};
    struct record *alone = finished_run(stories[0].handle, STORY, generate());
    CHECK_INT(kv_size(stories[1].handle), 0);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        CHECK_INT(pthread_create(&threads[i], NULL, tell, &stories[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        /* In slots of one context their prompts may be evaluated in one step, which rounds in another way: there
         * each is judged by a lone run that is given its tokens. */
        if (getenv("RKLLM_CPU_SLOTS")) {
            CHECK(strlen(stories[i].run->text) > 0);
        } else {
            CHECK_TEXT(stories[i].run->text, alone->text);
        }
        free(stories[i].run);
        CHECK_INT(rkllm_destroy(stories[i].handle), 0);
    }
    free(alone);
}

static void refuse(RKLLMParam param) {
    RKLLMCallback callback;
    memset(&callback, 0, sizeof callback);
    callback.result_callback = on_result;
    LLMHandle handle = (LLMHandle)0x1234;
    CHECK_INT(rkllm_init(&handle, &param, &callback), -1);
    CHECK(handle == (LLMHandle)0x1234);
}

static void what_cannot_be_loaded_is_refused(void) {
    RKLLMParam param = defaults();
    param.model_path = NULL;
    refuse(param);
    param.model_path = "/nonexistent/model.gguf";
    refuse(param);
    param.model_path = "/proc/self/exe"; /* a file, but no model */
    refuse(param);
    param = defaults(), param.max_context_len = 8224;
    refuse(param);
    param = defaults(), param.max_context_len = 31;
    refuse(param);
    param = defaults(), param.max_context_len = 0;
    refuse(param);
    param = defaults(), param.max_context_len = -32;
    refuse(param);
    /* It must be less than what is used. */
    param = defaults(), param.max_context_len = 100, param.n_keep = 98;
    refuse(param);
    param = defaults(), param.n_keep = param.max_context_len;
    refuse(param);
    param = defaults(), param.extend_param.n_batch = 0;
    refuse(param);
    param = defaults(), param.extend_param.n_batch = 101;
    refuse(param);
    param = defaults(), param.extend_param.base_domain_id = -1;
    refuse(param);
    param = defaults(), param.extend_param.use_cross_attn = 1;
    refuse(param);
    param = defaults(), param.extend_param.enabled_cpus_num = 3, param.extend_param.enabled_cpus_mask = 1;
    refuse(param);
    param = defaults(), param.temperature = -1;
    refuse(param);

    param = defaults();
    RKLLMCallback none;
    memset(&none, 0, sizeof none);
    LLMHandle handle = NULL;
    CHECK_INT(rkllm_init(&handle, &param, &none), -1);
    none.result_callback = on_result;
    CHECK_INT(rkllm_init(NULL, &param, &none), -1);
    CHECK_INT(rkllm_init(&handle, NULL, &none), -1);
    CHECK_INT(rkllm_init(&handle, &param, NULL), -1);
    CHECK(handle == NULL);
    /* The limit itself is accepted. */
    param.max_context_len = 8192;
    rkllm_destroy(load_with(param));
}

/* Nothing can be done with it, and nothing is read or written for it. */
static void check_dead(LLMHandle handle) {
    RKLLMInput input = prompt_input("x");
    RKLLMInferParam infer = generate();
    RKLLMLoraAdapter adapter = {"/nonexistent", "none", 1};
    int size = 77;
    CHECK_INT(rkllm_run(handle, &input, &infer, NULL), -1);
    CHECK_INT(rkllm_run_async(handle, &input, &infer, NULL), -1);
    CHECK_INT(rkllm_abort(handle), -1);
    CHECK_INT(rkllm_is_running(handle), -1);
    CHECK_INT(rkllm_load_lora(handle, &adapter), -1);
    CHECK_INT(rkllm_load_prompt_cache(handle, "/nonexistent"), -1);
    CHECK_INT(rkllm_release_prompt_cache(handle), -1);
    CHECK_INT(rkllm_clear_kv_cache(handle, 0, NULL, NULL), -1);
    CHECK_INT(rkllm_get_kv_cache_size(handle, &size), -1);
    CHECK_INT(rkllm_set_chat_template(handle, "", "", ""), -1);
    CHECK_INT(rkllm_set_function_tools(handle, "", "[]", ""), -1);
    CHECK_INT(rkllm_set_cross_attn_params(handle, NULL), -1);
    CHECK_INT(rkllm_destroy(handle), -1);
    CHECK_INT(size, 77);
}

static void a_null_handle_is_an_error(void) {
    check_dead(NULL);
}

static void a_dead_handle_is_an_error(void) {
    LLMHandle first = load_raw(defaults());
    CHECK_INT(rkllm_destroy(first), 0);
    check_dead(first);
    /* Whatever was loaded since, where the first one was. */
    LLMHandle second = load_raw(defaults());
    CHECK(second != first);
    check_dead(first);
    struct record *run = finished_run(second, STORY, generate());
    CHECK_INT(run->normal, 24);
    CHECK_INT(rkllm_destroy(second), 0);
    check_dead(second);
    check_dead(first);
    free(run);
}

static void a_foreign_handle_is_an_error(void) {
    LLMHandle own = load_raw(defaults());
    char zeros[4096], *heap = calloc(1, 4096);
    memset(zeros, 0, sizeof zeros);
    LLMHandle foreign[] = {zeros, heap, &own, (LLMHandle)stdout, (LLMHandle)1, (LLMHandle)0x1234,
                           (LLMHandle)-1, (char *)own + 1, (char *)own - 1, (char *)own + 16};
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        check_dead(foreign[i]);
    }
    free(heap);
    CHECK_INT(rkllm_is_running(own), 0);
    CHECK_INT(rkllm_destroy(own), 0);
}

/* A run whose callback waits until it is let go, and the thread that destroys its handle. */
static atomic_int in_callback, let_go, destroyed;

static int hold_on(struct record *record, int token) {
    if (token == 3) {
        atomic_store(&in_callback, 1);
        AWAIT(atomic_load(&let_go));
        /* Its own handle lives until its end, and an end of it from in here is refused. */
        CHECK_INT(rkllm_is_running(record->handle), 1);
        CHECK_INT(rkllm_destroy(record->handle), -1);
    }
    return 0;
}

static void *run_and_hold_on(void *argument) {
    struct record *record = argument;
    RKLLMInput input = prompt_input(STORY);
    RKLLMInferParam infer = generate();
    record->caller = pthread_self();
    CHECK_INT(rkllm_run(record->handle, &input, &infer, record), 0);
    return NULL;
}

static void *destroy(void *handle) {
    atomic_fetch_add(&destroyed, rkllm_destroy(handle) == 0 ? 1 : 0);
    return NULL;
}

static void a_handle_is_dead_while_it_is_destroyed(void) {
    LLMHandle handle = load_raw(defaults());
    struct record *record = new_record(handle);
    record->at_token = hold_on;
    pthread_t runs, destroys;
    CHECK_INT(pthread_create(&runs, NULL, run_and_hold_on, record), 0);
    AWAIT(atomic_load(&in_callback));
    CHECK_INT(pthread_create(&destroys, NULL, destroy, handle), 0);
    AWAIT(rkllm_is_running(handle) == -1);
    check_dead(handle);
    CHECK_INT(atomic_load(&destroyed), 0);
    atomic_store(&let_go, 1);
    pthread_join(runs, NULL);
    pthread_join(destroys, NULL);
    CHECK_INT(atomic_load(&destroyed), 1);
    CHECK_INT(record->normal, 3);
    CHECK_INT(record->finish, 1);
    CHECK_INT(record->not_running, 0);
    check_dead(handle);
    free(record);
}

static void *ask_until_dead(void *handle) {
    int size;
    while (rkllm_is_running(handle) >= 0) {
        rkllm_get_kv_cache_size(handle, &size);
    }
    return NULL;
}

static void many_threads_destroy_once(void) {
    for (int round = 1; round <= 5; round++) {
        LLMHandle handle = load_raw(defaults());
        struct record *record = new_record(handle);
        pthread_t asks[2], runs, destroys[6];
        atomic_store(&destroyed, 0);
        CHECK_INT(pthread_create(&runs, NULL, run_and_hold_on, record), 0);
        AWAIT(atomic_load(&record->tokens) >= round);
        for (int i = 0; i < 2; i++) {
            CHECK_INT(pthread_create(&asks[i], NULL, ask_until_dead, handle), 0);
        }
        for (int i = 0; i < 6; i++) {
            CHECK_INT(pthread_create(&destroys[i], NULL, destroy, handle), 0);
        }
        for (int i = 0; i < 6; i++) {
            pthread_join(destroys[i], NULL);
        }
        pthread_join(runs, NULL);
        for (int i = 0; i < 2; i++) {
            pthread_join(asks[i], NULL);
        }
        CHECK_INT(atomic_load(&destroyed), 1);
        CHECK_INT(record->finish, 1);
        free(record);
    }
}

static void a_program_for_1_2_is_told_so(void) {
    RKLLMParam param = defaults();
    LLMHandle handle = NULL;
    /* There the last argument is the function itself. */
    RKLLMCallback *function;
    LLMResultCallback callback = on_result;
    memcpy(&function, &callback, sizeof function);
    CHECK_INT(rkllm_init(&handle, &param, function), -1);
    /* And there n_batch lies elsewhere. */
    param.extend_param.n_batch = 0;
    refuse(param);
    CHECK(handle == NULL);
}

static void a_context_length_is_rounded_down(void) {
    RKLLMParam param = defaults();
    param.max_context_len = 8192 + 31;
    CHECK_INT(rkllm_destroy(load_with(param)), 0);
    param.max_context_len = 127;
    LLMHandle handle = load_raw(param);
    /* 96 are used, but for 4. */
    char *fits = long_prompt(9), *too_long = long_prompt(10);
    RKLLMInferParam infer = generate();
    infer.max_new_tokens = 1;
    free(finished_run(handle, fits, infer));
    struct record *refused = new_record(handle);
    CHECK_INT(run_into(refused, too_long, infer), -1);
    CHECK_INT(rkllm_destroy(handle), 0);
    free(fits), free(too_long), free(refused);
}

static void what_the_model_does_not_have_is_refused(void) {
    LLMHandle handle = load_with(defaults());
    RKLLMInput input = prompt_input("x");
    RKLLMInferParam infer = generate();
    CHECK_INT(rkllm_set_cross_attn_params(handle, NULL), -1);
    RKLLMCrossAttnParam cross;
    memset(&cross, 0, sizeof cross);
    CHECK_INT(rkllm_set_cross_attn_params(handle, &cross), -1);
    CHECK_INT(rkllm_set_cross_attn_params(NULL, &cross), -1);

    struct record *run = new_record(handle);
    infer = generate();
    input.input_type = RKLLM_INPUT_MULTIMODAL;
    CHECK_INT(rkllm_run(handle, &input, &infer, run), -1);
    input.multimodal_input.prompt = "<image>What is this?";
    CHECK_INT(rkllm_run(handle, &input, &infer, run), -1);
    input.multimodal_input.prompt = NULL;
    CHECK_INT(rkllm_run(handle, &input, &infer, run), -1);
    input.input_type = (RKLLMInputType)9;
    CHECK_INT(rkllm_run(handle, &input, &infer, run), -1);
    input = prompt_input(NULL);
    CHECK_INT(rkllm_run(handle, &input, &infer, run), -1);
    CHECK_INT(rkllm_run(handle, NULL, &infer, run), -1);
    input = prompt_input("x");
    CHECK_INT(rkllm_run(handle, &input, NULL, run), -1);
    CHECK_INT(rkllm_set_chat_template(handle, "", "", ""), 0);
    input = prompt_input("");
    CHECK_INT(rkllm_run(handle, &input, &infer, run), -1);
    CHECK_INT(run->normal + run->waiting + run->finish + run->error, 0);
    CHECK_INT(rkllm_is_running(handle), 0);
    free(run);
    rkllm_destroy(handle);
}

static void userdata_of_init_is_the_fallback(void) {
    RKLLMParam param = defaults();
    struct record *record = new_record(NULL);
    RKLLMCallback callback;
    memset(&callback, 0, sizeof callback);
    callback.result_callback = on_result;
    callback.result_userdata = record;
    CHECK_INT(rkllm_init(&record->handle, &param, &callback), 0);
    record->caller = pthread_self();
    RKLLMInput input = prompt_input("Hi");
    RKLLMInferParam infer = generate();
    infer.max_new_tokens = 3;
    CHECK_INT(rkllm_run(record->handle, &input, &infer, NULL), 0);
    CHECK_INT(record->normal, 3);
    struct record *own = finished_run(record->handle, "Hi", infer);
    CHECK_INT(own->normal, 3);
    CHECK_INT(record->normal, 3);
    rkllm_destroy(record->handle);
    free(own), free(record);
}

static void a_model_that_reads_what_comes_later_is_refused(void) { refuse(defaults()); }

static const struct promise promises[] = {
    {"loading_and_destroying_leaves_nothing", loading_and_destroying_leaves_nothing},
    {"two_models_run_at_once", two_models_run_at_once},
    {"what_cannot_be_loaded_is_refused", what_cannot_be_loaded_is_refused},
    {"a_model_that_reads_what_comes_later_is_refused", a_model_that_reads_what_comes_later_is_refused},
    {"a_null_handle_is_an_error", a_null_handle_is_an_error},
    {"a_dead_handle_is_an_error", a_dead_handle_is_an_error},
    {"a_foreign_handle_is_an_error", a_foreign_handle_is_an_error},
    {"a_handle_is_dead_while_it_is_destroyed", a_handle_is_dead_while_it_is_destroyed},
    {"many_threads_destroy_once", many_threads_destroy_once},
    {"a_program_for_1_2_is_told_so", a_program_for_1_2_is_told_so},
    {"a_context_length_is_rounded_down", a_context_length_is_rounded_down},
    {"what_the_model_does_not_have_is_refused", what_the_model_does_not_have_is_refused},
    {"userdata_of_init_is_the_fallback", userdata_of_init_is_the_fallback},
};

int main(int argc, char **argv) {
    return hold_promise(promises, sizeof promises / sizeof *promises, argc, argv);
}
