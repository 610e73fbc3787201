/* Grammars: masks of random grammars against a matcher that shares no code with them; characters;
 * what readers refuse; hostile input. */
#include "check_main.h"

#include "runtime/grammar/guide.h"
#include "runtime/modelcc.h"

#include <stdarg.h>
#include <stdint.h>

/* --- random numbers ------------------------------------------------------------------------------
 */

static uint64_t random_state;

static uint32_t draw(uint32_t n) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 33) * n >> 31);
}

static uint64_t test_seed(void) {
    const char *text = getenv("MCC_TEST_SEED");
    return text ? strtoull(text, NULL, 10) : 0;
}

/* --- the oracle ----------------------------------------------------------------------------------
 */

/* Expressions as trees, matched by trying everything: which ends are possible from a place. */
static const char *const alphabet[] = {"a", "b", "\"", "\xc3\xa9", "\xe2\x82\xac", "-"};
enum { CHARS = 6, MAX_NODES = 400, MAX_RULES = 3, MAX_TEXT = 31 };

typedef enum kind { CHAR, CLASS, SEQ, ALT, REPEAT, RULE, EMPTY } kind;

typedef struct node {
    kind kind;
    int a, b;     /* parts; a character; a rule; a set of characters */
    int min, max; /* -1: no limit; of a class max is 1: negated */
} node;

static node nodes[MAX_NODES];
static int n_nodes, rules[MAX_RULES], n_rules;
static const uint8_t *text;
static int text_bytes;
static bool runs_out; /* the text's end was met where more could follow */

static uint32_t ends(int n, int at);

/* What has been found for an expression at a place of this text. */
static struct {
    uint64_t of_text;
    uint32_t ends;
} found_ends[MAX_NODES][MAX_TEXT + 1];
static uint64_t n_texts;

static uint32_t ends_of_char(const char *c, int at) {
    for (int i = 0; c[i]; i++) {
        if (at + i == text_bytes) {
            runs_out = true;
            return 0;
        }
        if (text[at + i] != (uint8_t)c[i])
            return 0;
    }
    return 1u << (at + (int)strlen(c));
}

/* Any character but some of the alphabet's. Tests' texts have no other characters, but may have
 * others' first bytes. */
static uint32_t ends_of_others(int set, int at) {
    if (at == text_bytes) {
        runs_out = true;
        return 0;
    }
    uint8_t first = text[at];
    int size = first < 0x80                    ? 1
               : first >= 0xc2 && first < 0xe0 ? 2
               : first >= 0xe0 && first < 0xf0 ? 3
                                               : 0;
    if (size == 0)
        return 0;
    for (int i = 1; i < size; i++) {
        if (at + i == text_bytes) {
            runs_out = true; /* other characters begin like this one */
            return 0;
        }
        if (text[at + i] >> 6 != 2)
            return 0;
    }
    for (int i = 0; i < CHARS; i++)
        if ((set >> i & 1) && strlen(alphabet[i]) == (size_t)size &&
            memcmp(alphabet[i], text + at, (size_t)size) == 0)
            return 0;
    return 1u << (at + size);
}

static uint32_t ends_from(int n, uint32_t from) {
    uint32_t to = 0;
    for (int i = 0; i <= text_bytes; i++)
        if (from >> i & 1)
            to |= ends(n, i);
    return to;
}

static uint32_t find_ends(int n, int at) {
    const node *x = &nodes[n];
    uint32_t found = 0, set;
    switch (x->kind) {
    case CHAR:
        return ends_of_char(alphabet[x->a], at);
    case CLASS:
        if (x->max)
            return ends_of_others(x->a, at);
        for (int i = 0; i < CHARS; i++)
            if (x->a >> i & 1)
                found |= ends_of_char(alphabet[i], at);
        return found;
    case SEQ:
        return ends_from(x->b, ends(x->a, at));
    case ALT:
        return ends(x->a, at) | ends(x->b, at);
    case REPEAT:
        set = 1u << at;
        for (int i = 0; i < x->min; i++)
            set = ends_from(x->a, set);
        found = set;
        for (int i = x->min; set && (x->max < 0 || i < x->max); i++) {
            set = ends_from(x->a, set) & ~found;
            found |= set;
        }
        return found;
    case RULE:
        return ends(rules[x->a], at);
    default:
        return 1u << at;
    }
}

