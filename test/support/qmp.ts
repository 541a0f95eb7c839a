import { once } from "node:events";
import { connect } from "node:net";
import { createInterface } from "node:readline";
import { z } from "zod";

const answer = z.object({ return: z.unknown() });

/**
 * Asks a running QEMU one question over its QMP socket.
 *
 * @see https://www.qemu.org/docs/master/interop/qmp-spec.html
 */
export async function askQmp(socketPath: string, execute: string): Promise<unknown> {
  const socket = connect(socketPath);
  await once(socket, "connect");
  const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
  try {
    // The greeting.
    await lines.next();
    for (const command of ["qmp_capabilities", execute]) {
      socket.write(JSON.stringify({ execute: command }) + "\n");
      for (;;) {
        const { value } = await lines.next();
        const parsed = answer.safeParse(JSON.parse(String(value)));
        // Anything else is an event.
        if (!parsed.success) continue;
        if (command === execute) return parsed.data.return;
        break;
      }
    }
    throw new Error("QMP gave no answer");
  } finally {
    socket.destroy();
  }
}
