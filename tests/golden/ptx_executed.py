#!/usr/bin/env python3
"""Writes tests/unit/fixture/ptx_executed.h: more of what NVIDIA's assembler folds, of whole
instructions that the emulator executes. An instruction reads words a, b, c and writes the word d;
q and r are 64-bit registers that hold {a, b} and {c, a}; fa, fb, fc are a, b, c as floats.

    ptx_executed.py --ptxas PTXAS --nvdisasm NVDISASM > tests/unit/fixture/ptx_executed.h
"""
import argparse
import itertools
import random
import subprocess
import tempfile

from ptx_folded import bits, results

REGISTERS = (".reg .b32 a, b, c, d, e; .reg .b64 q, r, s; .reg .f32 fa, fb, fc, fd; .reg .pred p, o; "
             ".reg .b16 h, i, j, k;")
OPERANDS = ("mov.b64 q, {a, b}; mov.b64 r, {c, a}; mov.b32 fa, a; mov.b32 fb, b; mov.b32 fc, c;")


def wide(text):
    """A 64-bit result in s, its halves mixed into d."""
    return text + " mov.b64 {d, e}, s; mad.lo.u32 d, e, 3, d;"


def half(text):
    """16-bit operands h, i, j of a, b, c, result k."""
    return ("cvt.u16.u32 h, a; cvt.u16.u32 i, b; cvt.u16.u32 j, c; " + text + " cvt.u32.u16 d, k;")


def choose(text):
    return text + " selp.u32 d, 1, 0, p;"


def integer():
    for op in ("add.s32", "sub.s32", "add.sat.s32", "sub.sat.s32", "mul.lo.s32", "mul.hi.s32",
               "mul.hi.u32", "mul24.lo.s32", "div.s32", "div.u32", "rem.s32",
               "rem.u32", "min.s32", "max.s32", "min.u32", "max.u32", "and.b32", "or.b32", "xor.b32",
               "shl.b32", "shr.u32", "shr.s32"):
        yield f"{op} d, a, b;"
    for op in ("not.b32", "cnot.b32", "neg.s32", "abs.s32", "popc.b32", "clz.b32", "brev.b32",
               "bfind.u32", "bfind.s32", "bfind.shiftamt.u32", "bfind.shiftamt.s32", "cvt.s32.s8",
               "cvt.u32.u8", "cvt.s32.s16", "cvt.sat.s8.s32 h, a; cvt.s32.s8 d, h;",
               "cvt.sat.u8.s32 h, a; cvt.u32.u8 d, h;", "cvt.sat.u16.u32 h, a; cvt.u32.u16 d, h;",
               "cvt.sat.s16.s32 h, a; cvt.s32.s16 d, h;"):
        yield op if ";" in op else f"{op} d, a;"
    for op in ("mad.lo.s32", "mad.hi.s32", "mad.hi.u32", "mad.hi.sat.s32", "sad.s32",
               "sad.u32", "shf.l.wrap.b32", "shf.l.clamp.b32", "shf.r.wrap.b32", "shf.r.clamp.b32",
               "bfe.u32", "bfe.s32", "prmt.b32", "prmt.b32.f4e", "prmt.b32.b4e", "prmt.b32.rc8",
               "prmt.b32.ecl", "prmt.b32.ecr", "prmt.b32.rc16", "dp4a.s32.s32", "dp4a.u32.u32",
               "dp4a.s32.u32", "dp4a.u32.s32", "dp2a.lo.s32.s32", "dp2a.hi.u32.s32",
               "slct.u32.s32"):
        yield f"{op} d, a, b, c;"
    for pos, length in ((0, 8), (5, 3), (28, 12), (31, 1), (0, 32), (40, 4), (3, 0)):
        yield f"bfi.b32 d, a, b, {pos}, {length};"
        yield f"bfe.s32 d, a, {pos}, {length};"
    for table in (0x80, 0xFE, 0x96, 0xCA, 0xE8, 0x1B, 0x00, 0x57):
        yield f"lop3.b32 d, a, b, c, 0x{table:x};"
    for op in ("eq", "ne", "lt", "le", "gt", "ge"):
        yield choose(f"setp.{op}.s32 p, a, b;")
    for op in ("lo", "ls", "hi", "hs"):
        yield choose(f"setp.{op}.u32 p, a, b;")
    yield choose("setp.gt.s32 o, c, 0; setp.lt.and.s32 p, a, b, o;")
    yield choose("setp.gt.s32 o, c, 0; setp.lt.xor.s32 p|o, a, b, o;")
    yield "set.lt.u32.s32 d, a, b;"
    yield "add.cc.u32 e, a, b; addc.u32 d, c, 5;"
    yield "sub.cc.u32 e, a, b; subc.u32 d, c, 5;"
    yield "mad.lo.cc.u32 e, a, b, c; madc.hi.u32 d, a, b, c;"


