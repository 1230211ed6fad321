//! A library of ABI family 1.2.1b1.

fake_runtime::runtime!(version = "1.2.1b1", layout = ABI_1_2_1B1);
fake_runtime::abort!();
fake_runtime::since_1_2_0!();
