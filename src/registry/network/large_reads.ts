import type { OnReadOpts, Socket } from "node:net";
import type { buildConnector } from "undici";

/** What is read into at once. A connection holds one of these, or what is left of it. */
const SLAB_BYTES = 256 * 1024;
/** With less room than this, the next one is begun. */
const LEAST_READ_BYTES = 64 * 1024;

/**
 * Connects so that what comes is read into large buffers, whose parts are handed on as they are. By itself Deno takes a
 * cleared buffer of 64 KiB for every read, which costs more than all else that is done with a byte.
 *
 * @param make gives the connector of one plain connection that reads so
 */
export function withLargeReads(
  make: (onread: OnReadOpts) => buildConnector.connector,
): buildConnector.connector {
  return (options, callback) => {
    let socket: Socket | undefined;
    let slab = new Uint8Array(0);
    let usedBytes = 0;
    const connect = make({
      buffer: () => {
        if (slab.length - usedBytes < LEAST_READ_BYTES) {
          slab = new Uint8Array(SLAB_BYTES);
          usedBytes = 0;
        }
        return slab.subarray(usedBytes);
      },
      callback: (bytesRead, buffer) => {
        usedBytes += bytesRead;
        // Whether more is wanted now: if not, the stream asks for it later.
        return socket?.push(buffer.subarray(0, bytesRead)) ?? false;
      },
    });
    connect(options, (...[error, connected]) => {
      if (error !== null) return callback(error, null);
      socket = connected;
      callback(null, connected);
    });
  };
}
