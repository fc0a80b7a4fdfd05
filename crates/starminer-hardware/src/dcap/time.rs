//! Dates of Intel's JSON (RFC 3339) as seconds since 1970, and back for people.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Seconds since 1970 of a date.
pub(super) fn seconds(text: &str) -> Option<u64> {
    u64::try_from(OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp()).ok()
}

/// A time as people read it.
pub(crate) fn readable(at_s: u64) -> String {
    i64::try_from(at_s)
        .ok()
        .and_then(|at_s| OffsetDateTime::from_unix_timestamp(at_s).ok())
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{at_s} s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_survive() {
        assert_eq!(seconds("2025-06-19T10:56:11Z"), Some(1_750_330_571));
        assert_eq!(readable(1_750_330_571), "2025-06-19T10:56:11Z");
        assert_eq!(seconds("1969-12-31T23:59:59Z"), None);
        assert_eq!(seconds("2025-06-19"), None);
        assert_eq!(readable(u64::MAX), format!("{} s", u64::MAX));
    }
}
