//! Bytes from a terminal, a telnet client or anybody else: lines, and what telnet says between.
//!
//! Telnet's negotiation (RFC 854) is taken out; only a window's size (RFC 1073) is listened to.
//! Control characters are dropped, a backspace takes the character before it along.

use crate::protocol::WireError;

use super::{LINE_BYTES_MAX, TerminalSize};

const CARRIAGE_RETURN: u8 = b'\r';
const BACKSPACE: u8 = 0x08;
const DELETE: u8 = 0x7f;
/// "Interpret as command": begins everything that telnet says.
const IAC: u8 = 255;
const DONT: u8 = 254;
pub(super) const DO: u8 = 253;
const WONT: u8 = 252;
const WILL: u8 = 251;
const SUBNEGOTIATION: u8 = 250;
const SUBNEGOTIATION_END: u8 = 240;
/// The option "negotiate about window size".
pub(super) const WINDOW_SIZE: u8 = 31;

/// What a byte completed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// A line, without its end.
    Line(Vec<u8>),
    /// The peer would tell its window's size if it were asked.
    OffersWindow,
    /// The peer's window has this size.
    TerminalSize(TerminalSize),
}

/// Reads one byte at a time: the console is for people, and this is the plainest way to be
/// right however the bytes are cut.
#[derive(Debug, Default)]
pub(super) struct Keyboard {
    line: Vec<u8>,
    telnet: Telnet,
    after_carriage_return: bool,
    /// Bytes since the end of the last line, those that were dropped included.
    unfinished_bytes: usize,
    /// The option and the values of a subnegotiation, as far as they can be of use.
    option: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Telnet {
    #[default]
    Text,
    Command,
    Negotiation(u8),
    Option,
    OptionCommand,
}

impl Keyboard {
    /// Takes one byte.
    ///
    /// # Errors
    /// [`WireError::TooLong`] when there is no end of the line within its limit.
    pub(super) fn press(&mut self, byte: u8) -> Result<Option<Typed>, WireError> {
        self.unfinished_bytes += 1;
        if self.unfinished_bytes > LINE_BYTES_MAX {
            return Err(WireError::TooLong("line", LINE_BYTES_MAX));
        }
        let typed = match self.telnet {
            Telnet::Text if byte == IAC => {
                self.telnet = Telnet::Command;
                None
            }
            Telnet::Text => self.text(byte),
            _ => self.negotiate(byte),
        };
        if self.telnet == Telnet::Text && self.line.is_empty() {
            self.unfinished_bytes = 0;
        }
        Ok(typed)
    }

    /// Bytes of an unfinished line.
    pub(super) fn pending_bytes(&self) -> usize {
        self.unfinished_bytes
    }

    fn text(&mut self, byte: u8) -> Option<Typed> {
        // Enter is a line feed, with a carriage return before it or not; in telnet it may also be
        // a carriage return and a zero.
        let ends = byte == b'\n' || (byte == 0 && self.after_carriage_return);
        self.after_carriage_return = byte == CARRIAGE_RETURN;
        if ends {
            let line = std::mem::take(&mut self.line);
            return Some(Typed::Line(line));
        }
        match byte {
            BACKSPACE | DELETE => self.rub_out(),
            b'\t' => self.line.push(b' '),
            byte if byte.is_ascii_control() => {}
            byte => self.line.push(byte),
        }
        None
    }

    /// Takes the last character away, all of its bytes.
    fn rub_out(&mut self) {
        while let Some(byte) = self.line.pop() {
            let continues = byte & 0b1100_0000 == 0b1000_0000;
            if !continues {
                break;
            }
        }
    }

    fn negotiate(&mut self, byte: u8) -> Option<Typed> {
        let (next, typed) = match (self.telnet, byte) {
            (Telnet::Command, WILL | WONT | DO | DONT) => (Telnet::Negotiation(byte), None),
            (Telnet::Command, SUBNEGOTIATION) => {
                self.option.clear();
                (Telnet::Option, None)
            }
            // 255 as a byte of text: no name holds it, but it is the line's to be refused.
            (Telnet::Command, IAC) => {
                self.line.push(IAC);
                (Telnet::Text, None)
            }
            (Telnet::Negotiation(WILL), WINDOW_SIZE) => (Telnet::Text, Some(Typed::OffersWindow)),
            (Telnet::Option, IAC) => (Telnet::OptionCommand, None),
            (Telnet::OptionCommand, SUBNEGOTIATION_END) => (Telnet::Text, self.window()),
            (Telnet::OptionCommand, byte) if byte != IAC => (Telnet::Option, None),
            (Telnet::Option | Telnet::OptionCommand, byte) => {
                // One more than a window's size has, so that a longer one is no window.
                if self.option.len() < 6 {
                    self.option.push(byte);
                }
                (Telnet::Option, None)
            }
            _ => (Telnet::Text, None),
        };
        self.telnet = next;
        typed
    }

