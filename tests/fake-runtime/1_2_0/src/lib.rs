//! A library of ABI family 1.2.0.

fake_runtime::runtime!(version = "1.2.0", layout = ABI_1_2_0);
fake_runtime::abort!();
fake_runtime::since_1_2_0!();
