//! A machine whose neighbours take a part of some CPUs: steps go on only while all threads run.

use super::*;

struct Machine {
    governor: ThreadGovernor,
    now: Duration,
    /// Part of each CPU that others have.
    taken: Vec<f64>,
    /// In steps of one thread that takes 16 ms.
    done: f64,
}

const ONE_THREAD: f64 = 0.016;

impl Machine {
    fn new(cpus: usize) -> Machine {
        let numbers: Vec<u32> = (0..cpus as u32).collect();
        Machine {
            governor: ThreadGovernor::new(&numbers),
            now: Duration::from_secs(100),
            taken: vec![0.0; cpus],
            done: 0.0,
        }
    }

    fn step(&mut self) {
        self.governor.before_step(self.now);
        let used: Vec<usize> = self.governor.used().iter().map(|&n| n as usize).collect();
        let (calm, waited): (f64, Vec<f64>) = match used[..] {
            // It goes where it is best.
            [_] => {
                let least = self.taken.iter().copied().fold(1.0, f64::min);
                (ONE_THREAD / (1.0 - least), vec![least])
            }
            _ => {
                let all_run: f64 = used.iter().map(|&cpu| 1.0 - self.taken[cpu]).product();
                let wall = ONE_THREAD / speed_of(used.len()) / all_run;
                (wall, used.iter().map(|&cpu| self.taken[cpu]).collect())
            }
        };
        let wall = Duration::from_secs_f64(calm);
        self.now += wall;
        let waited: Vec<Duration> = waited.iter().map(|&part| wall.mul_f64(part)).collect();
        self.governor.after_step(self.now, wall, &waited);
        self.done += 1.0;
    }

    fn run_for(&mut self, seconds: f64) -> f64 {
        let (until, before) = (self.now + Duration::from_secs_f64(seconds), self.done);
        while self.now < until {
            self.step();
        }
        (self.done - before) / seconds
    }
}

#[test]
fn a_calm_machine_computes_on_all_of_its_cpus() {
    for cpus in [2, 4, 8] {
        let mut machine = Machine::new(cpus);
        machine.run_for(10.0);
        assert_eq!(machine.governor.used().len(), cpus);
        assert!(!machine.governor.is_looking());
    }
}

#[test]
fn a_cpu_that_others_burn_is_given_up_at_once() {
    for taken in [0.5, 0.67, 0.9, 0.99] {
        let mut machine = Machine::new(2);
        machine.run_for(1.0);
        machine.taken[1] = taken;
        let before = machine.now;
        while machine.governor.used().len() == 2 {
            machine.step();
        }
        let took = (machine.now - before).as_secs_f64();
        // In what is remembered, or at the end of the first step that shows it.
        let one_step = ONE_THREAD / speed_of(2) / (1.0 - taken);
        assert!(took <= 0.15_f64.max(one_step * 1.01), "{taken}: {took} s");
        assert_eq!(machine.governor.used(), [0]);
    }
}

#[test]
fn with_one_core_burned_it_makes_more_than_half() {
    for (cpus, taken) in [(2, 0.5), (2, 0.67), (2, 0.9), (4, 0.5), (4, 0.9), (8, 0.67)] {
        let calm = Machine::new(cpus).run_for(30.0);
        let mut machine = Machine::new(cpus);
        machine.taken[1] = taken;
        let busy = machine.run_for(30.0);
        assert!(busy > calm * 0.5, "{cpus}, {taken}: {busy} of {calm}");
        // The trials cost less than a tenth of what one thread less makes.
        let alone = Machine::new(cpus - 1).run_for(30.0);
        assert!(busy > alone * 0.9, "{cpus}, {taken}: {busy} of {alone}");
    }
}

#[test]
fn each_burned_cpu_is_left_out_and_no_other() {
    let mut machine = Machine::new(4);
    machine.taken = vec![0.0, 0.67, 0.0, 0.8];
    machine.run_for(0.2);
    assert_eq!(machine.governor.used(), [0, 2]);
}

#[test]
fn a_little_work_everywhere_changes_nothing() {
    let mut machine = Machine::new(8);
    machine.taken = vec![0.05; 8];
    machine.run_for(10.0);
    assert_eq!(machine.governor.used().len(), 8);
}

#[test]
fn one_time_slice_of_another_process_changes_nothing() {
    let mut governor = ThreadGovernor::new(&[0, 1]);
    let step = Duration::from_millis(10);
    let mut now = Duration::ZERO;
    for at in 0..500 {
        now += step;
        let slice = if at % 20 == 0 { 4 } else { 0 };
        let waited = [Duration::ZERO, Duration::from_millis(slice)];
        assert!(!governor.after_step(now, step, &waited), "step {at}");
    }
}

#[test]
fn a_cpu_that_is_free_again_is_used_again() {
    let mut machine = Machine::new(2);
    machine.taken[0] = 0.67;
    machine.run_for(60.0);
    machine.taken[0] = 0.0;
    machine.run_for(1.5);
    assert_eq!(machine.governor.used(), [0, 1]);
    // What was learnt of the last neighbour is forgotten with it.
    machine.taken[0] = 0.67;
    machine.run_for(0.2);
    assert_eq!(machine.governor.used(), [1]);
    machine.taken[0] = 0.0;
    machine.run_for(FIRST_RETRY.as_secs_f64() + 0.1);
    assert_eq!(machine.governor.used(), [0, 1]);
}

#[test]
fn trials_on_a_full_machine_cost_little() {
    for taken in [0.8, 0.9, 0.95] {
        let mut machine = Machine::new(2);
        machine.taken = vec![taken; 2];
        machine.run_for(5.0);
        let rate = machine.run_for(60.0);
        let alone = (1.0 - taken) / ONE_THREAD;
        assert!(rate > alone * 0.85, "{taken}: {rate} of {alone}");
    }
}

#[test]
fn one_cpu_is_always_left() {
    let mut machine = Machine::new(4);
    machine.taken = vec![0.99; 4];
    for _ in 0..200 {
        machine.step();
        assert!(!machine.governor.used().is_empty());
    }
    assert_eq!(machine.governor.used().len(), 1);
}

#[test]
fn a_time_without_steps_brings_every_cpu_back_on_trial() {
    let mut machine = Machine::new(2);
    machine.taken[1] = 0.9;
    machine.run_for(1.0);
    machine.now += LAST_RETRY;
    assert!(machine.governor.before_step(machine.now));
    assert_eq!(machine.governor.used(), [0, 1]);
    assert!(machine.governor.is_looking());
    machine.taken[1] = 0.0;
    machine.run_for(0.05);
    assert!(!machine.governor.is_looking());
}
