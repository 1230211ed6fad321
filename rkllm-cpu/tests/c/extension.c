/* Promises about what a run may have beyond the vendor's parameters (rkllm_set_run_extension). */
#define _GNU_SOURCE
#include "extension.h"

static struct record *extended_run(LLMHandle handle, const RKLLMRunExtension *extension) {
    CHECK_INT(rkllm_set_run_extension(handle, extension), 0);
    return finished_run(handle, PROMPT, generate());
}

static void a_hook_sees_what_was_drawn_and_forbids(void) {
    LLMHandle handle = load_raw(defaults());
    struct record *free_run = finished_run(handle, PROMPT, generate());
    RKLLMRunExtension hooking = extension();
    struct hooked *hooked = hook_into(&hooking);
    hooked->forbid_highest = 1;
    struct record *kept = extended_run(handle, &hooking);
    int tokens = kept->normal + kept->waiting;
    CHECK_INT(tokens, 24);
    CHECK_INT(hooked->asked, tokens);
    CHECK(hooked->vocabulary > 40000);
    CHECK_INT(hooked->forbidden[0], free_run->ids[0]);
    CHECK(memcmp(hooked->drawn, kept->ids, (size_t)(tokens - 1) * sizeof(int32_t)) == 0);
    for (int i = 0; i < tokens; i++) {
        CHECK(kept->ids[i] != hooked->forbidden[i]);
    }
    /* For one run. */
    struct record *again = finished_run(handle, PROMPT, generate());
    CHECK_TEXT(again->text, free_run->text);
    CHECK_INT(hooked->asked, tokens);
    rkllm_destroy(handle);
    free(free_run), free(kept), free(again), free(hooked);
}

static void a_hook_that_allows_all_changes_nothing(void) {
    LLMHandle handle = load_raw(sampled());
    for (int seed = 1; seed <= 3; seed++) {
        RKLLMRunExtension seeded = extension(), hooking = extension();
        seeded.seed = hooking.seed = seed;
        struct hooked *hooked = hook_into(&hooking);
        struct record *free_run = extended_run(handle, &seeded);
        struct record *kept = extended_run(handle, &hooking);
        CHECK(hooked->asked > 0);
        CHECK_TEXT(kept->text, free_run->text);
        free(free_run), free(kept), free(hooked);
    }
    rkllm_destroy(handle);
}

static void a_row_that_the_hook_does_not_see_is_drawn_as_without_it(void) {
    RKLLMParam greedy = defaults(), penalised = sampled();
    penalised.repeat_penalty = 1.2f;
    RKLLMParam params[] = {greedy, sampled(), penalised};
    for (size_t i = 0; i < sizeof params / sizeof *params; i++) {
        LLMHandle handle = load_raw(params[i]);
        RKLLMRunExtension seeded = extension(), hooking = extension(), late = extension();
        seeded.seed = hooking.seed = late.seed = 5;
        struct hooked *unseen = hook_into(&hooking), *seen = hook_into(&late);
        hooking.row_question = late.row_question = before_row;
        unseen->looks_from = 1 << 20;
        struct record *free_run = extended_run(handle, &seeded);
        struct record *unseen_run = extended_run(handle, &hooking);
        CHECK_TEXT(unseen_run->text, free_run->text);
        CHECK_INT(unseen->asked, 0);
        CHECK_INT(unseen->questions, unseen_run->normal + unseen_run->waiting);
        /* From the sixth token on it has its say. */
        seen->looks_from = 6;
        seen->forbid_highest = 1;
        struct record *seen_run = extended_run(handle, &late);
        CHECK(memcmp(seen_run->ids, free_run->ids, 6 * sizeof(int32_t)) == 0);
        for (int at = 6; at < seen->questions; at++) {
            CHECK(seen_run->ids[at] != seen->forbidden[at]);
        }
        memset(unseen, 0, sizeof *unseen);
        unseen->looks_from = 1 << 20;
        unseen->question_ends_at = 4;
        struct record *ended = extended_run(handle, &hooking);
        CHECK_INT(ended->normal + ended->waiting, 4);
        rkllm_destroy(handle);
        free(free_run), free(unseen_run), free(seen_run), free(ended), free(unseen), free(seen);
    }
}

