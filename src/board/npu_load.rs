//! How busy the NPU's cores are, as its driver tells it.

use std::fs;
use std::path::Path;

use super::Sysroot;

/// Busy share of each core in the driver's last second, 0 to 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NpuLoad {
    pub cores: Vec<f64>,
}

impl NpuLoad {
    /// Where the driver tells it: debugfs as the unit shows it to the daemon, debugfs itself, which is
    /// root's, and procfs where the driver is built for that.
    pub const FILES: [&str; 3] = [
        "/run/rknpu/load",
        "/sys/kernel/debug/rknpu/load",
        "/proc/rknpu/load",
    ];

    /// Asks the driver, which may hang. `None`: it does not tell.
    pub fn read(sysroot: &Sysroot) -> Option<Self> {
        Self::FILES
            .iter()
            .find_map(|file| Self::of_file(&sysroot.path(file)))
    }

    fn of_file(path: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(path).ok()?)
    }

    /// `NPU load:  Core0:  9%, Core1: 41%,`, and with one core `NPU load:  9%` (docs/vendor-library.md §5).
    fn parse(text: &str) -> Option<Self> {
        let shares = text.trim().strip_prefix("NPU load:")?;
        let percent = |share: &str| -> Option<f64> {
            let number = share.rsplit(':').next()?.trim().strip_suffix('%')?;
            let percent: u8 = number.trim().parse().ok()?;
            (percent <= 100).then(|| f64::from(percent) / 100.0)
        };
        let shares = shares.split(',').map(str::trim);
        let cores: Option<Vec<f64>> = shares.filter(|s| !s.is_empty()).map(percent).collect();
        cores
            .filter(|cores| !cores.is_empty())
            .map(|cores| Self { cores })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drivers_lines_are_read() {
        for (text, cores) in [
            (
                "NPU load:  Core0:  0%, Core1: 41%, Core2:100%,\n",
                &[0.0, 0.41, 1.0][..],
            ),
            ("NPU load:  Core0:  9%, Core1:  42%,\n", &[0.09, 0.42]),
            ("NPU load:  7%\n", &[0.07]),
        ] {
            let load = NpuLoad::parse(text).unwrap();
            assert_eq!(load.cores, cores, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_absent() {
        for text in [
            "",
            "NPU load:",
            "NPU load: ,",
            "NPU load: Core0: ?%,",
            "NPU load: Core0: 9%, Core1: 999%,",
            "CPU load: 9%",
        ] {
            assert_eq!(NpuLoad::parse(text), None, "{text:?}");
        }
        assert_eq!(NpuLoad::of_file(Path::new("/nonexistent/load")), None);
    }

    #[test]
    fn the_first_file_that_tells_counts() {
        let folder = tempfile::tempdir().unwrap();
        let sysroot = Sysroot::new(folder.path());
        assert_eq!(NpuLoad::read(&sysroot), None);
        let path = sysroot.path(NpuLoad::FILES[2]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "NPU load:  7%\n").unwrap();
        assert_eq!(NpuLoad::read(&sysroot).unwrap().cores, [0.07]);
    }
}
