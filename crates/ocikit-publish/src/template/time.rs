//! Times in Go's layouts, in UTC.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// The elements of Go's layouts, the longest first where one begins with another.
const ELEMENTS: [&str; 30] = [
    "January", "Jan", "Monday", "Mon", "MST", "2006", "002", "01", "02", "03", "04", "05", "06", "15", "1", "2", "_2",
    "3", "4", "5", "PM", "pm", "Z07:00", "Z0700", "Z07", "-07:00", "-0700", "-07", ".000", ".000000",
];

/// Formats a time by a layout of Go's package `time`.
pub(super) fn format(time: Timestamp, layout: &str) -> String {
    let zoned = time.to_zoned(TimeZone::UTC);
    let mut formatted = String::new();
    let mut rest = layout;
    while let Some(letter) = rest.chars().next() {
        match ELEMENTS.iter().filter(|element| rest.starts_with(**element)).max_by_key(|element| element.len()) {
            Some(element) => {
                formatted.push_str(&part(&zoned, element));
                rest = &rest[element.len()..];
            }
            None => {
                formatted.push(letter);
                rest = &rest[letter.len_utf8()..];
            }
        }
    }
    formatted
}

fn part(time: &Zoned, element: &str) -> String {
    let named = |format: &str| time.strftime(format).to_string();
    match element {
        "January" => named("%B"),
        "Jan" => named("%b"),
        "Monday" => named("%A"),
        "Mon" => named("%a"),
        "MST" => "UTC".to_owned(),
        "2006" => format!("{:04}", time.year()),
        "06" => format!("{:02}", time.year() % 100),
        "002" => format!("{:03}", time.day_of_year()),
        "01" => format!("{:02}", time.month()),
        "1" => time.month().to_string(),
        "02" => format!("{:02}", time.day()),
        "_2" => format!("{:2}", time.day()),
        "2" => time.day().to_string(),
        "15" => format!("{:02}", time.hour()),
        "03" => named("%I"),
        "3" => named("%-I"),
        "04" => format!("{:02}", time.minute()),
        "4" => time.minute().to_string(),
        "05" => format!("{:02}", time.second()),
        "5" => time.second().to_string(),
        "PM" => if time.hour() < 12 { "AM" } else { "PM" }.to_owned(),
        "pm" => if time.hour() < 12 { "am" } else { "pm" }.to_owned(),
        ".000" => format!(".{:03}", time.subsec_nanosecond() / 1_000_000),
        ".000000" => format!(".{:06}", time.subsec_nanosecond() / 1000),
        "-07:00" => "+00:00".to_owned(),
        "-0700" => "+0000".to_owned(),
        "-07" => "+00".to_owned(),
        // The elements that begin with `Z`.
        _ => "Z".to_owned(),
    }
}
