//! Large tensors travel as sealed memory files beside their frame: the worker writes one, passes its
//! descriptor and forgets it; the daemon reads it once it has checked that nobody can change it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags};
use zerocopy::IntoBytes;

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

/// Reads a tensor of so many values.
pub fn read_tensor(file: OwnedFd, values: usize) -> Result<Vec<f32>, TensorFileError> {
    use std::os::unix::fs::FileExt;
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
    let mut data = vec![0_f32; values];
    // From its beginning, wherever the writer's position is: the two share one.
    file.read_exact_at(data.as_mut_bytes(), 0)?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let values: Vec<f32> = (0..100_000).map(|n| n as f32 / 7.0).collect();
        let file = write_tensor(&values).unwrap();
        assert_eq!(read_tensor(file, values.len()).unwrap(), values);
    }

    #[test]
    fn a_file_of_another_size_or_without_seals_is_refused() {
        let file = write_tensor(&[1.0, 2.0]).unwrap();
        let error = read_tensor(file, 3).unwrap_err();
        assert!(matches!(
            error,
            TensorFileError::Size {
                expected: 12,
                actual: 8
            }
        ));
        let open = rustix::fs::memfd_create("open", MemfdFlags::ALLOW_SEALING).unwrap();
        let error = read_tensor(open, 0).unwrap_err();
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
