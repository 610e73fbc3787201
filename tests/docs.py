#!/usr/bin/env python3
"""Runs the commands that the documents show and compares what they print with what the documents say they print.

    python3 tests/docs.py --modelcc build/compiler/modelcc --models build/models [--update] [FILE.md…]

In a block marked ```console, a line that begins with "$ " is a command (a line that ends in a backslash goes on in the
next) and the lines below it are its output, both streams together. A line "…" stands for any lines, "…" in a line for
any text, with the spaces around it. The commands of a document run in one shell, in a folder that holds nothing but
the model. --update writes the new output into the document where what it shows has no "…". Exit status 77 where the
model is missing, or the processor is another than the documents show.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODEL = "SmolLM2-135M-Instruct.gguf"
TARGET = "cpu:x86-64-v4"


def commands(text):
    """[(line number, command, expected lines)]"""
    found, inside, going_on = [], False, False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            inside = not inside and line.strip() == "```console"
            going_on = False
        elif inside and (going_on or line.startswith("$ ")):
            if going_on:
                found[-1][1] += "\n" + line
            else:
                found.append([number, line[2:], []])
            going_on = line.endswith("\\")
        elif inside and found:
            found[-1][2].append(line)
    return found


def pattern(lines):
    parts = []
    for line in lines:
        if line.strip() == "…":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append("[^\n]*?".join(re.escape(p) for p in re.split(" *… *", line.rstrip())) + "[ \t]*\n")
    return re.compile("".join(parts))


def run(found, args, folder):
    """The output of each command."""
    mark = "\x01%d\x01"
    script = ["exec 2>&1"]
    for i, (_, command, _) in enumerate(found):
        script += ["printf '" + mark % i + "'", command]
    env = dict(os.environ, PATH=f"{pathlib.Path(args.modelcc).resolve().parent}:{os.environ['PATH']}", LC_ALL="C.UTF-8",
               MODELCC_SOURCE=str(ROOT))
    done = subprocess.run(["bash", "-s"], input="\n".join(script) + "\n", cwd=folder, env=env, text=True,
                          errors="replace", stdout=subprocess.PIPE, timeout=args.timeout, check=False)
    # On a slow machine commands say how far they are.
    printed = re.sub(r"(?m)(?:^|(?<=\x01))\w+ [0-9]+ of [0-9]+ \w+, about [0-9]+ s left\n", "", done.stdout)
    pieces = re.split("\x01[0-9]+\x01", printed)[1:]
    return pieces + [""] * (len(found) - len(pieces))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modelcc", required=True)
    parser.add_argument("--models", default=os.environ.get("MCC_TEST_MODELS", "."), help=f"a folder with {MODEL}")
    parser.add_argument("--update", action="store_true", help="correct the documents")
    parser.add_argument("--timeout", type=float, default=300, help="seconds a document may take")
    parser.add_argument("files", nargs="*")
    args = parser.parse_args()
    model = pathlib.Path(args.models) / MODEL
    if not model.exists():
        print(f"SKIP: {model} is not there (tests/models.sh fetches it)")
        return 77
    # The documents show the code of one level of processor; other machines print other code.
    listed = subprocess.run([args.modelcc, "targets", "--json"], capture_output=True, text=True, check=True)
    if json.loads(listed.stdout)["cpu"] != TARGET:
        print(f"SKIP: the documents show {TARGET}, which is not what --target cpu means here")
        return 77
    failed = checked = 0
    for file in args.files or [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        found = commands(pathlib.Path(file).read_text(encoding="utf-8"))
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / MODEL).symlink_to(model.resolve())
            outputs = run(found, args, folder)
        lines = pathlib.Path(file).read_text(encoding="utf-8").splitlines()
        for (number, command, expected), output in reversed(list(zip(found, outputs))):
            checked += 1
            if output and not output.endswith("\n"):
                output += "\n"
            if pattern(expected).fullmatch(output):
                continue
            if args.update and not any("…" in line for line in expected):
                at = number + command.count("\n")  # of the first line of output, from 0
                lines[at:at + len(expected)] = output.splitlines()
                print(f"{file}:{number}: updated")
            else:
                failed += 1
                print(f"FAIL: {file}:{number}: $ {command}\n--- shown\n" + "\n".join(expected) +
                      f"\n--- printed\n{output[:4000]}")
        if args.update:
            pathlib.Path(file).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"docs: {checked - failed} commands print what is shown, {failed} do not")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
