/* modelcc.h: run a model that modelcc compiled.
 *
 * An *artifact* (model.so) is opened once; *engines* made from it hold a KV cache and run steps;
 * *requests* are prompts that an engine continues. A whole program:
 *
 *     mcc_error error = {.struct_size = sizeof error};
 *     mcc_artifact *model;
 *     mcc_engine *engine;
 *     if (mcc_artifact_open("smollm2.so", NULL, &model, &error) ||
 *         mcc_engine_create(model, NULL, &engine, &error))
 *         return puts(error.text), 1;
 *     mcc_request_params params = {.struct_size = sizeof params, .max_tokens = 64};
 *     params.messages = "[{\"role\": \"user\", \"content\": \"What is a compiler?\"}]";
 *     uint64_t id;
 *     if (mcc_request_submit(engine, &params, &id, &error))
 *         return puts(error.text), 1;
 *     mcc_event event = {.struct_size = sizeof event};
 *     do {
 *         if (mcc_engine_step(engine, NULL, &error))
 *             return puts(error.text), 1;
 *         while (!mcc_engine_poll(engine, id, &event, &error) && event.kind != MCC_EVENT_NONE) {
 *             fwrite(event.text, 1, event.text_bytes, stdout);
 *             if (event.kind == MCC_EVENT_FINISHED)
 *                 break;
 *         }
 *     } while (event.kind != MCC_EVENT_FINISHED);
 *     mcc_engine_destroy(engine);
 *     mcc_artifact_close(model);
 *
 * Conventions, for every function below:
 *  - The result is MCC_OK (0) or the code of what went wrong; then `error` (may be NULL) has the
 *    message, and nothing else has changed unless the function says so.
 *  - Structs begin with struct_size, which the caller sets to the sizeof of the struct as it was
 *    compiled; fields that a caller's older struct lacks are taken as 0, or not written. A field
 *    that is 0 means its default.
 *  - Text is UTF-8. Where a pointer and a byte count belong together, a count of 0 beside a
 *    non-NULL pointer means that the text is zero-terminated.
 *  - Pointers handed out belong to the object they came from and live as long, unless said
 *    otherwise.
 *  - Threads: an artifact is immutable once open and may be used by many threads. Different
 *    engines, even of one artifact or sharing a pool, may be used at the same time. One engine:
 *    any thread may submit and cancel requests and read statistics at any time; one thread at a
 *    time steps (or evaluates, resets, or asks how long launches took), and one at a time takes
 *    events, which may be the same or another. There is no global state.
 *  - Opening an artifact for running loads the code in it, as any shared library: open only
 *    what you trust. MCC_OPEN_INSPECT loads nothing.
 */
#ifndef MODELCC_H
#define MODELCC_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define MCC_API __attribute__((visibility("default")))
#else
#define MCC_API
#endif

/* --- results -------------------------------------------------------------------------------------
 */

typedef int32_t mcc_status;
enum {
    MCC_OK = 0,
    MCC_INVALID_ARGUMENT = 1, /* a parameter is out of range or contradicts another */
    MCC_OUT_OF_MEMORY = 2,
    MCC_IO_ERROR = 3,          /* a file cannot be opened, read or mapped */
    MCC_BAD_ARTIFACT = 4,      /* the file is damaged, or not an artifact */
    MCC_VERSION_MISMATCH = 5,  /* made by a version of modelcc that this runtime does not open */
    MCC_CPU_MISMATCH = 6,      /* this processor lacks what the artifact's code needs, or the
                                  artifact has no code for a CPU */
    MCC_UNSUPPORTED = 7,       /* the artifact has no such part (tokenizer, chat template, …) */
    MCC_CAPACITY = 8,          /* does not fit: too long a prompt, too many tokens or requests */
    MCC_NOT_FOUND = 9,         /* no such request, weight, kernel, … */
    MCC_BUFFER_TOO_SMALL = 10, /* the size needed has been stored */
    MCC_INTERNAL = 11,         /* a bug in the runtime or in the artifact's code */
    MCC_NO_DEVICE = 12,        /* no such GPU, no driver, or none that the artifact has code for */
    MCC_DEVICE_FAILED = 13,    /* the GPU or its driver reported an error while it worked */
    MCC_DRAINING = 14          /* the engine takes no more requests: mcc_engine_drain */
};

/* What went wrong, for a person: lower case, found versus needed, and what to do. */
typedef struct mcc_error {
    uint32_t struct_size;
    mcc_status code;
    char text[512]; /* zero-terminated */
} mcc_error;

/* "invalid argument", "out of memory", …; never NULL. */
MCC_API const char *mcc_status_name(mcc_status status);

/* The runtime's version, "0.1.0". */
MCC_API const char *mcc_version(void);

/* What this processor has, of what artifacts ask for: "x86-64-v3, x86-64-v4, avx512-vnni", or "".
 * Writes at most `capacity` bytes, zero-terminated. */
MCC_API void mcc_cpu_features(char *text, uint64_t capacity);

/* --- artifacts -----------------------------------------------------------------------------------
 */

typedef struct mcc_artifact mcc_artifact;

