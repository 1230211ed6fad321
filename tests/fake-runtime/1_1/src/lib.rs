//! A library of ABI family 1.1.

fake_runtime::runtime!(version = "1.1.4", layout = ABI_1_1);
fake_runtime::abort!();
