//! The hash slot of a key, which decides its node in a cluster.

/// The number of slots in a cluster.
pub(crate) const SLOTS: u16 = 16384;

/// Returns the hash slot of a key: the CRC16 of the key, or of its hash tag, which is a non-empty
/// text between the first `{` and the next `}`.
///
/// ```
/// assert_eq!(resp::cluster::slot(b"{user:7}:name"), resp::cluster::slot(b"{user:7}:mail"));
/// ```
#[must_use]
pub fn slot(key: &[u8]) -> u16 {
    crc16(hash_tag(key)) % SLOTS
}

fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else { return key };
    let behind = open.checked_add(1).and_then(|start| key.get(start..)).unwrap_or_default();
    match memchr::memchr(b'}', behind) {
        None | Some(0) => key,
        Some(close) => behind.get(..close).unwrap_or_default(),
    }
}

/// CRC-16/XMODEM: polynomial 0x1021, not reflected, no final XOR.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        let [high, _] = crc.to_be_bytes();
        (crc << 8) ^ TABLE.get(usize::from(high ^ byte)).copied().unwrap_or_default()
    })
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, which refuses overflow and panics"
)]
const TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(crc16(b""), 0);
    }

    #[test]
    fn hash_tags() {
        for (key, tag) in [
            ("{user1000}.following", "user1000"),
            ("foo{}{bar}", "foo{}{bar}"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
            ("foo{bar", "foo{bar"),
            ("foo}bar{", "foo}bar{"),
            ("", ""),
        ] {
            assert_eq!(hash_tag(key.as_bytes()), tag.as_bytes(), "{key}");
        }
        assert_eq!(slot(b"{line_stream}:source"), slot(b"line_stream"));
    }

    #[test]
    fn slots_match_redis() {
        // From CLUSTER KEYSLOT.
        assert_eq!((slot(b"foo"), slot(b"bar"), slot(b"somekey")), (12182, 5061, 11058));
    }
}
