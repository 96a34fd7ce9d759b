//! What each verb asks of the daemon.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use serde_json::{Value, json};

use super::fault::Fault;
use super::options::{
    Common, Delete, Flush, Kick, Message, Order, Pause, Put, Queue, Queues, Status, Verb,
};
use super::server::{Content, Server, encoded, queue_path};
use super::show;
use crate::config::values::Millis;

/// Queues that are asked for at a time.
const PAGE_ITEMS: u64 = 1_000;
/// The exit code when the answer is no.
const EXIT_NO: u8 = 1;

/// Does what the verb says: the exit code.
pub(in crate::ctl) fn run(verb: &Verb) -> u8 {
    let done = match verb {
        Verb::Status(options) => status(options),
        Verb::Queues(options) => queues(options),
        Verb::Queue(options) => queue(options),
        Verb::Put(options) => put(options),
        Verb::Flush(options) => flush(options),
        Verb::Pause(options) => pause(options),
        Verb::Resume(options) => resume(options),
        Verb::Kick(options) => kick(options),
        Verb::Delete(options) => delete(options),
        Verb::Message(options) => message(options),
    };
    done.unwrap_or_else(|fault| {
        // Whoever has closed standard output wants to hear no more.
        if !matches!(&fault, Fault::Local(error) if error.kind() == io::ErrorKind::BrokenPipe) {
            eprintln!("phpmqctl: {fault}");
        }
        fault.exit_code()
    })
}

type Shown = fn(&Value, &mut dyn Write) -> io::Result<()>;

/// Prints an answer as it is, or as people read it.
fn print(common: &Common, answer: &Value, show: Shown) -> Result<u8, Fault> {
    let mut out = io::stdout().lock();
    let printed = if common.json { writeln!(out, "{answer}") } else { show(answer, &mut out) };
    printed.and_then(|()| out.flush()).map_err(Fault::Local)?;
    Ok(0)
}

fn status(options: &Status) -> Result<u8, Fault> {
    let server = Server::of(&options.common)?;
    if options.ready {
        return match server.json("GET", "/readyz", Content::None) {
            Ok(_) => Ok(0),
            Err(Fault::Problem(503, _)) => Ok(EXIT_NO),
            Err(fault) => Err(fault),
        };
    }
    let answer = server.json("GET", "/v1/status", Content::None)?;
    print(&options.common, &answer, show::status)
}

fn queues(options: &Queues) -> Result<u8, Fault> {
    let server = Server::of(&options.common)?;
    let sort = match options.sort {
        Order::Name => "name",
        Order::Ready => "-ready",
        Order::Reserved => "-reserved",
        Order::Delayed => "-delayed",
        Order::Buried => "-buried",
        Order::Messages => "-messages",
        Order::Bytes => "-bytes",
        Order::Oldest => "-oldest",
    };
    let mut wanted = format!("sort={sort}");
    for (name, value) in [("name", &options.pattern), ("has", &options.has)] {
        if let Some(value) = value {
            wanted += &format!("&{name}={}", encoded(value));
        }
    }
    let (mut left, mut cursor) = (options.count.unwrap_or(u64::MAX), String::new());
    while left > 0 {
        let limit = left.min(PAGE_ITEMS);
        let path = format!("/v1/queues?{wanted}&limit={limit}{cursor}");
        let mut page = server.json("GET", &path, Content::None)?;
        let items = page.get_mut("items").and_then(Value::as_array_mut);
        let items = items.map(std::mem::take).ok_or(Fault::NotAnAnswer("no items"))?;
        print_queues(options.common.json, &items).map_err(Fault::Local)?;
        left -= items.len().min(usize::try_from(limit).unwrap_or(usize::MAX)) as u64;
        let Some(next) = page.get("next").and_then(Value::as_str) else { break };
        cursor = format!("&cursor={}", encoded(next));
    }
    Ok(0)
}

/// A page of queues: an answer's item a line, or as people read it.
fn print_queues(is_json: bool, items: &[Value]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if is_json {
        items.iter().try_for_each(|item| writeln!(out, "{item}"))?;
    } else {
        show::queues(items, &mut out)?;
    }
    out.flush()
}

fn queue(options: &Queue) -> Result<u8, Fault> {
    let server = Server::of(&options.common)?;
    let answer = server.json("GET", &queue_path(&options.name), Content::None)?;
    print(&options.common, &answer, show::queue)
}

