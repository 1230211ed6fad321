//! How busy the NPU's cores are, as its driver tells it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::apart::{self, Subject};

/// Where the driver tells it: debugfs as the unit shows it to the daemon, debugfs itself, which is
/// root's, and procfs where the driver is built for that.
const FILES: [&str; 3] = [
    "/run/rknpu/load",
    "/sys/kernel/debug/rknpu/load",
    "/proc/rknpu/load",
];

/// A driver that takes longer hangs.
const LIMIT: Duration = Duration::from_millis(500);

/// Busy share of each core in the driver's last second, 0 to 1; no core where it is not known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NpuLoad {
    pub cores: Vec<f64>,
}

impl NpuLoad {
    /// Asks the driver, apart from the threads that serve.
    pub async fn read() -> Self {
        Self::read_first_of(&FILES).await
    }

    async fn read_first_of(files: &'static [&'static str]) -> Self {
        let read = || files.iter().find_map(|file| Self::of_file(Path::new(file)));
        let told = apart::ask(Subject::NpuDriver, LIMIT, read).await;
        told.flatten().unwrap_or_default()
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

    /// A named pipe without a writer stands for a driver that hangs.
    #[tokio::test]
    async fn a_driver_that_hangs_is_not_waited_for() {
        use std::io::Write;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("load");
        let (fifo, mode) = (
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
        );
        rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, mode, 0).unwrap();
        let leaked: &'static str = Box::leak(path.to_str().unwrap().to_owned().into_boxed_str());
        let files: &'static [&'static str] = Box::leak(Box::new([leaked]));
        let before = std::time::Instant::now();
        for _ in 0..2 {
            assert_eq!(
                NpuLoad::read_first_of(files).await,
                NpuLoad::default(),
                "absent"
            );
        }
        assert!(before.elapsed() < 10 * LIMIT);
        // The driver answers again, and is asked again.
        let mut pipe = fs::OpenOptions::new().write(true).open(&path).unwrap();
        pipe.write_all(b"NPU load:  5%\n").unwrap();
        drop(pipe);
        fs::remove_file(path).unwrap();
        let read = apart::ask(Subject::NpuDriver, Duration::from_secs(60), || 1).await;
        assert_eq!(read, Some(1));
    }
}
