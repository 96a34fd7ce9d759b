//! What the decoder tells the encoder to draw, as it travels through the core in a tag.

use crate::words::command::Tag;

use super::Window;

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
    Window(Window),
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
    /// The daemon's figures.
    Status,
    /// The end of monitor or show.
    Left,
    /// The end of the session.
    Goodbye,
}

impl Draw {
    /// As a tag: a letter for what, and the text that goes with it.
    pub(super) fn tag(&self) -> Tag {
        let (letter, text) = match self {
            Draw::Greeting => ('g', ""),
            Draw::Plain => ('p', ""),
            Draw::Prompt => ('>', ""),
            Draw::Clear => ('c', ""),
            Draw::Help => ('h', ""),
            Draw::HelpFor(command) => ('H', command.as_str()),
            Draw::Unknown(command) => ('u', command.as_str()),
            Draw::Mistake(text) => ('!', text.as_str()),
            Draw::Window(Window { columns, lines }) => {
                return Tag::Text(format!("w{columns} {lines}").into());
            }
            Draw::AskWindow => ('W', ""),
            Draw::Monitor => ('m', ""),
            Draw::Search(pattern) => ('s', pattern.as_str()),
            Draw::Show(queue) => ('q', queue.as_str()),
            Draw::Done => ('o', ""),
            Draw::Status => ('S', ""),
            Draw::Left => ('l', ""),
            Draw::Goodbye => ('x', ""),
        };
        Tag::Text(format!("{letter}{text}").into())
    }

    /// What a tag says; `None` when it is none of ours.
    pub(super) fn of(tag: &Tag) -> Option<Draw> {
        let Tag::Text(text) = tag else { return None };
        let mut characters = text.chars();
        let letter = characters.next()?;
        let text = characters.as_str();
        Some(match letter {
            'g' => Draw::Greeting,
            'p' => Draw::Plain,
            '>' => Draw::Prompt,
            'c' => Draw::Clear,
            'h' => Draw::Help,
            'H' => Draw::HelpFor(text.into()),
            'u' => Draw::Unknown(text.into()),
            '!' => Draw::Mistake(text.into()),
            'w' => {
                let (columns, lines) = text.split_once(' ')?;
                let (columns, lines) = (columns.parse().ok()?, lines.parse().ok()?);
                Draw::Window(Window { columns, lines })
            }
            'W' => Draw::AskWindow,
            'm' => Draw::Monitor,
            's' => Draw::Search(text.into()),
            'q' => Draw::Show(text.into()),
            'o' => Draw::Done,
            'S' => Draw::Status,
            'l' => Draw::Left,
            'x' => Draw::Goodbye,
            _ => return None,
        })
    }
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
            Draw::Window(Window { columns: 132, lines: 50 }),
            Draw::AskWindow,
            Draw::Monitor,
            Draw::Search("*".into()),
            Draw::Show("my queue".into()),
            Draw::Done,
            Draw::Status,
            Draw::Left,
            Draw::Goodbye,
        ] {
            assert_eq!(Draw::of(&draw.tag()), Some(draw));
        }
    }

    #[test]
    fn other_tags_are_none_of_ours() {
        for tag in [Tag::None, Tag::Code(1), Tag::Text("".into()), Tag::Text("z".into())] {
            assert_eq!(Draw::of(&tag), None);
        }
    }
}
