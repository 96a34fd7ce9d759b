//! The kinds of values that a configuration file holds, read from text and written back.
//!
//! Each kind says in an error what it takes, so that an operator need not look it up. What
//! [`Millis`] and [`Bytes`] display is read back as the same value.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use clap::ValueEnum;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Unexpected, Visitor};

use super::nearest::nearest;
use crate::protocol::options::OptionValue;

const DURATION_UNITS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZE_UNITS: &[(&str, u64)] =
    &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// A duration in milliseconds, written as a number and a unit: `"50ms"`, `"30s"`, `"30m"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

/// A size in bytes, written as a number and a unit (`"64MiB"`) or a plain number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// A whole number that is not negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count(pub u64);

/// The permissions of a Unix socket, as octal digits: `"0660"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

/// A value of any kind that an option of a protocol can be of.
pub(super) struct Scalar(pub(super) OptionValue);

/// Several durations: `["1s", "10s", "1m"]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations(pub Vec<Millis>);

/// A share of a whole: a number from 0 to 1. Where it ends is up to who takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share(pub f64);

macro_rules! into_number {
    ($($name:ident)*) => {$(
        impl From<$name> for u64 {
            fn from(value: $name) -> u64 {
                value.0
            }
        }
    )*};
}
into_number!(Millis Bytes Count);

/// A text that is not one of its kind; its text says what is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueError(&'static str);

const DURATION_EXPECTED: &str = "a duration like \"50ms\", \"30s\", \"5m\", \"2h\" or \"1d\"";
const SIZE_EXPECTED: &str = "a size like \"64MiB\" (B, KiB, MiB, GiB, TiB) or a number of bytes";
const COUNT_EXPECTED: &str = "a whole number, 0 or more";
const MODE_EXPECTED: &str = "permissions as octal digits in a string, like \"0660\"";
const DURATIONS_EXPECTED: &str = "a list of durations like [\"1s\", \"10s\", \"1m\"]";
const SHARE_EXPECTED: &str = "a number from 0 to 1, like 0.1";

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not {}", self.0)
    }
}

impl std::error::Error for ValueError {}

/// Reads digits and one of the units; `None` for anything else, an overflow included.
fn number_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

/// Writes a number in the largest unit that leaves it whole.
fn write_with_unit(
    f: &mut fmt::Formatter<'_>,
    number: u64,
    units: &[(&str, u64)],
    zero_unit: &str,
) -> fmt::Result {
    if number == 0 {
        return write!(f, "0{zero_unit}");
    }
    let largest = units.iter().rev().find(|(_, factor)| number.is_multiple_of(*factor));
    let (unit, factor) = largest.expect("the first unit has the factor 1");
    write!(f, "{}{unit}", number / factor)
}

impl FromStr for Millis {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Millis, ValueError> {
        let millis = number_with_unit(text, DURATION_UNITS);
        millis.map(Millis).ok_or(ValueError(DURATION_EXPECTED))
    }
}

impl FromStr for Bytes {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Bytes, ValueError> {
        let bytes = number_with_unit(text, SIZE_UNITS).or_else(|| text.parse().ok());
        bytes.map(Bytes).ok_or(ValueError(SIZE_EXPECTED))
    }
}

impl FromStr for Mode {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Mode, ValueError> {
        let octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        let mode = if octal { u32::from_str_radix(text, 8).ok() } else { None };
        mode.filter(|mode| *mode <= 0o777).map(Mode).ok_or(ValueError(MODE_EXPECTED))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_with_unit(f, self.0, DURATION_UNITS, "s")
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_with_unit(f, self.0, SIZE_UNITS, "B")
    }
}

impl fmt::Display for Durations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, millis) in self.0.iter().enumerate() {
            write!(f, "{}\"{millis}\"", if index == 0 { "" } else { ", " })?;
        }
        f.write_str("]")
    }
}

impl fmt::Display for Share {
    /// With its point, also where nothing stands behind it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// What a key takes, for whoever has typed something else.
pub trait Kind {
    /// A noun phrase: "a whole number, 0 or more".
    const EXPECTED: &'static str;
}

macro_rules! kinds {
    ($($name:ty => $expected:expr,)*) => {$(
        impl Kind for $name {
            const EXPECTED: &'static str = $expected;
        }
    )*};
}
kinds! {
    String => "a string in double quotes",
    bool => "true or false, without quotes",
    Millis => DURATION_EXPECTED,
    Bytes => SIZE_EXPECTED,
    Count => COUNT_EXPECTED,
    Mode => MODE_EXPECTED,
    Durations => DURATIONS_EXPECTED,
    Share => SHARE_EXPECTED,
}

/// Reads one of the words of an enumeration.
///
/// # Errors
/// It is none of them; the error proposes the nearest.
pub(super) fn word<'de, T: ValueEnum, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    deserializer.deserialize_any(Words(PhantomData))
}

struct Words<T>(PhantomData<T>);

impl<T: ValueEnum> Words<T> {
    fn names() -> Vec<String> {
        let values = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        values.map(|value| value.get_name().to_owned()).collect()
    }
}

impl<T: ValueEnum> Visitor<'_> for Words<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "one of \"{}\"", Words::<T>::names().join("\", \""))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::from_str(text, false).map_err(|_| {
            let names = Words::<T>::names();
            let meant = nearest(text, names.iter().map(String::as_str));
            let meant = meant.map(|word| format!(", did you mean \"{word}\"?")).unwrap_or_default();
            E::custom(format!("unknown value {text:?} (known: {}){meant}", names.join(", ")))
        })
    }
}

