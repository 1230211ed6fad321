//! Says 1.3.1, and takes what runs are told beyond the vendor's ABI, as this project's CPU runtime does.

fake_runtime::runtime!(version = "1.3.1", layout = ABI_1_3_1);
fake_runtime::abort!();
fake_runtime::since_1_2_1!();
fake_runtime::run_extension!();
