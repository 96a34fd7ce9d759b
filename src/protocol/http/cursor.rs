//! Where a page ended, as a text that clients give back unread.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::problem::Problem;
use crate::words::ids::QueueName;
use crate::words::statistics::QueuePlace;

/// A place as a cursor.
pub(super) fn write(place: &QueuePlace) -> String {
    URL_SAFE_NO_PAD.encode([&place.key.to_be_bytes(), place.name.as_str().as_bytes()].concat())
}

/// The place that a cursor is of.
pub(super) fn read(cursor: Option<&[u8]>) -> Result<Option<QueuePlace>, Problem> {
    let Some(cursor) = cursor else { return Ok(None) };
    let place = || {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (key, name) = bytes.split_first_chunk::<8>()?;
        let name = QueueName::new(name).ok()?;
        Some(QueuePlace { key: u64::from_be_bytes(*key), name })
    };
    let place = place().ok_or_else(|| Problem::parameter("cursor", "this is no cursor"))?;
    Ok(Some(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_from_its_cursor() {
        let name = QueueName::new("größe".as_bytes()).unwrap();
        let place = QueuePlace { key: u64::MAX - 7, name };
        assert_eq!(read(Some(write(&place).as_bytes())), Ok(Some(place)));
        assert_eq!(read(None), Ok(None));
        for cursor in ["", "x", "AAAAAAAAAAA", "AAAAAAAAAAAA", "?"] {
            let end = read(Some(cursor.as_bytes()));
            assert!(end.is_err(), "{cursor}: {end:?}");
        }
    }
}
