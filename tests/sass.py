#!/usr/bin/env python3
"""Looks into the machine code of GPU kernels: tensor cores, asynchronous copies, 128-bit loads, and nothing spilled.

    python3 tests/sass.py MODELCC

Builds models without a GPU and disassembles each function with nvdisasm. By default a sample, by MCC_TEST_SEED: one
small model for one architecture; with MCC_TEST_FULL=1 all small models for all architectures, in parts by
MCC_TEST_SHARD, and those of MCC_TEST_MODELS. Exit status 77 where NVRTC or nvdisasm is missing.
"""

import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile

GOLDEN = pathlib.Path(__file__).resolve().parent / "golden"

# What the functions of each kernels/*.cuh have, as patterns of instructions: a tensor-core operation or the like, and
# what feeds it. Where a loop has the first, some loop has all of them: the main loop; but for matmuls of so few inputs
# that all of them are one stage, whose loop is none.
WIDE_COPY, WIDE_LOAD = r"LDGSTS\..*128", r"LDG\..*128"
WANTED = {
    "matmul_a8_decode.cuh": ["IMMA", WIDE_LOAD],  # weights go from memory to registers; operands of x are words
    "matmul_a8_prefill.cuh": ["IMMA", "LDSM", WIDE_COPY],
    "matmul_a8_decode.cuh of fp8": ["HMMA", WIDE_LOAD],
    "matmul_a8_prefill.cuh of fp8": ["HMMA", r"LDS\..*64", WIDE_COPY],
    "matmul_a8_decode.cuh of fp8 by fp8": ["QMMA|HMMA", WIDE_LOAD],
    "matmul_a8_prefill.cuh of fp8 by fp8": ["QMMA|HMMA", "LDSM", WIDE_COPY],
    "matmul_half_decode.cuh": ["HMMA", "LDSM", WIDE_COPY],
    "matmul_half_prefill.cuh": ["HMMA", "LDSM", WIDE_COPY],
    "matmul_f32.cuh": ["FFMA", WIDE_COPY],
    "attention_f16.cuh": ["HMMA", "LDSM", WIDE_COPY],
    "attention_f16.cuh of codes": ["HMMA", "LDSM", r"LDG\..*64"],  # eight codes at once, decoded on the way
    "attention_f32.cuh": ["FFMA"],  # pages in the order that lanes want them
    "rows.cuh": [],  # a lane a column
    "matmul_prologue.cuh": [],
    "sample.cuh": [],
}
LOCAL = r"LDL|STL"
ONE_STAGE = 512

CASES = [(f"gguf/llama-{kind}.gguf", options)
         for kind in ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_k", "q5_k", "q6_k") for options in ([],)]
CASES += [("gguf/llama-q4_1.gguf", ["--activations", "f32"]), ("gguf/gemma3-mixed.gguf", []),
          ("gguf/llama-q6_k.gguf", ["--kv-cache-dtype", "f32"]), ("gguf/llama-f32.gguf", [])]
PAGES = [(model, ["--kv-cache-dtype", kind]) for model in ("gguf/llama-q4_1.gguf", "gguf/gemma3-mixed.gguf")
         for kind in ("int8", "fp8_e4m3")]
HALF = [("gguf/llama-f16.gguf", ["--activations", "f16"]), ("gguf/llama-bf16.gguf", ["--activations", "bf16"]),
        ("gguf/qwen3-f16.gguf", ["--activations", "f16"]), ("tiny-qwen2", ["--quantize", "f16", "--activations", "f16"]),
        ("tiny-gemma3-softcap", ["--quantize", "bf16", "--activations", "bf16"]), ("tiny-qwen3-fp8", ["--activations", "bf16"]),
        ("tiny-llama", ["--quantize", "fp8", "--activations", "f16"]),
        ("tiny-llama", ["--quantize", "fp8", "--activations", "fp8"])]
# Tensor cores that multiply e4m3 by mma; on others it is f16 that they multiply.
WITH_QMMA = ("sm_89", "sm_120")


def instructions(text):
    """[(label or instruction with its modifiers, jump's label or None)] of a disassembly."""
    found = []
    for line in text.splitlines():
        label = re.match(r"(\.L_x_\d+):", line)
        code = re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]+)(.*)", line)
        if label:
            found.append((label[1], None))
        elif code:
            target = re.search(r"\((\.L_x_\d+)\)", code[2]) if code[1].startswith("BRA") else None
            found.append((code[1], target[1] if target else None))
    return found


def loops(code):
    """The instructions of each loop: from a label to a jump back to it."""
    at = {name: i for i, (name, _) in enumerate(code) if name.startswith(".L")}
    return [[name for name, _ in code[at[target]:i]] for i, (_, target) in enumerate(code)
            if target in at and at[target] < i]


def has(names, pattern):
    return any(re.match(pattern, name) for name in names)


def problems(header, text, inputs=None):
    """What is wrong with the machine code of a function, a matmul of so many inputs, as texts."""
    code = instructions(text)
    names = [name for name, _ in code]
    if len(names) < 8:
        return ["nothing was disassembled"]
    wrong = ["it has local memory"] if has(names, LOCAL) else []
    wanted = WANTED[header]
    wrong += [f"no {pattern}" for pattern in wanted if not has(names, pattern)]
    with_first = [body for body in loops(code) if wanted and has(body, wanted[0])]
    told = inputs is None or inputs > ONE_STAGE
    if told and not wrong and with_first and not any(all(has(body, p) for p in wanted) for body in with_first):
        wrong.append(f"no loop has all of {', '.join(wanted)}")
    return wrong


