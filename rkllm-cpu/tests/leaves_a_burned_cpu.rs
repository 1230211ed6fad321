//! ggml's threads wait for each other by spinning, so that one burned CPU holds up all of them. Where
//! other processes have a CPU, the library computes on the others, and what it answers is the same.

mod common;

use common::{Program, model};

/// What the program prints of a promise that it holds.
fn held(promise: &str) -> String {
    // Without the one thread that other tests make do with: the number is the library's to choose.
    let output =
        Program::compile("c/neighbour.c").run(&[promise, &model()], &[("RKLLM_LOG_LEVEL", "2")]);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\n{printed}");
    printed
}

#[test]
fn a_deterministic_run_is_computed_alike_beside_a_burned_cpu() {
    let printed = held("a_deterministic_run_is_computed_alike_beside_a_burned_cpu");
    let (before, _) = printed.split_once("left\n").expect("it was disturbed");
    assert!(before.contains("computing on cpus ["), "{printed}");
}

#[test]
fn a_burned_cpu_is_left_to_its_neighbours() {
    let printed = held("a_burned_cpu_is_left_to_its_neighbours");
    let mut parts = printed.split("burned: ");
    let undisturbed = parts.next().expect("the first part is always there");
    assert!(!undisturbed.contains("computing on cpus"), "{undisturbed}");
    let mut disturbed = 0;
    for part in parts {
        let (_, rest) = part.split_once("free: ").expect("both CPUs are named");
        let free = rest.lines().next().expect("the free one is named");
        let line = format!("I rkllm: computing on cpus [{free}] of [");
        assert!(part.contains(&line), "no `{line}` in\n{part}");
        disturbed += 1;
    }
    assert_eq!(disturbed, 2);
}