/* What a run says that is deterministic does not hang on what its handle held before. */
static void a_deterministic_run_takes_nothing_that_was_drawn(void) {
    LLMHandle handle = load_raw(sampled()), fresh = load_raw(sampled());
    RKLLMRunExtension same = extension();
    same.seed = 11;
    same.deterministic = 1;
    CHECK_INT(rkllm_set_run_extension(handle, &same), 0);
    struct record *first = finished_run(handle, PROMPT, generate());
    char longer[sizeof first->text + 1024];
    snprintf(longer, sizeof longer, "%s%s<|im_end|>\n<|im_start|>user\nGo on.<|im_end|>\n"
             "<|im_start|>assistant\n", PROMPT, first->text);
    CHECK_INT(rkllm_set_run_extension(handle, &same), 0);
    struct record *behind = finished_run(handle, longer, generate());
    CHECK_INT(rkllm_set_run_extension(fresh, &same), 0);
    struct record *alone = finished_run(fresh, longer, generate());
    CHECK_TEXT(behind->text, alone->text);
    /* What was drawn is read again, and without the flag it is not. */
    struct record *with_drawn = finished_run(handle, longer, generate());
    int drawn = first->normal + first->waiting;
    CHECK(behind->perf.prefill_tokens >= drawn);
    CHECK(with_drawn->perf.prefill_tokens < drawn);
    free(with_drawn);
    CHECK_INT(memcmp(behind->ids, alone->ids, (size_t)(alone->normal + alone->waiting) * sizeof(int32_t)), 0);
    rkllm_destroy(handle), rkllm_destroy(fresh);
    free(first), free(behind), free(alone);
}

static void a_library_tells_how_much_of_it_it_knows(void) {
    CHECK_INT((int)rkllm_run_extension_size(), (int)sizeof(RKLLMRunExtension));
}

static void a_library_can_be_no_more_than_the_vendors(void) {
    setenv("RKLLM_CPU_VENDOR_ONLY", "1", 1);
    CHECK_INT((int)rkllm_run_extension_size(), 0);
    LLMHandle handle = load_raw(defaults());
    RKLLMRunExtension hooking = extension();
    CHECK_INT(rkllm_set_run_extension(handle, &hooking), -1);
    rkllm_destroy(handle);
}

static void a_hook_ends_its_run(void) {
    LLMHandle handle = load_raw(defaults());
    RKLLMRunExtension hooking = extension();
    struct hooked *hooked = hook_into(&hooking);
    hooked->end_at = 3;
    struct record *ended = extended_run(handle, &hooking);
    CHECK_INT(ended->normal + ended->waiting, 3);
    CHECK_INT(hooked->asked, 4);
    CHECK(memcmp(hooked->drawn, ended->ids, 3 * sizeof(int32_t)) == 0);
    /* So does a row of which nothing is allowed. */
    int32_t nothing = -1;
    memset(hooked, 0, sizeof *hooked);
    hooked->only = &nothing;
    hooked->n_only = 1;
    struct record *none = extended_run(handle, &hooking);
    CHECK_INT(none->normal + none->waiting, 0);
    rkllm_destroy(handle);
    free(ended), free(none), free(hooked);
}

static void a_paused_run_keeps_its_hook(void) {
    LLMHandle handle = load_raw(defaults());
    RKLLMRunExtension hooking = extension();
    struct hooked *hooked = hook_into(&hooking);
    hooked->forbid_highest = 1;
    struct record *whole = extended_run(handle, &hooking);
    memset(hooked, 0, sizeof *hooked);
    hooked->forbid_highest = 1;
    CHECK_INT(rkllm_set_run_extension(handle, &hooking), 0);
    struct record *paused = new_record(handle);
    paused->pause_at = 5;
    CHECK_INT(run_into(paused, PROMPT, generate()), 0);
    CHECK_INT(paused->finish, 0);
    paused->pause_at = 0;
    CHECK_INT(run_into(paused, PROMPT, generate()), 0);
    CHECK_INT(paused->finish, 1);
    CHECK_TEXT(paused->text, whole->text);
    CHECK_INT(hooked->asked, 24);
    rkllm_destroy(handle);
    free(whole), free(paused), free(hooked);
}

static void a_run_has_its_own_seed(void) {
    LLMHandle handle = load_raw(sampled());
    RKLLMRunExtension one = extension(), two = extension();
    one.seed = 4294967294;
    two.seed = 0;
    struct record *first = extended_run(handle, &one), *other = extended_run(handle, &two);
    struct record *again = extended_run(handle, &one);
    CHECK_TEXT(again->text, first->text);
    CHECK(strcmp(first->text, other->text) != 0);
    rkllm_destroy(handle);
    /* In another handle, too. */
    handle = load_raw(sampled());
    struct record *elsewhere = extended_run(handle, &one);
    CHECK_TEXT(elsewhere->text, first->text);
    rkllm_destroy(handle);
    free(first), free(other), free(again), free(elsewhere);
}