def run(command, **more):
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True, **more).stdout


def check(modelcc, model, options, archs, scratch):
    """How many functions were looked at, and how many are wrong."""
    base = [modelcc, "build", model, *options, "--target", ",".join("cuda:" + a for a in archs)]
    facts = json.loads(run([*base, "--dry-run", "--json"]))
    failed = 0
    if facts["cuda_spill_bytes"]:
        print(f"FAIL: {model} {' '.join(options)}: ptxas spills {facts['cuda_spill_bytes']} bytes")
        failed += 1
    for kind in ("cuda", "sass"):
        shutil.rmtree(scratch / kind, ignore_errors=True)
        run([*base, "--emit", kind, "-q", "-o", f"{scratch / kind}/"])
    files = sorted((scratch / "sass").iterdir())
    for file in files:
        function = file.name.rsplit(".", 2)[0]
        sources = [p.read_text() for p in (scratch / "cuda").glob(function + ".cu")]
        header = [h for h in re.findall(r'#include "(\w+\.cuh)"', sources[0]) if h in WANTED]
        if header[0] == "attention_f16.cuh" and "QUANTIZED = true" in sources[0]:
            header = ["attention_f16.cuh of codes"]
        if header[0].startswith("matmul_a8_") and "#define HALF_X" in sources[0]:
            header = [header[0] + " of fp8"]
        elif header[0].startswith("matmul_a8_") and "#define FP8_WEIGHTS" in sources[0]:
            header = [header[0] + " of fp8 by fp8"]
            if ("QMMA" in file.read_text()) != (file.name.rsplit(".", 2)[1] in WITH_QMMA):
                print(f"FAIL: {model} {' '.join(options)}: {file.name}: QMMA or none")
                failed += 1
        inputs = re.search(r"int64 n = \d+, k = (\d+);", sources[0])
        for problem in problems(header[0], file.read_text(), int(inputs[1]) if inputs else None):
            print(f"FAIL: {model} {' '.join(options)}: {file.name}: {problem}")
            failed += 1
    return len(files), failed


def tools_missing(modelcc):
    doctor = json.loads(subprocess.run([modelcc, "doctor", "--json"], capture_output=True, text=True).stdout)
    if {c["name"]: c["verdict"] for c in doctor["checks"]}["NVRTC"] != "fine":
        return "NVRTC"
    where = os.environ["PATH"] + ":" + os.environ.get("CUDA_HOME", "/nowhere") + "/bin:/usr/local/cuda/bin"
    return None if shutil.which("nvdisasm", path=where) else "nvdisasm (PyPI's nvidia-cuda-nvdisasm)"


def selftest():
    """The checks notice what they are for."""
    line = "        /*0010*/                   {} ;\n"
    body = "".join(line.format(x) for x in ["IMMA.16832.S8.S8 R1, R2", "LDSM.16.M88.4 R1, [R2]"])
    copy, back = line.format("LDGSTS.E.BYPASS.128 [R1], [R2.64]"), line.format("@P0 BRA `(.L_x_1)")
    rest = line.format("NOP") * 8
    good = ".L_x_1:\n" + body + copy + back + rest
    assert problems("matmul_a8_prefill.cuh", good) == []
    assert problems("matmul_a8_prefill.cuh", copy + ".L_x_1:\n" + body + back + rest) == [
        r"no loop has all of IMMA, LDSM, LDGSTS\..*128"]
    assert problems("matmul_a8_prefill.cuh", copy + ".L_x_1:\n" + body + back + rest, 64) == []
    assert problems("matmul_a8_prefill.cuh", good.replace("LDSM.16", "LDS.16")) == ["no LDSM"]
    assert problems("matmul_a8_prefill.cuh", good.replace("BYPASS.128", "64")) == [r"no LDGSTS\..*128"]
    assert problems("matmul_a8_prefill.cuh", good + line.format("@!P1 STL [R1], R2")) == ["it has local memory"]
    assert problems("rows.cuh", "") == ["nothing was disassembled"]


def main():
    selftest()
    modelcc = pathlib.Path(sys.argv[1]).resolve()
    missing = tools_missing(modelcc)
    if missing:
        print(f"skipped: {missing} is not here")
        return 77
    targets = json.loads(run([modelcc, "targets", "--json"]))["cuda_targets"]
    archs = [t.removeprefix("cuda:") for t in targets]
    full = os.environ.get("MCC_TEST_FULL") == "1"
    part, parts = map(int, (os.environ.get("MCC_TEST_SHARD") or "0/1").split("/"))
    rng = random.Random(int(os.environ.get("MCC_TEST_SEED") or 1))
    if full:
        cases = [(GOLDEN / m, o, archs) for m, o in CASES + HALF + PAGES]
        models = os.environ.get("MCC_TEST_MODELS")
        cases += [(m, [], archs) for m in sorted(pathlib.Path(models).glob("*.gguf"))] if models else []
        cases = cases[part::parts]
    else:
        cases = [(GOLDEN / m, o, [rng.choice(archs)]) for m, o in (rng.choice(rng.choice((CASES, HALF, PAGES))),)]
    looked = failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = scratch
        for model, options, some in cases:
            n, wrong = check(modelcc, model, options, some, pathlib.Path(scratch))
            looked, failed = looked + n, failed + wrong
    print(f"machine code: {looked} functions of {len(cases)} models, {failed} wrong")
    return 1 if failed or not looked else 0


if __name__ == "__main__":
    sys.exit(main())