enum {
    MCC_OPEN_INSPECT = 1,   /* never load the code: for looking; no engine can be made from it */
    MCC_OPEN_CHECK = 2,     /* also read all weights and check their hashes */
    MCC_OPEN_HUGE_PAGES = 4 /* copy the weights to huge pages instead of mapping the file: faster
                               steps, slower opening, memory not shared between processes */
};

typedef struct mcc_artifact_options {
    uint32_t struct_size;
    uint32_t flags;     /* MCC_OPEN_ */
    const char *target; /* use the CPU code for this target ("cpu:x86-64-v3"); NULL or "cpu": the
                           most demanding one that this processor has the features for */
} mcc_artifact_options;

/* Opens an artifact: reads and checks its footer, tables and hashes (but not the weights'), chooses
 * the target, and only then loads the code and maps the weights. An artifact with code for GPUs
 * opens without CPU code for this machine too; only engines on the CPU cannot be made of it then.
 * options may be NULL. On success the caller closes *artifact. The file must not be changed in
 * place while it is open; replacing it (as `modelcc build` does) is safe. Errors: IO_ERROR,
 * BAD_ARTIFACT, VERSION_MISMATCH, CPU_MISMATCH, NOT_FOUND (no such target). */
MCC_API mcc_status mcc_artifact_open(const char *path, const mcc_artifact_options *options,
                                     mcc_artifact **artifact, mcc_error *error);

/* Closes it; NULL is allowed. Its engines must have been destroyed. */
MCC_API void mcc_artifact_close(mcc_artifact *artifact);

/* Reads every weight, and every image of GPU code, and compares their hashes, on `threads` threads
 * (0: as many as are useful). Errors: BAD_ARTIFACT, naming the first damaged weight and its place
 * in the file, or the image. */
MCC_API mcc_status mcc_artifact_check(const mcc_artifact *artifact, int32_t threads,
                                      mcc_error *error);

typedef struct mcc_artifact_info {
    uint32_t struct_size;
    uint32_t version; /* of the artifact's format */
    const char *model_name;
    const char *arch;   /* "llama" */
    const char *target; /* the chosen one; NULL when no CPU target fits */
    int64_t vocab_size, hidden_size, n_layers;
    int64_t max_model_len; /* positions the model was trained for */
    uint64_t file_bytes, code_bytes, weight_bytes;
    uint64_t kv_bytes_per_token; /* over all layers, of full attention and of windows */
    uint64_t scratch_bytes;      /* per thread */
    int32_t n_weights, n_kernels, n_launches, n_targets, n_kv_groups;
    int32_t has_tokenizer, has_chat_template; /* 0 or 1 */
    int32_t n_cuda_images;                    /* of kernels compiled for GPUs */
    uint64_t cuda_bytes;                      /* of all that is there for GPUs beside weights */
    /* Of a model that was built for embeddings, and generates nothing: their length, and "last" or
     * "mean"; 0 and NULL otherwise. */
    int64_t embedding_size;
    const char *pooling;
} mcc_artifact_info;

/* Fills *info; its strings belong to the artifact. */
MCC_API mcc_status mcc_artifact_get_info(const mcc_artifact *artifact, mcc_artifact_info *info,
                                         mcc_error *error);

/* Texts that an artifact carries. */
enum {
    MCC_PART_MANIFEST = 2,     /* JSON: inputs, options, versions, hashes, licence, provenance */
    MCC_PART_GRAPH = 3,        /* the model's graph as text, before paging and fusion */
    MCC_PART_PLAN = 4,         /* the fusion plan */
    MCC_PART_FUSED = 5,        /* the graph that the kernels were made from */
    MCC_PART_CHAT_TEMPLATE = 8 /* Jinja */
};

/* Points *text at a part's bytes (not zero-terminated; they belong to the artifact) and stores
 * their count. Errors: UNSUPPORTED when the artifact does not carry the part. */
MCC_API mcc_status mcc_artifact_get_part(const mcc_artifact *artifact, int32_t part,
                                         const char **text, uint64_t *bytes, mcc_error *error);

typedef struct mcc_weight_info {
    uint32_t struct_size;
    uint32_t reserved;
    const char *name;
    const char *type;      /* "q4_1[576, 576]@n16" */
    uint64_t file_offset;  /* of its first byte */
    uint64_t bytes;        /* as stored */
    const uint8_t *sha256; /* 32 bytes */
} mcc_weight_info;

typedef struct mcc_kernel_info {
    uint32_t struct_size;
    uint32_t reserved;
    const char *name;   /* its symbol, without the target's suffix */
    const char *anchor; /* "rows", "matmul", "attention" */
    int32_t n_launches; /* of a step that use it */
    int32_t reserved2;
} mcc_kernel_info;

typedef struct mcc_launch_info {
    uint32_t struct_size;
    int32_t kernel;    /* index */
    const char *label; /* stable name of the fused op */
    const char *ops;   /* the source ops it covers, separated by spaces */
    /* tiles = tiles_mult * ceil((tiles[0] + tiles[1]*T + tiles[2]*S + tiles[3]*R) / tiles_div) */
    int64_t tiles[4], tiles_div, tiles_mult;
    uint64_t weight_bytes; /* of the weights it reads */
} mcc_launch_info;

