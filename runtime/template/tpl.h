/* The template engine's own structures, shared by its files and by nobody else.
 *
 *   source --tpl_lex--> tokens --tpl_parse--> tree of nodes --tpl_exec/tpl_eval--> text
 *
 * Errors leave through tpl_fail, a longjmp to the public function that began the parse or render.
 * That is safe because all memory of a parse or render belongs to one arena, which the public
 * function frees; no other resource is ever held. */
#ifndef RT_TEMPLATE_TPL_H
#define RT_TEMPLATE_TPL_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

/* ---- limits ---- */

#define TPL_MAX_SOURCE (4u << 20)     /* bytes of template text */
#define TPL_MAX_OUTPUT (16u << 20)    /* bytes of one rendered text */
#define TPL_MAX_MEMORY (256u << 20)   /* bytes of one arena */
#define TPL_MAX_STEPS 10000000u       /* nodes evaluated, elements visited, 32 bytes of text */
#define TPL_MAX_PARSE_DEPTH 200       /* nesting of expressions and blocks in the source */
#define TPL_MAX_DEPTH 600             /* nesting of evaluation, and of values */
#define TPL_MAX_RANGE 100000          /* the sandbox's MAX_RANGE */

/* ---- values ---- */

/* Text in UTF-8, always valid; not NUL-terminated. Points into the arena, the template or the
 * context, all of which outlive it. */
struct tpl_str {
    const char *p;
    size_t n;
};

enum tpl_kind {
    TPL_MISSING, /* an argument that was not given; never visible to a template */
    TPL_UNDEFINED,
    TPL_NONE,
    TPL_BOOL,
    TPL_INT,
    TPL_FLOAT,
    TPL_STR,
    TPL_LIST,
    TPL_TUPLE,
    TPL_RANGE,
    TPL_VIEW, /* dict.keys(), values() and items() */
    TPL_ITER, /* a generator: what `map`, `select` and others return; can be read once */
    TPL_DICT,
    TPL_NAMESPACE,
    TPL_LOOP,
    TPL_MACRO,
    TPL_METHOD, /* 'a'.strip without its call */
    TPL_GLOBAL, /* range, dict, namespace, raise_exception, strftime_now */
};

struct tpl_value {
    uint8_t kind; /* enum tpl_kind */
    bool safe;    /* TPL_STR: went through `safe` (Python's Markup) */
    union {
        bool b;
        int64_t i;
        double f;
        struct tpl_str s; /* TPL_STR; for TPL_UNDEFINED the error its use gives */
        struct tpl_seq *seq;
        struct tpl_dict *dict; /* also the attributes of a namespace */
        struct tpl_loop *loop;
        struct tpl_macro *macro;
        struct tpl_method *method;
        const struct tpl_global *global;
    } u;
};

/* List, tuple, range, view or iterator. Immutable, except that an iterator is read from `pos`. */
struct tpl_seq {
    struct tpl_value *v;
    size_t n;
    size_t pos;
    const char *label; /* how Python prints a range or view: "range(0, 3)", "dict_keys" */
};

/* Insertion-ordered dictionary with an open-addressing index over its entries. */
struct tpl_dict {
    struct tpl_value *keys, *vals;
    size_t n, cap;
    uint32_t *index; /* entry number + 1, or 0 */
    size_t index_n;  /* power of two, at least twice cap; 0 while small */
};

/* Arguments of a call. */
struct tpl_args {
    const struct tpl_value *pos;
    size_t n_pos;
    const struct tpl_str *kw;
    const struct tpl_value *kw_vals;
    size_t n_kw;
};

struct tpl_method {
    struct tpl_value self;
    const struct tpl_method_def *def;
};

struct tpl_var {
    const char *name; /* interned: names of one template are equal when their pointers are */
    struct tpl_value v;
};

struct tpl_scope {
    struct tpl_scope *parent;
    struct tpl_var *vars;
    size_t n, cap;
    bool captured; /* a macro keeps it, so a loop must not reuse it */
};

