//! The flags that set a key. They are the last word, after files and environment.

use clap::Args;

use super::assignment::{Assignment, Origin};

/// Settings given on the command line; an absent flag leaves the key alone.
#[derive(Args, Clone, Debug, Default)]
pub struct CliOverrides {
    /// Address to listen on, ADDRESS:PORT, or a port of 127.0.0.1; repeat for several (http.listen)
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// Folder whose models are installed (models.dir)
    #[arg(long, value_name = "DIR")]
    pub models: Option<String>,
    /// Model to load at start, by id or alias; repeat for several (models.preload)
    #[arg(long, value_name = "MODEL")]
    pub preload: Vec<String>,
    /// Log filter in the syntax of RUST_LOG, such as `info` or `rkllmd=debug` (log.filter)
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

impl CliOverrides {
    pub(super) fn assignments(&self) -> Vec<Assignment> {
        let list = |values: &[String]| {
            (!values.is_empty()).then(|| {
                toml::Value::Array(values.iter().cloned().map(toml::Value::String).collect())
            })
        };
        let text = |value: &Option<String>| value.clone().map(toml::Value::String);
        [
            ("--listen", "http", "listen", list(&self.listen)),
            ("--models", "models", "dir", text(&self.models)),
            ("--preload", "models", "preload", list(&self.preload)),
            ("--log", "log", "filter", text(&self.log)),
        ]
        .into_iter()
        .filter_map(|(flag, section, name, value)| {
            Some(Assignment {
                section: section.to_owned(),
                name: name.to_owned(),
                value: value?,
                origin: Origin::Flag(flag),
            })
        })
        .collect()
    }
}
