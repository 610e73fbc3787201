#!/usr/bin/env python3
"""Damages models in every way a hostile file can be wrong.

    damage.py KIND SOURCE FOLDER SEED COUNT

KIND: gguf, safetensors (SOURCE: a file), json (any JSON file), artifact. Writes COUNT files, or all that there are when
they are fewer, into FOLDER and prints a line for each: NAME <tab> what has been done <tab> "refuse" or "survive". Files
to refuse are wrong whatever a reader does with them; files to survive may mean something (a flipped bit of a weight is
another weight).
"""

import json
import random
import struct
import sys

WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # GGUF's types of fixed size
LIES = (0, 1, 2, 7, 0x7fffffff, 0x80000000, 0xffffffff, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)


def gguf_numbers(raw):
    """Places of the numbers that say how much there is of something: (offset, bytes, name); the header's end."""
    found = [(4, 4, "version"), (8, 8, "tensor count"), (16, 8, "metadata count")]
    tensors, entries = struct.unpack_from("<QQ", raw, 8)
    at = 24

    def string(what):
        nonlocal at
        found.append((at, 8, f"length of {what}"))
        size, = struct.unpack_from("<Q", raw, at)
        at += 8 + size
        return raw[at - size:at].decode("utf-8", "replace")

    def value(kind, key):
        nonlocal at
        if kind == 8:
            string(key)
        elif kind == 9:
            found.append((at, 4, f"element type of {key}"))
            found.append((at + 4, 8, f"elements of {key}"))
            inner, count = struct.unpack_from("<IQ", raw, at)
            at += 12
            for _ in range(count):
                value(inner, key)
        else:
            if WIDTHS[kind] >= 4:
                found.append((at, WIDTHS[kind], key))
            at += WIDTHS[kind]

    for _ in range(entries):
        key = string("a key")
        found.append((at, 4, f"type of {key}"))
        kind, = struct.unpack_from("<I", raw, at)
        at += 4
        value(kind, key)
    for _ in range(tensors):
        name = string("a tensor's name")
        found.append((at, 4, f"rank of {name}"))
        rank, = struct.unpack_from("<I", raw, at)
        at += 4
        for axis in range(rank):
            found.append((at, 8, f"dimension {axis} of {name}"))
            at += 8
        found.append((at, 4, f"type of {name}"))
        found.append((at + 4, 8, f"offset of {name}"))
        at += 12
    return found, at


