/* Promises about handles that share a context (RKLLM_CPU_SLOTS). */
#define _GNU_SOURCE

#include "together.h"

static void run_together(int count, RKLLMParam param, const int *tokens) {
    LLMHandle handles[MOST];
    struct run *runs[MOST];
    for (int i = 0; i < count; i++) {
        handles[i] = load_raw(param);
    }
    for (int i = 0; i < count; i++) {
        runs[i] = start(handles[i], questions[i], tokens[i]);
    }
    FILE *file = fopen(getenv("ROWS"), "wb");
    CHECK(file != NULL);
    for (int i = 0; i < count; i++) {
        finish(runs[i], tokens[i]);
        write_run(file, runs[i], tokens[i]);
        printf("prefill tokens: %d\n", runs[i]->record->perf.prefill_tokens);
        forget(runs[i]);
        CHECK_INT(rkllm_destroy(handles[i]), 0);
    }
    CHECK_INT(fclose(file), 0);
}

static void two_runs_share_their_steps(void) {
    const int tokens[] = {48, 48};
    share("2", NULL);
    run_together(2, greedy(), tokens);
}

static void eight_runs_share_their_steps(void) {
    const int tokens[] = {48, 40, 48, 40, 48, 40, 48, 40};
    share("8", NULL);
    run_together(8, greedy(), tokens);
}

static void a_full_pool_fails_no_run(void) {
    /* One and a half contexts for eight runs. The long ones begin together, and do not fit until they
       end: each is promised 256 tokens beyond its prompt. */
    const int tokens[] = {290, 290, 30, 30, 30, 30, 30, 30};
    share("8", "576");
    RKLLMParam param = greedy();
    param.max_context_len = 384;
    run_together(8, param, tokens);
}

static void a_lone_run_is_as_with_a_context_of_its_own(void) {
    /* Longer than what is evaluated at once. */
    char *prompt = long_prompt(54);
    struct record *own[3], *shared[3];
    for (int sharing = 0; sharing < 2; sharing++) {
        struct record **runs = sharing ? shared : own;
        if (sharing) {
            share("4", NULL);
        }
        LLMHandle handle = load_raw(greedy());
        RKLLMInferParam infer = generate();
        infer.max_new_tokens = 40;
        infer.keep_history = 1;
        runs[0] = finished_run(handle, prompt, infer);
        runs[1] = finished_run(handle, questions[0], infer);
        CHECK_INT(rkllm_clear_kv_cache(handle, 0, NULL, NULL), 0);
        runs[2] = finished_run(handle, questions[3], infer);
        CHECK_INT(rkllm_destroy(handle), 0);
    }
    for (int i = 0; i < 3; i++) {
        CHECK_TEXT(shared[i]->text, own[i]->text);
        CHECK_INT(shared[i]->perf.prefill_tokens, own[i]->perf.prefill_tokens);
        CHECK_INT(shared[i]->max_kv, own[i]->max_kv);
        free(own[i]), free(shared[i]);
    }
    free(prompt);
}

static void a_full_window_shifts_as_in_a_context_of_its_own(void) {
    struct record *own[3], *shared[3];
    for (int sharing = 0; sharing < 2; sharing++) {
        struct record **runs = sharing ? shared : own;
        if (sharing) {
            /* A pool of less than both windows. */
            share("2", "100");
        }
        RKLLMParam param = greedy();
        param.max_context_len = 64;
        param.n_keep = 8;
        LLMHandle handle = load_raw(param);
        RKLLMInferParam infer = generate();
        infer.max_new_tokens = 150;
        infer.keep_history = 1;
        runs[0] = finished_run(handle, questions[0], infer);
        /* What was said goes on past the window, turn by turn. */
        infer.max_new_tokens = 40;
        runs[1] = finished_run(handle, " And then?", infer);
        runs[2] = finished_run(handle, " And then?", infer);
        CHECK_INT(rkllm_destroy(handle), 0);
    }
    for (int i = 0; i < 3; i++) {
        CHECK_TEXT(shared[i]->text, own[i]->text);
        CHECK_INT(shared[i]->max_kv, own[i]->max_kv);
        CHECK(own[i]->max_kv <= 64);
        free(own[i]), free(shared[i]);
    }
}