typedef struct mcc_kv_group_info {
    uint32_t struct_size;
    int32_t layers, heads, head_dim, page_tokens;
    int32_t dtype_bytes; /* of one element: 4, 2 or 1 */
    int64_t window;      /* tokens that a token sees, itself included; 0: all before it */
    uint64_t page_bytes; /* of one page, over the group's layers */
    const char *dtype;   /* f32, f16, int8, fp8_e4m3; the last two with a scale a token and head */
} mcc_kv_group_info;

typedef struct mcc_target_info {
    uint32_t struct_size;
    int32_t fits;          /* 1 when this processor can run it */
    const char *name;      /* "cpu:x86-64-v4" */
    uint64_t cpu_features; /* bits: 1 x86-64-v3, 2 x86-64-v4, 4 avx512-vnni */
} mcc_target_info;

/* One GPU function, compiled for one architecture. A kernel has one function or several, for steps
 * of more and more rows. */
typedef struct mcc_cuda_image_info {
    uint32_t struct_size;
    int32_t kernel;        /* index */
    const char *function;  /* its symbol */
    const char *form;      /* "cubin", or "ptx", which the driver compiles when it is loaded */
    int32_t arch;          /* 80 of sm_80 */
    int32_t arch_specific; /* 1: sm_90a and the like: runs on no other */
    uint32_t min_rows;     /* the fewest rows of a step that it is taken for */
    uint32_t threads;      /* of a block */
    /* What ptxas said; of PTX 0 where that is not known. */
    uint32_t registers, spill_bytes; /* a thread's */
    uint32_t shared_bytes;           /* a block's, static and dynamic */
    uint32_t occupancy_blocks;       /* resident on a multiprocessor */
    double occupancy; /* warps of these blocks, of all that a multiprocessor holds: 0 to 1 */
    uint64_t file_offset, bytes;
    const uint8_t *sha256; /* 32 bytes */
} mcc_cuda_image_info;

/* What is in the tables, by index from 0. Errors: NOT_FOUND past the last. */
MCC_API mcc_status mcc_artifact_get_weight(const mcc_artifact *artifact, int32_t index,
                                           mcc_weight_info *info, mcc_error *error);
MCC_API mcc_status mcc_artifact_get_kernel(const mcc_artifact *artifact, int32_t index,
                                           mcc_kernel_info *info, mcc_error *error);
MCC_API mcc_status mcc_artifact_get_launch(const mcc_artifact *artifact, int32_t index,
                                           mcc_launch_info *info, mcc_error *error);
MCC_API mcc_status mcc_artifact_get_kv_group(const mcc_artifact *artifact, int32_t index,
                                             mcc_kv_group_info *info, mcc_error *error);
MCC_API mcc_status mcc_artifact_get_target(const mcc_artifact *artifact, int32_t index,
                                           mcc_target_info *info, mcc_error *error);

MCC_API mcc_status mcc_artifact_get_cuda_image(const mcc_artifact *artifact, int32_t index,
                                               mcc_cuda_image_info *info, mcc_error *error);

/* Bytes of activation memory that a step of T tokens, S sequences and R output rows needs. */
MCC_API mcc_status mcc_artifact_arena_bytes(const mcc_artifact *artifact, int64_t T, int64_t S,
                                            int64_t R, uint64_t *bytes, mcc_error *error);

/* --- text ----------------------------------------------------------------------------------------
 */

enum {
    /* mcc_tokenize: */
    MCC_TEXT_ADD_SPECIAL = 1,   /* put around the text what the model expects (such as <s>) */
    MCC_TEXT_PARSE_SPECIAL = 2, /* special tokens spelled out in the text become their ids */
    /* mcc_detokenize: */
    MCC_TEXT_SKIP_SPECIAL = 4, /* special tokens give no text */
    /* mcc_apply_chat_template: */
    MCC_TEXT_NO_GENERATION_PROMPT = 16 /* do not open the assistant's turn */
};

/* Turns text into token ids. *n becomes the number of tokens; `ids` (capacity `capacity`, may be
 * NULL when that is 0) gets them. Errors: UNSUPPORTED without a tokenizer, BUFFER_TOO_SMALL (with
 * *n set). */
MCC_API mcc_status mcc_tokenize(const mcc_artifact *artifact, const char *text, uint64_t text_bytes,
                                uint32_t flags, int32_t *ids, int64_t capacity, int64_t *n,
                                mcc_error *error);

/* Turns token ids into text, zero-terminated when there is room. *bytes becomes its length.
 * Incomplete characters become U+FFFD. Errors: UNSUPPORTED, INVALID_ARGUMENT (an id that is not in
 * the vocabulary), BUFFER_TOO_SMALL (with *bytes set). */
MCC_API mcc_status mcc_detokenize(const mcc_artifact *artifact, const int32_t *ids, int64_t n,
                                  uint32_t flags, char *text, uint64_t capacity, uint64_t *bytes,
                                  mcc_error *error);

