#!/usr/bin/env python3
"""Writes unicode_tables.c: what Python's str.upper, lower, title and repr know of Unicode.

Jinja templates are Python programs in disguise: `{{ name | upper }}` has Python's meaning. The
tables hold only characters beyond ASCII. Usage: make_unicode.py > unicode_tables.c
"""
import unicodedata


def chars():
    for code in range(0x80, 0x110000):
        if not 0xD800 <= code < 0xE000:
            yield code


def runs(mapping):
    """Merges single-character mappings into (first, last, stride, delta) runs."""
    out = []
    for code in sorted(mapping):
        if len(mapping[code]) != 1:
            continue
        delta = ord(mapping[code]) - code
        if out:
            first, last, stride, old = out[-1]
            gap = code - last
            if old == delta and gap <= 2 and (stride == gap or first == last):
                out[-1] = (first, code, gap, delta)
                continue
        out.append((code, code, 1, delta))
    return out


def emit_runs(name, mapping):
    rows = runs(mapping)
    print(f"const struct rt_tpl_case_run rt_tpl_{name}_runs[] = {{")
    for row in rows:
        print("    {0x%x, 0x%x, %d, %d}," % row)
    print("};")
    print(f"const size_t rt_tpl_{name}_runs_n = sizeof rt_tpl_{name}_runs / sizeof rt_tpl_{name}_runs[0];\n")


def emit_special(name, mapping):
    print(f"const struct rt_tpl_case_special rt_tpl_{name}_special[] = {{")
    for code in sorted(mapping):
        text = "".join("\\x%02x" % b for b in mapping[code].encode())
        print(f'    {{0x{code:x}, "{text}"}},')
    print("};")
    print(
        f"const size_t rt_tpl_{name}_special_n =\n"
        f"    sizeof rt_tpl_{name}_special / sizeof rt_tpl_{name}_special[0];\n"
    )


def main():
    lower = {c: chr(c).lower() for c in chars() if chr(c).lower() != chr(c)}
    upper = {c: chr(c).upper() for c in chars() if chr(c).upper() != chr(c)}
    title = {c: chr(c).title() for c in chars() if chr(c).title() != upper.get(c, chr(c))}
    print(f"/* Written by make_unicode.py from Unicode {unicodedata.unidata_version}; do not edit. */")
    print("/* clang-format off */")
    print('#include "tpl.h"\n')
    emit_runs("lower", lower)
    emit_runs("upper", upper)
    emit_special("lower", {c: s for c, s in lower.items() if len(s) > 1})
    emit_special("upper", {c: s for c, s in upper.items() if len(s) > 1})
    emit_special("title", title)
    ranges = []
    for code in range(0x80, 0x110000):
        if not chr(code).isprintable():
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    print("/* What repr() writes as an escape. */")
    print("const struct rt_tpl_range rt_tpl_unprintable[] = {")
    for first, last in ranges:
        print("    {0x%x, 0x%x}," % (first, last))
    print("};")
    print("const size_t rt_tpl_unprintable_n = sizeof rt_tpl_unprintable / sizeof rt_tpl_unprintable[0];")


if __name__ == "__main__":
    main()
