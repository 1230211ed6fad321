//! One pull, from a name to a model in its place. Blocking: its caller has nothing else to do.

use std::collections::BTreeSet;
use std::fs::File;

use ureq::http::HeaderMap;

use super::client::{Client, FileAddress};
use super::fetch::{Fetch, Known};
use super::manifest::{self, Source};
use super::plan::{Plan, Wanted};
use super::staging::{Staging, target};
use super::{Board, Hash, Job, Listing, PullError, Pulled, Reference, Told, choose, part};
use crate::models::LATEST;
use crate::printable::printable;
use crate::reader::{ModelKind, check_name};

/// Brings a model. `tell` hears how it goes.
///
/// # Errors
///
/// It is not there then; what has come of it is kept for the next pull.
pub fn pull(job: &Job, tell: &mut dyn FnMut(Told)) -> Result<Pulled, PullError> {
    let reference = Reference::parse(&job.asked)?;
    let client = Client::new(&job.hub)?;
    tell(Told::Asking);
    let repository = reference.repository();
    let listing = client.listing(&repository, &reference.revision)?;
    let board = Board::own(&job.npu_library.to_path());
    let chosen = choose(&reference, &listing, &board, job.force)?;
    tell(Told::Chosen {
        file: chosen.path.clone(),
    });
    let mut plan = Plan::of(&reference, &listing, chosen, job.name.as_deref())?;
    let models = job.models.to_path();
    let target = target(&models, &plan.publisher, &plan.folder);
    if target.symlink_metadata().is_ok() {
        return there_before(&plan, &target);
    }
    let mut notes = Vec::new();
    let tokenizer = complete_from_base(&client, &mut plan, &listing, &mut notes);
    let files = known(&client, &plan)?;
    let staging = Staging::begin(&models, &plan.publisher, &plan.folder)?;
    let names = files.iter().flat_map(|file| {
        let name = file.wanted.name.clone();
        [name, part::name_of(&file.hash)]
    });
    staging.keep_only(&names.collect::<BTreeSet<_>>())?;
    let needed = files.iter().map(|file| file.left(&staging)).sum();
    staging.check_room(needed, &job.hub)?;
    let mut fetch = Fetch {
        client: &client,
        staging: &staging,
        tell: &mut *tell,
    };
    let mut sha256 = String::new();
    for file in &files {
        // The model's is the last.
        sha256 = fetch.bring(file)?;
    }
    let source = Source {
        endpoint: job.hub.endpoint.clone(),
        repository,
        revision: reference.revision.clone(),
        commit: listing.commit.clone(),
        file: plan.model.path.clone(),
        sha256,
        licence: listing
            .licence
            .as_deref()
            .map(|it| printable(it).into_owned()),
        tokenizer,
    };
    let id = plan.id();
    let text = manifest::text(aliases(&job.asked, &id), &source)?;
    staging.write(manifest::NAME, text.as_bytes())?;
    tell(Told::Installing);
    let folder = staging.install()?;
    Ok(Pulled {
        id,
        folder: folder.display().to_string(),
        was_there: false,
        notes,
    })
}

/// A name that its client will ask again by.
fn aliases<'a>(asked: &'a str, id: &str) -> Vec<&'a str> {
    let asked = asked.strip_suffix(LATEST).unwrap_or(asked);
    let is_new = !asked.eq_ignore_ascii_case(id) && check_name(asked).is_ok();
    is_new.then_some(asked).into_iter().collect()
}

/// What is where the model is to be: the same one, or another.
fn there_before(plan: &Plan, folder: &std::path::Path) -> Result<Pulled, PullError> {
    let is_same = manifest::source_of(folder).is_some_and(|source| {
        let is_that = source.repository == plan.model.repository && source.file == plan.model.path;
        let sha256 = plan.model.hash.map(|hash| hash.hex());
        let is_unchanged = source.commit == plan.model.commit || sha256 == Some(source.sha256);
        is_that && is_unchanged && folder.join(&plan.model.name).exists()
    });
    if is_same && let Some(publisher) = folder.parent() {
        // The pull that has installed it may have been killed before this, which harms nothing where it cannot be done.
        let _ = File::open(publisher).and_then(|folder| folder.sync_all());
    }
    let folder = folder.display().to_string();
    match is_same {
        false => Err(PullError::Exists { path: folder }),
        true => Ok(Pulled {
            id: plan.id(),
            folder,
            was_there: true,
            notes: Vec::new(),
        }),
    }
}