/* Points *text at the bytes that a token stands for in a text (" world"; not zero-terminated, and
 * not always whole characters); they belong to the artifact. Errors: UNSUPPORTED without a
 * tokenizer, NOT_FOUND (no such token). */
MCC_API mcc_status mcc_token_text(const mcc_artifact *artifact, int32_t id, const char **text,
                                  uint64_t *bytes, mcc_error *error);

/* Renders messages, a JSON array of {"role": …, "content": …}, with the model's chat template. The
 * result brings its own special tokens: tokenize it with MCC_TEXT_PARSE_SPECIAL alone, as requests
 * do. Zero-terminated when there is room; *bytes becomes its length. Errors: UNSUPPORTED without a
 * template, INVALID_ARGUMENT (messages are not such JSON, or the template rejects them),
 * BUFFER_TOO_SMALL (with *bytes set). */
MCC_API mcc_status mcc_apply_chat_template(const mcc_artifact *artifact, const char *messages,
                                           uint64_t messages_bytes, uint32_t flags, char *text,
                                           uint64_t capacity, uint64_t *bytes, mcc_error *error);

/* --- engines -------------------------------------------------------------------------------------
 */

/* Threads that engines share. Steps of different engines take turns on it. */
typedef struct mcc_pool mcc_pool;

/* Makes a pool of `threads` threads, the caller of a step being one of them. 0: as many as the
 * processor affinity and the cgroup's quota allow. */
MCC_API mcc_status mcc_pool_create(int32_t threads, mcc_pool **pool, mcc_error *error);
/* NULL is allowed. Its engines must have been destroyed. */
MCC_API void mcc_pool_destroy(mcc_pool *pool);

typedef struct mcc_engine mcc_engine;
struct mcc_event;

enum {
    MCC_PREEMPT_AUTO = 0, /* what is cheaper by the times that both have taken */
    MCC_PREEMPT_RECOMPUTE = 1,
    MCC_PREEMPT_SWAP = 2 /* as long as there is room */
};

enum {
    MCC_ENGINE_NULL_DEVICE = 1, /* run no kernels, all logits are 0: measures what the engine itself
                                   costs */
    MCC_ENGINE_TIMINGS = 2,     /* measure each launch: mcc_engine_launch_seconds. Steps are slower:
                                   one launch waits for the other, and no GPU graphs are used */
    MCC_ENGINE_DRAFT_ALWAYS = 4, /* draft as many tokens as requests allow, whether it pays or not:
                                    for measuring how often drafts are right */
    /* With a draft model and a temperature, drafts are kept by rejection sampling (Leviathan et al.
     * 2023), which keeps the most of them. The tokens have the model's distribution exactly, but
     * are others than without drafts, and depend on where drafts end, so on what else runs. It
     * costs memory: a row of the vocabulary's size for each of max_num_batched_tokens. */
    MCC_ENGINE_REJECTION_SAMPLING = 8
};

typedef struct mcc_engine_options {
    uint32_t struct_size;
    uint32_t flags;       /* MCC_ENGINE_ */
    int32_t threads;      /* when pool is NULL; as mcc_pool_create says */
    int32_t max_num_seqs; /* requests that run at the same time, each step computing all of them
                             together: their tokens are the same as alone. Requests beyond it wait
                             in line. 0: 1 */
    int32_t max_num_batched_tokens; /* tokens of one step at most, at least max_num_seqs: longer
                                       prompts are computed in chunks, with the same results. 0:
                                       128, or max_num_seqs where that is more */
    int32_t max_eval_seqs;          /* sequences that mcc_engine_eval can hold. 0: 1 */
    int64_t max_model_len;          /* tokens of a sequence at most. 0: the model's */
    uint64_t kv_cache_memory_bytes; /* 0: what the sequences above need at full length, but, with
                                       several of them, at most half of the memory of the machine
                                       or the cgroup, or 9/10 of what is free on the GPU beside the
                                       weights and activations. It is reserved, and on a CPU used
                                       as tokens come: in the end all of it, as what requests leave
                                       is kept for those that begin alike. What fits is in
                                       mcc_engine_stats */
    mcc_pool *pool;                 /* NULL: the engine makes its own; unused on a GPU */
    const char *device; /* where it runs: "cpu"; "cuda" or "cuda:N", the first GPU or the one with
                           this number; "emulator", a GPU emulated on the CPU by
                           libcuda_emulator.so, which the environment's MODELCC_EMULATOR names or
                           which lies beside this library or program. NULL: the CPU where the
                           artifact has code for it, else "cuda" */
    int32_t max_num_waiting; /* requests that wait; beyond them none is taken. 0: 4096 */
    int32_t reserved;
    /* Gets every event, as soon as the step that made it is done: in the thread that steps, before
     * mcc_engine_step returns. It may submit and cancel requests and read statistics, but not step,
     * and what it is given is valid until it returns. Events are then not polled. The first one
     * may come before mcc_request_submit has returned in another thread: user_data tells whose it
     * is. NULL: events are polled. */
    void (*on_event)(void *context, const struct mcc_event *event);
    void *on_event_context;
    /* Speculative decoding, for requests with num_speculative_tokens: a smaller model drafts the
     * tokens. It must have the same vocabulary, run on the same device, and outlive the engine; it
     * gets a KV cache of its own, beside kv_cache_memory_bytes and limited in proportion. NULL:
     * drafts are by prompt lookup, see mcc_request_params. */
    const mcc_artifact *draft;
    /* Prompt lookup looks for the last prompt_lookup_max tokens, then fewer, at least
     * prompt_lookup_min. 0: 16 and 2; at most 64 */
    int32_t prompt_lookup_max, prompt_lookup_min;
    /* Of a model that computes embeddings: mcc_engine_step waits for so long, from a request's
     * arrival on, for others to compute together with it, unless there is a step full of them. 0:
     * not at all */
    double max_batch_delay_seconds;
    uint64_t swap_space_bytes; /* of the host's memory, reserved, on a GPU pinned, for the pages of
                                  requests that are preempted: they are copied back then, not
                                  computed again. 0: none */
    int32_t preemption_mode;   /* MCC_PREEMPT_: with swap_space_bytes, whether they are copied */
    int32_t reserved2;
} mcc_engine_options;

