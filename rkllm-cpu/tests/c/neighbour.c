/* A promise about other processes that burn a CPU. */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "extension.h"

#define STORY "<|im_start|>user\nTell me a story.<|im_end|>\n<|im_start|>assistant\n"

enum { NEIGHBOURS = 2 };

static pid_t burn(int cpu) {
    pid_t neighbour = fork();
    CHECK(neighbour >= 0);
    if (neighbour == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        CHECK_INT(sched_setaffinity(0, sizeof one, &one), 0);
        for (volatile unsigned long turns = 0;; turns++) {
        }
    }
    return neighbour;
}

/* On the first two CPUs that there are. */
static struct record *answer(const int cpus[2]) {
    RKLLMParam param = defaults();
    param.ignore_eos_token = true;
    param.extend_param.enabled_cpus_num = 2;
    param.extend_param.enabled_cpus_mask = 1u << cpus[0] | 1u << cpus[1];
    LLMHandle handle = load_raw(param);
    cpu_set_t before, after;
    CHECK_INT(sched_getaffinity(0, sizeof before, &before), 0);
    RKLLMInferParam infer = generate();
    /* Below 512 positions the sums are the same for any number of threads. */
    infer.max_new_tokens = 16;
    struct record *run = finished_run(handle, STORY, infer);
    CHECK_INT(sched_getaffinity(0, sizeof after, &after), 0);
    CHECK(CPU_EQUAL(&before, &after));
    CHECK_INT(rkllm_destroy(handle), 0);
    return run;
}

static void find_two(int cpus[2]) {
    cpu_set_t available;
    CHECK_INT(sched_getaffinity(0, sizeof available, &available), 0);
    int found = 0;
    for (int cpu = 0; cpu < 32 && found < 2; cpu++) {
        if (CPU_ISSET(cpu, &available)) {
            cpus[found++] = cpu;
        }
    }
    CHECK(found == 2 && "this needs two CPUs");
}

static void a_burned_cpu_is_left_to_its_neighbours(void) {
    int cpus[2];
    find_two(cpus);
    setenv("RKLLM_CPU_THREADS", "1", 1);
    struct record *undisturbed = answer(cpus);
    unsetenv("RKLLM_CPU_THREADS");

    for (int burned = 0; burned < 2; burned++) {
        pid_t neighbours[NEIGHBOURS];
        for (int i = 0; i < NEIGHBOURS; i++) {
            neighbours[i] = burn(cpus[burned]);
        }
        printf("burned: %d, free: %d\n", cpus[burned], cpus[!burned]);
        struct record *run = answer(cpus);
        for (int i = 0; i < NEIGHBOURS; i++) {
            kill(neighbours[i], SIGKILL);
            waitpid(neighbours[i], NULL, 0);
        }
        CHECK_TEXT(run->text, undisturbed->text);
        free(run);
    }
    free(undisturbed);
}

/* The sum of all rows that are drawn from. */
static int add_row(void *userdata, const int32_t *ids, size_t n_ids, float *logits, size_t n_vocab) {
    uint64_t *sum = userdata;
    (void)ids, (void)n_ids;
    const unsigned char *bytes = (const unsigned char *)logits;
    for (size_t at = 0; at < n_vocab * sizeof *logits; at++) {
        *sum = (*sum ^ bytes[at]) * 1099511628211u;
    }
    return 0;
}

/* Of more than 512 positions, where sums depend on the number of threads. */
static uint64_t rows_of(LLMHandle handle, int deterministic) {
    static char prompt[8192];
    int length = snprintf(prompt, sizeof prompt, "<|im_start|>user\n");
    for (int word = 0; word < 700; word++) {
        length += snprintf(prompt + length, sizeof prompt - (size_t)length, "%s ", word % 7 ? "sea" : "boat");
    }
    snprintf(prompt + length, sizeof prompt - (size_t)length, "<|im_end|>\n<|im_start|>assistant\n");
    uint64_t sum = 14695981039346656037u;
    RKLLMRunExtension summing = extension();
    summing.seed = 5;
    summing.deterministic = deterministic;
    summing.logits_hook = add_row;
    summing.hook_userdata = &sum;
    CHECK_INT(rkllm_set_run_extension(handle, &summing), 0);
    RKLLMInferParam infer = generate();
    infer.max_new_tokens = 6;
    struct record *run = finished_run(handle, prompt, infer);
    CHECK_INT(run->normal + run->waiting, 6);
    free(run);
    return sum;
}

static uint64_t rows_of_fresh(RKLLMParam param, int deterministic) {
    LLMHandle handle = load_raw(param);
    uint64_t sum = rows_of(handle, deterministic);
    CHECK_INT(rkllm_destroy(handle), 0);
    return sum;
}

static void a_deterministic_run_is_computed_alike_beside_a_burned_cpu(void) {
    int cpus[2];
    find_two(cpus);
    RKLLMParam param = defaults();
    param.ignore_eos_token = true;
    param.extend_param.enabled_cpus_num = 2;
    param.extend_param.enabled_cpus_mask = 1u << cpus[0] | 1u << cpus[1];
    uint64_t calm = rows_of_fresh(param, 1);
    setenv("RKLLM_CPU_THREADS", "1", 1);
    CHECK(rows_of_fresh(param, 0) != calm && "the number of threads makes a difference here");
    unsetenv("RKLLM_CPU_THREADS");
    pid_t neighbours[NEIGHBOURS];
    for (int i = 0; i < NEIGHBOURS; i++) {
        neighbours[i] = burn(cpus[0]);
    }
    LLMHandle handle = load_raw(param);
    /* By its end the CPU is left to the neighbours. */
    RKLLMInferParam infer = generate();
    infer.max_new_tokens = 16;
    free(finished_run(handle, STORY, infer));
    printf("left\n");
    rows_of(handle, 0);
    /* What fewer threads have read is not taken. */
    uint64_t disturbed = rows_of(handle, 1);
    for (int i = 0; i < NEIGHBOURS; i++) {
        kill(neighbours[i], SIGKILL);
        waitpid(neighbours[i], NULL, 0);
    }
    CHECK(disturbed == calm);
    CHECK_INT(rkllm_destroy(handle), 0);
}

static const struct promise promises[] = {
    {"a_deterministic_run_is_computed_alike_beside_a_burned_cpu",
     a_deterministic_run_is_computed_alike_beside_a_burned_cpu},
    {"a_burned_cpu_is_left_to_its_neighbours", a_burned_cpu_is_left_to_its_neighbours},
};

int main(int argc, char **argv) {
    return hold_promise(promises, sizeof promises / sizeof *promises, argc, argv);
}
