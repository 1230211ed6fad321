use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use zerocopy::IntoBytes as _;

/// The values of a tensor, row after row. Clones share them.
#[derive(Clone, Debug)]
pub enum TensorValues {
    Held(Arc<Vec<f32>>),
    /// In a sealed memory file, from which they are read a part at a time.
    InFile {
        file: Arc<MemoryFile>,
        values: usize,
    },
}

/// A memory file, and what counts its bytes as held until it is dropped.
#[derive(Debug)]
pub struct MemoryFile {
    file: File,
    _counted: Option<Box<dyn Counted>>,
}

/// Counts bytes until it is dropped.
pub trait Counted: fmt::Debug + Send + Sync {}

impl MemoryFile {
    pub fn new(file: File, counted: Option<Box<dyn Counted>>) -> Self {
        Self {
            file,
            _counted: counted,
        }
    }
}

impl TensorValues {
    pub fn len(&self) -> usize {
        match self {
            Self::Held(values) => values.len(),
            Self::InFile { values, .. } => *values,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies the values from `first` on; all of them must be there.
    pub fn read(&self, first: usize, into: &mut [f32]) -> io::Result<()> {
        match self {
            Self::Held(values) => {
                let held = values
                    .get(first..)
                    .and_then(|rest| rest.get(..into.len()))
                    .ok_or(io::ErrorKind::UnexpectedEof)?;
                into.copy_from_slice(held);
                Ok(())
            }
            // From its beginning, wherever the writer's position is: the two share one.
            Self::InFile { file, .. } => {
                let place = (first as u64).saturating_mul(size_of::<f32>() as u64);
                file.file.read_exact_at(into.as_mut_bytes(), place)
            }
        }
    }

    pub fn to_vec(&self) -> io::Result<Vec<f32>> {
        let mut values = vec![0.0; self.len()];
        self.read(0, &mut values)?;
        Ok(values)
    }
}

impl From<Vec<f32>> for TensorValues {
    fn from(values: Vec<f32>) -> Self {
        Self::Held(Arc::new(values))
    }
}