static uint32_t ends(int n, int at) {
    if (found_ends[n][at].of_text != n_texts) {
        uint32_t found = find_ends(n, at);
        found_ends[n][at].of_text = n_texts;
        found_ends[n][at].ends = found;
    }
    return found_ends[n][at].ends;
}

static bool matches(const uint8_t *bytes, int n) {
    n_texts++;
    text = bytes;
    text_bytes = n;
    return ends(rules[0], 0) >> n & 1;
}

/* Every expression matches something, so a text can be continued if it can be read to its end. */
static bool can_continue(const uint8_t *bytes, int n) {
    runs_out = false;
    return matches(bytes, n) || runs_out;
}

/* --- random grammars -----------------------------------------------------------------------------
 */

static int add(kind kind, int a, int b, int min, int max) {
    ck_assert_int_lt(n_nodes, MAX_NODES);
    nodes[n_nodes] = (node){kind, a, b, min, max};
    return n_nodes++;
}

/* Rules up to `rule` are called behind a character, so that none is left-recursive. */
static int random_node(int depth, int rule, bool calls) {
    int a, b;
    switch (draw(depth > 0 ? 12 : 4)) {
    case 0:
    case 1:
        return add(CHAR, (int)draw(CHARS), 0, 0, 0);
    case 2:
        return add(CLASS, 1 + (int)draw((1 << CHARS) - 1), 0, 0, draw(3) == 0);
    case 3:
        return add(EMPTY, 0, 0, 0, 0);
    case 4:
    case 5:
    case 6:
        a = random_node(depth - 1, rule, calls);
        b = random_node(depth - 1, rule, calls);
        return add(SEQ, a, b, 0, 0);
    case 7:
    case 8:
        a = random_node(depth - 1, rule, calls);
        b = random_node(depth - 1, rule, calls);
        return add(ALT, a, b, 0, 0);
    case 9:
    case 10:
        a = random_node(depth - 1, rule, calls);
        b = (int)draw(3);
        return add(REPEAT, a, 0, b, draw(2) ? b + (int)draw(3) : -1);
    default:
        if (!calls)
            return add(CHAR, (int)draw(CHARS), 0, 0, 0);
        a = (int)draw((uint32_t)n_rules);
        b = add(RULE, a, 0, 0, 0);
        if (a > rule)
            return b;
        a = add(CHAR, (int)draw(CHARS), 0, 0, 0);
        return add(SEQ, a, b, 0, 0);
    }
}

static void random_grammar(bool calls) {
    n_nodes = 0;
    n_rules = calls ? 1 + (int)draw(MAX_RULES) : 1;
    for (int i = 0; i < n_rules; i++) {
        rules[i] = random_node(4, i, calls);
        if (calls) { /* a way out, so that every rule matches something */
            int other = random_node(1, i, false), all = rules[i];
            rules[i] = add(ALT, all, other, 0, 0);
        }
    }
}

static char written[1 << 16];
static size_t n_written;