/* Makes an engine. Everything it needs is allocated here; a step that makes a token allocates
 * nothing. options may be NULL. The artifact (and the pool) must outlive it.
 * On a GPU the weights are copied to its memory, and the KV cache is allocated there at once; all
 * of it is in the GPU's primary context. Steps that decode so many sequences for the first time
 * make a CUDA graph. Errors: INVALID_ARGUMENT, CAPACITY (more than the KV memory, or the model,
 * allows), OUT_OF_MEMORY (a GPU's too: the message says what would fit), UNSUPPORTED (opened with
 * MCC_OPEN_INSPECT), CPU_MISMATCH (the artifact has no code for this CPU), NO_DEVICE,
 * DEVICE_FAILED. */
MCC_API mcc_status mcc_engine_create(const mcc_artifact *artifact,
                                     const mcc_engine_options *options, mcc_engine **engine,
                                     mcc_error *error);
/* Frees it and all its requests; NULL is allowed. */
MCC_API void mcc_engine_destroy(mcc_engine *engine);

enum { MCC_MAX_DRAFT = 64 }; /* tokens of a draft */

enum {
    MCC_REQUEST_IGNORE_EOS = 1, /* go on when the model says it is done */
    MCC_REQUEST_LOGPROBS = 2, /* compute each token's log-probability, by the model: before biases,
                                 penalties, temperature and filters. So does top_logprobs */
    MCC_REQUEST_NO_CACHE = 4, /* compute the whole prompt, even where the KV cache has it */
    MCC_REQUEST_RAW_EMBEDDING = 8 /* do not scale the embedding to length 1 */
};

enum { MCC_MAX_TOP_LOGPROBS = 20 };

/* One prompt and how to continue it. Exactly one of prompt_ids, prompt and messages is set. Of a
 * model that computes embeddings, nothing that is about tokens to generate may be set. */
