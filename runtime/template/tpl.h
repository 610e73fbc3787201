/* The template engine's own structures, shared by its files and by nobody else.
 *
 *   source --rt_tpl_lex--> tokens --rt_tpl_parse--> tree of nodes --rt_tpl_exec/rt_tpl_eval--> text
 *
 * Errors leave through rt_tpl_fail, a longjmp to the public function that began the parse or
 * render. That is safe because all memory of a parse or render belongs to one arena, which the
 * public function frees; no other resource is ever held. */
#ifndef RT_TEMPLATE_TPL_H
#define RT_TEMPLATE_TPL_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

/* ---- limits ---- */

#define RT_TPL_MAX_SOURCE (4u << 20)   /* bytes of template text */
#define RT_TPL_MAX_OUTPUT (16u << 20)  /* bytes of one rendered text */
#define RT_TPL_MAX_MEMORY (256u << 20) /* bytes of one arena */
#define RT_TPL_MAX_STEPS 10000000u     /* nodes evaluated, elements visited, 32 bytes of text */
#define RT_TPL_MAX_PARSE_DEPTH 200     /* nesting of expressions and blocks in the source */
#define RT_TPL_MAX_DEPTH 600           /* nesting of evaluation, and of values */
#define RT_TPL_MAX_RANGE 100000        /* the sandbox's MAX_RANGE */

/* ---- values ---- */

/* Text in UTF-8, always valid; not NUL-terminated. Points into the arena, the template or the
 * context, all of which outlive it. */
struct rt_tpl_str {
    const char *p;
    size_t n;
};

enum rt_tpl_kind {
    RT_TPL_MISSING, /* an argument that was not given; never visible to a template */
    RT_TPL_UNDEFINED,
    RT_TPL_NONE,
    RT_TPL_BOOL,
    RT_TPL_INT,
    RT_TPL_FLOAT,
    RT_TPL_STR,
    RT_TPL_LIST,
    RT_TPL_TUPLE,
    RT_TPL_RANGE,
    RT_TPL_VIEW, /* dict.keys(), values() and items() */
    RT_TPL_ITER, /* a generator: what `map`, `select` and others return; can be read once */
    RT_TPL_DICT,
    RT_TPL_NAMESPACE,
    RT_TPL_LOOP,
    RT_TPL_MACRO,
    RT_TPL_METHOD, /* 'a'.strip without its call */
    RT_TPL_GLOBAL, /* range, dict, namespace, raise_exception, strftime_now */
};

struct rt_tpl_value {
    uint8_t kind; /* enum rt_tpl_kind */
    bool safe;    /* RT_TPL_STR: went through `safe` (Python's Markup) */
    union {
        bool b;
        int64_t i;
        double f;
        struct rt_tpl_str s; /* RT_TPL_STR; for RT_TPL_UNDEFINED the error its use gives */
        struct rt_tpl_seq *seq;
        struct rt_tpl_dict *dict; /* also the attributes of a namespace */
        struct rt_tpl_loop *loop;
        struct rt_tpl_macro *macro;
        struct rt_tpl_method *method;
        const struct rt_tpl_global *global;
    } u;
};

/* List, tuple, range, view or iterator. Immutable, except that an iterator is read from `pos`. */
struct rt_tpl_seq {
    struct rt_tpl_value *v;
    size_t n;
    size_t pos;
    const char *label; /* how Python prints a range or view: "range(0, 3)", "dict_keys" */
};

/* Insertion-ordered dictionary with an open-addressing index over its entries. */
struct rt_tpl_dict {
    struct rt_tpl_value *keys, *vals;
    size_t n, cap;
    uint32_t *index; /* entry number + 1, or 0 */
    size_t index_n;  /* power of two, at least twice cap; 0 while small */
};

/* Arguments of a call. */
struct rt_tpl_args {
    const struct rt_tpl_value *pos;
    size_t n_pos;
    const struct rt_tpl_str *kw;
    const struct rt_tpl_value *kw_vals;
    size_t n_kw;
};

