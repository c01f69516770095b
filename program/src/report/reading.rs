//! Reports out of JSON: each form of [`super`] from a value, field by field.
//!
//! A derived reader is 10 KB of the program for each form, since such a reader also knows forms
//! without names, and fields in the order of their arrival. Here a field is a call.
//!
//! Contract: plain functions; the value is hostile. Fields without a meaning here are ignored, as
//! docs/status.md has it.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::{
    BucketReport, CaptureReport, ConnectionsReport, CountersReport, EndpointReport, EventReport,
    ExportReport, GaugeReport, HoldReport, Report, ServerReport, SessionReport, TurnaroundReport,
    WorkReport,
};

/// Why a text is not of the form.
#[derive(Debug)]
pub enum Unread {
    /// The text is no JSON.
    Json(serde_json::Error),
    /// A field is missing.
    Missing(&'static str),
    /// A field is not of its form.
    Wrong(&'static str),
    /// A word is none of the known words.
    Word(String),
}

impl std::error::Error for Unread {}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => write!(f, "{error}"),
            Self::Missing(name) => write!(f, "missing field `{name}`"),
            Self::Wrong(name) => write!(f, "field `{name}` has an unexpected form"),
            Self::Word(word) => write!(f, "unknown variant `{word}`"),
        }
    }
}

impl From<serde_json::Error> for Unread {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

/// Something with a form in JSON.
pub(crate) trait FromJson: Sized {
    /// Reads the value of the field `name`.
    ///
    /// # Errors
    /// The value is not of the form.
    fn from_json(value: &Value, name: &'static str) -> Result<Self, Unread>;
}

/// A field of an object. A field that is missing has the value null.
///
/// # Errors
/// The value is not of the form.
pub(crate) fn field<T: FromJson>(object: &Value, name: &'static str) -> Result<T, Unread> {
    T::from_json(&object[name], name)
}

/// A field that other versions do not have.
///
/// # Errors
/// The value is not of the form.
pub(crate) fn later_field<T: FromJson + Default>(
    object: &Value,
    name: &'static str,
) -> Result<T, Unread> {
    let is_missing = object[name].is_null();
    if is_missing { Ok(T::default()) } else { field(object, name) }
}

/// Says which fields a form has, behind `later` those which other versions do not have.
macro_rules! object {
    ($form:ident: $($name:ident),* $(; later $($later:ident),*)?) => {
        impl FromJson for $form {
            fn from_json(value: &Value, name: &'static str) -> Result<Self, Unread> {
                if !value.is_object() {
                    return Err(unread(value, name));
                }
                Ok(Self {
                    $($name: field(value, stringify!($name))?,)*
                    $($($later: later_field(value, stringify!($later))?,)*)?
                })
            }
        }
    };
}

pub(crate) use object;

object!(Report: server, clients, exports, sessions; later connections, holds, captures);
object!(CaptureReport: file, device, since, snaplen, size, captured, dropped, submissions_dropped,
    bytes, writing, failure);
object!(HoldReport: name, since);
object!(ConnectionsReport: accepted, not_allowed, too_often, full);
object!(ServerReport: version, process, since, listen; later phase);
object!(ExportReport: busid, name, vid, pid, vendor, product, manufacturer, product_name, serial,
    present, offered, client; later authorize, held);
object!(SessionReport: busid, name, client, connected, state, since, work);
object!(WorkReport: unlinks, refused, slots, buffers, total, endpoints);
object!(GaugeReport: now, most, room);
object!(TurnaroundReport: timed, sum_us, p50_us, p99_us, longest_us, buckets);
object!(BucketReport: below_us, count);
object!(CountersReport: urbs, bytes_in, bytes_out, in_flight, most_in_flight, packet_errors,
    errors);
object!(EventReport: event, time, busid, name, vid, pid, serial, client, reason, urbs, bytes_in,
    bytes_out, missed);

/// The counters lie among the other fields.
impl FromJson for EndpointReport {
    fn from_json(value: &Value, name: &'static str) -> Result<Self, Unread> {
        Ok(Self {
            number: field(value, "number")?,
            direction: field(value, "direction")?,
            transfer_type: field(value, "type")?,
            counters: CountersReport::from_json(value, name)?,
            turnaround: later_field(value, "turnaround")?,
        })
    }
}

/// The error of a value that is missing, or not of its form.
pub(crate) fn unread(value: &Value, name: &'static str) -> Unread {
    if value.is_null() { Unread::Missing(name) } else { Unread::Wrong(name) }
}

impl FromJson for String {
    fn from_json(value: &Value, name: &'static str) -> Result<Self, Unread> {
        value.as_str().map(str::to_owned).ok_or_else(|| unread(value, name))
    }
}

impl FromJson for bool {
    fn from_json(value: &Value, name: &'static str) -> Result<Self, Unread> {
        value.as_bool().ok_or_else(|| unread(value, name))
    }
}

impl FromJson for u64 {
    fn from_json(value: &Value, name: &'static str) -> Result<Self, Unread> {
        value.as_u64().ok_or_else(|| unread(value, name))
    }
}

/// A smaller number.
fn number<N: TryFrom<u64>>(value: &Value, name: &'static str) -> Result<N, Unread> {
    N::try_from(u64::from_json(value, name)?).map_err(|_| Unread::Wrong(name))
}

impl FromJson for u8 {
    fn from_json(value: &Value, name: &'static str) -> Result<Self, Unread> {
        number(value, name)
    }
}

impl FromJson for u32 {
    fn from_json(value: &Value, name: &'static str) -> Result<Self, Unread> {
        number(value, name)
    }
}

impl FromJson for usize {
    fn from_json(value: &Value, name: &'static str) -> Result<Self, Unread> {
        number(value, name)
    }
}

impl<T: FromJson> FromJson for Option<T> {
    fn from_json(value: &Value, name: &'static str) -> Result<Self, Unread> {
        if value.is_null() { Ok(None) } else { T::from_json(value, name).map(Some) }
    }
}

impl<T: FromJson> FromJson for Vec<T> {
    fn from_json(value: &Value, name: &'static str) -> Result<Self, Unread> {
        let mut list = Self::new();
        for element in value.as_array().ok_or_else(|| unread(value, name))? {
            list.push(T::from_json(element, name)?);
        }
        Ok(list)
    }
}

impl FromJson for BTreeMap<String, u64> {
    fn from_json(value: &Value, name: &'static str) -> Result<Self, Unread> {
        let mut map = Self::new();
        for (key, value) in value.as_object().ok_or_else(|| unread(value, name))? {
            map.insert(key.clone(), u64::from_json(value, name)?);
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn counters() -> Value {
        json!({
            "urbs": 10, "bytes_in": 11, "bytes_out": 12, "in_flight": 13, "most_in_flight": 14,
            "packet_errors": 15, "errors": {"EPIPE": 16, "other": 17},
        })
    }

    fn endpoint() -> Value {
        let mut endpoint = json!({
            "number": 1, "direction": "in", "type": "bulk",
            "turnaround": {
                "timed": 20, "sum_us": 21, "p50_us": 22, "p99_us": 23, "longest_us": u64::MAX,
                "buckets": [{"below_us": 24, "count": 25}],
            },
        });
        let fields = endpoint.as_object_mut().unwrap();
        fields.extend(counters().as_object().unwrap().clone());
        endpoint
    }

    /// A report in which no value is another's, and none is missing.
    fn report() -> Value {
        json!({
            "server": {
                "version": "0.1", "process": 30, "since": "a", "phase": "b", "listen": ["c", "d"],
            },
            "clients": 31,
            "connections": {"accepted": 32, "not_allowed": 33, "too_often": 34, "full": 35},
            "exports": [{
                "busid": "e", "name": "f", "vid": "g", "pid": "h", "vendor": "i", "product": "j",
                "manufacturer": "k", "product_name": "l", "serial": "m", "present": true,
                "offered": false, "authorize": true, "held": true, "client": "n",
            }],
            "sessions": [{
                "busid": "o", "name": "p", "client": "q", "connected": true, "state": "r",
                "since": "s",
                "work": {
                    "unlinks": 36, "refused": 37, "slots": {"now": 38, "most": 39, "room": 40},
                    "buffers": {"now": 41, "most": 42, "room": 43}, "total": counters(),
                    "endpoints": [endpoint()],
                },
            }],
            "holds": [{"name": "t", "since": "u"}],
            "captures": [{
                "file": "v", "device": "w", "since": "x", "snaplen": 44, "size": 45,
                "captured": 46, "dropped": 47, "submissions_dropped": 48, "bytes": 49,
                "writing": true, "failure": "y",
            }],
        })
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let read = Report::from_json(&report(), "status").unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), report());
        let event = json!({
            "event": "a", "time": "b", "busid": "c", "name": "d", "vid": "e", "pid": "f",
            "serial": "i", "client": "g", "reason": "h", "urbs": 1, "bytes_in": 2, "bytes_out": 3, "missed": 4,
        });
        let read = EventReport::from_json(&event, "event").unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), event);
    }

