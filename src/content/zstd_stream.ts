import { constants, createZstdDecompress } from "node:zlib";
import { Fields } from "../boot/byte_window.ts";
import { cannotUnpack, isSkippableMagic } from "../boot/disk_packing.ts";
import { ShimError } from "../errors.ts";
import { ChunkReader } from "./chunk_reader.ts";
import { decode, DECODED_CHUNK_BYTES, type DecodeOptions } from "./decoder_stream.ts";

const FRAME_MAGIC = 0xfd2fb528;
/** RFC 8878, section 3.1.1.2.4: no block has more, compressed or not. */
const MAX_BLOCK_BYTES = 128 * 1024;
/** Memory that one frame may ask of its reader: what `zstd -d` gives without being told to. */
const MAX_WINDOW_BYTES = 128 * 1024 * 1024;
const RLE_BLOCK = 1;
const RESERVED_BLOCK = 3;

/**
 * What a zstd file of one or more frames holds.
 *
 * `node:zlib` decodes, but cannot be trusted with the file as a whole: depending on runtime and version its stream
 * stops after the first frame, takes a truncated one for complete, passes over garbage, or throws past its caller. So
 * the frames are told apart here (RFC 8878, section 3), each gets a decoder of its own, and each block is one write:
 * whatever is wrong with it shows in the write itself.
 *
 * @throws {ShimError} FORMAT_MISMATCH when it is truncated, corrupt, needs a dictionary, or is followed by anything;
 *   LIMIT_EXCEEDED when a frame asks for more than 128 MiB of memory
 * @see https://www.rfc-editor.org/rfc/rfc8878#section-3
 */
export async function* unzstd(
  source: AsyncIterable<Uint8Array>,
  options: DecodeOptions = {},
): AsyncGenerator<Uint8Array> {
  const reader = new ChunkReader(source);
  try {
    for (let frames = 0;;) {
      const magic = await reader.read(4);
      if (magic.length === 0 && (frames > 0 || options.isHead)) return;
      const word = new Fields(magic).u32(0);
      if (word === FRAME_MAGIC) {
        const decoder = createZstdDecompress({
          chunkSize: DECODED_CHUNK_BYTES,
          ...(options.isHead ? { finishFlush: constants.ZSTD_e_flush } : {}),
        });
        yield* decode(piecesOfFrame(reader, options), { decoder, format: "zstd" });
        frames += 1;
      } else if (isSkippableMagic(word)) {
        if (!await skipFrame(reader)) return requireHead(options);
      } else if (magic.length < 4) return requireHead(options);
      else throw cannotUnpack(`what follows the first ${frames} frames of its zstd stream is no frame`);
    }
  } finally {
    await reader.close();
  }
}

/** @returns whether it was there as a whole */
async function skipFrame(reader: ChunkReader): Promise<boolean> {
  const sizeBytes = new Fields(await reader.read(4)).u32(0);
  return sizeBytes !== undefined && await reader.skip(sizeBytes) === sizeBytes;
}

/** The magic number and the frame header, then each block, then the checksum. */
async function* piecesOfFrame(reader: ChunkReader, options: DecodeOptions): AsyncGenerator<Uint8Array> {
  const header = await readHeader(reader);
  if (!header) return requireHead(options);
  yield header.bytes;
  for (let isLast = false; !isLast;) {
    const block = await readBlock(reader);
    if (!block) return requireHead(options);
    yield block.bytes;
    isLast = block.isLast;
  }
  if (!header.hasChecksum) return;
  const checksum = await reader.read(4);
  if (checksum.length < 4) return requireHead(options);
  yield checksum;
}

type FrameHeader = { readonly bytes: Uint8Array; readonly hasChecksum: boolean };

async function readHeader(reader: ChunkReader): Promise<FrameHeader | undefined> {
  const [flags] = await reader.read(1);
  if (flags === undefined) return undefined;
  const isSingleSegment = (flags & 0x20) !== 0;
  const windowBytes = isSingleSegment ? 0 : 1;
  const dictionaryBytes = [0, 1, 2, 4][flags & 3] ?? 0;
  const sizeBytes = [isSingleSegment ? 1 : 0, 2, 4, 8][flags >> 6] ?? 0;
  const rest = await reader.read(windowBytes + dictionaryBytes + sizeBytes);
  if (rest.length < windowBytes + dictionaryBytes + sizeBytes) return undefined;

  const fields = new Fields(rest);
  if (!fields.isZero(windowBytes, dictionaryBytes)) {
    throw cannotUnpack(
      "its zstd stream needs a dictionary, must need none",
      "publish it compressed without one",
    );
  }
  const window = isSingleSegment
    ? contentSize(fields, { offset: dictionaryBytes, sizeBytes })
    : windowSize(rest[0] ?? 0);
  if (window > MAX_WINDOW_BYTES) {
    throw new ShimError(
      "LIMIT_EXCEEDED",
      `Cannot unpack the disk layer: its zstd stream asks for ${window} bytes of memory, limit is ${MAX_WINDOW_BYTES} bytes`,
      { details: { remedy: "publish it compressed without --long, or with --long=27" } },
    );
  }
  const bytes = new Uint8Array(5 + rest.length);
  new DataView(bytes.buffer).setUint32(0, FRAME_MAGIC, true);
  bytes[4] = flags;
  bytes.set(rest, 5);
  return { bytes, hasChecksum: (flags & 0x04) !== 0 };
}

/** RFC 8878, section 3.1.1.1.2. */
function windowSize(descriptor: number): number {
  const base = 2 ** (10 + (descriptor >> 3));
  return base + (base / 8) * (descriptor & 7);
}

/** RFC 8878, section 3.1.1.1.4. */
function contentSize(fields: Fields, { offset, sizeBytes }: { offset: number; sizeBytes: number }): number {
  if (sizeBytes === 1) return fields.u8(offset) ?? 0;
  if (sizeBytes === 2) return (fields.u16(offset) ?? 0) + 256;
  return (sizeBytes === 4 ? fields.u32(offset) : fields.u64(offset)) ?? 0;
}

type Block = { readonly bytes: Uint8Array; readonly isLast: boolean };

async function readBlock(reader: ChunkReader): Promise<Block | undefined> {
  const header = await reader.read(3);
  const [low, middle, high] = header;
  if (low === undefined || middle === undefined || high === undefined) return undefined;
  const type = (low >> 1) & 3;
  const sizeBytes = (low | middle << 8 | high << 16) >> 3;
  if (type === RESERVED_BLOCK || sizeBytes > MAX_BLOCK_BYTES) {
    throw cannotUnpack("it is no sound zstd stream, a block has an impossible header");
  }
  const contentBytes = type === RLE_BLOCK ? 1 : sizeBytes;
  const content = await reader.read(contentBytes);
  if (content.length < contentBytes) return undefined;
  const bytes = new Uint8Array(3 + contentBytes);
  bytes.set(header);
  bytes.set(content, 3);
  return { bytes, isLast: (low & 1) !== 0 };
}

function requireHead({ isHead }: DecodeOptions): void {
  if (!isHead) throw cannotUnpack("its zstd stream is truncated");
}
