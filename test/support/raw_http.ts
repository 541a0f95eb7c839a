import { connect, type Socket } from "node:net";

/** A caller's bytes, as they are: a client library would put them right. */
export type RawCaller = {
  readonly socket: Socket;
  /** All that came so far. */
  received(): string;
  /** When the other end has closed the connection; the text that came until then. */
  readonly closed: Promise<string>;
};

/** Connects to a service and writes `bytes`. Resolves when connected, or refused: then it is closed. */
export async function callRaw(socketPath: string, bytes = ""): Promise<RawCaller> {
  const socket = connect(socketPath);
  let text = "";
  socket.setEncoding("utf8").on("data", (chunk: string) => text += chunk);
  const closed = new Promise<string>((resolve) => socket.once("close", () => resolve(text)));
  await new Promise<void>((resolve) => {
    socket.once("connect", resolve);
    socket.on("error", () => resolve());
  });
  if (bytes !== "") socket.write(bytes);
  return { socket, received: () => text, closed };
}
