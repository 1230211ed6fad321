//! One name for each sensor of a kind, which stays the sensor's own while the kernel has it: a figure must not
//! go on under another's name because that one did not answer.

use std::collections::BTreeMap;
use std::iter;

#[derive(Debug, Default)]
pub(super) struct GivenNames(BTreeMap<(String, String), String>);

impl GivenNames {
    /// Forgets sensors of devices that the kernel does not have any more.
    pub fn keep(&mut self, devices: &[String]) {
        self.0.retain(|(device, _), _| devices.contains(device));
    }

    /// Puts a number behind a name of a device's that another sensor has.
    pub fn give(&mut self, device: &str, name: &mut String) {
        let wanted = name.clone();
        let of = (device.to_owned(), wanted.clone());
        if let Some(given) = self.0.get(&of) {
            given.clone_into(name);
            return;
        }
        let numbered = (2u32..).map(|number| format!("{wanted} {number}"));
        let mut names = iter::once(wanted.clone()).chain(numbered);
        let is_free = |name: &String| !self.0.values().any(|given| given == name);
        if let Some(free) = names.find(is_free) {
            *name = free;
        }
        self.0.insert(of, name.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_its_sensors_own_until_that_is_gone() {
        let mut names = GivenNames::default();
        let mut give = |devices: &[&str], device: &str| {
            let devices: Vec<_> = devices.iter().map(|&device| device.to_owned()).collect();
            names.keep(&devices);
            let mut name = "soc".to_owned();
            names.give(device, &mut name);
            name
        };
        let both = ["zone0", "zone1"];
        assert_eq!(give(&both, "zone0"), "soc");
        assert_eq!(give(&both, "zone1"), "soc 2");
        // The first does not answer.
        assert_eq!(give(&both, "zone1"), "soc 2");
        assert_eq!(give(&both, "zone0"), "soc");
        // It is gone, and another comes.
        assert_eq!(give(&["zone1", "zone2"], "zone1"), "soc 2");
        assert_eq!(give(&["zone1", "zone2"], "zone2"), "soc");
    }
}
