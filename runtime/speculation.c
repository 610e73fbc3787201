#include "runtime/speculation.h"

#include <math.h>

/* --- costs ---------------------------------------------------------------------------------------
 */

/* Each number of tokens up to 16, then four points for each doubling. */
static int point_of(int32_t tokens) {
    int point = tokens < 16 ? tokens : 16, width = 4;
    for (int32_t at = 16; tokens > 16 && point + 1 < RT_COST_POINTS; point++) {
        at += width;
        if (tokens <= at)
            return point + 1;
        width = at >= 8 * width ? 2 * width : width;
    }
    return point < RT_COST_POINTS ? point : RT_COST_POINTS - 1;
}

void rt_step_cost_learn(rt_step_cost *c, int32_t tokens, double seconds) {
    if (tokens <= 0 || !(seconds > 0))
        return;
    int p = point_of(tokens);
    if (c->tokens[p] == 0) {
        c->tokens[p] = tokens;
        c->seconds[p] = seconds;
        return;
    }
    /* A step that was interrupted says little; one that really takes longer says it again. */
    double s = seconds < 2 * c->seconds[p] ? seconds : 2 * c->seconds[p];
    c->seconds[p] += (s - c->seconds[p]) / 8;
    c->tokens[p] += (tokens - c->tokens[p]) / 8;
}

/* The line through two measured points. */
static double on_line(const rt_step_cost *c, int a, int b, double tokens) {
    double slope = (c->seconds[b] - c->seconds[a]) / (c->tokens[b] - c->tokens[a]);
    return c->seconds[a] + (tokens - c->tokens[a]) * (slope > 0 ? slope : 0);
}

double rt_step_cost_of(const rt_step_cost *c, int32_t tokens) {
    int a = -1, b = -1; /* measured points: around `tokens`, or the two next to it */
    for (int p = 0; p < RT_COST_POINTS; p++)
        if (c->tokens[p] > 0 && (b < 0 || c->tokens[b] <= tokens || a < 0)) {
            a = b;
            b = p;
        }
    if (b < 0)
        return 0;
    double share = c->seconds[a < 0 ? b : a] * tokens / c->tokens[a < 0 ? b : a];
    if (a < 0)
        return tokens <= c->tokens[b]
                   ? share
                   : c->seconds[b] * (1 + 0.1 * (tokens - c->tokens[b]) / c->tokens[b]);
    double cost = on_line(c, a, b, tokens);
    return tokens < c->tokens[a] && cost < share ? share : cost;
}

/* Costs are known up to about twice the tokens that have been measured. */
static int32_t known_tokens(const rt_step_cost *c) {
    int p = RT_COST_POINTS - 1;
    while (p >= 0 && c->tokens[p] == 0)
        p--;
    return p < 0 ? 0 : (int32_t)(2 * c->tokens[p]);
}

/* --- acceptance ----------------------------------------------------------------------------------
 */

static int class_of(int32_t first, int32_t i) {
    return first + i < RT_DRAFT_CLASSES ? first + i : RT_DRAFT_CLASSES - 1;
}

void rt_acceptance_learn(rt_acceptance *a, int32_t first, int32_t drafted, int32_t kept) {
    const float memory = 24; /* trials, about */
    for (int32_t i = 0; i < drafted && i <= kept; i++) {
        int c = class_of(first, i);
        float fade = a->tried[c] >= memory ? (memory - 1) / memory : 1;
        a->tried[c] = a->tried[c] * fade + 1;
        a->right[c] = a->right[c] * fade + (i < kept);
    }
    /* A longer draft might have been right: what is known against it is forgotten by and by. */
    if (kept == drafted && first + drafted < RT_DRAFT_CLASSES) {
        a->tried[first + drafted] *= 0.9f;
        a->right[first + drafted] *= 0.9f;
    }
}

/* How likely a token is right if those before it are: as for this request so far; with little known
 * of that, as for all; with little known of these, as a token of the class below; and at first by
 * the rule of succession, since as many tokens as its class says were right. */
static double rate_of(const rt_speculation *s, const rt_acceptance *request, int c) {
    const rt_acceptance *all = &s->acceptance;
    double below = (c + 1) / (c + 2.0);
    if (c > 0)
        below = (all->right[c - 1] + 2 * below) / (all->tried[c - 1] + 2);
    double rate = (all->right[c] + 2 * below) / (all->tried[c] + 2);
    return (request->right[c] + 2 * rate) / (request->tried[c] + 2);
}

/* --- choosing ------------------------------------------------------------------------------------
 */

enum {
    MAX_DEPTH = 64,
    LEVELS = 15, /* of how likely tokens are right, down to which drafts may go */
    TRIAL = 4    /* tokens of a draft that is tried though it may not pay */
};

static const double levels[LEVELS] = {0.95, 0.9, 0.85, 0.8, 0.7,  0.6,  0.5, 0.4,
                                      0.3,  0.2, 0.15, 0.1, 0.07, 0.05, 0.03};

static const double income = 0.02, first_credit = 0.5, most_credit = 8; /* steps */

/* Tokens chosen so far, by how far behind the last known one. */
typedef struct choice {
    int32_t counts[MAX_DEPTH], n;
    double right; /* expected */
} choice;

static double token_cost(const rt_speculation *s, const rt_draft_step *step) {
    return rt_step_cost_of(&s->cost, step->decoding) / (step->decoding > 0 ? step->decoding : 1);
}