static void put(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void put(const char *format, ...) {
    va_list args;
    va_start(args, format);
    n_written += (size_t)vsnprintf(written + n_written, sizeof written - n_written, format, args);
    va_end(args);
    ck_assert_uint_lt(n_written, sizeof written);
}

static void write_class(const node *x, bool gbnf) {
    put(x->max ? "[^" : "[");
    for (int i = 0; i < CHARS; i++)
        if (x->a >> i & 1)
            put("%s", strcmp(alphabet[i], "-") == 0 ? (gbnf ? "\\x2d" : "\\-") : alphabet[i]);
    put("]");
}

static void write_node(int n, bool gbnf) {
    const node *x = &nodes[n];
    const char *open = gbnf ? "(" : "(?:";
    switch (x->kind) {
    case CHAR:
        if (gbnf)
            put(x->a == 2 ? "\"\\\"\" " : "\"%s\" ", alphabet[x->a]);
        else
            put("%s", alphabet[x->a]);
        break;
    case CLASS:
        write_class(x, gbnf);
        break;
    case SEQ:
    case ALT:
        put("%s", open);
        write_node(x->a, gbnf);
        put("%s", x->kind == ALT ? "|" : gbnf ? " " : "");
        write_node(x->b, gbnf);
        put(")");
        break;
    case REPEAT:
        put("%s", open);
        write_node(x->a, gbnf);
        put(")");
        if (x->min == 0 && x->max < 0)
            put("*");
        else if (x->min == 0 && x->max == 1)
            put("?");
        else if (x->max < 0)
            put("{%d,}", x->min);
        else
            put("{%d,%d}", x->min, x->max);
        break;
    case RULE:
        if (x->a == 0)
            put(" root ");
        else
            put(" rule-%d ", x->a);
        break;
    case EMPTY:
        put(gbnf ? "\"\" " : "(?:)");
        break;
    }
}

static void write_grammar(bool gbnf) {
    n_written = 0;
    for (int i = n_rules - 1; i >= 0; i--) {
        if (gbnf && i == 0)
            put("root ::= ");
        else if (gbnf)
            put("rule-%d ::= ", i);
        write_node(rules[i], gbnf);
        if (gbnf)
            put("\n");
    }
}

/* --- a vocabulary --------------------------------------------------------------------------------
 */

static const char *const pieces[] = {"a",
                                     "b",
                                     "\"",
                                     "\xc3",
                                     "\xa9",
                                     "\xe2",
                                     "\x82",
                                     "\xac",
                                     "-",
                                     "ab",
                                     "ba",
                                     "aa",
                                     "a\"",
                                     "\"b",
                                     "\xc3\xa9",
                                     "\xc3\xa9"
                                     "a",
                                     "a\xe2\x82\xac",
                                     "ab-a",
                                     "bbb",
                                     "--",
                                     "\xa9\xe2\x82\xac",
                                     "\x82\xac",
                                     "\xa9"
                                     "b",
                                     "" /* no text */,
                                     "a" /* again */,
                                     "aab",
                                     "aabb",
                                     "aabba",
                                     "\"\"",
                                     "-a",
                                     "b-"};
enum { VOCABULARY = sizeof pieces / sizeof *pieces, END = 23 };

static rt_vocabulary *vocabulary;

static void setup(void) {
    size_t bytes[VOCABULARY];
    for (int i = 0; i < VOCABULARY; i++)
        bytes[i] = strlen(pieces[i]);
    vocabulary = rt_vocabulary_of(pieces, bytes, VOCABULARY);
    ck_assert_ptr_nonnull(vocabulary);
}

static void teardown(void) {
    rt_vocabulary_destroy(vocabulary);
}

static bool has(const uint32_t *mask, int id) {
    return mask && mask[id / 32] >> id % 32 & 1;
}

/* Looks at what follows some tokens, allowed ones as a rule, and goes back. */
static void detour(rt_guide *guide) {
    const char *why;
    const uint32_t *mask;
    ck_assert(rt_guide_set_mark(guide));
    for (uint32_t i = draw(5); i > 0 && (mask = rt_guide_mask(guide, &why)); i--) {
        int id = (int)draw(VOCABULARY), tries = 20;
        while (tries-- && (!has(mask, id) || id == END))
            id = (int)draw(VOCABULARY);
        if (id == END || !rt_guide_accept(guide, id, pieces[id], strlen(pieces[id])))
            break;
    }
    rt_guide_go_back(guide);
}

/* One text of random allowed tokens: each step's mask is what the oracle says, also after a look at
 * other texts. */
static void check_walk(rt_grammar *grammar) {
    static const int32_t end_ids[] = {END};
    uint8_t bytes[MAX_TEXT + 8];
    int n = 0;
    ck_assert_ptr_nonnull(grammar);
    rt_guide *guide = rt_guide_create(rt_grammar_share(grammar), end_ids, 1);
    ck_assert_ptr_nonnull(guide);
    for (;;) {
        const char *why;
        const uint32_t *mask = rt_guide_mask(guide, &why);
        int allowed[VOCABULARY], n_allowed = 0;
        for (int id = 0; id < VOCABULARY; id++) {
            size_t size = strlen(pieces[id]);
            if (n + size > MAX_TEXT)
                continue;
            memcpy(bytes + n, pieces[id], size);
            bool right = id == END ? matches(bytes, n) : can_continue(bytes, n + (int)size);
            ck_assert_msg(has(mask, id) == right, "%s\nafter \"%.*s\": token %d (\"%s\"): %d",
                          written, n, (char *)bytes, id, pieces[id], !right);
            if (right && id != END)
                allowed[n_allowed++] = id;
        }
        bool more = false;
        for (int i = 0; i < 256 && n < MAX_TEXT; i++) {
            bytes[n] = (uint8_t)i;
            more = more || can_continue(bytes, n + 1);
        }
        if (n < MAX_TEXT)
            ck_assert_msg(guide->must_end == !more, "%s\nafter \"%.*s\"", written, n,
                          (char *)bytes);
        if (n_allowed == 0 || n > MAX_TEXT - 6)
            break;
        int id = allowed[draw((uint32_t)n_allowed)];
        memcpy(bytes + n, pieces[id], strlen(pieces[id]));
        n += (int)strlen(pieces[id]);
        if (draw(2))
            detour(guide);
        ck_assert(rt_guide_accept(guide, id, pieces[id], strlen(pieces[id])));
    }
    rt_guide_destroy(guide);
}

static rt_grammar *compile(rt_grammar_kind kind, const char *source, rt_error *error) {
    return rt_grammar_create(kind, source, strlen(source), vocabulary, error);
}

static int too_large; /* grammars refused for their size: repetitions of what begins alike */

static void check_random(rt_grammar_kind kind) {
    rt_error error = {0};
    write_grammar(kind == RT_GRAMMAR_GBNF);
    rt_grammar *grammar = compile(kind, written, &error);
    if (!grammar && strstr(error.text, "too large")) {
        too_large++;
        return;
    }
    ck_assert_msg(grammar != NULL, "%s\n%s", written, error.text);
    for (int i = 0; i < 3; i++)
        check_walk(grammar);
    rt_grammar_release(grammar);
}

/* Texts that the vocabulary cannot make are no error of the grammar: one that matches something
 * always begins with some of the alphabet, or may be empty. */
START_TEST(masks_of_random_grammars) {
    int n = test_full() ? 20000 : 300;
    random_state = test_seed() * 2 + 1;
    for (int i = 0; i < n; i++) {
        random_grammar(false);
        check_random(RT_GRAMMAR_REGEX);
        check_random(RT_GRAMMAR_GBNF);
        random_grammar(true);
        check_random(RT_GRAMMAR_GBNF);
    }
    ck_assert_int_le(too_large, 3 * n / 100);
}
END_TEST

static void accept(rt_guide *guide, const char *piece) {
    int id = 0;
    while (strcmp(pieces[id], piece) != 0)
        id++;
    ck_assert(rt_guide_accept(guide, id, piece, strlen(piece)));
}

/* What was met on the way is forgotten, also that frames with the same numbers were others. */
START_TEST(going_back) {
    rt_error error = {0};
    const char *why;
    int before_b = 0;
    rt_grammar *grammar = compile(RT_GRAMMAR_GBNF,
                                  "root ::= \"a\" x \"b\" | \"b\" x \"-\"\n"
                                  "x ::= \"\\\"\" x \"\\\"\" | \"a\"",
                                  &error);
    ck_assert_msg(grammar != NULL, "%s", error.text);
    rt_guide *guide = rt_guide_create(grammar, NULL, 0);
    ck_assert_ptr_nonnull(guide);
    while (strcmp(pieces[before_b], "\"b") != 0)
        before_b++;
    ck_assert(rt_guide_set_mark(guide));
    for (const char *const *p = (const char *const[]){"a", "\"", "a", NULL}; *p; p++)
        accept(guide, *p);
    ck_assert(has(rt_guide_mask(guide, &why), before_b));
    ck_assert(!rt_guide_accept(guide, 8, "-", 1));
    rt_guide_go_back(guide);
    ck_assert_int_eq(guide->n_tokens, 0);
    for (const char *const *p = (const char *const[]){"b", "\"", "a", NULL}; *p; p++)
        accept(guide, *p);
    ck_assert(!has(rt_guide_mask(guide, &why), before_b));
    for (const char *const *p = (const char *const[]){"\"", "-", NULL}; *p; p++)
        accept(guide, *p);
    ck_assert(guide->must_end);
    rt_guide_destroy(guide);
}
END_TEST

/* --- characters ----------------------------------------------------------------------------------
 */

/* Whether an expression matches all of n bytes. */
static bool accepts(const char *regex, const char *bytes, size_t n) {
    rt_error error = {0};
    rt_rules r;
    rt_automaton automaton;
    rt_matcher m;
    rt_rules_init(&r, &error);
    bool ok = rt_read_regex(&r, "regex", regex, strlen(regex)) &&
              rt_automaton_create(&automaton, &r, "regex", &error);
    ck_assert_msg(ok, "%s: %s", regex, error.text);
    ck_assert(rt_matcher_init(&m, &automaton));
    rt_set set = rt_match_start(&m);
    for (size_t i = 0; i < n; i++) {
        rt_match_expand(&m, &set);
        set = rt_match_byte(&m, set, (uint8_t)bytes[i]);
    }
    ok = rt_match_may_end(&m, set);
    rt_matcher_destroy(&m);
    rt_automaton_destroy(&automaton);
    rt_rules_free(&r);
    return ok;
}

/* UTF-8, written out by hand. */
static size_t encode(uint32_t c, char *out) {
    if (c < 0x80)
        return out[0] = (char)c, 1;
    if (c < 0x800)
        return out[0] = (char)(0xc0 | c >> 6), out[1] = (char)(0x80 | (c & 63)), 2;
    if (c < 0x10000)
        return out[0] = (char)(0xe0 | c >> 12), out[1] = (char)(0x80 | (c >> 6 & 63)),
               out[2] = (char)(0x80 | (c & 63)), 3;
    return out[0] = (char)(0xf0 | c >> 18), out[1] = (char)(0x80 | (c >> 12 & 63)),
           out[2] = (char)(0x80 | (c >> 6 & 63)), out[3] = (char)(0x80 | (c & 63)), 4;
}

static uint32_t random_char(void) {
    static const uint32_t borders[] = {0x7f,   0x80,    0x7ff,   0x800,   0xd7ff,   0xe000,
                                       0xffff, 0x10000, 0x3ffff, 0x40000, 0x10ffff, 0xfff};
    uint32_t c = draw(2) ? borders[draw(12)] + draw(5) - 2 : draw(0x110000);
    return c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0x20ac : c < 0x30 ? 0x30 : c;
}

START_TEST(ranges_of_characters) {
    random_state = test_seed() * 2 + 7;
    for (int round = 0; round < (test_full() ? 2000 : 60); round++) {
        uint32_t low = random_char(), high = random_char();
        char regex[64], bytes[8];
        if (low > high)
            continue;
        bool negated = draw(2);
        snprintf(regex, sizeof regex, "[%s\\U%08x-\\U%08x]", negated ? "^" : "", low, high);
        for (int i = 0; i < 60; i++) {
            uint32_t c = i < 5    ? low + (uint32_t)i - 2
                         : i < 10 ? high + (uint32_t)i - 7
                                  : random_char();
            if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
                continue;
            size_t n = encode(c, bytes);
            bool right = (c >= low && c <= high) != negated;
            ck_assert_msg(accepts(regex, bytes, n) == right, "%s, U+%04X", regex, c);
            ck_assert(n == 1 || !accepts(regex, bytes, n - 1));
        }
        /* Never surrogates, overlong forms, or bytes that begin nothing. */
        static const char *const invalid[] = {
            "\xed\xa0\x80",     "\xed\xbf\xbf",     "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80",
            "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xff",     "\x80"};
        for (size_t i = 0; i < sizeof invalid / sizeof *invalid; i++)
            ck_assert(!accepts(regex, invalid[i], strlen(invalid[i])));
    }
}
END_TEST

START_TEST(syntax_of_expressions) {
    static const struct {
        const char *regex, *yes, *no;
    } cases[] = {
        {"a{2}", "aa", "a"},
        {"a{,2}b", "aab", "aaab"},
        {"a{2,}", "aaaa", "a"},
        {"a{x}", "a{x}", "a"}, /* as for Python */
        {"{\"a\": 1}", "{\"a\": 1}", "a"},
        {"[]a]+", "]a", "b"},
        {"[^]a]", "b", "]"},
        {"[a-]+", "a-a", "b"},
        {"[\\d.]+", "3.5", "x"},
        {"\\d+?", "12", "x"},
        {"(?P<year>\\d{4})-\\w\\s\\S", "2024-x .", "2024-- ."},
        {"^abc$", "abc", "abcd"},
        {"^(a|b)$", "b", "ab"},
        {"a|b|", "", "ab"},
        {"\\x41\\u00e9\\U0001F600\\.\\n\\t", "A\xc3\xa9\xf0\x9f\x98\x80.\n\t", "A"},
        {".", "\xe2\x82\xac", "\n"},
        {"[\\b]", "\b", "b"},
        {"(a(b(c)?)?)*", "ababcaabc", "ac"},
        {"((a*)*)*b", "aaab", "aaa"},
        {"(a|aa|aaa){3}", "aaaaaaaaa", "aa"},
        {"\xc3\xa9+", "\xc3\xa9\xc3\xa9", "\xc3\xa9\xa9"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ck_assert_msg(accepts(cases[i].regex, cases[i].yes, strlen(cases[i].yes)), "%s",
                      cases[i].regex);
        ck_assert_msg(!accepts(cases[i].regex, cases[i].no, strlen(cases[i].no)), "%s",
                      cases[i].regex);
    }
}
END_TEST

/* --- refusals ------------------------------------------------------------------------------------
 */

typedef struct refusal {
    rt_grammar_kind kind;
    const char *source;
    int code;
    const char *says;
} refusal;

static void check_refusal(const refusal *r) {
    rt_error error = {0};
    rt_grammar *grammar = compile(r->kind, r->source, &error);
    ck_assert_msg(!grammar, "%.200s", r->source);
    ck_assert_msg(error.code == r->code && strstr(error.text, r->says), "%.200s: %d, %s", r->source,
                  error.code, error.text);
    ck_assert_msg(strstr(error.text, rt_grammar_field(r->kind)) == error.text, "%s", error.text);
}

START_TEST(what_is_refused) {
    static const refusal cases[] = {
        {RT_GRAMMAR_REGEX, "a(b", MCC_INVALID_ARGUMENT, "at character 2: ( without )"},
        {RT_GRAMMAR_REGEX, "\xc3\xa9)", MCC_INVALID_ARGUMENT, "at character 2: ) without ("},
        {RT_GRAMMAR_REGEX, "[a", MCC_INVALID_ARGUMENT, "[ without ]"},
        {RT_GRAMMAR_REGEX, "[b-a]", MCC_INVALID_ARGUMENT, "goes backwards"},
        {RT_GRAMMAR_REGEX, "[a-\\d]", MCC_INVALID_ARGUMENT, "range cannot"},
        {RT_GRAMMAR_REGEX, "*a", MCC_INVALID_ARGUMENT, "nothing before"},
        {RT_GRAMMAR_REGEX, "a**", MCC_INVALID_ARGUMENT, "after a quantifier"},
        {RT_GRAMMAR_REGEX, "a{2}{3}", MCC_INVALID_ARGUMENT, "after a quantifier"},
        {RT_GRAMMAR_REGEX, "a{3,2}", MCC_INVALID_ARGUMENT, "more repetitions"},
        {RT_GRAMMAR_REGEX, "a*+", MCC_UNSUPPORTED, "possessive"},
        {RT_GRAMMAR_REGEX, "(?=a)b", MCC_UNSUPPORTED, "(?:"},
        {RT_GRAMMAR_REGEX, "(a)\\1", MCC_UNSUPPORTED, "back-references"},
        {RT_GRAMMAR_REGEX, "\\ba", MCC_UNSUPPORTED, "\\b"},
        {RT_GRAMMAR_REGEX, "\\q", MCC_INVALID_ARGUMENT, "unknown escape"},
        {RT_GRAMMAR_REGEX, "\\xq0", MCC_INVALID_ARGUMENT, "hexadecimal"},
        {RT_GRAMMAR_REGEX, "\\ud800", MCC_INVALID_ARGUMENT, "no such character"},
        {RT_GRAMMAR_REGEX, "a\\", MCC_INVALID_ARGUMENT, "at the end"},
        {RT_GRAMMAR_REGEX, "a^b", MCC_UNSUPPORTED, "^ and $"},
        {RT_GRAMMAR_REGEX, "^a|b$", MCC_UNSUPPORTED, "^ and $ beside |"},
        {RT_GRAMMAR_REGEX, "\xff", MCC_INVALID_ARGUMENT, "not UTF-8"},
        {RT_GRAMMAR_REGEX, "[^\\s\\S]", MCC_INVALID_ARGUMENT, "no text can ever match"},
        {RT_GRAMMAR_REGEX, "z", MCC_INVALID_ARGUMENT, "no token of the vocabulary"},
        {RT_GRAMMAR_REGEX, "a{65537}", MCC_INVALID_ARGUMENT, "repetitions"},
        {RT_GRAMMAR_REGEX, "(a{65536}){65536}", MCC_CAPACITY, "too large"},
        {RT_GRAMMAR_REGEX, "(((){65536}){65536}){65536}", MCC_CAPACITY, "too large"},
        {RT_GRAMMAR_REGEX, "(a|b)*a(a|b){20}", MCC_CAPACITY, "too large"},
        {RT_GRAMMAR_GBNF, "", MCC_INVALID_ARGUMENT, "no rule \"root\""},
        {RT_GRAMMAR_GBNF, "root ::= x", MCC_INVALID_ARGUMENT, "\"x\" is not defined"},
        {RT_GRAMMAR_GBNF, "root ::= \"a\"\nroot ::= \"b\"", MCC_INVALID_ARGUMENT,
         "line 2, column 1"},
        {RT_GRAMMAR_GBNF, "root ::= \"a", MCC_INVALID_ARGUMENT, "text ends"},
        {RT_GRAMMAR_GBNF, "root ::= [a", MCC_INVALID_ARGUMENT, "text ends"},
        {RT_GRAMMAR_GBNF, "root ::= (\"a\"", MCC_INVALID_ARGUMENT, "( without )"},
        {RT_GRAMMAR_GBNF, "root ::= \"a\")", MCC_INVALID_ARGUMENT, ") without ("},
        {RT_GRAMMAR_GBNF, "root ::= \"\\q\"", MCC_INVALID_ARGUMENT, "unknown escape"},
        {RT_GRAMMAR_GBNF, "root ::= <think>", MCC_INVALID_ARGUMENT, "tokens <"},
        {RT_GRAMMAR_GBNF, "root ::= \"a\"{3,2}", MCC_INVALID_ARGUMENT, "more repetitions"},
        {RT_GRAMMAR_GBNF, "root = \"a\"", MCC_INVALID_ARGUMENT, "expected a rule"},
        {RT_GRAMMAR_GBNF, "root ::= root \"a\" | \"b\"", MCC_INVALID_ARGUMENT,
         "\"root\" is left-recursive"},
        {RT_GRAMMAR_GBNF,
         "root ::= x\nx ::= \"a\"? y \"aaaaaaaaaaaaaaaaaaaaaaaaaa\"\ny ::= x \"b\" | \"c\"",
         MCC_INVALID_ARGUMENT, "left-recursive: it begins with itself ("},
        {RT_GRAMMAR_GBNF, "root ::= \"a\" root", MCC_INVALID_ARGUMENT, "no text can ever match"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_refusal(&cases[i]);
}
END_TEST

/* Texts that are deep, long or ambiguous end in an error or work, soon and in bounded memory. */
static char *repeat(const char *part, size_t n, const char *end) {
    size_t size = strlen(part);
    char *all = malloc(n * size + strlen(end) + 1);
    ck_assert_ptr_nonnull(all);
    for (size_t i = 0; i < n; i++)
        memcpy(all + i * size, part, size);
    strcpy(all + n * size, end);
    return all;
}

START_TEST(hostile_texts) {
    static const struct {
        rt_grammar_kind kind;
        const char *part, *end;
    } cases[] = {
        {RT_GRAMMAR_REGEX, "(", ""},         {RT_GRAMMAR_REGEX, "(a|", ""},
        {RT_GRAMMAR_REGEX, "a?", ""},        {RT_GRAMMAR_REGEX, "(a*)*", "b"},
        {RT_GRAMMAR_REGEX, "[^a]?", "a"},    {RT_GRAMMAR_REGEX, "a|", ""},
        {RT_GRAMMAR_GBNF, "root ::= (", ""}, {RT_GRAMMAR_GBNF, "a ::= b ", ""},
        {RT_GRAMMAR_GBNF, "#", ""},          {RT_GRAMMAR_GBNF, "root::=\"a\"*****************", ""},
        {RT_GRAMMAR_GBNF, "\"a\" ", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t n = 10; n <= 300000 && n * strlen(cases[i].part) < 1 << 20; n *= 30) {
            char *source = repeat(cases[i].part, n, cases[i].end);
            rt_error error = {0};
            rt_grammar *grammar = compile(cases[i].kind, source, &error);
            ck_assert(grammar || error.text[0]);
            rt_grammar_release(grammar);
            free(source);
        }
    char *large = repeat("a", (1 << 20) + 1, "");
    check_refusal(&(refusal){RT_GRAMMAR_REGEX, large, MCC_CAPACITY, "at most 1048576"});
    free(large);
}
END_TEST

/* A chain of many rules, each used twice, that all call each other. */
START_TEST(many_rules) {
    static char source[1 << 20];
    size_t n = 0;
    n += (size_t)sprintf(source, "root ::= r0\n");
    for (int i = 0; i < 4000; i++)
        n += (size_t)sprintf(source + n,
                             "r%d ::= \"aaaaaaaaaaaaaaaaaaaaaaaaaa\" r%d | \"b\" r%d r%d | \"\"\n",
                             i, i + 1, (i * 7) % 4000, (i * 11) % 4000);
    sprintf(source + n, "r4000 ::= \"a\"\n");
    rt_error error = {0};
    rt_grammar *grammar = compile(RT_GRAMMAR_GBNF, source, &error);
    ck_assert_msg(grammar || error.text[0], "%s", error.text);
    rt_grammar_release(grammar);
}
END_TEST

/* Grammars with very many ways to read a text: the stacks are shared, so that this costs little;
 * where it does cost too much, it is an error in the end and no hang. */
START_TEST(ambiguous_grammars) {
    static const char *const sources[] = {
        "root ::= \"a\" root root | \"a\"",
        "root ::= \"a\" root \"b\" | \"a\" root \"-\" | \"a\" root | \"\"",
        "root ::= x* \ny ::= \"a\" y \"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\" | \"a\"* \nx ::= "
        "\"a\" x y | y \"a\" x x | \"a\" y",
    };
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        rt_error error = {0};
        const char *why = "";
        rt_grammar *grammar = compile(RT_GRAMMAR_GBNF, sources[i], &error);
        ck_assert_msg(grammar != NULL, "%s", error.text);
        rt_guide *guide = rt_guide_create(grammar, NULL, 0);
        int n = 0;
        for (; n < 60 && has(rt_guide_mask(guide, &why), 0); n++)
            if (!rt_guide_accept(guide, 0, "a", 1))
                break;
        ck_assert_msg(n == 60 || strstr(why, "ambiguous"), "%s: %d tokens, %s", sources[i], n, why);
        rt_guide_destroy(guide);
    }
}
END_TEST

/* Deep stacks: as many brackets are closed as were opened; and frames that are no longer needed
 * are let go. */
START_TEST(deep_stacks) {
    rt_error error = {0};
    rt_grammar *grammar =
        compile(RT_GRAMMAR_GBNF, "root ::= list \"-\"\nlist ::= \"a\" list* \"bb\"", &error);
    ck_assert_msg(grammar != NULL, "%s", error.text);
    rt_guide *guide = rt_guide_create(grammar, NULL, 0);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 5000; i++)
            ck_assert(rt_guide_accept(guide, 0, "a", 1));
        for (int i = 0; i < 4990; i++)
            ck_assert(rt_guide_accept(guide, 12, "bb", 2));
        const char *why;
        ck_assert(!has(rt_guide_mask(guide, &why), 8)); /* not yet "-" */
        ck_assert_uint_lt(guide->matcher.n_frames, 100000);
    }
    rt_guide_destroy(guide);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("grammar");
    TCase *t = tcase_create("grammar");
    tcase_set_timeout(t, test_full() ? 1200 : 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, masks_of_random_grammars);
    tcase_add_test(t, going_back);
    tcase_add_test(t, ranges_of_characters);
    tcase_add_test(t, syntax_of_expressions);
    tcase_add_test(t, what_is_refused);
    tcase_add_test(t, hostile_texts);
    tcase_add_test(t, many_rules);
    tcase_add_test(t, ambiguous_grammars);
    tcase_add_test(t, deep_stacks);
    suite_add_tcase(s, t);
    return s;
}
CHECK_MAIN(suite)
