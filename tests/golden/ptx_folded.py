#!/usr/bin/env python3
"""Writes tests/unit/fixture/ptx_folded.h: what NVIDIA's assembler makes of PTX instructions whose
operands are constants. One kernel a case; the cases that ptxas folded, i.e. whose stored register
holds an immediate, are kept.

    ptx_folded.py --ptxas PTXAS --nvdisasm NVDISASM > tests/unit/fixture/ptx_folded.h
"""
import argparse
import re
import struct
import subprocess
import tempfile

ROUND = {"rn": "EMU_RN", "rz": "EMU_RZ", "rm": "EMU_RM", "rp": "EMU_RP", "rna": "EMU_RNA"}


def bits(x):
    return struct.unpack("<I", struct.pack("<f", x))[0]


def cases():
    """(PTX instruction, kind, fields, a, b); the instruction reads fa, fb or a and writes d or fd."""
    floats = [0.0, 0.3, -0.3, 0.5, -0.5, 1.0, 1.5, 2.5, -2.5, 3.5, 100.25, -127.5, 255.5, 65503.0,
              65519.0, 65520.0, 1e-7, -6.1e-5, 3e-8, 16777217.0, 2147483520.0, -2147483648.0, 3e9,
              5e9, 1e30, -1e30, 1.00048828125, 1.0009765625, 1.00390625, 1.01171875]
    patterns = [bits(x) for x in floats] + [0x7F800000, 0xFF800000, 0x7FC00001, 0x00000005,
                                            0x3F801000, 0x3F803000, 0x3F808000, 0x3F818000]
    for mode in ("rn", "rz", "rm", "rp"):
        for to in ("s8", "u8", "s16", "u16", "s32", "u32"):
            for a in patterns:
                if to[1:] in ("8", "16"):
                    text = f"cvt.{mode}i.{to}.f32 w, fa; cvt.{to[0]}32.{to} d, w;"
                else:
                    text = f"cvt.{mode}i.{to}.f32 d, fa;"
                yield text, "FOLDED_CVT", ("F32", to.upper(), mode, False, False), a, 0
        for a in patterns:
            yield (f"cvt.{mode}i.f32.f32 fd, fa;", "FOLDED_CVT", ("F32", "F32", mode, True, False),
                   a, 0)
        for a in (0, 1, 16777217, 16777219, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x81234567):
            for kind in ("s32", "u32"):
                yield (f"cvt.{mode}.f32.{kind} fd, a;", "FOLDED_CVT",
                       (kind.upper(), "F32", mode, False, False), a, 0)
    for mode in ("rn", "rz"):
        for to in ("f16", "bf16"):
            for a in patterns:
                yield (f"cvt.{mode}.{to}.f32 w, fa; cvt.u32.u16 d, w;", "FOLDED_CVT",
                       ("F32", to.upper(), mode, False, False), a, 0)
    for a in patterns:
        yield "cvt.rna.tf32.f32 d, fa;", "FOLDED_CVT", ("F32", "TF32", "rna", False, False), a, 0
    for a in (0, 0x8000, 1, 0x3FF, 0x400, 0x3C01, 0x7BFF, 0x7C00, 0xFC00, 0x7E01, 0x83FF):
        yield ("cvt.u16.u32 w, a; cvt.f32.f16 fd, w;", "FOLDED_CVT",
               ("F16", "F32", "rn", False, False), a, 0)
    for fn in ("ex2", "lg2", "rcp", "rsqrt", "sqrt", "sin", "cos", "tanh"):
        for a in patterns + [bits(x) for x in (0.1, 0.7, 3.1, -3.3, 10.0, -149.5, -126.5, 127.9)]:
            yield f"{fn}.approx.f32 fd, fa;", "FOLDED_APPROX", (fn.upper(),), a, 0
    pairs = [(a, b) for a in patterns[::3] for b in patterns[1::4]] + [(0, 0x80000000)]
    for name, kind in (("add.rn", "ADD"), ("mul.rn", "MUL"), ("min", "MIN"), ("max", "MAX")):
        for a, b in pairs:
            yield f"{name}.f32 fd, fa, fb;", f"FOLDED_{kind}", (), a, b


