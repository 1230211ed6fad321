//! Finds out whether a library's default parameters have the layout of the family it says it is.
//! It refuses only the impossible (a write past the family's size, a field no release could have
//! meant) because a default that is merely new is no disagreement; and it can refuse, because the
//! result goes through a pointer of our own into a buffer larger than any family's struct.

use crate::abi::{v1_2_1, v1_3_1};
use crate::family::Family;
use crate::symbols::RawFn;
use std::mem::offset_of;

/// Room for the result of `rkllm_createDefaultParam`. The largest struct known has 208 bytes; the
/// rest is there to be written by a library that is not what it says, and to be looked at.
const BUFFER_BYTES: usize = 4096;
/// Bytewise different, so a byte that is equal after both calls was written by the library.
const POISONS: [u8; 2] = [0xA5, 0x5A];

/// The largest struct of a family that is run, for a copy that outlives the probe.
pub(crate) const PARAM_BYTES_MAX: usize = 208;
const _: () = assert!(PARAM_BYTES_MAX >= size_of::<v1_2_1::RKLLMParam>());
const _: () = assert!(PARAM_BYTES_MAX >= size_of::<v1_3_1::RKLLMParam>());

#[repr(C, align(64))]
pub(crate) struct ResultBuffer([u8; BUFFER_BYTES]);

/// The library's own default parameters as it wrote them; what it left unwritten is zero.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(crate) struct DefaultBytes(pub(crate) [u8; PARAM_BYTES_MAX]);

/// A disagreement between a library and the family it says it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Disagreement {
    WrittenPastTheEnd { byte: usize },
    Field { field: &'static str, value: String },
}

/// Calls `rkllm_createDefaultParam` into differently poisoned buffers, compares what it wrote with
/// `family`, and returns its defaults.
///
/// # Safety
/// `create_default_param` must be the function of that name of a loaded runtime library of any
/// family: it writes a struct through its result pointer and takes no argument.
pub(crate) unsafe fn probe(
    create_default_param: RawFn,
    family: Family,
) -> Result<DefaultBytes, Disagreement> {
    let [first, second] = POISONS.map(|poison| {
        let mut buffer = ResultBuffer([poison; BUFFER_BYTES]);
        // SAFETY: passed on from the caller; the buffer is far larger than any known struct.
        unsafe { call_with_result_pointer(create_default_param, &mut buffer) };
        buffer
    });
    let written = Written::compare(&first.0, &second.0);
    written.check(family)?;
    let mut defaults = DefaultBytes([0; PARAM_BYTES_MAX]);
    for at in 0..family.param_size() {
        if let Some([byte]) = written.bytes(at) {
            defaults.0[at] = byte;
        }
    }
    Ok(defaults)
}

/// Calls a function that returns a large struct by value, with a result pointer of our choice.
/// Both C++ ABIs pass it out of band: x86-64 System V in the first integer register, AAPCS64 in
/// x8, which is no argument register and so has no Rust signature.
///
/// # Safety
/// `function` must take no arguments and write at most `BUFFER_BYTES` through its result pointer.
unsafe fn call_with_result_pointer(function: RawFn, buffer: &mut ResultBuffer) {
    let pointer: *mut u8 = buffer.0.as_mut_ptr();
    // SAFETY: `clobber_abi("C")` declares everything a C function may change, `asm!` aligns the
    // stack for a call because `nostack` is not given, memory is clobbered by default, and the
    // caller promises what the function does.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!(
            "call {function}",
            function = in(reg) function,
            in("rdi") pointer,
            clobber_abi("C"),
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!(
            "blr {function}",
            function = in(reg) function,
            in("x8") pointer,
            clobber_abi("C"),
        );
    }
}

/// Which bytes the library wrote, and what.
struct Written(Vec<Option<u8>>);

impl Written {
    fn compare(first: &[u8], second: &[u8]) -> Self {
        Written(
            first
                .iter()
                .zip(second)
                .map(|(a, b)| (a == b).then_some(*a))
                .collect(),
        )
    }

