//! Why the models folder could not be listed, and what to do about it.

use std::io;
use std::path::Path;

/// What was attempted, on what, and what helps.
pub fn unlisted(folder: &Path, error: &io::Error) -> String {
    let said = format!("reading the models folder {}: {error}", folder.display());
    let advice = match error.kind() {
        io::ErrorKind::NotFound => "make it, or name another one with `models.dir` (`--models`)",
        io::ErrorKind::PermissionDenied => "the user who runs this has to be allowed to list it",
        io::ErrorKind::NotADirectory => {
            "name the folder that models lie in with `models.dir` (`--models`), not a model"
        }
        _ => return said,
    };
    format!("{said}; {advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_advice_beside_the_systems_own_words() {
        let folder = Path::new("/m");
        for (code, advice) in [
            (
                2,
                "; make it, or name another one with `models.dir` (`--models`)",
            ),
            (13, "; the user who runs this has to be allowed to list it"),
            (
                20,
                "; name the folder that models lie in with `models.dir` (`--models`), not a model",
            ),
            (5, ""),
        ] {
            let error = io::Error::from_raw_os_error(code);
            let expected = format!("reading the models folder /m: {error}{advice}");
            assert_eq!(unlisted(folder, &error), expected);
        }
    }
}
