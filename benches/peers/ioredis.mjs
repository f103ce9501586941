// The work of reader and writer, done with ioredis: lines to a stream in pipelines, and back into
// a file that is durable before entries are acknowledged.
//
// node ioredis.mjs send URL STREAM INPUT line|chunk
// node ioredis.mjs receive URL STREAM GROUP OUTPUT BYTES line|chunk

import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

// The folder that `npm install` was run for.
const folder = process.env.NODE_PEERS ?? import.meta.dirname;
const { Redis } = createRequire(path.join(folder, "package.json"))("ioredis");

const BATCH = 1000;
const [COUNT, COUNT_CHUNKS] = [10_000, 100];
const CHUNK = 64 << 10;
const CHUNKS = 8;
const NEWLINE = 10;

// The payloads of a file, in batches.
function* batches(input, chunked) {
  const file = fs.openSync(input);
  const [least, most] = chunked ? [CHUNK, CHUNKS] : [0, BATCH];
  let [batch, rest] = [[], Buffer.alloc(0)];
  for (;;) {
    const piece = Buffer.allocUnsafe(256 << 10);
    const length = fs.readSync(file, piece);
    const bytes = Buffer.concat([rest, piece.subarray(0, length)]);
    let [begin, end] = [0, 0];
    while ((end = bytes.indexOf(NEWLINE, end) + 1) > 0) {
      if (end - begin < least) continue;
      batch.push(bytes.subarray(begin, chunked ? end : end - 1));
      begin = end;
      if (batch.length === most) {
        yield batch;
        batch = [];
      }
    }
    rest = bytes.subarray(begin);
    if (length === 0) break;
  }
  if (rest.length > 0) batch.push(rest);
  if (batch.length > 0) yield batch;
}

async function send(url, stream, input, framing) {
  const redis = new Redis(url);
  const chunked = framing === "chunk";
  for (const batch of batches(input, chunked)) {
    const pipeline = redis.pipeline();
    for (const payload of batch) pipeline.xadd(stream, "*", chunked ? "lines" : "line", payload);
    for (const [error] of await pipeline.exec()) if (error) throw error;
  }
  redis.disconnect();
}

async function receive(url, stream, group, output, size, framing) {
  const redis = new Redis(url);
  const chunked = framing === "chunk";
  await redis.xgroup("CREATE", stream, group, "0", "MKSTREAM");
  const file = fs.openSync(output, "w");
  const [end, count] = chunked ? [Buffer.alloc(0), COUNT_CHUNKS] : [Buffer.from("\n"), COUNT];
  for (let written = 0; written < size; ) {
    const reply = await redis.xreadgroupBuffer(
      "GROUP", group, "peer", "COUNT", count, "BLOCK", 100, "STREAMS", stream, ">",
    );
    if (!reply) continue;
    const entries = reply[0][1];
    const data = Buffer.concat(entries.flatMap(([, [, payload]]) => [payload, end]));
    fs.writeSync(file, data);
    fs.fdatasyncSync(file);
    await redis.xack(stream, group, ...entries.map(([id]) => id));
    written += data.length;
  }
  redis.disconnect();
}

const [work, ...rest] = process.argv.slice(2);
await { send, receive }[work](...rest);
