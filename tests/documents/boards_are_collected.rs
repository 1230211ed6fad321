//! `rkllmd doctor --collect` packs a board so that it is found elsewhere as it is, and tells nothing that is its
//! owner's alone.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode};
use tempfile::TempDir;

use crate::board_support::{Board, GOOD, descriptions};
use crate::doctor_command::doctor;

/// What the command allows itself, and time for a busy machine.
const LIMIT: Duration = Duration::from_secs(40);

fn report(root: &Path) -> String {
    let output = doctor(&["--sysroot", root.to_str().unwrap()]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let text = String::from_utf8(output.stdout).unwrap();
    format!("{text}exit code {:?}", output.status.code())
}

struct Packed {
    folder: TempDir,
    /// What was printed.
    told: String,
}

impl Packed {
    fn of(board: &Board) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("board.tar.gz");
        let root = board.root().to_str().unwrap();
        let output = doctor(&["--sysroot", root, "--collect", file.to_str().unwrap()]);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert_eq!(output.status.code(), Some(0));
        let told = String::from_utf8(output.stdout).unwrap();
        Self { folder, told }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("board.tar.gz")
    }

    /// As docs/troubleshooting.md says it.
    fn unpack(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let tar = Command::new("tar")
            .arg("-xpzf")
            .arg(self.file())
            .arg("-C")
            .arg(folder.path())
            .output()
            .expect("tar starts");
        assert_eq!(String::from_utf8_lossy(&tar.stderr), "");
        assert!(tar.status.success());
        folder
    }

    fn tar(&self) -> Vec<u8> {
        let mut tar = Vec::new();
        let packed = fs::File::open(self.file()).unwrap();
        let mut packed = flate2::read::GzDecoder::new(packed);
        packed.read_to_end(&mut tar).unwrap();
        tar
    }
}

#[test]
fn every_board_is_found_in_its_copy_as_it_is() {
    let mut seen = 0;
    for entry in fs::read_dir(descriptions()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let board = Board::of(&name);
        let packed = Packed::of(&board);
        assert!(!packed.told.contains("left out"), "{name}: {}", packed.told);
        let copy = packed.unpack();
        assert_eq!(report(copy.path()), report(board.root()), "{name}");
        let of_copy = fs::read_to_string(copy.path().join("doctor.json")).unwrap();
        let root = board.root().to_str().unwrap();
        let of_board = doctor(&["--sysroot", root, "--json"]).stdout;
        assert_eq!(of_copy, String::from_utf8(of_board).unwrap(), "{name}");
        seen += 1;
    }
    assert!(seen >= 7, "{seen} boards");
}

/// What is wrong with a board is wrong with its copy, too.
#[test]
fn faults_are_found_in_the_copy() {
    type Change = fn(&Board);
    let table: &[(&str, Change)] = &[
        ("a closed device", |b| {
            let path = b.path("/dev/dri/by-path/platform-fdab0000.npu-card");
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }),
        ("a closed library", |b| {
            let path = b.path("/usr/lib/librkllmrt.so");
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }),
        ("a closed model", |b| {
            let path = b.path("/var/lib/rkllmd/models/qwen3-4b/model.rkllm");
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }),
        ("no user of the service", |b| {
            b.write("/etc/passwd = root:x:0:0::/root:/bin/sh\\n")
        }),
        ("no library", |b| b.remove("/usr/lib/librkllmrt.so")),
        ("a library without a version", |b| {
            b.write("/usr/lib/librkllmrt.so := library ?")
        }),
        ("a library that is text", |b| {
            b.write("/usr/lib/librkllmrt.so = <html>Not found</html>\\n");
        }),
        ("a library that is cut off", |b| {
            let path = b.path("/usr/lib/librkllmrt.so");
            let whole = fs::read(&path).unwrap();
            fs::write(path, &whole[..whole.len() - 9]).unwrap();
        }),
        ("no library that it needs", |b| {
            b.remove("/usr/lib/aarch64-linux-gnu/libgomp.so.1");
        }),
        ("a model larger than the memory", |b| {
            b.write("/var/lib/rkllmd/models/large.rkllm := model 1.3.1 17000000000");
        }),
        ("a new model", |b| {
            b.write("/var/lib/rkllmd/models/new.rkllm := model 1.4.0 1000000");
        }),
        ("control groups of version 1", |b| {
            b.remove("/sys/fs/cgroup/cgroup.controllers");
            b.write("/sys/fs/cgroup/memory/memory.limit_in_bytes = 1\\n");
        }),
        ("heat", |b| {
            b.write("/sys/class/thermal/thermal_zone0/temp = 81000\\n");
            b.write("/sys/class/thermal/cooling_device4/cur_state = 2\\n");
        }),
        ("other places", |b| {
            b.write("/etc/rkllmd/rkllmd.toml = [runtime]\\nnpu-library = \"/opt/lib.so\"\\n[models]\\ndir = \"/srv/models\"\\n");
            b.write("/opt/lib.so := library 1.3.0");
            b.write("/srv/models/new.rkllm := model 1.3.1 1000000");
        }),
    ];
    let good = report(Board::of(GOOD).root());
    for (fault, change) in table {
        let board = Board::of(GOOD);
        change(&board);
        let found = report(board.root());
        assert_ne!(found, good, "{fault} is found");
        let copy = Packed::of(&board).unpack();
        assert_eq!(report(copy.path()), found, "{fault}");
    }
}

