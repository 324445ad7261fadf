//! The validity period of a certificate, read from its DER.
//!
//! A server that refuses our certificate closes the connection with an alert that does not name the
//! cause. The period is read for the error message only; no decision depends on it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The version, `[0] EXPLICIT`, which may be absent.
const VERSION: u8 = 0xa0;

/// The validity period of a certificate (RFC 5280 §4.1.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: Moment,
    pub(super) until: Moment,
}

/// A moment in UTC, to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment {
    year: u16,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
}

impl Validity {
    /// The validity of the first certificate in a PEM text; `None` if there is no readable one.
    pub(super) fn of_pem(pem: &[u8]) -> Option<Validity> {
        let text = str::from_utf8(pem).ok()?;
        let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----")?;
        let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
        let body: String = body.split_ascii_whitespace().collect();
        Validity::of_der(&STANDARD.decode(body).ok()?)
    }

    fn of_der(der: &[u8]) -> Option<Validity> {
        let (certificate, _) = element(der, SEQUENCE)?;
        let (mut body, _) = element(certificate, SEQUENCE)?;
        if let Some((_, rest)) = element(body, VERSION) {
            body = rest;
        }
        // Serial number, signature algorithm, issuer.
        for tag in [INTEGER, SEQUENCE, SEQUENCE] {
            (_, body) = element(body, tag)?;
        }
        let (validity, _) = element(body, SEQUENCE)?;
        let (from, rest) = moment(validity)?;
        let (until, _) = moment(rest)?;
        Some(Validity { from, until })
    }

    /// Why the certificate is not valid at `now`; `None` if it is.
    pub(super) fn fault_at(&self, now: SystemTime) -> Option<String> {
        let now = Moment::of(now);
        if now > self.until {
            return Some(format!("expired on {}", self.until));
        }
        (now < self.from).then(|| format!("is not valid before {}", self.from))
    }
}

/// The content of the element at the start of `der`, and the rest after it; `None` if the element
/// does not have the tag.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut len = usize::from(first);
    if first & 0x80 != 0 {
        let octets =
            rest.split_at_checked(usize::from(first & 0x7f)).filter(|(l, _)| l.len() <= 4)?;
        len = octets.0.iter().fold(0, |len, octet| len << 8 | usize::from(*octet));
        rest = octets.1;
    }
    if found != tag {
        return None;
    }
    rest.split_at_checked(len)
}

fn moment(der: &[u8]) -> Option<(Moment, &[u8])> {
    let (text, rest, century) = match element(der, GENERALIZED_TIME) {
        Some((text, rest)) => (text, rest, None),
        None => {
            let (text, rest) = element(der, UTC_TIME)?;
            // Two digits: 1950 to 2049.
            let century = if text.first()? >= &b'5' { "19" } else { "20" };
            (text, rest, Some(century))
        }
    };
    let text = format!("{}{}", century.unwrap_or_default(), str::from_utf8(text).ok()?);
    let digits = text.strip_suffix('Z').filter(|d| d.len() == 14)?;
    let field = |at: std::ops::Range<usize>| digits.get(at)?.parse::<u8>().ok();
    let moment = Moment {
        year: digits.get(..4)?.parse().ok()?,
        month: field(4..6)?,
        day: field(6..8)?,
        hour: field(8..10)?,
        minute: field(10..12)?,
        second: field(12..14)?,
    };
    Some((moment, rest))
}

impl Moment {
    pub(super) fn of(time: SystemTime) -> Moment {
        let seconds = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
        // Howard Hinnant, "chrono-compatible low-level date algorithms": years begin in March.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let small = |value: u64| u8::try_from(value).unwrap_or(u8::MAX);
        Moment {
            year: u16::try_from(year).unwrap_or(u16::MAX),
            month: small(month),
            day: small(day_of_year - (153 * shifted_month + 2) / 5 + 1),
            hour: small(second_of_day / 3_600),
            minute: small(second_of_day / 60 % 60),
            second: small(second_of_day % 60),
        }
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Moment { year, month, day, hour, minute, second } = self;
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // openssl ca -selfsign -startdate 20200229235959Z -enddate 20491231000000Z …
    const PEM: &str = "\
        -----BEGIN CERTIFICATE-----\n\
        MIIBPDCB46ADAgECAgEBMAoGCCqGSM49BAMCMBExDzANBgNVBAMMBm1hcmdheTAe\n\
        Fw0yMDAyMjkyMzU5NTlaFw00OTEyMzEwMDAwMDBaMBExDzANBgNVBAMMBm1hcmdh\n\
        eTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJIL0f1eIVNFBMk9Xz7zVrB12Y9v\n\
        Pi9wGbY984G2/T8/QA4PGnB2G5nei93wZ6pVtbh49A57f8W/SAKTgz5g27ejLDAq\n\
        MAkGA1UdEwQCMAAwHQYDVR0OBBYEFCEXjZqrIdkACa/O1bPTdaGJJq5DMAoGCCqG\n\
        SM49BAMCA0gAMEUCIGWo4F/WbeZ5qWEC7mk4A43mnh4L0cAkVFkpoy7AkkhuAiEA\n\
        1KqF4Ts9gnN1/ixUeCaE+uw+Pxq2HbDw1VGPlpapT5o=\n\
        -----END CERTIFICATE-----\n\
    ";

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn moments_are_those_of_date() {
        // date -u -d @N
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_164_800, "2024-02-29 00:00:00 UTC"),
            (4_102_444_799, "2099-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(Moment::of(at(seconds)).to_string(), text);
        }
    }

    #[test]
    fn a_certificate_says_how_long_it_is_valid() {
        let validity = Validity::of_pem(PEM.as_bytes()).unwrap();
        assert_eq!(validity.from.to_string(), "2020-02-29 23:59:59 UTC");
        assert_eq!(validity.until.to_string(), "2049-12-31 00:00:00 UTC");
        assert_eq!(validity.fault_at(at(1_800_000_000)), None);
        let early = validity.fault_at(at(1_500_000_000)).unwrap();
        assert_eq!(early, "is not valid before 2020-02-29 23:59:59 UTC");
        let late = validity.fault_at(at(2_600_000_000)).unwrap();
        assert_eq!(late, "expired on 2049-12-31 00:00:00 UTC");
    }

    #[test]
    fn both_forms_of_time_are_read() {
        let utc = [&[UTC_TIME, 13][..], b"500101000000Z"].concat();
        assert_eq!(moment(&utc).unwrap().0.to_string(), "1950-01-01 00:00:00 UTC");
        let long = [&[GENERALIZED_TIME, 15][..], b"20500101000000Z"].concat();
        assert_eq!(moment(&long).unwrap().0.to_string(), "2050-01-01 00:00:00 UTC");
        assert_eq!(moment(&long[..16]), None);
    }

    proptest! {
        #[test]
        fn any_octets_are_a_certificate_or_refused(octets: Vec<u8>, at in 0usize..400, to: u8) {
            let _ = Validity::of_der(&octets);
            let (_, body) = PEM.split_once("-----BEGIN CERTIFICATE-----").unwrap();
            let (body, _) = body.split_once("-----END").unwrap();
            let mut der = STANDARD.decode(body.split_whitespace().collect::<String>()).unwrap();
            if let Some(octet) = der.get_mut(at) {
                *octet = to;
            }
            let _ = Validity::of_der(&der);
        }
    }
}
