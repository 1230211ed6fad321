//! One installed model, against this machine: what its files say, as a reader told it, the library, the chip and
//! the memory. Nothing of the model's is read here but its bytes, for their checksum.

use std::fs::File;
use std::io::{self, Read};

use sha2::{Digest, Sha256};

use super::board::numbers;
use super::memory::mib;
use super::{Check, Patient, Report, Status, runtime};
use crate::hub::{Board, unsuited_by_name};
use crate::ipc::TemplateState;
use crate::models::{Catalog, InstalledModel, ModelKind, readable_size};

/// The format that is known of `.rkllm` files.
const KNOWN_FORMAT: u32 = 3;
/// More tensors than this no model has.
const MOST_TENSORS: u64 = 1 << 20;
/// Libraries from here on refuse some files of older toolkits.
const OLD_TOOLKIT: (u32, u32, u32) = (1, 2, 0);
const CHUNK_BYTES: usize = 1 << 20;

/// The checks of a model, in the order of the report; the last three are a [`trial`](super::try_model)'s.
pub fn model_ids() -> impl Iterator<Item = &'static str> {
    [
        "model.read",
        "model.format",
        "model.platform",
        "model.runtime",
        "model.toolkit",
        "model.memory",
        "model.template",
        "model.whole",
        "model.beside",
        "model.load",
        "model.answer",
    ]
    .into_iter()
}

/// Looks at all that can be known without loading the model; at its every byte where `hashes`.
pub fn examine_model(
    patient: &Patient,
    catalog: &Catalog,
    model: &InstalledModel,
    hashes: bool,
) -> Report {
    let whole = match hashes {
        true => whole(model),
        false => Check::skip("it was not asked for"),
    };
    Report {
        checks: vec![
            read(catalog, model).named("model.read"),
            format(model).named("model.format"),
            platform(patient, model).named("model.platform"),
            library(patient, model).named("model.runtime"),
            toolkit(patient, model).named("model.toolkit"),
            memory(patient, model).named("model.memory"),
            template(model).named("model.template"),
            whole.named("model.whole"),
        ],
    }
}

fn read(catalog: &Catalog, model: &InstalledModel) -> Check {
    let mut problems = catalog.problems().iter();
    if let Some(found) = problems.find(|found| model.has_file(&found.path)) {
        let path = found.path.display();
        return Check::warn(format!("{path}: {}", found.problem))
            .expected("files without problems")
            .remedy(format!("rkllmd show {}", model.id));
    }
    let size = readable_size(model.facts.size_bytes);
    Check::ok(format!("{}, {size}", model.path.display()))
}

fn format(model: &InstalledModel) -> Check {
    let Some(file) = &model.facts.rkllm else {
        let kind = model.facts.architecture.as_deref();
        return Check::ok(format!(
            "GGUF of {}",
            kind.unwrap_or("a kind that it does not tell")
        ));
    };
    let damaged = "bring the file anew: it is damaged, cut off, or no model";
    if !file.starts_right {
        return Check::warn("it does not begin with DA EE B3 36")
            .expected("the beginning of a .rkllm file")
            .remedy(damaged);
    }
    let (Some(version), Some(tensors)) = (file.version, file.tensors) else {
        return Check::fail("it ends within its header")
            .expected("a whole file")
            .remedy(damaged);
    };
    if version != KNOWN_FORMAT {
        return Check::warn(format!(".rkllm of version {version}"))
            .expected(format!(
                "version {KNOWN_FORMAT}, which is known to be loaded"
            ))
            .remedy("look at what the library says of it: rkllmd check without --quick");
    }
    if tensors == 0 || tensors > MOST_TENSORS {
        return Check::fail(format!("it says that it has {tensors} tensors"))
            .expected(format!("1 to {MOST_TENSORS}"))
            .remedy(damaged);
    }
    Check::ok(format!(".rkllm of version {version}, {tensors} tensors"))
}

/// By its name, which is a hint.
fn platform(patient: &Patient, model: &InstalledModel) -> Check {
    if model.facts.kind == ModelKind::Gguf {
        return Check::ok("any: the CPU runtime runs it");
    }
    let Some(soc) = patient.soc() else {
        return Check::skip("this machine tells no chip, so that the library alone knows");
    };
    if patient.npu().is_none() {
        return Check::fail(format!(
            "{} has no NPU that the vendor's library serves",
            soc.name()
        ))
        .expected("RK3588, RK3582, RK3576, RK3562 or RV1126B")
        .remedy("take a .gguf model, which the CPU runtime runs on any board");
    }
    let board = Board {
        soc: Some(soc),
        ..Board::default()
    };
    let name = model.path.file_name().unwrap_or_default().to_string_lossy();
    let source = model.facts.source.as_ref();
    let told = source.map(|source| [source.revision.as_deref(), source.repository.as_deref()]);
    let beside: Vec<&str> = told.into_iter().flatten().flatten().collect();
    match unsuited_by_name(&name, &beside, &board) {
        None => Check::ok(format!("its name speaks against no {}", soc.name())),
        Some(reason) => Check::warn(format!("by its name it {reason}"))
            .expected(format!("a model that was made for {}", soc.name()))
            .remedy("rkllmd pull chooses the file that suits the board"),
    }
}

