//! The user's choices: the order of the devices, and the device whose endpoints and graph are
//! shown.
//!
//! Contract: pure.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::history::{Device, History};
use crate::sorted::sort_by;

/// A column by which devices are sorted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Column {
    Device,
    Client,
    Urbs,
    In,
    Out,
    Errors,
}

impl Column {
    pub(super) const ALL: [Self; 6] =
        [Self::Device, Self::Client, Self::Urbs, Self::In, Self::Out, Self::Errors];

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Device => "DEVICE",
            Self::Client => "CLIENT",
            Self::Urbs => "URBs/s",
            Self::In => "IN/s",
            Self::Out => "OUT/s",
            Self::Errors => "ERRORS",
        }
    }
}

/// The user's choices.
pub(super) struct View {
    pub(super) column: Column,
    pub(super) is_reversed: bool,
    /// The place of the selected device.
    selected: Option<String>,
    /// Steps of the selection, down or up, for the next order of the devices.
    steps: isize,
}

impl Default for View {
    fn default() -> Self {
        Self { column: Column::Device, is_reversed: false, selected: None, steps: 0 }
    }
}

impl View {
    /// Follows a key; a break ends the program.
    pub(super) fn press(&mut self, key: KeyEvent) -> ControlFlow<()> {
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return ControlFlow::Break(()),
            // In the raw mode of the terminal a key, and no signal.
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return ControlFlow::Break(());
            }
            KeyCode::Right => self.turn(1),
            KeyCode::Left => self.turn(Column::ALL.len() - 1),
            KeyCode::Char('r') => self.is_reversed = !self.is_reversed,
            KeyCode::Down => self.steps = self.steps.saturating_add(1),
            KeyCode::Up => self.steps = self.steps.saturating_sub(1),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn turn(&mut self, by: usize) {
        let at = Column::ALL.iter().position(|column| *column == self.column).unwrap_or(0);
        self.column = Column::ALL[(at + by) % Column::ALL.len()];
    }

    /// The devices in the order of the user's choice, and the index of the selected device. Numbers
    /// are sorted with the largest first, and equal devices by place.
    pub(super) fn devices<'a>(&mut self, history: &'a History) -> (Vec<&'a Device>, Option<usize>) {
        let mut devices: Vec<&Device> = history.devices.iter().collect();
        sort_by(&mut devices, |one, other| self.column.compare(one, other));
        if self.is_reversed {
            devices.reverse();
        }
        let selected = self.select(&devices);
        (devices, selected)
    }

    /// Keeps the selected device, or moves to another device in the order.
    fn select(&mut self, devices: &[&Device]) -> Option<usize> {
        let last = devices.len().checked_sub(1)?;
        let is_selected = |device: &&Device| Some(&device.export.busid) == self.selected.as_ref();
        let at = devices.iter().position(is_selected).unwrap_or(0);
        let at = at.saturating_add_signed(std::mem::take(&mut self.steps)).min(last);
        self.selected = Some(devices[at].export.busid.clone());
        Some(at)
    }
}

impl Column {
    /// The order of two devices, equal devices by place.
    fn compare(self, one: &Device, other: &Device) -> Ordering {
        let by_text = |text: fn(&Device) -> &Option<String>| {
            nothing_last(text(one)).cmp(&nothing_last(text(other)))
        };
        let by_number = |number: fn(&Device) -> u64| number(other).cmp(&number(one));
        let order = match self {
            Self::Device => by_text(|device| &device.export.name),
            Self::Client => by_text(|device| &device.export.client),
            Self::Urbs => by_number(|device| device.rates.urbs),
            Self::In => by_number(|device| device.rates.bytes_in),
            Self::Out => by_number(|device| device.rates.bytes_out),
            Self::Errors => by_number(Device::errors),
        };
        let place = |device: &Device| natural(&device.export.busid);
        order.then_with(|| place(one).cmp(&place(other)))
    }
}

/// A key by which devices without a text come last.
fn nothing_last(text: &Option<String>) -> (bool, Option<String>) {
    (text.is_none(), text.clone())
}

/// The numbers of a place, so that 1-10 comes behind 1-9.
fn natural(busid: &str) -> (Vec<u32>, String) {
    let numbers = busid.split(['-', '.']).map(|number| number.parse().unwrap_or(u32::MAX));
    (numbers.collect(), busid.to_owned())
}
