/* What the promises about a run's extension share: a hook that records what it is asked. */
#ifndef EXTENSION_H
#define EXTENSION_H

#include <math.h>

#include "harness.h"

static const char PROMPT[] = "<|im_start|>user\nTell me a story.<|im_end|>\n<|im_start|>assistant\n";

/* What a hook was asked, and what it answers. */
struct hooked {
    int asked;
    size_t vocabulary;
    int32_t drawn[4096];
    size_t n_drawn;
    int end_at;               /* ends the run when it is asked with so many tokens; 0: never */
    int forbid_highest;       /* at every draw */
    const int32_t *only;      /* the tokens that may be drawn, at the first draw */
    size_t n_only;
    float *row;               /* a copy of the first row, if there is room */
    int32_t forbidden[4096];  /* at each draw, where one is */
    int questions;            /* asked before rows */
    int looks_from;           /* at rows from the one of this number on; those before it are free */
    int question_ends_at;     /* ends the run when it is asked with so many tokens; 0: never */
};

static inline size_t highest_of(const float *row, size_t count) {
    size_t highest = 0;
    for (size_t i = 1; i < count; i++) {
        highest = row[i] > row[highest] ? i : highest;
    }
    return highest;
}

static inline int on_row(void *userdata, const int32_t *ids, size_t n_ids, float *logits, size_t n_vocab) {
    struct hooked *hooked = userdata;
    CHECK(n_ids < 4096);
    /* Always one more than before, and what was drawn before is what was drawn. */
    CHECK_INT(n_ids, hooked->asked);
    CHECK(memcmp(ids, hooked->drawn, (n_ids ? n_ids - 1 : 0) * sizeof *ids) == 0);
    memcpy(hooked->drawn, ids, n_ids * sizeof *ids);
    hooked->n_drawn = n_ids;
    hooked->vocabulary = n_vocab;
    hooked->asked++;
    if (n_ids == 0 && hooked->row) {
        memcpy(hooked->row, logits, n_vocab * sizeof *logits);
    }
    if (hooked->forbid_highest) {
        size_t highest = highest_of(logits, n_vocab);
        logits[highest] = -INFINITY;
        hooked->forbidden[n_ids] = (int32_t)highest;
    }
    if (n_ids == 0 && hooked->n_only) {
        for (size_t i = 0; i < n_vocab; i++) {
            int allowed = 0;
            for (size_t j = 0; j < hooked->n_only; j++) {
                allowed |= (int32_t)i == hooked->only[j];
            }
            logits[i] = allowed ? logits[i] : -INFINITY;
        }
    }
    return hooked->end_at && (int)n_ids == hooked->end_at;
}

static inline int before_row(void *userdata, const int32_t *ids, size_t n_ids) {
    struct hooked *hooked = userdata;
    CHECK_INT(n_ids, hooked->questions);
    hooked->questions++;
    memcpy(hooked->drawn, ids, n_ids * sizeof *ids);
    if (hooked->question_ends_at && (int)n_ids == hooked->question_ends_at) {
        return 2;
    }
    if ((int)n_ids >= hooked->looks_from) {
        /* As `on_row` counts them. */
        hooked->asked = (int)n_ids;
        return 1;
    }
    return 0;
}

static inline RKLLMRunExtension extension(void) {
    RKLLMRunExtension extension;
    memset(&extension, 0, sizeof extension);
    extension.size = sizeof extension;
    extension.seed = -1;
    return extension;
}

static inline struct hooked *hook_into(RKLLMRunExtension *extension) {
    struct hooked *hooked = calloc(1, sizeof *hooked);
    CHECK(hooked != NULL);
    extension->logits_hook = on_row;
    extension->hook_userdata = hooked;
    return hooked;
}

static inline RKLLMParam sampled(void) {
    RKLLMParam param = defaults();
    param.top_k = 40;
    param.top_p = 0.95f;
    param.temperature = 1;
    return param;
}

#endif
