//! Numbers that look random and are the same again for the same seed.

/// A generator after Steele, Lea and Flood (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The seed to use: `PHPMQ_SEED`, or another one every time.
    pub fn seed() -> u64 {
        match std::env::var("PHPMQ_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => {
                use std::hash::BuildHasher as _;
                std::collections::hash_map::RandomState::new().hash_one(0) >> 16
            }
        }
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below the bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// Another generator.
    pub fn fork(&mut self) -> Random {
        Random(self.next())
    }
}
