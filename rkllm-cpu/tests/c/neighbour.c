/* A promise about other processes that burn a CPU. */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "harness.h"

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

static void a_burned_cpu_is_left_to_its_neighbours(void) {
    cpu_set_t available;
    CHECK_INT(sched_getaffinity(0, sizeof available, &available), 0);
    int cpus[2], found = 0;
    for (int cpu = 0; cpu < 32 && found < 2; cpu++) {
        if (CPU_ISSET(cpu, &available)) {
            cpus[found++] = cpu;
        }
    }
    CHECK(found == 2 && "this needs two CPUs");
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

static const struct promise promises[] = {
    {"a_burned_cpu_is_left_to_its_neighbours", a_burned_cpu_is_left_to_its_neighbours},
};

int main(int argc, char **argv) {
    return hold_promise(promises, sizeof promises / sizeof *promises, argc, argv);
}
