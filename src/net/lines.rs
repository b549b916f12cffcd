//! The bytes of a response, gathered until a line or all of it is there. Pure.

/// The largest object: Kubernetes accepts 1.5 MiB, which JSON's escapes can stretch fivefold. A
/// larger page of a list is requested again in smaller ones.
pub const MAX_LINE_BYTES: usize = 8 << 20;

/// The error of more than [`MAX_LINE_BYTES`] without the end of a line.
#[derive(Debug, PartialEq, Eq)]
pub struct LineTooLong;

/// The bytes that have arrived and have not been taken yet.
#[derive(Debug, Default)]
pub struct LineBuffer {
    buffer: Vec<u8>,
    /// The offset from which to search for the end of the next line, so that each byte is read
    /// once.
    scanned: usize,
}

impl LineBuffer {
    /// Adds bytes as they come off the wire.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), LineTooLong> {
        if self.buffer.len() + bytes.len() > MAX_LINE_BYTES {
            return Err(LineTooLong);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Takes the next whole line, with its end.
    pub fn next_line(&mut self) -> Option<Vec<u8>> {
        let Some(end) = memchr::memchr(b'\n', &self.buffer[self.scanned..]) else {
            self.scanned = self.buffer.len();
            return None;
        };
        // A long line leaves with its memory; what follows it is short.
        let rest = self.buffer.split_off(self.scanned + end + 1);
        self.scanned = 0;
        Some(std::mem::replace(&mut self.buffer, rest))
    }

    /// Takes everything that is left.
    pub fn take(&mut self) -> Vec<u8> {
        self.scanned = 0;
        std::mem::take(&mut self.buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_same_lines_however_the_bytes_arrive() {
        let stream = b"one\n\ntwo\nthree is longer\nrest";
        for first in 0..stream.len() {
            for second in first..stream.len() {
                let (mut lines, mut got) = (LineBuffer::default(), Vec::new());
                for part in [&stream[..first], &stream[first..second], &stream[second..]] {
                    lines.push(part).unwrap();
                    got.extend(std::iter::from_fn(|| lines.next_line()));
                }
                let want: [&[u8]; 4] = [b"one\n", b"\n", b"two\n", b"three is longer\n"];
                assert_eq!(got, want);
                assert_eq!(lines.take(), b"rest");
            }
        }
    }

    #[test]
    fn refuses_a_line_over_the_cap() {
        let mut lines = LineBuffer::default();
        assert_eq!(lines.push(&vec![b'x'; MAX_LINE_BYTES]), Ok(()));
        assert_eq!(lines.push(b"x"), Err(LineTooLong));
    }
}
