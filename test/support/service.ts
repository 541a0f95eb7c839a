import { once } from "node:events";
import { request } from "node:http";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { startBootshim } from "./bootshim_command.ts";

export type Answer = {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
  /** Of a JSON answer; undefined for another. */
  readonly json: unknown;
};

export type AskOptions = {
  readonly method?: string;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
};

/** A real `bootshim serve`, in a process of its own. */
export type ServiceProcess = {
  readonly pid: number;
  readonly socketPath: string;
  /** What it said on stderr so far. */
  said(): string;
  ask(path: string, options?: AskOptions): Promise<Answer>;
  /** SIGTERM; resolves with the exit code when it is gone. */
  stop(): Promise<number | null>;
  kill(): Promise<void>;
  /** Resolves with the exit code when it is gone, whoever ended it. */
  ended(): Promise<number | null>;
};

/** Starts it and waits until it listens. */
export async function startService(
  { root, argv = [], environment = {}, socketPath }: {
    readonly root: string;
    readonly argv?: readonly string[];
    readonly environment?: Readonly<Record<string, string>>;
    readonly socketPath?: string;
  },
): Promise<ServiceProcess> {
  // A socket's path is short.
  const folder = await mkdtemp(join(tmpdir(), "bs-"));
  const path = socketPath ?? join(folder, "s");
  const child = startBootshim(["serve", "--socket", path, ...argv], { root, environment });
  let said = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => said += text);
  const ended = once(child, "close");
  const isThere = () => stat(path).then((status) => status.isSocket(), () => false);
  for (let tries = 0; !(said.includes("serves on") && await isThere()); tries++) {
    if (child.exitCode !== null || tries > 600) {
      child.kill("SIGKILL");
      throw new Error(`the service did not start, exit code ${child.exitCode}: ${said}`);
    }
    await wait(50);
  }
  const finish = async () => {
    const [exitCode] = await ended;
    await rm(folder, { recursive: true, force: true });
    return typeof exitCode === "number" ? exitCode : null;
  };
  return {
    ended: finish,
    pid: child.pid ?? 0,
    socketPath: path,
    said: () => said,
    ask: (route, options) => ask(path, route, options),
    stop: async () => {
      // Not child.kill(): Deno then takes the signal for how the child ended.
      process.kill(child.pid ?? 0, "SIGTERM");
      return await finish();
    },
    kill: async () => {
      child.kill("SIGKILL");
      await finish();
    },
  };
}

const ignore = () => {};

/** One request over a unix socket. */
export async function ask(
  socketPath: string,
  path: string,
  { method, body, headers = {} }: AskOptions = {},
): Promise<Answer> {
  const isText = typeof body === "string";
  const content = body === undefined ? undefined : isText ? body : JSON.stringify(body);
  const asked = request({
    socketPath,
    path,
    method: method ?? (content === undefined ? "GET" : "POST"),
    headers: {
      host: "bootshim",
      ...(content === undefined ? {} : {
        "content-type": "application/json",
        "content-length": String(new TextEncoder().encode(content).length),
      }),
      ...headers,
    },
  });
  // A body that is refused is not read to its end; what counts is the answer.
  asked.on("error", ignore);
  asked.once("socket", (socket) => {
    if (!socket.listeners("error").includes(ignore)) socket.on("error", ignore);
  });
  asked.end(content);
  const [answer] = await once(asked, "response");
  let text = "";
  answer.setEncoding("utf8");
  for await (const chunk of answer) text += chunk;
  const isJson = /^application\/(?:problem\+)?json/.test(answer.headers["content-type"] ?? "");
  return {
    status: answer.statusCode,
    headers: answer.headers,
    text,
    json: isJson && text !== "" ? JSON.parse(text) : undefined,
  };
}