def cuts(raw, places):
    """Truncations, all of which any reader must notice."""
    sizes = {0, 1, 3, 4, 7, 8, 9, 23, 24, 25, len(raw) // 2, len(raw) - 4097, len(raw) - 4096, len(raw) - 1}
    for place in places:
        sizes |= {place - 1, place, place + 1}
    for size in sorted(s for s in sizes if 0 <= s < len(raw)):
        yield f"cut to {size} bytes", raw[:size], "refuse"


def flips(rng, raw, n, limit=None):
    for _ in range(n):
        changed = bytearray(raw)
        bits = [rng.randrange(8 * (limit or len(raw))) for _ in range(rng.choice((1, 1, 2, 8)))]
        for bit in bits:
            changed[bit // 8] ^= 1 << bit % 8
        yield f"bits {bits} flipped", bytes(changed), "survive"


def lies(rng, raw, numbers, n):
    for _ in range(n):
        at, width, name = rng.choice(numbers)
        lie = rng.choice(LIES) & ((1 << 8 * width) - 1)
        if rng.random() < 0.3:
            lie = (int.from_bytes(raw[at:at + width], "little") + rng.choice((-1, 1))) % (1 << 8 * width)
        yield f"{name} at byte {at} is {lie}", raw[:at] + lie.to_bytes(width, "little") + raw[at + width:], "survive"


def gguf(rng, raw, n):
    numbers, end = gguf_numbers(raw)
    yield from cuts(raw, [end] + [at for at, _, _ in rng.sample(numbers, min(12, len(numbers)))])
    for at, width, lie in ((8, 8, 1 << 40), (16, 8, 1 << 40), (24, 8, 1 << 62)):
        yield f"{lie} at byte {at}", raw[:at] + lie.to_bytes(width, "little") + raw[at + width:], "refuse"
    few = [x for x in numbers if "elements" in x[2] or " of blk" in x[2] or " of token_embd" in x[2]]
    yield from lies(rng, raw, numbers + 20 * few, n)
    yield from flips(rng, raw, n, end)
    yield from flips(rng, raw, n // 4)


def safetensors(rng, raw, n):
    size, = struct.unpack_from("<Q", raw)
    yield from cuts(raw, [8 + size, 8 + size // 2])
    for lie in (0, size - 1, size + 1, len(raw), len(raw) - 7, 1 << 40, (1 << 64) - 1, (1 << 64) - 8):
        yield f"header of {lie} bytes", struct.pack("<Q", lie) + raw[8:], "refuse"
    header = json.loads(raw[8:8 + size])
    names = [k for k in header if k != "__metadata__"]
    for _ in range(n):
        name = rng.choice(names)
        entry = json.loads(json.dumps(header[name]))
        where, number = rng.choice((("shape", 0), ("data_offsets", 0), ("data_offsets", 1)))
        entry[where][number] = rng.choice((-1, 0, 1.5, 1 << 31, 1 << 53, 1 << 63, 1 << 64, 1e300, None, "8", [], {},
                                           entry[where][number] + 1, entry[where][number] - 1))
        changed = json.dumps({**header, name: entry}).encode()
        text = f"{where}[{number}] of {name} is {entry[where][number]!r}"
        yield text, struct.pack("<Q", len(changed)) + changed + raw[8 + size:], \
            "survive" if entry[where] == header[name][where] else "refuse"
    yield from flips(rng, raw, n, 8 + size)


def json_file(rng, raw, n):
    yield from cuts(raw.rstrip(), [])
    for text in (b"", b"[]", b"null", b"1", b'"x"', b"{" * 100000, b"[" * 100000):
        yield f"is {text[:20]!r} of {len(text)} bytes", text, "refuse"
    yield "is empty", b"{}", "survive"
    for _ in range(n):
        changed, where = json.loads(raw), []
        node = changed
        while isinstance(node, (dict, list)) and node and (not where or rng.random() < 0.8):
            parent, key = node, rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
            where.append(str(key))
            node = node[key]
        parent[key] = rng.choice((None, True, -1, 0, 1e308, 1 << 40, "", "\0", "\ud800", [], {}, [[]], "x" * 5000))
        yield f"{'.'.join(where)} is {str(parent[key])[:20]!r}", json.dumps(changed).encode(), "survive"
    yield from flips(rng, raw, n)


def artifact(rng, raw, n):
    """A footer at the end says where the sections are: kind, offset and size, from byte 24 of its own."""
    footer = len(raw) - 4096
    count, = struct.unpack_from("<I", raw, footer + 12)
    sections = [struct.unpack_from("<IIQQ", raw, footer + 24 + 56 * i) for i in range(count)]
    yield from cuts(raw, [s[2] for s in sections] + [s[2] + s[3] for s in sections])
    yield "a page more", raw + bytes(4096), "refuse"
    for kind, _, offset, size in sections:
        for _ in range(max(1, n // 8)):
            at = offset + rng.randrange(size)
            changed = raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(8)]) + raw[at + 1:]
            yield f"byte {at} of section {kind} flipped", changed, "refuse"
    for _ in range(n):
        # Inside of what the footer uses: after its last section it is empty up to the hash.
        at = footer + rng.randrange(24 + 56 * count)
        yield f"byte {at} of the footer flipped", raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(8)]) + raw[at + 1:], \
            "refuse"
    yield from flips(rng, raw, n)


def main():
    kind, source, folder, seed, count = sys.argv[1:]
    rng = random.Random(f"{kind} {seed}")
    with open(source, "rb") as f:
        raw = f.read()
    make = {"gguf": gguf, "safetensors": safetensors, "json": json_file, "artifact": artifact}[kind]
    made = list(make(rng, raw, int(count)))
    if len(made) > int(count):
        made = rng.sample(made, int(count))
    for i, (what, changed, outcome) in enumerate(made):
        with open(f"{folder}/{i}", "wb") as f:
            f.write(changed)
        print(f"{i}\t{what}\t{outcome}")


if __name__ == "__main__":
    main()
