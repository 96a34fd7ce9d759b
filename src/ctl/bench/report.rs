//! What is printed at the end, for people and as JSON.

use std::fmt::Write;

use super::conversation::Tally;
use super::options::{Plan, Work};

/// The shares of all latencies that are told.
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// The figures of a run.
#[derive(Debug)]
pub struct Report {
    head: String,
    json_head: String,
    unit: &'static str,
    what: &'static str,
    total: Tally,
    seconds: f64,
}

impl Report {
    /// Checks that all has come and works the figures out.
    pub fn new(plan: &Plan, mut total: Tally, began_us: u64) -> Report {
        if matches!(plan.work, Work::Cycle | Work::Pass) {
            let sent = std::mem::take(&mut total.sent_by);
            total.ledger.settle(&sent);
        }
        let connections = match plan.work {
            Work::Pass => plan.producers + plan.consumers,
            _ => plan.connections,
        };
        let (protocol, work) = (plan.protocol.name(), plan.work.name());
        let (depth, size) = (plan.depth, plan.size);
        // Put together again from its shares, without what rounding left behind.
        let rate = plan.rate.map(|rate| (rate * plan.producers as f64 * 1e3).round() / 1e3);
        Report {
            head: format!(
                "{protocol}, {work}: {connections} connections, {depth} at a time, \
                 {size} bytes, {} queues, {}",
                plan.queues,
                rate.map_or("as fast as possible".to_owned(), |rate| format!("{rate} a second"))
            ),
            json_head: format!(
                "\"protocol\":\"{protocol}\",\"work\":\"{work}\",\"connections\":{connections},\
                 \"depth\":{depth},\"size\":{size},\"queues\":{},\"rate\":{}",
                plan.queues,
                rate.map_or("null".to_owned(), |rate| rate.to_string())
            ),
            unit: plan.work.unit(),
            what: what_is_timed(plan.work),
            seconds: total.last_us.saturating_sub(began_us).max(1) as f64 / 1e6,
            total,
        }
    }

    /// Whether everything came as it should.
    pub fn is_sound(&self) -> bool {
        self.total.ledger.wrong().0 == 0
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let total = &self.total;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", self.head);
        let _ = writeln!(
            text,
            "{} {} in {:.2} s: {:.0} a second",
            total.done,
            self.unit,
            self.seconds,
            self.rate()
        );
        let _ = write!(text, "{}: mean {}", self.what, duration(total.latencies.mean_us()));
        for (name, share) in QUANTILES {
            let _ =
                write!(text, ", {name} {}", duration(total.latencies.quantile_us(share) as f64));
        }
        let _ = write!(text, ", max {}", duration(total.latencies.max_us() as f64));
        text
    }

    /// What was wrong, where something was.
    pub fn complaint(&self) -> String {
        let (wrong, told) = self.total.ledger.wrong();
        format!("phpmqctl: WRONG: {wrong} faults, among them:\n  {}", told.join("\n  "))
    }

    /// For programs.
    pub fn json(&self) -> String {
        let total = &self.total;
        let mut text = format!(
            "{{{},\"{}\":{},\"seconds\":{:.6},\"per_second\":{:.1},\"mean_us\":{:.1}",
            self.json_head,
            self.unit,
            total.done,
            self.seconds,
            self.rate(),
            total.latencies.mean_us()
        );
        for (name, share) in QUANTILES {
            let name = name.replace('.', "_");
            let _ = write!(text, ",\"{name}_us\":{}", total.latencies.quantile_us(share));
        }
        let (wrong, told) = total.ledger.wrong();
        let _ = write!(text, ",\"max_us\":{},\"faults\":{wrong}", total.latencies.max_us());
        // The words are ours and hold nothing that JSON would want escaped.
        let told: Vec<String> = told.iter().map(|fault| format!("\"{fault}\"")).collect();
        let _ = write!(text, ",\"first_faults\":[{}]}}", told.join(","));
        text
    }

    fn rate(&self) -> f64 {
        self.total.done as f64 / self.seconds
    }
}

fn what_is_timed(work: Work) -> &'static str {
    match work {
        Work::Cycle => "from put to delete",
        Work::Put => "from put to reply",
        Work::Pass => "from put to receipt",
        Work::Poll => "from command to reply",
        Work::Connect => "from connecting to reply",
    }
}

/// Microseconds in a unit that people read.
fn duration(us: f64) -> String {
    match us {
        ..1e3 => format!("{us:.0} us"),
        ..1e6 => format!("{:.2} ms", us / 1e3),
        _ => format!("{:.2} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_in_a_unit_that_fits() {
        assert_eq!(duration(12.0), "12 us");
        assert_eq!(duration(1_234.0), "1.23 ms");
        assert_eq!(duration(2_500_000.0), "2.50 s");
    }
}