typedef struct mcc_request_params {
    uint32_t struct_size;
    uint32_t flags; /* MCC_REQUEST_ */
    const int32_t *prompt_ids;
    int64_t n_prompt_ids;
    const char *prompt; /* text, tokenized with ADD_SPECIAL and PARSE_SPECIAL */
    uint64_t prompt_bytes;
    const char *messages; /* JSON array, rendered with the chat template */
    uint64_t messages_bytes;
    int64_t max_tokens; /* 0: up to max_model_len */
    /* Sampling, in this order: logit bias; repetition, frequency and presence penalty; temperature,
     * of which 0 takes the most probable token, always; top-k, top-p, min-p, typical. The same seed
     * gives the same tokens. What GPU code does not do (biases, penalties, typical_p, top_logprobs)
     * is done on the CPU, of logits that are copied for that. */
    float temperature;
    int32_t top_k;            /* 0: all */
    float top_p;              /* in (0, 1]; 0 means 1: all */
    float min_p;              /* in [0, 1]: drop what is less probable than min_p * the most */
    float repetition_penalty; /* > 0; 0 means 1: none. Over prompt and output. */
    uint32_t reserved;
    uint64_t seed;
    const char *const *stop; /* texts that end the output; they are not part of it */
    int32_t n_stop;
    int32_t n_stop_token_ids;
    const int32_t *stop_token_ids; /* beside the model's own */
    /* Order: by priority, less being sooner, then by arrival; 10 seconds of waiting make up for one
     * level of priority. Of the prompts' tokens in a step, half go by this order, and half to the
     * prompts with the least left to compute: a short one does not wait behind a long one. */
    int32_t priority;
    int32_t n; /* samples of the same prompt, which is computed and stored once; the seeds are seed,
                  seed + 1, … 0: 1 */
    double deadline_seconds; /* from now: then it ends where it is, MCC_FINISH_DEADLINE. 0: none */
    uint64_t cache_salt; /* requests with different salts share nothing that is in the KV cache */
    /* Speculative decoding: up to so many tokens are drafted, by the engine's draft model, or
     * without one by prompt lookup: what followed when the last tokens came before. They are
     * computed in one step with the next token, and kept as far as they are what the model
     * chooses: the tokens are the same as without, with a seed too. The engine measures what
     * steps cost and how often drafts are right, and drafts as many tokens as pay, or none
     * (MCC_ENGINE_DRAFT_ALWAYS: always so many). Penalties, biases and grammars hold for each
     * token as without drafts; what is drafted does not follow them, so fewer drafts are right.
     * 0: none; at most MCC_MAX_DRAFT */
    int32_t num_speculative_tokens;
    uint32_t reserved2;
    void *user_data; /* the caller's, handed back in each event */
    /* In [-2, 2]; 0: none. Taken off the logits of tokens that are in the output: once, and as
     * often as the token is there. */
    float presence_penalty, frequency_penalty;
    float typical_p;      /* in (0, 1]: keep the tokens whose surprise is nearest the expected one
                             (locally typical sampling); 0 means 1: all */
    int32_t top_logprobs; /* 0 to MCC_MAX_TOP_LOGPROBS: with each token's log-probability those of
                             so many most probable ones */
    /* [n_logit_bias] added to the logits of these tokens, -100 to 100; each id once. */
    const int32_t *logit_bias_ids;
    const float *logit_bias;
    int32_t n_logit_bias;
    uint32_t reserved3;
    /* Structured output: at most one of these; texts, zero-terminated, of at most 1 MiB. Tokens
     * that could not lead to a text that matches are never chosen; the model's end token (and
     * stop_token_ids) is allowed where the text may end, and where nothing can follow the request
     * ends by itself, MCC_FINISH_STOP. The text is incomplete where max_tokens, a stop text or a
     * deadline ends it before. */
    const char *guided_json;    /* a JSON schema: see the README for what of it */
    const char *guided_regex;   /* a regular expression as of Python's re, for the whole output;
                                   \\d, \\w and \\s are ASCII's. No look-around, back-references,
                                   flags; ^ and $ at the ends only */
    const char *guided_grammar; /* llama.cpp's GBNF: `name ::= …`, from the rule `root` on */
} mcc_request_params;

/* Hands a request to the engine, which copies what it needs. Requests start in the order given by
 * priority and arrival, and max_num_seqs run at a time. What the KV cache still has of the prompt's
 * beginning, in whole pages, is not computed again, from whichever request it is. When the cache
 * is full, the request that would have started last is preempted: it waits, and what it had is
 * computed again, unless the cache kept it, or copied back from swap_space_bytes of the host's
 * memory; its tokens are the same.
 * *id becomes the request's; with n > 1 samples, these are requests of their own, with the ids
 * *id … *id + n - 1. The caller polls each until it is finished. From any thread, also while
 * another steps.
 * Errors: INVALID_ARGUMENT, UNSUPPORTED (no tokenizer or template), CAPACITY (the prompt leaves no
 * room in max_model_len; or max_num_waiting requests wait already: try again later), OUT_OF_MEMORY,
 * DRAINING. */
MCC_API mcc_status mcc_request_submit(mcc_engine *engine, const mcc_request_params *params,
                                      uint64_t *id, mcc_error *error);

/* Ends a request where it is; an event MCC_EVENT_FINISHED follows, after the step where one is at
 * work. From any thread. Errors: NOT_FOUND. */
MCC_API mcc_status mcc_request_cancel(mcc_engine *engine, uint64_t id, mcc_error *error);

/* Runs one step: a token for each request that decodes, and beside them chunks of prompts, up to
 * max_num_batched_tokens. *unfinished (may be NULL) becomes the number of requests that are not
 * finished. Without any, it computes nothing. Errors: DEVICE_FAILED, OUT_OF_MEMORY,
 * INTERNAL; the requests concerned, those at work when the device fails, are then finished with
 * MCC_FINISH_ERROR. The engine remains usable: all others, and those that come, are computed by the
 * next steps, the first of which sets a GPU that has failed up again (which takes as long as making
 * the engine, and is an error of its own where the GPU is beyond that). Engines of one process
 * share a GPU's context and lose it together: each fails in its next step. */
MCC_API mcc_status mcc_engine_step(mcc_engine *engine, int32_t *unfinished, mcc_error *error);

/* Before the engine goes: from now on it takes no requests (mcc_request_submit: DRAINING). Those
 * that are there go on, and the caller steps until none is unfinished; what is then not finished
 * after `seconds` (0: no limit) ends where it is with MCC_FINISH_DEADLINE. From any thread; again,
 * to shorten the time. Errors: INVALID_ARGUMENT. */
MCC_API mcc_status mcc_engine_drain(mcc_engine *engine, double seconds, mcc_error *error);

/* A token and its log-probability. */
typedef struct mcc_logprob {
    int32_t token_id;
    float logprob;
} mcc_logprob;

enum { MCC_EVENT_NONE = 0, MCC_EVENT_TOKEN = 1, MCC_EVENT_FINISHED = 2 };
enum {
    MCC_FINISH_NONE = 0,
    MCC_FINISH_STOP = 1,   /* the model's end token, a stop token or a stop text */
    MCC_FINISH_LENGTH = 2, /* max_tokens or max_model_len */
    MCC_FINISH_CANCELLED = 3,
    MCC_FINISH_ERROR = 4,
    MCC_FINISH_DEADLINE = 5
};