struct rt_tpl_method {
    struct rt_tpl_value self;
    const struct rt_tpl_method_def *def;
};

struct rt_tpl_var {
    const char *name; /* interned: names of one template are equal when their pointers are */
    struct rt_tpl_value v;
};

struct rt_tpl_scope {
    struct rt_tpl_scope *parent;
    struct rt_tpl_var *vars;
    size_t n, cap;
    bool captured; /* a macro keeps it, so a loop must not reuse it */
};

struct rt_tpl_macro {
    const struct rt_tpl_node *node;
    struct rt_tpl_scope *scope;
};

/* Growing text in the arena. */
struct rt_tpl_buf {
    char *p;
    size_t n, cap;
};

/* ---- the tree ---- */

enum rt_tpl_node_kind {
    RT_TPL_N_CONST,
    RT_TPL_N_NAME,
    RT_TPL_N_LIST,
    RT_TPL_N_TUPLE,
    RT_TPL_N_DICT, /* kids: key, value, key, value */
    RT_TPL_N_ATTR,
    RT_TPL_N_ITEM,
    RT_TPL_N_SLICE, /* kids: object, start, stop, step (each may be NULL) */
    RT_TPL_N_CALL,
    RT_TPL_N_FILTER,
    RT_TPL_N_TEST,
    RT_TPL_N_NOT,
    RT_TPL_N_NEG,
    RT_TPL_N_POS,
    RT_TPL_N_AND,
    RT_TPL_N_OR,
    RT_TPL_N_BINARY,
    RT_TPL_N_CONCAT,
    RT_TPL_N_COMPARE, /* kids: operands; ops: one less */
    RT_TPL_N_COND,    /* kids: condition, then, else or NULL */
    RT_TPL_N_BODY,
    RT_TPL_N_TEXT,
    RT_TPL_N_OUTPUT,
    RT_TPL_N_IF,           /* kids: condition, body, condition, body, ..., else body if odd */
    RT_TPL_N_FOR,          /* kids: target, iterable, filter or NULL, body, else body or NULL */
    RT_TPL_N_SET,          /* kids: target, value */
    RT_TPL_N_SET_BLOCK,    /* kids: target, body, filter chain or NULL */
    RT_TPL_N_MACRO,        /* kids: body, default or NULL per parameter */
    RT_TPL_N_FILTER_BLOCK, /* kids: body, filter chain */
    RT_TPL_N_WITH,         /* kids: body, target, value, target, value, ... */
    RT_TPL_N_SCOPE,        /* {% generation %}: a body whose variables stay inside */
    RT_TPL_N_BREAK,
    RT_TPL_N_CONTINUE,
    RT_TPL_N_NS_TARGET,  /* `ns.name` on the left of a set */
    RT_TPL_N_BLOCK_TEXT, /* what a filter block's filters apply to */
};

struct rt_tpl_node {
    uint8_t kind;
    uint8_t op; /* binary: a token kind */
    int line;
    struct rt_tpl_str name;    /* variable, attribute, macro; interned */
    struct rt_tpl_value value; /* RT_TPL_N_CONST, RT_TPL_N_TEXT */
    struct rt_tpl_node **kids;
    size_t n_kids;
    size_t n_args;         /* calls, filters, tests: kids[0] is the object, then positional ones */
    struct rt_tpl_str *kw; /* keyword names (values follow the positional kids); macro parameters */
    size_t n_kw;
    uint8_t *ops; /* RT_TPL_N_COMPARE */
    const struct rt_tpl_filter *filter;
    const struct rt_tpl_test *test;
};

/* ---- the state of one parse or render ---- */

struct rt_tpl_chunk;

struct rt_tpl_env {
    struct rt_tpl_chunk *chunks;
    size_t memory;
    uint32_t steps;
    int depth, max_depth;
    int line; /* of what is being read or evaluated; 0: the context */
    char *err;
    size_t err_cap;
    jmp_buf jump;
    /* render only */
    struct rt_tpl_dict *context;
    const double *now; /* what strftime_now shows, or NULL for the clock */
    struct rt_tpl_scope *scope;
    struct rt_tpl_buf *out;
};

