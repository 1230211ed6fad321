//! Says 1.3.1, but exports no more than 1.2.0 did.

fake_runtime::runtime!(version = "1.3.1", layout = ABI_1_3_1);
fake_runtime::abort!();
fake_runtime::since_1_2_0!();
