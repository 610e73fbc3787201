/* Regular expressions: from Oniguruma's syntax, in which tokenizer.json states its patterns, to
 * PCRE2's with UTF and UCP. The two agree on nearly everything; what is rewritten here:
 *
 *   \s   Oniguruma: White_Space. PCRE2 counts U+180E too.
 *   \w   Oniguruma: Alphabetic, marks, decimal numbers, connectors; outside of
 *        a set Latin-1's other numbers too.
 *        PCRE2: letters, numbers, "_".
 *   \p{Han}  Oniguruma: the script. PCRE2: its extensions, which have punctuation too.
 *   [:alpha:] and the like: Oniguruma goes by properties, PCRE2 by categories.
 *   \h   Oniguruma: a hexadecimal digit. PCRE2: a horizontal space.
 *   x{n,m}+  Oniguruma: the repeated repeat. PCRE2: a possessive one.
 *   (?m)     Oniguruma: the dot matches newlines. PCRE2: (?s); its (?m) is always on here.
 *
 * Sets within sets ([a[b]], [a&&b]) and absent groups have no equivalent and are reported.
 * https://github.com/kkos/oniguruma/blob/master/doc/RE */
#include <string.h>

#include "compiler/tokenizer/build.h"

#define SPACE_SET "\\x{9}-\\x{d}\\x{85}\\p{Z}"
#define NOT_SPACE_SET                                                                              \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{"     \
    "1fff}"                                                                                        \
    "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{"   \
    "10ffff}"
#define WORD_SET "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define LATIN1_NUMBERS "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}" /* \w outside of a set has them */
typedef struct translator {
    fe_tok *tok;
    const char *in;
    size_t size, at;
    char *out;
    size_t length;
    size_t atom; /* where in `out` the last atom begins, for what repeats it */
    size_t groups[256];
    int depth;
    bool good;
} translator;

static void put(translator *t, const char *text, size_t size) {
    memcpy(t->out + t->length, text, size);
    t->length += size;
}

static void put_text(translator *t, const char *text) {
    put(t, text, strlen(text));
}

static void refuse(translator *t, const char *what) {
    if (t->good)
        ir_error(t->tok->diag, t->tok->where,
                 "the regular expression \"%s\" has %s, which is not supported",
                 fe_printable(t->tok->arena, t->in, t->size), what);
    t->good = false;
}

/* \p{name}. Names of one or two letters are categories, and the same; other names are scripts,
 * but for these. */
static void property(translator *t, char c, const char *name, size_t size) {
    static const char *const known[][2] = {
        {"Any", "Any"},           {"Alphabetic", "Alphabetic"},
        {"Alpha", "Alphabetic"},  {"Uppercase", "Uppercase"},
        {"Upper", "Uppercase"},   {"Lowercase", "Lowercase"},
        {"Lower", "Lowercase"},   {"White_Space", "White_Space"},
        {"Space", "White_Space"}, {"Digit", "Nd"},
        {"Letter", "L"},          {"Mark", "M"},
        {"Number", "N"},          {"Punctuation", "P"},
        {"Symbol", "S"},          {"Separator", "Z"},
        {"Emoji", "Emoji"},       {"Ideographic", "Ideographic"},
    };
    put(t, (const char[]){'\\', c, '{'}, 3);
    if (size && *name == '^') {
        put(t, "^", 1);
        name++;
        size--;
    }
    const char *same = NULL;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i][0]) == size && memcmp(known[i][0], name, size) == 0)
            same = known[i][1];
    if (same) {
        put_text(t, same);
    } else {
        if (size > 2)
            put_text(t, "sc:");
        put(t, name, size);
    }
    put(t, "}", 1);
}

