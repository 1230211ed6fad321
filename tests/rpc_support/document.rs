//! Parts of documents that tests write. `UPDATE_DOCS=1` writes them; otherwise a part that
//! differs from what was found fails its test.

use std::fs;
use std::path::Path;

/// Holds the part named `name` of the document at `path`, seen from the repository, to `found`.
pub fn check(path: &str, name: &str, found: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let document = fs::read_to_string(&file).expect("the document");
    let begin = format!("<!-- {name}: written by a test -->\n");
    let end = format!("<!-- end of {name} -->");
    let start = document.find(&begin).expect("the part's begin") + begin.len();
    let stop = start + document[start..].find(&end).expect("the part's end");
    let written = &document[start..stop];
    if written.trim() == found.trim() {
        return;
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let updated = format!(
            "{}\n{}\n\n{}",
            &document[..start],
            found.trim(),
            &document[stop..]
        );
        fs::write(&file, updated).expect("the document is written");
        return;
    }
    panic!(
        "{path} is not what the daemon does; UPDATE_DOCS=1 and this test write it.\n\
         --- documented\n{written}\n--- found\n{found}"
    );
}