def assemble(ptxas, nvdisasm, rows):
    text = [".version 7.8", ".target sm_86", ".address_size 64"]
    for i, (ptx, _, _, a, b) in enumerate(rows):
        is_float = " fd," in ptx
        text.append(f".visible .entry k{i}(.param .u64 p) {{ .reg .u64 q, g; .reg .b32 a, b, d; "
                    f".reg .b16 w; .reg .f32 fa, fb, fd; ld.param.u64 q, [p]; "
                    f"cvta.to.global.u64 g, q; mov.b32 a, 0x{a:x}; mov.b32 b, 0x{b:x}; "
                    f"mov.b32 fa, a; mov.b32 fb, b; {ptx} "
                    f"{'mov.b32 d, fd; ' if is_float else ''}st.global.u32 [g], d; ret; }}")
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + "/k.ptx", "w") as f:
            f.write("\n".join(text))
        subprocess.check_call([ptxas, "-arch=sm_86", "-O3", folder + "/k.ptx", "-o",
                               folder + "/k.cubin"])
        return subprocess.check_output([nvdisasm, "-c", folder + "/k.cubin"], text=True)


def results(listing):
    """Kernel number -> the immediate that it stores."""
    found = {}
    for body in re.split(r"\n\.text\.k", listing)[1:]:
        number = int(re.match(r"(\d+)", body).group(1))
        store = re.search(r"STG\.E [^,]*, (R\d+|RZ)", body)
        if not store:
            continue
        if store.group(1) == "RZ":
            found[number] = 0
            continue
        writes = re.findall(r"^.*\*/\s+(?:@\S+ )?(\S+) " + store.group(1) + r"(?:\.\S+)?, (.*?) ;",
                            body[:store.start()], re.M)
        if not writes:
            continue
        op, operands = writes[-1]
        immediate = re.fullmatch(r"(?:RZ, RZ, )?(-?)(0x[0-9a-f]+)", operands)
        if op in ("MOV", "IMAD.MOV.U32") and immediate:
            value = int(immediate.group(2), 16)
            found[number] = (-value if immediate.group(1) else value) & 0xFFFFFFFF
        elif op in ("MOV", "CS2R", "IMAD.MOV.U32") and operands in ("RZ", "RZ, RZ, RZ"):
            found[number] = 0
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ptxas", required=True)
    parser.add_argument("--nvdisasm", required=True)
    options = parser.parse_args()
    rows = list(cases())
    found = results(assemble(options.ptxas, options.nvdisasm, rows))
    version = subprocess.check_output([options.ptxas, "--version"], text=True).split()[-1]
    print("/* PTX instructions on constants and what NVIDIA's assembler folded them to. Written by\n"
          f" * tests/golden/ptx_folded.py with ptxas {version}. */\n"
          "#ifndef MCC_TESTS_PTX_FOLDED_H\n#define MCC_TESTS_PTX_FOLDED_H\n\n"
          '#include "runtime/emulator/lanes_float.h"\n\n'
          "enum { FOLDED_CVT, FOLDED_APPROX, FOLDED_ADD, FOLDED_MUL, FOLDED_MIN, FOLDED_MAX };\n\n"
          "typedef struct folded_operation {\n    const char *text;\n"
          "    uint8_t kind, from, to, round;\n    bool integral, satfinite;\n    uint8_t fn;\n"
          "    const uint32_t (*cases)[3]; /* a, b, result */\n    int n;\n"
          "} folded_operation;\n\n// clang-format off")
    groups = {}
    for i, (ptx, kind, fields, a, b) in enumerate(rows):
        if i in found:
            groups.setdefault((ptx, kind, fields), []).append((a, b, found[i]))
    for n, values in enumerate(groups.values()):
        print(f"static const uint32_t folded_{n}[][3] = {{")
        for at in range(0, len(values), 3):
            print("    " + " ".join("{" + ", ".join(f"0x{x:x}" for x in v) + "},"
                                    for v in values[at:at + 3]))
        print("};")
    print("static const folded_operation folded_operations[] = {")
    for n, (ptx, kind, fields) in enumerate(groups):
        start, stop, mode, integral, satfinite, fn = "F32", "F32", "rn", False, False, "EX2"
        if kind == "FOLDED_CVT":
            start, stop, mode, integral, satfinite = fields
        elif kind == "FOLDED_APPROX":
            (fn,) = fields
        print(f'    {{"{ptx}", {kind}, EMU_NUMBER_{start}, EMU_NUMBER_{stop}, {ROUND[mode]}, '
              f"{str(integral).lower()}, {str(satfinite).lower()}, EMU_{fn}, folded_{n}, "
              f"{len(groups[ptx, kind, fields])}}},")
    print("};\n// clang-format on\n\n#endif")


if __name__ == "__main__":
    main()