struct rt_tpl_filter {
    const char *name;
    struct rt_tpl_value (*fn)(struct rt_tpl_env *e, struct rt_tpl_value v,
                              const struct rt_tpl_value *arg, const struct rt_tpl_args *raw);
    /* Parameter names, comma separated, for rt_tpl_bind; NULL: the function reads `raw` itself. */
    const char *params;
};

struct rt_tpl_test {
    const char *name;
    bool (*fn)(struct rt_tpl_env *e, struct rt_tpl_value v, const struct rt_tpl_value *arg);
    int n_args;
};

struct rt_tpl_global {
    const char *name;
    struct rt_tpl_value (*fn)(struct rt_tpl_env *e, const struct rt_tpl_args *args);
};

struct rt_tpl_method_def {
    const char *name;
    const char *params;
    struct rt_tpl_value (*fn)(struct rt_tpl_env *e, struct rt_tpl_value self,
                              const struct rt_tpl_value *arg);
};

#define RT_TPL_MAX_PARAMS 8

/* ---- arena.c: memory, errors, limits ---- */

#if defined(__GNUC__)
#define RT_TPL_PRINTF(a, b) __attribute__((format(printf, a, b)))
#else
#define RT_TPL_PRINTF(a, b)
#endif

/* 16-byte aligned, uninitialised. Never NULL. */
void *rt_tpl_alloc(struct rt_tpl_env *e, size_t n);
/* n * size bytes of zeros. */
void *rt_tpl_calloc(struct rt_tpl_env *e, size_t n, size_t size);
void rt_tpl_free_chunks(struct rt_tpl_chunk *c);
/* Ends the parse or render with "chat template: line N: " and the message. */
_Noreturn void rt_tpl_fail(struct rt_tpl_env *e, const char *fmt, ...) RT_TPL_PRINTF(2, 3);
/* Ends it with exactly this text. */
_Noreturn void rt_tpl_fail_text(struct rt_tpl_env *e, struct rt_tpl_str text);
void rt_tpl_charge(struct rt_tpl_env *e, size_t n);
/* For recursion: enter fails when it is too deep. */
void rt_tpl_enter(struct rt_tpl_env *e);
void rt_tpl_leave(struct rt_tpl_env *e);

/* What was written; never a NULL pointer. */
struct rt_tpl_str rt_tpl_buf_str(const struct rt_tpl_buf *b);
void rt_tpl_put(struct rt_tpl_env *e, struct rt_tpl_buf *b, const char *p, size_t n);
void rt_tpl_puts(struct rt_tpl_env *e, struct rt_tpl_buf *b, const char *s);
void rt_tpl_putc(struct rt_tpl_env *e, struct rt_tpl_buf *b, char c);
void rt_tpl_put_code(struct rt_tpl_env *e, struct rt_tpl_buf *b, uint32_t code);
void rt_tpl_printf(struct rt_tpl_env *e, struct rt_tpl_buf *b, const char *fmt, ...)
    RT_TPL_PRINTF(3, 4);

/* ---- text.c: strings as Python sees them ---- */

struct rt_tpl_case_run {
    uint32_t first, last, stride;
    int32_t delta;
};
struct rt_tpl_case_special {
    uint32_t code;
    const char *text;
};
struct rt_tpl_range {
    uint32_t first, last;
};
extern const struct rt_tpl_case_run rt_tpl_lower_runs[], rt_tpl_upper_runs[];
extern const size_t rt_tpl_lower_runs_n, rt_tpl_upper_runs_n;
extern const struct rt_tpl_case_special rt_tpl_lower_special[], rt_tpl_upper_special[],
    rt_tpl_title_special[];
extern const size_t rt_tpl_lower_special_n, rt_tpl_upper_special_n, rt_tpl_title_special_n;
extern const struct rt_tpl_range rt_tpl_unprintable[];
extern const size_t rt_tpl_unprintable_n;

enum rt_tpl_case { RT_TPL_LOWER, RT_TPL_UPPER, RT_TPL_TITLE };

