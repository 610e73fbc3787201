#!/usr/bin/env python3
"""Continues a prompt with a model that modelcc compiled, through ctypes alone.

usage: generate.py MODEL.so PROMPT [TOKENS]

MODELCC_LIBRARY names libmodelcc.so where the loader does not find it. The structures are those of
modelcc.h; each begins with its own size, so a newer library still understands them.
"""
import ctypes as c
import os
import sys


class Error(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("code", c.c_int32), ("text", c.c_char * 512)]


class Params(c.Structure):
    _fields_ = [
        ("struct_size", c.c_uint32), ("flags", c.c_uint32),
        ("prompt_ids", c.POINTER(c.c_int32)), ("n_prompt_ids", c.c_int64),
        ("prompt", c.c_char_p), ("prompt_bytes", c.c_uint64),
        ("messages", c.c_char_p), ("messages_bytes", c.c_uint64),
        ("max_tokens", c.c_int64),
        ("temperature", c.c_float), ("top_k", c.c_int32), ("top_p", c.c_float),
        ("min_p", c.c_float), ("repetition_penalty", c.c_float), ("reserved", c.c_uint32),
        ("seed", c.c_uint64),
    ]


class Event(c.Structure):
    _fields_ = [
        ("struct_size", c.c_uint32), ("kind", c.c_int32), ("token_id", c.c_int32),
        ("finish_reason", c.c_int32), ("logprob", c.c_float), ("reserved", c.c_uint32),
        ("text", c.c_void_p), ("text_bytes", c.c_uint64),
        ("prompt_tokens", c.c_int64), ("cached_tokens", c.c_int64),
        ("completion_tokens", c.c_int64),
    ]


TOKEN, FINISHED = 1, 2


def check(status, error):
    if status:
        sys.exit("error: " + error.text.decode())


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    mcc = c.CDLL(os.environ.get("MODELCC_LIBRARY", "libmodelcc.so.0"))
    error = Error(struct_size=c.sizeof(Error))
    model, engine, request = c.c_void_p(), c.c_void_p(), c.c_uint64()
    check(mcc.mcc_artifact_open(os.fsencode(sys.argv[1]), None, c.byref(model), c.byref(error)),
          error)
    check(mcc.mcc_engine_create(model, None, c.byref(engine), c.byref(error)), error)
    params = Params(struct_size=c.sizeof(Params), prompt=sys.argv[2].encode(),
                    max_tokens=int(sys.argv[3]) if len(sys.argv) > 3 else 64)
    check(mcc.mcc_request_submit(engine, c.byref(params), c.byref(request), c.byref(error)), error)
    event = Event(struct_size=c.sizeof(Event))
    while event.kind != FINISHED:
        check(mcc.mcc_engine_step(engine, None, c.byref(error)), error)
        event.kind = TOKEN
        while event.kind == TOKEN:
            check(mcc.mcc_engine_poll(engine, request, c.byref(event), c.byref(error)), error)
            sys.stdout.buffer.write(c.string_at(event.text, event.text_bytes))
    print(f"\n{event.completion_tokens} tokens")
    mcc.mcc_engine_destroy(engine)
    mcc.mcc_artifact_close(model)


main()
