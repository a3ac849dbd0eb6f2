//! Which links a queue has seen: digests of canonical links, spread over small hashes.
//!
//! A hash of up to 128 short fields is one compact block in Redis (a listpack): about 20 bytes a link instead of 117 for
//! a key of its own. The bucket and the field together are 112 bits of SHA-256, so two of a billion links share them
//! with a probability near 10^-16.

use sha2::{Digest, Sha256};

/// Buckets fill one block each up to two million links; beyond, Redis turns blocks into tables of about 80 bytes a link.
const BUCKETS: u16 = 1 << 14;

/// Where a link's digest lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LinkDigest {
    pub(super) bucket: u16,
    pub(super) field: [u8; 12],
}

impl LinkDigest {
    pub(super) fn of(canonical_link: &str) -> LinkDigest {
        let hash = Sha256::digest(canonical_link.as_bytes());
        let mut field = [0; 12];
        field.copy_from_slice(&hash[2..14]);
        LinkDigest { bucket: u16::from_be_bytes([hash[0], hash[1]]) % BUCKETS, field }
    }
}