#define RT_TPL_S(lit) ((struct rt_tpl_str){(lit), sizeof(lit) - 1})
struct rt_tpl_str rt_tpl_cstr(const char *s);
bool rt_tpl_str_eq(struct rt_tpl_str a, struct rt_tpl_str b);
bool rt_tpl_str_is(struct rt_tpl_str a, const char *b);
int rt_tpl_str_cmp(struct rt_tpl_str a, struct rt_tpl_str b); /* by code points, as Python */
bool rt_tpl_utf8_valid(const char *p, size_t n);
/* Decodes one character of valid UTF-8 (n > 0); *used gets its length. */
uint32_t rt_tpl_utf8_next(const char *p, size_t n, size_t *used);
size_t rt_tpl_str_len(struct rt_tpl_str s); /* in characters */
/* Byte offset of character i (0 <= i <= length). */
size_t rt_tpl_str_offset(struct rt_tpl_str s, size_t i);
/* Bytes of the white-space character that s begins with, or 0. */
size_t rt_tpl_space_at(const char *p, size_t n);
bool rt_tpl_printable(uint32_t code);
void rt_tpl_put_case(struct rt_tpl_env *e, struct rt_tpl_buf *b, uint32_t code,
                     enum rt_tpl_case how);
struct rt_tpl_str rt_tpl_str_case(struct rt_tpl_env *e, struct rt_tpl_str s, enum rt_tpl_case how);
struct rt_tpl_str rt_tpl_capitalize(struct rt_tpl_env *e, struct rt_tpl_str s);
enum { RT_TPL_LEFT = 1, RT_TPL_RIGHT = 2 };
/* Strips white space, or the characters in *chars when it is not NULL. */
struct rt_tpl_str rt_tpl_strip(struct rt_tpl_env *e, struct rt_tpl_str s,
                               const struct rt_tpl_str *chars, int sides);
/* Byte offset of the first (or last) place of `what` in s, or SIZE_MAX. */
size_t rt_tpl_find(struct rt_tpl_env *e, struct rt_tpl_str s, struct rt_tpl_str what);
size_t rt_tpl_rfind(struct rt_tpl_env *e, struct rt_tpl_str s, struct rt_tpl_str what);
struct rt_tpl_str rt_tpl_replace(struct rt_tpl_env *e, struct rt_tpl_str s, struct rt_tpl_str from,
                                 struct rt_tpl_str to, int64_t count);
/* Lines without (or with) their ends, as str.splitlines. A list. */
struct rt_tpl_value rt_tpl_splitlines(struct rt_tpl_env *e, struct rt_tpl_str s, bool keep);
void rt_tpl_put_float(struct rt_tpl_env *e, struct rt_tpl_buf *b, double f);
/* Reads a Python int or float written in s (white space around is allowed). */
bool rt_tpl_read_int(struct rt_tpl_env *e, struct rt_tpl_str s, int64_t base, int64_t *out);
bool rt_tpl_read_float(struct rt_tpl_env *e, struct rt_tpl_str s, double *out);

/* ---- value.c ---- */

struct rt_tpl_value rt_tpl_none(void);
struct rt_tpl_value rt_tpl_bool(bool b);
struct rt_tpl_value rt_tpl_int(int64_t i);
struct rt_tpl_value rt_tpl_float(double f);
struct rt_tpl_value rt_tpl_string(struct rt_tpl_str s);
struct rt_tpl_value rt_tpl_buf_value(const struct rt_tpl_buf *b);
struct rt_tpl_value rt_tpl_undefined(struct rt_tpl_env *e, const char *fmt, ...)
    RT_TPL_PRINTF(2, 3);
struct rt_tpl_value rt_tpl_seq(enum rt_tpl_kind kind, struct rt_tpl_value *v, size_t n,
                               struct rt_tpl_env *e);
/* A sequence under construction. */
struct rt_tpl_list {
    struct rt_tpl_value *v;
    size_t n, cap;
};
void rt_tpl_push(struct rt_tpl_env *e, struct rt_tpl_list *l, struct rt_tpl_value v);
struct rt_tpl_value rt_tpl_list_value(struct rt_tpl_env *e, const struct rt_tpl_list *l,
                                      enum rt_tpl_kind kind);