static void aborting_one_run_leaves_the_others(void) {
    share("8", "16384");
    RKLLMParam param = greedy();
    param.max_context_len = 8192;
    LLMHandle handles[MOST];
    struct run *runs[MOST];
    for (int i = 0; i < MOST; i++) {
        handles[i] = load_raw(param);
    }
    for (int i = 1; i < MOST; i++) {
        runs[i] = start(handles[i], questions[i], 80);
    }
    for (int i = 1; i < MOST; i++) {
        AWAIT(tokens_of(runs[i]) >= 2);
    }
    char *prompt = long_prompt(300);
    runs[0] = start(handles[0], prompt, 4);
    AWAIT(kv_size(handles[0]) > 0);
    /* One that generates, and then the one that is read. */
    for (int i = 1; i >= 0; i--) {
        double before = now_ms();
        CHECK_INT(rkllm_abort(handles[i]), 0);
        pthread_join(runs[i]->thread, NULL);
        printf("aborted within %.1f ms\n", now_ms() - before);
        CHECK_INT(runs[i]->code, 0);
        CHECK_INT(runs[i]->record->finish, 1);
        CHECK(rkllm_is_running(handles[2]) == 1);
    }
    int told = tokens_of(runs[1]);
    CHECK(told < 80);
    CHECK_INT(runs[1]->record->perf.generate_tokens, told - 1);
    CHECK_INT(tokens_of(runs[0]), 0);
    int kept = kv_size(handles[0]);
    CHECK(kept > 0 && kept < 2900);
    CHECK_INT(runs[0]->record->perf.prefill_tokens, kept);
    /* Both handles go on at once, with what is in their cells. */
    char *shorter = long_prompt(40);
    struct run *again = start(handles[0], shorter, 4);
    finish(again, 4);
    CHECK(again->record->perf.prefill_tokens <= 420 - (kept < 350 ? kept : 350));
    for (int i = 2; i < MOST; i++) {
        finish(runs[i], 80);
    }
    for (int i = 0; i < MOST; i++) {
        forget(runs[i]);
        CHECK_INT(rkllm_destroy(handles[i]), 0);
    }
    forget(again);
    free(prompt), free(shorter);
}

static atomic_int others_ended;
static atomic_int is_held;

static int hold(struct record *record, int token) {
    (void)record;
    if (token == 3) {
        atomic_store(&is_held, 1);
        AWAIT(atomic_load(&others_ended));
    }
    return 0;
}

static void a_slow_host_stalls_no_other(void) {
    share("3", NULL);
    LLMHandle handles[3];
    for (int i = 0; i < 3; i++) {
        handles[i] = load_raw(greedy());
    }
    struct run *slow = calloc(1, sizeof *slow);
    CHECK(slow != NULL);
    slow->record = new_record(handles[0]);
    slow->record->at_token = hold;
    slow->prompt = questions[0];
    slow->infer = generate();
    slow->infer.max_new_tokens = 40;
    CHECK_INT(pthread_create(&slow->thread, NULL, run_on_thread, slow), 0);
    AWAIT(atomic_load(&is_held));
    struct run *others[2] = {start(handles[1], questions[1], 100),
                             start(handles[2], questions[2], 100)};
    finish(others[0], 100);
    finish(others[1], 100);
    /* It is ahead of its host, but not by much, and has kept its cells. */
    CHECK_INT(tokens_of(slow), 3);
    int kept = kv_size(handles[0]);
    CHECK(kept > 3 && kept < 40);
    atomic_store(&others_ended, 1);
    finish(slow, 40);
    setenv("RKLLM_CPU_SLOTS", "0", 1);
    LLMHandle own = load_raw(greedy());
    RKLLMInferParam infer = generate();
    infer.max_new_tokens = 40;
    struct record *alone = finished_run(own, questions[0], infer);
    CHECK_TEXT(slow->record->text, alone->text);
    free(alone), forget(slow), forget(others[0]), forget(others[1]);
    rkllm_destroy(own);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(rkllm_destroy(handles[i]), 0);
    }
}