/* [:name:] inside of a set. */
static void posix_class(translator *t, const char *name, size_t size) {
    static const char *const known[][2] = {
        {"alpha", "\\p{Alphabetic}"}, {"alnum", "\\p{Alphabetic}\\p{Nd}"},
        {"upper", "\\p{Uppercase}"},  {"lower", "\\p{Lowercase}"},
        {"digit", "\\p{Nd}"},         {"space", SPACE_SET},
        {"word", WORD_SET},           {"punct", "\\p{P}\\p{S}"},
        {"xdigit", "0-9a-fA-F"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i][0]) == size && memcmp(known[i][0], name, size) == 0) {
            put_text(t, known[i][1]);
            return;
        }
    refuse(t, "a class ([:…:]) that is not one of alpha, alnum, upper, lower, digit, space, word, "
              "punct, xdigit");
}

/* An escape, outside of sets or inside. */
static void escape(translator *t, bool in_set) {
    char c = t->at + 1 < t->size ? t->in[t->at + 1] : 0;
    t->at += 2;
    switch (c) {
    case 's':
        put_text(t, in_set ? SPACE_SET : "[" SPACE_SET "]");
        return;
    case 'w':
        put_text(t, in_set ? WORD_SET : "[" WORD_SET LATIN1_NUMBERS "]");
        return;
    case 'h':
        put_text(t, in_set ? "0-9a-fA-F" : "[0-9a-fA-F]");
        return;
    case 'S':
        put_text(t, in_set ? NOT_SPACE_SET : "[^" SPACE_SET "]");
        return;
    case 'W':
        if (in_set)
            refuse(t, "\\W inside of a set");
        put_text(t, "[^" WORD_SET LATIN1_NUMBERS "]");
        return;
    case 'H':
        if (in_set)
            refuse(t, "\\H inside of a set");
        put_text(t, "[^0-9a-fA-F]");
        return;
    case 'R':
    case 'X':
    case 'K':
    case 'G':
    case 'g':
    case 'k':
    case 'y':
    case 'Y':
    case 'O':
    case 'N':
    case 'C':
    case 'M':
        refuse(t, "an escape that regular expression libraries read differently");
        return;
    case 'b':
    case 'B':
        refuse(t, "a word boundary");
        return;
    case 0:
        refuse(t, "a backslash at its end");
        return;
    case 'u': { /* \uHHHH */
        if (t->at + 4 > t->size) {
            refuse(t, "a broken \\u escape");
            return;
        }
        put_text(t, "\\x{");
        put(t, t->in + t->at, 4);
        put_text(t, "}");
        t->at += 4;
        return;
    }
    case 'p':
    case 'P': {
        const char *rest = t->in + t->at;
        const char *close = t->at < t->size ? memchr(rest, '}', t->size - t->at) : NULL;
        if (!close || *rest != '{') {
            refuse(t, "a broken \\p escape");
            return;
        }
        property(t, c, rest + 1, (size_t)(close - rest) - 1);
        t->at += (size_t)(close - rest) + 1;
        return;
    }
    case 'x':
    case 'o': {
        put(t, (const char[]){'\\', c}, 2);
        const char *rest = t->in + t->at;
        const char *close =
            t->at < t->size && *rest == '{' ? memchr(rest, '}', t->size - t->at) : 0;
        if (close) {
            put(t, rest, (size_t)(close - rest) + 1);
            t->at += (size_t)(close - rest) + 1;
        }
        return;
    }
    default:
        put(t, (const char[]){'\\', c}, 2);
    }
}

static void set(translator *t) {
    put(t, "[", 1);
    t->at++;
    if (t->at < t->size && t->in[t->at] == '^') {
        put(t, "^", 1);
        t->at++;
    }
    if (t->at < t->size && t->in[t->at] == ']') {
        put(t, "\\]", 2);
        t->at++;
    }
    while (t->at < t->size && t->in[t->at] != ']') {
        char c = t->in[t->at];
        if (c == '\\') {
            escape(t, true);
            continue;
        }
        if (c == '[') {
            const char *end = t->size - t->at > 3 && t->in[t->at + 1] == ':'
                                  ? memmem(t->in + t->at, t->size - t->at, ":]", 2)
                                  : NULL;
            if (!end) {
                refuse(t, "a set inside of a set");
                return;
            }
            size_t length = (size_t)(end + 2 - (t->in + t->at));
            posix_class(t, t->in + t->at + 2, length - 4);
            t->at += length;
            continue;
        }
        if (c == '&' && t->at + 1 < t->size && t->in[t->at + 1] == '&') {
            refuse(t, "an intersection of sets (&&)");
            return;
        }
        put(t, &c, 1);
        t->at++;
    }
    if (t->at >= t->size) {
        refuse(t, "a set without an end");
        return;
    }
    put(t, "]", 1);
    t->at++;
}

