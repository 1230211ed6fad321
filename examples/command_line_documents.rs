//! Writes the manual pages and shell completions of the command line into a folder, for the
//! packages: `command_line_documents DIR`. They are made of the definition that parses it, so they
//! cannot differ from it.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap_complete::Shell;

fn main() -> anyhow::Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).context("usage: … DIR")?);
    let man = folder.join("man");
    // A page of a command that is gone must not stay.
    if man.exists() {
        fs::remove_dir_all(&man).with_context(|| format!("emptying {}", man.display()))?;
    }
    fs::create_dir_all(&man).with_context(|| format!("making {}", man.display()))?;

    clap_mangen::generate_to(without_hidden(rkllmd::cli::command()), &man)
        .with_context(|| format!("writing the manual pages to {}", man.display()))?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut command = without_hidden(rkllmd::cli::command());
        clap_complete::generate_to(shell, &mut command, "rkllmd", &folder)
            .with_context(|| format!("writing the completions for {shell}"))?;
    }
    Ok(())
}

/// The command without the programs that only the daemon starts, which are no user's to call.
fn without_hidden(command: clap::Command) -> clap::Command {
    let shown: Vec<_> = command
        .get_subcommands()
        .filter(|subcommand| !subcommand.is_hide_set())
        .cloned()
        .collect();
    let about = command.get_about().cloned();
    let mut rebuilt = clap::Command::new("rkllmd")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommands(shown);
    rebuilt = match about {
        Some(about) => rebuilt.about(about),
        None => rebuilt,
    };
    match command.get_after_help().cloned() {
        Some(after) => rebuilt.after_help(after),
        None => rebuilt,
    }
}