struct rt_tpl_dict *rt_tpl_dict_new(struct rt_tpl_env *e);
void rt_tpl_dict_set(struct rt_tpl_env *e, struct rt_tpl_dict *d, struct rt_tpl_value k,
                     struct rt_tpl_value v);
struct rt_tpl_value *rt_tpl_dict_get(struct rt_tpl_env *e, const struct rt_tpl_dict *d,
                                     struct rt_tpl_value k);
struct rt_tpl_value *rt_tpl_dict_get_str(struct rt_tpl_env *e, const struct rt_tpl_dict *d,
                                         struct rt_tpl_str k);
bool rt_tpl_hashable(struct rt_tpl_value v);

/* Python's name of the type, for messages. */
const char *rt_tpl_type_name(struct rt_tpl_value v);
bool rt_tpl_truth(struct rt_tpl_env *e, struct rt_tpl_value v);
bool rt_tpl_is_number(struct rt_tpl_value v);            /* bool, int or float */
double rt_tpl_number(struct rt_tpl_value v);             /* of a number */
bool rt_tpl_as_int(struct rt_tpl_value v, int64_t *out); /* bool or int */
bool rt_tpl_equal(struct rt_tpl_env *e, struct rt_tpl_value a, struct rt_tpl_value b);
int rt_tpl_compare(struct rt_tpl_env *e, struct rt_tpl_value a, struct rt_tpl_value b,
                   const char *op);
bool rt_tpl_contains(struct rt_tpl_env *e, struct rt_tpl_value in, struct rt_tpl_value what);
/* str(v) and repr(v). */
struct rt_tpl_str rt_tpl_to_str(struct rt_tpl_env *e, struct rt_tpl_value v);
void rt_tpl_put_str(struct rt_tpl_env *e, struct rt_tpl_buf *b, struct rt_tpl_value v);
void rt_tpl_put_repr(struct rt_tpl_env *e, struct rt_tpl_buf *b, struct rt_tpl_value v);
/* All elements of an iterable; reads an iterator to its end. Fails on what is not iterable. */
struct rt_tpl_seq rt_tpl_iterate(struct rt_tpl_env *e, struct rt_tpl_value v);
bool rt_tpl_iterable(struct rt_tpl_value v);
int64_t rt_tpl_length(struct rt_tpl_env *e, struct rt_tpl_value v);
struct rt_tpl_value rt_tpl_from_json(struct rt_tpl_env *e, const cJSON *j);
/* Fails with the undefined value's own message when v is undefined. */
void rt_tpl_need_defined(struct rt_tpl_env *e, struct rt_tpl_value v);
struct rt_tpl_str rt_tpl_need_str(struct rt_tpl_env *e, struct rt_tpl_value v, const char *what);

/* ---- ops.c: operators, attributes, subscripts ---- */

struct rt_tpl_value rt_tpl_binary(struct rt_tpl_env *e, int op, struct rt_tpl_value a,
                                  struct rt_tpl_value b);
struct rt_tpl_value rt_tpl_negate(struct rt_tpl_env *e, struct rt_tpl_value v, bool minus);
struct rt_tpl_value rt_tpl_getattr(struct rt_tpl_env *e, struct rt_tpl_value v,
                                   struct rt_tpl_str name);
struct rt_tpl_value rt_tpl_getitem(struct rt_tpl_env *e, struct rt_tpl_value v,
                                   struct rt_tpl_value key);
struct rt_tpl_value rt_tpl_slice(struct rt_tpl_env *e, struct rt_tpl_value v,
                                 const struct rt_tpl_value *start, const struct rt_tpl_value *stop,
                                 const struct rt_tpl_value *step);
struct rt_tpl_value rt_tpl_reverse(struct rt_tpl_env *e, struct rt_tpl_value v);

/* ---- methods.c, globals.c ---- */

