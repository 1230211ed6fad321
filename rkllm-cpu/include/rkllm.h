/*
 * rkllm.h: the C interface of rkllm-cpu, ABI 1.3.1.
 *
 * Written from the measured facts of the ABI (sizes, offsets, values), not from the vendor's
 * header. A program compiled against it runs with librkllmrt.so 1.3.1 as well as with this
 * project's CPU runtime; the assertions at the end hold it to the layout. Plain C11 or C++11.
 */
#ifndef RKLLM_CPU_RKLLM_H
#define RKLLM_CPU_RKLLM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CPU0 (1 << 0)
#define CPU1 (1 << 1)
#define CPU2 (1 << 2)
#define CPU3 (1 << 3)
#define CPU4 (1 << 4)
#define CPU5 (1 << 5)
#define CPU6 (1 << 6)
#define CPU7 (1 << 7)

/* One loaded model. One run at a time. The CPU runtime's is a number that never comes again: a call
 * with one that is destroyed, or being destroyed, or from elsewhere, is -1. */
typedef void *LLMHandle;

typedef enum {
    RKLLM_RUN_NORMAL = 0,  /* a token; text may be empty (special tokens) */
    RKLLM_RUN_WAITING = 1, /* a token that ends inside a character; no text */
    RKLLM_RUN_FINISH = 2,  /* the end; perf is filled here and only here */
    RKLLM_RUN_ERROR = 3    /* the end of a run that failed */
} LLMCallState;

typedef enum {
    RKLLM_INPUT_PROMPT = 0,
    RKLLM_INPUT_TOKEN = 1,
    RKLLM_INPUT_EMBED = 2,     /* rows of f32, as wide as the model's embeddings */
    RKLLM_INPUT_MULTIMODAL = 3 /* CPU runtime: refused */
} RKLLMInputType;

typedef enum {
    RKLLM_INFER_GENERATE = 0,
    RKLLM_INFER_GET_LAST_HIDDEN_LAYER = 1, /* NORMAL without data, NORMAL with it, FINISH */
    RKLLM_INFER_GET_LOGITS = 2             /* generates; the first NORMAL has the prompt's rows,
                                            * each later one the row its token was drawn from */
} RKLLMInferMode;

typedef struct {
    int32_t base_domain_id;     /* NPU memory domain; must not be negative */
    int8_t embed_flash;
    int8_t enabled_cpus_num;    /* 1 to 8, as many as the mask has bits */
    uint32_t enabled_cpus_mask; /* CPU0 | CPU1 ... */
    uint8_t n_batch;            /* sequences that run at once, 1 to 100; each has the whole context */
    int8_t use_cross_attn;      /* 0: no model of the CPU runtime has it */
    uint8_t reserved[104];
} RKLLMExtendParam;

/* Start from rkllm_createDefaultParam. */
typedef struct {
    const char *model_path;
    int32_t max_context_len; /* in steps of 32 (rounded down), at most the model's limit; a prompt may
                              * use all but 4 */
    int32_t max_new_tokens;  /* -1: until the model ends */
    int32_t top_k;           /* 1: greedy */
    int32_t n_keep;          /* tokens a shifting window keeps at its beginning; -1: what the run
                              * began with, but at most half of the window */
    float top_p;
    float temperature;       /* 0: greedy */
    float repeat_penalty;
    float frequency_penalty;
    float presence_penalty;
    int32_t mirostat;        /* 0 off, 1, 2 */
    float mirostat_tau;
    float mirostat_eta;
    bool skip_special_token; /* special tokens come with empty text */
    bool ignore_eos_token;   /* an end token does not end the run */
    bool is_async;
    RKLLMExtendParam extend_param;
} RKLLMParam;

typedef struct {
    const char *lora_adapter_path;
    const char *lora_adapter_name;
    float scale;
} RKLLMLoraAdapter;

typedef struct {
    float *embed;
    size_t n_tokens;
} RKLLMEmbedInput;

typedef struct {
    int32_t *input_ids;
    size_t n_tokens;
} RKLLMTokenInput;

typedef struct {
    char *prompt;
    struct {
        float *image_embed;
        size_t n_image_tokens;
        size_t n_image;
        const char *image_start;
        const char *image_end;
        const char *image_content;
        size_t image_width;
        size_t image_height;
    } image;
    struct {
        float *video_embed;
        size_t n_frame_tokens;
        size_t n_frame_per_video;
        size_t n_video;
        const char *video_start;
        const char *video_end;
        const char *video_content;
        size_t frame_width;
        size_t frame_height;
    } video;
    struct {
        float *audio_embed;
        size_t n_audio_tokens;
        size_t n_audio;
        const char *audio_start;
        const char *audio_end;
        const char *audio_content;
    } audio;
} RKLLMMultiModalInput;

