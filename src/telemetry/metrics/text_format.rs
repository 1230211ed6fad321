//! Prometheus' own text format, version 0.0.4, made from the OpenMetrics page: scrapers that know only
//! that one find the names and types they expect.
//!
//! What differs: a counter's family carries the `_total` of its samples and an info's the `_info`, which
//! is a gauge; units have no line, quotes in a help text are not escaped, and there is no end mark.
//! Exemplars and times would differ as well; no page here has them.

/// The page in the other format.
pub(super) fn of(open_metrics: &str) -> String {
    let mut page = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(text) = line.strip_prefix("# HELP ") {
            help = text.split_once(' ');
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|text| text.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                _ => ("", kind),
            };
            if let Some((_, text)) = help.take().filter(|(of, _)| *of == name) {
                let text = text.replace("\\\"", "\"");
                page.push_str(&format!("# HELP {name}{suffix} {text}\n"));
            }
            page.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            page.push_str(line);
            page.push('\n');
        }
    }
    page
}
