//! A library of ABI family 1.3.0.

fake_runtime::runtime!(version = "1.3.0", layout = ABI_1_3_0);
fake_runtime::abort!();
fake_runtime::since_1_2_1!();
