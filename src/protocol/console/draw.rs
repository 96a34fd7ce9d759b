//! What the decoder tells the encoder to draw, as it travels through the core in a tag.

use crate::words::command::Tag;

use super::TerminalSize;

/// What to draw when the request's answer is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Draw {
    /// The cleared screen with the title bar.
    Greeting,
    /// No escape sequences from now on.
    Plain,
    /// Only the prompt.
    Prompt,
    /// The cleared screen.
    Clear,
    /// The list of commands.
    Help,
    /// The help of one command.
    HelpFor(String),
    /// A command that does not exist, and the list.
    Unknown(String),
    /// What is wrong with the line.
    Mistake(String),
    /// The peer's terminal has this size.
    TerminalSize(TerminalSize),
    /// Telnet's word for: tell me your size.
    AskWindow,
    /// The overview.
    Monitor,
    /// The queues that match this.
    Search(String),
    /// The messages of this queue.
    Show(String),
    /// `OK`.
    Done,
    /// The same for a message that was kicked.
    KickedMessage,
    /// The daemon's figures.
    Status,
    /// The end of monitor or show.
    Left,
    /// The end of the session.
    Goodbye,
}

impl Draw {
    /// As a tag: one byte for what, and the text or the numbers that go with it.
    pub(super) fn tag(&self) -> Tag {
        let (kind, text) = match self {
            Draw::Greeting => (b'g', ""),
            Draw::Plain => (b'p', ""),
            Draw::Prompt => (b'>', ""),
            Draw::Clear => (b'c', ""),
            Draw::Help => (b'h', ""),
            Draw::HelpFor(command) => (b'H', command.as_str()),
            Draw::Unknown(command) => (b'u', command.as_str()),
            Draw::Mistake(text) => (b'!', text.as_str()),
            Draw::TerminalSize(window) => return window_tag(*window),
            Draw::AskWindow => (b'W', ""),
            Draw::Monitor => (b'm', ""),
            Draw::Search(pattern) => (b's', pattern.as_str()),
            Draw::Show(queue) => (b'q', queue.as_str()),
            Draw::Done => (b'o', ""),
            Draw::KickedMessage => (b'k', ""),
            Draw::Status => (b'S', ""),
            Draw::Left => (b'l', ""),
            Draw::Goodbye => (b'x', ""),
        };
        if text.is_empty() {
            return Tag::bytes(&[kind]);
        }
        Tag::bytes(&[&[kind], text.as_bytes()].concat())
    }

    /// What a tag says; `None` when it is none of ours.
    pub(super) fn of(tag: &Tag) -> Option<Draw> {
        let Tag::Bytes(bytes) = tag else { return None };
        let (kind, rest) = bytes.as_slice().split_first()?;
        let text = || String::from_utf8_lossy(rest).into_owned();
        Some(match kind {
            b'g' => Draw::Greeting,
            b'p' => Draw::Plain,
            b'>' => Draw::Prompt,
            b'c' => Draw::Clear,
            b'h' => Draw::Help,
            b'H' => Draw::HelpFor(text()),
            b'u' => Draw::Unknown(text()),
            b'!' => Draw::Mistake(text()),
            b'w' => Draw::TerminalSize(window_of(rest)?),
            b'W' => Draw::AskWindow,
            b'm' => Draw::Monitor,
            b's' => Draw::Search(text()),
            b'q' => Draw::Show(text()),
            b'o' => Draw::Done,
            b'k' => Draw::KickedMessage,
            b'S' => Draw::Status,
            b'l' => Draw::Left,
            b'x' => Draw::Goodbye,
            _ => return None,
        })
    }
}

/// Two numbers of two bytes: a window is never larger than a screen can be.
fn window_tag(window: TerminalSize) -> Tag {
    let number = |size: usize| u16::try_from(size).unwrap_or(u16::MAX).to_be_bytes();
    let ([c1, c2], [l1, l2]) = (number(window.columns), number(window.lines));
    Tag::bytes(&[b'w', c1, c2, l1, l2])
}

fn window_of(bytes: &[u8]) -> Option<TerminalSize> {
    let [c1, c2, l1, l2] = *<&[u8; 4]>::try_from(bytes).ok()?;
    let number = |bytes| usize::from(u16::from_be_bytes(bytes));
    Some(TerminalSize { columns: number([c1, c2]), lines: number([l1, l2]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_back_from_its_tag() {
        for draw in [
            Draw::Greeting,
            Draw::Plain,
            Draw::Prompt,
            Draw::Clear,
            Draw::Help,
            Draw::HelpFor("flush".into()),
            Draw::Unknown("größe".into()),
            Draw::Mistake(String::new()),
            Draw::TerminalSize(TerminalSize { columns: 132, lines: 50 }),
            Draw::AskWindow,
            Draw::Monitor,
            Draw::Search("*".into()),
            Draw::Show("my queue".into()),
            Draw::Done,
            Draw::KickedMessage,
            Draw::Status,
            Draw::Left,
            Draw::Goodbye,
        ] {
            assert_eq!(Draw::of(&draw.tag()), Some(draw));
        }
    }

    #[test]
    fn other_tags_are_none_of_ours() {
        for tag in [Tag::None, Tag::Code(1), Tag::bytes(b""), Tag::bytes(b"z"), Tag::bytes(b"w12")]
        {
            assert_eq!(Draw::of(&tag), None);
        }
    }
}