static void a_bias_forbids_and_forces(void) {
    LLMHandle handle = load_raw(defaults());
    struct record *free_run = finished_run(handle, PROMPT, generate());
    RKLLMLogitBias biases[] = {{free_run->ids[0], -INFINITY}, {free_run->ids[1], 100}};
    for (int with_hook = 0; with_hook < 2; with_hook++) {
        RKLLMRunExtension biased = extension();
        struct hooked *hooked = with_hook ? hook_into(&biased) : NULL;
        biased.logit_bias = biases;
        biased.n_logit_bias = 1;
        struct record *forbidden = extended_run(handle, &biased);
        for (int i = 0; i < forbidden->normal + forbidden->waiting; i++) {
            CHECK(forbidden->ids[i] != biases[0].token);
        }
        if (hooked) {
            memset(hooked, 0, sizeof *hooked);
        }
        biased.n_logit_bias = 2;
        struct record *forced = extended_run(handle, &biased);
        /* Until the penalty of what it repeats is larger. */
        CHECK_INT(forced->ids[0], biases[1].token);
        free(forbidden), free(forced), free(hooked);
    }
    rkllm_destroy(handle);
    free(free_run);
}

static void min_p_leaves_the_likely_ones(void) {
    LLMHandle handle = load_raw(sampled());
    RKLLMRunExtension likeliest = extension();
    likeliest.min_p = 1;
    struct record *one = extended_run(handle, &likeliest), *two = extended_run(handle, &likeliest);
    CHECK_TEXT(one->text, two->text);
    struct hooked *hooked = hook_into(&likeliest);
    struct record *kept = extended_run(handle, &likeliest);
    CHECK_TEXT(kept->text, one->text);
    rkllm_destroy(handle);
    free(one), free(two), free(kept), free(hooked);
}

/* With a hook and without one, a run goes on where the model would have ended it. */
static void a_run_ends_no_sooner_than_it_may(void) {
    RKLLMParam param = defaults();
    param.max_new_tokens = 200;
    LLMHandle handle = load_raw(param);
    static const char question[] = "<|im_start|>user\nSay yes.<|im_end|>\n<|im_start|>assistant\n";
    struct record *free_run = finished_run(handle, question, generate());
    int free_tokens = free_run->normal + free_run->waiting;
    CHECK(free_tokens < 150);
    int32_t end = free_run->ids[free_tokens - 1];
    for (int with_hook = 0; with_hook < 2; with_hook++) {
        RKLLMRunExtension late = extension();
        struct hooked *hooked = with_hook ? hook_into(&late) : NULL;
        late.min_tokens = free_tokens + 20;
        CHECK_INT(rkllm_set_run_extension(handle, &late), 0);
        struct record *asked = finished_run(handle, question, generate());
        int tokens = asked->normal + asked->waiting;
        CHECK(tokens > free_tokens + 20);
        CHECK(memcmp(asked->ids, free_run->ids, (size_t)(free_tokens - 1) * sizeof end) == 0);
        for (int i = 0; i < free_tokens + 20; i++) {
            CHECK(asked->ids[i] != end);
        }
        if (hooked) {
            memset(hooked, 0, sizeof *hooked);
        }
        late.min_tokens = -1;
        late.end_tokens = &asked->ids[0];
        late.n_end_tokens = 1;
        CHECK_INT(rkllm_set_run_extension(handle, &late), 0);
        struct record *never = finished_run(handle, question, generate());
        CHECK_INT(never->normal + never->waiting, 200);
        for (int i = 0; i < 200; i++) {
            CHECK(never->ids[i] != end && never->ids[i] != asked->ids[0]);
        }
        free(asked), free(never), free(hooked);
    }
    rkllm_destroy(handle);
    free(free_run);
}

static void what_an_extension_cannot_be_is_refused(void) {
    LLMHandle handle = load_raw(defaults());
    RKLLMRunExtension bad = extension();
    bad.size = 8;
    CHECK_INT(rkllm_set_run_extension(handle, &bad), -1);
    bad = extension();
    bad.seed = 4294967295;
    CHECK_INT(rkllm_set_run_extension(handle, &bad), -1);
    bad = extension();
    bad.min_tokens = -2;
    CHECK_INT(rkllm_set_run_extension(handle, &bad), -1);
    bad = extension();
    bad.min_p = 2;
    CHECK_INT(rkllm_set_run_extension(handle, &bad), -1);
    RKLLMLogitBias foreign = {1 << 30, 1};
    bad = extension();
    bad.logit_bias = &foreign;
    bad.n_logit_bias = 1;
    CHECK_INT(rkllm_set_run_extension(handle, &bad), -1);
    CHECK_INT(rkllm_set_run_extension(NULL, NULL), -1);
    /* NULL takes back what was given. */
    RKLLMRunExtension hooking = extension();
    struct hooked *hooked = hook_into(&hooking);
    CHECK_INT(rkllm_set_run_extension(handle, &hooking), 0);
    struct record *free_run = extended_run(handle, NULL);
    CHECK_INT(hooked->asked, 0);
    /* Mirostat chooses by itself. */
    RKLLMSamplingParam mirostat = {40, 0.9f, 0.8f, 1, 0, 0, 2, 5, 0.1f};
    RKLLMInferParam infer = generate();
    infer.sampling_params = &mirostat;
    CHECK_INT(rkllm_set_run_extension(handle, &hooking), 0);
    struct record *refused = new_record(handle);
    CHECK_INT(run_into(refused, PROMPT, infer), -1);
    CHECK_INT(refused->normal + refused->finish + refused->error, 0);
    rkllm_destroy(handle);
    free(free_run), free(refused), free(hooked);
}