struct Secrets {
    serial: String,
    machine: String,
    card: String,
    address: [u8; 6],
    host: String,
    key: String,
}

impl Secrets {
    fn random(random: &mut fastrand::Rng) -> Self {
        let mut digits = |count| -> String {
            // No serial number is all zeros.
            let further = (1..count).map(|_| random.digit(16)).collect::<String>();
            format!("7{further}")
        };
        let (serial, machine, card, key) = (digits(16), digits(32), digits(10), digits(64));
        let mut address = [0; 6];
        random.fill(&mut address);
        let letters: String = (0..9).map(|_| random.lowercase()).collect();
        let secret = format!("rkllmd-{key}");
        Self {
            serial,
            machine,
            card,
            address,
            host: format!("host{letters}"),
            key: secret,
        }
    }

    fn address(&self, between: &str) -> String {
        self.address.map(|byte| format!("{byte:02x}")).join(between)
    }

    /// Where a board has them, and where someone may have written them.
    fn plant(&self, board: &Board) {
        let Self {
            serial,
            machine,
            card,
            host,
            key,
            ..
        } = self;
        let (address, plain) = (self.address(":"), self.address(""));
        let (upper, dashed) = (serial.to_uppercase(), self.address("-").to_uppercase());
        for line in [
            format!("/proc/device-tree/serial-number = {serial}\\0"),
            format!("/proc/cpuinfo = processor : 0\\n\\nSerial\\t: {serial}\\n"),
            format!("/etc/machine-id = {machine}\\n"),
            format!("/sys/class/block/mmcblk0/device/serial = 0x{card}\\n"),
            format!("/sys/class/net/end0/address = {address}\\n"),
            format!("/etc/hostname = {host}\\n"),
            format!("/proc/sys/kernel/hostname = {host}.example.org\\n"),
            format!("/etc/rkllmd/keys.toml = key = \"{key}\"\\n"),
            format!(
                "/etc/passwd = {host}:x:1000:1000:{serial}:/home/{host}:/bin/sh\\nrkllmd:x:64998:64998:{host}:/:/bin/sh\\n"
            ),
            format!(
                "/etc/group = {host}:x:1000:{host}\\nvideo:x:44:{host},rkllmd\\n{host}s:x:77:rkllmd\\n"
            ),
            format!("/proc/device-tree/model = Board {upper} {dashed}\\0"),
            format!("/proc/sys/kernel/osrelease = 6.1.43-{host}\\n"),
            format!(
                "/proc/swaps = Filename Type\\n/dev/mapper/{host}-swap partition 1 0 -2\\n/x/{plain}/{key} file 1 0 -3\\n"
            ),
            format!("/sys/class/thermal/thermal_zone0/type = soc-{serial}-{address}\\n"),
            format!(
                "/etc/rkllmd/rkllmd.toml = [models]\\ndir = \"/srv/{host}/models\"\\n[http]\\nlisten = [\"192.0.2.7:8080\"]\\n[runtime]\\nnpu-library = \"/opt/{host}/{serial}.so\"\\n"
            ),
            format!("/opt/{host}/{serial}.so := library 1.3.1"),
            format!("/srv/{host}/models/{host}-{plain}.rkllm := model 1.3.1 20000000000"),
        ] {
            board.write(&line);
        }
    }

    fn forms(&self) -> Vec<String> {
        vec![
            self.serial.clone(),
            self.machine.clone(),
            self.card.clone(),
            self.address(":"),
            self.address("-"),
            self.address(""),
            self.host.clone(),
            self.key.clone(),
            self.key.replace("rkllmd-", ""),
        ]
    }
}