    /// `N` bytes from `at`, if all of them were written.
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        for (byte, written) in bytes.iter_mut().zip(&self.0[at..at + N]) {
            *byte = (*written)?;
        }
        Some(bytes)
    }

    fn check(&self, family: Family) -> Result<(), Disagreement> {
        let size = family.param_size();
        if let Some(past) = self.0[size..].iter().position(Option::is_some) {
            return Err(Disagreement::WrittenPastTheEnd { byte: size + past });
        }
        let fields = if family >= Family::V1_3_0 {
            V1_3_FIELDS
        } else {
            V1_2_1_FIELDS
        };
        fields
            .iter()
            .try_for_each(|(field, at, kind)| kind.check(self, field, *at))
    }
}

/// What a field can hold at all. The bounds are wide on purpose: they tell a number from the bits
/// of another type, not a good default from a bad one.
#[derive(Clone, Copy)]
enum Kind {
    /// -1 or a count of tokens.
    Count,
    /// A setting of the sampler. A small integer or a pointer read as a float is subnormal, not
    /// finite or far away.
    Real,
    Bool,
    /// NULL or an address: no page below 64 KiB can be mapped (`vm.mmap_min_addr`).
    Pointer,
    /// -1 or one of the NPU's address domains (16 in driver 0.9.8).
    Domain,
    /// Number of CPUs of a SoC; the mask beside it has 32 bits.
    CpuCount,
    /// 1 to 100 are accepted, 0 is a field left alone.
    Batch,
}

impl Kind {
    fn check(self, written: &Written, field: &'static str, at: usize) -> Result<(), Disagreement> {
        let int = || written.bytes(at).map(i32::from_ne_bytes);
        let byte = || written.bytes(at).map(|[byte]: [u8; 1]| i32::from(byte));
        let found = match self {
            Kind::Count => int()
                .filter(|value| !(-1..=1 << 24).contains(value))
                .map(|value| value.to_string()),
            Kind::Domain => int()
                .filter(|value| !(-1..=1024).contains(value))
                .map(|value| value.to_string()),
            Kind::Real => written
                .bytes(at)
                .map(f32::from_ne_bytes)
                .filter(|value| !value.is_finite() || value.is_subnormal() || value.abs() > 1000.0)
                .map(|value| format!("{value:e}")),
            Kind::Bool => byte()
                .filter(|value| *value > 1)
                .map(|value| value.to_string()),
            Kind::CpuCount => byte()
                .filter(|value| *value > 32)
                .map(|value| value.to_string()),
            Kind::Batch => byte()
                .filter(|value| *value > 100)
                .map(|value| value.to_string()),
            Kind::Pointer => written
                .bytes(at)
                .map(u64::from_ne_bytes)
                .filter(|value| (1..0x1_0000).contains(value))
                .map(|value| format!("the address {value:#x}")),
        };
        found.map_or(Ok(()), |value| Err(Disagreement::Field { field, value }))
    }
}

type Field = (&'static str, usize, Kind);

macro_rules! fields {
    ($param:ty { $($field:ident $(. $inner:ident)?: $kind:ident),* $(,)? }) => {
        &[$((
            fields!(@name $field $(. $inner)?),
            offset_of!($param, $field $(. $inner)?),
            Kind::$kind,
        )),*]
    };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident . $inner:ident) => { stringify!($inner) };
}

const V1_2_1_FIELDS: &[Field] = fields!(v1_2_1::RKLLMParam {
    max_context_len: Count,
    max_new_tokens: Count,
    top_k: Count,
    n_keep: Count,
    top_p: Real,
    temperature: Real,
    repeat_penalty: Real,
    frequency_penalty: Real,
    presence_penalty: Real,
    mirostat: Count,
    mirostat_tau: Real,
    mirostat_eta: Real,
    skip_special_token: Bool,
    is_async: Bool,
    img_start: Pointer,
    img_end: Pointer,
    img_content: Pointer,
    extend_param.base_domain_id: Domain,
    extend_param.embed_flash: Bool,
    extend_param.enabled_cpus_num: CpuCount,
    extend_param.n_batch: Batch,
    extend_param.use_cross_attn: Bool,
});