    /// Without `name` somewhere in a report.
    fn without(name: &str) -> Result<Report, Unread> {
        fn remove(value: &mut Value, name: &str) {
            match value {
                Value::Object(fields) => {
                    fields.remove(name);
                    fields.values_mut().for_each(|value| remove(value, name));
                }
                Value::Array(list) => list.iter_mut().for_each(|value| remove(value, name)),
                _ => {}
            }
        }
        let mut report = report();
        remove(&mut report, name);
        Report::from_json(&report, "status")
    }

    #[test]
    fn reports_of_other_versions_are_read_as_far_as_they_go() {
        for name in ["phase", "connections", "holds", "captures", "serial", "held", "turnaround"] {
            assert!(without(name).is_ok(), "{name}");
        }
        for name in ["server", "clients", "listen", "urbs", "errors", "below_us", "writing"] {
            let error = without(name).unwrap_err();
            assert_eq!(error.to_string(), format!("missing field `{name}`"));
        }
        let mut report = report();
        report["server"]["later"] = json!([1]);
        assert!(Report::from_json(&report, "status").is_ok());
    }

    #[test]
    fn values_of_another_form_are_refused_with_the_field() {
        for (at, value) in [
            ("/clients", json!(-1)),
            ("/clients", json!(1.5)),
            ("/server/process", json!(1_u64 << 32)),
            ("/server/listen", json!("all")),
            ("/exports/0/present", json!(1)),
            ("/sessions/0/work/endpoints/0/number", json!(256)),
            ("/sessions/0/work/total/errors", json!([1])),
            ("/holds/0/name", json!(["t"])),
        ] {
            let mut report = report();
            *report.pointer_mut(at).expect(at) = value;
            let error = Report::from_json(&report, "status").unwrap_err().to_string();
            let name = at.rsplit('/').next().unwrap();
            assert_eq!(error, format!("field `{name}` has an unexpected form"));
        }
        for value in [json!(null), json!(1), json!([]), json!("{}")] {
            assert!(Report::from_json(&value, "status").is_err(), "{value}");
        }
    }
}
