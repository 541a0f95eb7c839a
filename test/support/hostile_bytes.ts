import fc from "fast-check";
import { type ByteWindow, windowOf } from "../../src/boot/byte_window.ts";

/** Values that parsers stumble over, in either byte order. */
const EDGES: readonly (readonly number[])[] = [
  [0, 0, 0, 0],
  [0xff, 0xff, 0xff, 0xff],
  [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
  [0, 0, 0, 0x80],
  [0x80, 0, 0, 0],
  [0, 0, 0, 0, 0, 0, 0, 0x80],
  [1, 0, 0, 0],
  [0, 0, 0, 1],
  [0, 2, 0, 0],
  [0, 0, 1, 0],
];

type Change = { readonly at: number; readonly bytes: ArrayLike<number> };

/** A change somewhere: most in the first sector, where headers are. */
function anyChange(sizeBytes: number): fc.Arbitrary<Change> {
  const size = Math.max(1, sizeBytes);
  return fc.record({
    at: fc.oneof(
      { weight: 4, arbitrary: fc.nat(Math.min(size, 512) - 1) },
      { weight: 2, arbitrary: fc.nat(Math.min(size, 8192) - 1) },
      { weight: 1, arbitrary: fc.nat(size - 1) },
    ),
    bytes: fc.oneof(fc.uint8Array({ minLength: 1, maxLength: 8 }), fc.constantFrom(...EDGES)),
  });
}

/** One of the files with a few changes, cut off somewhere, or seen in part only. */
export function anyChanged(files: readonly Uint8Array[]): fc.Arbitrary<ByteWindow> {
  return fc.constantFrom(...files).chain((file) =>
    fc.record({
      changes: fc.array(anyChange(file.length), { maxLength: 6 }),
      endBytes: fc.oneof({ weight: 4, arbitrary: fc.constant(file.length) }, {
        weight: 1,
        arbitrary: fc.nat(file.length),
      }),
      seenBytes: fc.oneof({ weight: 4, arbitrary: fc.constant(Infinity) }, {
        weight: 1,
        arbitrary: fc.nat(file.length),
      }),
    }).map(({ changes, endBytes, seenBytes }) => {
      const bytes = file.slice(0, endBytes);
      for (const { at, bytes: change } of changes) {
        if (at + change.length <= bytes.length) bytes.set(Array.from(change), at);
      }
      return windowOf(bytes.subarray(0, seenBytes), bytes.length);
    })
  );
}

/** Random bytes behind one of the beginnings; the file may be far larger than what is seen of it. */
export function anyNoise(beginnings: readonly string[]): fc.Arbitrary<ByteWindow> {
  return fc.tuple(
    fc.constantFrom("", ...beginnings),
    fc.uint8Array({ maxLength: 4096 }),
    fc.oneof(fc.constant(undefined), fc.maxSafeNat()),
  ).map(([beginning, noise, sizeBytes]) => {
    const bytes = Buffer.concat([Buffer.from(beginning, "latin1"), noise]);
    return windowOf(bytes, Math.max(bytes.length, sizeBytes ?? 0));
  });
}
