//! Sorting of short lists, off the path of a URB.
//!
//! Each type of list that std sorts costs the program 8 KB. Here the order is found for the indices
//! of a list, by code that the program has once.
//!
//! Contract: plain functions; the order of equals stays. Two allocations of the list's length.

use std::cmp::Ordering;

/// Sorts by a comparison.
pub fn sort_by<T>(list: &mut Vec<T>, compare: impl Fn(&T, &T) -> Ordering) {
    let order = order(list.len(), &|one, other| compare(&list[one], &list[other]));
    let mut unsorted: Vec<Option<T>> = list.drain(..).map(Some).collect();
    list.extend(order.into_iter().filter_map(|index| unsorted[index].take()));
}

/// Sorts by a key.
pub fn sort_by_key<T, K: Ord>(list: &mut Vec<T>, key: impl Fn(&T) -> K) {
    sort_by(list, |one, other| key(one).cmp(&key(other)));
}

/// The indices of `len` elements in order.
fn order(len: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    order.sort_by(|&one, &other| compare(one, other));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_as_by_std() {
        for len in 0..200_usize {
            let mut list: Vec<_> = (0..len).map(|at| (at * 7919 % 31, Box::new(at))).collect();
            let mut expected = list.clone();
            expected.sort_by_key(|(key, _)| *key);
            sort_by_key(&mut list, |(key, _)| *key);
            assert_eq!(list, expected);
        }
    }
}