/// Random ones; a failure tells the seed.
#[test]
fn no_serial_number_address_host_or_key_is_packed() {
    for seed in 0..20 {
        let secrets = Secrets::random(&mut fastrand::Rng::with_seed(seed));
        let board = Board::of(GOOD);
        secrets.plant(&board);
        // The test is able to fail: the report itself tells the models' and the kernel's names.
        let open = report(board.root()).to_lowercase();
        assert!(open.contains(&secrets.host), "{open}");
        let packed = Packed::of(&board);
        let tar = String::from_utf8_lossy(&packed.tar()).to_lowercase();
        for secret in secrets.forms() {
            assert!(!tar.contains(&secret), "seed {seed}: {secret} is packed");
        }
        assert!(!tar.contains("192.0.2.7"), "nor is the configuration");
        let copy = packed.unpack();
        let found = report(copy.path());
        assert!(found.contains("(host)-(address).rkllm"), "{found}");
        assert!(found.contains("1.3.1, structures of 1.3.1"), "{found}");
    }
}

/// The library is the vendor's, and models are their owner's.
#[test]
fn neither_library_nor_models_are_packed() {
    let board = Board::of(GOOD);
    let library = board.path("/usr/lib/librkllmrt.so");
    let mut content = fs::read(&library).unwrap();
    content.extend_from_slice(b" and then the vendor's own code".repeat(100).as_slice());
    fs::write(library, content).unwrap();
    board.write("/var/lib/rkllmd/models/own.rkllm = the owner's own weights, rkllm-toolkit version: 1.2.0, and more\\n");
    let tar = Packed::of(&board).tar();
    let tar = String::from_utf8_lossy(&tar);
    assert!(!tar.contains("own code") && !tar.contains("own weights"));
    assert!(tar.contains("RKLLM SDK (version: 1.3.1") && tar.contains("version: 1.2.0"));
}

/// A named pipe is no file of the kernel's, and what stands beside it is packed all the same.
#[test]
fn files_that_hang_are_left_out_and_told() {
    let board = Board::of(GOOD);
    let pipes = [
        "/sys/class/devfreq/dmc/governor",
        "/sys/module/rknpu/version",
        "/usr/lib/librkllmrt.so",
        "/sys/class/net/end0/address",
    ];
    for path in pipes {
        if board.path(path).exists() {
            board.remove(path);
        }
        let path = board.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    }
    let before = Instant::now();
    let packed = Packed::of(&board);
    assert!(before.elapsed() < LIMIT, "{:?}", before.elapsed());
    let copy = packed.unpack();
    let about = fs::read_to_string(copy.path().join("collected.txt")).unwrap();
    for path in pipes {
        let line = format!("left out: {path}: ");
        assert!(packed.told.contains(&line), "{path}: {}", packed.told);
        assert!(about.contains(&line), "{path}: {about}");
    }
    let governor = "sys/class/devfreq/fdab0000.npu/governor";
    let told = fs::read_to_string(copy.path().join(governor)).unwrap();
    assert_eq!(told, "performance\n");
}

/// An archive has no way back up in its paths.
#[test]
fn a_path_that_cannot_be_packed_costs_its_file_alone() {
    let board = Board::of(GOOD);
    board.write("/srv/here/file = 1");
    board.write("/srv/models/new.rkllm := model 1.3.1 1000000");
    board.write("/etc/rkllmd/rkllmd.toml = [models]\\ndir = \"/srv/here/../models\"\\n");
    let packed = Packed::of(&board);
    let line = "left out: /srv/here/../models/new.rkllm: ";
    assert!(packed.told.contains(line), "{}", packed.told);
    let copy = packed.unpack();
    assert!(copy.path().join("proc/meminfo").is_file());
    assert!(copy.path().join("usr/lib/librkllmrt.so").is_file());
}

#[test]
fn a_file_that_exists_is_kept_unless_told_otherwise() {
    let board = Board::of(GOOD);
    let root = board.root().to_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("board.tar.gz");
    let (name, nowhere) = (file.to_str().unwrap(), folder.path().join("none/board"));
    fs::write(&file, "mine").unwrap();
    let refused = doctor(&["--sysroot", root, "--collect", name]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--force"));
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    let forced = doctor(&["--sysroot", root, "--collect", name, "--force"]);
    assert_eq!(forced.status.code(), Some(0));
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(fs::read(&file).unwrap().starts_with(&[0x1f, 0x8b]));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let lost = doctor(&["--sysroot", root, "--collect", nowhere.to_str().unwrap()]);
    assert_eq!(lost.status.code(), Some(1));
    for wrong in [&["--collect", name, "--json"][..], &["--force"]] {
        assert_eq!(doctor(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

/// This machine's own files are packed as a board's are.
#[test]
fn this_machine_is_collected() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("board.tar.gz");
    let output = doctor(&["--collect", file.to_str().unwrap()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let told = String::from_utf8(output.stdout).unwrap();
    let packed = Packed { folder, told };
    let copy = packed.unpack();
    let memory = fs::read_to_string(copy.path().join("proc/meminfo")).unwrap();
    assert!(memory.contains("MemAvailable:"), "{memory}");
}