fn library(patient: &Patient, model: &InstalledModel) -> Check {
    let check = match model.facts.kind {
        ModelKind::Rkllm => return runtime::npu_library(patient),
        ModelKind::Gguf => runtime::cpu(patient),
    };
    match check.status {
        // This model needs it.
        Status::Warn => Check {
            status: Status::Fail,
            ..check
        },
        _ => check,
    }
}

fn toolkit(patient: &Patient, model: &InstalledModel) -> Check {
    let Some(file) = &model.facts.rkllm else {
        return Check::skip("a .gguf file is made by none");
    };
    let Some(toolkit) = &file.toolkit else {
        return Check::skip("the end of its file does not tell");
    };
    let Ok(library) = runtime::version_text(patient) else {
        return Check::skip(format!("{toolkit}; there is no library to compare with"));
    };
    let observed = format!("{toolkit}, and the library is {library}");
    let (Some(made_by), Some(runs)) = (numbers(toolkit), numbers(&library)) else {
        return Check::skip(format!("{observed}: they cannot be compared"));
    };
    if made_by > runs {
        return Check::fail(observed)
            .expected("a library at least as new as the model's toolkit")
            .remedy(format!("install librkllmrt.so {toolkit} or newer"));
    }
    if made_by < OLD_TOOLKIT {
        return Check::warn(observed)
            .expected("toolkit 1.2 or newer: libraries from there on refuse some older files")
            .remedy("take a file of a newer toolkit");
    }
    Check::ok(observed)
}

fn memory(patient: &Patient, model: &InstalledModel) -> Check {
    let of = |name| patient.sysroot.memory_bytes(name);
    let Some(total) = of("MemTotal") else {
        return Check::skip("the kernel does not tell");
    };
    // A model needs about its file's size (docs/vendor-library.md §6).
    let needed = model.facts.size_bytes;
    let available = of("MemAvailable");
    let mut observed = format!("its file has {}, the machine {}", mib(needed), mib(total));
    if let Some(available) = available {
        observed += &format!(", of which {} are available", mib(available));
    }
    let smaller = "install a smaller model, or one of fewer bits";
    if needed > total {
        return Check::fail(observed)
            .expected("a model that is smaller than the memory")
            .remedy(smaller);
    }
    if needed > total / 10 * 8 {
        return Check::warn(observed)
            .expected("a model of at most four fifths of the memory")
            .remedy(smaller);
    }
    if available.is_some_and(|available| needed > available) {
        return Check::warn(observed)
            .expected("so much memory available")
            .remedy(
                "unload other models, or end what takes most: ps -eo rss,comm --sort=-rss | head",
            );
    }
    Check::ok(observed)
}

fn template(model: &InstalledModel) -> Check {
    let observed = match &model.template {
        TemplateState::Usable { .. } => {
            let source = model.facts.template_source.as_ref();
            let source = source.map(ToString::to_string);
            return Check::ok(source.unwrap_or_else(|| "there is one".to_owned()));
        }
        TemplateState::None => "none was found".to_owned(),
        TemplateState::Broken { reason } => format!("it is broken: {reason}"),
    };
    Check::warn(observed)
        .expected("a chat template: without one it answers no chats")
        .remedy(model.template_advice())
}

/// Its bytes, against what the pull wrote down that has brought it.
fn whole(model: &InstalledModel) -> Check {
    let source = model.facts.source.as_ref();
    let Some(wanted) = source.and_then(|source| source.sha256.as_deref()) else {
        return Check::skip("no pull has written down its checksum");
    };
    match sha256(&model.path) {
        Err(error) => Check::warn(format!("it cannot be read: {error}"))
            .expected("a file that this user may read")
            .remedy("sudo -u rkllmd rkllmd check MODEL"),
        Ok(found) if found.eq_ignore_ascii_case(wanted) => {
            Check::ok("its SHA-256 is the one that was pulled")
        }
        Ok(found) => Check::fail(format!("its SHA-256 is {found}"))
            .expected(wanted)
            .remedy(format!("rkllmd rm {0} && rkllmd pull {0}", model.id)),
    }
}

fn sha256(path: &std::path::Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            read => hash.update(&chunk[..read]),
        }
    }
    let digest = hash.finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests;