/* One turn. */
typedef struct {
    const char *role;     /* "user" or "tool"; NULL is "user" here */
    bool enable_thinking; /* for the model's own template */
    RKLLMInputType input_type;
    union {
        const char *prompt_input;
        RKLLMEmbedInput embed_input;
        RKLLMTokenInput token_input;
        RKLLMMultiModalInput multimodal_input;
    };
} RKLLMInput;

typedef struct {
    const char *lora_adapter_name;
} RKLLMLoraParam;

typedef struct {
    int save_prompt_cache;         /* 1: save the context once the prompt is evaluated */
    const char *prompt_cache_path; /* NULL: ./prompt_cache.bin */
} RKLLMPromptCacheParam;

typedef struct {
    float *encoder_k_cache;
    float *encoder_v_cache;
    float *encoder_mask;
    int32_t *encoder_pos;
    int num_tokens;
} RKLLMCrossAttnParam;

typedef struct {
    int32_t top_k;
    float top_p;
    float temperature;
    float repeat_penalty;
    float frequency_penalty;
    float presence_penalty;
    int32_t mirostat;
    float mirostat_tau;
    float mirostat_eta;
} RKLLMSamplingParam;

typedef struct {
    RKLLMInferMode mode;
    RKLLMLoraParam *lora_params;                /* NULL: no adapter */
    RKLLMPromptCacheParam *prompt_cache_params; /* NULL: the prompt is not saved */
    RKLLMSamplingParam *sampling_params;        /* NULL: those of rkllm_init */
    int keep_history;       /* 0: after it, this run and the history before it are forgotten
                             * (their cells stay for reuse) */
    int32_t max_new_tokens; /* 0 or less: that of rkllm_init */
} RKLLMInferParam;

/* A row for each token of this run's prompt. */
typedef struct {
    const float *hidden_states;
    int embd_size;
    int num_tokens;
} RKLLMResultLastHiddenLayer;

typedef struct {
    const float *logits;
    int vocab_size;
    int num_tokens;
} RKLLMResultLogits;

typedef struct {
    float prefill_time_ms;
    int prefill_tokens;  /* evaluated; tokens found in the cache are not counted */
    float generate_time_ms;
    int generate_tokens; /* tokens after the first */
    float memory_usage_mb; /* VmHWM of the process */
} RKLLMPerfStat;

/* Valid, with all it points to, only inside the callback. */
typedef struct {
    /* In NORMAL never NULL for a single sequence that runs, but may be empty; among several NULL inside a
     * character; else may be. */
    const char *text;
    int32_t token_id;
    RKLLMResultLastHiddenLayer last_hidden_layer;
    RKLLMResultLogits logits;
    RKLLMPerfStat perf;
} RKLLMResult;

/* Returns 0 to go on, 1 to pause (the run returns, the next one resumes it), 2 to let the runtime
 * release its output buffers. */
typedef int (*LLMResultCallback)(RKLLMResult *result, void *userdata, LLMCallState state);
/* Both count only where the model's file has no tokenizer, or no embedding layer. The first returns
 * how many tokens it wrote; the second writes a row of f32 for each token, len = num_tokens * width * 4
 * bytes, and returns 0. */
typedef int (*LLMTokenizerCallback)(void *userdata, const char *text, int32_t text_len,
                                    int32_t *tokens, int32_t n_tokens_max);
typedef int (*LLMGetEmbedCallback)(void *userdata, int32_t *tokens, uint64_t num_tokens,
                                   void *embed, uint64_t len);

typedef struct {
    LLMResultCallback result_callback;
    void *result_userdata; /* used where rkllm_run is given NULL */
    LLMTokenizerCallback tokenizer_callback;
    void *tokenizer_userdata;
    LLMGetEmbedCallback embed_callback;
    void *embed_userdata;
} RKLLMCallback;

