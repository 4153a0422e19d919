//! [`RandomSource`]: where the random bytes of new tokens come from.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use rand::TryRng;

use crate::error::{BoxError, SessionError, SessionErrorKind};

/// The operating system's generator, or one that the application chose.
#[derive(Clone)]
pub(crate) struct RandomSource(Arc<FillBytes>);

type FillBytes = dyn Fn(&mut [u8]) -> Result<(), BoxError> + Send + Sync;

impl RandomSource {
    pub(crate) fn new(
        fill: impl Fn(&mut [u8]) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(fill))
    }

    /// Random bytes. A generator that fails is an error, never a weaker token (CVE-2025-66630).
    pub(crate) fn bytes<const N: usize>(&self) -> Result<[u8; N], SessionError> {
        let mut bytes = [0; N];
        match (self.0)(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) => Err(SessionError::new(SessionErrorKind::Random).with_source(error)),
        }
    }
}

impl Default for RandomSource {
    fn default() -> Self {
        Self::new(|bytes| Ok(RandomBuffer::take(bytes)?))
    }
}

impl fmt::Debug for RandomSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RandomSource")
    }
}

/// Bytes of the operating system's generator for the next tokens of a thread. One call of the
/// generator costs more than everything else that a new token needs, whether for 32 bytes or for
/// 512.
struct RandomBuffer {
    bytes: [u8; Self::LEN],
    left: usize,
}

impl RandomBuffer {
    const LEN: usize = 512;

    /// Fills `out`, which is shorter than the buffer.
    fn take(out: &mut [u8]) -> Result<(), rand::rngs::SysError> {
        thread_local! {
            static BUFFER: RefCell<RandomBuffer> = const {
                RefCell::new(RandomBuffer { bytes: [0; RandomBuffer::LEN], left: 0 })
            };
        }
        BUFFER.with_borrow_mut(|buffer| {
            if buffer.left < out.len() {
                rand::rngs::SysRng.try_fill_bytes(&mut buffer.bytes)?;
                buffer.left = Self::LEN;
            }
            let end = buffer.left;
            buffer.left = end.saturating_sub(out.len());
            if let Some(bytes) = buffer.bytes.get_mut(buffer.left..end) {
                out.copy_from_slice(bytes);
                // Nobody else keeps bytes that a token has.
                bytes.fill(0);
            }
            Ok(())
        })
    }
}
