use super::*;

#[test]
fn what_is_hidden_is_left_out_and_all_else_is_seen() {
    let place = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(place.path()).unwrap();
    for folder in ["lib", "state/keys", "state/other", "models/a"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::os::unix::fs::symlink(root.join("state"), root.join("link")).unwrap();
    let seen = |hidden: &[&str]| {
        let hidden: Vec<_> = hidden.iter().map(|path| root.join(path)).collect();
        let mut seen = Vec::new();
        leave_out(&root, &hidden, &mut seen);
        let beneath = |path: &PathBuf| {
            let path = path.strip_prefix(&root).unwrap();
            path.display().to_string()
        };
        let mut seen: Vec<_> = seen.iter().map(beneath).collect();
        seen.sort();
        seen
    };
    assert_eq!(seen(&[]), [""]);
    assert_eq!(
        seen(&["state/none"]),
        ["lib", "models", "state/keys", "state/other"]
    );
    assert_eq!(seen(&["state/keys", "models"]), ["lib", "state/other"]);
    assert_eq!(seen(&["state", "state/keys"]), ["lib", "models"]);
    assert!(seen(&[""]).is_empty());
}

#[test]
fn what_is_hidden_is_so_by_either_of_its_names() {
    let place = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(place.path()).unwrap();
    fs::create_dir_all(root.join("real/secret")).unwrap();
    fs::create_dir_all(root.join("real/open")).unwrap();
    std::os::unix::fs::symlink(root.join("real"), root.join("named")).unwrap();
    let mut reach = Reach::new(&[], Right::Read, [root.join("named/secret")]);
    reach.sees(root.join("named"), Right::Run);
    reach.owns(root.join("real/secret/own"), Right::Write);
    assert_eq!(
        reach.paths(),
        [
            (root.join("real/secret/own"), Right::Write),
            (root.join("real/open"), Right::Run)
        ]
    );
}

/// A thread gives up for itself alone, so that this test needs no process.
#[test]
fn what_was_not_given_is_refused() {
    if let Landlock::Missing(reason) = Landlock::of_this_machine() {
        eprintln!("NOT TESTED: this machine has no Landlock: {reason}");
        return assert!(Reach::of_library([]).enter().is_ok(), "it is no error");
    }
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    for folder in ["own", "read", "state"] {
        fs::create_dir(at(folder)).unwrap();
        fs::write(at(folder).join("file"), "text").unwrap();
    }
    let mut reach = Reach::of_library([at("state")]);
    reach.owns(at("own"), Right::Write);
    reach.owns(at("read"), Right::Read);
    reach.owns(at("nowhere"), Right::Read);
    let (own, read, state) = (at("own"), at("read"), at("state"));
    let inside = std::thread::spawn(move || {
        reach.enter().unwrap();
        let refused = |done: std::io::Result<()>| {
            done.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
        };
        assert_eq!(fs::read(own.join("file")).unwrap(), b"text");
        fs::write(own.join("new"), "more").unwrap();
        fs::rename(own.join("new"), own.join("file")).unwrap();
        assert_eq!(fs::read(read.join("file")).unwrap(), b"text");
        assert!(refused(fs::write(read.join("file"), "more")));
        assert!(refused(fs::read(state.join("file")).map(drop)));
        assert!(refused(fs::read_dir(&state).map(drop)));
        assert!(refused(fs::write(state.join("new"), "more")));
        assert!(fs::read_dir("/usr").is_ok() && fs::read("/proc/self/status").is_ok());
        assert!(fs::write("/dev/null", "more").is_ok());
    });
    inside.join().unwrap();
    assert_eq!(
        fs::read(at("state").join("file")).unwrap(),
        b"text",
        "this thread may"
    );
}

#[test]
fn kernels_without_it_are_told_by_their_release() {
    for (release, is_old) in [
        ("5.10.160-rockchip", true),
        ("4.19.232", true),
        ("5.13.0", false),
        ("6.1.75-vendor-rk35xx", false),
        ("unreadable", false),
    ] {
        assert_eq!(is_too_old(release), is_old, "{release}");
    }
}

/// What is announced is what the kernel does.
#[test]
fn a_newer_version_has_what_an_older_one_has() {
    match Landlock::of_this_machine() {
        Landlock::There(newest) => {
            assert!(
                VERSIONS
                    .iter()
                    .all(|(version, abi)| has(*abi) == (*version <= newest))
            );
        }
        Landlock::Missing(reason) => {
            eprintln!("NOT TESTED: this machine has no Landlock: {reason}");
            assert!(VERSIONS.iter().all(|(_, abi)| !has(*abi)));
        }
    }
}
