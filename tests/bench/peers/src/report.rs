//! What is printed at the end: the fields of `phpmqctl bench --json`, by the same names.

use crate::options::Plan;
use crate::round::Tally;

/// The figures of a run.
#[derive(Debug)]
pub struct Report {
    head: String,
    json_head: String,
    tally: Tally,
    seconds: f64,
}

impl Report {
    /// Works the figures out.
    pub fn new(plan: &Plan, tally: Tally) -> Report {
        let (peer, connections) = (plan.peer.name(), plan.connections);
        let (depth, size) = (plan.depth, plan.size);
        let seconds = tally.last_us.saturating_sub(tally.began_us).max(1) as f64 / 1e6;
        Report {
            head: format!(
                "{peer}, cycle: {connections} connections, {depth} at a time, {size} bytes"
            ),
            json_head: format!(
                "\"protocol\":\"{peer}\",\"work\":\"cycle\",\"connections\":{connections},\
                 \"depth\":{depth},\"size\":{size},\"queues\":1"
            ),
            tally,
            seconds,
        }
    }

    /// Whether everything came as it should.
    pub fn is_sound(&self) -> bool {
        self.tally.ledger.wrong().0 == 0
    }

    fn rate(&self) -> f64 {
        self.tally.done as f64 / self.seconds
    }

    fn quantiles_us(&self) -> [u64; 3] {
        [0.5, 0.99, 0.999].map(|share| self.tally.latencies.quantile_us(share))
    }

    /// For people.
    pub fn text(&self) -> String {
        let [p50, p99, p999] = self.quantiles_us();
        let mut text = format!(
            "{}\n{} messages in {:.2} s: {:.0} a second\nfrom put to acknowledged: p50 {p50} us, \
             p99 {p99} us, p99.9 {p999} us, max {} us",
            self.head,
            self.tally.done,
            self.seconds,
            self.rate(),
            self.tally.latencies.max_us()
        );
        let (wrong, told) = self.tally.ledger.wrong();
        if wrong > 0 {
            text.push_str(&format!("\nWRONG: {wrong} faults, among them:\n  "));
            text.push_str(&told.join("\n  "));
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> String {
        let [p50, p99, p999] = self.quantiles_us();
        let (wrong, told) = self.tally.ledger.wrong();
        // The words are ours and hold nothing that JSON would want escaped.
        let told: Vec<String> = told.iter().map(|fault| format!("\"{fault}\"")).collect();
        format!(
            "{{{},\"messages\":{},\"seconds\":{:.6},\"per_second\":{:.1},\"mean_us\":{:.1},\
             \"p50_us\":{p50},\"p99_us\":{p99},\"p99_9_us\":{p999},\"max_us\":{},\
             \"faults\":{wrong},\"first_faults\":[{}]}}",
            self.json_head,
            self.tally.done,
            self.seconds,
            self.rate(),
            self.tally.latencies.mean_us(),
            self.tally.latencies.max_us(),
            told.join(",")
        )
    }
}