    fn window(&self) -> Option<Typed> {
        let [WINDOW_SIZE, columns_1, columns_2, lines_1, lines_2] = *self.option.as_slice() else {
            return None;
        };
        let columns = u16::from_be_bytes([columns_1, columns_2]);
        let lines = u16::from_be_bytes([lines_1, lines_2]);
        Some(Typed::TerminalSize(TerminalSize::told(columns.into(), lines.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(bytes: &[u8]) -> Vec<Typed> {
        let mut keyboard = Keyboard::default();
        bytes.iter().filter_map(|byte| keyboard.press(*byte).unwrap()).collect()
    }

    fn line(text: &str) -> Typed {
        Typed::Line(text.as_bytes().to_vec())
    }

    #[test]
    fn a_line_ends_as_terminals_and_telnet_end_it() {
        assert_eq!(
            typed(b"one\ntwo\r\nthree\r\0\n"),
            [line("one"), line("two"), line("three"), line("")]
        );
    }

    #[test]
    fn control_characters_are_dropped_and_a_backspace_rubs_out() {
        assert_eq!(typed(b"\x1b[Am\x00\x07x\n"), [line("[Amx")]);
        assert_eq!(typed(b"\x08hulp\x7f\x08\x08elp\tme\n"), [line("help me")]);
        assert_eq!(typed("ö\u{7f}ok\n".as_bytes()), [line("ok")]);
    }

    #[test]
    fn telnet_negotiation_is_no_text() {
        assert_eq!(typed(b"he\xff\xfb\x01l\xff\xf4\xff\xfd\x06p\n"), [line("help")]);
        assert_eq!(typed(b"a\xff\xfa\x18\x00xterm\xff\xf0b\n"), [line("ab")]);
        assert_eq!(typed(b"a\xff\xffb\n"), [Typed::Line(b"a\xffb".to_vec())]);
    }

    #[test]
    fn a_window_is_offered_and_told() {
        assert_eq!(typed(b"\xff\xfb\x1f"), [Typed::OffersWindow]);
        let window = Typed::TerminalSize(TerminalSize { columns: 255, lines: 50 });
        assert_eq!(typed(b"\xff\xfa\x1f\x00\xff\xff\x00\x32\xff\xf0"), [window]);
    }

    #[test]
    fn a_window_that_can_not_be_is_taken_as_the_nearest_that_can() {
        let told = |columns, lines| [Typed::TerminalSize(TerminalSize { columns, lines })];
        assert_eq!(typed(b"\xff\xfa\x1f\x00\x00\x00\x00\xff\xf0"), told(80, 24));
        assert_eq!(typed(b"\xff\xfa\x1f\x00\x01\x00\x01\xff\xf0"), told(40, 12));
        assert_eq!(typed(b"\xff\xfa\x1f\xfe\xfe\xfe\xfe\xff\xf0"), told(400, 200));
        assert_eq!(typed(b"\xff\xfa\x1f\x00\x50\x00\xff\xf0"), []);
        assert_eq!(typed(b"\xff\xfa\x1f\x00\x50\x00\x18\x00\xff\xf0"), []);
    }

    #[test]
    fn a_line_without_end_is_refused_whatever_it_is_made_of() {
        for bytes in [&b"x"[..], b"x\x00", b"\xff\xfa\x1f", b"x\xff\xfb\x01"] {
            let mut keyboard = Keyboard::default();
            let mut stream = bytes.iter().chain(bytes.last()).cycle();
            let error =
                (0..=LINE_BYTES_MAX).find_map(|_| keyboard.press(*stream.next().unwrap()).err());
            assert_eq!(error, Some(WireError::TooLong("line", LINE_BYTES_MAX)), "{bytes:?}");
            assert!(keyboard.line.len() + keyboard.option.len() <= LINE_BYTES_MAX);
        }
    }

    #[test]
    fn nothing_is_pending_between_lines() {
        let mut keyboard = Keyboard::default();
        for byte in b"\xff\xfb\x01ab\n\xff\xf1" {
            keyboard.press(*byte).unwrap();
        }
        assert_eq!(keyboard.pending_bytes(), 0);
        keyboard.press(b'a').unwrap();
        assert_eq!(keyboard.pending_bytes(), 1);
    }
}