struct tpl_macro {
    const struct tpl_node *node;
    struct tpl_scope *scope;
};

/* Growing text in the arena. */
struct tpl_buf {
    char *p;
    size_t n, cap;
};

/* ---- the tree ---- */

enum tpl_node_kind {
    TPL_N_CONST,
    TPL_N_NAME,
    TPL_N_LIST,
    TPL_N_TUPLE,
    TPL_N_DICT, /* kids: key, value, key, value */
    TPL_N_ATTR,
    TPL_N_ITEM,
    TPL_N_SLICE, /* kids: object, start, stop, step (each may be NULL) */
    TPL_N_CALL,
    TPL_N_FILTER,
    TPL_N_TEST,
    TPL_N_NOT,
    TPL_N_NEG,
    TPL_N_POS,
    TPL_N_AND,
    TPL_N_OR,
    TPL_N_BINARY,
    TPL_N_CONCAT,
    TPL_N_COMPARE, /* kids: operands; ops: one less */
    TPL_N_COND,    /* kids: condition, then, else or NULL */
    TPL_N_BODY,
    TPL_N_TEXT,
    TPL_N_OUTPUT,
    TPL_N_IF,  /* kids: condition, body, condition, body, ..., else body if odd */
    TPL_N_FOR, /* kids: target, iterable, filter or NULL, body, else body or NULL */
    TPL_N_SET, /* kids: target, value */
    TPL_N_SET_BLOCK, /* kids: target, body, filter chain or NULL */
    TPL_N_MACRO,     /* kids: body, default or NULL per parameter */
    TPL_N_FILTER_BLOCK, /* kids: body, filter chain */
    TPL_N_WITH,         /* kids: body, target, value, target, value, ... */
    TPL_N_SCOPE,        /* {% generation %}: a body whose variables stay inside */
    TPL_N_BREAK,
    TPL_N_CONTINUE,
    TPL_N_NS_TARGET, /* `ns.name` on the left of a set */
    TPL_N_BLOCK_TEXT, /* what a filter block's filters apply to */
};

struct tpl_node {
    uint8_t kind;
    uint8_t op; /* binary: a token kind */
    int line;
    struct tpl_str name;    /* variable, attribute, macro; interned */
    struct tpl_value value; /* TPL_N_CONST, TPL_N_TEXT */
    struct tpl_node **kids;
    size_t n_kids;
    size_t n_args;       /* calls, filters, tests: kids[0] is the object, then positional ones */
    struct tpl_str *kw;  /* keyword names (values follow the positional kids); macro parameters */
    size_t n_kw;
    uint8_t *ops;        /* TPL_N_COMPARE */
    const struct tpl_filter *filter;
    const struct tpl_test *test;
};

/* ---- the state of one parse or render ---- */

struct tpl_chunk;

struct tpl_env {
    struct tpl_chunk *chunks;
    size_t memory;
    uint32_t steps;
    int depth;
    int line; /* of what is being read or evaluated */
    char *err;
    size_t err_cap;
    jmp_buf jump;
    /* render only */
    struct tpl_dict *context;
    struct tpl_scope *scope;
    struct tpl_buf *out;
};

struct tpl_filter {
    const char *name;
    struct tpl_value (*fn)(struct tpl_env *e, struct tpl_value v, const struct tpl_value *arg,
                           const struct tpl_args *raw);
    /* Parameter names, comma separated, for tpl_bind; NULL: the function reads `raw` itself. */
    const char *params;
};

struct tpl_test {
    const char *name;
    bool (*fn)(struct tpl_env *e, struct tpl_value v, const struct tpl_value *arg);
    int n_args;
};

struct tpl_global {
    const char *name;
    struct tpl_value (*fn)(struct tpl_env *e, const struct tpl_args *args);
};

