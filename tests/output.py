#!/usr/bin/env python3
"""What `modelcc build` leaves on disk: output.py MODELCC

The same bytes whatever the directory, the jobs, the environment; and after a failure (a full disk, a
limit on file sizes, Ctrl-C, kill -9) the old file as it was and no other. With MCC_TEST_FULL=1 also
an artifact of more than 2 GB, from a sparse model. Times are drawn from MCC_TEST_SEED.
"""
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden")
SEED = int(os.environ.get("MCC_TEST_SEED", "1"), 0)
FULL = os.environ.get("MCC_TEST_FULL") == "1"
failures = []


def check(condition, message):
    if not condition:
        failures.append(message)
        print("FAILED:", message, flush=True)


def run(modelcc, *arguments, **options):
    return subprocess.run([modelcc, *arguments], capture_output=True, text=True, errors="replace",
                          **options)


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def checked_build(modelcc, *arguments, **options):
    result = run(modelcc, "build", *arguments, "--quiet", **options)
    check(result.returncode == 0, f"build {arguments}: {result.stderr}")


# --- the same bytes ------------------------------------------------------------------------------

def reproducible(modelcc, work):
    models = ["tiny-llama", "gguf/llama-q4_k.gguf", "gguf/gemma3-mixed.gguf"]
    targets = ["--target", "cpu:x86-64-v3,cpu:x86-64-v4"]
    for number, model in enumerate(models):
        name = os.path.basename(model)
        places = [os.path.join(work, f"one{number}"),
                  os.path.join(work, "two", f"a much longer name of a directory {number}")]
        for place in places:
            os.makedirs(place)
            source = os.path.join(GOLDEN, model)
            (shutil.copytree if os.path.isdir(source) else shutil.copy)(
                source, os.path.join(place, name))
        first, second = os.path.join(places[0], "a.so"), os.path.join(places[1], "other.so")
        checked_build(modelcc, os.path.join(places[0], name), "-o", first, "--jobs", "1", *targets)
        time.sleep(1.1)  # another second on the clock
        environment = dict(os.environ, TZ="Asia/Tokyo", LC_ALL="C", HOME="/", TMPDIR=places[1],
                           USER="someone")
        checked_build(modelcc, name, "-o", "other.so", "--jobs", "7", *targets, cwd=places[1],
                      env=environment, umask=0o077)
        same = sha256(first) == sha256(second)
        check(same, f"{model}: two builds differ")
        for place in places:
            text = open(os.path.join(place, "a.so" if place == places[0] else "other.so"),
                        "rb").read()
            check(work.encode() not in text, f"{model}: the artifact names a directory")
        if same:
            print(f"{model}: the same bytes", flush=True)


# --- failures ------------------------------------------------------------------------------------

class Place:
    """A directory with an old artifact that failures must leave alone."""

    def __init__(self, path, old=b"the old file"):
        self.path, self.old = path, old
        os.makedirs(path, exist_ok=True)
        self.output = os.path.join(path, "model.so")
        with open(self.output, "wb") as f:
            f.write(old)

    def check(self, what):
        with open(self.output, "rb") as f:
            check(f.read() == self.old, f"{what}: the old file has changed")
        left = sorted(os.listdir(self.path))
        check(left == ["model.so"], f"{what}: left behind: {left}")


def expect_error(result, what, text):
    check(result.returncode == 1, f"{what}: exit code {result.returncode}, expected 1")
    check(text in result.stderr, f"{what}: the message is {result.stderr!r}, without {text!r}")
    check("internal error" not in result.stderr, f"{what}: {result.stderr!r}")


