//! The machine's memory, and how much is waited for it and for other things.

use serde::Serialize;
use utoipa::ToSchema;

use crate::board::Sysroot;
use crate::board::sysroot::of_meminfo;

const PRESSURE: &str = "/proc/pressure";
const RESOURCES: [&str; 3] = ["cpu", "io", "memory"];

/// The machine's memory. What the kernel does not tell is null.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct KernelMemory {
    /// All of it.
    pub total_bytes: Option<u64>,
    /// What programs can still get.
    pub available_bytes: Option<u64>,
    /// What is set apart for devices that need it in one piece.
    pub cma_total_bytes: Option<u64>,
    /// What is free of that.
    pub cma_free_bytes: Option<u64>,
    /// Swap.
    pub swap_total_bytes: Option<u64>,
    /// What is free of that.
    pub swap_free_bytes: Option<u64>,
}

impl KernelMemory {
    pub fn read(sysroot: &Sysroot) -> Self {
        let text = sysroot.text("/proc/meminfo").unwrap_or_default();
        let of = |name| of_meminfo(&text, name);
        Self {
            total_bytes: of("MemTotal"),
            available_bytes: of("MemAvailable"),
            cma_total_bytes: of("CmaTotal"),
            cma_free_bytes: of("CmaFree"),
            swap_total_bytes: of("SwapTotal"),
            swap_free_bytes: of("SwapFree"),
        }
    }

    /// What is known, under the names that the metrics use.
    pub fn by_kind(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("total", self.total_bytes),
            ("available", self.available_bytes),
            ("cma-total", self.cma_total_bytes),
            ("cma-free", self.cma_free_bytes),
            ("swap-total", self.swap_total_bytes),
            ("swap-free", self.swap_free_bytes),
        ]
        .into_iter()
        .filter_map(|(kind, bytes)| Some((kind, bytes?)))
    }
}

/// The share of the last 10 seconds in which something waited for a resource, as PSI tells it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Pressure {
    /// `cpu`, `io` or `memory`.
    pub resource: &'static str,
    /// In which some task waited, 0 to 1. Null where the kernel does not tell.
    pub some_ratio: Option<f64>,
    /// In which all did, 0 to 1. Null where the kernel does not tell, and of the CPU, of which it has no meaning
    /// for a whole machine.
    pub full_ratio: Option<f64>,
}

impl Pressure {
    pub fn read(sysroot: &Sysroot) -> Vec<Self> {
        let of = |resource: &'static str| {
            let text = sysroot.text(&format!("{PRESSURE}/{resource}"))?;
            let ratio = |kind: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
                let mut fields = line.split_whitespace();
                let percent = fields.find_map(|field| field.strip_prefix("avg10="))?;
                let percent: f64 = percent.parse().ok()?;
                (0.0..=100.0).contains(&percent).then_some(percent / 100.0)
            };
            Some(Self {
                resource,
                some_ratio: ratio("some "),
                // The kernel writes a zero for the CPU, only to keep the file's form.
                full_ratio: ratio("full ").filter(|_| resource != "cpu"),
            })
        };
        RESOURCES.into_iter().filter_map(of).collect()
    }
}
