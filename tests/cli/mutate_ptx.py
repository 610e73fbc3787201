#!/usr/bin/env python3
"""Changes the PTX inside an artifact, hashes included, so that only running it can tell.

    mutate_ptx.py IN OUT KERNEL FROM TO

In every PTX text that has an entry whose name begins with KERNEL, each FROM becomes TO, which must be as long. Fails when
there is none.
"""

import hashlib
import struct
import sys

SECTION = struct.Struct("<IIQQ32s")
CUDA = 10


def main():
    source, target, kernel, old, new = sys.argv[1:]
    assert len(old) == len(new), "the texts must be of one length"
    data = bytearray(open(source, "rb").read())
    footer = len(data) - 4096
    count = struct.unpack_from("<I", data, footer + 12)[0]
    changed = 0
    for i in range(count):
        at = footer + 24 + i * SECTION.size
        kind, reserved, offset, size, _ = SECTION.unpack_from(data, at)
        if kind != CUDA:
            continue
        section = bytes(data[offset:offset + size])
        texts = section.split(b"\0")
        for k, text in enumerate(texts):
            if f".entry {kernel}".encode() in text:
                changed += text.count(old.encode())
                texts[k] = text.replace(old.encode(), new.encode())
        data[offset:offset + size] = b"\0".join(texts)
        SECTION.pack_into(data, at, kind, reserved, offset, size, hashlib.sha256(data[offset:offset + size]).digest())
    end = footer + 24 + 16 * SECTION.size
    data[end:end + 32] = hashlib.sha256(data[footer:end]).digest()
    open(target, "wb").write(data)
    if not changed:
        sys.exit(f"no {old!r} in the PTX of {kernel}")


main()