const V1_3_FIELDS: &[Field] = fields!(v1_3_1::RKLLMParam {
    max_context_len: Count,
    max_new_tokens: Count,
    top_k: Count,
    n_keep: Count,
    top_p: Real,
    temperature: Real,
    repeat_penalty: Real,
    frequency_penalty: Real,
    presence_penalty: Real,
    mirostat: Count,
    mirostat_tau: Real,
    mirostat_eta: Real,
    skip_special_token: Bool,
    ignore_eos_token: Bool,
    is_async: Bool,
    extend_param.base_domain_id: Domain,
    extend_param.embed_flash: Bool,
    extend_param.enabled_cpus_num: CpuCount,
    extend_param.n_batch: Batch,
    extend_param.use_cross_attn: Bool,
});

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = size_of::<v1_3_1::RKLLMParam>();

    fn untouched() -> Written {
        Written(vec![None; BUFFER_BYTES])
    }

    fn write(written: &mut Written, at: usize, bytes: &[u8]) {
        for (slot, byte) in written.0[at..].iter_mut().zip(bytes) {
            *slot = Some(*byte);
        }
    }

    #[test]
    fn a_byte_counts_as_written_only_when_both_calls_agree() {
        let [a, b] = POISONS;
        let written = Written::compare(&[a, 7, a, b], &[b, 7, a, b]);
        assert_eq!(written.0, [None, Some(7), Some(a), Some(b)]);
        assert_eq!(written.bytes::<2>(1), Some([7, a]));
        assert_eq!(written.bytes::<2>(0), None);
    }

    #[test]
    fn the_two_poisons_differ_in_every_bit() {
        assert_eq!(POISONS[0] ^ POISONS[1], 0xFF);
    }

    #[test]
    fn unwritten_fields_and_padding_are_no_disagreement() {
        assert_eq!(untouched().check(Family::V1_3_1), Ok(()));
        let mut written = untouched();
        write(&mut written, 0, &[0; SIZE]);
        assert_eq!(written.check(Family::V1_3_1), Ok(()));
    }

    #[test]
    fn the_first_byte_past_the_end_is_refused() {
        let mut written = untouched();
        write(&mut written, SIZE, &[0]);
        assert_eq!(
            written.check(Family::V1_3_1),
            Err(Disagreement::WrittenPastTheEnd { byte: SIZE })
        );
    }

    #[test]
    fn each_kind_refuses_the_bits_of_another_type() {
        let refused = |at: usize, bytes: &[u8]| {
            let mut written = untouched();
            write(&mut written, at, bytes);
            written.check(Family::V1_2_1).is_err()
        };
        let at = |field: &str| {
            V1_2_1_FIELDS
                .iter()
                .find(|(name, _, _)| *name == field)
                .expect("a field of that name")
                .1
        };
        assert!(refused(at("n_keep"), &0.9f32.to_ne_bytes()));
        assert!(refused(at("top_p"), &40i32.to_ne_bytes()));
        assert!(refused(at("top_p"), &f32::NAN.to_ne_bytes()));
        assert!(refused(at("skip_special_token"), &[2]));
        assert!(refused(at("img_start"), &1u64.to_ne_bytes()));
        assert!(refused(at("enabled_cpus_num"), &[0xF0]));
        assert!(refused(at("n_batch"), &[200]));
        assert!(refused(at("base_domain_id"), &0x7000_0000i32.to_ne_bytes()));

        assert!(!refused(at("n_keep"), &(-1i32).to_ne_bytes()));
        assert!(!refused(at("top_p"), &0.9f32.to_ne_bytes()));
        assert!(!refused(at("temperature"), &0f32.to_ne_bytes()));
        assert!(!refused(
            at("img_start"),
            &0x7f00_0000_1000u64.to_ne_bytes()
        ));
    }

    #[test]
    fn the_result_pointer_reaches_a_function_that_returns_a_struct() {
        #[repr(C)]
        struct Large([u64; 20]);
        extern "C" fn counted() -> Large {
            Large(std::array::from_fn(|index| index as u64))
        }
        let mut buffer = ResultBuffer([0xA5; BUFFER_BYTES]);
        // SAFETY: a function pointer of any signature may become one of another, as long as it is
        // called as what it is: `counted` has no arguments and a result pointer.
        unsafe {
            let function = std::mem::transmute::<extern "C" fn() -> Large, RawFn>(counted);
            call_with_result_pointer(function, &mut buffer);
        }
        for index in 0..20u64 {
            let at = index as usize * 8;
            assert_eq!(buffer.0[at..at + 8], index.to_ne_bytes());
        }
        assert!(buffer.0[160..].iter().all(|byte| *byte == 0xA5));
    }
}
