//! What `rkllmd list` and `rkllmd show` print: one line a model, or one model line by line, then what is wrong;
//! or the same as JSON.

use std::fmt;

use serde::Serialize;

use super::{
    Catalog, InstalledModel, ModelKind, ModelProblem, SlotLimits, SlotPlan, TemplateSource,
    TemplateState,
};
use crate::printable::printable;
use crate::reader::ModelSource;

/// A catalog for people (`Display`) and programs (`Serialize`).
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Listing {
    models: Vec<ListedModel>,
    problems: Vec<ListedProblem>,
}

#[derive(Clone, Debug, Serialize)]
struct ListedModel {
    id: String,
    aliases: Vec<String>,
    kind: ModelKind,
    path: String,
    size_bytes: u64,
    /// Configured; `null`: the default.
    context_length: Option<u32>,
    /// The model's own; `null`: its file does not tell.
    context_limit: Option<u32>,
    slots: SlotPlan,
    /// `null`: none was found.
    template: Option<ListedTemplate>,
    /// Bytes of what `model.toml` names of what prompts begin with, which all keys share.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shared_prefixes: Vec<usize>,
    /// Those of them that are evaluated before a client asks for them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pinned_prompts: Vec<ListedPrompt>,
    /// `null`: without a template that can be used it answers no chat.
    replies: Option<ListedReplies>,
    /// Answers can be kept to a format: the bytes of its tokens are known.
    keeps_formats: bool,
    /// What it is with each of its adapters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    adapters: Vec<ListedAdapter>,
    /// Where a pull has brought it from.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<ModelSource>,
    notes: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
struct ListedPrompt {
    name: String,
    /// As the template writes it.
    bytes: usize,
}

#[derive(Clone, Debug, Serialize)]
struct ListedAdapter {
    id: String,
    file: String,
    scale: f32,
    size_bytes: u64,
    /// Why it cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct ListedTemplate {
    usable: bool,
    #[serde(flatten)]
    source: TemplateSource,
}

/// Where it is known from how it writes them.
#[derive(Clone, Debug, Serialize)]
struct ListedReplies {
    thoughts: String,
    calls: String,
    /// Why what was found is not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct ListedProblem {
    path: String,
    problem: String,
}

impl ListedProblem {
    fn of(found: &ModelProblem) -> Self {
        Self {
            path: found.path.display().to_string(),
            problem: found.problem.clone(),
        }
    }
}

impl ListedModel {
    fn of(model: &InstalledModel, limits: SlotLimits) -> Self {
        Self {
            slots: SlotPlan::of(model, model.facts.context_tokens(), limits),
            id: model.id.to_string(),
            aliases: model.facts.aliases.clone(),
            kind: model.facts.kind,
            path: model.path.display().to_string(),
            size_bytes: model.facts.size_bytes,
            context_length: model.facts.context_length,
            context_limit: model.facts.context_limit,
            template: model
                .facts
                .template_source
                .clone()
                .map(|source| ListedTemplate {
                    usable: matches!(model.template, TemplateState::Usable { .. }),
                    source,
                }),
            replies: model.reply.as_ref().map(|reply| ListedReplies {
                thoughts: reply.found.reasoning_from.to_string(),
                calls: reply.found.calls_from.to_string(),
                problem: reply.unused.as_ref().map(ToString::to_string),
            }),
            keeps_formats: model.keeps_formats(),
            shared_prefixes: model.shared_prefixes().iter().map(String::len).collect(),
            pinned_prompts: model
                .pinned_prompts()
                .iter()
                .map(|pinned| ListedPrompt {
                    name: pinned.name.clone(),
                    bytes: pinned.text.len(),
                })
                .collect(),
            adapters: Vec::new(),
            source: model.facts.source.clone(),
            notes: model.notes.clone(),
        }
    }
}

impl ListedAdapter {
    fn of_each(catalog: &Catalog, model: &InstalledModel) -> Vec<Self> {
        let adapted = catalog.listed().filter(|it| it.id == model.id);
        let adapted = adapted.filter(|it| it.variant.is_none());
        let listed = adapted.filter_map(|it| {
            let adapted = it.adapted.as_ref()?;
            Some(Self {
                id: adapted.name.to_string(),
                file: adapted.facts.file.clone(),
                scale: adapted.facts.scale,
                size_bytes: adapted.facts.size_bytes,
                problem: adapted.facts.problem.clone(),
            })
        });
        listed.collect()
    }
}

impl Listing {
    /// `limits`: what a model's slots may have.
    pub fn of(catalog: &Catalog, limits: SlotLimits) -> Self {
        Self {
            models: catalog
                .models()
                .iter()
                .map(|model| ListedModel {
                    adapters: ListedAdapter::of_each(catalog, model),
                    ..ListedModel::of(model, limits)
                })
                .collect(),
            problems: catalog.problems().iter().map(ListedProblem::of).collect(),
        }
    }

    /// Likewise, of one model and what is wrong with its files.
    pub fn of_model(catalog: &Catalog, model: &InstalledModel, limits: SlotLimits) -> Self {
        let problems = catalog.problems().iter();
        let own = problems.filter(|found| model.has_file(&found.path));
        Self {
            models: vec![ListedModel {
                adapters: ListedAdapter::of_each(catalog, model),
                ..ListedModel::of(model, limits)
            }],
            problems: own.map(ListedProblem::of).collect(),
        }
    }

