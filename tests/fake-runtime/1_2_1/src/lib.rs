//! A library of ABI family 1.2.1, in its last release.

fake_runtime::runtime!(version = "1.2.3", layout = ABI_1_2_1);
fake_runtime::abort!();
fake_runtime::since_1_2_1!();
