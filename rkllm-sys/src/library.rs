//! An opened runtime library. It exists only after its version was read from its bytes, its
//! family chosen and its defaults probed, and it is never unloaded; the holder of one may call it
//! without knowing which family it is.

use crate::abi::extension::{RunExtensionSizeFn, TakesIdleSequencesFn};
use crate::default_params::DefaultParams;
use crate::error::{CallError, OpenError};
use crate::family::{self, Family};
use crate::handle::Handle;
use crate::init::{self, EffectiveSampling, InitParams};
use crate::library_file;
use crate::probe::{self, DefaultBytes, Disagreement};
use crate::run_extension::ExtensionVersion;
use crate::symbols::{self, Symbols};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How to open a library.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    /// The family to assume for a version that is in none. A version that is known keeps its own
    /// family whatever this says.
    pub assume_family: Option<Family>,
}

/// A runtime library, loaded and probed.
pub struct Library {
    path: PathBuf,
    version: String,
    family: Family,
    defaults: DefaultBytes,
    symbols: Symbols,
}

impl Library {
    /// Opens the library at `path`: reads its version, checks that the file is whole and for this
    /// architecture, loads it, resolves its functions and probes its defaults.
    ///
    /// The library's code runs from here on in this process, and what is loaded stays loaded,
    /// also when it is then refused.
    ///
    /// # Errors
    /// See [`OpenError`]; every one names the file, what was found and what to do.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Library, OpenError> {
        let path = path.as_ref();
        let version = library_file::library_version(path, library_file::Architecture::OWN)?;
        let family = choose_family(path, &version, options)?;
        let symbols = symbols::load(path, &version, family)?;
        // SAFETY: the function is the library's rkllm_createDefaultParam, resolved by that name.
        let defaults =
            unsafe { probe::probe(symbols.create_default_param, family) }.map_err(|found| {
                match found {
                    Disagreement::WrittenPastTheEnd { byte } => OpenError::ProbeOverrun {
                        path: path.to_owned(),
                        version: version.clone(),
                        family,
                        expected_bytes: family.param_size(),
                        written_byte: byte,
                    },
                    Disagreement::Field { field, value } => OpenError::ProbeField {
                        path: path.to_owned(),
                        version: version.clone(),
                        family,
                        field,
                        value,
                    },
                }
            })?;
        Ok(Library {
            path: path.to_owned(),
            version,
            family,
            defaults,
            symbols,
        })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The version the file carries, for instance `1.2.3`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The family it is called as.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Whether a process may have several handles of it: since 1.2.2 (docs/vendor-library.md §2).
    pub fn holds_several_handles(&self) -> bool {
        !self.version.starts_with("1.2.1")
    }

    /// How much of a [`RunExtension`](crate::RunExtension) runs may have: this project's CPU runtime takes
    /// one, no library of the vendor does.
    pub fn extension_version(&self) -> ExtensionVersion {
        // SAFETY: it takes nothing, and returns a number.
        let size = |function: RunExtensionSizeFn| unsafe { function() };
        match self.symbols.set_run_extension {
            None => ExtensionVersion::None,
            Some(_) => ExtensionVersion::of_size(self.symbols.run_extension_size.map(size)),
        }
    }

    /// Whether a sequence of a run may be given [`RunInput::Nothing`](crate::RunInput::Nothing): this project's
    /// CPU runtime says so, no library of the vendor does.
    pub fn takes_idle_sequences(&self) -> bool {
        // SAFETY: it takes nothing, and returns a number.
        let says = |function: TakesIdleSequencesFn| unsafe { function() } != 0;
        self.symbols.takes_idle_sequences.is_some_and(says)
    }

    /// The library's own defaults.
    pub fn default_params(&self) -> DefaultParams {
        DefaultParams::of(&self.defaults, self.family)
    }

    /// Loads a model (`rkllm_init`). Blocks for as long as that takes: seconds to a minute on a
    /// board.
    ///
    /// # Errors
    /// [`CallError::Failed`] with the library's code, [`CallError::NoHandle`] when it reports
    /// success and has none, [`CallError::InteriorNul`] for a path that is no C string,
    /// [`CallError::OutOfRange`] for a value that is refused before the library sees it.
    pub fn init(self: &Arc<Self>, params: &InitParams) -> Result<Handle, CallError> {
        let raw = init::init(self, params)?;
        let sampling = EffectiveSampling::at_init(&self.default_params(), &params.sampling);
        // SAFETY: the handle was just returned by this library's rkllm_init and nothing else has
        // it.
        Ok(unsafe { Handle::new(Arc::clone(self), raw, sampling, params.sequences()) })
    }

    pub(crate) fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    pub(crate) fn defaults(&self) -> &DefaultBytes {
        &self.defaults
    }

    /// `Ok` for the return code 0.
    pub(crate) fn succeeded(&self, function: &'static str, code: i32) -> Result<(), CallError> {
        if code == 0 {
            return Ok(());
        }
        Err(CallError::Failed {
            function,
            code,
            version: self.version.clone(),
        })
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Library")
            .field("path", &self.path)
            .field("version", &self.version)
            .field("family", &self.family)
            .finish_non_exhaustive()
    }
}

fn choose_family(path: &Path, version: &str, options: &OpenOptions) -> Result<Family, OpenError> {
    let too_old = |family| OpenError::TooOld {
        path: path.to_owned(),
        version: version.to_owned(),
        family,
    };
    if let Some(family) = Family::of_version(version) {
        return if family.is_run() {
            Ok(family)
        } else {
            Err(too_old(Some(family)))
        };
    }
    if family::predates_all_families(version) {
        return Err(too_old(None));
    }
    match options.assume_family {
        Some(family) if family.is_run() => Ok(family),
        Some(family) => Err(OpenError::AssumedFamilyTooOld {
            path: path.to_owned(),
            family,
        }),
        None => Err(OpenError::UnknownVersion {
            path: path.to_owned(),
            version: version.to_owned(),
        }),
    }
}