    pub fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    /// Line by line what the table has in columns, and more.
    pub fn in_detail(&self) -> String {
        let mut lines: Vec<(&str, String)> = Vec::new();
        for model in &self.models {
            let cells = model.cells().into_iter();
            lines.extend(HEADINGS.into_iter().zip(cells));
            lines.push(("PATH", model.path.clone()));
            lines.push(("BYTES", model.size_bytes.to_string()));
            lines.push(("SLOTS FROM", model.slots.to_string()));
            for (heading, text) in model.source.iter().flat_map(sources) {
                lines.extend(text.clone().map(|text| (heading, text)));
            }
            for bytes in &model.shared_prefixes {
                lines.push(("PREFIX", format!("{bytes} bytes that all keys share")));
            }
            for ListedPrompt { name, bytes } in &model.pinned_prompts {
                lines.push(("PINNED", format!("{name}, {bytes} bytes")));
            }
            let adapters = model.adapters.iter();
            lines.extend(adapters.map(|adapter| ("ADAPTER", adapter.id.clone())));
            lines.extend(model.notes.iter().map(|note| ("NOTE", note.clone())));
        }
        for ListedProblem { path, problem } in &self.problems {
            lines.push(("PROBLEM", format!("{path}: {problem}")));
        }
        lines.retain(|(_, text)| !text.is_empty());
        let width = lines.iter().map(|(heading, _)| heading.len()).max();
        let width = width.unwrap_or(0);
        lines
            .iter()
            .map(|(heading, text)| format!("{heading:width$}  {}\n", printable(text)))
            .collect()
    }
}

/// What is told of where a model comes from, by its headings.
fn sources(source: &ModelSource) -> [(&'static str, &Option<String>); 8] {
    [
        ("HUB", &source.endpoint),
        ("REPOSITORY", &source.repository),
        ("REVISION", &source.revision),
        ("COMMIT", &source.commit),
        ("FILE", &source.file),
        ("SHA256", &source.sha256),
        ("LICENCE", &source.licence),
        ("TOKENIZER FROM", &source.tokenizer),
    ]
}

const HEADINGS: [&str; 10] = [
    "ID",
    "KIND",
    "SIZE",
    "CONTEXT",
    "SLOTS",
    "CHAT TEMPLATE",
    "THOUGHTS BY",
    "CALLS BY",
    "FORMATS",
    "ALIASES",
];

impl ListedModel {
    fn cells(&self) -> [String; 10] {
        let kind = match self.kind {
            ModelKind::Rkllm => "rkllm",
            ModelKind::Gguf => "gguf",
        };
        let context = match (self.context_length, self.context_limit) {
            (Some(length), Some(limit)) => format!("{length} of {limit}"),
            (Some(length), None) => length.to_string(),
            (None, Some(limit)) => format!("default of {limit}"),
            (None, None) => "default".to_owned(),
        };
        let SlotPlan {
            slots, parallel, ..
        } = self.slots;
        let slots = match slots < parallel {
            true => format!("{slots} of {parallel}"),
            false => slots.to_string(),
        };
        let template = match &self.template {
            Some(template) if template.usable => template.source.to_string(),
            Some(template) => format!("{}, broken", template.source),
            None => "none".to_owned(),
        };
        let (thoughts, calls) = match &self.replies {
            Some(replies) => (replies.thoughts.clone(), replies.calls.clone()),
            None => ("none".to_owned(), "none".to_owned()),
        };
        [
            self.id.clone(),
            kind.to_owned(),
            readable_size(self.size_bytes),
            context,
            slots,
            template,
            thoughts,
            calls,
            if self.keeps_formats { "kept" } else { "none" }.to_owned(),
            self.aliases.join(", "),
        ]
        .map(|cell| printable(&cell).into_owned())
    }
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.models.is_empty() {
            writeln!(f, "No model is installed.")?;
        } else {
            let mut rows = vec![HEADINGS.map(str::to_owned)];
            rows.extend(self.models.iter().map(ListedModel::cells));
            write_table(f, &rows)?;
        }
        for model in self.models.iter().filter(|it| it.slots.parallel > 1) {
            writeln!(f, "slots: {}: {}", printable(&model.id), model.slots)?;
        }
        for model in &self.models {
            for bytes in &model.shared_prefixes {
                let id = printable(&model.id);
                writeln!(f, "prefix: {id}: {bytes} bytes that all keys share")?;
            }
            for ListedPrompt { name, bytes } in &model.pinned_prompts {
                let (id, name) = (printable(&model.id), printable(name));
                writeln!(f, "pinned: {id}: {name}, {bytes} bytes")?;
            }
            for adapter in &model.adapters {
                let (id, size) = (printable(&adapter.id), readable_size(adapter.size_bytes));
                let usable = match adapter.problem {
                    Some(_) => "cannot be used",
                    None => size.as_str(),
                };
                writeln!(f, "adapter: {id}: {usable}, scale {}", adapter.scale)?;
            }
            if let Some(source) = &model.source {
                let (id, line) = (printable(&model.id), source.line());
                writeln!(f, "source: {id}: {}", printable(&line))?;
            }
            for note in &model.notes {
                writeln!(f, "note: {}: {}", printable(&model.id), printable(note))?;
            }
        }
        for found in &self.problems {
            let (path, problem) = (printable(&found.path), printable(&found.problem));
            writeln!(f, "problem: {path}: {problem}")?;
        }
        Ok(())
    }
}

fn write_table<const N: usize>(f: &mut fmt::Formatter<'_>, rows: &[[String; N]]) -> fmt::Result {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}

/// For people.
pub fn readable_size(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..1024 => return format!("{bytes} B"),
        1024..1_048_576 => (1024.0, "KiB"),
        1_048_576..1_073_741_824 => (1_048_576.0, "MiB"),
        _ => (1_073_741_824.0, "GiB"),
    };
    format!("{:.1} {name}", bytes as f64 / unit)
}