/* A run whose host takes nothing after its third token until `others_ended`; its mailbox is full when this
   returns, because the other handle's run has drawn more tokens beside it than one holds. */
static struct run *start_held(LLMHandle handle, const char *prompt, int max_new_tokens, LLMHandle other) {
    atomic_store(&is_held, 0);
    atomic_store(&others_ended, 0);
    struct run *slow = calloc(1, sizeof *slow);
    CHECK(slow != NULL);
    slow->record = new_record(handle);
    slow->record->at_token = hold;
    slow->prompt = prompt;
    slow->infer = generate();
    slow->infer.max_new_tokens = max_new_tokens;
    CHECK_INT(pthread_create(&slow->thread, NULL, run_on_thread, slow), 0);
    AWAIT(atomic_load(&is_held));
    RKLLMInferParam infer = generate();
    infer.max_new_tokens = 24;
    free(finished_run(other, questions[5], infer));
    return slow;
}

static void a_restored_prompt_takes_no_cells_of_a_run(void) {
    RKLLMParam param = greedy();
    param.max_context_len = 512;
    char *long_one = long_prompt(25), *saved = long_prompt(24);
    LLMHandle own = load_raw(param);
    RKLLMPromptCacheParam cache;
    memset(&cache, 0, sizeof cache);
    cache.save_prompt_cache = 1;
    cache.prompt_cache_path = getenv("CACHE");
    RKLLMInferParam saving = generate();
    saving.max_new_tokens = 1;
    saving.prompt_cache_params = &cache;
    free(finished_run(own, saved, saving));
    CHECK_INT(rkllm_destroy(own), 0);
    share("2", "512");
    LLMHandle handles[2] = {load_raw(param), load_raw(param)};
    struct run *slow = start_held(handles[0], long_one, 30, handles[1]);
    /* It holds more than half of the cells. */
    CHECK_INT(rkllm_load_prompt_cache(handles[1], getenv("CACHE")), 0);
    struct run *other = start(handles[1], saved, 80);
    finish(other, 80);
    CHECK_INT(tokens_of(slow), 3);
    atomic_store(&others_ended, 1);
    finish(slow, 30);
    forget(slow), forget(other);
    free(long_one), free(saved);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(rkllm_destroy(handles[i]), 0);
    }
}

/* A host that is slower than the model. */
static int take_time(struct record *record, int token) {
    (void)record, (void)token;
    usleep(100 * 1000);
    return 0;
}