def integer64():
    for op in ("add.s64 s, q, r;", "mul.lo.s64 s, q, r;", "mul.hi.u64 s, q, r;",
               "mul.hi.s64 s, q, r;", "div.u64 s, q, r;", "rem.s64 s, q, r;", "min.s64 s, q, r;",
               "max.u64 s, q, r;", "shl.b64 s, q, c;", "shr.u64 s, q, c;", "shr.s64 s, q, c;",
               "mul.wide.s32 s, a, b;", "mul.wide.u32 s, a, b;", "mad.wide.s32 s, a, b, r;",
               "mad.wide.u32 s, a, b, r;", "not.b64 s, q;", "neg.s64 s, q;", "abs.s64 s, q;",
               "brev.b64 s, q;", "bfe.u64 s, q, 5, 40;", "bfe.s64 s, q, 13, 33;",
               "bfi.b64 s, q, r, 9, 30;", "cvt.s64.s32 s, a;", "cvt.u64.u32 s, a;"):
        yield wide(op)
    for op in ("popc.b64 d, q;", "clz.b64 d, q;", "bfind.u64 d, q;", "bfind.s64 d, q;"):
        yield op
    yield choose("setp.lt.s64 p, q, r;")
    yield choose("setp.hi.u64 p, q, r;")


def integer16():
    for op in ("add.s16", "mul.lo.s16", "mul.hi.s16", "mul.hi.u16", "min.s16", "max.u16", "and.b16",
               "div.u16", "rem.s16"):
        yield half(f"{op} k, h, i;")
    for op in ("shl.b16", "shr.u16", "shr.s16"):
        yield half(f"{op} k, h, c;")
    yield half("mad.lo.u16 k, h, i, j;")
    yield "cvt.u16.u32 h, a; cvt.u16.u32 i, b; mul.wide.s16 d, h, i;"
    yield "cvt.u16.u32 h, a; cvt.u16.u32 i, b; mad.wide.u16 d, h, i, c;"


def floats():
    for mode in ("rn", "rz", "rm", "rp"):
        for op in (f"fma.{mode}.f32 fd, fa, fb, fc;", f"sub.{mode}.f32 fd, fa, fb;",
                   f"div.{mode}.f32 fd, fa, fb;", f"sqrt.{mode}.f32 fd, fa;",
                   f"rcp.{mode}.f32 fd, fa;", f"add.{mode}.ftz.f32 fd, fa, fb;",
                   f"mul.{mode}.sat.f32 fd, fa, fb;"):
            yield op + " mov.b32 d, fd;"
    for op in ("neg.f32 fd, fa;", "abs.f32 fd, fa;", "copysign.f32 fd, fa, fb;",
               "min.ftz.f32 fd, fa, fb;", "max.NaN.f32 fd, fa, fb;",
               "max.xorsign.abs.f32 fd, fa, fb;"):
        yield op + " mov.b32 d, fd;"
    for op in ("eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num",
               "nan"):
        yield choose(f"setp.{op}.f32 p, fa, fb;")
    for op in ("finite", "infinite", "number", "notanumber", "normal", "subnormal"):
        yield choose(f"testp.{op}.f32 p, fa;")


def halves():
    for kind in ("f16", "bf16"):
        yield half(f"fma.rn.{kind} k, h, i, j;")
        yield half(f"neg.{kind} k, h;")
        yield f"fma.rn.{kind}x2 d, a, b, c;"
        yield f"cvt.rn.{kind}x2.f32 d, fa, fb;"
        yield f"cvt.rz.{kind}x2.f32 d, fa, fb;"
        yield f"max.{kind}x2 d, a, b;"
    for op in ("add.f16", "mul.f16", "sub.f16", "min.f16", "max.f16"):
        yield half(f"{op} k, h, i;")
        yield f"{op}x2 d, a, b;"


