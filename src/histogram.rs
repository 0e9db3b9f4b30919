//! Counts by powers of two: of sizes, of ages.

/// How many values there are of each magnitude. Bucket 0 counts zeros, bucket `n` the values from `2^(n-1)` up to below `2^n`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Histogram {
    /// As many as it takes; the last is not 0.
    buckets: Vec<u64>,
}

impl Histogram {
    /// The histogram with these counts, bucket 0 first; beyond the 65th they are left out, as no value belongs there.
    #[must_use]
    pub fn from_buckets(mut buckets: Vec<u64>) -> Histogram {
        buckets.truncate(65);
        while buckets.last() == Some(&0) {
            buckets.pop();
        }
        Histogram { buckets }
    }

    /// Counts a value.
    pub fn add(&mut self, value: u64) {
        let bucket = bucket(value);
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
    }

    /// Takes back a value that was counted.
    pub fn remove(&mut self, value: u64) {
        if let Some(count) = self.buckets.get_mut(bucket(value)) {
            *count = count.saturating_sub(1);
        }
        while self.buckets.last() == Some(&0) {
            self.buckets.pop();
        }
    }

    /// Adds what another counted.
    pub fn merge(&mut self, other: &Histogram) {
        if other.buckets.len() > self.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (count, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *count += more;
        }
    }

    /// The counts, bucket 0 first; no zeros at the end.
    #[must_use]
    pub fn buckets(&self) -> &[u64] {
        &self.buckets
    }

    /// The first value of a bucket.
    #[must_use]
    pub fn lower_bound(bucket: usize) -> u64 {
        match bucket {
            0 => 0,
            1..=64 => 1 << (bucket - 1),
            _ => u64::MAX,
        }
    }

    /// How many values were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

fn bucket(value: u64) -> usize {
    // At most 64.
    (u64::BITS - value.leading_zeros()) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_counted_in_the_bucket_whose_bounds_hold_it() {
        for value in [0, 1, 2, 3, 4, 7, 8, 1023, 1024, u64::MAX] {
            let mut histogram = Histogram::default();
            histogram.add(value);
            let bucket = histogram.buckets().len() - 1;
            assert!(Histogram::lower_bound(bucket) <= value);
            assert!(bucket == 64 || value < Histogram::lower_bound(bucket + 1));
        }
    }

    #[test]
    fn what_is_taken_back_leaves_no_trace() {
        let mut histogram = Histogram::default();
        histogram.add(5);
        histogram.add(900);
        histogram.remove(900);
        assert_eq!(histogram.buckets(), [0, 0, 0, 1]);
        histogram.remove(900);
        assert_eq!(histogram, Histogram::from_buckets(vec![0, 0, 0, 1, 0, 0]));
    }
}
