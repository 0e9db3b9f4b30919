//! The two text forms in which metrics are read, and which a reader wants.

use std::fmt::{self, Write};

/// A text form of metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// [OpenMetrics](https://prometheus.io/docs/specs/om/open_metrics_spec/) 1.0.
    OpenMetrics,
    /// [Prometheus' own](https://prometheus.io/docs/instrumenting/exposition_formats/), 0.0.4.
    Prometheus,
}

impl Form {
    /// Its content type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Form::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Form::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// The one that an `Accept` header prefers (RFC 9110, 12.5.1). Who has no preference gets the form that every reader knows.
    #[must_use]
    pub fn preferred(accept: &str) -> Form {
        let mut best = [0_u32; 2];
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let form = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                "application/openmetrics-text" => 0,
                "text/plain" | "text/*" | "*/*" => 1,
                _ => continue,
            };
            let mut weight = 1000;
            for parameter in parts {
                match parameter.split_once('=') {
                    Some(("q" | "Q", value)) => weight = thousandths(value.trim()),
                    // Of another version we can make nothing.
                    Some(("version", version)) if form == 0 && !matches!(version.trim(), "1.0.0" | "0.0.1") => {
                        weight = 0;
                    }
                    _ => {}
                }
            }
            best[form] = best[form].max(weight);
        }
        if best[0] > 0 && best[0] >= best[1] { Form::OpenMetrics } else { Form::Prometheus }
    }
}

/// A weight as of `q=0.5`; none for what is not one.
fn thousandths(weight: &str) -> u32 {
    let value = weight.parse::<f32>().unwrap_or(0.0).clamp(0.0, 1.0);
    (value * 1000.0) as u32
}

/// What is written as OpenMetrics, as Prometheus' own form: there a counter's family has the name of its samples, and infos are gauges.
///
/// # Errors
/// None in practice: it is written to memory.
pub(super) fn to_prometheus(open_metrics: &str) -> Result<String, fmt::Error> {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(of) = line.strip_prefix("# HELP ") {
            // Its family's type comes with the next line, and with that its name.
            help = of.split_once(' ').map(|(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|of| of.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            if let Some(help) = help.take() {
                writeln!(text, "# HELP {name}{suffix} {help}")?;
            }
            writeln!(text, "# TYPE {name}{suffix} {kind}")?;
        } else if !line.starts_with('#') {
            writeln!(text, "{line}")?;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_open_metrics_gets_it() {
        let prometheus_2_42 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for accept in
            [prometheus_2_42, prometheus_3, "application/openmetrics-text", "Application/OpenMetrics-Text; Q=0.2"]
        {
            assert_eq!(Form::preferred(accept), Form::OpenMetrics, "{accept}");
        }
    }

    #[test]
    fn who_does_not_gets_what_all_can_read() {
        for accept in [
            "",
            "*/*",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "text/plain, application/openmetrics-text;q=0.5",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=none",
            ",;q=;=,",
        ] {
            assert_eq!(Form::preferred(accept), Form::Prometheus, "{accept}");
        }
    }

    #[test]
    fn families_are_named_as_the_form_has_it() {
        let open_metrics = "# HELP a_bytes Bytes.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\na_bytes_total{x=\"# TYPE\"} 1\n\
            # TYPE b info\nb_info{v=\"1\"} 1\n# HELP c Some.\n# TYPE c gauge\nc 2\n# EOF\n";
        let prometheus = "# HELP a_bytes_total Bytes.\n# TYPE a_bytes_total counter\na_bytes_total{x=\"# TYPE\"} 1\n\
            # TYPE b_info gauge\nb_info{v=\"1\"} 1\n# HELP c Some.\n# TYPE c gauge\nc 2\n";
        assert_eq!(to_prometheus(open_metrics), Ok(prometheus.into()));
    }
}
