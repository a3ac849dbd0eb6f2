//! The two forms of text that metrics are told in, and which of them somebody asks for. Pure.
//!
//! The library that writes them knows OpenMetrics. The older form, which everything reads that is no recent Prometheus, differs
//! in the header lines only, and is made of the first.

/// The media type of OpenMetrics.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The media type of the older form.
pub const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// In the older form a counter is called in its header as its samples are, an `info` is a gauge, and a unit is not told
/// apart (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
pub fn in_the_older_form(openmetrics: &str) -> String {
    let mut page = String::with_capacity(openmetrics.len());
    let mut help = "";
    for line in openmetrics.lines() {
        if let Some(named) = line.strip_prefix("# HELP ") {
            help = named;
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|typed| typed.split_once(' ')) {
            let text = help.strip_prefix(name).unwrap_or_default();
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            page.extend(["# HELP ", name, suffix, text, "\n# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            page.extend([line, "\n"]);
        }
    }
    page
}

/// Whether an `Accept` asks for OpenMetrics by name, and not less than for plain text (RFC 9110, section 12.5.1).
pub fn wants_openmetrics(accept: &str) -> bool {
    let weight = |media_type: &str| {
        let weights = accept.split(',').filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            parts.next().filter(|named| named.eq_ignore_ascii_case(media_type))?;
            let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            Some(weight.map_or(1.0, |weight| weight.parse::<f32>().unwrap_or(0.0)))
        });
        weights.fold(0.0, f32::max)
    };
    let openmetrics = weight("application/openmetrics-text");
    openmetrics > 0.0 && openmetrics >= weight("text/plain")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        for (accept, wants) in [
            ("", false),
            ("*/*", false),
            ("text/plain", false),
            ("application/openmetrics-text", true),
            ("application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.1", true),
            ("application/openmetrics-text; version=1.0.0; q=0.2, text/plain; q=0.5", false),
            ("application/openmetrics-text;q=0", false),
            ("Application/OpenMetrics-Text;Q=0.9, text/html", true),
        ] {
            assert_eq!(wants_openmetrics(accept), wants, "{accept}");
        }
    }

    #[test]
    fn the_older_form_has_other_headers_and_the_same_samples() {
        let openmetrics = "# HELP a A.\n# TYPE a counter\na_total{b=\"c\"} 1\n# HELP d_seconds D.\n# TYPE d_seconds gauge\n\
                           # UNIT d_seconds seconds\nd_seconds 2\n# EOF\n";
        let older = "# HELP a_total A.\n# TYPE a_total counter\na_total{b=\"c\"} 1\n# HELP d_seconds D.\n\
                     # TYPE d_seconds gauge\nd_seconds 2\n";
        assert_eq!(in_the_older_form(openmetrics), older);
    }
}
