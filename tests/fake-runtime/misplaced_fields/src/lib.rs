//! Says 1.2.3, but has its parameters where 1.1 had them.

fake_runtime::runtime!(version = "1.2.3", layout = ABI_1_2_1, defaults = ABI_1_1);
fake_runtime::abort!();
fake_runtime::since_1_2_1!();
