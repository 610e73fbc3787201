#include "compiler/batch.h"
#include "compiler/output.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int failed(const batch_results *r, const char *what) {
    fprintf(stderr, "error: %s: %s: %s\n", r->path, what, strerror(errno));
    return EXIT_FAILED;
}

/* FNV-1a of an id as JSON; never 0. */
static uint64_t hash_id(const cJSON *id) {
    char *text = id ? cJSON_PrintUnformatted(id) : NULL;
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (const char *p = text ? text : "null"; *p; p++)
        h = (h ^ (uint8_t)*p) * UINT64_C(0x100000001b3);
    cJSON_free(text);
    return h | 1;
}

bool batch_results_has(const batch_results *r, int64_t line) {
    return line < r->n_lines && r->done[line] != 0;
}

bool batch_results_fits(const batch_results *r, int64_t line, const cJSON *id) {
    return r->done[line] == hash_id(id);
}

/* --- what is there -------------------------------------------------------------------------------
 */

static int no_result(const batch_results *r) {
    fprintf(stderr,
            "error: %s: line %" PRId64
            " is no result for this input, or not the first one of its request: name another "
            "--output\n",
            r->path, r->n_before + 1);
    return EXIT_FAILED;
}

/* Takes a whole line of an earlier run. */
static int take_line(batch_results *r, const char *text, size_t bytes) {
    cJSON *json = cJSON_ParseWithLength(text, bytes);
    const cJSON *line = cJSON_GetObjectItemCaseSensitive(json, "line");
    double n = cJSON_IsNumber(line) ? line->valuedouble : 0;
    bool ours = n >= 1 && n <= (double)r->n_lines && n == (double)(int64_t)n;
    int code = EXIT_FINE;
    if (!ours || batch_results_has(r, (int64_t)n - 1)) {
        code = no_result(r);
    } else {
        r->done[(int64_t)n - 1] = hash_id(cJSON_GetObjectItemCaseSensitive(json, "id"));
        r->n_before++;
        r->n_errors += cJSON_GetObjectItemCaseSensitive(json, "error") != NULL;
    }
    cJSON_Delete(json);
    return code;
}

/* Whether a last line that is not whole can be the beginning of a result (see batch_results_add):
 * a file of something else must not lose it. */
static bool is_cut_result(const char *text, size_t bytes) {
    static const char begin[] = "{\"id\":";
    size_t n = bytes < sizeof begin - 1 ? bytes : sizeof begin - 1;
    return memcmp(text, begin, n) == 0;
}

/* Reads what is there; cuts off a last line that is not whole. */
static int take_lines(batch_results *r) {
    int copy = dup(r->fd);
    FILE *file = copy >= 0 ? fdopen(copy, "r") : NULL;
    if (!file) {
        if (copy >= 0)
            close(copy);
        return failed(r, "cannot be read");
    }
    char *text = NULL;
    size_t capacity = 0;
    off_t whole = 0;
    int code = EXIT_FINE;
    for (ssize_t n; code == EXIT_FINE && (n = getline(&text, &capacity, file)) > 0;) {
        if (text[n - 1] != '\n') {
            code = is_cut_result(text, (size_t)n) ? EXIT_FINE : no_result(r);
            break;
        }
        code = take_line(r, text, (size_t)n);
        whole += n;
    }
    if (code == EXIT_FINE && ferror(file))
        code = failed(r, "cannot be read");
    free(text);
    fclose(file);
    if (code == EXIT_FINE && ftruncate(r->fd, whole) != 0)
        code = failed(r, "cannot be written");
    return code;
}

int batch_results_open(batch_results *r, const char *path, int64_t n_lines) {
    *r = (batch_results){.path = path,
                         .n_lines = n_lines,
                         .done = calloc((size_t)n_lines + 1, sizeof *r->done),
                         .fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0666)};
    if (r->fd < 0)
        return failed(r, "cannot be opened");
    if (!r->done)
        return output_fail_memory();
    struct stat is;
    if (fstat(r->fd, &is) != 0 || !S_ISREG(is.st_mode)) {
        fprintf(stderr, "error: %s: not a file: what is written must be there to go on\n", path);
        return EXIT_FAILED;
    }
    if (flock(r->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        fprintf(stderr, "error: %s: another process writes it\n", path);
        return EXIT_FAILED;
    }
    return take_lines(r);
}

int batch_results_close(batch_results *r) {
    int code = EXIT_FINE;
    if (r->fd >= 0 && r->n_written > 0 && fsync(r->fd) != 0 && errno != EINVAL && errno != EROFS)
        code = failed(r, "cannot be written");
    if (r->fd >= 0)
        close(r->fd);
    free(r->done);
    r->fd = -1;
    r->done = NULL;
    return code;
}

/* --- what is added -------------------------------------------------------------------------------
 */

static int append(batch_results *r, const char *text, size_t bytes) {
    while (bytes > 0) {
        ssize_t n = write(r->fd, text, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return failed(r, "cannot be written");
        text += n;
        bytes -= (size_t)n;
    }
    return EXIT_FINE;
}

int batch_results_add(batch_results *r, int64_t line, cJSON *result) {
    cJSON *number = cJSON_CreateNumber((double)line + 1);
    if (!cJSON_AddItemToObject(result, "line", number))
        cJSON_Delete(number);
    char *text = cJSON_HasObjectItem(result, "line") ? cJSON_PrintUnformatted(result) : NULL;
    bool is_error = cJSON_HasObjectItem(result, "error");
    cJSON_Delete(result);
    if (!text)
        return output_fail_memory();
    size_t bytes = strlen(text);
    text[bytes] = '\n'; /* in the place of the zero */
    int code = append(r, text, bytes + 1);
    cJSON_free(text);
    r->n_written += code == EXIT_FINE;
    r->n_errors += code == EXIT_FINE && is_error;
    return code;
}
