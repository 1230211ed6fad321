//! What the load log calls a model's quantisation.

use llama_cpp_sys_2 as llama;

/// llama.cpp's file type by the name its quantiser gives it.
pub(crate) fn name(ftype: llama::llama_ftype) -> &'static str {
    match ftype {
        llama::LLAMA_FTYPE_ALL_F32 => "F32",
        llama::LLAMA_FTYPE_MOSTLY_F16 => "F16",
        llama::LLAMA_FTYPE_MOSTLY_BF16 => "BF16",
        llama::LLAMA_FTYPE_MOSTLY_Q4_0 => "Q4_0",
        llama::LLAMA_FTYPE_MOSTLY_Q4_1 => "Q4_1",
        llama::LLAMA_FTYPE_MOSTLY_Q5_0 => "Q5_0",
        llama::LLAMA_FTYPE_MOSTLY_Q5_1 => "Q5_1",
        llama::LLAMA_FTYPE_MOSTLY_Q8_0 => "Q8_0",
        llama::LLAMA_FTYPE_MOSTLY_Q2_K => "Q2_K",
        llama::LLAMA_FTYPE_MOSTLY_Q2_K_S => "Q2_K_S",
        llama::LLAMA_FTYPE_MOSTLY_Q3_K_S => "Q3_K_S",
        llama::LLAMA_FTYPE_MOSTLY_Q3_K_M => "Q3_K_M",
        llama::LLAMA_FTYPE_MOSTLY_Q3_K_L => "Q3_K_L",
        llama::LLAMA_FTYPE_MOSTLY_Q4_K_S => "Q4_K_S",
        llama::LLAMA_FTYPE_MOSTLY_Q4_K_M => "Q4_K_M",
        llama::LLAMA_FTYPE_MOSTLY_Q5_K_S => "Q5_K_S",
        llama::LLAMA_FTYPE_MOSTLY_Q5_K_M => "Q5_K_M",
        llama::LLAMA_FTYPE_MOSTLY_Q6_K => "Q6_K",
        llama::LLAMA_FTYPE_MOSTLY_IQ1_S => "IQ1_S",
        llama::LLAMA_FTYPE_MOSTLY_IQ1_M => "IQ1_M",
        llama::LLAMA_FTYPE_MOSTLY_IQ2_XXS => "IQ2_XXS",
        llama::LLAMA_FTYPE_MOSTLY_IQ2_XS => "IQ2_XS",
        llama::LLAMA_FTYPE_MOSTLY_IQ2_S => "IQ2_S",
        llama::LLAMA_FTYPE_MOSTLY_IQ2_M => "IQ2_M",
        llama::LLAMA_FTYPE_MOSTLY_IQ3_XXS => "IQ3_XXS",
        llama::LLAMA_FTYPE_MOSTLY_IQ3_XS => "IQ3_XS",
        llama::LLAMA_FTYPE_MOSTLY_IQ3_S => "IQ3_S",
        llama::LLAMA_FTYPE_MOSTLY_IQ3_M => "IQ3_M",
        llama::LLAMA_FTYPE_MOSTLY_IQ4_NL => "IQ4_NL",
        llama::LLAMA_FTYPE_MOSTLY_IQ4_XS => "IQ4_XS",
        llama::LLAMA_FTYPE_MOSTLY_TQ1_0 => "TQ1_0",
        llama::LLAMA_FTYPE_MOSTLY_TQ2_0 => "TQ2_0",
        llama::LLAMA_FTYPE_MOSTLY_MXFP4_MOE => "MXFP4",
        _ => "unknown",
    }
}