/* All but the first return 0 for success and -1 for failure, with the reason on stdout. */
RKLLMParam rkllm_createDefaultParam(void);
int rkllm_init(LLMHandle *handle, RKLLMParam *param, RKLLMCallback *callback);
int rkllm_destroy(LLMHandle handle); /* ends its run first; -1 in its callback, and a second time */
int rkllm_run(LLMHandle handle, RKLLMInput *input, RKLLMInferParam *infer, void *userdata);
/* On a thread of its own, where the callbacks come; returns once the request is accepted. */
int rkllm_run_async(LLMHandle handle, RKLLMInput *input, RKLLMInferParam *infer, void *userdata);
/* GGUF adapters for this model; several can be loaded, runs choose one by name. */
int rkllm_load_lora(LLMHandle handle, RKLLMLoraAdapter *adapter);
/* A prompt saved by a run of the same model; one at a time, released before the next. */
int rkllm_load_prompt_cache(LLMHandle handle, const char *path);
int rkllm_release_prompt_cache(LLMHandle handle);
/* tools: a JSON array, shown by the model's own template. Their results come back as a turn of the
 * role "tool", whose prompt is JSON; tool_response marks them where a template has no such role. */
int rkllm_set_function_tools(LLMHandle handle, const char *system_prompt, const char *tools,
                             const char *tool_response);
int rkllm_abort(LLMHandle handle);      /* from any thread, or in the callback */
int rkllm_is_running(LLMHandle handle); /* 1 running, 0 idle */
int rkllm_clear_kv_cache(LLMHandle handle, int keep_system_prompt, int *start_pos, int *end_pos);
int rkllm_get_kv_cache_size(LLMHandle handle, int *cache_sizes);
int rkllm_set_chat_template(LLMHandle handle, const char *system_prompt, const char *prompt_prefix,
                            const char *prompt_postfix);

/* Refused: no model of the CPU runtime has cross attention. */
int rkllm_set_cross_attn_params(LLMHandle handle, RKLLMCrossAttnParam *params);

/* Beyond the vendor's library, which lacks the following: look it up with dlsym where either may be
 * loaded. */

/* Called before each token of a run is drawn, on a thread of the library and while that computes for no
 * other handle: with the tokens that the run has drawn so far, of which the host may not have been told
 * all yet, and a copy of the row of logits that the next one is drawn from. Values may be changed. What
 * is -INFINITY afterwards is not drawn; it keeps its place in the row until then: penalties, top-k,
 * top-p and min-p see all tokens, of those that they leave the allowed ones are drawn from by their
 * probabilities, and if they leave none, all allowed ones, penalised; temperature comes last. A greedy
 * run (temperature 0 or top-k 1) takes the likeliest that is allowed. Returns 0 to go on; anything else
 * ends the run here as if the model had ended it, without another token, and so does a row of which
 * nothing is allowed. No other function of the library may be called in it but rkllm_abort,
 * rkllm_is_running and rkllm_get_kv_cache_size. */
typedef int (*LLMLogitsHook)(void *userdata, const int32_t *ids, size_t n_ids, float *logits,
                             size_t n_vocab);

/* Asked before the hook, where there is one, with the same tokens and on the same thread. Returns 0: the
 * next token is drawn as without a hook, which is not called and spared a copy of the row; 1: the hook is
 * called; anything else ends the run here. */
typedef int (*LLMRowQuestion)(void *userdata, const int32_t *ids, size_t n_ids);

typedef struct {
    int32_t token;
    float bias; /* added to its logit before penalties; -INFINITY: it is never drawn */
} RKLLMLogitBias;

/* A token and how likely it was. */
typedef struct {
    int32_t token;
    float logprob;     /* natural logarithm of its softmax over the row as the model gave it: before biases,
                        * hook, penalties and temperature; NAN where nothing came before it */
    const char *piece; /* its bytes, of which there may be a part of a character only; those of a special
                        * token are its text. No NUL is behind them. */
    size_t piece_len;
} RKLLMTokenLogprob;

/* Called right before the result of a token that was drawn, on the same thread: with that token, and with
 * the likeliest tokens of its row from the likeliest on, whether it is among them or not. With
 * prompt_logprobs it is called for each token of the prompt as well, in order and before the first result;
 * of_prompt is 1 then. What it is given is valid until it returns. The functions that a result's callback
 * may call can be called in it. */
typedef void (*LLMLogprobsCallback)(void *userdata, int32_t of_prompt, const RKLLMTokenLogprob *token,
                                    const RKLLMTokenLogprob *top, size_t n_top);