def full_disk(modelcc, work, model):
    mount = os.path.join(work, "full")
    os.makedirs(mount)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", mount],
                          capture_output=True, text=True)
    if made.returncode:
        print(f"skipped: a full disk (cannot mount one: {made.stderr.strip()})", flush=True)
        return
    try:
        place = Place(mount)
        result = run(modelcc, "build", model, "-o", place.output, "--quiet")
        expect_error(result, "full disk", "No space left")
        place.check("full disk")
        result = run(modelcc, "build", model, "--emit", "llvm", "-o", os.path.join(mount, "x.ll"))
        expect_error(result, "a text on a full disk", "No space left")
        place.check("a text on a full disk")
        print("full disk: the old file stays", flush=True)
    finally:
        subprocess.run(["umount", mount], check=True)


def file_size_limit(modelcc, work, model):
    for limit in (0, 4096, 40000, 200000):
        place = Place(os.path.join(work, f"limit{limit}"))
        result = run(modelcc, "build", model, "-o", place.output, "--quiet", preexec_fn=lambda:
                     resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        expect_error(result, f"files of {limit} bytes at most", "File too large")
        place.check(f"files of {limit} bytes at most")
    print("limited file sizes: the old file stays", flush=True)


def interrupted(modelcc, work, model):
    place = Place(os.path.join(work, "interrupted"))
    copy = os.path.join(work, "whole.so")
    begin = time.monotonic()
    checked_build(modelcc, model, "-o", copy)
    whole = time.monotonic() - begin
    chance, counts = random.Random(SEED), {}
    for i in range(60 if FULL else 16):
        number = [signal.SIGINT, signal.SIGKILL, signal.SIGTERM][i % 3]
        what = f"{number.name} (case {i}, seed {SEED})"
        p = subprocess.Popen([modelcc, "build", model, "-o", place.output, "--quiet"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             start_new_session=True)
        time.sleep(chance.random() * whole)
        # As Ctrl-C does: to the linker too, where it runs.
        try:
            os.killpg(p.pid, number)
        except ProcessLookupError:
            pass
        _, messages = p.communicate(timeout=120)
        done = p.returncode == 0
        if done:  # it came too late: then the new file is whole
            check(sha256(place.output) == sha256(copy), f"{what}: a wrong file after success")
            place = Place(place.path)
        elif number != signal.SIGKILL:
            check("internal error" not in messages, f"{what}: {messages!r}")
            check(p.returncode in (1, 130, 143, -number), f"{what}: exit code {p.returncode}")
        place.check(what)
        counts[(number.name, done)] = counts.get((number.name, done), 0) + 1
    check(any(not done for _, done in counts), f"no build was interrupted: {counts}")
    print("signals:", ", ".join(f"{name} {'too late' if done else 'in time'} {n}x"
                                for (name, done), n in sorted(counts.items())), flush=True)


# --- more than 2 GB --------------------------------------------------------------------------------

HIDDEN, HEAD, VOCAB = 1024, 64, 1_100_000  # f16: 2.25 GB
LARGE_MEMORY = 1 << 30  # that a command may reserve beside the pages of mapped files


def write_sparse_gguf(path):
    """A llama of one layer of zeros whose last embedding is all ones: it repeats that token."""
    u32, f32, text = 4, 6, 8

    def string(s):
        return struct.pack("<Q", len(s)) + s.encode()

    metadata = [("general.architecture", text, "llama"), ("general.name", text, "sparse"),
                ("llama.block_count", u32, 1), ("llama.context_length", u32, 64),
                ("llama.embedding_length", u32, HIDDEN), ("llama.feed_forward_length", u32, 64),
                ("llama.attention.head_count", u32, HIDDEN // HEAD), ("llama.attention.head_count_kv", u32, 1),
                ("llama.attention.layer_norm_rms_epsilon", f32, 1e-5),
                ("llama.vocab_size", u32, VOCAB)]
    kinds = {"f32": (0, 4), "f16": (1, 2)}
    ones = struct.pack(f"<{HIDDEN}f", *[1.0] * HIDDEN)
    tensors = [("token_embd.weight", "f16", [HIDDEN, VOCAB], None),
               ("blk.0.attn_norm.weight", "f32", [HIDDEN], ones),
               ("blk.0.attn_q.weight", "f16", [HIDDEN, HIDDEN], None),
               ("blk.0.attn_k.weight", "f16", [HIDDEN, HEAD], None),
               ("blk.0.attn_v.weight", "f16", [HIDDEN, HEAD], None),
               ("blk.0.attn_output.weight", "f16", [HIDDEN, HIDDEN], None),
               ("blk.0.ffn_norm.weight", "f32", [HIDDEN], ones),
               ("blk.0.ffn_gate.weight", "f16", [HIDDEN, 64], None),
               ("blk.0.ffn_up.weight", "f16", [HIDDEN, 64], None),
               ("blk.0.ffn_down.weight", "f16", [64, HIDDEN], None),
               ("output_norm.weight", "f32", [HIDDEN], ones)]
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    for key, kind, value in metadata:
        head += string(key) + struct.pack("<I", kind)
        head += string(value) if kind == text else struct.pack("<I" if kind == u32 else "<f", value)
    offset, places = 0, []
    for name, kind, dims, data in tensors:
        size = kinds[kind][1]
        for d in dims:
            size *= d
        head += string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kinds[kind][0],
                                           offset)
        places.append((offset, size, data))
        offset += (size + 31) // 32 * 32
    start = (len(head) + 31) // 32 * 32
    with open(path, "wb") as f:
        f.write(head)
        f.truncate(start + offset)
        for at, size, data in places:
            if data:
                f.seek(start + at)
                f.write(data)
        f.seek(start + 2 * HIDDEN * (VOCAB - 1))
        f.write(struct.pack("<H", 0x3c00) * HIDDEN)


def large(modelcc, work):
    if not FULL:
        print("unsampled: an artifact of more than 2 GB (MCC_TEST_FULL=1 makes one)", flush=True)
        return
    if shutil.disk_usage(work).free < 4 << 30:
        print("skipped: an artifact of more than 2 GB (less than 4 GB of disk are free)", flush=True)
        return
    model, output = os.path.join(work, "sparse.gguf"), os.path.join(work, "large.so")
    write_sparse_gguf(model)
    taken = os.stat(model).st_blocks * 512
    if taken > 1 << 30:
        print(f"skipped in part: the file system keeps no sparse files, the model takes {taken} bytes",
              flush=True)
    limits = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_DATA,
                                                       (LARGE_MEMORY, LARGE_MEMORY))}
    begin = time.monotonic()
    checked_build(modelcc, model, "-o", output, **limits)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
    check(peak < LARGE_MEMORY, f"build held {peak >> 20} MB at once, mapped files included")
    check(os.path.getsize(output) > 2**31, "the artifact is smaller than 2 GB")
    result = run(modelcc, "inspect", output, "--check", **limits)
    check(result.returncode == 0, f"inspect --check: {result.stderr}")
    last = VOCAB - 1
    result = run(modelcc, "run", output, "--prompt-ids", f"{last}", "--max-tokens", "2", "--json",
                 **limits)
    check(result.returncode == 0, f"run: {result.stderr}")
    if result.returncode == 0:
        ids = json.loads(result.stdout)["token_ids"]
        check(ids == [last, last], f"the model repeats {last}, but says {ids}")
    print(f"large: {os.path.getsize(output) / 1e9:.1f} GB, built, checked and run in "
          f"{time.monotonic() - begin:.0f} s and {LARGE_MEMORY >> 20} MB of memory", flush=True)


def main():
    modelcc = os.path.abspath(sys.argv[1])
    print(f"seed {SEED} (MCC_TEST_SEED)", flush=True)
    with tempfile.TemporaryDirectory(prefix="modelcc-output-") as work:
        model = os.path.join(GOLDEN, "tiny-llama")
        reproducible(modelcc, work)
        full_disk(modelcc, work, model)
        file_size_limit(modelcc, work, model)
        interrupted(modelcc, work, model)
        large(modelcc, work)
    sys.exit(1 if failures else 0)


main()
