/* Promises about log probabilities (logprobs_callback of RKLLMRunExtension). */
#define _GNU_SOURCE
#include "extension.h"
#include "outputs.h"

enum { TOP = 5 };

struct told {
    int32_t of_prompt, token;
    float logprob;
    int32_t n_top, top[TOP];
    float top_logprobs[TOP];
};

/* All that was told of a run, and the record of its tokens. */
struct telling {
    struct record *record;
    struct told told[4096];
    int n_prompt, n_told;
    char pieces[1 << 14];
    size_t pieces_len;
    int32_t special; /* its piece is not printed; -1: none */
};

static void on_logprobs(void *userdata, int32_t of_prompt, const RKLLMTokenLogprob *token,
                        const RKLLMTokenLogprob *top, size_t n_top) {
    struct telling *telling = userdata;
    CHECK(pthread_equal(telling->record->caller, pthread_self()));
    CHECK(telling->n_told < 4096 && n_top <= TOP);
    struct told *told = &telling->told[telling->n_told];
    told->of_prompt = of_prompt;
    told->token = token->token;
    told->logprob = token->logprob;
    told->n_top = (int32_t)n_top;
    for (size_t i = 0; i < n_top; i++) {
        told->top[i] = top[i].token;
        told->top_logprobs[i] = top[i].logprob;
        CHECK(top[i].piece != NULL);
        CHECK(i == 0 || top[i].logprob <= top[i - 1].logprob);
    }
    if (of_prompt) {
        /* Before everything else. */
        CHECK_INT(telling->n_prompt, telling->n_told);
        telling->n_prompt++;
    } else {
        /* Right before its token. */
        CHECK_INT(telling->n_told - telling->n_prompt, telling->record->normal + telling->record->waiting);
        if (token->token != telling->special) {
            CHECK(telling->pieces_len + token->piece_len < sizeof telling->pieces);
            memcpy(telling->pieces + telling->pieces_len, token->piece, token->piece_len);
            telling->pieces_len += token->piece_len;
        }
    }
    telling->n_told++;
}

static struct telling *tell_into(RKLLMRunExtension *extension, LLMHandle handle) {
    struct telling *telling = calloc(1, sizeof *telling);
    CHECK(telling != NULL);
    telling->record = new_record(handle);
    telling->record->caller = pthread_self();
    telling->special = -1;
    extension->logprobs_callback = on_logprobs;
    extension->logprobs_userdata = telling;
    extension->n_logprobs = TOP;
    return telling;
}

static void forget(struct telling *telling) {
    free(telling->record);
    free(telling);
}

static void hold_each_token(const struct telling *telling) {
    const struct record *record = telling->record;
    CHECK_INT(telling->n_told - telling->n_prompt, record->normal + record->waiting);
    for (int i = telling->n_prompt; i < telling->n_told; i++) {
        CHECK_INT(telling->told[i].token, record->ids[i - telling->n_prompt]);
        CHECK_INT(telling->told[i].n_top, TOP);
        CHECK(telling->told[i].logprob <= 0);
    }
}

/* However tokens are drawn, what is told is of the rows as the model gave them. Twice in each of two kinds of
   context; in the second run the prompt is in the cells. */
static void logprobs_of_a_prompt_and_what_follows(void) {
    FILE *rows = rows_file();
    RKLLMParam param = sampled();
    param.ignore_eos_token = true;
    RKLLMLogitBias bias = {11, 3};
    for (int shares = 0; shares < 2; shares++) {
        if (shares) {
            setenv("RKLLM_CPU_SLOTS", "2", 1);
        }
        LLMHandle handle = load_raw(param);
        RKLLMInput input = token_file();
        RKLLMInferParam infer = generate();
        for (int again = 0; again < 2; again++) {
            RKLLMRunExtension telling_all = extension();
            telling_all.seed = 7 + again;
            telling_all.logit_bias = &bias;
            telling_all.n_logit_bias = 1;
            telling_all.prompt_logprobs = 1;
            struct hooked *hooked = hook_into(&telling_all);
            hooked->forbid_highest = 1;
            struct telling *telling = tell_into(&telling_all, handle);
            CHECK_INT(rkllm_set_run_extension(handle, &telling_all), 0);
            CHECK_INT(rkllm_run(handle, &input, &infer, telling->record), 0);
            CHECK_INT(telling->n_prompt, (int)input.token_input.n_tokens);
            CHECK(isnan(telling->told[0].logprob));
            CHECK_INT(telling->told[0].n_top, 0);
            hold_each_token(telling);
            CHECK(fwrite(&telling->n_told, sizeof telling->n_told, 1, rows) == 1);
            size_t count = (size_t)telling->n_told;
            CHECK(fwrite(telling->told, sizeof *telling->told, count, rows) == count);
            forget(telling), free(hooked);
        }
        rkllm_destroy(handle);
    }
    fclose(rows);
}

