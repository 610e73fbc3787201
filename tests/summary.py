#!/usr/bin/env python3
"""Counts what ran: summary.py FILE.xml… (from ctest --output-junit; a folder's name says which part)

A unit test counts each of its checks' cases, every other test is one. What a test leaves out counts
as skipped, with its reason, or as left to a full run, and never as passed: tests print a line
`skipped: REASON` for one case, `skipped in part: REASON` for a part of one, `unsampled: WHAT` for one
that this run's sample has not; a whole entry that is skipped exits with 77 and prints `SKIP: REASON`.
The last line is the sum. The exit status is 0 when nothing has failed and something has passed.
"""
import collections
import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree

CHECKS = re.compile(r"^\d+%: Checks: (\d+), Failures: (\d+), Errors: (\d+)$", re.M)


class Counts:
    def __init__(self):
        self.passed = self.failed = self.skipped = self.unsampled = 0
        self.failures = []
        self.reasons = collections.Counter()  # (reason, entry): how often

    def fail(self, entry, n=1):
        self.failed += n
        self.failures.append(entry)

    def skip(self, entry, reason):
        self.skipped += 1
        self.reasons[reason, entry] += 1

    def add(self, entry, case):
        """One entry of ctest: `case` is its element."""
        output = case.findtext("system-out") or ""
        status = case.get("status")
        if status not in ("run", "fail"):
            message = case.find("skipped")
            if message is not None and message.get("message", "").startswith("SKIP_RETURN_CODE"):
                reason = re.search(r"^SKIP: (.*)$", output, re.M)
                self.skip(entry, reason[1] if reason else "no reason is given")
            else:  # its program is missing, for example
                self.fail(f"{entry} (did not run)")
            return
        cases = failed = 0
        for found in CHECKS.finditer(output):
            cases += int(found[1])
            failed += int(found[2]) + int(found[3])
        whole = re.findall(r"^skipped: (.*)$", output, re.M)
        for reason in whole + re.findall(r"^skipped in part: (.*)$", output, re.M):
            self.skip(entry, reason)
        unsampled = len(re.findall(r"^unsampled: ", output, re.M))
        self.unsampled += unsampled
        if status == "fail" or failed:
            self.fail(entry, max(failed, 1))
        if CHECKS.search(output):
            if cases == 0:
                self.fail(f"{entry} (has no cases)")
            self.passed += max(cases - failed - len(whole) - unsampled, 0)
        elif status == "run":
            self.passed += 1


def main():
    counts = Counts()
    for path in sys.argv[1:]:
        part = pathlib.Path(path).stem
        try:
            cases = ElementTree.parse(path).getroot().findall("testcase")
        except (OSError, ElementTree.ParseError) as error:
            counts.fail(f"{part} (has no results: {error})")
            continue
        if not cases:
            counts.fail(f"{part} (has no tests)")
        for case in cases:
            counts.add(f"{part}/{case.get('name')}", case)
    for (reason, entry), n in sorted(counts.reasons.items()):
        print(f"skipped: {entry}: {reason}" + (f" ({n} times)" if n > 1 else ""))
    if counts.unsampled:
        print(f"left to a full run: {counts.unsampled} cases, besides the cases drawn at random")
    for entry in counts.failures:
        print(f"failed: {entry}")
    print(f"{counts.passed} passed, {counts.failed} failed, {counts.skipped} skipped")
    return 1 if counts.failed or not counts.passed else 0


if __name__ == "__main__":
    sys.exit(main())
