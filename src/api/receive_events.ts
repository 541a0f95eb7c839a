import type { IncomingMessage } from "node:http";

/** One event of the service's. */
export type ReceivedEvent = {
  /** To be named when reading goes on from here. */
  readonly id: number;
  readonly type: string;
  readonly data: Readonly<Record<string, unknown>>;
};

/** Events of a stream as the service writes it, until it ends or breaks off; comments are left out. */
export async function* readEvents(answer: IncomingMessage): AsyncGenerator<ReceivedEvent> {
  const decoder = new TextDecoder();
  let text = "";
  try {
    for await (const chunk of answer) {
      text += decoder.decode(chunk, { stream: true });
      const blocks = text.split("\n\n");
      text = blocks.pop() ?? "";
      for (const block of blocks) {
        const event = readEvent(block);
        if (event) yield event;
      }
    }
  } catch {
    // Broken off: whoever reads looks at the state, and opens it again.
  } finally {
    answer.destroy();
  }
}

function readEvent(block: string): ReceivedEvent | undefined {
  const fields = new Map(
    block.split("\n").map((line) => {
      const colon = line.indexOf(": ");
      return [line.slice(0, colon), line.slice(colon + 2)];
    }),
  );
  const data = fields.get("data");
  if (data === undefined) return undefined;
  return { id: Number(fields.get("id")), type: fields.get("event") ?? "message", data: JSON.parse(data) };
}