fn put(options: &Put) -> Result<u8, Fault> {
    let server = Server::of(&options.common)?;
    let body = match options.body.as_deref() {
        Some(text) if text != "-" => text.as_bytes().to_vec(),
        _ => {
            let mut body = Vec::new();
            io::stdin().lock().read_to_end(&mut body).map_err(Fault::Local)?;
            body
        }
    };
    let mut query = Vec::new();
    if let Some(priority) = options.priority {
        query.push(format!("priority={priority}"));
    }
    for (name, value) in
        [("delay", &options.delay), ("ttl", &options.ttl), ("time_to_run", &options.time_to_run)]
    {
        query.extend(value.as_ref().map(|Millis(millis)| format!("{name}={millis}")));
    }
    for attribute in &options.attribute {
        let (name, value) = attribute.split_once('=').unwrap_or((attribute, ""));
        query.push(format!("attribute.{}={}", encoded(name), encoded(value)));
    }
    if options.sync {
        query.push("durability=sync".to_owned());
    }
    let path = format!("{}/messages?{}", queue_path(&options.name), query.join("&"));
    let answer = server.json("POST", &path, Content::Bytes(&body))?;
    print(&options.common, &answer, |answer, out| {
        writeln!(out, "{}", answer.pointer("/id").and_then(Value::as_str).unwrap_or_default())
    })
}

fn flush(options: &Flush) -> Result<u8, Fault> {
    let server = Server::of(&options.common)?;
    let path = format!("{}/flush", queue_path(&options.name));
    if !options.yes {
        let dry = server.json("POST", &path, Content::Json(json!({"dry_run": true})))?;
        let count = dry.get("removed").and_then(Value::as_u64).unwrap_or(0);
        agree(&format!("{} of the queue {}", messages(count), options.name))?;
    }
    let answer = server.json("POST", &path, Content::Json(json!({})))?;
    print(&options.common, &answer, |answer, out| counted(answer, "removed", out))
}

fn messages(count: u64) -> String {
    format!("{count} message{}", if count == 1 { "" } else { "s" })
}

/// Asks whoever sits at the terminal.
fn agree(what: &str) -> Result<(), Fault> {
    let what = crate::words::printable::safe(what);
    if !io::stdin().is_terminal() {
        return Err(Fault::NotAgreed(what));
    }
    eprint!("Remove {what}? This cannot be undone. [y/N] ");
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(Fault::Local)?;
    match line.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Fault::NotAgreed(what)),
    }
}

fn counted(answer: &Value, name: &str, out: &mut dyn Write) -> io::Result<()> {
    let count = answer.get(name).and_then(Value::as_u64).unwrap_or(0);
    writeln!(out, "{count} {name}")
}

fn pause(options: &Pause) -> Result<u8, Fault> {
    let server = Server::of(&options.common)?;
    let path = format!("{}/pause", queue_path(&options.name));
    let for_ms = options.lasting.map(|Millis(millis)| millis);
    let answer = server.json("POST", &path, Content::Json(json!({"for_ms": for_ms})))?;
    print(&options.common, &answer, show::queue)
}

fn resume(options: &Queue) -> Result<u8, Fault> {
    let server = Server::of(&options.common)?;
    let path = format!("{}/resume", queue_path(&options.name));
    let answer = server.json("POST", &path, Content::None)?;
    print(&options.common, &answer, show::queue)
}

fn kick(options: &Kick) -> Result<u8, Fault> {
    let server = Server::of(&options.common)?;
    let path = format!("{}/kick", queue_path(&options.name));
    let answer = server.json("POST", &path, Content::Json(json!({"max": options.max})))?;
    print(&options.common, &answer, |answer, out| counted(answer, "kicked", out))
}

fn delete(options: &Delete) -> Result<u8, Fault> {
    let server = Server::of(&options.common)?;
    if !options.yes {
        agree(&messages(options.ids.len() as u64))?;
    }
    let mut exit = 0;
    for id in &options.ids {
        match server.json("DELETE", &format!("/v1/messages/{id}"), Content::None) {
            Ok(answer) => {
                print(&options.common, &answer, |answer, out| counted(answer, "removed", out))?;
            }
            // The others may be there.
            Err(fault @ Fault::Problem(404 | 409, _)) => {
                eprintln!("phpmqctl: {id}: {fault}");
                exit = EXIT_NO;
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(exit)
}

fn message(options: &Message) -> Result<u8, Fault> {
    let server = Server::of(&options.common)?;
    if options.body {
        let path = format!("/v1/messages/{}/body", options.id);
        let body = server.ask("GET", &path, Content::None)?;
        let mut out = io::stdout().lock();
        out.write_all(&body).and_then(|()| out.flush()).map_err(Fault::Local)?;
        return Ok(0);
    }
    let path = format!("/v1/messages/{}", options.id);
    let answer = server.json("GET", &path, Content::None)?;
    print(&options.common, &answer, show::message)
}
