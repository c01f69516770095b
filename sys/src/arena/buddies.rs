//! The buddy rule: the free units of a region. Numbers only, no memory.
//!
//! Contract: allocation in `new` alone, by tables that the system commits as units come into use;
//! `alloc` and `free` of an order freed before are a pop and a push; nothing blocks. `give_back`
//! joins free blocks, and looks at each unit of a piece.

use std::ops::Range;

use crate::os::heap::Zeroed;

/// No block: end of a list.
const NONE: u32 = u32::MAX;

/// Orders of blocks at most: an order's blocks have twice the units of the order before, and an
/// index of a unit has 32 bits.
const ORDERS_MAX: usize = 32;

/// `state` of a unit that starts no free block. Zero, so that the table costs no memory before use.
const NOT_FREE: u8 = 0;

/// The buddy rule over a region of 2^n units. The lists run through side tables, so that the memory
/// itself, uncached on some machines, is never touched.
pub(super) struct Buddies {
    /// Free units, in blocks of any order.
    free_units: usize,
    /// The region is a single free block, which is on no list, so that the tables of a region
    /// without use cost no memory.
    is_whole: bool,
    /// For each order the last freed block; `next` leads to the blocks freed before. These blocks
    /// are on no other list, and `state` does not show them, so that a block in steady use costs no
    /// more than a push and a pop.
    recent: [u32; ORDERS_MAX],
    /// First of the other free blocks of each order.
    heads: Vec<u32>,
    next: Zeroed<u32>,
    previous: Zeroed<u32>,
    /// The order of the free block that starts here, plus one, or [`NOT_FREE`].
    state: Zeroed<u8>,
}

impl Buddies {
    /// A free region; `None` when the system has no memory for the tables, or would have none for
    /// as many units.
    pub(super) fn new(units: usize) -> Option<Self> {
        const { assert!(NOT_FREE == 0, "tables of zeroes") };
        assert!(units.is_power_of_two(), "regions are powers of two");
        let order_max = u8::try_from(units.ilog2()).expect("fewer than 256 orders");
        let orders = usize::from(order_max) + 1;
        if orders > ORDERS_MAX {
            return None;
        }
        Some(Self {
            free_units: units,
            is_whole: true,
            recent: [NONE; ORDERS_MAX],
            heads: vec![NONE; orders],
            // Zeroed, hence committed page by page as blocks come into use.
            next: Zeroed::apart(units)?,
            previous: Zeroed::apart(units)?,
            state: Zeroed::apart(units)?,
        })
    }

    pub(super) fn units(&self) -> usize {
        self.state.len()
    }

    pub(super) fn is_free(&self) -> bool {
        self.free_units == self.units()
    }

    pub(super) fn alloc(&mut self, order: u8) -> Option<u32> {
        if let Some(unit) = self.alloc_recent(order) {
            return Some(unit);
        }
        let units = 1 << order;
        if self.free_units < units {
            return None;
        }
        let unit = self.cut_or_merge(order)?;
        self.free_units -= units;
        Some(unit)
    }

    /// The last freed block of an order, if there is one.
    #[inline(always)]
    pub(super) fn alloc_recent(&mut self, order: u8) -> Option<u32> {
        let recent = self.recent.get_mut(usize::from(order))?;
        let unit = *recent;
        if unit == NONE {
            return None;
        }
        *recent = self.next[unit as usize];
        self.free_units -= 1 << order;
        Some(unit)
    }

    /// Takes a block of an order without freed blocks. A separate function, since the way above is
    /// the usual one.
    #[cold]
    fn cut_or_merge(&mut self, order: u8) -> Option<u32> {
        if std::mem::take(&mut self.is_whole) {
            self.push(0, order_of(self.heads.len() - 1));
        }
        self.take(order).or_else(|| {
            self.merge();
            self.take(order)
        })
    }

    /// Frees a block; false, and nothing done, for a unit outside of the region.
    #[inline(always)]
    pub(super) fn free(&mut self, unit: usize, order: u8) -> bool {
        let Some(next) = self.next.get_mut(unit) else { return false };
        #[expect(clippy::cast_possible_truncation, reason = "`new` bounds the units to 32 bits")]
        let unit = unit as u32;
        *next = std::mem::replace(&mut self.recent[usize::from(order)], unit);
        self.free_units += 1 << order;
        true
    }

    /// Takes `unit`, the last freed block of its order.
    fn take_recent(&mut self, unit: u32, order: u8) -> u32 {
        self.recent[usize::from(order)] = self.next[unit as usize];
        unit
    }