/* The method `name` of v's type; NULL when there is none of that name. Fails on Python's methods
 * that are not supported or that the sandbox forbids. */
const struct rt_tpl_method_def *rt_tpl_find_method(struct rt_tpl_env *e, struct rt_tpl_value v,
                                                   struct rt_tpl_str name);
const struct rt_tpl_global *rt_tpl_find_global(struct rt_tpl_str name);

/* ---- calls ---- */

/* Puts arguments in the order of `params` ("a!,b,c"; those with '!' must be given); those not given
 * are RT_TPL_MISSING. */
void rt_tpl_bind(struct rt_tpl_env *e, const char *what, const char *params,
                 const struct rt_tpl_args *args, struct rt_tpl_value out[RT_TPL_MAX_PARAMS]);
struct rt_tpl_value rt_tpl_apply_filter(struct rt_tpl_env *e, const struct rt_tpl_filter *f,
                                        struct rt_tpl_value v, const struct rt_tpl_args *args);
bool rt_tpl_apply_test(struct rt_tpl_env *e, const struct rt_tpl_test *t, struct rt_tpl_value v,
                       const struct rt_tpl_args *args);

/* ---- filters.c, filters_seq.c, tests.c, json.c ---- */

extern const struct rt_tpl_filter rt_tpl_text_filters[], rt_tpl_seq_filters[];
/* NULL when there is none; then rt_tpl_*_names lists those there are, for the message. */
const struct rt_tpl_filter *rt_tpl_find_filter(struct rt_tpl_str name);
const struct rt_tpl_test *rt_tpl_find_test(struct rt_tpl_str name);
void rt_tpl_filter_names(struct rt_tpl_env *e, struct rt_tpl_buf *b);
void rt_tpl_test_names(struct rt_tpl_env *e, struct rt_tpl_buf *b);
struct rt_tpl_value rt_tpl_filter_tojson(struct rt_tpl_env *e, struct rt_tpl_value v,
                                         const struct rt_tpl_value *arg,
                                         const struct rt_tpl_args *raw);

/* ---- lexer.c ---- */

enum rt_tpl_token_kind {
    RT_TPL_T_EOF,
    RT_TPL_T_DATA,
    RT_TPL_T_VAR_BEGIN,
    RT_TPL_T_VAR_END,
    RT_TPL_T_BLOCK_BEGIN,
    RT_TPL_T_BLOCK_END,
    RT_TPL_T_NAME,
    RT_TPL_T_STRING,
    RT_TPL_T_INT,
    RT_TPL_T_FLOAT,
    RT_TPL_T_ADD,
    RT_TPL_T_SUB,
    RT_TPL_T_DIV,
    RT_TPL_T_FLOORDIV,
    RT_TPL_T_MUL,
    RT_TPL_T_MOD,
    RT_TPL_T_POW,
    RT_TPL_T_TILDE,
    RT_TPL_T_LBRACKET,
    RT_TPL_T_RBRACKET,
    RT_TPL_T_LPAREN,
    RT_TPL_T_RPAREN,
    RT_TPL_T_LBRACE,
    RT_TPL_T_RBRACE,
    RT_TPL_T_EQ,
    RT_TPL_T_NE,
    RT_TPL_T_GT,
    RT_TPL_T_GE,
    RT_TPL_T_LT,
    RT_TPL_T_LE,
    RT_TPL_T_ASSIGN,
    RT_TPL_T_DOT,
    RT_TPL_T_COLON,
    RT_TPL_T_PIPE,
    RT_TPL_T_COMMA,
    RT_TPL_T_SEMICOLON,
    RT_TPL_T_IN, /* made by the parser for comparisons */
    RT_TPL_T_NOT_IN,
};

struct rt_tpl_token {
    uint8_t kind;
    int line;
    struct rt_tpl_str s; /* name, decoded string, data, or the operator's text */
    int64_t i;
    double f;
};

/* The tokens of the source, ended by RT_TPL_T_EOF. */
struct rt_tpl_token *rt_tpl_lex(struct rt_tpl_env *e, struct rt_tpl_str source);

