"""A draft model out of a model: a GGUF file with some of its layers.

usage: truncate_gguf.py MODEL.gguf OUT.gguf LAYERS      LAYERS: such as 0-7,28,29

Nothing is trained: how often such a draft is right is for `modelcc bench --draft` to say.
"""
import re, struct, sys

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        self.at += n
        return self.data[self.at - n:self.at]

    def number(self, code):
        return struct.unpack("<" + code, self.take(struct.calcsize(code)))[0]

    def string(self):
        return self.take(self.number("Q"))

    def skip_value(self, kind):
        if kind == STRING:
            self.string()
        elif kind == ARRAY:
            of, n = self.number("I"), self.number("Q")
            if of in SIZES:
                self.take(n * SIZES[of])
            else:
                for _ in range(n):
                    self.skip_value(of)
        else:
            self.take(SIZES[kind])


def main(model, out, wanted):
    layers = []
    for part in wanted.split(","):
        first, _, last = part.partition("-")
        layers += range(int(first), int(last or first) + 1)
    with open(model, "rb") as f:
        r = Reader(f.read())
    magic, version, n_tensors, n_values = r.take(4), r.number("I"), r.number("Q"), r.number("Q")
    if magic != b"GGUF" or version < 2:
        sys.exit(f"{model}: no GGUF file of version 2 or 3")
    values, alignment = b"", 32
    for _ in range(n_values):
        begin = r.at
        key, kind = r.string(), r.number("I")
        at = r.at
        r.skip_value(kind)
        if key.endswith(b".block_count"):
            values += r.data[begin:at] + struct.pack("<I", len(layers))
        else:
            values += r.data[begin:r.at]
        if key == b"general.alignment":
            alignment = struct.unpack("<I", r.data[at:r.at])[0]
    tensors = []
    for _ in range(n_tensors):
        name = r.string().decode()
        shape = r.take(8 * (dims := r.number("I")))
        tensors.append((name, dims, shape, r.number("I"), r.number("Q")))
    base = -(-r.at // alignment) * alignment
    ends = sorted([t[4] for t in tensors] + [len(r.data) - base])
    table, blobs, n, size = b"", [], 0, 0
    for name, dims, shape, kind, offset in tensors:
        layer = re.match(r"blk\.(\d+)\.", name)
        new_names = [name]
        if layer:
            new_names = [f"blk.{i}." + name[layer.end():]
                         for i, old in enumerate(layers) if old == int(layer[1])]
        blob = r.data[base + offset:base + ends[ends.index(offset) + 1]]
        for new in new_names:
            table += struct.pack("<Q", len(new)) + new.encode() + struct.pack("<I", dims) + shape
            table += struct.pack("<IQ", kind, size)
            blobs.append(blob + b"\0" * (-len(blob) % alignment))
            size += len(blobs[-1])
            n += 1
    head = magic + struct.pack("<IQQ", version, n, n_values) + values + table
    with open(out, "wb") as f:
        f.write(head + b"\0" * (-len(head) % alignment))
        f.writelines(blobs)


if len(sys.argv) != 4:
    sys.exit(__doc__)
main(*sys.argv[1:])
