//! What each call asks of the core, and what is to be said of the replies.

use super::cursor;
use super::json::Members;
use super::note::{Answer, ContentType, Done, Say};
use super::path;
use super::problem::{Code, Problem};
use super::query::Query;
use super::render;
use super::{PAGE_ITEMS, PAGE_ITEMS_MAX};
use crate::words::change::{Attributes, MessageState};
use crate::words::command::{Command, Put, Target};
use crate::words::durability::Durability;
use crate::words::ids::{MessageId, QueueName};
use crate::words::settings::QueueSetting;
use crate::words::statistics::{QueueOrder, QueueSelection};

/// What a row of the table does with a whole request.
pub(super) type Call = fn(&Asked, Vec<u8>, &mut Plan) -> Result<(), Problem>;

/// A request without its body.
#[derive(Debug)]
pub(super) struct Asked {
    /// The segments of its path in the places of braces.
    pub(super) names: Vec<String>,
    /// What stands behind the question mark.
    pub(super) query: String,
    pub(super) content_type: Option<String>,
}

/// What is asked of the core, step by step.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) steps: Vec<(Say, Command)>,
    pub(super) durability: Option<Durability>,
}

impl Plan {
    fn ask(&mut self, say: Say, command: Command) {
        self.steps.push((say, command));
    }
}

impl Asked {
    fn name(&self) -> &str {
        self.names.first().map_or("", |name| name)
    }

    fn queue(&self) -> Result<QueueName, Problem> {
        path::queue(self.name())
    }

    fn message(&self) -> Result<MessageId, Problem> {
        path::message(self.name())
    }

    fn query(&self) -> Result<Query, Problem> {
        Query::parse(&self.query)
    }

    /// The call has no parameters.
    fn no_query(&self) -> Result<(), Problem> {
        self.query()?.end()
    }

    /// The call has only the parameter that every call has which changes something.
    fn durability(&self, plan: &mut Plan) -> Result<(), Problem> {
        let mut query = self.query()?;
        plan.durability = query.durability()?;
        query.end()
    }
}

pub(super) fn health(asked: &Asked, _: Vec<u8>, plan: &mut Plan) -> Result<(), Problem> {
    asked.no_query()?;
    plan.ask(Say::Health, Command::Echo);
    Ok(())
}

pub(super) fn readiness(asked: &Asked, _: Vec<u8>, plan: &mut Plan) -> Result<(), Problem> {
    asked.no_query()?;
    plan.ask(Say::Readiness, Command::Statistics);
    Ok(())
}

pub(super) fn status(asked: &Asked, _: Vec<u8>, plan: &mut Plan) -> Result<(), Problem> {
    asked.no_query()?;
    plan.ask(Say::Status, Command::Statistics);
    Ok(())
}

pub(super) fn problem(asked: &Asked, _: Vec<u8>, plan: &mut Plan) -> Result<(), Problem> {
    asked.no_query()?;
    let code = Code::of(asked.name());
    let code = code.ok_or_else(|| Problem::new(Code::NoSuchPath, "there is no such code"))?;
    plan.ask(Say::Answer(code.page()), Command::Echo);
    Ok(())
}

/// The interface as a document, for people and for programs that make clients of it.
pub(super) fn openapi(asked: &Asked, _: Vec<u8>, plan: &mut Plan) -> Result<(), Problem> {
    asked.no_query()?;
    let answer = Answer::new(200, ContentType::Json, include_bytes!("openapi.json"));
    plan.ask(Say::Answer(answer), Command::Echo);
    Ok(())
}

pub(super) fn queue(asked: &Asked, _: Vec<u8>, plan: &mut Plan) -> Result<(), Problem> {
    asked.no_query()?;
    plan.ask(Say::Queue, Command::QueueStatistics(asked.queue()?));
    Ok(())
}

/// The orders that queues can be listed in; those with a minus have most first.
const ORDERS: [(&str, QueueOrder); 8] = [
    ("name", QueueOrder::Name),
    ("-ready", QueueOrder::Ready),
    ("-reserved", QueueOrder::Reserved),
    ("-delayed", QueueOrder::Delayed),
    ("-buried", QueueOrder::Buried),
    ("-messages", QueueOrder::Messages),
    ("-bytes", QueueOrder::Bytes),
    ("-oldest", QueueOrder::Oldest),
];