/* ---- parser.c, expr.c ---- */

struct rt_tpl_parser {
    struct rt_tpl_env *e;
    const struct rt_tpl_token *t;    /* the present token */
    struct rt_tpl_dict *names;       /* interned */
    struct rt_tpl_dict *assigned;    /* names that the template itself gives a value */
    struct rt_tpl_dict *called;      /* unknown names that are called -> line */
    const struct rt_tpl_node *macro; /* the innermost macro being read */
    int loops;                       /* loops around this place, for break and continue */
};

struct rt_tpl_node *rt_tpl_parse(struct rt_tpl_env *e, struct rt_tpl_str source);
struct rt_tpl_node *rt_tpl_node_new(struct rt_tpl_parser *p, enum rt_tpl_node_kind kind);
void rt_tpl_set_kids(struct rt_tpl_parser *p, struct rt_tpl_node *n, size_t count, ...);
void rt_tpl_add_kid(struct rt_tpl_parser *p, struct rt_tpl_node *n, struct rt_tpl_node *kid);
struct rt_tpl_str rt_tpl_intern(struct rt_tpl_parser *p, struct rt_tpl_str s);
bool rt_tpl_at_name(const struct rt_tpl_parser *p, const char *name);
bool rt_tpl_skip_name(struct rt_tpl_parser *p, const char *name);
bool rt_tpl_skip(struct rt_tpl_parser *p, int kind);
void rt_tpl_expect(struct rt_tpl_parser *p, int kind);
struct rt_tpl_str rt_tpl_expect_name(struct rt_tpl_parser *p, const char *what);
/* "found X, expected `expected`" at the present token. */
_Noreturn void rt_tpl_unexpected(struct rt_tpl_parser *p, const char *expected);
/* An expression; `cond` allows `a if b else c`. */
struct rt_tpl_node *rt_tpl_parse_expr(struct rt_tpl_parser *p, bool cond);
/* Expressions with commas between make a tuple. */
struct rt_tpl_node *rt_tpl_parse_tuple(struct rt_tpl_parser *p, bool cond, bool parens);
/* `| filter` chain applied to `on`; when `inline_first` the first has no `|`. */
struct rt_tpl_node *rt_tpl_parse_filters(struct rt_tpl_parser *p, struct rt_tpl_node *on,
                                         bool inline_first);
struct rt_tpl_node *rt_tpl_parse_target(struct rt_tpl_parser *p, bool allow_ns,
                                        const char *end_name);

/* ---- eval.c, exec.c ---- */

struct rt_tpl_value rt_tpl_eval(struct rt_tpl_env *e, const struct rt_tpl_node *n);
struct rt_tpl_value rt_tpl_call(struct rt_tpl_env *e, struct rt_tpl_value fn,
                                const struct rt_tpl_args *args);
enum rt_tpl_flow { RT_TPL_NORMAL, RT_TPL_BREAK, RT_TPL_CONTINUE };
enum rt_tpl_flow rt_tpl_exec(struct rt_tpl_env *e, const struct rt_tpl_node *n);
/* The text a body writes, with variables of its own. */
struct rt_tpl_value rt_tpl_capture(struct rt_tpl_env *e, const struct rt_tpl_node *body);
struct rt_tpl_scope *rt_tpl_scope_new(struct rt_tpl_env *e, struct rt_tpl_scope *parent);
void rt_tpl_scope_set(struct rt_tpl_env *e, struct rt_tpl_scope *s, const char *name,
                      struct rt_tpl_value v);
struct rt_tpl_value rt_tpl_call_macro(struct rt_tpl_env *e, const struct rt_tpl_macro *m,
                                      const struct rt_tpl_args *args);
struct rt_tpl_value rt_tpl_loop_attr(struct rt_tpl_env *e, struct rt_tpl_loop *l,
                                     struct rt_tpl_str name);
struct rt_tpl_value rt_tpl_loop_call(struct rt_tpl_env *e, struct rt_tpl_value self, bool changed,
                                     const struct rt_tpl_args *args);

#endif
