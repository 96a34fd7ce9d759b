//! Which pages are free: the rows on them were deleted, and must not come back.
//!
//! The file's first page names a list of its free pages. It is believed when it is consistent in
//! itself and with the trees; the best proof is that trees and free pages are all of the file.

use super::cells::u32_at;
use super::page_set::PageSet;
use super::pages::Pages;
use super::walk::Walk;

/// What is known of the pages that no tree reaches.
#[derive(Debug)]
pub(super) enum Free {
    /// These are free; any other belongs to something that is damaged.
    Pages(PageSet),
    /// All of them are.
    All,
    /// Nothing: any of them may have been lost.
    Unknown,
}

impl Free {
    pub fn contains(&self, page: u32) -> bool {
        match self {
            Free::Pages(pages) => pages.contains(page),
            Free::All => true,
            Free::Unknown => false,
        }
    }

    /// Finds out what is known.
    pub fn find(pages: &Pages, walk: &Walk<'_>, last_page: u32) -> Free {
        let unreached = unreached(pages, walk, last_page);
        let header = pages.first_page();
        let number = |at| header.as_ref().and_then(|data| u32_at(data, at));
        let listed = number(32).zip(number(36)).and_then(|(first, count)| {
            let list = list(pages, walk, first)?;
            (list.len() == u64::from(count)).then_some(list)
        });
        if listed.as_ref().is_some_and(|listed| listed.len() == unreached) {
            return Free::All;
        }
        if is_any_list_of_all(pages, walk, last_page, unreached) {
            return Free::All;
        }
        if number(36).is_some_and(|count| u64::from(count) == unreached) {
            return Free::All;
        }
        listed.map_or(Free::Unknown, Free::Pages)
    }
}

/// How many pages no tree reaches.
fn unreached(pages: &Pages, walk: &Walk<'_>, last_page: u32) -> u64 {
    let numbers = pages.numbers().take_while(|page| *page <= last_page);
    let candidates = numbers.filter(|page| *page != pages.lock_page());
    candidates.filter(|page| !walk.reached.contains(*page)).count() as u64
}

/// Follows a list: each page of it names the next one, how many others, and those.
fn list(pages: &Pages, walk: &Walk<'_>, first: u32) -> Option<PageSet> {
    let mut listed = PageSet::default();
    let mut data = Vec::new();
    let mut trunk = first;
    while trunk != 0 {
        let leaves = trunk_leaves(pages, walk, trunk, &mut data)?;
        if !listed.insert(trunk) {
            return None;
        }
        for at in leaves {
            if !listed.insert(u32_at(&data, at)?) {
                return None;
            }
        }
        trunk = u32_at(&data, 0)?;
    }
    Some(listed)
}

/// Reads a page as one of the list: the places of the pages that it names, when all of them can be
/// free.
fn trunk_leaves(
    pages: &Pages,
    walk: &Walk<'_>,
    trunk: u32,
    data: &mut Vec<u8>,
) -> Option<impl Iterator<Item = usize> + use<>> {
    let can_be_free = |page: u32| page > 1 && !walk.reached.contains(page);
    pages.read(pages.current(trunk).filter(|_| can_be_free(trunk))?, data);
    let next = u32_at(data, 0)?;
    let count = usize::try_from(u32_at(data, 4)?).ok()?;
    let is_list = (next == 0 || can_be_free(next)) && count <= data.len() / 4 - 2;
    let places = move || (0..count).map(|index| 8 + 4 * index);
    let all_free = is_list && places().all(|at| u32_at(data, at).is_some_and(can_be_free));
    all_free.then(places)
}

/// Whether there is a list that names all pages that no tree reaches. Looked for when the first
/// page, which says where it begins, is lost or older than the rest.
fn is_any_list_of_all(pages: &Pages, walk: &Walk<'_>, last_page: u32, unreached: u64) -> bool {
    const TRIES_MAX: usize = 16;
    let mut data = Vec::new();
    let mut trunks = Vec::new();
    let mut nexts = PageSet::default();
    let numbers = pages.numbers().take_while(|page| *page <= last_page);
    for page in numbers.filter(|page| !walk.reached.contains(*page)) {
        if trunk_leaves(pages, walk, page, &mut data).is_some() {
            trunks.push(page);
            nexts.insert(u32_at(&data, 0).unwrap_or(0));
        }
    }
    trunks.retain(|page| !nexts.contains(*page));
    let mut lists = trunks.iter().take(TRIES_MAX).filter_map(|first| list(pages, walk, *first));
    lists.any(|list| list.len() == unreached)
}
