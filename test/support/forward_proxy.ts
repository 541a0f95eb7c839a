import { createServer, type IncomingHttpHeaders, request } from "node:http";
import { connect, type Socket } from "node:net";

export type ForwardProxy = {
  readonly url: URL;
  /** `METHOD target` of every request so far. */
  readonly requests: readonly string[];
  readonly credentials: readonly (string | undefined)[];
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
};

/**
 * An HTTP proxy as companies have them: CONNECT for TLS, absolute URLs for the rest. It alone knows where names lead.
 *
 * @param hosts what each `HOST:PORT` is connected to; all else is a 502
 * @param credentials `user:password` that it insists on
 */
export async function startForwardProxy(
  hosts: Readonly<Record<string, string>>,
  { credentials }: { readonly credentials?: string } = {},
): Promise<ForwardProxy> {
  const requests: string[] = [];
  const seen: (string | undefined)[] = [];
  const sockets = new Set<Socket>();
  const expected = credentials && `Basic ${Buffer.from(credentials).toString("base64")}`;
  const note = (line: string, headers: IncomingHttpHeaders) => {
    requests.push(line);
    seen.push(headers["proxy-authorization"]);
    return expected === undefined || headers["proxy-authorization"] === expected;
  };
  const server = createServer((incoming, outgoing) => {
    const url = new URL(incoming.url ?? "");
    if (!note(`${incoming.method} ${url.host}`, incoming.headers)) return outgoing.writeHead(407).end();
    const target = hosts[url.host];
    if (target === undefined) return outgoing.writeHead(502).end();
    const { "proxy-authorization": _mine, ...headers } = incoming.headers;
    const { method } = incoming;
    const forwarded = request(
      `http://${target}${url.pathname}${url.search}`,
      { headers, ...(method ? { method } : {}) },
      (answer) => {
        outgoing.writeHead(answer.statusCode ?? 500, answer.headers);
        answer.pipe(outgoing);
      },
    );
    forwarded.on("error", () => outgoing.destroy());
    incoming.pipe(forwarded);
  });
  server.on("connection", (socket) => sockets.add(socket));
  server.on("connect", (incoming, socket: Socket) => {
    const name = incoming.url ?? "";
    const isWelcome = note(`CONNECT ${name}`, incoming.headers);
    const target = hosts[name];
    if (!isWelcome || target === undefined) {
      socket.end(`HTTP/1.1 ${isWelcome ? 502 : 407} No\r\nContent-Length: 0\r\n\r\n`);
      return;
    }
    const [host = "", port] = target.split(":");
    const far = connect(Number(port), host, () => {
      socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
      far.pipe(socket);
      socket.pipe(far);
    });
    sockets.add(far);
    far.on("error", () => socket.destroy());
    socket.on("error", () => far.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("the proxy has no address");
  const stop = async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  };
  return {
    url: new URL(`http://127.0.0.1:${address.port}`),
    requests,
    credentials: seen,
    stop,
    [Symbol.asyncDispose]: stop,
  };
}
