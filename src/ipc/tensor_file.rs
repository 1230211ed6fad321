//! Large tensors travel as sealed memory files beside their frame: the worker writes one, passes its
//! descriptor and forgets it; the daemon checks that it cannot be changed, and reads it a part at a time
//! as it goes on to a client.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags};
use zerocopy::IntoBytes;

use crate::library_calls::{Counted, MemoryFile, TensorValues};

/// A tensor file that is not what its event says.
#[derive(Debug, thiserror::Error)]
pub enum TensorFileError {
    #[error("a tensor of {expected} bytes came as a file of {actual}")]
    Size { expected: u64, actual: u64 },
    #[error("a tensor came in a file that can still be changed")]
    NotSealed,
    #[error("reading a tensor: {0}")]
    Io(#[from] io::Error),
}

/// Copies `values` into a new memory file that cannot be changed any more.
pub fn write_tensor(values: &[f32]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create("rkllm-tensor", flags)?);
    file.write_all(values.as_bytes())?;
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(file.into())
}

/// A tensor of so many values, of which nothing is read yet. `counted` goes with its file.
pub fn open_tensor(
    file: OwnedFd,
    values: usize,
    counted: Option<Box<dyn Counted>>,
) -> Result<TensorValues, TensorFileError> {
    let seals = rustix::fs::fcntl_get_seals(&file).map_err(io::Error::from)?;
    if !seals.contains(SealFlags::SHRINK | SealFlags::WRITE) {
        return Err(TensorFileError::NotSealed);
    }
    let file = File::from(file);
    let expected = (values as u64).saturating_mul(size_of::<f32>() as u64);
    let actual = file.metadata()?.len();
    if actual != expected {
        return Err(TensorFileError::Size { expected, actual });
    }
    let file = Arc::new(MemoryFile::new(file, counted));
    Ok(TensorValues::InFile { file, values })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let values: Vec<f32> = (0..100_000).map(|n| n as f32 / 7.0).collect();
        let file = write_tensor(&values).unwrap();
        let tensor = open_tensor(file, values.len(), None).unwrap();
        assert_eq!(tensor.to_vec().unwrap(), values);
        let mut part = [0.0; 10];
        tensor.read(99_990, &mut part).unwrap();
        assert_eq!(part, values[99_990..]);
        assert!(tensor.read(99_991, &mut part).is_err());
    }

    #[test]
    fn a_file_of_another_size_or_without_seals_is_refused() {
        let file = write_tensor(&[1.0, 2.0]).unwrap();
        let error = open_tensor(file, 3, None).unwrap_err();
        assert!(matches!(
            error,
            TensorFileError::Size {
                expected: 12,
                actual: 8
            }
        ));
        let open = rustix::fs::memfd_create("open", MemfdFlags::ALLOW_SEALING).unwrap();
        let error = open_tensor(open, 0, None).unwrap_err();
        assert!(matches!(error, TensorFileError::NotSealed));
    }

    #[test]
    fn the_writer_cannot_change_it_either() {
        let mut file = File::from(write_tensor(&[1.0]).unwrap());
        assert!(file.write_all(b"more").is_err());
        assert!(file.set_len(0).is_err());
        let mut rest = Vec::new();
        assert_eq!(file.read_to_end(&mut rest).unwrap(), 0, "at its end");
    }
}
