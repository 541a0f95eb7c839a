import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

export type RegistryServer = {
  /** `127.0.0.1:PORT`, as references spell it. */
  readonly host: string;
  /** Ends the server and removes all it stored. */
  stop(): Promise<void>;
};

const START_TIMEOUT_MS = 20_000;

/** @see https://distribution.github.io/distribution/about/configuration/ */
export type RegistryServerOptions = {
  /** Who is let in. Default: everybody. */
  readonly auth?: Readonly<Record<string, unknown>>;
  /** Speaks TLS only. */
  readonly tls?: { readonly certificateFile: string; readonly keyFile: string };
  /** Is a pull-through cache of the registry at this URL. */
  readonly remoteUrl?: string;
};

/**
 * Starts the distribution's own `docker-registry` on a free loopback port, with storage of its own.
 *
 * @throws {Error} with the reason when it is not installed or does not come up
 */
export async function startRegistryServer(
  { auth, tls, remoteUrl }: RegistryServerOptions = {},
): Promise<RegistryServer> {
  const directory = await mkdtemp(join(tmpdir(), "bootshim-registry-"));
  const host = `127.0.0.1:${await freePort()}`;
  const config = join(directory, "config.json");
  // JSON is YAML, which is what the server reads.
  await writeFile(
    config,
    JSON.stringify({
      version: 0.1,
      log: { accesslog: { disabled: true }, level: "info", formatter: "json" },
      storage: { filesystem: { rootdirectory: join(directory, "storage") }, delete: { enabled: true } },
      http: {
        addr: host,
        ...(tls === undefined ? {} : { tls: { certificate: tls.certificateFile, key: tls.keyFile } }),
      },
      ...(remoteUrl === undefined ? {} : { proxy: { remoteurl: remoteUrl } }),
      ...(auth === undefined ? {} : { auth }),
    }),
  );
  const server = spawn("docker-registry", ["serve", config], { stdio: ["ignore", "ignore", "pipe"] });
  const exited = new Promise<void>((resolve) => server.once("close", () => resolve()));
  const stop = async () => {
    server.kill("SIGTERM");
    await exited;
    await rm(directory, { recursive: true, force: true });
  };
  try {
    await listening(server);
  } catch (error) {
    await stop();
    throw error;
  }
  return { host, stop };
}

/** Resolves at the server's own word that it listens. */
async function listening(server: ChildProcess): Promise<void> {
  if (server.stderr === null) throw new Error("docker-registry has no stderr");
  const lines = createInterface({ input: server.stderr });
  const said: string[] = [];
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => fail(`is not up after ${START_TIMEOUT_MS} ms`), START_TIMEOUT_MS);
    const fail = (why: string) => {
      clearTimeout(timer);
      reject(new Error(`docker-registry ${why}: ${said.join("\n")}`));
    };
    server.once(
      "error",
      (error) => fail(`cannot be started (install the package docker-registry): ${error.message}`),
    );
    server.once("close", (code) => fail(`exited with ${code}`));
    // Lines go on being read after the start, so that the pipe never fills up.
    lines.on("line", (line) => {
      if (said.length < 50) said.push(line);
      if (!line.includes("listening on")) return;
      clearTimeout(timer);
      resolve();
    });
  });
}

/** A port of 127.0.0.1 that nobody listened on a moment ago. */
export async function freePort(): Promise<number> {
  const probe = createServer();
  probe.listen(0, "127.0.0.1");
  await once(probe, "listening");
  const address = probe.address();
  if (address === null || typeof address === "string") throw new Error("A TCP server has no port");
  probe.close();
  await once(probe, "close");
  return address.port;
}
