#!/usr/bin/env python3
"""summary.py on results of ctest's own making: what passes, fails, is skipped, is missing, and how
that is counted."""
import pathlib
import subprocess
import sys
import tempfile

SUMMARY = pathlib.Path(__file__).with_name("summary.py")
CHECKS = "100%: Checks: 5, Failures: 0, Errors: 0"
# name: shell command, the counts that it must add (passed, failed, skipped), what must be printed
ENTRIES = {
    "script": ("echo fine", (1, 0, 0), None),
    "broken-script": ("exit 3", (0, 1, 0), "failed: some/broken-script"),
    "unit": (f"echo '{CHECKS}'", (5, 0, 0), None),
    "unit-fails": ("echo '60%: Checks: 5, Failures: 1, Errors: 1'; exit 1", (3, 2, 0),
                   "failed: some/unit-fails"),
    "unit-crashes-late": (f"echo '{CHECKS}'; kill -SEGV $$", (5, 1, 0),
                          "failed: some/unit-crashes-late"),
    "unit-without-cases": ("echo '100%: Checks: 0, Failures: 0, Errors: 0'", (0, 1, 0),
                           "unit-without-cases (has no cases)"),
    "unit-skips": (f"echo 'skipped: no model' >&2; echo '{CHECKS}'", (4, 0, 1),
                   "skipped: some/unit-skips: no model"),
    "unit-skips-a-part": (f"echo 'skipped in part: no v4'; echo 'skipped in part: no v4'; echo '{CHECKS}'",
                          (5, 0, 2), "skipped: some/unit-skips-a-part: no v4 (2 times)"),
    "unit-samples": (f"echo 'unsampled: one'; echo 'unsampled: two'; echo '{CHECKS}'", (3, 0, 0),
                     "left to a full run: 2 cases"),
    "script-skips-a-part": ("echo 'skipped: a full disk'", (1, 0, 1),
                            "skipped: some/script-skips-a-part: a full disk"),
    "all-skipped": ("echo 'SKIP: no clang'; exit 77", (0, 0, 1), "skipped: some/all-skipped: no clang"),
    "long": (f"head -c 300000 /dev/zero | tr '\\0' x; echo; echo '{CHECKS}'", (5, 0, 0), None),
    "bytes": (f"printf '\\001\\377<&]]>\\n'; echo '{CHECKS}'", (5, 0, 0), None),
    "too-slow": ("sleep 20", (0, 1, 0), "failed: some/too-slow"),
}


def results(folder, entries):
    """ctest's results of these entries, and of one whose program is missing."""
    lines = []
    for name, (command, _, _) in entries.items():
        lines.append(f'add_test({name} /bin/sh -c [==[{command}]==])')
        lines.append(f"set_tests_properties({name} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 5)")
    lines.append("add_test(missing /no/such/program)")
    (folder / "CTestTestfile.cmake").write_text("\n".join(lines) + "\n")
    path = folder / "some.xml"
    subprocess.run(["ctest", "--test-dir", folder, "-j4", "--output-junit", path,
                    "--test-output-size-passed", "100000000", "--test-output-size-failed", "100000000"],
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return path


def summary(*files):
    return subprocess.run([sys.executable, SUMMARY, *files], capture_output=True, text=True, check=False)


def main():
    failures = []

    def expect(condition, message):
        if not condition:
            failures.append(message)

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        done = summary(results(folder, ENTRIES))
        want = [sum(counts[i] for _, counts, _ in ENTRIES.values()) for i in range(3)]
        want[1] += 1
        last = f"{want[0]} passed, {want[1]} failed, {want[2]} skipped"
        expect(done.stdout.splitlines()[-1:] == [last], f"the last line is not {last!r}:\n{done.stdout}{done.stderr}")
        expect(done.returncode == 1, "the exit status with failures is not 1")
        for text in [text for _, _, text in ENTRIES.values()] + ["failed: some/missing (did not run)"]:
            expect(not text or text in done.stdout, f"{text!r} is not in\n{done.stdout}")
        good = {k: v for k, v in ENTRIES.items() if v[1][1] == 0}
        path = results(folder, good)
        text = path.read_text()
        at = text.index('<testcase name="missing"')
        path.write_text(text[:at] + text[text.index("</testcase>", at) + len("</testcase>"):])
        expect(summary(path).returncode == 0, "the exit status without failures is not 0")
        none = folder / "none.xml"
        done = summary(path, none)
        expect(done.returncode == 1 and "failed: none (has no results" in done.stdout, "missing results are no failure")
        none.write_text(text[:len(text) // 2])
        expect(summary(path, none).returncode == 1, "half of the results are no failure")
        none.write_text('<?xml version="1.0"?><testsuite></testsuite>')
        expect(summary(none).returncode == 1, "no tests at all are no failure")
    for failure in failures:
        print("FAILED:", failure)
    print(f"summary: {len(ENTRIES)} kinds of results, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