struct tpl_method_def {
    const char *name;
    const char *params;
    struct tpl_value (*fn)(struct tpl_env *e, struct tpl_value self, const struct tpl_value *arg);
};

#define TPL_MAX_PARAMS 8

/* ---- arena.c: memory, errors, limits ---- */

#if defined(__GNUC__)
#define TPL_PRINTF(a, b) __attribute__((format(printf, a, b)))
#else
#define TPL_PRINTF(a, b)
#endif

/* 16-byte aligned, uninitialised. Never NULL. */
void *tpl_alloc(struct tpl_env *e, size_t n);
/* n * size bytes of zeros. */
void *tpl_calloc(struct tpl_env *e, size_t n, size_t size);
void tpl_free_chunks(struct tpl_chunk *c);
/* Ends the parse or render with "chat template: line N: " and the message. */
_Noreturn void tpl_fail(struct tpl_env *e, const char *fmt, ...) TPL_PRINTF(2, 3);
/* Ends it with exactly this text. */
_Noreturn void tpl_fail_text(struct tpl_env *e, struct tpl_str text);
void tpl_charge(struct tpl_env *e, size_t n);
/* For recursion: enter fails when it is too deep. */
void tpl_enter(struct tpl_env *e);
void tpl_leave(struct tpl_env *e);

void tpl_put(struct tpl_env *e, struct tpl_buf *b, const char *p, size_t n);
void tpl_puts(struct tpl_env *e, struct tpl_buf *b, const char *s);
void tpl_putc(struct tpl_env *e, struct tpl_buf *b, char c);
void tpl_put_code(struct tpl_env *e, struct tpl_buf *b, uint32_t code);
void tpl_printf(struct tpl_env *e, struct tpl_buf *b, const char *fmt, ...) TPL_PRINTF(3, 4);

/* ---- text.c: strings as Python sees them ---- */

struct tpl_case_run {
    uint32_t first, last, stride;
    int32_t delta;
};
struct tpl_case_special {
    uint32_t code;
    const char *text;
};
struct tpl_range {
    uint32_t first, last;
};
extern const struct tpl_case_run tpl_lower_runs[], tpl_upper_runs[];
extern const size_t tpl_lower_runs_n, tpl_upper_runs_n;
extern const struct tpl_case_special tpl_lower_special[], tpl_upper_special[], tpl_title_special[];
extern const size_t tpl_lower_special_n, tpl_upper_special_n, tpl_title_special_n;
extern const struct tpl_range tpl_unprintable[];
extern const size_t tpl_unprintable_n;

enum tpl_case { TPL_LOWER, TPL_UPPER, TPL_TITLE };

#define TPL_S(lit) ((struct tpl_str){(lit), sizeof(lit) - 1})
struct tpl_str tpl_cstr(const char *s);
bool tpl_str_eq(struct tpl_str a, struct tpl_str b);
bool tpl_str_is(struct tpl_str a, const char *b);
int tpl_str_cmp(struct tpl_str a, struct tpl_str b); /* by code points, as Python */
bool tpl_utf8_valid(const char *p, size_t n);
/* Decodes one character of valid UTF-8 (n > 0); *used gets its length. */
uint32_t tpl_utf8_next(const char *p, size_t n, size_t *used);
size_t tpl_str_len(struct tpl_str s); /* in characters */
/* Byte offset of character i (0 <= i <= length). */
size_t tpl_str_offset(struct tpl_str s, size_t i);
/* Bytes of the white-space character that s begins with, or 0. */
size_t tpl_space_at(const char *p, size_t n);
bool tpl_printable(uint32_t code);
void tpl_put_case(struct tpl_env *e, struct tpl_buf *b, uint32_t code, enum tpl_case how);
struct tpl_str tpl_str_case(struct tpl_env *e, struct tpl_str s, enum tpl_case how);
struct tpl_str tpl_capitalize(struct tpl_env *e, struct tpl_str s);
enum { TPL_LEFT = 1, TPL_RIGHT = 2 };
/* Strips white space, or the characters in *chars when it is not NULL. */
struct tpl_str tpl_strip(struct tpl_env *e, struct tpl_str s, const struct tpl_str *chars,
                         int sides);
