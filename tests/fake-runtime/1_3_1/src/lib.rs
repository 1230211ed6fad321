//! A library of ABI family 1.3.1.

fake_runtime::runtime!(version = "1.3.1", layout = ABI_1_3_1);
fake_runtime::abort!();
fake_runtime::since_1_2_1!();