static void a_batch_takes_no_extension(void) {
    RKLLMParam param = defaults();
    param.extend_param.n_batch = 2;
    LLMHandle handle = load_raw(param);
    RKLLMRunExtension seeded = extension();
    seeded.seed = 1;
    CHECK_INT(rkllm_set_run_extension(handle, &seeded), 0);
    RKLLMInput inputs[] = {prompt_input(PROMPT), prompt_input(PROMPT)};
    RKLLMInferParam infer = generate();
    CHECK_INT(rkllm_run(handle, inputs, &infer, NULL), -1);
    rkllm_destroy(handle);
}

struct side {
    LLMHandle handle;
    RKLLMRunExtension hooking;
    struct hooked *hooked;
    struct record *record;
    pthread_t thread;
};

static void *run_side(void *argument) {
    struct side *side = argument;
    side->record = new_record(side->handle);
    CHECK_INT(run_into(side->record, PROMPT, generate()), 0);
    return NULL;
}

static void handles_that_share_a_context_have_a_hook_each(void) {
    setenv("RKLLM_CPU_SLOTS", "2", 1);
    struct side sides[2];
    for (int i = 0; i < 2; i++) {
        sides[i].handle = load_raw(defaults());
        sides[i].hooking = extension();
        sides[i].hooked = hook_into(&sides[i].hooking);
        sides[i].hooked->forbid_highest = i;
        CHECK_INT(rkllm_set_run_extension(sides[i].handle, &sides[i].hooking), 0);
    }
    for (int i = 0; i < 2; i++) {
        CHECK_INT(pthread_create(&sides[i].thread, NULL, run_side, &sides[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(sides[i].thread, NULL);
        struct record *record = sides[i].record;
        int tokens = record->normal + record->waiting;
        CHECK_INT(record->finish, 1);
        CHECK_INT(tokens, 24);
        CHECK_INT(sides[i].hooked->asked, tokens);
        CHECK(memcmp(sides[i].hooked->drawn, record->ids, (size_t)(tokens - 1) * sizeof(int32_t)) == 0);
        for (int at = 0; i == 1 && at < tokens; at++) {
            CHECK(record->ids[at] != sides[i].hooked->forbidden[at]);
        }
    }
    CHECK(strcmp(sides[0].record->text, sides[1].record->text) != 0);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(rkllm_destroy(sides[i].handle), 0);
        free(sides[i].record), free(sides[i].hooked);
    }
}

static const struct promise promises[] = {
    {"a_hook_sees_what_was_drawn_and_forbids", a_hook_sees_what_was_drawn_and_forbids},
    {"a_hook_that_allows_all_changes_nothing", a_hook_that_allows_all_changes_nothing},
    {"a_hook_ends_its_run", a_hook_ends_its_run},
    {"a_row_that_the_hook_does_not_see_is_drawn_as_without_it",
     a_row_that_the_hook_does_not_see_is_drawn_as_without_it},
    {"a_deterministic_run_takes_nothing_that_was_drawn", a_deterministic_run_takes_nothing_that_was_drawn},
    {"a_library_tells_how_much_of_it_it_knows", a_library_tells_how_much_of_it_it_knows},
    {"a_library_can_be_no_more_than_the_vendors", a_library_can_be_no_more_than_the_vendors},
    {"a_paused_run_keeps_its_hook", a_paused_run_keeps_its_hook},
    {"a_run_has_its_own_seed", a_run_has_its_own_seed},
    {"a_bias_forbids_and_forces", a_bias_forbids_and_forces},
    {"min_p_leaves_the_likely_ones", min_p_leaves_the_likely_ones},
    {"a_run_ends_no_sooner_than_it_may", a_run_ends_no_sooner_than_it_may},
    {"what_an_extension_cannot_be_is_refused", what_an_extension_cannot_be_is_refused},
    {"a_batch_takes_no_extension", a_batch_takes_no_extension},
    {"handles_that_share_a_context_have_a_hook_each", handles_that_share_a_context_have_a_hook_each},
};

int main(int argc, char **argv) {
    return hold_promise(promises, sizeof promises / sizeof *promises, argc, argv);
}