/* Byte offset of the first (or last) place of `what` in s, or SIZE_MAX. */
size_t tpl_find(struct tpl_env *e, struct tpl_str s, struct tpl_str what);
size_t tpl_rfind(struct tpl_env *e, struct tpl_str s, struct tpl_str what);
struct tpl_str tpl_replace(struct tpl_env *e, struct tpl_str s, struct tpl_str from,
                           struct tpl_str to, int64_t count);
/* Lines without (or with) their ends, as str.splitlines. A list. */
struct tpl_value tpl_splitlines(struct tpl_env *e, struct tpl_str s, bool keep);
void tpl_put_float(struct tpl_env *e, struct tpl_buf *b, double f);
/* Reads a Python int or float written in s (white space around is allowed). */
bool tpl_read_int(struct tpl_env *e, struct tpl_str s, int64_t base, int64_t *out);
bool tpl_read_float(struct tpl_env *e, struct tpl_str s, double *out);

/* ---- value.c ---- */

struct tpl_value tpl_none(void);
struct tpl_value tpl_bool(bool b);
struct tpl_value tpl_int(int64_t i);
struct tpl_value tpl_float(double f);
struct tpl_value tpl_string(struct tpl_str s);
struct tpl_value tpl_buf_value(const struct tpl_buf *b);
struct tpl_value tpl_undefined(struct tpl_env *e, const char *fmt, ...) TPL_PRINTF(2, 3);
struct tpl_value tpl_seq(enum tpl_kind kind, struct tpl_value *v, size_t n, struct tpl_env *e);
/* A sequence under construction. */
struct tpl_list {
    struct tpl_value *v;
    size_t n, cap;
};
void tpl_push(struct tpl_env *e, struct tpl_list *l, struct tpl_value v);
struct tpl_value tpl_list_value(struct tpl_env *e, const struct tpl_list *l, enum tpl_kind kind);

struct tpl_dict *tpl_dict_new(struct tpl_env *e);
void tpl_dict_set(struct tpl_env *e, struct tpl_dict *d, struct tpl_value k, struct tpl_value v);
struct tpl_value *tpl_dict_get(struct tpl_env *e, const struct tpl_dict *d, struct tpl_value k);
struct tpl_value *tpl_dict_get_str(struct tpl_env *e, const struct tpl_dict *d, struct tpl_str k);
bool tpl_hashable(struct tpl_value v);

/* Python's name of the type, for messages. */
const char *tpl_type_name(struct tpl_value v);
bool tpl_truth(struct tpl_env *e, struct tpl_value v);
bool tpl_is_number(struct tpl_value v);                    /* bool, int or float */
double tpl_number(struct tpl_value v);                     /* of a number */
bool tpl_as_int(struct tpl_value v, int64_t *out);         /* bool or int */
bool tpl_equal(struct tpl_env *e, struct tpl_value a, struct tpl_value b);
int tpl_compare(struct tpl_env *e, struct tpl_value a, struct tpl_value b, const char *op);
bool tpl_contains(struct tpl_env *e, struct tpl_value in, struct tpl_value what);
/* str(v) and repr(v). */
struct tpl_str tpl_to_str(struct tpl_env *e, struct tpl_value v);
void tpl_put_str(struct tpl_env *e, struct tpl_buf *b, struct tpl_value v);
void tpl_put_repr(struct tpl_env *e, struct tpl_buf *b, struct tpl_value v);
/* All elements of an iterable; reads an iterator to its end. Fails on what is not iterable. */
struct tpl_seq tpl_iterate(struct tpl_env *e, struct tpl_value v);
bool tpl_iterable(struct tpl_value v);
int64_t tpl_length(struct tpl_env *e, struct tpl_value v);
struct tpl_value tpl_from_json(struct tpl_env *e, const cJSON *j);
/* Fails with the undefined value's own message when v is undefined. */
void tpl_need_defined(struct tpl_env *e, struct tpl_value v);
struct tpl_str tpl_need_str(struct tpl_env *e, struct tpl_value v, const char *what);

