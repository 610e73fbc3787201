"""Plain quantizers for Q4_K, Q5_K and Q6_K, which the `gguf` package can only dequantize.

Layouts as its dequantizers read them (gguf/quants.py). Rounding is to nearest with no search, which is enough to give
tensors of these types sensible values; what a block means is decided by the package's dequantizer, not here.
"""

import numpy as np

QK = 256


def _f16_bytes(x):
    return x.astype(np.float16).reshape(-1, 1).view(np.uint8)


def _pack_scales_mins(sc, mn):
    """Eight 6-bit scales and eight 6-bit mins in twelve bytes."""
    out = np.zeros((sc.shape[0], 12), np.uint8)
    out[:, 0:4] = (sc[:, 0:4] & 63) | ((sc[:, 4:8] >> 4) << 6)
    out[:, 4:8] = (mn[:, 0:4] & 63) | ((mn[:, 4:8] >> 4) << 6)
    out[:, 8:12] = (sc[:, 4:8] & 15) | ((mn[:, 4:8] & 15) << 4)
    return out


def _scale_min_parts(x, levels):
    """Quantizes blocks [n, 8, 32] as d*sc*q - dmin*mn, q in 0..levels."""
    low = np.minimum(x.min(-1), 0.0)
    scale = (x.max(-1) - low) / levels
    d = (scale.max(-1) / 63).astype(np.float16).astype(np.float32)
    dmin = ((-low).max(-1) / 63).astype(np.float16).astype(np.float32)
    safe = lambda v: np.where(v > 0, v, 1.0)
    sc = np.clip(np.rint(scale / safe(d)[:, None]), 0, 63).astype(np.uint8)
    mn = np.clip(np.rint(-low / safe(dmin)[:, None]), 0, 63).astype(np.uint8)
    step = safe(d[:, None] * sc)
    q = np.clip(np.rint((x + (dmin[:, None] * mn)[..., None]) / step[..., None]), 0, levels).astype(np.uint8)
    return d, dmin, sc, mn, q


def quantize_q4_k(rows):
    x = rows.reshape(-1, 8, 32)
    d, dmin, sc, mn, q = _scale_min_parts(x, 15)
    q = q.reshape(-1, 4, 2, 32)
    qs = (q[:, :, 0] | (q[:, :, 1] << 4)).reshape(-1, 128)
    return np.concatenate([_f16_bytes(d), _f16_bytes(dmin), _pack_scales_mins(sc, mn), qs], 1)


def quantize_q5_k(rows):
    x = rows.reshape(-1, 8, 32)
    d, dmin, sc, mn, q = _scale_min_parts(x, 31)
    qh = np.zeros((q.shape[0], 32), np.uint8)
    for j in range(8):
        qh |= (q[:, j] >> 4) << j
    low = (q & 15).reshape(-1, 4, 2, 32)
    qs = (low[:, :, 0] | (low[:, :, 1] << 4)).reshape(-1, 128)
    return np.concatenate([_f16_bytes(d), _f16_bytes(dmin), _pack_scales_mins(sc, mn), qh, qs], 1)


def quantize_q6_k(rows):
    x = rows.reshape(-1, 16, 16)
    scale = np.abs(x).max(-1) / 31
    d = (scale.max(-1) / 127).astype(np.float16).astype(np.float32)
    safe = np.where(d > 0, d, 1.0)
    sc = np.clip(np.rint(scale / safe[:, None]), -128, 127).astype(np.int8)
    step = d[:, None] * sc
    step = np.where(step > 0, step, 1.0)
    q = (np.clip(np.rint(x / step[..., None]), -32, 31) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    # Per half of 128: the low nibbles of quarters 0|2 and 1|3 share bytes, the four pairs of high bits share one.
    ql = np.concatenate([(q[:, :, 0] & 15) | ((q[:, :, 2] & 15) << 4), (q[:, :, 1] & 15) | ((q[:, :, 3] & 15) << 4)], 2)
    qh = (q[:, :, 0] >> 4) | ((q[:, :, 1] >> 4) << 2) | ((q[:, :, 2] >> 4) << 4) | ((q[:, :, 3] >> 4) << 6)
    return np.concatenate([ql.reshape(-1, 128), qh.reshape(-1, 64), sc.view(np.uint8), _f16_bytes(d)], 1)


QUANTIZERS = {"Q4_K": quantize_q4_k, "Q5_K": quantize_q5_k, "Q6_K": quantize_q6_k}


def quantize(name, data):
    """Returns the bytes [..., row bytes] of data [..., multiple of 256]."""
    return QUANTIZERS[name](data.astype(np.float32)).reshape(*data.shape[:-1], -1)