pub(super) fn queues(asked: &Asked, _: Vec<u8>, plan: &mut Plan) -> Result<(), Problem> {
    let mut query = asked.query()?;
    let pattern = query.text("name")?.map(String::into_boxed_str);
    let has = states(query.text("has")?.as_deref())?;
    let order = query.word("sort", &ORDERS, QueueOrder::Name)?;
    let limit = query.number("limit", PAGE_ITEMS_MAX)?.unwrap_or(PAGE_ITEMS);
    let after = cursor::read(query.bytes("cursor").as_deref())?;
    query.end()?;
    if limit == 0 {
        return Err(Problem::parameter("limit", "a page has at least one item"));
    }
    let count = usize::try_from(limit).unwrap_or(usize::MAX);
    let wanted = QueueSelection { pattern, has, order, after, count };
    plan.ask(Say::Queues, Command::SelectQueues(Box::new(wanted)));
    Ok(())
}

/// States with commas between them.
fn states(text: Option<&str>) -> Result<Vec<MessageState>, Problem> {
    let words = text.unwrap_or_default().split(',').filter(|word| !word.is_empty());
    let states = words.map(|word| {
        let text = "this is not a list of ready, reserved, delayed and buried";
        render::state_of(word).ok_or_else(|| Problem::parameter("has", text))
    });
    states.collect()
}

pub(super) fn put(asked: &Asked, body: Vec<u8>, plan: &mut Plan) -> Result<(), Problem> {
    let queue = asked.queue()?;
    let mut query = asked.query()?;
    plan.durability = query.durability()?;
    let priority = query.number("priority", u64::from(u32::MAX))?;
    let delay_ms = query.duration("delay", 0)?.unwrap_or(0);
    let time_to_run_ms = query.duration("time_to_run", 1)?;
    let time_to_live_ms = query.duration("ttl", 1)?;
    let attributes = attributes(asked, &mut query)?;
    for name in ["at", "key", "wait"] {
        if query.bytes(name).is_some() {
            let text = format!("the parameter {name} is not supported yet");
            return Err(Problem::new(Code::NotSupported, text).with("name", name));
        }
    }
    query.end()?;
    let say = Say::Put { queue: queue.as_str().to_owned(), is_delayed: delay_ms > 0 };
    let put = Put {
        queue: Target::Named(queue),
        priority: priority.and_then(|priority| u32::try_from(priority).ok()),
        delay_ms,
        time_to_run_ms,
        time_to_live_ms,
        attributes,
        body: body.into(),
    };
    plan.ask(say, Command::Put(put));
    Ok(())
}

/// What goes with a message: its type, unless that says nothing or is what curl says by itself, and
/// what the query names.
fn attributes(asked: &Asked, query: &mut Query) -> Result<Attributes, Problem> {
    let mut attributes = Attributes::default();
    let says_nothing = ["application/octet-stream", "application/x-www-form-urlencoded"];
    let kept = asked.content_type.as_deref().filter(|content_type| {
        !says_nothing.iter().any(|nothing| content_type.eq_ignore_ascii_case(nothing))
    });
    if let Some(content_type) = kept {
        attributes.push("content-type", content_type.as_bytes());
    }
    for (name, value) in query.all_below("attribute.") {
        if name.is_empty() || name.len() > 255 || name.chars().any(char::is_control) {
            let text = "an attribute's name has 1 to 255 bytes and no control characters";
            return Err(Problem::parameter(&format!("attribute.{name}"), text));
        }
        attributes.push(&name, &value);
    }
    Ok(attributes)
}

pub(super) fn pause(asked: &Asked, body: Vec<u8>, plan: &mut Plan) -> Result<(), Problem> {
    asked.durability(plan)?;
    let queue = asked.queue()?;
    let mut members = Members::parse(&body)?;
    let for_ms = members.number("for_ms");
    members.refuse("reason")?;
    members.end()?;
    let command = match for_ms {
        Some(for_ms) => Command::Pause { queue: queue.clone(), for_ms },
        None => Command::Configure { queue: queue.clone(), setting: QueueSetting::Paused(true) },
    };
    plan.ask(Say::First, command);
    show_changed(queue, plan);
    Ok(())
}