/* ---- ops.c: operators, attributes, subscripts ---- */

struct tpl_value tpl_binary(struct tpl_env *e, int op, struct tpl_value a, struct tpl_value b);
struct tpl_value tpl_negate(struct tpl_env *e, struct tpl_value v, bool minus);
struct tpl_value tpl_getattr(struct tpl_env *e, struct tpl_value v, struct tpl_str name);
struct tpl_value tpl_getitem(struct tpl_env *e, struct tpl_value v, struct tpl_value key);
struct tpl_value tpl_slice(struct tpl_env *e, struct tpl_value v, const struct tpl_value *start,
                           const struct tpl_value *stop, const struct tpl_value *step);
struct tpl_value tpl_reverse(struct tpl_env *e, struct tpl_value v);

/* ---- methods.c, globals.c ---- */

/* The method `name` of v's type; NULL when there is none of that name. Fails on Python's methods
 * that are not supported or that the sandbox forbids. */
const struct tpl_method_def *tpl_find_method(struct tpl_env *e, struct tpl_value v,
                                             struct tpl_str name);
const struct tpl_global *tpl_find_global(struct tpl_str name);

/* ---- calls ---- */

/* Puts arguments in the order of `params` ("a,b,c"); those not given are TPL_MISSING. */
void tpl_bind(struct tpl_env *e, const char *what, const char *params, const struct tpl_args *args,
              struct tpl_value out[TPL_MAX_PARAMS]);
struct tpl_value tpl_apply_filter(struct tpl_env *e, const struct tpl_filter *f,
                                  struct tpl_value v, const struct tpl_args *args);
bool tpl_apply_test(struct tpl_env *e, const struct tpl_test *t, struct tpl_value v,
                    const struct tpl_args *args);

/* ---- filters.c, filters_seq.c, tests.c, json.c ---- */

extern const struct tpl_filter tpl_text_filters[], tpl_seq_filters[];
/* NULL when there is none; then tpl_*_names lists those there are, for the message. */
const struct tpl_filter *tpl_find_filter(struct tpl_str name);
const struct tpl_test *tpl_find_test(struct tpl_str name);
void tpl_filter_names(struct tpl_env *e, struct tpl_buf *b);
void tpl_test_names(struct tpl_env *e, struct tpl_buf *b);
struct tpl_value tpl_filter_tojson(struct tpl_env *e, struct tpl_value v,
                                   const struct tpl_value *arg, const struct tpl_args *raw);

/* ---- lexer.c ---- */

enum tpl_token_kind {
    TPL_T_EOF,
    TPL_T_DATA,
    TPL_T_VAR_BEGIN,
    TPL_T_VAR_END,
    TPL_T_BLOCK_BEGIN,
    TPL_T_BLOCK_END,
    TPL_T_NAME,
    TPL_T_STRING,
    TPL_T_INT,
    TPL_T_FLOAT,
    TPL_T_ADD,
    TPL_T_SUB,
    TPL_T_DIV,
    TPL_T_FLOORDIV,
    TPL_T_MUL,
    TPL_T_MOD,
    TPL_T_POW,
    TPL_T_TILDE,
    TPL_T_LBRACKET,
    TPL_T_RBRACKET,
    TPL_T_LPAREN,
    TPL_T_RPAREN,
    TPL_T_LBRACE,
    TPL_T_RBRACE,
    TPL_T_EQ,
    TPL_T_NE,
    TPL_T_GT,
    TPL_T_GE,
    TPL_T_LT,
    TPL_T_LE,
    TPL_T_ASSIGN,
    TPL_T_DOT,
    TPL_T_COLON,
    TPL_T_PIPE,
    TPL_T_COMMA,
    TPL_T_SEMICOLON,
    TPL_T_IN,     /* made by the parser for comparisons */
    TPL_T_NOT_IN,
};

