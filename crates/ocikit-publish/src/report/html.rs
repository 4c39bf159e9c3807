use std::fmt::Write as _;

use super::model::{CountReport, Report, Status, TargetReport};

impl Report {
    /// Returns a page that shows what was published and where the bytes went. It needs no other file.
    pub fn html(&self) -> String {
        document(&self.image, self.status, |page| body(page, self))
    }
}

/// Without scripts and without anything from elsewhere.
const STYLE: &str = "\
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
code{font:14px ui-monospace,monospace;overflow-wrap:anywhere}table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.3rem .6rem .3rem 0;border-bottom:1px solid #ddd;vertical-align:top}
.ok{color:#0a6b2d}.bad{color:#a40000;font-weight:600}.muted{color:#666}svg{width:100%;height:2rem;display:block}
@media(prefers-color-scheme:dark){body{color:#eee;background:#16181c}td,th{border-color:#444}.ok{color:#6fd08c}
.bad{color:#ff8a8a}.muted{color:#aaa}}";

/// The colours of uploaded, mounted and present bytes.
const COLOURS: [(&str, &str); 3] = [("uploaded", "#2f6fde"), ("mounted", "#8d5fd3"), ("already there", "#9aa3ad")];

/// Returns a page with a heading and a body.
pub(crate) fn document(name: &str, status: Status, body: impl FnOnce(&mut String)) -> String {
    let mut page = String::new();
    let title = format!("{name} {}", status.word());
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{}</title><style>{STYLE}</style></head><body>\n",
        text(&title)
    );
    let class = if status == Status::Succeeded { "ok" } else { "bad" };
    let _ = writeln!(page, "<h1>{} <span class=\"{class}\">{}</span></h1>", text(name), status.word());
    body(&mut page);
    page.push_str("</body></html>\n");
    page
}

/// Writes what was published and where the bytes went.
pub(crate) fn body(page: &mut String, report: &Report) {
    let _ = writeln!(
        page,
        "<p><code>{}</code><br>{} event, {}, {}<br>{:.1} s, {}</p>",
        report.digest,
        report.event,
        text(&report.platforms.join(", ")),
        text(&report.signing),
        report.seconds,
        text(&report.finished),
    );
    let most = report.targets.iter().map(TargetReport::bytes).max().unwrap_or_default().max(1);
    page.push_str("<h2>Where the bytes went</h2>\n");
    legend(page);
    for target in &report.targets {
        bar(page, target, most);
    }
    page.push_str("<h2>Tags</h2>\n");
    for target in &report.targets {
        tags(page, target);
    }
    lazy_images(page, report);
}

impl TargetReport {
    fn counts(&self) -> [CountReport; 3] {
        [self.uploaded, self.mounted, self.present]
    }

    fn bytes(&self) -> u64 {
        self.counts().iter().fold(0_u64, |sum, count| sum.saturating_add(count.bytes))
    }
}

fn legend(page: &mut String) {
    page.push_str("<p class=\"muted\">");
    for (name, colour) in COLOURS {
        let _ = write!(
            page,
            "<svg style=\"display:inline-block;width:.8em;height:.8em\"><rect width=\"100%\" height=\"100%\" \
             fill=\"{colour}\"/></svg> {name} &nbsp; "
        );
    }
    page.push_str("</p>\n");
}

/// Draws the bytes of a repository; the width of the page is those of the largest.
fn bar(page: &mut String, target: &TargetReport, most: u64) {
    let _ = write!(
        page,
        "<p><code>{}</code></p>\n<svg viewBox=\"0 0 1000 20\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"{} bytes\">",
        text(&target.repository),
        target.bytes()
    );
    let mut left = 0.0;
    for (count, (name, colour)) in target.counts().into_iter().zip(COLOURS) {
        let width = count.bytes as f64 / most as f64 * 1000.0;
        if width > 0.0 {
            let _ = write!(
                page,
                "<rect x=\"{left:.2}\" width=\"{width:.2}\" height=\"20\" fill=\"{colour}\"><title>{name}: {} blobs, {} \
                 bytes</title></rect>",
                count.blobs, count.bytes
            );
        }
        left += width;
    }
    page.push_str("</svg>\n<p class=\"muted\">");
    let words = target.counts().into_iter().zip(COLOURS);
    let words: Vec<_> =
        words.map(|(count, (name, _))| format!("{} blobs ({} bytes) {name}", count.blobs, count.bytes)).collect();
    let (stored, finished) = (target.stored_seconds, target.seconds);
    let _ = writeln!(page, "{}; stored after {stored:.1} s, finished after {finished:.1} s</p>", words.join(", "));
}

fn tags(page: &mut String, target: &TargetReport) {
    let _ = writeln!(page, "<h3><code>{}</code></h3>\n<table><tr><th>Tag<th>State<th>Reason</tr>", text(&target.read));
    for tag in &target.tags {
        let class = if tag.state == "verified" { "ok" } else { "bad" };
        let problem = tag.problem.as_ref().map(|problem| format!(": {}", text(problem))).unwrap_or_default();
        let _ = writeln!(
            page,
            "<tr><td><code>{}</code><td class=\"{class}\">{}{problem}<td>{}</tr>",
            text(&tag.tag),
            tag.state,
            tag.because
        );
    }
    for skipped in &target.skipped {
        let (tag, reason) = (text(&skipped.tag), text(&skipped.reason));
        let _ = writeln!(page, "<tr class=\"muted\"><td><code>{tag}</code><td>not used<td>{reason}</tr>");
    }
    page.push_str("</table>\n");
    for (what, made) in [("Signatures", &target.signatures), ("Attestations", &target.attestations)] {
        if !made.is_empty() {
            let names: Vec<_> = made.iter().map(|digest| format!("<code>{digest}</code>")).collect();
            let _ = writeln!(page, "<p>{what}: {}</p>", names.join(", "));
        }
    }
    if let Some(problem) = &target.statement_problem {
        let _ = writeln!(page, "<p class=\"bad\">No statement about the publication: {}</p>", text(problem));
    }
}

/// Lists the lazily pulled images.
fn lazy_images(page: &mut String, report: &Report) {
    if report.lazy.is_empty() {
        return;
    }
    page.push_str("<h2>Lazily pulled images</h2>\n<table><tr><th>Format<th>Place<th>References</tr>");
    for lazy in &report.lazy {
        let references: Vec<_> =
            lazy.references.iter().map(|reference| format!("<code>{}</code>", text(reference))).collect();
        let problem =
            lazy.problem.as_ref().map(|problem| format!("<span class=\"bad\">missing: {}</span>", text(problem)));
        let _ = writeln!(
            page,
            "<tr><td>{}<td>{}<td>{}{}</tr>",
            lazy.format,
            lazy.placement,
            references.join("<br>"),
            problem.unwrap_or_default()
        );
    }
    page.push_str("</table>\n");
}

/// Escapes a text.
pub(crate) fn text(text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    escaped.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}
