//! Decides which program this is before any thread or runtime starts.

use std::process::ExitCode;

use rkllmd::cli::{self, Program};
use rkllmd::daemon::StateFolderError;
use rkllmd::http::ExposedWithoutKeys;
use rkllmd::{daemon, reader, telemetry, worker};

fn main() -> ExitCode {
    match cli::parse() {
        Program::Serve { settings, source } => {
            rkllmd::prepare_allocator();
            telemetry::recent_log().keep(settings.admin.recent_log_bytes);
            let _log = match telemetry::init_logging(&settings.log) {
                Ok(flushed_at_the_end) => flushed_at_the_end,
                Err(error) => {
                    eprintln!("rkllmd: starting the log: {error}");
                    return ExitCode::from(cli::EXIT_BAD_CONFIG);
                }
            };
            match daemon::run(*settings, source) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    tracing::error!("{error:#}");
                    if error.is::<ExposedWithoutKeys>() {
                        ExitCode::from(cli::EXIT_BAD_CONFIG)
                    } else if let Some(StateFolderError::InUse { .. }) = error.downcast_ref() {
                        ExitCode::from(cli::EXIT_IN_USE)
                    } else {
                        ExitCode::FAILURE
                    }
                }
            }
        }
        Program::Worker(arguments) => worker::run(arguments),
        Program::Reader(arguments) => reader::run(arguments),
        Program::Finished(code) => code,
    }
}