typedef struct mcc_event {
    uint32_t struct_size;
    int32_t kind;          /* MCC_EVENT_ */
    int32_t token_id;      /* of MCC_EVENT_TOKEN, else -1 */
    int32_t finish_reason; /* of MCC_EVENT_FINISHED: MCC_FINISH_ */
    float logprob;         /* of the token, with MCC_REQUEST_LOGPROBS or top_logprobs */
    uint32_t reserved;
    const char *text; /* what this event adds to the text: whole characters, possibly none, also in
                         MCC_EVENT_FINISHED; zero-terminated; valid until the next event is taken
                         from the engine. "" without a tokenizer. */
    uint64_t text_bytes;
    /* Of MCC_EVENT_FINISHED: */
    int64_t prompt_tokens;     /* of these … */
    int64_t cached_tokens;     /* … so many were in the KV cache */
    int64_t completion_tokens; /* all that were reported, the end token included */
    double prefill_seconds;    /* in steps that computed the prompt; makes the first token too */
    double decode_seconds;     /* in the steps after it */
    int32_t preemptions;       /* how often it had to wait for room in the KV cache */
    int32_t reserved2;
    uint64_t request; /* whose event it is */
    void *user_data;  /* as the request had it */
    /* With top_logprobs: those of the token's place, most probable first (of equals the lower id);
     * valid until the next event is taken from the engine. */
    const mcc_logprob *top_logprobs;
    int32_t n_top_logprobs; /* as many as were asked for, if the model allows so many tokens */
    uint32_t reserved3;
    /* Of MCC_EVENT_FINISHED, of a model that computes embeddings, with MCC_FINISH_STOP: the
     * prompt's, of length 1 (see MCC_REQUEST_RAW_EMBEDDING); valid until the next event is taken.
     */
    const float *embedding;
    int64_t n_embedding;
} mcc_event;

/* Takes a request's next event: kind is MCC_EVENT_NONE when there is none yet. After
 * MCC_EVENT_FINISHED the request is gone. Errors: NOT_FOUND; INVALID_ARGUMENT with on_event. */
MCC_API mcc_status mcc_engine_poll(mcc_engine *engine, uint64_t id, mcc_event *event,
                                   mcc_error *error);

/* The same for whichever request has an event, all of one request before the next one's:
 * event->request says whose it is. */
MCC_API mcc_status mcc_engine_next_event(mcc_engine *engine, mcc_event *event, mcc_error *error);

/* Copies a request's prompt as token ids; *n becomes their number. Errors: NOT_FOUND,
 * BUFFER_TOO_SMALL (with *n set). */
MCC_API mcc_status mcc_request_prompt_ids(const mcc_engine *engine, uint64_t id, int32_t *ids,
                                          int64_t capacity, int64_t *n, mcc_error *error);

typedef struct mcc_engine_stats {
    uint32_t struct_size;
    int32_t threads;
    int32_t requests_running, requests_waiting;
    uint64_t steps;
    /* Since the engine was made. Tokens computed for prompts (and, after a preemption, again),
     * found in the KV cache instead, and generated; seconds of wall time of the steps, one with
     * both prompts and decoding counting as prefill. */
    uint64_t prefill_tokens, cached_tokens, generated_tokens;
    double prefill_seconds, decode_seconds;
    /* Memory: */
    uint64_t kv_bytes_reserved, kv_bytes_used; /* used: pages that sequences hold now */
    uint64_t arena_bytes;                      /* reserved for activations */
    int64_t max_model_len;
    int32_t max_num_batched_tokens;
    int32_t max_num_seqs;
    /* On a GPU, else 0. */
    uint64_t device_bytes; /* allocated in its memory: weights, activations, KV cache */
    uint64_t launches, driver_calls, graph_launches; /* since the engine was made */
    uint64_t last_launches, last_driver_calls;       /* of the last step */
    /* The KV cache: tokens that it holds in sequences of full length, and more in shorter ones;
     * bytes of pages that no request uses and that are kept for those that begin alike; tokens of
     * requests that started, of which cached_tokens were there; requests that had to wait again. */
    int64_t kv_tokens;
    uint64_t kv_bytes_cached, prefix_queries, preemptions;
    int32_t last_prefill_tokens, last_decode_tokens; /* of the last step */
    uint64_t draft_tokens, accepted_tokens;          /* drafted, and of these, kept */
    /* Logits or sampled tokens that were copied from it: in all, and in the last step. */
    uint64_t results_bytes, last_results_bytes;
    /* Of draft_tokens and accepted_tokens, those that were the first, second, … of their drafts. */
    uint64_t draft_tokens_at[MCC_MAX_DRAFT], accepted_tokens_at[MCC_MAX_DRAFT];
    uint64_t swaps; /* of the preemptions, those whose pages went to the host's memory */
} mcc_engine_stats;

