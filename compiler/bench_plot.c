/* A benchmark as a picture: tokens a second over time, and percentiles of what requests waited. */
#include "compiler/bench_workload.h"
#include "compiler/output.h"

#include <errno.h>
#include <math.h>
#include <string.h>

enum {
    WIDTH = 960,
    HEIGHT = 400,
    BINS = 60,
    LEFT = 70, /* of the first panel; they are PANEL wide and SPACE apart */
    PANEL = 370,
    SPACE = 110,
    TOP = 60,
    TALL = 270
};

static const char *const colors[] = {"#1b6ca8", "#d1495b", "#2e8b57", "#8a5fbf"};

typedef struct panel {
    FILE *out;
    double left, low, high; /* values at the bottom and the top */
    bool log;
} panel;

/* Of a value, from the top of the picture. */
static double height_of(const panel *p, double value) {
    double at = p->log ? (log10(value) - log10(p->low)) / (log10(p->high) - log10(p->low))
                       : (value - p->low) / (p->high - p->low);
    return TOP + TALL * (1 - fmin(fmax(at, 0), 1));
}

static void put_text(FILE *out, double x, double y, const char *anchor, const char *text) {
    fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || strchr("<>&\"'", *text))
            fprintf(out, "&#%d;", (unsigned char)*text < ' ' ? '?' : *text);
        else
            fputc(*text, out);
    fputs("</text>\n", out);
}

static void put_tick(const panel *p, double value) {
    char text[32];
    double y = height_of(p, value);
    fprintf(p->out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n",
            p->left, y, p->left + PANEL, y);
    snprintf(text, sizeof text, "%.4g", value);
    put_text(p->out, p->left - 6, y + 4, "end", text);
}

/* Frame, title and a scale of values. */
static void put_panel(const panel *p, const char *title, const char *across) {
    put_text(p->out, p->left, TOP - 10, "start", title);
    if (p->log) {
        for (double v = p->low; v <= p->high * 1.0001; v *= 10)
            put_tick(p, v);
    } else {
        for (int i = 0; i <= 4; i++)
            put_tick(p, p->low + i * (p->high - p->low) / 4);
    }
    fprintf(p->out,
            "<rect x=\"%.1f\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"none\" "
            "stroke=\"#888\"/>\n",
            p->left, TOP, PANEL, TALL);
    put_text(p->out, p->left + PANEL / 2.0, TOP + TALL + 36, "middle", across);
}

static void put_across(const panel *p, double most) {
    char text[32];
    for (int i = 0; i <= 4; i++) {
        snprintf(text, sizeof text, "%.4g", i * most / 4);
        put_text(p->out, p->left + i * PANEL / 4.0, TOP + TALL + 16, "middle", text);
    }
}

/* 1, 2 or 5 times a power of ten that is not below. */
static double round_up(double value) {
    double power = pow(10, floor(log10(value)));
    for (int i = 0; i < 3; i++)
        if (value <= power * (double[]){1, 2, 5}[i])
            return power * (double[]){1, 2, 5}[i];
    return 10 * power;
}

static void put_throughput(FILE *out, const bench_plot *b) {
    double counts[BINS] = {0}, most = 0;
    for (int64_t i = 0; i < b->n_tokens; i++) {
        int bin = (int)(b->token_times[i] / b->seconds * BINS);
        counts[bin < 0 ? 0 : bin >= BINS ? BINS - 1 : bin] += BINS / b->seconds;
    }
    for (int i = 0; i < BINS; i++)
        most = fmax(most, counts[i]);
    panel p = {.out = out, .left = LEFT, .high = round_up(fmax(most, 1))};
    put_panel(&p, "tokens generated a second", "seconds");
    put_across(&p, b->seconds);
    fprintf(out, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"", colors[0]);
    for (int i = 0; i < BINS; i++)
        fprintf(out, "%.1f,%.1f ", p.left + (i + 0.5) * PANEL / BINS, height_of(&p, counts[i]));
    fputs("\"/>\n", out);
}

static void put_latencies(FILE *out, const bench_plot *b) {
    double least = INFINITY, most = 0;
    for (int k = 0; k < 4; k++)
        for (int64_t i = 0; i < b->series[k].n; i++) {
            double ms = 1e3 * b->series[k].seconds[i];
            least = ms > 0 ? fmin(least, ms) : least;
            most = fmax(most, ms);
        }
    if (most == 0)
        least = most = 1;
    panel p = {.out = out,
               .left = LEFT + PANEL + SPACE,
               .low = pow(10, floor(log10(least))),
               .high = pow(10, floor(log10(most)) + 1),
               .log = true};
    put_panel(&p, "milliseconds", "percent of the requests or tokens that waited no longer");
    put_across(&p, 100);
    for (int k = 0; k < 4; k++) {
        const bench_series *s = &b->series[k];
        if (s->n == 0)
            continue;
        fprintf(out, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"",
                colors[k]);
        for (int i = 0; i <= 100; i++) {
            int64_t at = (s->n * i + 99) / 100;
            double ms = 1e3 * s->seconds[at > 0 ? at - 1 : 0];
            fprintf(out, "%.1f,%.1f ", p.left + i * PANEL / 100.0,
                    height_of(&p, ms > 0 ? ms : p.low));
        }
        fprintf(out, "\"/>\n<g fill=\"%s\">", colors[k]);
        put_text(out, p.left + k * 100, TOP + TALL + 56, "start", s->name);
        fputs("</g>\n", out);
    }
}

int bench_plot_write(const char *path, const bench_plot *b) {
    FILE *out = fopen(path, "we");
    if (!out) {
        fprintf(stderr, "error: %s: %s\n", path, strerror(errno));
        return EXIT_FAILED;
    }
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
            "font-family=\"sans-serif\" font-size=\"12\">\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
            WIDTH, HEIGHT);
    put_text(out, LEFT, 24, "start", b->title);
    put_throughput(out, b);
    put_latencies(out, b);
    fputs("</svg>\n", out);
    bool good = !ferror(out);
    good = fclose(out) == 0 && good;
    if (!good)
        fprintf(stderr, "error: %s: %s\n", path, strerror(errno));
    return good ? EXIT_FINE : EXIT_FAILED;
}
