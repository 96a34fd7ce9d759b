//! Latencies, counted in buckets that are never wider than 1/64 of what they hold.

/// Buckets per doubling, as a power of two: 64 keep the error below 1.6 %.
const FINE_BITS: u32 = 6;
const FINE: u64 = 1 << FINE_BITS;
/// Doublings above the exact ones: up to 2^40 microseconds, which is twelve days.
const DOUBLINGS: u64 = 34;

/// How often each latency, in microseconds, was seen.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    sum_us: u64,
    max_us: u64,
}

impl Histogram {
    /// An empty one.
    pub fn new() -> Histogram {
        let len = usize::try_from((DOUBLINGS + 1) * FINE).expect("a few thousand buckets");
        Histogram { buckets: vec![0; len], count: 0, sum_us: 0, max_us: 0 }
    }

    /// Counts one.
    pub fn record(&mut self, us: u64) {
        let last = self.buckets.len() - 1;
        self.buckets[bucket_of(us).min(last)] += 1;
        self.count += 1;
        self.sum_us += us;
        self.max_us = self.max_us.max(us);
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Histogram) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum_us += other.sum_us;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// The longest, exactly.
    pub fn max_us(&self) -> u64 {
        self.max_us
    }

    /// The mean, 0 when there is none.
    pub fn mean_us(&self) -> f64 {
        self.sum_us as f64 / self.count.max(1) as f64
    }

    /// The latency that this share (0 to 1) of all stayed at or below.
    pub fn quantile_us(&self, share: f64) -> u64 {
        let wanted = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return highest_in(at).min(self.max_us);
            }
        }
        self.max_us
    }
}

fn bucket_of(us: u64) -> usize {
    let bits = u64::BITS - us.leading_zeros();
    let shift = bits.saturating_sub(FINE_BITS + 1);
    let bucket = u64::from(shift) * FINE + (us >> shift);
    usize::try_from(bucket).unwrap_or(usize::MAX)
}

fn highest_in(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * FINE {
        return bucket;
    }
    let shift = bucket / FINE - 1;
    let fine = bucket - shift * FINE;
    ((fine + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_exact_for_short_times_and_close_for_long_ones() {
        let mut histogram = Histogram::new();
        for us in 1..=100 {
            histogram.record(us);
        }
        assert_eq!(histogram.quantile_us(0.5), 50);
        assert_eq!(histogram.quantile_us(0.99), 99);
        assert_eq!(histogram.quantile_us(1.0), 100);
        let mut long = Histogram::new();
        for us in (1..=1_000_000).step_by(7) {
            long.record(us);
        }
        let p90 = long.quantile_us(0.9) as f64;
        assert!((p90 / 900_000.0 - 1.0).abs() < 1.0 / 64.0, "{p90}");
    }

    #[test]
    fn every_time_lies_in_the_bucket_that_says_so() {
        for us in (0..200).chain((8..40).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 3]))
        {
            let bucket = bucket_of(us);
            assert!(highest_in(bucket) >= us, "{us}");
            assert!(bucket == 0 || highest_in(bucket - 1) < us, "{us}");
        }
    }

    #[test]
    fn a_sum_of_two_has_the_counts_of_both() {
        let (mut one, mut other) = (Histogram::new(), Histogram::new());
        one.record(5);
        other.record(5_000);
        one.add(&other);
        assert_eq!((one.count, one.max_us(), one.quantile_us(0.5)), (2, 5_000, 5));
    }
}
