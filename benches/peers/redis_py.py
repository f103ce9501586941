"""The work of reader and writer, done with redis-py and hiredis: lines to a stream in pipelines,
and back into a file that is durable before entries are acknowledged.

redis_py.py send URL STREAM INPUT line|chunk
redis_py.py receive URL STREAM GROUP OUTPUT BYTES line|chunk
"""

import os
import sys

import redis

BATCH = 1000
COUNT, COUNT_CHUNKS = 10_000, 100
CHUNK = 64 << 10
CHUNKS = 8


def lines(source):
    batch = []
    for line in source:
        batch.append(line.rstrip(b"\n"))
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def chunks(source):
    batch, chunk, size = [], [], 0
    for line in source:
        chunk.append(line)
        size += len(line)
        if size >= CHUNK:
            batch.append(b"".join(chunk))
            chunk, size = [], 0
        if len(batch) == CHUNKS:
            yield batch
            batch = []
    if chunk:
        batch.append(b"".join(chunk))
    if batch:
        yield batch


def send(url, stream, path, framing):
    client = redis.Redis.from_url(url)
    field, batches = ("lines", chunks) if framing == "chunk" else ("line", lines)
    with open(path, "rb", buffering=256 << 10) as source:
        for batch in batches(source):
            pipeline = client.pipeline(transaction=False)
            for payload in batch:
                pipeline.xadd(stream, {field: payload})
            pipeline.execute()


def receive(url, stream, group, path, size, framing):
    client = redis.Redis.from_url(url)
    client.xgroup_create(stream, group, id="0", mkstream=True)
    count = COUNT_CHUNKS if framing == "chunk" else COUNT
    end = b"" if framing == "chunk" else b"\n"
    written = 0
    with open(path, "wb", buffering=0) as output:
        while written < size:
            reply = client.xreadgroup(group, "peer", {stream: ">"}, count=count, block=100)
            if not reply:
                continue
            # A map in RESP3, a list of pairs in RESP2.
            entries = next(iter(reply.values())) if isinstance(reply, dict) else reply[0][1]
            # Some versions wrap the entries of a stream in one more list.
            if entries and isinstance(entries[0], list):
                entries = entries[0]
            data = b"".join(payload + end for _, fields in entries for payload in fields.values())
            output.write(data)
            os.fdatasync(output.fileno())
            client.xack(stream, group, *(entry for entry, _ in entries))
            written += len(data)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["send", url, stream, path, framing]:
            send(url, stream, path, framing)
        case ["receive", url, stream, group, path, size, framing]:
            receive(url, stream, group, path, int(size), framing)
        case _:
            sys.exit(__doc__)
