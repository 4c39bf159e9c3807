//! The methods of Go's type `time.Time` that have a plain result, in UTC.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::error::TemplateProblem;
use super::time::format;
use super::value::Value;

pub(super) fn method(time: Timestamp, name: &str, arguments: &[Value]) -> Result<Value, TemplateProblem> {
    let zoned = time.to_zoned(TimeZone::UTC);
    let number = |number: i64| Ok(Value::Number(number));
    match (name, arguments) {
        ("Format", [Value::Text(layout)]) => Ok(Value::Text(format(time, layout))),
        ("UTC", []) => Ok(Value::Time(time)),
        ("Unix", []) => number(time.as_second()),
        ("Year", []) => number(zoned.year().into()),
        ("YearDay", []) => number(zoned.day_of_year().into()),
        ("Day", []) => number(zoned.day().into()),
        ("Hour", []) => number(zoned.hour().into()),
        ("Minute", []) => number(zoned.minute().into()),
        ("Second", []) => number(zoned.second().into()),
        ("Format" | "UTC" | "Unix" | "Year" | "YearDay" | "Day" | "Hour" | "Minute" | "Second", _) => {
            let problem = if name == "Format" { "needs a layout" } else { "takes no arguments" };
            Err(TemplateProblem::Arguments { function: format!(".{name}"), problem: problem.to_owned() })
        }
        _ => Err(TemplateProblem::NoField(name.to_owned())),
    }
}