static void slow_hosts_take_no_cells_from_each_other(void) {
    share("2", "448");
    RKLLMParam param = greedy();
    param.max_context_len = 448;
    char *prompt = long_prompt(30);
    LLMHandle handles[2];
    struct run runs[2];
    memset(runs, 0, sizeof runs);
    for (int i = 0; i < 2; i++) {
        handles[i] = load_raw(param);
        runs[i].record = new_record(handles[i]);
        runs[i].record->at_token = take_time;
        runs[i].prompt = prompt;
        runs[i].infer = generate();
        runs[i].infer.max_new_tokens = 24;
        CHECK_INT(pthread_create(&runs[i].thread, NULL, run_on_thread, &runs[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        finish(&runs[i], 24);
        free(runs[i].record);
        CHECK_INT(rkllm_destroy(handles[i]), 0);
    }
    free(prompt);
}

static void a_host_that_takes_nothing_holds_up_no_queue(void) {
    share("4", "1024");
    RKLLMParam param = greedy();
    param.max_context_len = 512;
    LLMHandle handles[4];
    for (int i = 0; i < 4; i++) {
        handles[i] = load_raw(param);
    }
    char *long_one = long_prompt(25);
    struct run *held = start_held(handles[0], long_one, 250, handles[1]);
    /* These two go on for as long as the test wants, and leave no room for the first. */
    struct run *endless[2] = {start(handles[1], questions[0], 4000), NULL};
    AWAIT(tokens_of(endless[0]) > 0);
    endless[1] = start(handles[2], long_one, 4000);
    AWAIT(tokens_of(endless[1]) > 0);
    struct run *small = start(handles[3], questions[5], 8);
    AWAIT(tokens_of(small) == 8);
    CHECK_INT(tokens_of(held), 3);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(rkllm_is_running(handles[i + 1]), 1);
        CHECK_INT(rkllm_abort(handles[i + 1]), 0);
        pthread_join(endless[i]->thread, NULL);
        CHECK_INT(endless[i]->record->finish, 1);
        forget(endless[i]);
    }
    finish(small, 8);
    CHECK_INT(rkllm_abort(handles[0]), 0);
    atomic_store(&others_ended, 1);
    pthread_join(held->thread, NULL);
    CHECK_INT(held->record->finish, 1);
    forget(small), forget(held);
    free(long_one);
    for (int i = 0; i < 4; i++) {
        CHECK_INT(rkllm_destroy(handles[i]), 0);
    }
}

/* Only rkllm_run: the handle is gone when it returns. */
static void *bare_run(void *argument) {
    struct run *run = argument;
    RKLLMInput input = prompt_input(run->prompt);
    run->record->caller = pthread_self();
    run->code = rkllm_run(run->record->handle, &input, &run->infer, run->record);
    return NULL;
}

static void destroying_one_handle_leaves_the_others(void) {
    share("4", NULL);
    int before = count_threads();
    for (int round = 0; round < 3; round++) {
        LLMHandle handles[4];
        struct run runs[4];
        memset(runs, 0, sizeof runs);
        for (int i = 0; i < 4; i++) {
            handles[i] = load_raw(greedy());
            runs[i].record = new_record(handles[i]);
            runs[i].prompt = questions[i];
            runs[i].infer = generate();
            runs[i].infer.max_new_tokens = i == 3 ? 60 : 900;
            CHECK_INT(pthread_create(&runs[i].thread, NULL, bare_run, &runs[i]), 0);
        }
        /* Also before the first token. */
        for (int i = 0; i < 3; i++) {
            AWAIT(atomic_load(&runs[i].record->tokens) >= i);
            CHECK_INT(rkllm_destroy(handles[i]), 0);
            pthread_join(runs[i].thread, NULL);
            CHECK(runs[i].record->normal < 900);
        }
        pthread_join(runs[3].thread, NULL);
        CHECK_INT(runs[3].record->finish, 1);
        CHECK_INT(runs[3].record->normal + runs[3].record->waiting, 60);
        /* What the others had is free for new ones. */
        LLMHandle next = load_raw(greedy());
        CHECK_INT(kv_size(next), 0);
        CHECK_INT(rkllm_destroy(next), 0);
        /* The context goes with the last one. */
        CHECK(count_threads() > before);
        CHECK_INT(rkllm_destroy(handles[3]), 0);
        CHECK_INT(count_threads(), before);
        for (int i = 0; i < 4; i++) {
            free(runs[i].record);
        }
    }
}

static void a_prefix_is_kept_for_each_handle(void) {
    share("3", NULL);
    LLMHandle handles[3];
    char *prompts[3], *longer[3];
    struct run *runs[3];
    for (int i = 0; i < 3; i++) {
        handles[i] = load_raw(greedy());
        char *body = long_prompt(15);
        CHECK(asprintf(&prompts[i], "%d %s", i, body) > 0);
        CHECK(asprintf(&longer[i], "%s And then?", prompts[i]) > 0);
        free(body);
    }
    for (int turn = 0; turn < 3; turn++) {
        for (int i = 0; i < 3; i++) {
            runs[i] = start(handles[i], turn ? longer[i] : prompts[i], 8);
        }
        for (int i = 0; i < 3; i++) {
            finish(runs[i], 8);
            int evaluated = runs[i]->record->perf.prefill_tokens;
            CHECK(turn ? evaluated <= PIECE + 12 : evaluated > 120);
            CHECK(turn < 2 || evaluated <= PIECE);
            forget(runs[i]);
        }
    }
    for (int i = 0; i < 3; i++) {
        free(prompts[i]), free(longer[i]);
        CHECK_INT(rkllm_destroy(handles[i]), 0);
    }
}

static void idle_prefixes_go_first(void) {
    share("3", "512");
    RKLLMParam param = greedy();
    param.max_context_len = 512;
    LLMHandle handles[3];
    for (int i = 0; i < 3; i++) {
        handles[i] = load_raw(param);
    }
    char *prompt = long_prompt(15);
    RKLLMInferParam infer = generate();
    infer.max_new_tokens = 8;
    struct record *first = finished_run(handles[0], prompt, infer);
    free(finished_run(handles[1], prompt, infer));
    int held = kv_size(handles[1]);
    CHECK(held > 140 && kv_size(handles[0]) == held);
    /* There is no room for three: the one that was used longest ago is forgotten. */
    infer.max_new_tokens = 120;
    free(finished_run(handles[2], prompt, infer));
    CHECK_INT(kv_size(handles[0]), 0);
    CHECK_INT(kv_size(handles[1]), held);
    infer.max_new_tokens = 8;
    struct record *again = finished_run(handles[0], prompt, infer);
    CHECK_TEXT(again->text, first->text);
    CHECK_INT(again->perf.prefill_tokens, first->perf.prefill_tokens);
    free(first), free(again), free(prompt);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(rkllm_destroy(handles[i]), 0);
    }
}

static void there_are_as_many_slots_as_was_said(void) {
    share("2", NULL);
    LLMHandle handles[2] = {load_raw(greedy()), load_raw(greedy())};
    RKLLMCallback callback;
    memset(&callback, 0, sizeof callback);
    callback.result_callback = on_result;
    RKLLMParam param = greedy();
    LLMHandle third = NULL;
    CHECK_INT(rkllm_init(&third, &param, &callback), -1);
    CHECK(third == NULL);
    /* Another length is another context. */
    param.max_context_len = 512;
    LLMHandle other = load_raw(param);
    CHECK_INT(rkllm_destroy(other), 0);
    CHECK_INT(rkllm_destroy(handles[0]), 0);
    handles[0] = load_raw(greedy());
    free(finished_run(handles[0], questions[1], generate()));
    setenv("RKLLM_CPU_POOL_TOKENS", "1023", 1);
    param.max_context_len = 1024;
    CHECK_INT(rkllm_init(&third, &param, &callback), -1);
    setenv("RKLLM_CPU_SLOTS", "many", 1);
    CHECK_INT(rkllm_init(&third, &param, &callback), -1);
    CHECK_INT(rkllm_destroy(handles[0]), 0);
    CHECK_INT(rkllm_destroy(handles[1]), 0);
}

static const struct promise promises[] = {
    {"two_runs_share_their_steps", two_runs_share_their_steps},
    {"eight_runs_share_their_steps", eight_runs_share_their_steps},
    {"a_full_pool_fails_no_run", a_full_pool_fails_no_run},
    {"a_lone_run_is_as_with_a_context_of_its_own", a_lone_run_is_as_with_a_context_of_its_own},
    {"a_full_window_shifts_as_in_a_context_of_its_own", a_full_window_shifts_as_in_a_context_of_its_own},
    {"aborting_one_run_leaves_the_others", aborting_one_run_leaves_the_others},
    {"a_slow_host_stalls_no_other", a_slow_host_stalls_no_other},
    {"a_restored_prompt_takes_no_cells_of_a_run", a_restored_prompt_takes_no_cells_of_a_run},
    {"slow_hosts_take_no_cells_from_each_other", slow_hosts_take_no_cells_from_each_other},
    {"a_host_that_takes_nothing_holds_up_no_queue", a_host_that_takes_nothing_holds_up_no_queue},
    {"destroying_one_handle_leaves_the_others", destroying_one_handle_leaves_the_others},
    {"a_prefix_is_kept_for_each_handle", a_prefix_is_kept_for_each_handle},
    {"idle_prefixes_go_first", idle_prefixes_go_first},
    {"there_are_as_many_slots_as_was_said", there_are_as_many_slots_as_was_said},
};

int main(int argc, char **argv) {
    return hold_promise(promises, sizeof promises / sizeof *promises, argc, argv);
}