    /// Takes a block of `order`, cutting a larger block if necessary.
    fn take(&mut self, order: u8) -> Option<u32> {
        let has_block = |&o: &usize| self.recent[o] != NONE || self.heads[o] != NONE;
        let found = (usize::from(order)..self.heads.len()).find(has_block)?;
        let unit = match self.recent[found] {
            NONE => {
                let unit = self.heads[found];
                self.unlink(unit);
                unit
            }
            unit => self.take_recent(unit, order_of(found)),
        };
        for half in (usize::from(order)..found).rev() {
            // The lower half is used, the upper half stays free.
            self.push(unit + (1 << half), order_of(half));
        }
        Some(unit)
    }

    /// Joins every pair of free buddies, smallest first.
    fn merge(&mut self) {
        for order in 0..self.heads.len() {
            while self.recent[order] != NONE {
                let unit = self.take_recent(self.recent[order], order_of(order));
                self.push(unit, order_of(order));
            }
        }
        for order in 0..self.heads.len() - 1 {
            let order_u8 = order_of(order);
            let mut unit = self.heads[order];
            while unit != NONE {
                let buddy = unit ^ (1 << order);
                let mut next = self.next[unit as usize];
                if self.state[buddy as usize] == order_u8 + 1 {
                    if next == buddy {
                        next = self.next[buddy as usize];
                    }
                    self.unlink(unit);
                    self.unlink(buddy);
                    self.push(unit.min(buddy), order_u8 + 1);
                }
                unit = next;
            }
        }
    }

    /// Tells `give` of the free units among `count` from `first` on: as ranges, each the part of a
    /// free block. `count` is a power of two, and `first` a multiple. The tables' entries of these
    /// units are given back where nothing uses the entries.
    pub(super) fn give_back(
        &mut self,
        first: usize,
        count: usize,
        mut give: impl FnMut(Range<usize>),
    ) {
        debug_assert!(count.is_power_of_two() && first.is_multiple_of(count), "a piece");
        self.merge();
        let all = first..first + count;
        if self.is_within_free(first, count) {
            give(all.clone());
        } else {
            self.free_within(all.clone()).for_each(give);
        }
        // No free block starts here, hence no list leads through these entries.
        if self.state[all.clone()].iter().all(|&state| state == NOT_FREE) {
            self.next.give_back(all.clone());
            self.previous.give_back(all.clone());
            self.state.give_back(all);
        }
    }

    /// Whether a free block of more than `count` units, a power of two, has `first`.
    fn is_within_free(&self, first: usize, count: usize) -> bool {
        let orders = count.ilog2() as usize..self.heads.len();
        let mut starts = orders.map(|order| (order, first & !((1 << order) - 1)));
        self.is_whole || starts.any(|(order, start)| usize::from(self.state[start]) == order + 1)
    }

    /// The free blocks that start among `units`.
    fn free_within(&self, units: Range<usize>) -> impl Iterator<Item = Range<usize>> + '_ {
        let starts = units.filter(|&unit| self.state[unit] != NOT_FREE);
        starts.map(|unit| unit..unit + (1 << (self.state[unit] - 1)))
    }

    /// Makes a region without a block handed out like new, and gives the tables back.
    pub(super) fn start_anew(&mut self) {
        if self.is_free() && !self.is_whole {
            self.merge();
            self.unlink(0);
            self.is_whole = true;
            let all = 0..self.units();
            self.next.give_back(all.clone());
            self.previous.give_back(all.clone());
            self.state.give_back(all);
        }
    }

    fn push(&mut self, unit: u32, order: u8) {
        let head = self.heads[usize::from(order)];
        self.next[unit as usize] = head;
        self.previous[unit as usize] = NONE;
        if head != NONE {
            self.previous[head as usize] = unit;
        }
        self.heads[usize::from(order)] = unit;
        self.state[unit as usize] = order + 1;
    }

    fn unlink(&mut self, unit: u32) {
        let order = usize::from(self.state[unit as usize] - 1);
        let (next, previous) = (self.next[unit as usize], self.previous[unit as usize]);
        if previous == NONE {
            self.heads[order] = next;
        } else {
            self.next[previous as usize] = next;
        }
        if next != NONE {
            self.previous[next as usize] = previous;
        }
        self.state[unit as usize] = NOT_FREE;
    }
}

/// An index into the lists as an order.
fn order_of(index: usize) -> u8 {
    u8::try_from(index).expect("fewer than 256 orders")
}
