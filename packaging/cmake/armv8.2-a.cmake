# Cortex-A55 and A76 (RK3588): dot products of int8 and arithmetic in
# fp16, for which llama.cpp has kernels of its own.
set(GGML_CPU_ARM_ARCH "armv8.2-a+dotprod+fp16" CACHE STRING "" FORCE)