def cases():
    rng = random.Random(20)
    words = [0, 1, 2, 5, 31, 32, 33, 63, 64, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFF,
             0xFFFFFF80, 0x12345678, 0xDEADBEEF, 0x00FF00FF, 0x76543210]
    integers = [tuple(rng.choice(words) for _ in range(3)) for _ in range(10)]
    integers += [tuple(rng.getrandbits(32) for _ in range(3)) for _ in range(6)]
    integers += [(rng.getrandbits(32), rng.getrandbits(32), x) for x in (3, 17, 32, 40, 64, 0x7531)]
    for text in itertools.chain(integer(), integer64(), integer16()):
        for a, b, c in integers:
            divides = "div" in text or "rem" in text
            if divides and (b & 0xFFFF == 0 or c == 0):
                continue
            yield text, (a, b, c)
    values = [0.0, -0.0, 1.0, -1.5, 3.0, 1 / 3, 1e-30, 1e30, 3e-39, -1e-45, 123456.789, 16777217.0,
              -7.0, 0.1, 2.0**-126]
    numbers = [tuple(bits(rng.choice(values)) for _ in range(3)) for _ in range(24)]
    odd = [(0x7F800000, bits(1.0), 0), (0x7FC00000, bits(1.0), 0), (bits(-2.0), 0xFF800000, 0),
           (bits(2.0), 0x7FC00000, 0), (0x7FC00000, 0x7FC00000, 0), (0x7F800000, 0x7F800000, 0)]
    for text in floats():
        for a, b, c in numbers + (odd if "setp" in text or "testp" in text else []):
            yield text, (a, b, c)
    small = [0x0000, 0x3C00, 0xBC00, 0x3555, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0x4248, 0xC900, 0x5640]
    pairs = [tuple(rng.choice(small) << 16 | rng.choice(small) for _ in range(3)) for _ in range(16)]
    for text in halves():
        for a, b, c in numbers[:12] if ".f32" in text else pairs:
            yield text, (a, b, c)


def assemble(ptxas, nvdisasm, rows):
    text = [".version 7.8", ".target sm_86", ".address_size 64"]
    for n, (ptx, (a, b, c)) in enumerate(rows):
        text.append(f".visible .entry k{n}(.param .u64 out) {{ {REGISTERS} .reg .b64 g; "
                    f"ld.param.u64 g, [out]; cvta.to.global.u64 g, g; mov.b32 a, 0x{a:x}; "
                    f"mov.b32 b, 0x{b:x}; mov.b32 c, 0x{c:x}; {OPERANDS} {ptx} "
                    f"st.global.u32 [g], d; ret; }}")
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + "/k.ptx", "w") as f:
            f.write("\n".join(text))
        subprocess.check_call([ptxas, "-arch=sm_86", "-O3", folder + "/k.ptx", "-o",
                               folder + "/k.cubin"])
        return subprocess.check_output([nvdisasm, "-c", folder + "/k.cubin"], text=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ptxas", required=True)
    parser.add_argument("--nvdisasm", required=True)
    options = parser.parse_args()
    rows = list(cases())
    found = results(assemble(options.ptxas, options.nvdisasm, rows))
    version = subprocess.check_output([options.ptxas, "--version"], text=True).split()[-1]
    groups = {}
    for n, (ptx, words) in enumerate(rows):
        if n in found:
            groups.setdefault(ptx, {})[words] = found[n]
    print("/* PTX instructions on constants and what NVIDIA's assembler folded them to. Written by\n"
          f" * tests/golden/ptx_executed.py with ptxas {version}. */\n"
          "#ifndef MCC_TESTS_PTX_EXECUTED_H\n#define MCC_TESTS_PTX_EXECUTED_H\n\n"
          "#include <stdint.h>\n\n"
          f'#define EXECUTED_REGISTERS \\\n    "{REGISTERS}"\n'
          f'#define EXECUTED_OPERANDS \\\n    "{OPERANDS}"\n\n'
          "typedef struct executed_operation {\n    const char *text;\n"
          "    const uint32_t (*cases)[4]; /* a, b, c, d */\n    int n;\n"
          "} executed_operation;\n\n// clang-format off")
    for n, values in enumerate(groups.values()):
        print(f"static const uint32_t executed_{n}[][4] = {{")
        items = [words + (d,) for words, d in values.items()]
        for at in range(0, len(items), 2):
            print("    " + " ".join("{" + ", ".join(f"0x{x:x}" for x in v) + "},"
                                    for v in items[at:at + 2]))
        print("};")
    print("static const executed_operation executed_operations[] = {")
    for n, (ptx, values) in enumerate(groups.items()):
        print(f'    {{"{ptx}", executed_{n}, {len(values)}}},')
    print("};\n// clang-format on\n\n#endif")


if __name__ == "__main__":
    main()