pub(super) fn resume(asked: &Asked, body: Vec<u8>, plan: &mut Plan) -> Result<(), Problem> {
    asked.durability(plan)?;
    let queue = asked.queue()?;
    Members::parse(&body)?.end()?;
    // Either kind of pause.
    plan.ask(Say::First, Command::Pause { queue: queue.clone(), for_ms: 0 });
    let setting = QueueSetting::Paused(false);
    plan.ask(Say::First, Command::Configure { queue: queue.clone(), setting });
    show_changed(queue, plan);
    Ok(())
}

fn show_changed(queue: QueueName, plan: &mut Plan) {
    let say = Say::ChangedQueue(queue.as_str().to_owned());
    plan.ask(say, Command::QueueStatistics(queue));
}

pub(super) fn kick(asked: &Asked, body: Vec<u8>, plan: &mut Plan) -> Result<(), Problem> {
    asked.durability(plan)?;
    let queue = Target::Named(asked.queue()?);
    let mut members = Members::parse(&body)?;
    members.refuse("states")?;
    let count = members.number("max").unwrap_or(u64::MAX);
    members.end()?;
    plan.ask(Say::Kicked, Command::Kick { queue, count });
    Ok(())
}

pub(super) fn flush(asked: &Asked, body: Vec<u8>, plan: &mut Plan) -> Result<(), Problem> {
    asked.durability(plan)?;
    let queue = asked.queue()?;
    let mut members = Members::parse(&body)?;
    members.refuse("states")?;
    members.refuse("max")?;
    let is_dry = members.flag("dry_run").unwrap_or(false);
    members.end()?;
    if is_dry {
        plan.ask(Say::WouldRemove, Command::QueueStatistics(queue));
    } else {
        plan.ask(Say::Removed, Command::Flush(queue));
    }
    Ok(())
}

pub(super) fn delete_queue(asked: &Asked, _: Vec<u8>, plan: &mut Plan) -> Result<(), Problem> {
    let queue = asked.queue()?;
    let mut query = asked.query()?;
    plan.durability = query.durability()?;
    let only_if_empty = query.word("if", &[("empty", true), ("any", false)], true)?;
    query.end()?;
    plan.ask(Say::Removed, Command::RemoveQueue { queue, only_if_empty });
    Ok(())
}

pub(super) fn message(asked: &Asked, _: Vec<u8>, plan: &mut Plan) -> Result<(), Problem> {
    asked.no_query()?;
    let id = asked.message()?;
    plan.ask(Say::Figures, Command::MessageStatistics(id));
    plan.ask(Say::Message, Command::Peek(id));
    Ok(())
}

pub(super) fn content(asked: &Asked, _: Vec<u8>, plan: &mut Plan) -> Result<(), Problem> {
    asked.no_query()?;
    plan.ask(Say::Content, Command::Peek(asked.message()?));
    Ok(())
}

pub(super) fn delete_message(asked: &Asked, _: Vec<u8>, plan: &mut Plan) -> Result<(), Problem> {
    let mut query = asked.query()?;
    if query.bytes("force").is_some() {
        return Err(Problem::new(Code::NotSupported, "force is not supported yet"));
    }
    plan.durability = query.durability()?;
    query.end()?;
    let id = asked.message()?;
    change_message(plan, Done::Removed, Command::Remove(id), id);
    Ok(())
}

pub(super) fn kick_message(asked: &Asked, body: Vec<u8>, plan: &mut Plan) -> Result<(), Problem> {
    asked.durability(plan)?;
    let id = asked.message()?;
    let mut members = Members::parse(&body)?;
    members.refuse("reason")?;
    members.end()?;
    change_message(plan, Done::Kicked, Command::KickMessage(id), id);
    Ok(())
}

pub(super) fn bury_message(asked: &Asked, body: Vec<u8>, plan: &mut Plan) -> Result<(), Problem> {
    let mut query = asked.query()?;
    if query.bytes("lease").is_some() {
        return Err(Problem::new(Code::NotSupported, "leases are not supported yet"));
    }
    plan.durability = query.durability()?;
    query.end()?;
    let id = asked.message()?;
    let mut members = Members::parse(&body)?;
    for name in ["lease", "reason", "priority", "force"] {
        members.refuse(name)?;
    }
    members.end()?;
    change_message(plan, Done::Buried, Command::SetAside(id), id);
    Ok(())
}

/// Changes a message; where that is not possible, its figures say why.
fn change_message(plan: &mut Plan, done: Done, command: Command, id: MessageId) {
    plan.ask(Say::Done(done), command);
    plan.ask(Say::WhyNot, Command::MessageStatistics(id));
}