struct tpl_token {
    uint8_t kind;
    int line;
    struct tpl_str s; /* name, decoded string, data, or the operator's text */
    int64_t i;
    double f;
};

/* The tokens of the source, ended by TPL_T_EOF. */
struct tpl_token *tpl_lex(struct tpl_env *e, struct tpl_str source);

/* ---- parser.c, expr.c ---- */

struct tpl_parser {
    struct tpl_env *e;
    const struct tpl_token *t; /* the present token */
    struct tpl_dict *names;    /* interned */
    struct tpl_dict *assigned; /* names that the template itself gives a value */
    struct tpl_dict *called;   /* unknown names that are called -> line */
    const struct tpl_node *macro; /* the innermost macro being read */
    int loops;                    /* loops around this place, for break and continue */
};

struct tpl_node *tpl_parse(struct tpl_env *e, struct tpl_str source);
struct tpl_node *tpl_node_new(struct tpl_parser *p, enum tpl_node_kind kind);
void tpl_set_kids(struct tpl_parser *p, struct tpl_node *n, size_t count, ...);
void tpl_add_kid(struct tpl_parser *p, struct tpl_node *n, struct tpl_node *kid);
struct tpl_str tpl_intern(struct tpl_parser *p, struct tpl_str s);
bool tpl_at_name(const struct tpl_parser *p, const char *name);
bool tpl_skip_name(struct tpl_parser *p, const char *name);
bool tpl_skip(struct tpl_parser *p, int kind);
void tpl_expect(struct tpl_parser *p, int kind);
struct tpl_str tpl_expect_name(struct tpl_parser *p, const char *what);
/* "found X, expected `expected`" at the present token. */
_Noreturn void tpl_unexpected(struct tpl_parser *p, const char *expected);
/* An expression; `cond` allows `a if b else c`. */
struct tpl_node *tpl_parse_expr(struct tpl_parser *p, bool cond);
/* Expressions with commas between make a tuple. */
struct tpl_node *tpl_parse_tuple(struct tpl_parser *p, bool cond, bool parens);
/* `| filter` chain applied to `on`; when `inline_first` the first has no `|`. */
struct tpl_node *tpl_parse_filters(struct tpl_parser *p, struct tpl_node *on, bool inline_first);
struct tpl_node *tpl_parse_target(struct tpl_parser *p, bool allow_ns, const char *end_name);

/* ---- eval.c, exec.c ---- */

struct tpl_value tpl_eval(struct tpl_env *e, const struct tpl_node *n);
struct tpl_value tpl_call(struct tpl_env *e, struct tpl_value fn, const struct tpl_args *args);
enum tpl_flow { TPL_NORMAL, TPL_BREAK, TPL_CONTINUE };
enum tpl_flow tpl_exec(struct tpl_env *e, const struct tpl_node *n);
/* The text a body writes, with variables of its own. */
struct tpl_value tpl_capture(struct tpl_env *e, const struct tpl_node *body);
struct tpl_scope *tpl_scope_new(struct tpl_env *e, struct tpl_scope *parent);
void tpl_scope_set(struct tpl_env *e, struct tpl_scope *s, const char *name, struct tpl_value v);
struct tpl_value tpl_call_macro(struct tpl_env *e, const struct tpl_macro *m,
                                const struct tpl_args *args);
struct tpl_value tpl_loop_attr(struct tpl_env *e, struct tpl_loop *l, struct tpl_str name);
struct tpl_value tpl_loop_call(struct tpl_env *e, struct tpl_value self, bool changed,
                               const struct tpl_args *args);

#endif
