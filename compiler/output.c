#include "compiler/output.h"

#include <stdlib.h>
#include <string.h>

int output_fail(const mcc_error *error) {
    fprintf(stderr, "error: %s\n", error->text);
    return EXIT_FAILED;
}

int output_fail_memory(void) {
    fprintf(stderr, "error: out of memory\n");
    return EXIT_FAILED;
}

static int print_and_free(char *text, cJSON *json) {
    cJSON_Delete(json);
    if (!text) {
        fprintf(stderr, "error: out of memory for the result\n");
        return EXIT_FAILED;
    }
    puts(text);
    free(text);
    return EXIT_FINE;
}

int output_json(cJSON *json) {
    return print_and_free(cJSON_Print(json), json);
}

int output_json_line(cJSON *json) {
    int code = print_and_free(cJSON_PrintUnformatted(json), json);
    fflush(stdout);
    return code;
}

char *output_bytes(uint64_t bytes, char text[24]) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double size = (double)bytes;
    int unit = 0;
    while (size >= 999.95 && unit < 4) {
        size /= 1000;
        unit++;
    }
    snprintf(text, 24, unit ? "%.1f %s" : "%.0f %s", size, units[unit]);
    return text;
}

int32_t output_default_seqs(const mcc_artifact *artifact, const char *device, int32_t batched) {
    mcc_artifact_info info = {.struct_size = sizeof info};
    mcc_artifact_get_info(artifact, &info, NULL);
    bool gpu = device ? strncmp(device, "cuda", 4) == 0 : !info.target;
    int32_t n = gpu ? 256 : 64;
    return batched > 0 && batched < n ? batched : n;
}

void output_clean(const char *text, FILE *out) {
    for (; text && *text; text++)
        fputc((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text, out);
}

static int compare_numbers(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

output_spread output_spread_of(const double *samples, int n) {
    output_spread s = {samples[0], samples[0], samples[0]};
    double *sorted = malloc((size_t)n * sizeof *sorted);
    if (!sorted)
        return s;
    memcpy(sorted, samples, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, compare_numbers);
    s = (output_spread){(sorted[(n - 1) / 2] + sorted[n / 2]) / 2, sorted[0], sorted[n - 1]};
    free(sorted);
    return s;
}

/* cJSON makes none of NULL, which a list of none may be. */
cJSON *output_ids(const int32_t *ids, int64_t n) {
    return n > 0 ? cJSON_CreateIntArray(ids, (int)n) : cJSON_CreateArray();
}

int32_t *output_take_ids(const cJSON *list, int64_t *n) {
    int count = cJSON_GetArraySize(list);
    int32_t *ids = malloc(((size_t)count + 1) * sizeof *ids);
    const cJSON *item;
    *n = 0;
    cJSON_ArrayForEach(item, list) {
        double x = item->valuedouble;
        if (!ids || !cJSON_IsNumber(item) || !(x >= 0 && x <= INT32_MAX) || x != (int32_t)x) {
            free(ids);
            return NULL;
        }
        ids[(*n)++] = (int32_t)x;
    }
    return ids;
}

int32_t *output_parse_ids(const char *text, int64_t *n) {
    size_t length = strlen(text);
    char *list = malloc(length + 3);
    if (!list)
        return NULL;
    bool bracket = text[strspn(text, " \t\r\n")] == '[';
    snprintf(list, length + 3, bracket ? "%s" : "[%s]", text);
    cJSON *json = cJSON_ParseWithOpts(list, NULL, true);
    int32_t *ids = cJSON_IsArray(json) ? output_take_ids(json, n) : NULL;
    cJSON_Delete(json);
    free(list);
    return ids;
}

int32_t *output_tokenize(const mcc_artifact *artifact, const char *text, uint64_t bytes,
                         uint32_t flags, int64_t *n, mcc_error *error) {
    mcc_status status = mcc_tokenize(artifact, text, bytes, flags, NULL, 0, n, error);
    if (status != MCC_OK && status != MCC_BUFFER_TOO_SMALL)
        return NULL;
    int32_t *ids = malloc(((size_t)*n + 1) * sizeof *ids);
    if (!ids)
        snprintf(error->text, sizeof error->text, "out of memory");
    else if (mcc_tokenize(artifact, text, bytes, flags, ids, *n, n, error) == MCC_OK)
        return ids;
    free(ids);
    return NULL;
}
