//! The frame around every UDP datagram (memcached's `doc/protocol.txt`, "UDP protocol"): four
//! numbers of 16 bits, high byte first, then the same bytes as over TCP.

/// Bytes of the frame: request id, sequence number, number of datagrams, and two reserved ones.
pub const HEADER_LEN: usize = 8;
/// Bytes of an answer that one datagram carries: with the frame 1400, as memcached's.
pub const PAYLOAD_MAX: usize = 1400 - HEADER_LEN;
/// The magic byte of an answer in the binary protocol.
const BINARY_ANSWER: u8 = 0x81;

/// A request that came in a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Chosen by the client; every datagram of the answer carries it.
    pub id: u16,
    /// Commands, never empty.
    pub payload: &'a [u8],
}

/// Reads a datagram; `None` for one to drop without a word: without any command, cut in several
/// datagrams, or an answer. As memcached, it looks at neither sequence number nor reserved bytes.
///
/// No command starts with a capital letter or a digit, and every answer does. An answer that came
/// here was sent in the name of another server; answered with an error, it would go back and forth
/// between the two for ever.
pub fn request(datagram: &[u8]) -> Option<Request<'_>> {
    let (header, payload) = datagram.split_first_chunk::<HEADER_LEN>()?;
    let [id_high, id_low, _, _, 0, 1, _, _] = *header else { return None };
    match payload.first()? {
        b'A'..=b'Z' | b'0'..=b'9' | &BINARY_ANSWER => None,
        _ => Some(Request { id: u16::from_be_bytes([id_high, id_low]), payload }),
    }
}

/// The frame of datagram number `sequence`, counted from 0, of an answer in `total` ones.
pub fn header(id: u16, sequence: u16, total: u16) -> [u8; HEADER_LEN] {
    let [a, b] = id.to_be_bytes();
    let [c, d] = sequence.to_be_bytes();
    let [e, f] = total.to_be_bytes();
    [a, b, c, d, e, f, 0, 0]
}

/// Datagrams that an answer of `len` bytes takes. More than 65535 cannot be numbered: the limit of
/// `-o udp_reply_max` stays below.
pub fn datagrams(len: usize) -> usize {
    len.div_ceil(PAYLOAD_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(header: [u8; HEADER_LEN], payload: &[u8]) -> Vec<u8> {
        [&header[..], payload].concat()
    }

    #[test]
    fn a_request_is_one_datagram_with_a_command() {
        let whole = datagram([0xab, 0xcd, 0, 0, 0, 1, 0, 0], b"get a\r\n");
        assert_eq!(request(&whole), Some(Request { id: 0xabcd, payload: b"get a\r\n" }));
        for other in [[0, 7, 9, 9, 0, 1, 0, 0], [0, 7, 0, 0, 0, 1, 0xff, 0xff]] {
            assert!(request(&datagram(other, b"get a\r\n")).is_some_and(|r| r.id == 7));
        }
        for total in [[0, 0], [0, 2], [1, 1], [0xff, 0xff]] {
            let header = [0, 7, 0, 0, total[0], total[1], 0, 0];
            assert_eq!(request(&datagram(header, b"get a\r\n")), None, "{total:?}");
        }
        for short in 0..=HEADER_LEN {
            assert_eq!(request(&whole[..short]), None, "{short} bytes");
        }
    }

    #[test]
    fn answers_are_no_requests() {
        let one = |payload: &[u8]| request(&datagram(header(1, 0, 1), payload)).is_some();
        for answer in ["ERROR", "VALUE a 0 1", "END", "STORED", "HD", "VA 1", "12", "RESET"] {
            assert!(!one(answer.as_bytes()), "{answer}");
        }
        assert!(!one(&[BINARY_ANSWER; 24]) && one(&[0x80; 24]));
        assert!(one(b"verbosity 1\r\n") && one(b" get a\r\n") && one(b"\r\n"));
    }

    #[test]
    fn headers_are_read_as_they_are_written() {
        assert_eq!(header(0x0102, 0x0304, 0x0506), [1, 2, 3, 4, 5, 6, 0, 0]);
        assert_eq!([0, 1, 1392, 1393].map(datagrams), [0, 1, 1, 2]);
    }
}