/// Takes what the repository lacks of the one that it was made of. A `.gguf` file has all of it in itself.
/// Returns that repository where it gave something.
fn complete_from_base(
    client: &Client,
    plan: &mut Plan,
    listing: &Listing,
    notes: &mut Vec<String>,
) -> Option<String> {
    let base = listing.base_model.as_deref()?;
    if plan.kind == ModelKind::Gguf || plan.lacks().is_empty() {
        return None;
    }
    let lacking = plan.lacks().join(", ");
    let found = Reference::parse(base).and_then(|base| {
        let repository = base.repository();
        let listing = client.listing(&repository, &base.revision)?;
        Ok((repository, listing))
    });
    match found {
        Ok((repository, listing)) => plan
            .add_companions(&repository, &listing)
            .then_some(repository),
        Err(error) => {
            let base = printable(base);
            notes.push(format!(
                "{lacking} could not be brought from {base}, which the model was made of: {error}"
            ));
            None
        }
    }
}

/// All files with their sizes and checksums, the model's last.
fn known<'a>(client: &Client, plan: &'a Plan) -> Result<Vec<Known<'a>>, PullError> {
    plan.files()
        .map(|wanted| known_file(client, wanted))
        .collect()
}

/// Where the listing does not tell, the file's own address may.
fn known_file<'a>(client: &Client, wanted: &'a Wanted) -> Result<Known<'a>, PullError> {
    let address = FileAddress {
        repository: &wanted.repository,
        commit: &wanted.commit,
        path: &wanted.path,
    };
    let (mut size, mut hash) = (wanted.size, wanted.hash);
    if size.is_none() || hash.is_none() {
        let told = client.told_of(&address)?;
        size = size.or_else(|| size_in(&told));
        hash = hash.or_else(|| hash_in(&told));
    }
    let no_hash = || PullError::NoHash {
        file: address.what(),
    };
    let no_size = || PullError::bad_answer(format!("it tells no size of {}", address.what()));
    let size = size.ok_or_else(no_size)?;
    if size == 0 && !wanted.is_companion() {
        let reason = format!("it says that {} is empty", address.what());
        return Err(PullError::bad_answer(reason));
    }
    // The file's own address may tell any number.
    if size > wanted.most_bytes() {
        let reason = format!("it says that {} has {size} bytes", address.what());
        return Err(PullError::bad_answer(reason));
    }
    Ok(Known {
        wanted,
        hash: hash.ok_or_else(no_hash)?,
        size,
    })
}

fn hash_in(told: &HeaderMap) -> Option<Hash> {
    let hash = |name: &str| Hash::parse(told.get(name)?.to_str().ok()?);
    hash("x-linked-etag").or_else(|| hash("etag"))
}

fn size_in(told: &HeaderMap) -> Option<u64> {
    let size = |name: &str| told.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    // Where a redirect answers, the length is that of its own text.
    size("x-linked-size").or_else(|| match told.contains_key("location") {
        true => None,
        false => size("content-length"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_by_another_name_finds_it_by_that() {
        assert_eq!(aliases("a/b", "a/b"), Vec::<&str>::new());
        assert_eq!(aliases("A/b:latest", "a/b"), Vec::<&str>::new());
        assert_eq!(aliases("hf.co/a/b:Q4_0", "a/b"), ["hf.co/a/b:Q4_0"]);
        assert_eq!(aliases(&"x".repeat(300), "a/b"), Vec::<&str>::new());
    }
}