/* What the drafts cost, in the step and before it. */
static double extra_cost(const rt_speculation *s, const rt_draft_step *step, const choice *c) {
    double cost =
        rt_step_cost_of(&s->cost, step->tokens + c->n) - rt_step_cost_of(&s->cost, step->tokens);
    for (int d = 0; step->draft && d < MAX_DEPTH && c->counts[d] > 0; d++) {
        double own = rt_step_cost_of(step->draft, c->counts[d]);
        cost += own > 0 ? own : step->draft_ratio * rt_step_cost_of(&s->cost, c->counts[d]);
    }
    return cost > 0 ? cost : 0;
}

/* Extends all drafts by the tokens that are right with a probability of `least` or more. */
static void extend(const rt_speculation *s, rt_draft_offer *offers, int n, double least,
                   int32_t most, choice *c) {
    for (int i = 0; i < n; i++) {
        rt_draft_offer *o = &offers[i];
        while (o->chosen < o->n && o->chosen < MAX_DEPTH && c->n < most) {
            double p = o->reach * rate_of(s, o->acceptance, class_of(o->first, o->chosen));
            if (p < least)
                break;
            o->reach = p;
            c->counts[o->chosen++]++;
            c->n++;
            c->right += p;
        }
    }
}

static void begin(rt_draft_offer *offers, int n, choice *c) {
    *c = (choice){0};
    for (int i = 0; i < n; i++) {
        offers[i].chosen = 0;
        offers[i].reach = 1;
    }
}

/* A short draft for one sequence, to see whether it pays by now: for another one each time, as
 * they wait alike. */
static void try_one(const rt_speculation *s, const rt_draft_step *step, rt_draft_offer *offers,
                    int n, int32_t most) {
    double spare = s->credit - first_credit * rt_step_cost_of(&s->cost, step->decoding);
    rt_draft_offer *o = &offers[0];
    for (int i = 1; i < n; i++) /* of which least is known */
        if (offers[i].acceptance->tried[class_of(offers[i].first, 0)] <
            o->acceptance->tried[class_of(o->first, 0)])
            o = &offers[i];
    for (int32_t length = o->n < TRIAL ? o->n : TRIAL; length > 0; length--) {
        choice c = {.n = length};
        for (int32_t d = 0; d < length; d++)
            c.counts[d] = 1;
        if (length <= most && extra_cost(s, step, &c) <= spare) {
            o->chosen = length;
            return;
        }
    }
}

/* All levels up to `last`, with at most `most` tokens. */
static void choose_levels(const rt_speculation *s, rt_draft_offer *offers, int n, int last,
                          int32_t most, choice *c) {
    begin(offers, n, c);
    for (int level = 0; level <= last; level++)
        extend(s, offers, n, levels[level], most, c);
}

/* The most tokens of this level that the account can pay for. */
static int32_t affordable(const rt_speculation *s, const rt_draft_step *step,
                          rt_draft_offer *offers, int n, int level, int32_t most) {
    int32_t low = 0, high = most; /* `low` can be paid for, high + 1 cannot */
    while (low < high) {
        choice c;
        int32_t middle = low + (high - low + 1) / 2;
        choose_levels(s, offers, n, level, middle, &c);
        if (extra_cost(s, step, &c) <= s->credit)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

void rt_speculation_choose(const rt_speculation *s, const rt_draft_step *step,
                           rt_draft_offer *offers, int n) {
    double base = token_cost(s, step), best = base > 0 ? 1 / base : 0;
    int32_t most = known_tokens(&s->cost) - step->tokens, best_most = 0;
    int best_level = -1;
    bool rich = true;
    choice c;
    begin(offers, n, &c);
    if (n == 0 || !s->started || most <= 0)
        return;
    for (int level = 0; level < LEVELS && rich; level++) {
        extend(s, offers, n, levels[level], most, &c);
        rich = extra_cost(s, step, &c) <= s->credit;
        if (!rich) {
            most = affordable(s, step, offers, n, level, c.n - 1);
            choose_levels(s, offers, n, level, most, &c);
        }
        double rate =
            (step->decoding + c.right) / (step->decoding * base + extra_cost(s, step, &c));
        if (c.n > 0 && rate > best) {
            best = rate;
            best_level = level;
            best_most = most;
        }
    }
    choose_levels(s, offers, n, best_level, best_most, &c);
    if (best_level < 0)
        try_one(s, step, offers, n, most);
}

bool rt_speculation_hopeful(const rt_speculation *s, const rt_draft_step *step, int32_t n) {
    rt_speculation rich = *s;
    rt_acceptance unknown = {0};
    rt_draft_offer offer = {.n = n, .acceptance = &unknown};
    rich.credit = INFINITY;
    if (!s->started || known_tokens(&s->cost) <= step->tokens + n)
        return true;
    choice c;
    double base = token_cost(s, step);
    begin(&offer, 1, &c);
    for (int level = 0; level < LEVELS; level++) {
        extend(&rich, &offer, 1, levels[level], n, &c);
        if (c.n > 0 && c.right * base > extra_cost(&rich, step, &c))
            return true;
    }
    return false;
}

void rt_speculation_account(rt_speculation *s, const rt_draft_step *step, int32_t drafted,
                            int32_t kept, double draft_seconds) {
    double base = token_cost(s, step), whole = base * step->decoding;
    if (!(base > 0))
        return;
    if (!s->started)
        s->credit = first_credit * whole;
    s->started = true;
    double extra = rt_step_cost_of(&s->cost, step->tokens + drafted) -
                   rt_step_cost_of(&s->cost, step->tokens) + draft_seconds;
    s->credit += base * kept - extra + income * base * (step->decoding + kept);
    if (s->credit > most_credit * whole)
        s->credit = most_credit * whole;
}
