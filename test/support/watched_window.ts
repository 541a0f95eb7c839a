import { expect } from "vitest";
import type { ByteWindow } from "../../src/boot/byte_window.ts";

/**
 * The same window, with a count of what was read. A read that is not of whole numbers, or not within the file, fails the
 * test at once.
 */
export function watched(window: ByteWindow): { window: ByteWindow; readBytes: () => number } {
  let total = 0;
  return {
    readBytes: () => total,
    window: {
      sizeBytes: window.sizeBytes,
      read: async (offsetBytes, lengthBytes) => {
        expect(Number.isSafeInteger(offsetBytes) && Number.isSafeInteger(lengthBytes)).toBe(true);
        expect(offsetBytes >= 0 && lengthBytes >= 0 && offsetBytes + lengthBytes <= window.sizeBytes).toBe(
          true,
        );
        const bytes = await window.read(offsetBytes, lengthBytes);
        total += bytes.length;
        return bytes;
      },
    },
  };
}
