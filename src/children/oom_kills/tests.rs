use proptest::prelude::*;

use super::*;

const PID: u32 = 4711;

/// A machine made of files: its /proc and its cgroups.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn v1() -> Self {
        Self::with_mount(
            "cgroup cgroup rw,memory",
            "9:name=systemd:/\n4:memory:/w\n0::/\n",
        )
    }

    fn v2() -> Self {
        Self::with_mount("cgroup2 cgroup2 rw,nsdelegate", "0::/w\n")
    }

    fn with_mount(filesystem: &str, membership: &str) -> Self {
        let machine = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        let hierarchy = machine.path("cgroup");
        machine.write(
            "proc/self/mountinfo",
            &format!(
                "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
                 32 31 0:29 / /sys/fs/cgroup/cpu rw shared:7 - cgroup cgroup rw,cpu\n\
                 35 31 0:32 / {} rw,relatime shared:9 - {filesystem}\n",
                hierarchy.display()
            ),
        );
        machine.machine_kills(0);
        machine.write(&format!("proc/{PID}/cgroup"), membership);
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("the folder");
        fs::write(path, text).expect("the file");
    }

    fn machine_kills(&self, kills: u64) {
        let text = format!("nr_free_pages 7\noom_kill {kills}\nthp_split_page 0\n");
        self.write("proc/vmstat", &text);
    }

    fn v1_kills(&self, cgroup: &str, kills: u64) {
        let text = format!("oom_kill_disable 0\nunder_oom 1\noom_kill {kills}\n");
        self.write(&format!("cgroup/{cgroup}/memory.oom_control"), &text);
    }

    fn v2_kills(&self, file: &str, kills: u64) {
        let text = format!("low 0\nhigh 0\nmax 9\noom 3\noom_kill {kills}\noom_group_kill 0\n");
        self.write(&format!("cgroup/w/{file}"), &text);
    }

    fn end(&self) {
        fs::remove_dir_all(self.path(&format!("proc/{PID}"))).expect("the process was there");
    }

    fn watch(&self) -> OomWatch {
        OomWatch::begin_in(&self.path("proc"), PID)
    }
}

#[test]
fn a_kill_in_a_v1_cgroup_is_seen_after_the_end() {
    let machine = Machine::v1();
    machine.v1_kills("w", 5);
    let watch = machine.watch();
    assert!(!watch.killed());
    machine.v1_kills("w", 6);
    machine.end();
    assert!(watch.killed());
}

#[test]
fn a_kill_in_a_v2_cgroup_is_seen_after_the_end() {
    let machine = Machine::v2();
    machine.v2_kills("memory.events", 1);
    let watch = machine.watch();
    assert!(!watch.killed());
    machine.v2_kills("memory.events", 2);
    machine.end();
    assert!(watch.killed());
}

#[test]
fn a_kill_below_or_beside_the_cgroup_is_another_ones() {
    let machine = Machine::v2();
    machine.v2_kills("memory.events.local", 0);
    machine.v2_kills("memory.events", 0);
    let watch = machine.watch();
    machine.v2_kills("memory.events", 1);
    machine.machine_kills(1);
    assert!(!watch.killed());
}

#[test]
fn without_a_cgroup_counter_the_machines_counts() {
    for membership in ["", "0::/w\n", "4:memory:/w\n"] {
        let machine = Machine::with_mount("cgroup2 cgroup2 rw", membership);
        let mut watch = machine.watch();
        watch.refresh();
        assert!(!watch.killed());
        machine.machine_kills(1);
        assert!(watch.killed(), "{membership:?}");
    }
}

#[test]
fn nothing_readable_is_no_kill() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut watch = OomWatch::begin_in(folder.path(), PID);
    watch.refresh();
    assert!(!watch.killed());
}

#[test]
fn a_cgroup_that_is_removed_leaves_the_machines_counter() {
    let machine = Machine::v1();
    machine.v1_kills("w", 0);
    let watch = machine.watch();
    machine.machine_kills(1);
    fs::remove_dir_all(machine.path("cgroup")).expect("the cgroup was there");
    assert!(watch.killed());
}

#[test]
fn a_process_that_was_moved_is_followed() {
    let machine = Machine::v1();
    machine.v1_kills("w", 0);
    machine.v1_kills("narrow", 3);
    let mut watch = machine.watch();
    machine.write(&format!("proc/{PID}/cgroup"), "4:memory:/narrow\n");
    watch.refresh();
    assert!(
        !watch.killed(),
        "the higher count of the new cgroup is its past"
    );
    machine.v1_kills("w", 1);
    assert!(!watch.killed(), "it is not there any more");
    machine.v1_kills("narrow", 4);
    assert!(watch.killed());
}

#[test]
fn an_ending_process_keeps_the_cgroup_it_had() {
    let machine = Machine::v1();
    machine.v1_kills("w", 0);
    machine.v1_kills("", 0);
    let mut watch = machine.watch();
    // What v1 tells of every process that is ending.
    machine.write(&format!("proc/{PID}/cgroup"), "4:memory:/\n");
    watch.refresh();
    machine.v1_kills("", 1);
    assert!(!watch.killed());
    machine.v1_kills("w", 1);
    assert!(watch.killed());
}

#[test]
fn a_kill_that_a_look_came_upon_is_not_forgotten_before_it_is_reported() {
    let machine = Machine::v1();
    machine.v1_kills("w", 0);
    let mut watch = machine.watch();
    machine.v1_kills("w", 1);
    watch.refresh();
    machine.end();
    watch.refresh();
    assert!(watch.killed());
}

#[test]
fn an_old_kill_of_another_process_is_forgotten() {
    let machine = Machine::v1();
    machine.v1_kills("w", 0);
    let mut watch = machine.watch();
    machine.v1_kills("w", 1);
    watch.refresh();
    let Some(past) = Instant::now().checked_sub(RECENT) else {
        panic!("the machine has just started");
    };
    watch.grown_at = Some(past);
    assert!(!watch.killed());
}

#[test]
fn only_a_part_of_the_hierarchy_may_be_mounted() {
    let mountinfo = "35 31 0:32 /docker/1f /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
    let folder = |path| {
        let hierarchy = Hierarchy::V1;
        Membership { hierarchy, path }.folder(mountinfo)
    };
    let own = PathBuf::from("/sys/fs/cgroup/memory/w");
    assert_eq!(folder("/docker/1f/w"), Some(own));
    assert_eq!(folder("/elsewhere"), None);
}

#[test]
fn the_memory_controller_is_found_among_others() {
    let hybrid = "12:cpu,cpuacct:/a\n4:hugetlb,memory:/b\n1:name=systemd:/c\n0::/d\n";
    let found = |text| Membership::of_memory(text).map(|found| (found.hierarchy, found.path));
    assert_eq!(found(hybrid), Some((Hierarchy::V1, "/b")));
    assert_eq!(
        found("1:name=memory:/c\n0::/d:e\n"),
        Some((Hierarchy::V2, "/d:e"))
    );
    assert_eq!(found("12:cpu:/a\n"), None);
}

/// The real kernel's files, whichever of them this machine has.
#[test]
fn this_process_has_counters() {
    let watch = OomWatch::begin(std::process::id());
    assert!(
        watch.cgroup.is_some() || watch.machine.is_some(),
        "{watch:?}"
    );
    assert!(!watch.killed(), "{watch:?}");
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>(), lines in "([0-9a-z:/, -]{0,20}\n){0,6}") {
        for text in [text, lines] {
            let _ = oom_kills(&text);
            if let Some(membership) = Membership::of_memory(&text) {
                let _ = membership.folder(&text);
            }
        }
    }
}
