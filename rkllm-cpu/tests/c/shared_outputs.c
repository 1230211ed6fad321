/* Promises about hidden states, logits and embedding input beside runs that generate, in one context. */
#define _GNU_SOURCE
#include "outputs.h"

#define NEIGHBOURS 3

struct neighbour {
    LLMHandle handle;
    struct record *record;
    pthread_t thread;
};

static void *generate_on(void *argument) {
    struct neighbour *neighbour = argument;
    RKLLMInferParam infer = generate();
    infer.max_new_tokens = 900;
    CHECK_INT(run_into(neighbour->record, "One, two, three, four,", infer), 0);
    return NULL;
}

static RKLLMInput embedding_file(size_t rows, int width) {
    static float values[64 * 1024];
    FILE *file = fopen(getenv("EMBEDDINGS"), "rb");
    CHECK(file != NULL && rows * (size_t)width <= sizeof values / sizeof *values);
    CHECK(fread(values, sizeof *values, rows * (size_t)width, file) == rows * (size_t)width);
    fclose(file);
    RKLLMInput input = prompt_input(NULL);
    input.input_type = RKLLM_INPUT_EMBED;
    input.embed_input.embed = values;
    input.embed_input.n_tokens = rows;
    return input;
}

static void rows_come_beside_generations(void) {
    setenv("RKLLM_CPU_SLOTS", "5", 1);
    RKLLMParam param = defaults();
    param.ignore_eos_token = true;
    param.repeat_penalty = 1;
    struct neighbour neighbours[NEIGHBOURS];
    for (int i = 0; i < NEIGHBOURS; i++) {
        neighbours[i].handle = load_raw(param);
        neighbours[i].record = new_record(neighbours[i].handle);
        CHECK_INT(pthread_create(&neighbours[i].thread, NULL, generate_on, &neighbours[i]), 0);
        AWAIT(atomic_load(&neighbours[i].record->tokens) > 0);
    }
    LLMHandle handle = load_outputs(param);
    FILE *rows = rows_file();
    RKLLMInput tokens = token_file();
    int count = (int)tokens.token_input.n_tokens;

    struct outputs *hidden = new_outputs(handle);
    hidden->rows = rows;
    run_outputs(hidden, tokens, mode(RKLLM_INFER_GET_LAST_HIDDEN_LAYER, 0), "-HF");
    CHECK_INT(hidden->num_tokens, count);
    CHECK_INT(hidden->perf.prefill_tokens, count);

    struct outputs *embedded = new_outputs(handle);
    embedded->rows = rows;
    run_outputs(embedded, embedding_file((size_t)count, hidden->width),
                mode(RKLLM_INFER_GET_LAST_HIDDEN_LAYER, 0), "-HF");
    CHECK_INT(embedded->num_tokens, count);

    struct outputs *logits = new_outputs(handle);
    logits->rows = rows;
    run_outputs(logits, tokens, mode(RKLLM_INFER_GET_LOGITS, 3), "LLLF");
    CHECK_INT(fwrite(logits->ids, sizeof *logits->ids, 3, rows), 3);
    fclose(rows);

    for (int i = 0; i < NEIGHBOURS; i++) {
        int told = atomic_load(&neighbours[i].record->tokens);
        CHECK(rkllm_is_running(neighbours[i].handle) == 1);
        AWAIT(atomic_load(&neighbours[i].record->tokens) > told + 2);
        CHECK_INT(rkllm_abort(neighbours[i].handle), 0);
        pthread_join(neighbours[i].thread, NULL);
        CHECK_INT(neighbours[i].record->finish, 1);
        CHECK(strncmp(neighbours[i].record->text, neighbours[0].record->text, 20) == 0);
    }
    for (int i = 0; i < NEIGHBOURS; i++) {
        free(neighbours[i].record);
        CHECK_INT(rkllm_destroy(neighbours[i].handle), 0);
    }
    free(hidden), free(embedded), free(logits);
    CHECK_INT(rkllm_destroy(handle), 0);
}

static const struct promise promises[] = {
    {"rows_come_beside_generations", rows_come_beside_generations},
};

int main(int argc, char **argv) {
    return hold_promise(promises, sizeof promises / sizeof *promises, argc, argv);
}
