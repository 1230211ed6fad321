/* What is drawn where a hook forbids tokens: the sampler's own distribution, restricted. Thousands of draws say it,
   each of which costs an evaluation: the model is a tiny one, as the definition is the same for all. */
#define _GNU_SOURCE
#include "extension.h"

/* A token and its logit, to be sorted from the likeliest on. */
struct place {
    float logit;
    int32_t token;
};

static int by_logit(const void *a, const void *b) {
    float left = ((const struct place *)a)->logit, right = ((const struct place *)b)->logit;
    return left < right ? 1 : left > right ? -1 : 0;
}

static struct place *sorted(const float *row, size_t count) {
    struct place *places = malloc(count * sizeof *places);
    CHECK(places != NULL);
    for (size_t i = 0; i < count; i++) {
        places[i].logit = row[i];
        places[i].token = (int32_t)i;
    }
    qsort(places, count, sizeof *places, by_logit);
    return places;
}

enum { CHOICES = 3 };

/* The first place from `at` on whose token is a whole character: one that is a byte of a character waits for the
   others. */
static int whole_from(const struct place *places, int count, int at) {
    while (at < count && (places[at].token < ' ' || places[at].token > '~')) {
        at++;
    }
    CHECK(at < count);
    return at;
}

/* Tokens from a place on, with so many others between two of them. */
static void choose(const struct place *places, int count, int at, int between, int32_t *only) {
    for (int j = 0; j < CHOICES; j++) {
        at = whole_from(places, count, at);
        only[j] = places[at].token;
        at += 1 + between;
    }
}

/* One token of a vocabulary of bytes, so that a draw costs no more than one evaluation. */
static const char SHORT_PROMPT[] = "Q";

/* What of `only` is left of the sorted row of `count` by top-k and top-p, or all of it if nothing is: how likely
   each is, tempered and renormalised. */
static void expected_of(const struct place *places, int count, RKLLMParam param, const int32_t *only,
                        double *shares, double *allowed_mass) {
    double sum = 0, mass = 0, total = 0;
    int left = 0;
    for (int i = 0; i < param.top_k; i++) {
        sum += exp((double)places[i].logit - places[0].logit);
    }
    while (left < param.top_k && mass < param.top_p) {
        mass += exp((double)places[left++].logit - places[0].logit) / sum;
    }
    double kept = 0, all = 0;
    for (int fallback = 0; fallback < 2 && total == 0; fallback++) {
        for (int j = 0; j < CHOICES; j++) {
            shares[j] = 0;
            for (int i = 0; i < (fallback ? count : left); i++) {
                if (places[i].token == only[j]) {
                    shares[j] = exp((double)(places[i].logit - places[0].logit) / param.temperature);
                    kept += fallback ? 0 : shares[j];
                }
            }
            total += shares[j];
        }
    }
    for (int i = 0; i < left; i++) {
        all += exp((double)(places[i].logit - places[0].logit) / param.temperature);
    }
    *allowed_mass = kept / all;
    for (int j = 0; j < CHOICES; j++) {
        shares[j] /= total;
    }
}

/* How far the draws are from what is expected, with two degrees of freedom. */
static double chi_squared(LLMHandle handle, const int32_t *only, const double *shares, RKLLMInferParam infer,
                          int draws) {
    int counts[CHOICES] = {0};
    infer.max_new_tokens = 1;
    for (int seed = 0; seed < draws; seed++) {
        RKLLMRunExtension hooking = extension();
        struct hooked *hooked = hook_into(&hooking);
        hooking.seed = seed;
        hooked->only = only;
        hooked->n_only = CHOICES;
        CHECK_INT(rkllm_set_run_extension(handle, &hooking), 0);
        struct record *record = ended_run(handle, SHORT_PROMPT, infer);
        int found = 0;
        for (int j = 0; j < CHOICES; j++) {
            counts[j] += record->ids[0] == only[j];
            found |= record->ids[0] == only[j];
        }
        CHECK(found);
        free(record), free(hooked);
    }
    double distance = 0;
    for (int j = 0; j < CHOICES; j++) {
        double expected = shares[j] * draws;
        CHECK(expected >= 5);
        distance += (counts[j] - expected) * (counts[j] - expected) / expected;
        printf("token %d: %d of %d, expected %.1f\n", only[j], counts[j], draws, expected);
    }
    return distance;
}

/* p = 1e-4 with two degrees of freedom. */
static const double LIMIT = 18.42;

static void draws_keep_the_definition(void) {
    RKLLMParam param = sampled();
    /* Random weights make a flat row: a low temperature gives few tokens the share that is asked for below. */
    param.temperature = 0.4f;
    param.repeat_penalty = 1;
    LLMHandle handle = load_raw(param);
    RKLLMRunExtension hooking = extension();
    struct hooked *hooked = hook_into(&hooking);
    hooked->row = malloc(sizeof(float) << 18);
    CHECK(hooked->row != NULL);
    CHECK_INT(rkllm_set_run_extension(handle, &hooking), 0);
    /* The row is looked at before all but a whole character are forbidden. */
    int32_t character = SHORT_PROMPT[0];
    hooked->only = &character;
    hooked->n_only = 1;
    RKLLMInferParam one = generate();
    one.max_new_tokens = 1;
    struct record *looked = ended_run(handle, SHORT_PROMPT, one);
    int count = (int)hooked->vocabulary;
    struct place *places = sorted(hooked->row, hooked->vocabulary);
    /* Those beyond the likeliest ones that have at least a fifth of the probability, and at most four. */
    double shares[CHOICES], mass = 0;
    int32_t only[CHOICES];
    for (int first = 0; first < 8; first++) {
        choose(places, count, first, 0, only);
        expected_of(places, count, param, only, shares, &mass);
        if (mass >= 0.2 && mass <= 0.8) {
            break;
        }
    }
    printf("allowed: %.3f\n", mass);
    CHECK(mass >= 0.2 && mass <= 0.8);
    double distance = chi_squared(handle, only, shares, generate(), 2000);
    printf("chi-squared: %.2f\n", distance);
    CHECK(distance < LIMIT);

    /* A chooser that takes the likeliest of them fails the same test. */
    RKLLMSamplingParam greedy = {1, 1, 1, 1, 0, 0, 0, 5, 0.1f};
    RKLLMInferParam infer = generate();
    infer.sampling_params = &greedy;
    CHECK(chi_squared(handle, only, shares, infer, 200) > LIMIT);

    /* Behind the likeliest forty, none is left: all that are allowed are drawn from. */
    choose(places, count, 60, 9, only);
    expected_of(places, count, param, only, shares, &mass);
    CHECK(mass == 0);
    distance = chi_squared(handle, only, shares, generate(), 2000);
    printf("chi-squared: %.2f\n", distance);
    CHECK(distance < LIMIT);
    rkllm_destroy(handle);
    free(places), free(hooked->row), free(hooked), free(looked);
}

static const struct promise promises[] = {
    {"draws_keep_the_definition", draws_keep_the_definition},
};

int main(int argc, char **argv) {
    return hold_promise(promises, sizeof promises / sizeof *promises, argc, argv);
}