typedef struct {
    size_t size; /* sizeof(RKLLMRunExtension); a later version may be longer */
    LLMLogitsHook logits_hook; /* NULL: none; not with mirostat */
    void *hook_userdata;
    const RKLLMLogitBias *logit_bias;
    size_t n_logit_bias;
    int64_t seed; /* 0 to 4294967294; -1: as without an extension */
    float min_p;  /* 0 to 1, 0: none; tokens less likely than this part of the likeliest are left out
                   * after top-p; not with mirostat */
    /* From here on of the second version; a struct that ends before it has none of it. */
    LLMLogprobsCallback logprobs_callback; /* NULL: no log probabilities are computed */
    void *logprobs_userdata;
    int32_t n_logprobs;      /* tokens of each row that are told as the likeliest, 0 or more */
    int32_t prompt_logprobs; /* 1: those of the prompt's tokens, too, all of which is evaluated then, in
                              * pieces whose rows take 32 MiB at most; only in RKLLM_INFER_GENERATE, and not
                              * of embeddings */
    const int32_t *end_tokens; /* tokens that are not drawn before min_tokens either, beside those by which
                                * the model ends a run */
    size_t n_end_tokens;
    int32_t min_tokens;        /* so many tokens are drawn before one that ends the run can be; -1: none ever
                                * is, 0: as without an extension; not with mirostat */
    /* From here on of the third version. */
    int32_t deterministic; /* 1: a token is computed with no other run's, and of what is held only what was
                            * evaluated of a prompt is taken, as far as this one would cut it likewise: with
                            * the same seed the same is said, whatever else runs or ran */
    LLMRowQuestion row_question; /* NULL: the hook sees every row; called with hook_userdata */
} RKLLMRunExtension;

/* What the next run of the handle has beside its parameters. That run takes it, also if it is refused;
 * one that resumes a paused run does not. The struct is copied; the hook and the callback are
 * called until the run has ended, and may be as long as it is paused. NULL takes it back. -1 while the handle runs and for values
 * out of their ranges; a run with n_batch above 1 is refused with it. */
int rkllm_set_run_extension(LLMHandle handle, const RKLLMRunExtension *extension);
/* The size of the struct that this library knows. What is behind it in a longer one is not read: a host
 * that needs it asks first. A library without this function knows the first version, 56 bytes, at least;
 * one that answers 0 takes no extension. */
size_t rkllm_run_extension_size(void);
/* Not 0: of several sequences (n_batch) one may be given no input, RKLLM_INPUT_TOKEN with input_ids NULL and
 * n_tokens 0, as long as not all are. It idles: it is told in each callback as one that has ended, nothing is
 * computed for it, and its cache and history stay as they are, but for a history that the run does not keep.
 * A library without this function takes none. */
int rkllm_takes_idle_sequences(void);

#ifdef __cplusplus
#define RKLLM_LAYOUT(what) static_assert(what, #what)
#else
#define RKLLM_LAYOUT(what) _Static_assert(what, #what)
#endif
RKLLM_LAYOUT(sizeof(RKLLMExtendParam) == 120);
RKLLM_LAYOUT(sizeof(RKLLMParam) == 184);
RKLLM_LAYOUT(offsetof(RKLLMParam, extend_param) == 60);
RKLLM_LAYOUT(sizeof(RKLLMMultiModalInput) == 192);
RKLLM_LAYOUT(sizeof(RKLLMInput) == 208);
RKLLM_LAYOUT(offsetof(RKLLMInput, input_type) == 12);
RKLLM_LAYOUT(offsetof(RKLLMInput, prompt_input) == 16);
RKLLM_LAYOUT(sizeof(RKLLMSamplingParam) == 36);
RKLLM_LAYOUT(sizeof(RKLLMInferParam) == 40);
RKLLM_LAYOUT(offsetof(RKLLMInferParam, keep_history) == 32);
RKLLM_LAYOUT(sizeof(RKLLMPerfStat) == 20);
RKLLM_LAYOUT(sizeof(RKLLMResult) == 72);
RKLLM_LAYOUT(offsetof(RKLLMResult, perf) == 48);
RKLLM_LAYOUT(sizeof(RKLLMCallback) == 48);
RKLLM_LAYOUT(sizeof(RKLLMCrossAttnParam) == 40);
RKLLM_LAYOUT(sizeof(RKLLMLoraAdapter) == 24);
RKLLM_LAYOUT(sizeof(RKLLMTokenLogprob) == 24);
RKLLM_LAYOUT(sizeof(RKLLMRunExtension) == 112);
RKLLM_LAYOUT(offsetof(RKLLMRunExtension, min_p) == 48);
RKLLM_LAYOUT(offsetof(RKLLMRunExtension, logprobs_callback) == 56);
RKLLM_LAYOUT(offsetof(RKLLMRunExtension, min_tokens) == 96);
RKLLM_LAYOUT(offsetof(RKLLMRunExtension, deterministic) == 100);
RKLLM_LAYOUT(offsetof(RKLLMRunExtension, row_question) == 104);
#undef RKLLM_LAYOUT

#ifdef __cplusplus
}
#endif

#endif
