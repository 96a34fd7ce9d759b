//! A set of page numbers, some bits of memory for each.

use rustc_hash::FxHashMap;

/// Page numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PageSet {
    words: FxHashMap<u32, u64>,
    count: u64,
}

impl PageSet {
    /// Adds a page; says whether it is new.
    pub fn insert(&mut self, page: u32) -> bool {
        let word = self.words.entry(page / 64).or_default();
        let bit = 1 << (page % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        self.count += u64::from(is_new);
        is_new
    }

    /// Whether a page is in it.
    pub fn contains(&self, page: u32) -> bool {
        self.words.get(&(page / 64)).is_some_and(|word| word & (1 << (page % 64)) != 0)
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.count
    }
}
