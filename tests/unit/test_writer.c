/* Giving a finished artifact its name: killed at the worst moment, and raced by other builds. */
#include "check_main.h"

#include "codegen/artifact/writer.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static atomic_int die_at_rename;

/* The C library's, but for a process that is to be killed there. */
int rename(const char *from, const char *to) {
    if (die_at_rename)
        raise(SIGKILL);
    return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

static char folder[256], output[300];

static void setup(void) {
    test_temporary(folder, sizeof folder, "writer");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(output, sizeof output, "%s/model.so", folder);
}

static void teardown(void) {
    unlink(output);
    rmdir(folder);
}

static int files_in_folder(void) {
    DIR *dir = opendir(folder);
    int n = 0;
    for (struct dirent *e; (e = readdir(dir));)
        n += e->d_name[0] != '.' || strlen(e->d_name) > 2;
    closedir(dir);
    return n;
}

/* An artifact of no kernels whose manifest is `text`. */
static bool write_artifact(const char *text) {
    char name[300];
    test_temporary(name, sizeof name, "code");
    int code = mkstemp(name);
    unlink(name);
    ck_assert_int_eq(write(code, "code", 4), 4);
    ir_module *module = ir_module_create("none", "");
    cg_program_list program = {.module = module};
    cg_model_facts facts = {1, 1, 1, 1};
    cg_section_bytes manifest = {MCC_SECTION_MANIFEST, text, strlen(text)};
    cg_artifact_spec spec = {.path = output,
                             .code = code,
                             .program = &program,
                             .facts = &facts,
                             .sections = &manifest,
                             .n_sections = 1,
                             .jobs = 1};
    ir_diag diag = {0};
    uint64_t bytes;
    bool ok = cg_artifact_write(&spec, &bytes, &diag);
    if (!ok)
        ir_diag_print(&diag, stderr);
    struct stat st;
    ok = ok && !stat(output, &st) && (uint64_t)st.st_size == bytes;
    ir_diag_clear(&diag);
    ir_module_destroy(module);
    close(code);
    return ok;
}

static bool output_holds(const char *text) {
    char bytes[3 * MCC_ARTIFACT_PAGE] = {0};
    FILE *f = fopen(output, "rb");
    ck_assert_ptr_nonnull(f);
    size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    return memmem(bytes, n, text, strlen(text)) != NULL;
}

START_TEST(killed_while_it_takes_a_name) {
    ck_assert(write_artifact("first"));
    ck_assert_int_eq(files_in_folder(), 1);
    for (int i = 0; i < 3; i++) { /* leftovers do not add up */
        pid_t child = fork();
        if (!child) {
            atomic_store(&die_at_rename, 1);
            write_artifact("killed");
            _exit(0);
        }
        int status;
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        ck_assert(output_holds("first"));
        ck_assert_int_le(files_in_folder(), 2);
    }
    ck_assert(write_artifact("second"));
    ck_assert(output_holds("second"));
    ck_assert_int_eq(files_in_folder(), 1);
}
END_TEST

static void *write_often(void *text) {
    for (int i = 0; i < 100; i++)
        if (!write_artifact(text))
            return text;
    return NULL;
}

/* write_artifact() compares the size of what is there, which is the same for all of them. */
START_TEST(builds_of_one_output_at_once) {
    static char texts[3][8] = {"alpha", "gamma", "delta"};
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, write_often, texts[i]), 0);
    for (int i = 0; i < 3; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        ck_assert_ptr_null(failed);
    }
    ck_assert_int_eq(output_holds("alpha") + output_holds("gamma") + output_holds("delta"), 1);
    ck_assert_int_eq(files_in_folder(), 1);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("writer");
    TCase *t = tcase_create("writer");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, killed_while_it_takes_a_name);
    tcase_add_test(t, builds_of_one_output_at_once);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
