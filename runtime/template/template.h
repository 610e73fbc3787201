/* Chat templates: the part of Jinja2 that models ship in `tokenizer.chat_template`.
 *
 * A template is parsed once and rendered for each conversation. Results equal those of the
 * `transformers` library, which renders with jinja2's ImmutableSandboxedEnvironment,
 * trim_blocks=True, lstrip_blocks=True and the loopcontrols extension. A tag, filter, test,
 * function or method that this engine does not have is an error that names it: at parse time
 * where the template's text shows it, else when rendering reaches it.
 *
 * Templates and contexts may be hostile. Nesting, steps (10 million), memory (256 MiB) and output
 * (16 MiB) of a render are bounded; nothing leaks after an error.
 *
 * Needs less than 256 KiB of stack at the deepest nesting allowed. A parsed template is never written
 * to again, so threads may render it at the same time. */
#ifndef RT_TEMPLATE_TEMPLATE_H
#define RT_TEMPLATE_TEMPLATE_H

#include <stddef.h>

#include <cjson/cJSON.h>

typedef struct rt_template rt_template;

/* Parses `n` bytes of UTF-8 at `source` (copied). On failure returns NULL and writes a message of
 * at most err_cap - 1 bytes such as
 * "chat template: line 3: unknown filter 'foo'; supported: abs, ...". */
rt_template *rt_template_parse(const char *source, size_t n, char *err, size_t err_cap);

/* Renders with the variables in `context`, a JSON object: `messages`, `add_generation_prompt`,
 * `bos_token`, `eos_token`, and so on. transformers always passes `tools` and `documents`, as
 * null when there are none; a caller that wants its results passes them too.
 *
 * JSON numbers with an integral value become Python ints, all others floats.
 * If the context has a number `strftime_now`, the function of that name formats this time (seconds
 * since 1970, UTC) instead of the present local time.
 *
 * Returns malloc'ed text that the caller frees, NUL-terminated, with its length in *len (len may
 * be NULL; the text itself may contain NULs). On failure returns NULL and writes a message; what a
 * template says through raise_exception() is the whole message. */
char *rt_template_render(const rt_template *t, const cJSON *context, size_t *len, char *err,
                         size_t err_cap);

/* Frees a template; NULL is allowed. */
void rt_template_free(rt_template *t);

#endif