/// What a value may be in TOML, for one visitor that serves all kinds.
struct Expect<T> {
    expected: &'static str,
    text: fn(&str) -> Option<T>,
    number: fn(u64) -> Option<T>,
}

impl<T> Visitor<'_> for Expect<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.text)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        let value = u64::try_from(number).ok().and_then(self.number);
        value.ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        (self.number)(number).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Millis, D::Error> {
        deserializer.deserialize_any(Expect {
            expected: DURATION_EXPECTED,
            text: |text| text.parse().ok(),
            // Nothing needs no unit; any other number without one would be a guess.
            number: |number| (number == 0).then_some(Millis(0)),
        })
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        deserializer.deserialize_any(Expect {
            expected: SIZE_EXPECTED,
            text: |text| text.parse().ok(),
            number: |number| Some(Bytes(number)),
        })
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Count, D::Error> {
        deserializer.deserialize_any(Expect {
            expected: COUNT_EXPECTED,
            text: |_| None,
            number: |number| Some(Count(number)),
        })
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Mode, D::Error> {
        deserializer.deserialize_any(Expect {
            expected: MODE_EXPECTED,
            text: |text| text.parse().ok(),
            // 660 as a TOML number is not 0660: taking it would open another door than was meant.
            number: |_| None,
        })
    }
}

impl<'de> Deserialize<'de> for Durations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Durations, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Durations;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(DURATIONS_EXPECTED)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Durations, A::Error> {
                let mut durations = Vec::new();
                while let Some(millis) = list.next_element()? {
                    durations.push(millis);
                }
                Ok(Durations(durations))
            }
        }

        deserializer.deserialize_any(List)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Share, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Share;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(SHARE_EXPECTED)
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Share, E> {
                // Neither less than nothing nor no number at all, but 0.0 for -0.0.
                if number >= 0.0 {
                    return Ok(Share(number.abs()));
                }
                Err(E::invalid_value(Unexpected::Float(number), &self))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Share, E> {
                let number = u32::try_from(number)
                    .map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))?;
                Ok(Share(f64::from(number)))
            }
        }

        deserializer.deserialize_any(Number)
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scalar, D::Error> {
        deserializer.deserialize_any(AnyScalar)
    }
}

struct AnyScalar;

impl<'de> Visitor<'de> for AnyScalar {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a number, true or false, or a list of strings")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar(OptionValue::Text(text.to_owned().into())))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Scalar, E> {
        let number = u64::try_from(number);
        let number = number.map_err(|_| E::invalid_value(Unexpected::Other("negative"), &self))?;
        Ok(Scalar(OptionValue::Number(number)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Scalar, E> {
        Ok(Scalar(OptionValue::Number(number)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Scalar, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Scalar(OptionValue::List(list)))
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Scalar, E> {
        Ok(Scalar(OptionValue::Flag(flag)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        assert_eq!("50ms".parse(), Ok(Millis(50)));
        assert_eq!("30s".parse(), Ok(Millis(30_000)));
        assert_eq!("30m".parse(), Ok(Millis(1_800_000)));
        assert_eq!("2h".parse(), Ok(Millis(7_200_000)));
        assert_eq!("1d".parse(), Ok(Millis(86_400_000)));
        assert_eq!("0s".parse(), Ok(Millis(0)));
        for bad in ["", "s", "5", "-5s", "1.5s", "5 s", "5S", "99999999999999999999s", "1m30s"] {
            assert!(bad.parse::<Millis>().is_err(), "{bad:?} was taken");
        }
        assert!(format!("{}d", u64::MAX).parse::<Millis>().is_err());
    }

    #[test]
    fn sizes_are_bytes_or_a_number_and_a_binary_unit() {
        assert_eq!("64MiB".parse(), Ok(Bytes(64 << 20)));
        assert_eq!("1KiB".parse(), Ok(Bytes(1_024)));
        assert_eq!("65535".parse(), Ok(Bytes(65_535)));
        assert_eq!("7B".parse(), Ok(Bytes(7)));
        for bad in ["", "MiB", "64MB", "64M", "64mib", "-1", "1.5GiB", "99999999TiB"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn what_is_displayed_is_read_back_the_same() {
        for millis in [0, 1, 50, 999, 1_000, 90_000, 60_000, 3_600_000, 86_400_000, u64::MAX] {
            assert_eq!(Millis(millis).to_string().parse(), Ok(Millis(millis)));
        }
        for bytes in [0, 1, 1_023, 1_024, 64 << 20, 3 << 30, 1 << 40, u64::MAX] {
            assert_eq!(Bytes(bytes).to_string().parse(), Ok(Bytes(bytes)));
        }
        assert_eq!(Millis(1_800_000).to_string(), "30m");
        assert_eq!(Millis(0).to_string(), "0s");
        assert_eq!(Bytes(16 << 20).to_string(), "16MiB");
    }

    #[test]
    fn modes_are_octal_digits() {
        assert_eq!("0660".parse(), Ok(Mode(0o660)));
        assert_eq!("666".parse(), Ok(Mode(0o666)));
        assert_eq!(Mode(0o60).to_string(), "0060");
        for bad in ["", "0", "0o660", "0668", "+660", "1777", "00660", "rw-"] {
            assert!(bad.parse::<Mode>().is_err(), "{bad:?} was taken");
        }
    }
}