static void pieces_are_the_bytes_of_the_text(void) {
    RKLLMParam param = defaults();
    param.repeat_penalty = 1.0f;
    param.max_new_tokens = 16;
    LLMHandle handle = load_raw(param);
    RKLLMRunExtension telling_all = extension();
    struct telling *telling = tell_into(&telling_all, handle);
    CHECK_INT(rkllm_set_run_extension(handle, &telling_all), 0);
    CHECK_INT(run_into(telling->record, "🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀🚀", generate()), 0);
    hold_each_token(telling);
    CHECK(telling->record->waiting > 0);
    CHECK(strstr(telling->record->text, "🚀") != NULL);
    /* The last character may not be whole. */
    CHECK(telling->pieces_len >= telling->record->text_len);
    CHECK(memcmp(telling->pieces, telling->record->text, telling->record->text_len) == 0);
    CHECK(telling->pieces_len - telling->record->text_len < 4);
    /* A run without an extension tells nothing. */
    int told = telling->n_told;
    struct record *plain = finished_run(handle, PROMPT, generate());
    CHECK_INT(telling->n_told, told);
    free(plain), forget(telling);
    rkllm_destroy(handle);
}

static void a_paused_run_goes_on_telling(void) {
    LLMHandle handle = load_raw(defaults());
    RKLLMRunExtension telling_all = extension();
    telling_all.prompt_logprobs = 1;
    struct telling *telling = tell_into(&telling_all, handle);
    CHECK_INT(rkllm_set_run_extension(handle, &telling_all), 0);
    telling->record->pause_at = 5;
    CHECK_INT(run_into(telling->record, PROMPT, generate()), 0);
    CHECK_INT(telling->n_told - telling->n_prompt, 5);
    int of_prompt = telling->n_prompt;
    telling->record->pause_at = 0;
    CHECK_INT(run_into(telling->record, PROMPT, generate()), 0);
    CHECK_INT(telling->record->finish, 1);
    CHECK_INT(telling->n_prompt, of_prompt);
    hold_each_token(telling);
    forget(telling);
    rkllm_destroy(handle);
}

struct side {
    LLMHandle handle;
    struct telling *telling;
    pthread_t thread;
};

static void *run_side(void *argument) {
    struct side *side = argument;
    CHECK_INT(run_into(side->telling->record, PROMPT, generate()), 0);
    return NULL;
}

/* Each hears of its own tokens, and of as many as it asked for. */
static void handles_that_share_a_context_are_told_their_own(void) {
    setenv("RKLLM_CPU_SLOTS", "2", 1);
    struct side sides[2];
    for (int i = 0; i < 2; i++) {
        RKLLMRunExtension telling_all = extension();
        sides[i].handle = load_raw(sampled());
        sides[i].telling = tell_into(&telling_all, sides[i].handle);
        telling_all.seed = i;
        telling_all.prompt_logprobs = i;
        CHECK_INT(rkllm_set_run_extension(sides[i].handle, &telling_all), 0);
    }
    for (int i = 0; i < 2; i++) {
        sides[i].telling->record->caller = 0;
        CHECK_INT(pthread_create(&sides[i].thread, NULL, run_side, &sides[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(sides[i].thread, NULL);
        CHECK_INT(sides[i].telling->record->finish, 1);
        CHECK_INT(sides[i].telling->n_prompt > 0, i);
        hold_each_token(sides[i].telling);
        CHECK_INT(rkllm_destroy(sides[i].handle), 0);
        forget(sides[i].telling);
    }
}

static void what_cannot_be_told_is_refused(void) {
    LLMHandle handle = load_raw(defaults());
    RKLLMRunExtension telling_all = extension();
    struct telling *telling = tell_into(&telling_all, handle);
    for (int bad = -1; bad < 1 << 30; bad += 1 << 29) {
        telling_all.n_logprobs = bad;
        CHECK_INT(rkllm_set_run_extension(handle, &telling_all), -1);
    }
    telling_all.n_logprobs = 0;
    telling_all.prompt_logprobs = 1;
    RKLLMInferParam infer = generate();
    infer.mode = RKLLM_INFER_GET_LOGITS;
    CHECK_INT(rkllm_set_run_extension(handle, &telling_all), 0);
    CHECK_INT(run_into(telling->record, PROMPT, infer), -1);
    CHECK_INT(telling->n_told, 0);
    /* The first version of the struct ends before all this. */
    telling_all.size = offsetof(RKLLMRunExtension, logprobs_callback);
    CHECK_INT(rkllm_set_run_extension(handle, &telling_all), 0);
    CHECK_INT(run_into(telling->record, PROMPT, generate()), 0);
    CHECK_INT(telling->n_told, 0);
    telling_all.size += 4;
    CHECK_INT(rkllm_set_run_extension(handle, &telling_all), -1);
    forget(telling);
    rkllm_destroy(handle);
}

static const struct promise promises[] = {
    {"logprobs_of_a_prompt_and_what_follows", logprobs_of_a_prompt_and_what_follows},
    {"pieces_are_the_bytes_of_the_text", pieces_are_the_bytes_of_the_text},
    {"a_paused_run_goes_on_telling", a_paused_run_goes_on_telling},
    {"handles_that_share_a_context_are_told_their_own", handles_that_share_a_context_are_told_their_own},
    {"what_cannot_be_told_is_refused", what_cannot_be_told_is_refused},
};

int main(int argc, char **argv) {
    return hold_promise(promises, sizeof promises / sizeof *promises, argc, argv);
}
