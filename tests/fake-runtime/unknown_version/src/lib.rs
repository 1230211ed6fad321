//! A library of an unknown version, with the ABI of 1.3.1.

fake_runtime::runtime!(version = "9.9.9", layout = ABI_1_3_1);
fake_runtime::abort!();
fake_runtime::since_1_2_1!();