MCC_API mcc_status mcc_engine_get_stats(const mcc_engine *engine, mcc_engine_stats *stats,
                                        mcc_error *error);

/* How long each launch of the last step took, of an engine made with MCC_ENGINE_TIMINGS, by index
 * as in mcc_artifact_get_launch; 0 for launches that had nothing to do. `seconds` has room for
 * `capacity`; *n becomes their number. Errors: UNSUPPORTED without the flag, BUFFER_TOO_SMALL (with
 * *n set). */
MCC_API mcc_status mcc_engine_launch_seconds(const mcc_engine *engine, double *seconds,
                                             int32_t capacity, int32_t *n, mcc_error *error);

/* --- evaluation: steps as they are ---------------------------------------------------------------
 */

/* One ragged step over the engine's sequences 0 … max_eval_seqs-1. The tokens of one sequence are
 * adjacent and have consecutive positions; the first position is at most the number of tokens that
 * the sequence holds (less: what it held from there on is forgotten). */
typedef struct mcc_eval_step {
    uint32_t struct_size;
    int32_t n_tokens; /* T, 1 … max_num_batched_tokens */
    int32_t n_rows;   /* R, 0 … n_tokens */
    int32_t reserved;
    const int32_t *token_ids;   /* [T] */
    const int32_t *positions;   /* [T] */
    const int32_t *sequences;   /* [T], the sequence of each token */
    const int32_t *output_rows; /* [R], tokens whose logits are asked for, ascending */
    const float *logits; /* result: [R][vocab_size] (embedding_size), valid until the next call on
                            the engine; NULL when R is 0 */
} mcc_eval_step;

/* Runs it. Not while requests are unfinished; and the first step of a request forgets what the
 * sequences here hold. Errors: INVALID_ARGUMENT; CAPACITY, after which the
 * step's sequences may hold no more than what lies before their first positions; DEVICE_FAILED,
 * after which no sequence holds anything. */
MCC_API mcc_status mcc_engine_eval(mcc_engine *engine, mcc_eval_step *step, mcc_error *error);

/* Forgets all that the engine's sequences hold, and what requests could reuse of it. Not while
 * requests are unfinished. */
MCC_API mcc_status mcc_engine_reset(mcc_engine *engine, mcc_error *error);

/* --- sessions: the KV cache in a file ------------------------------------------------------------
 */

/* The tokens of a conversation or the like, and what belongs to them. */
typedef struct mcc_session {
    uint32_t struct_size;
    uint32_t reserved;
    const int32_t *ids; /* from the beginning on */
    int64_t n_ids;
    const char *data; /* the application's own, such as the messages; a file keeps at most 1 GiB */
    uint64_t data_bytes;
    uint64_t cache_salt; /* as the requests had it, or shall have it */
    int64_t cached;      /* result: so many of the tokens have their keys and values in the file */
} mcc_session;

/* Writes a file with the session's tokens and data, and with what the KV cache still has of the
 * tokens' beginning, in whole pages: session->cached, which may be 0. The file is there once it is
 * whole, in the place of one with the same name. Requests may be unfinished, but fewer than
 * max_num_seqs at work; the thread that steps calls it, and others wait to submit meanwhile.
 * What mcc_engine_eval's sequences hold is forgotten.
 * Errors: INVALID_ARGUMENT, CAPACITY (max_num_seqs requests are at work), IO_ERROR, OUT_OF_MEMORY,
 * DEVICE_FAILED (the cache is then empty; requests are computed again). */
MCC_API mcc_status mcc_session_save(mcc_engine *engine, mcc_session *session, const char *path,
                                    mcc_error *error);

/* Reads such a file into the KV cache of an engine of the same model, built alike, so that a
 * request that begins with these tokens and has session->cache_salt need not compute them. What is
 * compared is the weights and the fused graph (MCC_PART_FUSED), so the pages mean the same; not
 * compared is what computed them. The results have the bits of computing all here where that had
 * the same numerics: the same version of modelcc built both, and both run on CPUs, of any target,
 * or both on GPUs of one architecture. From a GPU to a CPU or back, that is so with f32 pages;
 * with others attention adds up in another order there, and what follows may differ as if it had
 * begun on the other device. It stays as long as there is room. Fills *session, whose struct_size
 * and cache_salt the caller has set; mcc_session_free frees what it points to. Called by the thread
 * that steps. What mcc_engine_eval's sequences hold is forgotten. After an error, nothing else has
 * changed. Errors: INVALID_ARGUMENT (also: of another
 * model), IO_ERROR, BAD_ARTIFACT (damaged, or no session), VERSION_MISMATCH, CAPACITY (more tokens
 * than max_model_len, no room in the cache, or max_num_seqs requests are at work), OUT_OF_MEMORY,
 * DEVICE_FAILED (the cache is then empty). */
MCC_API mcc_status mcc_session_load(mcc_engine *engine, const char *path, mcc_session *session,
                                    mcc_error *error);

/* Frees what mcc_session_load allocated; NULL is allowed. */
MCC_API void mcc_session_free(mcc_session *session);

#ifdef __cplusplus
}
#endif

#endif
