//! The content of a message: moved while it is small, shared from a certain size on.
//!
//! A large body is read into one buffer, which journal, outboxes and the thread that writes to the
//! database file then share until the last of them is through with it. Small ones are copied into
//! whatever goes out next to them: counting who shares them would cost more than that.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::words::limits::BODY_SHARED_BYTES_MIN;

/// A message's content, as it is kept.
///
/// Tried and left: `Arc<[u8]>` copies the buffer that was read into, and `bytes::Bytes` is a third
/// larger and would share small bodies as well.
#[derive(Clone)]
pub struct Body(Kept);

#[derive(Clone)]
enum Kept {
    Own(Vec<u8>),
    /// Invariant: of at least [`BODY_SHARED_BYTES_MIN`] bytes.
    Shared(Arc<Vec<u8>>),
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Body {
        Body(if bytes.len() < BODY_SHARED_BYTES_MIN {
            Kept::Own(bytes)
        } else {
            Kept::Shared(Arc::new(bytes))
        })
    }
}

impl From<&[u8]> for Body {
    fn from(bytes: &[u8]) -> Body {
        Body::from(bytes.to_vec())
    }
}

impl Default for Body {
    fn default() -> Body {
        Body(Kept::Own(Vec::new()))
    }
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Kept::Own(bytes) => bytes,
            Kept::Shared(bytes) => bytes,
        }
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Body) -> bool {
        **self == **other
    }
}

impl Eq for Body {}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A message's content on its way to a peer.
#[derive(Clone, Copy, Debug)]
pub enum BodyRef<'a> {
    /// Bytes that are somebody else's, such as a page of the database.
    Lent(&'a [u8]),
    /// A body that can be shared if it is large.
    Kept(&'a Body),
}

impl Deref for BodyRef<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            BodyRef::Lent(bytes) => bytes,
            BodyRef::Kept(body) => body,
        }
    }
}

impl PartialEq for BodyRef<'_> {
    fn eq(&self, other: &BodyRef<'_>) -> bool {
        **self == **other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_body_is_shared_and_a_small_one_copied() {
        let large = Body::from(vec![7; BODY_SHARED_BYTES_MIN]);
        assert_eq!(large.clone().as_ptr(), large.as_ptr());
        let small = Body::from(vec![7; BODY_SHARED_BYTES_MIN - 1]);
        assert_ne!(small.clone().as_ptr(), small.as_ptr());
        assert_eq!(small.clone(), small);
    }

    #[test]
    fn what_was_read_becomes_the_body_without_a_copy() {
        let bytes = vec![7; BODY_SHARED_BYTES_MIN];
        let place = bytes.as_ptr();
        assert_eq!(Body::from(bytes).as_ptr(), place);
    }
}