static void open_group(translator *t) {
    if (t->depth == (int)(sizeof t->groups / sizeof *t->groups)) {
        refuse(t, "groups nested too deeply");
        return;
    }
    t->groups[t->depth++] = t->length;
    put(t, "(", 1);
    t->at++;
    if (t->at >= t->size || t->in[t->at] != '?')
        return;
    put(t, "?", 1);
    t->at++;
    if (t->at < t->size && (t->in[t->at] == '~' || t->in[t->at] == '(' || t->in[t->at] == '{'))
        refuse(t, "an absent group, a condition or a callout");
    /* Options: only i and x mean the same. */
    while (t->at < t->size && strchr("imx-", t->in[t->at])) {
        put(t, t->in[t->at] == 'm' ? "s" : t->in + t->at, 1);
        t->at++;
    }
}

/* The end of {n}, {n,}, {,m} or {n,m} at `at`, or 0 when the brace is a character. */
static size_t interval_end(const translator *t) {
    size_t i = t->at + 1;
    bool digit = false;
    while (i < t->size && (t->in[i] == ',' || (t->in[i] >= '0' && t->in[i] <= '9'))) {
        digit |= t->in[i] != ',';
        i++;
    }
    return digit && i < t->size && t->in[i] == '}' ? i + 1 : 0;
}

static void interval(translator *t) {
    size_t end = interval_end(t);
    if (!end) {
        t->atom = t->length;
        put_text(t, "\\{");
        t->at++;
        return;
    }
    put(t, "{", 1);
    if (t->in[t->at + 1] == ',') /* {,m} is {0,m} */
        put(t, "0", 1);
    put(t, t->in + t->at + 1, end - t->at - 1);
    t->at = end;
    if (t->at < t->size && t->in[t->at] == '+') {
        memmove(t->out + t->atom + 3, t->out + t->atom, t->length - t->atom);
        memcpy(t->out + t->atom, "(?:", 3);
        t->length += 3;
        put_text(t, ")+");
        t->at++;
    }
}

bool fe_tok_regex(fe_tok *tok, fe_bytes pattern, fe_bytes *out) {
    /* The longest replacement, of two bytes, has under 200. */
    translator t = {.tok = tok,
                    .in = (const char *)pattern.data,
                    .size = pattern.size,
                    .out = ir_arena_array(tok->arena, pattern.size + 1, 100),
                    .good = true};
    *out = (fe_bytes){0};
    if (pattern.size == 0)
        refuse(&t, "nothing in it");
    while (t.at < t.size && t.good) {
        char c = t.in[t.at];
        if (c == '\\') {
            t.atom = t.length;
            escape(&t, false);
        } else if (c == '[') {
            t.atom = t.length;
            set(&t);
        } else if (c == '(') {
            open_group(&t);
        } else if (c == ')') {
            if (t.depth > 0)
                t.atom = t.groups[--t.depth];
            put(&t, ")", 1);
            t.at++;
        } else if (c == '{') {
            interval(&t);
        } else {
            bool repeats = c == '*' || c == '+' || c == '?' || c == '|';
            if (!repeats && ((unsigned char)c & 0xc0) != 0x80)
                t.atom = t.length;
            put(&t, &c, 1);
            t.at++;
        }
    }
    if (t.good)
        *out = (fe_bytes){(const uint8_t *)t.out, t.length};
    return t.good;
}
