//! Decides which program this is before any thread or runtime starts.

use std::process::ExitCode;

use rkllmd::cli::{self, Program};
use rkllmd::http::ExposedWithoutKeys;
use rkllmd::{daemon, telemetry, worker};

fn main() -> ExitCode {
    match cli::parse() {
        Program::Serve(settings) => {
            let _log = match telemetry::init_logging(&settings.log) {
                Ok(flushed_at_the_end) => flushed_at_the_end,
                Err(error) => {
                    eprintln!("rkllmd: starting the log: {error}");
                    return ExitCode::from(cli::EXIT_BAD_CONFIG);
                }
            };
            match daemon::run(*settings) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    tracing::error!("{error:#}");
                    if error.is::<ExposedWithoutKeys>() {
                        ExitCode::from(cli::EXIT_BAD_CONFIG)
                    } else {
                        ExitCode::FAILURE
                    }
                }
            }
        }
        Program::Worker(arguments) => worker::run(arguments),
        Program::Finished(code) => code,
    }
}
